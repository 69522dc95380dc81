//! Where a runner registers and as whom, and what a limit or a refusal there holds back.

use std::time::Duration;

use jit_core::ledger::{BackOff, Subject, Whose};
use jit_github::{BackOff as Reach, Credential, Scope};

use super::failure::{Refusal, named};
use crate::Worker;

/// Where a runner is to be registered, and as whom.
pub(super) struct Registrar {
    pub(super) credential: Credential,
    /// Whether no other credential serves its owner.
    pub(super) alone: bool,
    pub(super) scope: Scope,
}

/// An owner that several credentials serve, none of which may do anything now, is held back for so long at most: a
/// new one may come at any time.
const OF_SEVERAL: Duration = Duration::from_secs(30);

/// What holds it back: not a credential, which would hold back all that it serves alone.
fn of_several(wait: Duration) -> BackOff {
    named(&[Subject::Org], wait.min(OF_SEVERAL))
}

impl Registrar {
    pub(super) fn of(worker: &Worker, scope: &str) -> Result<Self, jit_github::Error> {
        let invalid = |error: jit_github::ScopeError| jit_github::Error::Invalid {
            what: format!("scope {scope:?}"),
            said: error.to_string(),
        };
        let scope: Scope = scope.parse().map_err(invalid)?;
        Ok(Self {
            credential: worker.credential(&scope)?,
            alone: worker.github.serving(scope.owner()).len() == 1,
            scope,
        })
    }

    /// The owner that it registers for, in lower case.
    pub(super) fn owner(&self) -> String {
        self.scope.owner().to_lowercase()
    }

    /// What is held back by a limit of GitHub's.
    fn holds(&self, whose: Whose) -> &'static [Subject] {
        match (whose, &self.scope) {
            (Whose::Scope, Scope::Enterprise(_)) => &[Subject::Global],
            // An owner's other repositories have windows of their own.
            (Whose::Scope, Scope::Repository { .. }) => &[Subject::Scope],
            (Whose::Scope, _) => &[Subject::Org],
            (Whose::Credential, scope) if self.is_one_installations(scope) => &[Subject::Org],
            (Whose::Credential, _) => &[Subject::Credential],
        }
    }

    /// Whether the hour's calls are counted for this organization alone: an App has one at each owner.
    fn is_one_installations(&self, scope: &Scope) -> bool {
        self.credential.client.is_app() && !matches!(scope, Scope::Enterprise(_))
    }

    /// What a limit that is kept ahead of time holds back. The owner of a limited credential goes on with the next,
    /// where there is one.
    pub(super) fn limited(&self, worker: &Worker, whose: Whose, wait: Duration, why: String) -> Refusal {
        let back_off = match whose {
            Whose::Credential if !self.alone => {
                (!worker.set_aside(&self.credential, &self.scope, wait)).then(|| of_several(wait))
            }
            _ => Some(named(self.holds(whose), wait)),
        };
        Refusal::budget(self.if_served(worker, back_off), why)
    }

    /// What GitHub's refusal means. `asked`: it had been asked to register by then.
    pub(super) fn refused(&self, worker: &Worker, error: &jit_github::Error, asked: bool) -> Refusal {
        let refusal = Refusal::registration(error, &self.scope, asked, worker.organization_backoff);
        let whose = match error {
            jit_github::Error::PrimaryLimit { .. } | jit_github::Error::Held { .. } => Some(Whose::Credential),
            jit_github::Error::RegistrationLimit { .. } => Some(Whose::Scope),
            _ => None,
        };
        let limit = whose.and_then(|whose| {
            Some(named(
                self.holds(whose),
                error.retry_after()?.max(Duration::from_secs(1)),
            ))
        });
        let back_off = match error.backs_off() {
            _ if !self.alone && worker.set_aside_on(&self.credential, &self.scope, error) => None,
            Reach::Credential if !self.alone => Some(of_several(error.retry_after().unwrap_or(OF_SEVERAL))),
            _ => limit.or(refusal.back_off),
        };
        Refusal {
            back_off: self.if_served(worker, back_off),
            ..refusal
        }
    }

    /// What is refused to a credential that was replaced meanwhile says nothing of the next, and holds back nobody.
    fn if_served(&self, worker: &Worker, back_off: Option<BackOff>) -> Option<BackOff> {
        back_off.filter(|_| self.is_served(worker))
    }

    /// Whether this credential still serves here.
    fn is_served(&self, worker: &Worker) -> bool {
        let is_this =
            |now: &Credential| now.name == self.credential.name && now.client.is_same(&self.credential.client);
        worker.github.serving(self.scope.owner()).iter().any(is_this)
    }
}
