//! What a refusal means: who is held back, narrowest first, for how long, and what may have been made all the same.

use std::time::Duration;

use jit_backend::BackendError;
use jit_core::ledger::{BackOff, Failure, Growth, Hold, LedgerError, Needs, Registration, Subject};
use jit_github::{BackOff as Reach, Scope};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of what Kubernetes refuses: a policy may mean one organization, a bad image everybody of its profile.
const POD: &[Subject] = &[Subject::Class, Subject::Org, Subject::Profile];
const CLUSTER: &[Subject] = &[Subject::Org, Subject::Global];
const EVERYTHING: &[Subject] = &[Subject::Global];
const CREDENTIAL: &[Subject] = &[Subject::Credential];
const REQUEST: &[Subject] = &[Subject::Class, Subject::Org];
/// An owner that has too many slow runners waits so long for the next.
const SLOW_WAIT: Duration = secs(2);

fn held(chain: &'static [Subject], first: Duration, most: Duration, growth: Growth) -> BackOff {
    BackOff::Hold(Hold {
        chain,
        needs: Needs::Made,
        first,
        most: most.max(first),
        growth,
    })
}

/// A limit of GitHub's holds back these until a time that is known.
pub(super) fn named(chain: &'static [Subject], wait: Duration) -> BackOff {
    held(chain, wait, wait, Growth::Named)
}

/// What Kubernetes refuses, of a pod or of its Secret.
fn cluster(error: &BackendError) -> BackOff {
    match error {
        BackendError::Quota(_) => BackOff::Quota,
        BackendError::Refused(_) => held(POD, secs(5), secs(600), Growth::Patient),
        BackendError::Unreachable(_) => held(EVERYTHING, secs(1), secs(60), Growth::Patient),
        BackendError::Unavailable(_) => held(CLUSTER, secs(1), secs(60), Growth::Patient),
        BackendError::Gone(_) => BackOff::Hold(Hold {
            chain: POD,
            needs: Needs::Started,
            first: secs(2),
            most: secs(600),
            growth: Growth::Patient,
        }),
        // Another name will do, as at GitHub; where it does not, it is no name that is meant.
        BackendError::Exists => held(POD, secs(5), secs(600), Growth::Again),
    }
}

/// What there is of a runner whose next step did not work. The step before it says so: see [`Stage`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    /// Nothing; the next step makes its pod.
    Nothing,
    /// A pod; the next step registers it.
    Pod,
    /// A pod and a registration whose id is in the ledger.
    Registration,
}

/// A runner on its way.
pub(super) trait Stage {
    /// What there is of it.
    const HOLDS: Holds;

    /// Gives it up, since its next step was refused.
    fn abandon(refusal: Refusal) -> Abandoned {
        Abandoned::Refused(refusal.step, refusal.failure(Self::HOLDS))
    }
}

/// Why a runner goes no step further.
#[derive(Debug)]
pub(super) enum Abandoned {
    /// A step was refused: its name, and what the ledger is to be told.
    Refused(&'static str, Failure),
    /// The runner was given up meanwhile, and is registered by this id: what was made is removed.
    Late(u64),
    /// The ledger did not take a step. The runner's deadline clears up.
    Untold(LedgerError),
}

impl From<LedgerError> for Abandoned {
    fn from(error: LedgerError) -> Self {
        Self::Untold(error)
    }
}

/// A step that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// As the metrics name it.
    pub(super) step: &'static str,
    /// What backs off, if anything.
    pub(super) back_off: Option<BackOff>,
    /// The step may have worked all the same: its answer was lost, or came too late.
    pub(super) uncertain: bool,
    /// A sentence for people.
    pub(super) why: String,
}

impl Refusal {
    /// What the ledger is told of it. What may have to be removed, and whether GitHub has to be asked before, follows
    /// from what there was before the step, and from whether the step may have worked.
    fn failure(self, holds: Holds) -> Failure {
        let (made, registration) = match (holds, self.uncertain) {
            (Holds::Nothing, made) => (made, Registration::None),
            (Holds::Pod, false) => (true, Registration::None),
            (Holds::Pod, true) => (true, Registration::Uncertain),
            (Holds::Registration, _) => (true, Registration::Known),
        };
        Failure {
            made,
            registration,
            back_off: self.back_off,
            why: self.why,
        }
    }

    /// Its owner has too many slow runners.
    pub(super) fn slow(owner: &str, slow: usize) -> Self {
        Self {
            step: "slow",
            back_off: Some(named(&[Subject::Org], SLOW_WAIT)),
            uncertain: false,
            why: format!(
                "{slow} runners of {owner} that this worker makes are slow: GitHub or Kubernetes takes long to answer \
                 for it"
            ),
        }
    }

    /// GitHub's limits leave no room for it now.
    pub(super) fn budget(back_off: Option<BackOff>, why: String) -> Self {
        Self {
            step: "budget",
            back_off,
            uncertain: false,
            why,
        }
    }

    /// Its worker woke up late.
    pub(super) fn too_late() -> Self {
        Self {
            step: "pod",
            back_off: None,
            uncertain: false,
            why: "its worker came too late to create its pod".to_owned(),
        }
    }

    /// Its pod was refused.
    pub(super) fn pod(error: &BackendError) -> Self {
        Self {
            step: "pod",
            back_off: Some(cluster(error)),
            uncertain: matches!(error, BackendError::Unavailable(_) | BackendError::Exists),
            why: format!("its pod could not be created: {error}"),
        }
    }

    /// Its Secret was refused, or would be.
    pub(super) fn delivery(error: &BackendError) -> Self {
        let back_off = match error {
            // Its pod was created a moment ago, so it is not the whole that is away; each try costs a registration.
            BackendError::Unreachable(words) => cluster(&BackendError::Unavailable(words.clone())),
            error => cluster(error),
        };
        Self {
            step: "delivery",
            back_off: Some(back_off),
            uncertain: false,
            why: format!("its JIT configuration could not be delivered: {error}"),
        }
    }

    /// GitHub refused, for its registration or for what comes before. `asked`: GitHub had been asked to register by
    /// then.
    pub(super) fn registration(error: &jit_github::Error, scope: &Scope, asked: bool, organization: Duration) -> Self {
        Self {
            step: "registration",
            back_off: Some(github(error, scope, organization)),
            uncertain: asked && error.uncertain(),
            why: format!("GitHub: {error}"),
        }
    }
}

/// Whose right it is that GitHub refuses, and who is away when it does not answer. Repositories have rights of their
/// own.
fn place(scope: &Scope) -> (&'static [Subject], &'static [Subject]) {
    match scope {
        Scope::Repository { .. } => (
            &[Subject::Scope, Subject::Org, Subject::Credential],
            &[Subject::Scope, Subject::Org, Subject::Global],
        ),
        _ => (&[Subject::Org, Subject::Credential], &[Subject::Org, Subject::Global]),
    }
}

/// Whether there was no connection at all, which means every owner.
fn unreachable(error: &jit_github::Error) -> bool {
    match error {
        jit_github::Error::NoToken { cause, .. } => unreachable(cause),
        error => matches!(error, jit_github::Error::Unreachable { .. }),
    }
}

/// What GitHub refuses, of a registration or of what comes before it.
fn github(error: &jit_github::Error, scope: &Scope, organization: Duration) -> BackOff {
    let (rights, answers) = place(scope);
    let said = error.retry_after().map(|said| said.max(secs(1)));
    match (error.backs_off(), said) {
        // GitHub has said when.
        (Reach::Credential, Some(said)) => named(CREDENTIAL, said),
        (Reach::Organization, Some(said)) => named(&[Subject::Org], said),
        // One of ours whose answer was lost may have the name, and another name will do. Where it does not, it is no
        // name that GitHub means.
        (Reach::Class, _) if matches!(error, jit_github::Error::NameTaken { .. }) => {
            held(REQUEST, secs(5), secs(1800), Growth::Again)
        }
        (Reach::Class, _) => held(REQUEST, secs(5), secs(1800), Growth::Patient),
        (Reach::Organization, None) => held(rights, organization, secs(1800), Growth::Patient),
        (Reach::Credential, None) => held(CREDENTIAL, secs(25), secs(300), Growth::Patient),
        (Reach::All, said) if unreachable(error) => {
            held(EVERYTHING, said.unwrap_or(secs(2)), secs(30), Growth::Patient)
        }
        (Reach::All, said) => held(answers, said.unwrap_or(secs(2)), secs(300), Growth::Patient),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(failure: &Failure) -> &'static [Subject] {
        let Some(BackOff::Hold(hold)) = failure.back_off else {
            panic!("{failure:?} holds nobody back")
        };
        hold.chain
    }

    fn failed(error: jit_github::Error, scope: &str, asked: bool) -> Failure {
        Refusal::registration(&error, &scope.parse().expect("a scope"), asked, secs(60)).failure(Holds::Pod)
    }

    fn of_pod(error: &BackendError) -> Failure {
        Refusal::pod(error).failure(Holds::Nothing)
    }

    #[test]
    fn what_may_have_happened_is_looked_up() {
        let what = || "POST".to_owned();
        let lost = failed(
            jit_github::Error::TimedOut {
                what: what(),
                after: secs(20),
            },
            "orgs/acme",
            true,
        );
        assert_eq!((lost.registration, lost.made), (Registration::Uncertain, true));
        let group = failed(
            jit_github::Error::TimedOut {
                what: what(),
                after: secs(20),
            },
            "orgs/acme",
            false,
        );
        assert_eq!(group.registration, Registration::None, "only its group was asked for");
        let refused = failed(
            jit_github::Error::Invalid {
                what: what(),
                said: "no".into(),
            },
            "orgs/acme",
            true,
        );
        assert_eq!((refused.registration, chain(&refused)), (Registration::None, REQUEST));
        assert!(!of_pod(&BackendError::Quota("exceeded quota".into())).made);
        assert!(
            of_pod(&BackendError::Unavailable("late".into())).made,
            "it may be there"
        );
        assert!(
            !of_pod(&BackendError::Unreachable("refused".into())).made,
            "nobody was asked"
        );
    }

    #[test]
    fn the_narrowest_is_held_first() {
        let forbidden = || jit_github::Error::Forbidden {
            what: "POST".into(),
            said: "no".into(),
        };
        assert_eq!(chain(&failed(forbidden(), "orgs/acme", true))[0], Subject::Org);
        assert_eq!(chain(&failed(forbidden(), "repos/acme/app", true))[0], Subject::Scope);
        let down = jit_github::Error::Server {
            what: "POST".into(),
            status: 502,
            said: "bad gateway".into(),
            retry_after: None,
        };
        assert_eq!(chain(&failed(down, "orgs/acme", true)), [Subject::Org, Subject::Global]);
        let unreachable = jit_github::Error::Unreachable {
            what: "POST".into(),
            why: "refused".into(),
        };
        assert_eq!(chain(&failed(unreachable, "orgs/acme", true)), [Subject::Global]);
        assert_eq!(
            chain(&of_pod(&BackendError::Refused("a policy".into())))[0],
            Subject::Class
        );
    }

    #[test]
    fn what_there_is_follows_from_the_step_before() {
        let refused = || BackendError::Refused("a policy".into());
        let told = |holds| {
            let failure = Refusal::delivery(&refused()).failure(holds);
            (failure.made, failure.registration)
        };
        assert_eq!(told(Holds::Nothing), (false, Registration::None), "asked ahead of time");
        assert_eq!(told(Holds::Registration), (true, Registration::Known));
        let late = Refusal::too_late().failure(Holds::Nothing);
        assert!(!late.made && late.back_off.is_none());
    }
}
