//! Configuration: environment variables that are also flags, checked together, so that one error lists everything that
//! is wrong.
//!
//! Each group of variables is one `clap::Args` struct of plain text and one checked struct that it resolves to. Values
//! are read as text on purpose: clap would stop at the first that cannot be parsed. A secret `X` is taken from the
//! environment or from the file that `X_FILE` names, never from a flag, since command lines can be read by anybody on
//! the machine.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

mod command_line;
mod credentials;
mod github;
mod limits;
mod owners;
mod secret;

pub use command_line::{CommandLine, parse, parse_tool};
pub use credentials::{
    CheckKey, CredentialSettings, CredentialsArgs, CredentialsFile, CredentialsSettings, DEFAULT_CREDENTIAL,
    LoginSettings,
};
pub use github::{DEFAULT_PROFILE, GithubArgs, GithubSettings, Scope};
pub use limits::{LimitsArgs, LimitsSettings, MAX_LIMIT, ORG_LIMITS_SIZE, parse_org_limits, read_org_limits};
pub use owners::Owners;
pub use secret::{Door, Secret, gone_files};

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{} wrong in the configuration:{}", if .0.len() == 1 { "one thing is".into() } else { format!("{} things \
 are", .0.len()) }, .0.iter().map(|line| format!("\n  - {line}")).collect::<String>())]
pub struct ConfigError(Vec<String>);

/// Collects what is wrong, so that it can be told at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes one more problem: the variable, what is wrong with it, what to do.
    pub fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// How many there are so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, or a note of the problem and a stand-in that nobody will see.
    pub fn check<T: Default, E: Display>(&mut self, variable: &str, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| {
            self.add(format!("{variable}: {error}"));
            T::default()
        })
    }

    /// A whole number between `low` and `high`.
    pub fn number(&mut self, variable: &str, text: &str, low: u64, high: u64) -> u64 {
        match u64::from_str(text.trim()) {
            Ok(number) if (low..=high).contains(&number) => number,
            _ => {
                self.add(format!("{variable}={text:?}: use a whole number from {low} to {high}"));
                low
            }
        }
    }

    /// A positive time such as `5s`, `10m`, `1h` or `250ms`; a bare number is seconds.
    pub fn duration(&mut self, variable: &str, text: &str) -> Duration {
        let text = text.trim();
        let parsed = match text.parse::<u32>() {
            Ok(seconds) => Some(Duration::from_secs(seconds.into())),
            Err(_) => text
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok()),
        };
        parsed.filter(|duration| !duration.is_zero()).unwrap_or_else(|| {
            self.add(format!(
                "{variable}={text:?}: use a time above zero such as 5s, 10m, 1h"
            ));
            Duration::from_secs(1)
        })
    }

    /// An address and a port to listen on; an IPv6 address with or without brackets.
    pub fn listen(&mut self, address: &str, port: &str) -> SocketAddr {
        let port = self.number("PORT", port, 0, u16::MAX.into());
        let address = address.trim().trim_matches(['[', ']']).parse().unwrap_or_else(|_| {
            self.add(format!(
                "LISTEN_ADDRESS={address:?}: use an IP address, for example 0.0.0.0 or ::"
            ));
            IpAddr::from([127, 0, 0, 1])
        });
        SocketAddr::new(address, u16::try_from(port).unwrap_or_default())
    }

    /// One time is below another, of which each is right by itself.
    pub fn ordered(&mut self, (low, below): (&str, Duration), (high, above): (&str, Duration), because: &str) {
        if below >= above {
            self.add(format!("{low}={below:?} has to be below {high}={above:?}: {because}"));
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, variable: &str, text: &str) -> bool {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" | "" => false,
            _ => {
                self.add(format!("{variable}={text:?}: use true or false"));
                false
            }
        }
    }

    /// The value when nothing was wrong anywhere.
    ///
    /// # Errors
    /// When anything was.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(ConfigError(self.0))
        }
    }
}

/// A path that was given; one that is set to nothing is not.
#[must_use]
pub fn given(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// ERROR, WARN, INFO, DEBUG or TRACE
    #[arg(long, env, default_value = "INFO")]
    pub log_level: String,
    /// json or text
    #[arg(long, env, default_value = "json")]
    pub log_format: String,
}

impl LogArgs {
    /// Checks the format.
    pub fn format(&self, problems: &mut Problems) -> LogFormat {
        match self.log_format.to_ascii_lowercase().as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            other => {
                problems.add(format!("LOG_FORMAT={other:?}: use json or text"));
                LogFormat::Json
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut problems = Problems::default();
        problems.number("MAX_RUNNERS_PER_ORG", "0", 1, 1000);
        problems.duration("IDLE_TIMEOUT", "soon");
        problems.flag("ADMIN_INSECURE", "maybe");
        let text = problems.finish(()).expect_err("three problems").to_string();
        for part in ["3 things", "MAX_RUNNERS_PER_ORG", "IDLE_TIMEOUT", "ADMIN_INSECURE"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let mut problems = Problems::default();
        assert_eq!(problems.duration("X", "5s"), Duration::from_secs(5));
        assert_eq!(problems.duration("X", "10m"), Duration::from_secs(600));
        assert_eq!(problems.duration("X", "250ms"), Duration::from_millis(250));
        assert_eq!(problems.duration("X", "30"), Duration::from_secs(30));
        problems.finish(()).expect("no problem");
    }
}
