//! What recovery is configured with.

use std::time::Duration;

use jit_core::{
    config::{GithubSettings, Problems},
    ledger::recovery::RecoverySettings,
};
use url::Url;

/// Flags of recovery.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchArgs {
    /// Address of /webhook as GitHub knows it, for example https://jit-runner.example.com/webhook: failed deliveries of
    /// webhooks that go there are repeated
    #[arg(long, env, default_value = "")]
    webhook_url: String,
    /// Time between two looks for what never came; the beat's, too
    #[arg(long, env, default_value = "60s")]
    recover_interval: String,
    /// GitHub is asked this often what repositories, webhooks and installations there are
    #[arg(long, env, default_value = "24h", hide_short_help = true)]
    rediscover_interval: String,
    /// All runs of a repository that are not over are asked for this often, not only the newest, as far as there are
    /// calls for it
    #[arg(long, env, default_value = "24h", hide_short_help = true)]
    reread_interval: String,
    /// The registrations of an organization are searched for strays this often
    #[arg(long, env, default_value = "1h", hide_short_help = true)]
    stray_interval: String,
    /// A stray registration is deleted when it was seen twice, at least so far apart
    #[arg(long, env, default_value = "10m", hide_short_help = true)]
    stray_confirm: String,
}

/// How recovery works, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which jobs are ours.
    pub jobs: GithubSettings,
    /// Address of `/webhook` as GitHub knows it; without it failed deliveries are not repeated.
    pub webhook_url: Option<Url>,
    /// Time between two ticks.
    pub interval: Duration,
    /// Time between two questions what repositories, webhooks and installations there are.
    pub rediscover_interval: Duration,
    /// Time between two looks at all runs of a repository that are not over, where there are calls for it.
    pub reread_interval: Duration,
    /// Time between two looks at the registrations of a scope.
    pub stray_interval: Duration,
    /// A stray registration is deleted when it was seen twice, at least so far apart.
    pub stray_confirm: Duration,
}

impl SearchArgs {
    /// Checks all of it.
    pub fn resolve(&self, jobs: &GithubSettings, problems: &mut Problems) -> Settings {
        let webhook_url = match self.webhook_url.trim() {
            "" => None,
            text => {
                let url = Url::parse(text)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                if url.is_none() {
                    problems.add(format!(
                        "WEBHOOK_URL={text:?}: use the address that stands in the webhook at GitHub, for example \
                         https://jit-runner.example.com/webhook"
                    ));
                }
                url
            }
        };
        Settings {
            jobs: jobs.clone(),
            webhook_url,
            interval: problems.duration("RECOVER_INTERVAL", &self.recover_interval),
            rediscover_interval: problems.duration("REDISCOVER_INTERVAL", &self.rediscover_interval),
            reread_interval: problems.duration("REREAD_INTERVAL", &self.reread_interval),
            stray_interval: problems.duration("STRAY_INTERVAL", &self.stray_interval),
            stray_confirm: problems.duration("STRAY_CONFIRM", &self.stray_confirm),
        }
    }
}

impl Settings {
    /// As the ledger is told, with the calls of GitHub that may be made in an hour and account.
    pub(super) fn of_ledger(&self, calls_per_hour: u64) -> RecoverySettings {
        RecoverySettings {
            interval: self.interval,
            calls_per_hour,
            redelivery: self.webhook_url.is_some(),
        }
    }
}
