//! What the receiver is told by its environment, checked at once.
//!
//! The groups that other processes read too come from `jit_core::config`; only what the receiver alone wants is
//! declared here. Secrets are never flags: they come from the environment or from a file, and are read again when the
//! file changes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use ipnet::IpNet;
use jit_core::{
    config::{
        ConfigError, Door, GithubArgs, GithubSettings, LimitsArgs, LimitsSettings, LogArgs, LogFormat, Problems, Secret,
    },
    operator,
    store::{RedisArgs, RedisSettings},
};

use crate::connections::Bounds;

/// Takes GitHub's workflow_job webhooks; serves status, metrics and the admin API.
#[derive(Clone, Debug, Parser)]
#[command(name = "jit-receiver", version)]
pub struct ReceiverArgs {
    /// GitHub and the jobs that are ours.
    #[command(flatten)]
    pub github: GithubArgs,
    /// Limits; the receiver itself applies none, it tells them and loads ORG_LIMITS_FILE.
    #[command(flatten)]
    pub limits: LimitsArgs,
    /// Redis.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
    /// TCP port to listen on; 0 takes a free one
    #[arg(long, env, default_value = "8000")]
    pub port: String,
    /// Address of this machine to listen on: 0.0.0.0 every IPv4 one, :: every one, 127.0.0.1 none that others reach
    #[arg(long, env, default_value = "0.0.0.0")]
    pub listen_address: String,
    /// File that holds the webhook's secret (or WEBHOOK_SECRET in the environment)
    #[arg(long, env)]
    pub webhook_secret_file: Option<PathBuf>,
    /// File that holds a secret that is still accepted while the webhook's is rotated (or WEBHOOK_SECRET_PREVIOUS in
    /// the environment)
    #[arg(long, env)]
    pub webhook_secret_previous_file: Option<PathBuf>,
    /// true starts without WEBHOOK_SECRET: whoever reaches the port can then make runners
    #[arg(long, env, default_value = "false")]
    pub webhook_insecure: String,
    /// File that holds the key of the admin API (or ADMIN_API_KEY in the environment); without one the admin API
    /// answers 403
    #[arg(long, env)]
    pub admin_api_key_file: Option<PathBuf>,
    /// true opens the admin API to whoever reaches the port
    #[arg(long, env, default_value = "false")]
    pub admin_insecure: String,
    /// true asks for the key of the admin API for /metrics, /orgs and /jobs too
    #[arg(long, env, default_value = "false")]
    pub reads_need_key: String,
    /// Largest body of a webhook, in bytes; GitHub itself sends no more than 25 MB
    #[arg(long, env, default_value = "26214400")]
    pub max_body_bytes: String,
    /// Job events that may wait in Redis for a worker; a webhook that comes on top of them is answered 503
    #[arg(long, env, default_value = "1000000")]
    pub backlog_limit: String,
    /// Connections at once; for one more the one that has been idle for longest is closed
    #[arg(long, env, default_value = "512")]
    pub max_connections: String,
    /// Connections of one IP address at once; for one more that address's own one that has been idle for longest is
    /// closed; empty: half of MAX_CONNECTIONS
    #[arg(long, env, default_value = "")]
    pub max_connections_per_peer: String,
    /// Proxies in front of the receiver, which bring connections of many senders: IP addresses and networks, for
    /// example 10.0.0.5,10.1.0.0/16; only MAX_CONNECTIONS bounds theirs
    #[arg(long, env, default_value = "")]
    pub trusted_proxies: String,
    /// TCP port that answers /health and /ready only, so that probes are answered when every connection of PORT is
    /// taken; 0 takes a free one; empty: none
    #[arg(long, env, default_value = "")]
    pub probe_port: String,
    /// Verified webhooks on their way to Redis at once; those on top of them are answered 503
    #[arg(long, env, default_value = "256")]
    pub max_in_flight: String,
    /// After SIGTERM connections are still accepted for so long, until load balancers have noticed; 0 for not at all
    #[arg(long, env, default_value = "3s")]
    pub drain_delay: String,
    /// After SIGTERM the process ends after this time even with requests in hand
    #[arg(long, env, default_value = "25s")]
    pub drain_grace: String,
    /// true counts webhooks by owner and repository too: a time series for each
    #[arg(long, env, default_value = "false")]
    pub metrics_repository_labels: String,
}

/// What the receiver works with, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// GitHub and the jobs that are ours.
    pub github: GithubSettings,
    /// Limits, for what no worker has configured yet.
    pub limits: LimitsSettings,
    /// Redis.
    pub redis: RedisSettings,
    /// Filter of log lines.
    pub log_level: String,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Secrets that a webhook may be signed with; none accepts every webhook.
    pub webhook_secrets: Vec<Door>,
    /// Who may use the admin API.
    pub admin: AdminAccess,
    /// Whether status and metrics ask for the admin API's key.
    pub reads_need_key: bool,
    /// Largest body of a webhook, in bytes.
    pub max_body_bytes: usize,
    /// Entries of `jit:events` from which on webhooks are refused.
    pub backlog_limit: u64,
    /// Connections at once.
    pub connections: Bounds,
    /// Where to listen for probes alone, if anywhere.
    pub probes: Option<SocketAddr>,
    /// Verified webhooks on their way to Redis at once.
    pub max_in_flight: usize,
    /// How long connections are still accepted after the stop signal.
    pub drain_delay: Duration,
    /// How long requests in hand may take after the stop signal.
    pub drain_grace: Duration,
    /// Whether webhooks are counted by owner and repository.
    pub repository_labels: bool,
    /// Times that no flag sets.
    pub timeouts: Timeouts,
}

/// Who may use the admin API.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// Nobody: no key is configured.
    Disabled,
    /// Whoever knows the key.
    Key(Door),
    /// Everybody: `ADMIN_INSECURE=true`.
    Open,
}

/// Times that bound one connection and one request.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The headers of a connection's first request have to be there within this time.
    pub headers: Duration,
    /// A connection that was used may be idle for this time. Longer than proxies keep theirs (60 s), so that they close
    /// it, not we just as they send.
    pub idle: Duration,
    /// A webhook is answered within this time: GitHub waits for 10 s.
    pub webhook: Duration,
    /// Any other request is answered within this time.
    pub request: Duration,
    /// A wrong admin key is told so only after this time.
    pub wrong_key: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            webhook: Duration::from_secs(8),
            request: Duration::from_secs(10),
            wrong_key: Duration::from_millis(500),
        }
    }
}

impl ReceiverArgs {
    /// Checks all of it.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn resolve(&self) -> Result<Settings, ConfigError> {
        let mut problems = Problems::default();
        let limits = self.limits.resolve(&mut problems);
        // Only looked at here: it is loaded once Redis is there.
        problems.check("ORG_LIMITS_FILE", operator::limits_file(&limits.org_limits_file));
        let settings = Settings {
            github: self.github.resolve(&mut problems),
            limits,
            redis: self.redis.resolve(&mut problems),
            log_level: self.log.log_level.clone(),
            log_format: self.log.format(&mut problems),
            listen: problems.listen(&self.listen_address, &self.port),
            webhook_secrets: self.webhook_secrets(&mut problems),
            admin: self.admin(&mut problems),
            reads_need_key: problems.flag("READS_NEED_KEY", &self.reads_need_key),
            max_body_bytes: size(&mut problems, "MAX_BODY_BYTES", &self.max_body_bytes, 1024, 1 << 30),
            backlog_limit: problems.number("BACKLOG_LIMIT", &self.backlog_limit, 1, 100_000_000),
            connections: self.connections(&mut problems),
            probes: self.probes(&mut problems),
            max_in_flight: size(&mut problems, "MAX_IN_FLIGHT", &self.max_in_flight, 1, 100_000),
            drain_delay: match self.drain_delay.trim() {
                "0" | "0s" => Duration::ZERO,
                text => problems.duration("DRAIN_DELAY", text),
            },
            drain_grace: problems.duration("DRAIN_GRACE", &self.drain_grace),
            repository_labels: problems.flag("METRICS_REPOSITORY_LABELS", &self.metrics_repository_labels),
            timeouts: Timeouts::default(),
        };
        if settings.reads_need_key && matches!(settings.admin, AdminAccess::Disabled) {
            problems.add("READS_NEED_KEY=true without ADMIN_API_KEY: nobody could read anything; set the key");
        }
        let (delay, grace) = (settings.drain_delay, settings.drain_grace);
        problems.ordered(
            ("DRAIN_DELAY", delay),
            ("DRAIN_GRACE", grace),
            "requests in hand have the rest of it",
        );
        problems.finish(settings)
    }

    fn probes(&self, problems: &mut Problems) -> Option<SocketAddr> {
        let text = self.probe_port.trim();
        if text.is_empty() {
            return None;
        }
        let port = problems.number("PROBE_PORT", text, 0, u16::MAX.into());
        let port = u16::try_from(port).unwrap_or_default();
        // What is wrong with the address is told once, for PORT.
        let main = Problems::default().listen(&self.listen_address, &self.port);
        if port > 0 && port == main.port() {
            problems.add(format!("PROBE_PORT={text:?}: use another port than PORT"));
        }
        Some(SocketAddr::new(main.ip(), port))
    }

    fn connections(&self, problems: &mut Problems) -> Bounds {
        let total = size(problems, "MAX_CONNECTIONS", &self.max_connections, 1, 100_000);
        let per_peer = match self.max_connections_per_peer.trim() {
            "" => total.div_ceil(2),
            text => size(problems, "MAX_CONNECTIONS_PER_PEER", text, 1, 100_000),
        };
        let network = |text: &str| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        };
        let mut trusted = Vec::new();
        for text in self
            .trusted_proxies
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            match network(text) {
                Ok(network) => trusted.push(network),
                Err(_) => problems.add(format!(
                    "TRUSTED_PROXIES: {text:?} is neither an IP address nor a network such as 10.1.0.0/16"
                )),
            }
        }
        Bounds {
            total,
            per_peer,
            trusted,
        }
    }

    fn webhook_secrets(&self, problems: &mut Problems) -> Vec<Door> {
        let mut found = Problems::default();
        let current = Secret::resolve("WEBHOOK_SECRET", self.webhook_secret_file.as_deref(), &mut found);
        // A secret that is there but cannot be read is told once, not as missing too.
        let told = found.finish(()).map_err(|error| problems.add(details(&error))).is_err();
        let insecure = problems.flag("WEBHOOK_INSECURE", &self.webhook_insecure);
        let previous = Secret::resolve(
            "WEBHOOK_SECRET_PREVIOUS",
            self.webhook_secret_previous_file.as_deref(),
            problems,
        );
        match (&current, &previous) {
            (None, Some(_)) if !told => problems
                .add("WEBHOOK_SECRET_PREVIOUS is set without WEBHOOK_SECRET: set the one that GitHub signs with now"),
            (None, None) if !told && !insecure => {
                problems.add(
                    "WEBHOOK_SECRET is not set: set it to the secret of the webhook at GitHub \
                 (WEBHOOK_INSECURE=true accepts unsigned webhooks)",
                );
            }
            _ => {}
        }
        current.into_iter().chain(previous).map(Door::from).collect()
    }

    fn admin(&self, problems: &mut Problems) -> AdminAccess {
        let key = Secret::resolve("ADMIN_API_KEY", self.admin_api_key_file.as_deref(), problems);
        match (key, problems.flag("ADMIN_INSECURE", &self.admin_insecure)) {
            (Some(_), true) => {
                problems.add("ADMIN_INSECURE=true opens the admin API although ADMIN_API_KEY is set: keep one");
                AdminAccess::Disabled
            }
            (Some(key), false) => AdminAccess::Key(key.into()),
            (None, true) => AdminAccess::Open,
            (None, false) => AdminAccess::Disabled,
        }
    }
}

fn size(problems: &mut Problems, variable: &str, text: &str, low: u64, high: u64) -> usize {
    usize::try_from(problems.number(variable, text, low, high)).unwrap_or(usize::MAX)
}

/// The lines of a [`ConfigError`] without its heading.
fn details(error: &ConfigError) -> String {
    error
        .to_string()
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches(" -").trim())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[&str]) -> Result<Settings, String> {
        let defaults = ["jit-receiver", "--ghes-url", "https://github.example.com"];
        ReceiverArgs::parse_from(defaults.into_iter().chain(flags.iter().copied()))
            .resolve()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn it_does_not_start_without_a_secret_unless_told_to() {
        assert!(
            resolve(&[])
                .expect_err("no secret")
                .contains("WEBHOOK_SECRET is not set")
        );
        let settings = resolve(&["--webhook-insecure", "true"]).expect("insecure on purpose");
        assert!(settings.webhook_secrets.is_empty());
        assert!(matches!(settings.admin, AdminAccess::Disabled));
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8000");
    }

    #[test]
    fn a_peer_has_half_of_the_connections_and_a_trusted_one_all() {
        let resolve = |flags: &[&str]| resolve(&[&["--webhook-insecure", "true"], flags].concat());
        let settings = resolve(&[]).expect("defaults");
        assert_eq!(
            (
                settings.connections.total,
                settings.connections.per_peer,
                settings.connections.trusted.len()
            ),
            (512, 256, 0)
        );
        assert_eq!(settings.probes, None);
        assert_eq!(
            resolve(&["--max-connections", "1"]).expect("one").connections.per_peer,
            1
        );
        let set = [
            "--max-connections-per-peer",
            "7",
            "--trusted-proxies",
            " 10.0.0.5, 10.1.0.0/16,fd00::/8,",
            "--probe-port",
            "8001",
        ];
        let settings = resolve(&set).expect("all of it is right");
        let trusted: Vec<_> = settings.connections.trusted.iter().map(ToString::to_string).collect();
        assert_eq!(
            (settings.connections.per_peer, trusted),
            (7, ["10.0.0.5/32", "10.1.0.0/16", "fd00::/8"].map(String::from).to_vec())
        );
        assert_eq!(
            settings.probes.map(|address| address.to_string()).as_deref(),
            Some("0.0.0.0:8001")
        );
        for (wrong, part) in [
            (["--trusted-proxies", "10.0.0.5,ingress"], "\"ingress\""),
            (["--probe-port", "8000"], "PROBE_PORT"),
            (["--probe-port", "http"], "PROBE_PORT"),
            (["--max-connections-per-peer", "0"], "MAX_CONNECTIONS_PER_PEER"),
        ] {
            assert!(resolve(&wrong).expect_err("wrong").contains(part), "{part}");
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (limits, empty) = (dir.path().join("limits.yaml"), dir.path().join("empty"));
        std::fs::write(&limits, "org_limits: {\"a:b\": 5}").expect("written");
        std::fs::write(&empty, "\n").expect("written");
        let error = resolve(&[
            "--port=http",
            "--listen-address=everywhere",
            "--max-body-bytes=0",
            "--backlog-limit=-1",
            "--max-connections=many",
            "--drain-delay=30s",
            "--admin-insecure=maybe",
            "--log-format=xml",
            "--webhook-secret-file",
            empty.to_str().expect("text"),
            "--org-limits-file",
            limits.to_str().expect("text"),
        ])
        .expect_err("all of it is wrong");
        for part in [
            "10 things",
            "PORT",
            "LISTEN_ADDRESS",
            "MAX_BODY_BYTES",
            "BACKLOG_LIMIT",
            "MAX_CONNECTIONS",
            "DRAIN_DELAY",
            "ADMIN_INSECURE",
            "LOG_FORMAT",
            "WEBHOOK_SECRET_FILE",
            "ORG_LIMITS_FILE",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_no_flags() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("text").to_owned()
        };
        let settings = resolve(&[
            "--webhook-secret-file",
            &file("new", "new\n"),
            "--webhook-secret-previous-file",
            &file("old", "old\n"),
            "--admin-api-key-file",
            &file("key", "key"),
        ])
        .expect("a valid configuration");
        assert!(settings.webhook_secrets[0].is(b"new") && settings.webhook_secrets[1].is(b"old"));
        assert!(matches!(&settings.admin, AdminAccess::Key(key) if key.is(b"key")));
        assert!(ReceiverArgs::try_parse_from(["jit-receiver", "--webhook-secret", "x"]).is_err());
        assert!(ReceiverArgs::try_parse_from(["jit-receiver", "--admin-api-key", "x"]).is_err());
    }
}
