//! How recovery stands: in figures, in sentences, and how soon a lost job is found.

use std::collections::BTreeMap;

use redis::pipe;
use serde::Serialize;

use crate::ledger::{Ledger, LedgerError};

/// Calls that a visit of a quiet repository takes: its runs that are queued, in progress, waiting.
const CALLS_A_REPOSITORY: f64 = 3.0;

/// How recovery stands, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// A worker has looked for lost jobs at least once.
    pub active: bool,
    /// When a worker last looked, ms.
    pub ticked_at: Option<i64>,
    /// Time in which a lost job is found, in seconds; none before the first tick.
    pub seconds: Option<u64>,
    /// Repositories that are swept.
    pub repositories: u64,
    /// Repositories that this pass has still to visit.
    pub to_visit: u64,
    /// Calls of GitHub allowed in an hour.
    pub calls_per_hour: u64,
    /// When the last full pass ended, ms.
    pub swept_at: Option<i64>,
    /// When `repos:active` was last rebuilt from GitHub, ms.
    pub rediscovered_at: Option<i64>,
    /// Jobs that the sweep found.
    pub found_jobs: u64,
    /// Whether failed deliveries are repeated.
    pub redelivery: bool,
    /// Webhooks of ours whose deliveries are read.
    pub hooks: u64,
    /// Failed deliveries that are still to be repeated.
    pub failed_deliveries: u64,
    /// Deliveries repeated.
    pub redelivered: u64,
    /// Registrations seen once that nobody here knows.
    pub strays: u64,
    /// Registrations deleted.
    pub strays_deleted: u64,
}

impl Recovery {
    /// One sentence on what is found and how soon, one on redelivery.
    #[must_use]
    pub fn sentences(&self) -> [String; 2] {
        let found = match self.seconds {
            Some(seconds) => format!(
                "a job whose webhook was lost is found within about {}: {} repositories, {} calls an hour",
                rough(seconds),
                self.repositories,
                self.calls_per_hour
            ),
            None => "nobody has looked for lost jobs yet: that takes a worker, a beat and one reconcile".to_owned(),
        };
        let redelivery = match (self.redelivery, self.hooks) {
            (false, _) => "failed deliveries are not repeated: WEBHOOK_URL, the address of /webhook as GitHub knows it, is not set for the workers".to_owned(),
            (true, 0) => {
                "failed deliveries are not repeated: no organization, repository or App has a webhook to WEBHOOK_URL that the credential may see".to_owned()
            }
            (true, hooks) => format!("failed deliveries of {hooks} webhooks are repeated; {} wait", self.failed_deliveries),
        };
        [found, redelivery]
    }
}

/// A span as people say it.
fn rough(seconds: u64) -> String {
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5400 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

impl Ledger {
    /// How recovery stands.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn recovery(&self) -> Result<Recovery, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let (state, repositories, to_visit, hooks, failed, later, strays): (BTreeMap<String, String>, u64, u64, u64, u64, u64, u64) = pipe()
            .hgetall("recovery")
            .zcard("repos:active")
            .zcard("repos:sweep")
            .hlen("hooks:known")
            .zcard("deliveries:failed")
            .zcard("deliveries:later")
            .zcard("strays:seen")
            .query_async(&mut connection)
            .await?;
        let number = |name: &str| state.get(name).and_then(|text| text.parse::<i64>().ok());
        let count = |name: &str| number(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Ok(Recovery {
            active: state.contains_key("ticked_at"),
            ticked_at: number("ticked_at"),
            seconds: state.contains_key("ticked_at").then(|| {
                let pass = (count("pass_repos"), count("pass_calls"));
                let running = number("sweep_began").map_or(0, |began| u64::try_from(now - began).unwrap_or(0));
                seconds_to_find(repositories, pass, count("calls_per_hour"), count("interval"), count("pass_ms").max(running))
            }),
            repositories,
            to_visit,
            calls_per_hour: count("calls_per_hour"),
            swept_at: number("swept_at"),
            rediscovered_at: number("rediscovered_at"),
            found_jobs: count("found_jobs"),
            redelivery: count("redelivery") == 1,
            hooks,
            failed_deliveries: failed + later,
            redelivered: count("redelivered"),
            strays,
            strays_deleted: count("strays_deleted"),
        })
    }
}

/// Time in which a lost job is found: that of a full pass and of the tick before it. A pass takes what its calls take within the budget, or what the last one
/// (or the one that is under way) took, if that is longer. `pass` is the repositories and calls of the last one; times are ms.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate of far less than 2^53")]
fn seconds_to_find(repositories: u64, pass: (u64, u64), calls_per_hour: u64, interval_ms: u64, last_ms: u64) -> u64 {
    let each = if pass.0 == 0 { CALLS_A_REPOSITORY } else { (pass.1 as f64 / pass.0 as f64).max(1.0) };
    let calls = repositories as f64 * each;
    let budgeted = calls * 3_600_000.0 / (calls_per_hour.max(1) as f64);
    ((budgeted.max(last_ms as f64) + interval_ms as f64) / 1000.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_find_a_job_follows_from_repositories_and_budget() {
        assert_eq!(seconds_to_find(312, (0, 0), 18_720, 60_000, 0), 240, "936 calls at 18720 an hour are 180 s, and a tick before");
        assert_eq!(seconds_to_find(100, (100, 500), 1000, 60_000, 0), 1860, "the last pass took 5 calls a repository");
        assert_eq!(seconds_to_find(1, (1, 3), 1_000_000, 60_000, 90_000), 150, "it took longer than its calls must");
        assert_eq!(seconds_to_find(0, (0, 0), 1000, 60_000, 0), 60);
    }

    #[test]
    fn the_sentences_say_what_to_set() {
        let recovery = Recovery { active: true, seconds: Some(240), repositories: 312, calls_per_hour: 1000, ..Recovery::default() };
        let [found, redelivery] = recovery.sentences();
        assert_eq!(found, "a job whose webhook was lost is found within about 4 min: 312 repositories, 1000 calls an hour");
        assert!(redelivery.contains("WEBHOOK_URL"), "{redelivery}");
    }
}
