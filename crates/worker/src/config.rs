//! What a worker is configured with.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use jit_backend::kubernetes::profile::{Mode, Profile};
use jit_core::{
    config::{
        ConfigError, CredentialsArgs, CredentialsSettings, DEFAULT_PROFILE, GithubArgs, GithubSettings, LimitsArgs,
        LimitsSettings, LogArgs, LogFormat, Problems, given,
    },
    ledger::Budget,
    names::is_runner,
    store::{RedisArgs, RedisSettings},
};
use url::Url;

use crate::budget::BudgetArgs;
use crate::search::{self, SearchArgs};

/// Makes just-in-time runners, watches them and removes them. Every replica does all of it.
#[derive(Debug, Parser)]
#[command(name = "jit-worker", version)]
pub struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    github: GithubArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    limits: LimitsArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    search: SearchArgs,
    /// Root of GitHub's REST API; default: {GHES_URL}/api/v3, or https://api.github.com
    #[arg(long, env)]
    ghes_api_url: Option<String>,
    #[command(flatten)]
    credentials: CredentialsArgs,
    /// PEM file of certificates to trust besides the system's
    #[arg(long, env)]
    github_ca_file: Option<PathBuf>,
    /// A call of GitHub has to be answered within this time; the time for a JIT configuration doubles up to 3 minutes
    /// when it runs out
    #[arg(long, env, default_value = "20s")]
    github_timeout: String,
    /// An organization where GitHub refuses (no right, App not installed) is tried again after this time, doubling up
    /// to 30 minutes
    #[arg(long, env, default_value = "1m", hide_short_help = true)]
    organization_backoff: String,
    /// kubernetes or process
    #[arg(long, env, default_value = "kubernetes")]
    runner_backend: String,
    /// What starts a runner of the process backend, with its JIT configuration in ACTIONS_RUNNER_INPUT_JITCONFIG
    #[arg(long, env, default_value = "")]
    runner_command: String,
    /// Directory of the process backend's records and logs, shared by the workers of a host
    #[arg(long, env, default_value = "/var/lib/jit-runner")]
    runner_directory: PathBuf,
    /// Namespace that runner pods go to
    #[arg(long, env)]
    runner_namespace: Option<String>,
    /// Another name of RUNNER_NAMESPACE
    #[arg(long, env, hide = true)]
    namespace: Option<String>,
    /// Image of the runner
    #[arg(long, env, default_value = "ghcr.io/actions/actions-runner:latest")]
    runner_image: String,
    /// Image of the Docker daemon in mode dind
    #[arg(long, env, default_value = "docker:dind")]
    dind_image: String,
    /// Time that a request to Kubernetes may take; twice as long nothing is admitted after Redis lost data, since pods
    /// may be on their way
    #[arg(long, env, default_value = "10s", hide_short_help = true)]
    backend_timeout: String,
    /// standard or dind
    #[arg(long, env, default_value = "dind")]
    runner_mode: String,
    /// Runners that this worker makes at once
    #[arg(long, env, default_value = "10")]
    worker_concurrency: String,
    /// A worker says this often that it is alive
    #[arg(long, env, default_value = "5s", hide_short_help = true)]
    worker_heartbeat: String,
    /// A worker that was not heard of for so long is taken for dead, and others take over what it held
    #[arg(long, env, default_value = "20s", hide_short_help = true)]
    worker_dead_after: String,
    /// A removal or a question that a worker took and did not finish is taken up again after this time
    #[arg(long, env, default_value = "90s", hide_short_help = true)]
    upkeep_lease: String,
    /// Events that a living worker has held for so long are applied by another
    #[arg(long, env, default_value = "60s", hide_short_help = true)]
    events_held: String,
    /// Reservations that a living worker has held for so long are dropped by another
    #[arg(long, env, default_value = "300s", hide_short_help = true)]
    reservations_held: String,
    /// Time to finish what is in hand after SIGTERM
    #[arg(long, env, default_value = "25s")]
    drain_grace: String,
    /// Address to serve probes and metrics on
    #[arg(long, env, default_value = "0.0.0.0")]
    listen_address: String,
    /// Port to serve probes and metrics on; 0 takes a free one
    #[arg(long, env, default_value = "9090")]
    port: String,
}

/// How soon others take over from a worker, and it from others.
#[derive(Clone, Copy, Debug)]
pub struct TakeOver {
    /// How often a worker says that it is alive.
    pub heartbeat: Duration,
    /// A worker that has not been heard of for so long is taken for dead. If it is not, its fences are gone, and it
    /// discards what it made.
    pub dead_after: Duration,
    /// So long a piece of upkeep is its worker's: above the longest sequence of calls that it takes.
    pub lease: Duration,
    /// Events that a living worker has held for so long are applied by another: a batch takes milliseconds, a Redis
    /// that comes back seconds.
    pub events_held: Duration,
    /// The same for reservations, beyond the longest time that making a runner takes (two backend calls, and 180 s for
    /// a JIT configuration).
    pub reservations_held: Duration,
}

/// Where runners run.
#[derive(Clone, Debug)]
pub enum BackendSettings {
    /// As pods of a cluster.
    Kubernetes {
        /// Namespace of pods whose profile names none.
        namespace: String,
        /// What pods look like.
        profiles: Vec<Profile>,
    },
    /// As processes of this host.
    Process {
        /// What starts one.
        command: String,
        /// Records and logs.
        directory: PathBuf,
    },
}

/// A worker's configuration, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where Redis is.
    pub redis: RedisSettings,
    /// Which GitHub and which jobs.
    pub github: GithubSettings,
    /// Limits and deadlines.
    pub limits: LimitsSettings,
    /// Root of GitHub's REST API.
    pub api_url: Url,
    /// As whom GitHub is called.
    pub credentials: CredentialsSettings,
    /// Certificates to trust besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// How much of GitHub's limits is used.
    pub budget: Budget,
    /// Wait after an organization refused the first time.
    pub organization_backoff: Duration,
    /// Time-out of a call of GitHub.
    pub github_timeout: Duration,
    /// Where runners run.
    pub backend: BackendSettings,
    /// Time-out of a request to Kubernetes, or to the directory of processes.
    pub backend_timeout: Duration,
    /// Runners made at once.
    pub concurrency: usize,
    /// How soon others take over from it, and it from others.
    pub take_over: TakeOver,
    /// How what never came is looked for.
    pub search: search::Settings,
    /// Time to drain.
    pub drain_grace: Duration,
    /// Address of probes and metrics.
    pub listen: SocketAddr,
    /// Log level or filter.
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Args {
    /// Checks everything, and tells everything that is wrong.
    ///
    /// # Errors
    /// When anything is.
    pub fn resolve(self) -> Result<Settings, ConfigError> {
        let mut problems = Problems::default();
        let github = self.github.resolve(&mut problems);
        let api_url = match self.ghes_api_url.as_deref().filter(|url| !url.is_empty()) {
            Some(text) => Url::parse(text).unwrap_or_else(|error| {
                problems.add(format!("GHES_API_URL={text:?}: {error}"));
                github.server_url.clone()
            }),
            None => jit_github::api_url_for(&github.server_url),
        };
        let check_key =
            |key: &secrecy::SecretString| jit_github::check_private_key(key).map_err(|error| error.to_string());
        let credentials = self.credentials.resolve(check_key, &mut problems);
        let ca_pem = given(self.github_ca_file.as_ref()).and_then(|path| {
            std::fs::read(&path)
                .map_err(|error| problems.add(format!("GITHUB_CA_FILE={}: cannot be read: {error}", path.display())))
                .ok()
        });
        let listen = problems.listen(&self.listen_address, &self.port);
        refuse_what_is_to_come(&mut problems, |name| std::env::var(name).ok());
        let settings = Settings {
            backend: self.backend(&mut problems),
            backend_timeout: problems.duration("BACKEND_TIMEOUT", &self.backend_timeout),
            redis: self.redis.resolve(&mut problems),
            limits: self.limits.resolve(&mut problems),
            api_url,
            credentials,
            ca_pem,
            organization_backoff: problems.duration("ORGANIZATION_BACKOFF", &self.organization_backoff),
            budget: self.budget.resolve(&github.server_url, &mut problems),
            github_timeout: problems.duration("GITHUB_TIMEOUT", &self.github_timeout),
            concurrency: usize::try_from(problems.number("WORKER_CONCURRENCY", &self.worker_concurrency, 1, 1000))
                .unwrap_or(1),
            take_over: self.take_over(&mut problems),
            search: self.search.resolve(&github, &mut problems),
            drain_grace: problems.duration("DRAIN_GRACE", &self.drain_grace),
            listen,
            log_format: self.log.format(&mut problems),
            log_level: self.log.log_level,
            github,
        };
        problems.finish(settings)
    }

    fn take_over(&self, problems: &mut Problems) -> TakeOver {
        let take_over = TakeOver {
            heartbeat: problems.duration("WORKER_HEARTBEAT", &self.worker_heartbeat),
            dead_after: problems.duration("WORKER_DEAD_AFTER", &self.worker_dead_after),
            lease: problems.duration("UPKEEP_LEASE", &self.upkeep_lease),
            events_held: problems.duration("EVENTS_HELD", &self.events_held),
            reservations_held: problems.duration("RESERVATIONS_HELD", &self.reservations_held),
        };
        if take_over.dead_after < take_over.heartbeat * 2 {
            problems.add(format!(
                "WORKER_DEAD_AFTER={:?} has to be at least twice WORKER_HEARTBEAT={:?}: one late heartbeat is no death",
                take_over.dead_after, take_over.heartbeat
            ));
        }
        take_over
    }

    fn backend(&self, problems: &mut Problems) -> BackendSettings {
        match self.runner_backend.as_str() {
            "process" => {
                if self.runner_command.trim().is_empty() {
                    problems.add("RUNNER_COMMAND is not set: RUNNER_BACKEND=process needs what starts a runner");
                }
                return BackendSettings::Process {
                    command: self.runner_command.clone(),
                    directory: self.runner_directory.clone(),
                };
            }
            "kubernetes" => {}
            other => problems.add(format!("RUNNER_BACKEND={other:?}: use kubernetes or process")),
        }
        let mode = match self.runner_mode.as_str() {
            "standard" => Mode::Standard,
            "dind" => Mode::Dind,
            other => {
                problems.add(format!("RUNNER_MODE={other:?}: use standard or dind"));
                Mode::default()
            }
        };
        let namespace = self
            .runner_namespace
            .clone()
            .or_else(|| self.namespace.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "jit-runners".into());
        if !is_namespace(&namespace) {
            problems.add(format!(
                "RUNNER_NAMESPACE={namespace:?}: use the name of a namespace: 1 to 63 of a-z, 0-9 and -"
            ));
        }
        let profile = Profile {
            name: DEFAULT_PROFILE.into(),
            mode,
            image: self.runner_image.clone(),
            dind_image: self.dind_image.clone(),
            ..Profile::default()
        };
        BackendSettings::Kubernetes {
            namespace,
            profiles: vec![profile],
        }
    }
}

/// A DNS-1123 label.
fn is_namespace(name: &str) -> bool {
    is_runner(name) && !name.starts_with('-') && !name.ends_with('-')
}

/// Variables of the contract that this release does not know yet: refused, since what is ignored in silence is found at
/// night.
fn refuse_what_is_to_come(problems: &mut Problems, variable: impl Fn(&str) -> Option<String>) {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    for (name, instead) in [(
        "RUNNER_PROFILES_FILE",
        "the RUNNER_* variables describe the one profile",
    )] {
        if set(name).is_some() {
            problems.add(format!("{name} is not supported by this release: {instead}"));
        }
    }
    if let Some(kind) = set("RUNNER_WORKLOAD").filter(|kind| kind != "pod") {
        problems.add(format!(
            "RUNNER_WORKLOAD={kind:?} is not supported by this release: leave it at pod"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_yet_is_refused_and_not_ignored() {
        let mut problems = Problems::default();
        refuse_what_is_to_come(&mut problems, |name| {
            Some(if name == "RUNNER_WORKLOAD" { "pod" } else { "x" }.into())
        });
        let text = problems.finish(()).expect_err("problems").to_string();
        assert!(text.contains("RUNNER_PROFILES_FILE"), "{text}");
        assert!(!text.contains("RUNNER_WORKLOAD"), "{text}");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let args = Args::parse_from([
            "jit-worker",
            "--runner-mode",
            "magic",
            "--worker-concurrency",
            "0",
            "--redis-url",
            "http://redis",
            "--idle-timeout",
            "0s",
        ]);
        let text = args.resolve().expect_err("an invalid configuration").to_string();
        for part in [
            "GHES_URL",
            "GITHUB_PAT",
            "RUNNER_MODE",
            "WORKER_CONCURRENCY",
            "REDIS_URL",
            "IDLE_TIMEOUT",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
