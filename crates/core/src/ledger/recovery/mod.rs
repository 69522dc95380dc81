//! Recovery: what the ledger keeps to find what never came.
//!
//! Webhooks get lost, and data does. Three things bring back what they would have told: failed deliveries are repeated, repositories are
//! swept for jobs that are unknown here, and registrations that nobody owns are deleted. Here stand their cursors, so that any worker can
//! go on where another stopped. Nothing here changes a job or a runner: what is found
//! is appended to `jit:events` and takes the ordinary way, so a webhook that comes late after all is the same event twice, which is harmless.

use std::{collections::BTreeMap, time::Duration};

use redis::AsyncCommands;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Ledger, LedgerError, scripts};
use crate::{
    event::{Action, JobEvent},
    stream,
};

mod status;
mod types;

pub use status::Recovery;
pub use types::*;

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

    /// A repository was visited, which took so many calls. One that `failed` to answer is visited again at the end of the pass; after the third time
    /// the pass is over without it.
    ///
    /// # Errors
    /// When Redis is unavailable; it is then visited again.
    pub async fn swept(&self, repo: &str, calls: u64, failed: bool) -> Result<(), LedgerError> {
        self.note(json!({ "op": "swept", "repo": repo, "calls": calls, "failed": failed })).await
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

    /// Notes repositories (with the time of the last push, ms) and owners that GitHub told of, and what came of asking one of
    /// [`Ledger::owners_to_list`]. `cursor` is that of the list of owners, `end` at its end.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn discovered(&self, repos: &[(String, i64)], owners: &[String], asked: Option<Asked<'_>>, cursor: Option<&str>) -> Result<(), LedgerError> {
        let (done, missed) = match asked {
            Some(Asked::Answered(owner)) => (Some(owner), None),
            Some(Asked::Missed(owner)) => (None, Some(owner)),
            None => (None, None),
        };
        let mut args = json!({ "op": "discovered" });
        if !repos.is_empty() {
            args["repos"] = repos.iter().map(|(name, at)| json!({ "name": name, "at": at })).collect();
        }
        if !owners.is_empty() {
            args["owners"] = json!(owners);
        }
        for (name, value) in [("done", done), ("missed", missed), ("cursor", cursor)] {
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

    /// Whether a scope's webhooks were listed within `within`.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hooks_were_asked(&self, scope: &str, within: Duration) -> Result<bool, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let asked: Option<f64> = connection.zscore("hooks:asked", scope).await?;
        #[expect(clippy::cast_precision_loss, reason = "ms since 1970 have 41 bits, an f64 holds 53")]
        let recent = asked.is_some_and(|at| at + millis(within) as f64 > now as f64);
        Ok(recent)
    }

    /// A scope's webhooks were listed, or it refuses to tell them.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hooks_are_asked(&self, scope: &str) -> Result<(), LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        Ok(connection.zadd("hooks:asked", scope, now).await?)
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

    /// GitHub was asked to repeat a delivery. `most` is how often it is asked at most.
    ///
    /// # Errors
    /// When Redis is unavailable; it may then be repeated once more.
    pub async fn redelivered(&self, guid: &str, said: Repetition, most: u32) -> Result<(), LedgerError> {
        let (forgotten, refused) = (said == Repetition::Forgotten, said == Repetition::Refused);
        self.note(json!({ "op": "redelivered", "guid": guid, "forgotten": forgotten, "refused": refused, "most": most })).await
    }
}
