//! An owner gets another login. Its repositories redirect from where they were; its own old address answers 404, as
//! GitHub says of organizations.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::answer::Answer;
use super::api::Call;
use super::jobs::ControlError;
use super::model::{JobFacts, Repo, Scope};
use super::payload::Site;
use super::state::Server;

impl Server {
    /// Renames an owner, with all that is its.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when there is no such owner, or the new login is taken.
    pub fn rename_owner(&mut self, login: &str, new: &str) -> Result<(), ControlError> {
        let (old_key, new_key) = (login.to_lowercase(), new.to_lowercase());
        if new.is_empty() || new.contains('/') || (old_key != new_key && self.owners.contains_key(&new_key)) {
            return Err(ControlError::Invalid(format!("the login {new:?} cannot be had")));
        }
        let mut owner = self
            .owners
            .remove(&old_key)
            .ok_or_else(|| ControlError::Invalid(format!("no owner {login}")))?;
        (owner.login, owner.payload) = (new.into(), Default::default());
        for repo in owner.repos.values_mut() {
            *repo = Arc::new(Repo {
                owner: owner.login.clone(),
                payload: Default::default(),
                ..(**repo).clone()
            });
        }
        for job in self.jobs.values_mut().filter(|job| job.facts.repo.owner_id == owner.id) {
            if let Some(repo) = owner.repos.get(&job.facts.repo.key().1) {
                job.facts = Arc::new(JobFacts {
                    repo: repo.clone(),
                    ..(*job.facts).clone()
                });
            }
        }
        self.owners.insert(new_key.clone(), owner);
        self.moved.remove(&new_key);
        self.moved.insert(old_key.clone(), new.into());

        let moved = |scope: Scope| match scope {
            Scope::Organization(owner) if owner == old_key => Scope::Organization(new_key.clone()),
            Scope::Repository(owner, repo) if owner == old_key => Scope::Repository(new_key.clone(), repo),
            other => other,
        };
        for runner in self.runners.values_mut() {
            runner.scope = moved(runner.scope.clone());
        }
        self.names = std::mem::take(&mut self.names)
            .into_iter()
            .map(|((scope, name), id)| ((moved(scope), name), id))
            .collect();
        self.by_scope = std::mem::take(&mut self.by_scope)
            .into_iter()
            .map(|(scope, ids)| (moved(scope), ids))
            .collect();
        self.idle = rekeyed(&mut self.idle, moved);
        self.registrations = rekeyed(&mut self.registrations, moved);
        if let Some(jobs) = self.queued.remove(&old_key) {
            self.queued.insert(new_key.clone(), jobs);
        }
        if let Some(jobs) = self.unrequested.remove(&old_key) {
            self.unrequested.insert(new_key.clone(), jobs);
        }
        if let Some(gauges) = self.gauges.remove(&old_key) {
            self.gauges.insert(new_key.clone(), gauges);
        }
        Ok(())
    }

    /// The redirect of a repository whose owner was renamed.
    pub(super) fn redirect(&self, call: &Call, site: &Site) -> Option<Answer> {
        let Some(Scope::Repository(owner, _)) = &call.scope else {
            return None;
        };
        let new = self.moved.get(owner).filter(|_| !self.owners.contains_key(owner))?;
        let rest = call.path.split("/repos/").nth(1)?.split_once('/')?.1;
        let mut to = reqwest::Url::parse(&format!("{}/repos/{new}/{rest}", site.api)).ok()?;
        if !call.query.is_empty() {
            to.query_pairs_mut().extend_pairs(&call.query);
        }
        Some(Answer::error(301, "Moved Permanently").header("location", to))
    }
}

fn rekeyed<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: impl Fn(K) -> K) -> HashMap<K, V> {
    std::mem::take(map)
        .into_iter()
        .map(|(old, value)| (key(old), value))
        .collect()
}
