//! The API server's refusals, by what is to be done about each.

use kube::core::Status;

use crate::{BackendError, bounded};

/// The object that a deletion met, if there was one.
pub(super) fn found<T>(deleted: kube::Result<T>) -> Result<Option<T>, BackendError> {
    match deleted {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

/// An error as the backend's callers act on it.
pub(super) fn refusal(error: kube::Error) -> BackendError {
    let status = match error {
        kube::Error::Api(status) => status,
        error if unreachable(&error) => return BackendError::Unreachable(bounded(&chain(&error))),
        error => return BackendError::Unavailable(bounded(&chain(&error))),
    };
    let Status {
        code, reason, message, ..
    } = *status;
    let text = bounded(&message);
    match code {
        409 if reason == "AlreadyExists" => BackendError::Exists,
        // Several things answer 403; only the quota's admission plugin says this.
        403 if message.contains("exceeded quota") => BackendError::Quota(text),
        // 404 here is the namespace; 413 a manifest that is too large.
        400 | 403 | 404 | 413 | 422 => BackendError::Refused(text),
        _ => BackendError::Unavailable(bounded(&format!("{code} {reason}: {message}"))),
    }
}

/// Tells whether no connection came about, so that nothing was sent that could have been carried out.
fn unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

/// An error with its causes: those of the HTTP client alone say nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> BackendError {
        refusal(kube::Error::Api(
            Status::failure(message, reason).with_code(code).boxed(),
        ))
    }

    #[test]
    fn errors_say_what_to_do() {
        let quota =
            r#"pods "r-1" is forbidden: exceeded quota: runners, requested: pods=1, used: pods=3, limited: pods=3"#;
        assert!(matches!(refused(403, "Forbidden", quota), BackendError::Quota(text) if text == quota));
        let policy = r#"pods "r-1" is forbidden: violates PodSecurity "baseline:latest": privileged"#;
        assert!(matches!(refused(403, "Forbidden", policy), BackendError::Refused(text) if text == policy));
        assert!(matches!(refused(422, "Invalid", "image"), BackendError::Refused(_)));
        assert!(matches!(refused(400, "BadRequest", "x"), BackendError::Refused(_)));
        assert!(matches!(
            refused(404, "NotFound", "namespace"),
            BackendError::Refused(_)
        ));
        assert!(matches!(refused(409, "AlreadyExists", "x"), BackendError::Exists));
        // The quota's own record was changed at the same time: worth another try, and no sign of a second runner.
        assert!(matches!(
            refused(409, "Conflict", "quota"),
            BackendError::Unavailable(_)
        ));
        for code in [401, 429, 500, 503, 504] {
            assert!(
                matches!(refused(code, "x", "y"), BackendError::Unavailable(text) if text == format!("{code} x: y"))
            );
        }
    }
}
