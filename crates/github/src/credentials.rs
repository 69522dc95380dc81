//! Several credentials, each with the owners that it serves.
//!
//! Invariants: those that name an owner serve it, else those that serve `*`; the first of them stands for the owner
//! where one is enough. Owners are compared without regard to case, as GitHub compares logins. A set that is replaced
//! is replaced whole; whoever holds a credential of the old one finishes with it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::client::Client;
use crate::error::Error;
use crate::scope::Scope;
use crate::words::tidy;

/// Serves every owner that no other credential names.
pub const EVERYBODY: &str = "*";

/// A client, and whom it serves. Clones share everything.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name in the ledger, in metrics and logs; unique in its set.
    pub name: Arc<str>,
    /// Logins of organizations and users, slugs of enterprises, or `*`.
    pub owners: Arc<[String]>,
    /// What calls GitHub with it.
    pub client: Client,
}

impl Credential {
    /// A credential of this name that serves these owners.
    #[must_use]
    pub fn new(name: &str, owners: &[String], client: Client) -> Self {
        Self {
            name: name.into(),
            owners: owners.iter().map(|owner| fold(owner)).collect(),
            client,
        }
    }

    /// What GitHub counts calls of, as far as this scope goes: the name of its budget.
    ///
    /// A token has one hour of calls; an App has one at each owner where it is installed.
    #[must_use]
    pub fn account(&self, scope: &Scope) -> String {
        self.account_of(self.client.is_app().then(|| scope.owner()))
    }

    /// The same, of an App's installation at an owner or of the credential itself.
    #[must_use]
    pub fn account_of(&self, owner: Option<&str>) -> String {
        Self::account_named(&self.name, owner)
    }

    /// The same, of the credential of this name.
    #[must_use]
    pub fn account_named(name: &str, owner: Option<&str>) -> String {
        owner.map_or_else(|| name.to_owned(), |owner| format!("{name}/{}", fold(owner)))
    }

    /// How well it serves an owner (folded already): not at all, as everybody, or by name.
    fn serves(&self, owner: &str) -> Option<bool> {
        if self.owners.iter().any(|own| own == owner) {
            return Some(true);
        }
        self.owners.iter().any(|own| own == EVERYBODY).then_some(false)
    }
}

/// All credentials of a process. Clones are the same set.
#[derive(Clone)]
pub struct Credentials(Arc<Set>);

struct Set {
    /// What an operator mends when an owner is served by none, for example
    /// `GITHUB_CREDENTIALS_FILE=/etc/jit/credentials.yaml`.
    source: String,
    list: RwLock<Arc<[Credential]>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("source", &self.0.source)
            .field("list", &self.all())
            .finish()
    }
}

impl Credentials {
    /// A set. `source` names what an operator mends where no credential serves an owner.
    #[must_use]
    pub fn new(source: impl Into<String>, list: Vec<Credential>) -> Self {
        Self(Arc::new(Set {
            source: source.into(),
            list: RwLock::new(list.into()),
        }))
    }

    /// Those that serve this owner: login of an organization or user, or slug of an enterprise.
    #[must_use]
    pub fn serving(&self, owner: &str) -> Vec<Credential> {
        let owner = fold(owner);
        let all = self.all();
        let those = |by_name: bool| {
            all.iter()
                .filter(|credential| credential.serves(&owner) == Some(by_name))
                .cloned()
                .collect::<Vec<_>>()
        };
        let by_name = those(true);
        if by_name.is_empty() { those(false) } else { by_name }
    }

    /// The first that serves a scope's owner.
    ///
    /// # Errors
    /// [`Error::NotServed`], which says what to mend.
    pub fn of(&self, scope: &Scope) -> Result<Credential, Error> {
        self.serving(scope.owner())
            .into_iter()
            .next()
            .ok_or_else(|| self.not_served(scope))
    }

    /// That none serves a scope's owner.
    #[must_use]
    pub fn not_served(&self, scope: &Scope) -> Error {
        Error::NotServed {
            owner: tidy(scope.owner()),
            source_of_credentials: self.0.source.clone(),
        }
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn all(&self) -> Arc<[Credential]> {
        self.0.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the set: what is under way finishes with the old one.
    pub fn replace(&self, list: Vec<Credential>) {
        *self.0.list.write().unwrap_or_else(PoisonError::into_inner) = list.into();
    }
}

/// GitHub compares logins without regard to case; they are ASCII.
fn fold(owner: &str) -> String {
    owner.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::ClientOptions;

    fn credential(name: &str, owners: &[&str]) -> Credential {
        let options = ClientOptions::new("http://127.0.0.1:9/".parse().unwrap(), Arc::new(|| "t".into()));
        Credential::new(
            name,
            &owners.iter().map(|owner| (*owner).to_owned()).collect::<Vec<_>>(),
            Client::new(options).unwrap(),
        )
    }

    #[test]
    fn a_name_wins_over_everybody() {
        let set = Credentials::new(
            "FILE",
            vec![credential("rest", &["*"]), credential("acme", &["Acme", "acme-labs"])],
        );
        let serving = |owner: &str| {
            set.serving(owner)
                .iter()
                .map(|credential| credential.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(serving("aCME"), ["acme"]);
        assert_eq!(serving("octocat"), ["rest"]);
        set.replace(vec![credential("acme", &["Acme"]), credential("acme-2", &["acme"])]);
        assert_eq!(serving("ACME"), ["acme", "acme-2"]);
        assert!(serving("octocat").is_empty());
        let error = set.of(&"repos/octocat/app".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no credential serves octocat: name it among the owners of one in FILE"
        );
        assert_eq!(error.backs_off(), crate::BackOff::Organization);
    }

    proptest! {
        /// Those that name an owner, whatever its case, else those for everybody; in the order of the list.
        #[test]
        fn who_names_an_owner_serves_it(sets in prop::collection::vec(prop::collection::vec("[a-c*]", 1..3), 0..4),
            owner in "[a-dA-D]") {
            let list = sets.iter().enumerate().map(|(i, owners)| credential(&i.to_string(),
                &owners.iter().map(String::as_str).collect::<Vec<_>>())).collect();
            let folded = owner.to_lowercase();
            let of = |wanted: &str| -> Vec<String> {
                let those = sets.iter().enumerate().filter(|(_, owners)| owners.iter().any(|owner| owner == wanted));
                those.map(|(i, _)| i.to_string()).collect()
            };
            let expected = if of(&folded).is_empty() { of("*") } else { of(&folded) };
            let found: Vec<_> = Credentials::new("FILE",
                list).serving(&owner).iter().map(|credential| credential.name.to_string()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
