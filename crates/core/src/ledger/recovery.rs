//! Recovery: what the ledger keeps to find what never came.
//!
//! Webhooks get lost, and data does. Three things bring back what they would have told: failed deliveries are repeated, repositories are
//! swept for jobs that are unknown here, and registrations that nobody owns are deleted. Here stand their cursors, so that any worker can
//! go on where another stopped. Nothing here changes a job or a runner: what is found
//! is appended to `jit:events` and takes the ordinary way, so a webhook that comes late after all is the same event twice, which is harmless.

use std::{collections::BTreeMap, time::Duration};

use redis::{AsyncCommands, pipe};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Ledger, LedgerError, scripts};
use crate::{
    event::{Action, JobEvent},
    stream,
};

/// Calls that a visit of a quiet repository takes: its runs that are queued, in progress, waiting.
const CALLS_A_REPOSITORY: f64 = 3.0;

/// How recovery is configured.
#[derive(Clone, Debug)]
pub struct RecoverySettings {
    /// Time between two ticks.
    pub interval: Duration,
    /// Calls of GitHub that recovery may make in an hour.
    pub calls_per_hour: u64,
    /// Time between two rebuilds of `repos:active` from GitHub.
    pub rediscover_interval: Duration,
    /// Whether failed deliveries are repeated: the webhook's address is known.
    pub redelivery: bool,
    /// Where runners register: `organization`, `repository`, or an enterprise's scope.
    pub scopes: String,
}

/// What a tick finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RecoveryTick {
    /// The epoch gate was opened once; before, nothing is looked for.
    pub open: bool,
    /// The data may have been lost: everything at once.
    pub urgent: bool,
    /// A rebuild of `repos:active` is under way: cursor of the list of organizations, `end` once all are listed.
    pub rediscovery: Option<String>,
}

/// What the sweep looks at next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sweep {
    /// Repositories, newest first.
    pub repos: Vec<String>,
    /// The pass is over.
    pub ended: bool,
}

/// What was news of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// Queued jobs that the ledger did not know as such.
    pub queued: u64,
    /// Jobs whose beginning the ledger did not know of.
    pub in_progress: u64,
    /// Too many events are on their way to tell what is unknown; nothing was reported.
    pub backlog: bool,
}

/// A runner's registration at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registered {
    /// Name.
    pub name: String,
    /// GitHub's id, as text: Lua has no 64 bits.
    pub id: String,
}

/// A delivery that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedDelivery {
    /// The same for each try.
    pub guid: String,
    /// Of this try, as text.
    pub id: String,
    /// The event's action.
    pub action: String,
    /// When it was sent, ms.
    pub at: i64,
}

/// A delivery to be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Redelivery {
    /// The same for each try.
    pub guid: String,
    /// Of the last try.
    pub id: String,
    /// Address of its hook.
    pub hook: String,
    /// The event's action.
    pub action: String,
}

/// Where a hook's deliveries were read to. Times are ms, by GitHub's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCursor {
    /// All deliveries until this time have been read.
    pub read_until: i64,
    /// The newest delivery of the walk that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_from: Option<i64>,
    /// Where that walk goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The newest delivery was answered with a 2xx: the receiver can be reached.
    #[serde(default)]
    pub works: bool,
}

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

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Lists {
    taken: bool,
    owners: Vec<String>,
    scopes: Vec<String>,
    delete: Vec<Registered>,
    deliveries: Vec<Redelivery>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Ledger {
    async fn recover<T: DeserializeOwned>(&self, args: Value) -> Result<T, LedgerError> {
        self.run(&scripts::RECOVERY, &args).await
    }

    async fn note(&self, args: Value) -> Result<(), LedgerError> {
        self.recover::<Value>(args).await.map(|_| ())
    }

    /// Takes the right to work on a slice for `at_most`, unless a worker that was heard of within `dead_after` has it. Give it back by [`Ledger::end_tick`].
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn take_recovery(&self, worker: &str, at_most: Duration, dead_after: Duration) -> Result<bool, LedgerError> {
        Ok(self.recover::<Lists>(json!({ "op": "take", "worker": worker, "at_most": millis(at_most), "dead_after": millis(dead_after) })).await?.taken)
    }

    /// Begins a tick: prunes, and says whether everything has to be looked for anew.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn recovery_tick(&self, settings: &RecoverySettings) -> Result<RecoveryTick, LedgerError> {
        self.recover(json!({
            "op": "tick", "interval": millis(settings.interval), "calls_per_hour": settings.calls_per_hour,
            "rediscover_interval": millis(settings.rediscover_interval), "redelivery": settings.redelivery, "scopes": settings.scopes,
        }))
        .await
    }

    /// Up to `n` repositories that this pass has still to visit, without the first `from`; with `start` a new pass begins where the last is over.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn sweep(&self, from: usize, n: u32, start: bool) -> Result<Sweep, LedgerError> {
        self.recover(json!({ "op": "sweep", "from": from, "n": n, "start": start })).await
    }

    /// A repository was visited, which took so many calls.
    ///
    /// # Errors
    /// When Redis is unavailable; it is then visited again.
    pub async fn swept(&self, repo: &str, calls: u64) -> Result<(), LedgerError> {
        self.note(json!({ "op": "swept", "repo": repo, "calls": calls })).await
    }

    /// Appends to `jit:events` what the ledger does not know of jobs that GitHub calls queued or in progress. `prefix` starts the names of our runners.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn report_found(&self, events: &[JobEvent], prefix: &str) -> Result<Reported, LedgerError> {
        let found: Vec<Value> = events
            .iter()
            .filter(|event| matches!(event.action, Action::Queued | Action::InProgress))
            .map(|event| {
                let ours = event.runner.as_deref().is_some_and(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-')));
                let mut job = json!({ "job": event.job, "kind": event.action.as_str(), "ours": ours, "event": json!(event).to_string() });
                if let Some(attempt) = event.attempt {
                    job["attempt"] = attempt.to_string().into();
                }
                if let Some(runner) = &event.runner {
                    job["runner"] = runner.clone().into();
                }
                job
            })
            .collect();
        if found.is_empty() {
            return Ok(Reported::default());
        }
        self.recover(json!({ "op": "found", "v": stream::VERSION, "jobs": found })).await
    }

    /// Notes repositories (with the time of the last push, ms) and owners that GitHub told of. `cursor` is that of the list of owners, `end` at its end.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn discovered(&self, repos: &[(String, i64)], owners: &[String], done: Option<&str>, cursor: Option<&str>) -> Result<(), LedgerError> {
        let mut args = json!({ "op": "discovered" });
        if !repos.is_empty() {
            args["repos"] = repos.iter().map(|(name, at)| json!({ "name": name, "at": at })).collect();
        }
        if !owners.is_empty() {
            args["owners"] = json!(owners);
        }
        for (name, value) in [("done", done), ("cursor", cursor)] {
            if let Some(value) = value {
                args[name] = value.into();
            }
        }
        self.note(args).await
    }

    /// Owners whose repositories are still to be listed.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn owners_to_list(&self, n: u32) -> Result<Vec<String>, LedgerError> {
        Ok(self.recover::<Lists>(json!({ "op": "owners", "n": n })).await?.owners)
    }

    /// Logins, and `owner/repo` of users' repositories, that were ever seen.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn known_owners(&self) -> Result<Vec<String>, LedgerError> {
        let mut connection = self.pool().get().await?;
        Ok(connection.hvals("orgs:known").await?)
    }

    /// Scopes whose registrations are to be looked at now.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn stray_scopes(&self, n: u32) -> Result<Vec<String>, LedgerError> {
        Ok(self.recover::<Lists>(json!({ "op": "stray_scopes", "n": n })).await?.scopes)
    }

    /// Notes the registrations of one scope: `seen` are offline and not busy, `cleared` are online or busy. Those to delete: unknown here, and seen so at
    /// least `confirm` ago, too. The scope is looked at again after `again`, or after `confirm` where some are noted.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn strays(
        &self,
        scope: &str,
        seen: &[Registered],
        cleared: &[Registered],
        confirm: Duration,
        again: Duration,
    ) -> Result<Vec<Registered>, LedgerError> {
        let mut args = json!({ "op": "strays", "scope": scope, "confirm": millis(confirm), "again": millis(again) });
        for (name, list) in [("seen", seen), ("cleared", cleared)] {
            if !list.is_empty() {
                args[name] = json!(list);
            }
        }
        Ok(self.recover::<Lists>(args).await?.delete)
    }

    /// A stray registration is gone.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn stray_gone(&self, scope: &str, runner: &Registered) -> Result<(), LedgerError> {
        self.note(json!({ "op": "stray_gone", "scope": scope, "name": runner.name, "id": runner.id })).await
    }

    /// Webhooks of ours, by address, and where their deliveries were read to.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hooks(&self) -> Result<BTreeMap<String, HookCursor>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let hooks: BTreeMap<String, String> = connection.hgetall("hooks:known").await?;
        Ok(hooks.into_iter().map(|(hook, json)| (hook, serde_json::from_str(&json).unwrap_or_default())).collect())
    }

    /// Keeps where a hook's deliveries were read to; with none, forgets the hook.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn keep_hook(&self, hook: &str, cursor: Option<&HookCursor>) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        match cursor {
            Some(cursor) => Ok(connection.hset("hooks:known", hook, json!(cursor).to_string()).await?),
            None => Ok(connection.hdel("hooks:known", hook).await?),
        }
    }

    /// Whether a scope's webhooks were listed within `within`; if not, they are from now on.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hooks_were_asked(&self, scope: &str, within: Duration) -> Result<bool, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let asked: Option<f64> = connection.zscore("hooks:asked", scope).await?;
        #[expect(clippy::cast_precision_loss, reason = "ms since 1970 have 41 bits, an f64 holds 53")]
        let recent = asked.is_some_and(|at| at + millis(within) as f64 > now as f64);
        if !recent {
            let _: i64 = connection.zadd("hooks:asked", scope, now).await?;
        }
        Ok(recent)
    }

    /// Notes what became of deliveries: `failed` in order of time, and `settled`, the guids that a 2xx has answered. `most` is how often one is repeated.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn note_deliveries(&self, hook: &str, failed: &[FailedDelivery], settled: &[String], most: u32) -> Result<(), LedgerError> {
        let mut args = json!({ "op": "deliveries", "hook": hook, "most": most });
        if !failed.is_empty() {
            args["failed"] = json!(failed);
        }
        if !settled.is_empty() {
            args["settled"] = json!(settled);
        }
        self.note(args).await
    }

    /// The receiver can be reached again: what failed again meanwhile need not wait any longer.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hook_awake(&self, hook: &str) -> Result<(), LedgerError> {
        self.note(json!({ "op": "awake", "hook": hook })).await
    }

    /// Up to `n` deliveries to repeat now: those of queued jobs first, newest first.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn redeliverable(&self, n: u32) -> Result<Vec<Redelivery>, LedgerError> {
        Ok(self.recover::<Lists>(json!({ "op": "redeliverable", "n": n })).await?.deliveries)
    }

    /// GitHub was asked to repeat a delivery, and will, or does not know it any more.
    ///
    /// # Errors
    /// When Redis is unavailable; it may then be repeated once more.
    pub async fn redelivered(&self, guid: &str, forgotten: bool) -> Result<(), LedgerError> {
        self.note(json!({ "op": "redelivered", "guid": guid, "forgotten": forgotten })).await
    }

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
