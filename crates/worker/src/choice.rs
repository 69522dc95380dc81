//! Which of an owner's credentials is used: the one with the most calls left, of those that GitHub does not refuse.
//!
//! The calls left are those that GitHub last told this worker of the hour; a credential that it told nothing of has all
//! of them. A refused credential stands behind the others until another try is worth it. So a refusal costs one call,
//! or none where the ledger knows of the limit, and the owner's jobs go on with the next credential. Recovery asks with
//! an owner's first credential alone.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jit_github::{BackOff, Client, Credential, Error, Scope};
use tokio::time::Instant;

use crate::Worker;

/// A credential that is refused without a word of when it is not, stands behind the others for so long.
const REFUSED: Duration = Duration::from_secs(25);
/// And for so long at least: longer than it takes to try all others.
const AT_LEAST: Duration = Duration::from_secs(5);

/// What this worker knows of credentials that were refused. Clones are the same.
#[derive(Clone, Default)]
pub struct Choice(Arc<Mutex<HashMap<(Arc<str>, String), Instant>>>);

impl Choice {
    fn refused(&self) -> MutexGuard<'_, HashMap<(Arc<str>, String), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best of those that serve this owner.
    fn best(&self, serving: Vec<Credential>, owner: &str, left: impl Fn(&Credential) -> u64) -> Option<Credential> {
        let (refused, now) = (self.refused(), Instant::now());
        let until = |credential: &Credential| {
            refused
                .get(&(credential.name.clone(), owner.to_lowercase()))
                .copied()
                .filter(|until| *until > now)
        };
        serving
            .into_iter()
            .min_by_key(|credential| (until(credential), Reverse(left(credential))))
    }

    /// It became another: whatever refused it, did not refuse this one.
    pub(crate) fn renewed(&self, name: &str) {
        self.refused().retain(|(refused, _), _| &**refused != name);
    }

    /// It is refused at this owner. Whether one of the others is not.
    fn refuse(&self, credential: &Credential, serving: &[Credential], owner: &str, wait: Duration) -> bool {
        let (mut refused, now) = (self.refused(), Instant::now());
        refused.retain(|_, until| *until > now);
        refused.insert(
            (credential.name.clone(), owner.to_lowercase()),
            now + wait.max(AT_LEAST),
        );
        serving
            .iter()
            .any(|other| !refused.contains_key(&(other.name.clone(), owner.to_lowercase())))
    }
}

impl Worker {
    /// As whom GitHub is called at this scope now.
    ///
    /// # Errors
    /// [`Error::NotServed`].
    pub fn credential(&self, scope: &Scope) -> Result<Credential, Error> {
        let left = |credential: &Credential| {
            self.rates
                .left(&credential.name, credential.client.is_app().then(|| scope.owner()))
                .unwrap_or(u64::MAX)
        };
        self.choice
            .best(self.github.serving(scope.owner()), scope.owner(), left)
            .ok_or_else(|| self.github.not_served(scope))
    }

    /// Sets a credential aside at this scope for a while. Whether another may be tried at once.
    pub(crate) fn set_aside(&self, credential: &Credential, scope: &Scope, wait: Duration) -> bool {
        self.choice
            .refuse(credential, &self.github.serving(scope.owner()), scope.owner(), wait)
    }

    /// Sets a credential aside where an error of GitHub's means it. Whether another may be tried at once.
    pub(crate) fn set_aside_on(&self, credential: &Credential, scope: &Scope, error: &Error) -> bool {
        let of_credential = match error.backs_off() {
            BackOff::Credential => true,
            // that one is the scope's, whoever asks
            BackOff::Organization => !matches!(error, Error::RegistrationLimit { .. }),
            BackOff::Class | BackOff::All => false,
        };
        of_credential && self.set_aside(credential, scope, error.retry_after().unwrap_or(REFUSED))
    }

    /// Calls GitHub with the owner's best credential, and with the next one as long as one is refused.
    ///
    /// # Errors
    /// The last credential's.
    pub(crate) async fn with_client<T, F: Future<Output = Result<T, Error>>>(
        &self,
        scope: &Scope,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Error> {
        loop {
            let credential = self.credential(scope)?;
            match call(credential.client.clone()).await {
                Err(error) if self.set_aside_on(&credential, scope, &error) => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jit_github::ClientOptions;

    use super::*;

    fn credential(name: &str) -> Credential {
        let options = ClientOptions::new("http://127.0.0.1:9/".parse().expect("a URL"), Arc::new(|| "t".into()));
        Credential::new(name, &["acme".to_owned()], Client::new(options).expect("a client"))
    }

    #[tokio::test(start_paused = true)]
    async fn most_left_wins_and_what_is_refused_comes_last() {
        let (choice, all) = (Choice::default(), ["a", "b", "c"].map(credential));
        let left = |credential: &Credential| match &*credential.name {
            "a" => 10,
            _ => 4000,
        };
        let best = |choice: &Choice| {
            choice
                .best(all.to_vec(), "Acme", left)
                .map(|credential| credential.name.to_string())
        };
        assert_eq!(best(&choice).as_deref(), Some("b"), "the first of those with the most");
        assert!(choice.refuse(&all[1], &all, "acme", REFUSED));
        assert_eq!(best(&choice).as_deref(), Some("c"));
        assert!(choice.refuse(&all[2], &all, "acme", REFUSED * 3));
        assert_eq!(best(&choice).as_deref(), Some("a"));
        assert!(!choice.refuse(&all[0], &all, "acme", REFUSED * 2), "none is left");
        assert_eq!(best(&choice).as_deref(), Some("b"), "the one whose time ends first");
        assert!(
            choice.refuse(&all[0], &all, "other", REFUSED),
            "another owner is another matter"
        );
        tokio::time::advance(REFUSED * 2 + Duration::from_secs(1)).await;
        assert_eq!(best(&choice).as_deref(), Some("b"));
    }
}
