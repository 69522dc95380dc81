//! What a refusal means: who is held back, narrowest first, for how long, and what may have been made all the same.

use std::time::Duration;

use jit_core::ledger::{BackOff, Failure, Growth, Hold, Needs, Registration, Subject};
use jit_github::{BackOff as Reach, Scope};

use jit_backend::BackendError;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of what Kubernetes refuses: a policy may mean one organization, a bad image everybody of its profile.
const POD: &[Subject] = &[Subject::Class, Subject::Org, Subject::Profile];
const CLUSTER: &[Subject] = &[Subject::Org, Subject::Global];
const EVERYTHING: &[Subject] = &[Subject::Global];
const CREDENTIAL: &[Subject] = &[Subject::Credential];
const REQUEST: &[Subject] = &[Subject::Class, Subject::Org];

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

pub(super) fn pod_failure(error: &BackendError) -> Failure {
    let made = matches!(error, BackendError::Unavailable(_) | BackendError::Exists);
    Failure {
        made,
        registration: Registration::None,
        back_off: Some(cluster(error)),
        why: format!("its pod could not be created: {error}"),
    }
}

/// Its Secret was refused, after the registration.
pub(super) fn delivery_failure(error: &BackendError) -> Failure {
    let why = format!("its JIT configuration could not be delivered: {error}");
    let back_off = match error {
        // Its pod was created a moment ago, so it is not the whole that is away; each try costs a registration.
        BackendError::Unreachable(words) => cluster(&BackendError::Unavailable(words.clone())),
        error => cluster(error),
    };
    Failure {
        made: true,
        registration: Registration::Known,
        back_off: Some(back_off),
        why,
    }
}

/// Its Secret would be refused: nothing was made.
pub(super) fn undeliverable(error: &BackendError) -> Failure {
    Failure {
        made: false,
        registration: Registration::None,
        ..delivery_failure(error)
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

/// A registration that did not work. `asked`: GitHub had been asked to register by then.
pub(super) fn registration_failure(
    error: &jit_github::Error,
    scope: &Scope,
    asked: bool,
    organization: Duration,
) -> Failure {
    let (rights, answers) = place(scope);
    let said = error.retry_after().map(|said| said.max(secs(1)));
    let back_off = match (error.backs_off(), said) {
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
    };
    let registration = if asked && error.uncertain() {
        Registration::Uncertain
    } else {
        Registration::None
    };
    Failure {
        made: true,
        registration,
        back_off: Some(back_off),
        why: format!("GitHub: {error}"),
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
        registration_failure(&error, &scope.parse().expect("a scope"), asked, secs(60))
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
        assert!(!pod_failure(&BackendError::Quota("exceeded quota".into())).made);
        assert!(
            pod_failure(&BackendError::Unavailable("late".into())).made,
            "it may be there"
        );
        assert!(
            !pod_failure(&BackendError::Unreachable("refused".into())).made,
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
            chain(&pod_failure(&BackendError::Refused("a policy".into())))[0],
            Subject::Class
        );
    }
}
