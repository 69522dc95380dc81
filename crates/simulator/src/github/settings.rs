//! What a simulated GitHub is started with: its size, its release and its patience.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::Ms;

/// Which job and which runner are brought together when several fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pick {
    /// The oldest job, the oldest runner.
    Oldest,
    /// The oldest job, any runner.
    Random,
    /// Any job, any runner: no queue is fair, which GitHub never promised.
    Shuffled,
}

/// How webhooks say that there is no runner, and which optional fields they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PayloadStyle {
    /// `runner_id` null; every field that GitHub documents.
    Modern,
    /// As older servers did: `runner_id` 0, `runner_name` empty, no `run_attempt`, `workflow_name` or `head_branch`.
    Legacy,
}

/// Settings of the simulated GitHub. Times are in milliseconds.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Organizations that exist from the start: org-0001, org-0002 …
    #[arg(long, default_value_t = 1)]
    pub orgs: usize,
    /// Seed of everything random: ids, secrets, choices, faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Slug of the enterprise that the organizations belong to
    #[arg(long, default_value = "simulated")]
    pub enterprise: String,
    /// Release that the server says it is
    #[arg(long, default_value = "3.14.17")]
    pub server_version: String,
    /// Which job and runner are brought together when several fit
    #[arg(long, value_enum, default_value_t = Pick::Random)]
    pub pick: Pick,
    /// Shape of the webhooks
    #[arg(long, value_enum, default_value_t = PayloadStyle::Modern)]
    pub payload: PayloadStyle,
    /// About how large a queued webhook is; real ones grow with custom properties, topics and the length of names
    #[arg(long, default_value_t = 12_000)]
    pub payload_bytes: usize,
    /// A runner that gives no sign of life for so long is lost, and its job fails
    #[arg(long, default_value_t = 10_000)]
    pub lease_ms: Ms,
    /// A job that its runner does not take for so long is queued again
    #[arg(long, default_value_t = 60_000)]
    pub pickup_ms: Ms,
    /// How long a runner's poll is held open
    #[arg(long, default_value_t = 30_000)]
    pub poll_ms: Ms,
    /// A job that is queued for so long is cancelled
    #[arg(long, default_value_t = 86_400_000)]
    pub queue_timeout_ms: Ms,
    /// A runner that is offline for so long is deregistered
    #[arg(long, default_value_t = 86_400_000)]
    pub offline_ttl_ms: Ms,
    /// A runner that is online and idle for so long is deregistered; never, by default
    #[arg(long)]
    pub idle_ttl_ms: Option<Ms>,
    /// REST calls an hour; unlimited by default, as on a GHES
    #[arg(long)]
    pub rate_limit: Option<u64>,
    /// Registrations in five minutes and scope (github.com: 1500); unlimited by default
    #[arg(long)]
    pub registration_limit: Option<u32>,
    /// Points a minute of one caller at one endpoint (github.com: 900; a POST takes 5), and a secondary limit above;
    /// unlimited by default
    #[arg(long)]
    pub points_per_minute: Option<u64>,
    /// Id of a GitHub App
    #[arg(long, requires = "app_public_key_file")]
    pub app_id: Option<String>,
    /// File that holds its public key, PEM (`openssl rsa -pubout`)
    #[arg(long, requires = "app_id")]
    pub app_public_key_file: Option<PathBuf>,
    /// How long a token of an installation holds
    #[arg(long, default_value_t = 3_600_000)]
    pub app_token_ms: Ms,
    /// The App is installed at every organization that exists from the start
    #[arg(long)]
    pub app_installed: bool,
    /// How long a webhook may take (github.com: 10 s, GHES: 30 s)
    #[arg(long, default_value_t = 10_000)]
    pub webhook_timeout_ms: Ms,
    /// Webhooks under way at once
    #[arg(long, default_value_t = 32)]
    pub webhook_concurrency: usize,
}

impl Default for Settings {
    /// What the command line's defaults are.
    fn default() -> Self {
        Self {
            orgs: 1,
            seed: 1,
            enterprise: "simulated".into(),
            server_version: "3.14.17".into(),
            pick: Pick::Random,
            payload: PayloadStyle::Modern,
            payload_bytes: 12_000,
            lease_ms: 10_000,
            pickup_ms: 60_000,
            poll_ms: 30_000,
            queue_timeout_ms: 86_400_000,
            offline_ttl_ms: 86_400_000,
            idle_ttl_ms: None,
            rate_limit: None,
            registration_limit: None,
            points_per_minute: None,
            app_id: None,
            app_public_key_file: None,
            app_token_ms: 3_600_000,
            app_installed: false,
            webhook_timeout_ms: 10_000,
            webhook_concurrency: 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: super::Settings,
    }

    #[test]
    fn default_is_the_command_lines() {
        let line = Line::parse_from(["x"]).settings;
        assert_eq!(format!("{line:?}"), format!("{:?}", super::Settings::default()));
    }
}
