//! The environment of a runner process: none of the worker's secrets.

use std::ffi::{OsStr, OsString};

/// What a runner gets of the worker's environment, beside `RUNNER_*`.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Parts of names that are secrets even where they begin with `RUNNER_`.
const SECRET: [&str; 4] = ["TOKEN", "SECRET", "PASSWORD", "KEY"];

/// The part of an environment that runners get.
pub(super) fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let passes = |name: &OsStr| {
        let name = name.to_str()?;
        let ours = name.starts_with("RUNNER_") && !SECRET.iter().any(|secret| name.contains(secret));
        (ours || INHERITED.contains(&name)).then_some(())
    };
    all.filter(|(name, _)| passes(name).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_passes() {
        let names = [
            "PATH",
            "HOME",
            "LANG",
            "TMPDIR",
            "RUNNER_LABELS",
            "RUNNER_COMMAND",
            "GITHUB_PAT",
            "GITHUB_TOKEN",
            "GITHUB_PAT_FILE",
            "GITHUB_APP_PRIVATE_KEY",
            "WEBHOOK_SECRET",
            "WEBHOOK_SECRET_FILE",
            "WEBHOOK_SECRET_PREVIOUS",
            "ADMIN_API_KEY",
            "REDIS_PASSWORD",
            "REDIS_URL",
            "KUBECONFIG",
            "RUNNER_TOKEN",
            "RUNNER_REGISTRATION_TOKEN_FILE",
            "AWS_SECRET_ACCESS_KEY",
        ];
        let passed = environment(names.into_iter().map(|name| (name.into(), "x".into())));
        let passed: Vec<_> = passed.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(
            passed,
            ["PATH", "HOME", "LANG", "TMPDIR", "RUNNER_LABELS", "RUNNER_COMMAND"]
        );
    }
}
