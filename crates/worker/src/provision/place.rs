//! Where a runner registers and as whom, and what a limit or a refusal there holds back.

use std::time::Duration;

use jit_core::ledger::{Failure, Subject, Whose};
use jit_github::{Credential, Scope};

use super::failure::{named, registration_failure};
use crate::{Worker, backend::RunnerSpec};

/// Where a runner is to be registered, and as whom.
pub(super) struct Place {
    pub(super) credential: Credential,
    pub(super) scope: Scope,
}

impl Place {
    pub(super) fn of(worker: &Worker, scope: &str) -> Result<Self, jit_github::Error> {
        let invalid = |error: jit_github::ScopeError| jit_github::Error::Invalid { what: format!("scope {scope:?}"), said: error.to_string() };
        let scope: Scope = scope.parse().map_err(invalid)?;
        Ok(Self { credential: worker.github.of(&scope)?, scope })
    }

    /// What is held back by a limit of GitHub's.
    pub(super) fn holds(&self, whose: Whose, spec: &RunnerSpec) -> &'static [Subject] {
        match (whose, &self.scope) {
            (Whose::Scope, Scope::Enterprise(_)) => &[Subject::Global],
            // An organization's other repositories have windows of their own; a user's repository stands for an organization.
            (Whose::Scope, Scope::Repository { .. }) if !spec.org.contains('/') => &[Subject::Scope],
            (Whose::Scope, _) => &[Subject::Org],
            (Whose::Credential, scope) if self.is_one_installations(scope) => &[Subject::Org],
            (Whose::Credential, _) => &[Subject::Credential],
        }
    }

    /// Whether the hour's calls are counted for this organization alone: an App has one at each owner.
    pub(super) fn is_one_installations(&self, scope: &Scope) -> bool {
        self.credential.client.is_app() && !matches!(scope, Scope::Enterprise(_))
    }

    pub(super) fn failure(&self, error: &jit_github::Error, spec: &RunnerSpec, asked: bool, organization: Duration) -> Failure {
        let failure = registration_failure(error, &self.scope, &spec.org, asked, organization);
        let whose = match error {
            jit_github::Error::PrimaryLimit { .. } | jit_github::Error::Held { .. } => Some(Whose::Credential),
            jit_github::Error::RegistrationLimit { .. } => Some(Whose::Scope),
            _ => None,
        };
        let limit = whose.and_then(|whose| Some(named(self.holds(whose, spec), error.retry_after()?.max(Duration::from_secs(1)))));
        Failure { back_off: limit.or(failure.back_off), ..failure }
    }

    /// Whether this credential still serves here. What is refused to one that was replaced meanwhile holds back nobody.
    pub(super) fn is_served(&self, worker: &Worker) -> bool {
        worker.github.of(&self.scope).is_ok_and(|now| now.name == self.credential.name && now.client.is_same(&self.credential.client))
    }
}
