//! What a refusal means: what backs off and for how long, and what may have been made all the same.

use std::time::Duration;

use jit_core::ledger::{Failure, Registration, Subject};
use jit_github::BackOff;

use crate::backend::BackendError;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn pod_failure(error: &BackendError) -> Failure {
    let back_off = match error {
        BackendError::Quota(_) => Some((Subject::Namespace, secs(0), secs(0))),
        BackendError::Refused(_) => Some((Subject::Profile, secs(30), secs(600))),
        BackendError::Unreachable(_) | BackendError::Unavailable(_) => Some((Subject::Global, secs(1), secs(60))),
        BackendError::Exists | BackendError::Gone(_) => None,
    };
    let made = matches!(error, BackendError::Unavailable(_) | BackendError::Exists);
    Failure { made, registration: Registration::None, back_off, why: format!("its pod could not be created: {error}") }
}

pub(super) fn registration_failure(error: &jit_github::Error, asked: bool, organization: Duration) -> Failure {
    let (subject, first, most) = match error.backs_off() {
        BackOff::Class => (Subject::Class, secs(30), secs(1800)),
        BackOff::Organization => (Subject::Org, organization, secs(1800)),
        // A credential that is refused is held by its calls, which grow the wait; here it is what was never sent.
        BackOff::Credential => (Subject::Credential, secs(25), secs(25)),
        BackOff::All => (Subject::Global, secs(2), secs(30)),
    };
    let first = error.retry_after().map_or(first, |said| said.max(secs(1)));
    // A name that is taken is one of ours whose answer was lost: another name will do.
    let back_off = (!matches!(error, jit_github::Error::NameTaken { .. })).then_some((subject, first, most.max(first)));
    let registration = if asked && error.uncertain() { Registration::Uncertain } else { Registration::None };
    Failure { made: true, registration, back_off, why: format!("GitHub: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_looked_up() {
        let what = || "POST".to_owned();
        let lost = registration_failure(&jit_github::Error::TimedOut { what: what(), after: secs(20) }, true, secs(60));
        assert_eq!((lost.registration, lost.made), (Registration::Uncertain, true));
        let group = registration_failure(&jit_github::Error::TimedOut { what: what(), after: secs(20) }, false, secs(60));
        assert_eq!(group.registration, Registration::None, "only its group was asked for");
        let refused = registration_failure(&jit_github::Error::Invalid { what: what(), said: "no".into() }, true, secs(60));
        assert_eq!(refused.registration, Registration::None);
        assert!(matches!(refused.back_off, Some((Subject::Class, ..))));
        assert!(!pod_failure(&BackendError::Quota("exceeded quota".into())).made);
        assert!(pod_failure(&BackendError::Unavailable("late".into())).made, "it may be there");
        assert!(!pod_failure(&BackendError::Unreachable("refused".into())).made, "nobody was asked");
    }
}
