//! How recovery stands: in figures, in sentences, and how soon a lost job is found.

use std::collections::BTreeMap;

use redis::pipe;
use serde::Serialize;

use crate::ledger::{Ledger, LedgerError, keys};

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
    /// Accounts that GitHub counts calls of.
    pub accounts: u64,
    /// Calls of GitHub allowed in an hour and account; those that GitHub does not count come on top.
    pub calls_per_hour: u64,
    /// When the repository was last visited that has waited longest, ms.
    pub oldest_visit_at: Option<i64>,
    /// When GitHub last listed an owner's repositories, ms.
    pub rediscovered_at: Option<i64>,
    /// Jobs that the sweep found.
    pub found_jobs: u64,
    /// Whether failed deliveries are repeated.
    pub redelivery: bool,
    /// Webhooks of ours whose deliveries are read.
    pub hooks: u64,
    /// Time in which a failed delivery is read of, in seconds.
    pub hooks_seconds: u64,
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
                "a job whose webhook was lost is found within about {}: {} repositories, {} counted calls an hour and \
                 account",
                rough(seconds),
                self.repositories,
                self.calls_per_hour
            ),
            None => "nobody has looked for lost jobs yet: that takes a worker, a beat and one reconcile".to_owned(),
        };
        let redelivery = match (self.redelivery, self.hooks) {
            (false, _) => "failed deliveries are not repeated: WEBHOOK_URL, the address of /webhook as GitHub knows \
             it, is not set for the workers"
                .to_owned(),
            (true, 0) => {
                "failed deliveries are not repeated: no organization, repository or App has a webhook to WEBHOOK_URL \
                 that the credential may see"
                    .to_owned()
            }
            (true, hooks) => format!(
                "failed deliveries of {hooks} webhooks are repeated; each is read within about {}; {} wait",
                rough(self.hooks_seconds),
                self.failed_deliveries
            ),
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
        let mut pipe = pipe();
        pipe.hgetall(keys::RECOVERY)
            .zcard(keys::REPOS_ACTIVE)
            .zcard(keys::RECOVERY_ACCOUNTS)
            .hlen(keys::HOOKS_KNOWN)
            .zcard(keys::DELIVERIES_OPEN)
            .zcard(keys::STRAYS_SEEN);
        pipe.zrange_withscores(keys::RECOVERY_OLDEST, 0, 0)
            .zrevrange_withscores(keys::RECOVERY_UNVISITED, 0, 0);
        type Scores = Vec<(String, f64)>;
        let (state, repositories, accounts, hooks, failed_deliveries, strays, oldest, unvisited): (
            BTreeMap<String, String>,
            u64,
            u64,
            u64,
            u64,
            u64,
            Scores,
            Scores,
        ) = pipe.query_async(&mut connection).await?;
        let number = |name: &str| state.get(name).and_then(|text| text.parse::<i64>().ok());
        let count = |name: &str| number(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "ms since 1970 have 41 bits")]
        let first = |scores: &Scores| scores.first().map(|(_, score)| *score as i64);
        let oldest_visit_at = first(&oldest);
        let pace = Pace {
            longest_ms: count("lag_repos").max(count("lag_repos_before")),
            waiting_ms: oldest_visit_at.map_or(0, |at| u64::try_from(now - at).unwrap_or(0)),
            unvisited_ms: first(&unvisited).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
            interval_ms: count("interval"),
        };
        let hooks_pace = Pace {
            longest_ms: count("lag_hooks").max(count("lag_hooks_before")),
            interval_ms: count("interval"),
            ..Pace::default()
        };
        Ok(Recovery {
            active: state.contains_key("ticked_at"),
            ticked_at: number("ticked_at"),
            seconds: state.contains_key("ticked_at").then(|| pace.seconds()),
            repositories,
            accounts,
            calls_per_hour: count("calls_per_hour"),
            oldest_visit_at,
            rediscovered_at: number("rediscovered_at"),
            found_jobs: count("found_jobs"),
            redelivery: count("redelivery") == 1,
            hooks,
            hooks_seconds: hooks_pace.seconds(),
            failed_deliveries,
            redelivered: count("redelivered"),
            strays,
            strays_deleted: count("strays_deleted"),
        })
    }
}

/// How fast repositories are visited, in ms.
#[derive(Clone, Copy, Default)]
struct Pace {
    /// The longest time between two visits of a repository, of the last one to two hours.
    longest_ms: u64,
    /// So long the one waits that has waited longest.
    waiting_ms: u64,
    /// So long it takes until all have been visited once, at the pace since there are such; of the account where that
    /// is longest.
    unvisited_ms: u64,
    /// Between two ticks.
    interval_ms: u64,
}

impl Pace {
    /// Time in which a lost job is found: until its repository's next visit, and a tick.
    fn seconds(&self) -> u64 {
        (self.longest_ms.max(self.waiting_ms).max(self.unvisited_ms) + self.interval_ms).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_find_a_job_is_that_between_two_visits() {
        let pace = Pace {
            longest_ms: 600_000,
            waiting_ms: 120_000,
            unvisited_ms: 0,
            interval_ms: 60_000,
        };
        assert_eq!(pace.seconds(), 660);
        assert_eq!(
            Pace {
                waiting_ms: 900_000,
                ..pace
            }
            .seconds(),
            960,
            "it takes longer now"
        );
        assert_eq!(
            Pace {
                unvisited_ms: 7_200_000,
                ..pace
            }
            .seconds(),
            7260,
            "not all have been visited once"
        );
        assert_eq!(
            Pace {
                interval_ms: 60_000,
                ..Pace::default()
            }
            .seconds(),
            60
        );
    }

    #[test]
    fn the_sentences_say_what_to_set() {
        let recovery = Recovery {
            active: true,
            seconds: Some(240),
            repositories: 312,
            calls_per_hour: 1000,
            ..Recovery::default()
        };
        let [found, redelivery] = recovery.sentences();
        assert_eq!(
            found,
            "a job whose webhook was lost is found within about 4 min: 312 repositories, 1000 counted calls an hour \
             and account"
        );
        assert!(redelivery.contains("WEBHOOK_URL"), "{redelivery}");
    }
}
