//! Runner groups: from a group's name to the id that `generate-jitconfig` requires.
//!
//! Ids are cached here, by scope and name, without expiry: an id never changes while its group lives, and asking again
//! for each runner would double the calls. What can go wrong is that the group was deleted, or made anew under its old
//! name; then GitHub refuses the old id (403, 404 or 422), and [`Client::generate_jit_config`] drops what is cached of
//! that scope and id, so the next runner asks again. That a name is not there is not cached. A group that is renamed
//! keeps serving under its old name until the process restarts, which harms nobody: it is the same group.
//!
//! Where runners must not join groups that allow public repositories
//! ([`ClientOptions::no_public_groups`](crate::ClientOptions)), what GitHub said of a group holds for an hour: an
//! operator may change it at any time.

use std::ops::ControlFlow;

use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::pages::Page;
use crate::scope::Scope;
use crate::words::tidy;

/// The id of the group that is always there; a repository has no other. GitHub lists none there, and its own example
/// registers at 1.
const DEFAULT_GROUP: u64 = 1;

/// A group as GitHub lists it.
#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
    /// Whether it is the one that every organization and enterprise has from the start.
    #[serde(default)]
    default: bool,
    /// Whether jobs of public repositories go to its runners. A server that does not say is taken for one that does.
    #[serde(default = "yes")]
    allows_public_repositories: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct RunnerGroups {
    total_count: u64,
    runner_groups: Vec<Group>,
}

impl Page for RunnerGroups {
    type Item = Group;

    fn into_parts(self) -> (u64, Vec<Group>) {
        (self.total_count, self.runner_groups)
    }

    fn id(item: &Group) -> u64 {
        item.id
    }
}

impl Client {
    /// The id of the runner group `name` at `scope`, without regard to case; `default` is the group that GitHub marks
    /// so, whatever its name. Cached.
    ///
    /// A repository has no groups: the answer is 1, and GitHub is not asked. Where the groups of an organization are
    /// not to be seen (a plan or a server without them, a token without the right to read them) or none is marked so,
    /// `default` is 1 as well: GitHub gives that id to the group that is always there.
    ///
    /// # Errors
    /// [`Error::NoSuchGroup`]; [`Error::PublicGroup`], where the options allow none that takes jobs of public
    /// repositories; or as any call.
    pub async fn runner_group_id(&self, scope: &Scope, name: &str) -> Result<u64, Error> {
        if let Scope::Repository { .. } = scope {
            return Ok(DEFAULT_GROUP);
        }
        let key = (scope.clone(), name.to_lowercase());
        let private = self.transport().options().no_public_groups;
        if let Some(id) = self.groups().get(&key, !private) {
            return Ok(id);
        }
        let wants_default = key.1 == "default";
        let mut found = None;
        let what = format!("runner groups of {scope}");
        let listed = self.each::<RunnerGroups>("runner-groups", &what, scope, "runner-groups", &[], |group| {
            let is_it = if wants_default {
                group.default
            } else {
                group.name == name
            };
            if is_it || (found.is_none() && group.name.to_lowercase() == key.1) {
                found = Some((group.id, group.allows_public_repositories));
            }
            // A name of other case is taken only when no page has the very name.
            if is_it {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match listed.await {
            Err(Error::NotFound { .. } | Error::Forbidden { .. }) if wants_default => {}
            listed => {
                listed?;
            }
        }
        let (told, group) = (tidy(&scope.to_string()), name.to_owned());
        let id = match found {
            Some((_, public)) if private && public => {
                return Err(Error::PublicGroup {
                    scope: told,
                    group,
                    known: true,
                });
            }
            Some((id, _)) => id,
            None if wants_default && private => {
                return Err(Error::PublicGroup {
                    scope: told,
                    group,
                    known: false,
                });
            }
            None if wants_default => DEFAULT_GROUP,
            None => return Err(Error::NoSuchGroup { scope: told, group }),
        };
        self.groups().put(key, id);
        Ok(id)
    }
}
