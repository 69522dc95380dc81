//! What an error of Redis means: another connection may help, waiting helps, or neither.

use redis::{ErrorKind, RedisError};

/// The server answers, and cannot serve for now: it is full, loading, a replica, wants another password, forbids, or is
/// a Cluster in trouble. None of it is the fault of what was asked, so the same may succeed later.
const PASSING: [&str; 21] = [
    "OOM",
    "READONLY",
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "BUSY",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "DENIED",
    "NOGROUP",
    "UNBLOCKED",
    "UNKILLABLE",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "NOSCRIPT",
    // Ours: raised by the ledger's scripts.
    "LEGACY",
];

/// Those of them that a command in a script may meet.
const INSIDE: [&str; 6] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "LEGACY"];

/// Words, without a code, for a command or a key in a script that the user may not use: of Redis 6.2 and 7.0; of Redis
/// 7.2 and later, and Valkey.
const FORBIDDEN_INSIDE: [&str; 2] = ["The user executing the script can't ", "ACL failure in script: "];

/// Answers that another connection need not get: the server is no master, or not yet; or the password has changed.
const ELSEWHERE: [&str; 6] = ["READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED", "NOAUTH", "WRONGPASS"];

/// The code of an error that Redis answered with. An error of a command in a script counts as that of the command:
/// Redis 7 hands its code on, Redis 6 wraps it into the text of an `ERR`.
fn code(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    if code == "ERR" {
        let text = error.detail().unwrap_or_default();
        if text.contains("max number of clients") {
            return Some("BUSY".into());
        }
        if FORBIDDEN_INSIDE.iter().any(|words| text.contains(words)) {
            return Some("NOPERM".into());
        }
        let inner = |code: &&&str| {
            text.starts_with(&format!("{code} "))
                || text.contains(&format!("-{code} "))
                || text.contains(&format!(" {code} "))
        };
        if let Some(code) = INSIDE.iter().find(inner) {
            return Some((*code).to_owned());
        }
    }
    Some(code.to_owned())
}

/// Whether the connection that gave this error should be thrown away: it is gone or silent, or leads to a server that
/// is not the master any more.
#[must_use]
pub fn wants_another_connection(error: &RedisError) -> bool {
    match code(error) {
        Some(code) => ELSEWHERE.contains(&code.as_str()),
        None => !matches!(
            error.kind(),
            ErrorKind::UnexpectedReturnType | ErrorKind::InvalidClientConfig | ErrorKind::Client
        ),
    }
}

/// Whether Redis answered, and refuses what it may well take later.
#[must_use]
pub fn is_refusal(error: &RedisError) -> bool {
    code(error).is_some_and(|code| PASSING.contains(&code.as_str()))
}

/// Whether there was an answer at all.
#[must_use]
pub fn is_answer(error: &RedisError) -> bool {
    error.code().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, detail: &str) -> RedisError {
        redis::make_extension_error(code.into(), Some(detail.into()))
    }

    #[test]
    fn a_refusal_passes_and_a_mistake_does_not() {
        for code in ["OOM", "READONLY", "MISCONF", "BUSY", "NOPERM", "WRONGPASS"] {
            assert!(is_refusal(&answered(code, "…")), "{code}");
        }
        // Redis 6.2 says so of a command in a script.
        let wrapped = "Error running script (call to f_6b1bf4): @user_script:1: @user_script: 1: -OOM command not \
         allowed when used memory > 'maxmemory'. ";
        assert!(is_refusal(&answered("ERR", wrapped)));
        assert!(is_refusal(&answered("ERR", "max number of clients reached")));
        for what in [
            "run this command or subcommand",
            "access at least one of the keys mentioned in the command arguments",
        ] {
            assert!(
                is_refusal(&answered(
                    "ERR",
                    &format!("The user executing the script can't {what} script: 39a34c, on @user_script:640.")
                )),
                "{what}"
            );
        }
        let newer = "ACL failure in script: User a has no permissions to run the 'sscan' command script: e4247f, on \
         @user_script:965.";
        assert!(is_refusal(&answered("ERR", newer)));
        for (code, detail) in [
            ("ERR", "unknown command"),
            ("WRONGTYPE", "Operation against a key"),
            ("ERR", "user_script:3: attempt to index a nil value"),
        ] {
            assert!(!is_refusal(&answered(code, detail)), "{code} {detail}");
        }
    }

    #[test]
    fn only_what_another_server_may_take_asks_for_another_connection() {
        let wrapped = "Error running script (call to f_6b1bf4): @user_script:1: @user_script: 1: -READONLY You can't \
         write against a read only replica. ";
        for error in [
            answered("READONLY", ""),
            answered("ERR", wrapped),
            answered("WRONGPASS", ""),
            RedisError::from((ErrorKind::Io, "gone")),
        ] {
            assert!(wants_another_connection(&error), "{error}");
        }
        for error in [
            answered("OOM", ""),
            answered("ERR", "unknown command"),
            RedisError::from((ErrorKind::UnexpectedReturnType, "not a number")),
        ] {
            assert!(!wants_another_connection(&error), "{error}");
        }
    }
}
