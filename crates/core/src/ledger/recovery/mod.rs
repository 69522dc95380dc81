//! Recovery: what the ledger keeps to find what never came.
//!
//! Webhooks get lost, and data does. Three things bring back what they would have told: failed deliveries are repeated,
//! repositories are swept for jobs that are unknown here, and registrations that nobody owns are deleted. Here stand
//! the queues of what is looked at next, one for each account and [`Round`], so that any worker can go on where another
//! stopped and what has no budget is not touched. Nothing here changes a job or a runner: what is found is appended to
//! `jit:events` and takes the ordinary way, so a webhook that comes late after all is the same event twice, which is
//! harmless.

use std::time::Duration;

use redis::AsyncCommands;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Ledger, LedgerError, keys, millis, scripts};
use crate::{
    event::{Action, JobEvent},
    stream,
};

mod status;
mod types;

pub use status::Recovery;
pub use types::*;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lists {
    taken: bool,
    more: bool,
    accounts: Vec<String>,
    delete: Vec<Registered>,
    deliveries: Vec<Redelivery>,
}

/// What one call hands over or walks through at most.
const PAGE: usize = 500;

impl Ledger {
    async fn recover<T: DeserializeOwned>(&self, args: Value) -> Result<T, LedgerError> {
        self.run(&scripts::RECOVERY, &args).await
    }

    async fn note(&self, args: Value) -> Result<(), LedgerError> {
        self.recover::<Value>(args).await.map(|_| ())
    }

    /// Takes the right to work on a slice for `at_most`, unless a worker that was heard of within `dead_after` has it.
    /// Give it back by [`Ledger::end_tick`].
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn take_recovery(
        &self,
        worker: &str,
        at_most: Duration,
        dead_after: Duration,
    ) -> Result<bool, LedgerError> {
        Ok(self
            .recover::<Lists>(
                json!({ "op": "take", "worker": worker, "at_most": millis(at_most), "dead_after": millis(dead_after) }),
            )
            .await?
            .taken)
    }

    /// Begins a tick: prunes, and says what is new.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn recovery_tick(&self, settings: &RecoverySettings) -> Result<RecoveryTick, LedgerError> {
        self.recover(json!({
            "op": "tick", "interval": millis(settings.interval), "calls_per_hour": settings.calls_per_hour,
            "redelivery": settings.redelivery,
        }))
        .await
    }

    /// A page of the owners that were ever seen: logins, and `owner/repo` of users' repositories. The cursor of the
    /// next page, `0` at the end.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn known_owners(&self, cursor: &str) -> Result<(String, Vec<String>), LedgerError> {
        let mut connection = self.pool().get().await?;
        let (next, flat): (String, Vec<String>) = redis::cmd("HSCAN")
            .arg(keys::ORGS_KNOWN)
            .arg(cursor)
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut connection)
            .await?;
        let owners: Vec<String> = flat.into_iter().skip(1).step_by(2).collect();
        if owners.is_empty() {
            return Ok((next, owners));
        }
        let mut pipe = redis::pipe();
        for owner in &owners {
            pipe.smembers(keys::org_repos(owner));
        }
        let repos: Vec<Vec<String>> = pipe.query_async(&mut connection).await?;
        let named = owners
            .into_iter()
            .zip(repos)
            .flat_map(|(owner, repos)| match repos.is_empty() {
                true => vec![owner],
                false => repos.into_iter().map(|repo| format!("{owner}/{repo}")).collect(),
            });
        Ok((next, named.collect()))
    }

    /// The known owners were walked through up to this cursor.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn owners_walked(&self, cursor: &str) -> Result<(), LedgerError> {
        self.note(json!({ "op": "walked", "cursor": cursor })).await
    }

    /// Queues what is not queued yet; `known` are repositories that are not new any more.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn enqueue(&self, items: &[Queued], known: &[String]) -> Result<(), LedgerError> {
        for some in items.chunks(PAGE) {
            self.note(json!({ "op": "enqueue", "items": some })).await?;
        }
        if known.is_empty() {
            Ok(())
        } else {
            self.note(json!({ "op": "enqueue", "known": known })).await
        }
    }

    /// Up to `n` accounts whose turn comes, and had not come before this time (ms); those first that have waited
    /// longest. Each is given out once.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn recovery_accounts(&self, before: i64, n: u32) -> Result<Vec<String>, LedgerError> {
        Ok(self
            .recover::<Lists>(json!({ "op": "accounts", "before": before, "n": n }))
            .await?
            .accounts)
    }

    /// What is due in these rounds of an account.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn recovery_due(&self, account: &str, rounds: &[Ask]) -> Result<AccountDue, LedgerError> {
        self.recover(json!({ "op": "due", "account": account, "rounds": rounds }))
            .await
    }

    /// An item was looked at; `at` is its time in the queue from now on, in ms: see [`Round`]. With none it leaves the
    /// queue. `known` is what to remember of a repository.
    ///
    /// # Errors
    /// When Redis is unavailable; it is then looked at again.
    pub async fn looked_at(
        &self,
        account: &str,
        round: Round,
        item: &str,
        at: Option<i64>,
        known: Option<&KnownRuns>,
    ) -> Result<(), LedgerError> {
        let mut args = json!({ "op": "done", "account": account, "round": round, "item": item });
        if let Some(at) = at {
            args["at"] = at.into();
        }
        if let Some(known) = known {
            args["known"] = json!(known).to_string().into();
        }
        self.note(args).await
    }

    /// An account has had its turn, in which so many repositories were visited; the next comes after `not_before` (ms).
    ///
    /// # Errors
    /// When Redis is unavailable; it then has its turn in the next tick.
    pub async fn account_served(&self, account: &str, not_before: i64, visited: u64) -> Result<(), LedgerError> {
        self.note(json!({ "op": "served", "account": account, "not_before": not_before, "visited": visited }))
            .await
    }

    /// Appends to `jit:events` what the ledger does not know of jobs that GitHub calls queued or in progress. `prefix`
    /// starts the names of our runners.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn report_found(&self, events: &[JobEvent], prefix: &str) -> Result<Reported, LedgerError> {
        let found: Vec<Value> = events
            .iter()
            .filter(|event| matches!(event.action, Action::Queued | Action::InProgress))
            .map(|event| {
                let ours = event
                    .runner
                    .as_deref()
                    .is_some_and(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-')));
                let mut job = json!({ "job": event.job, "kind": event.action.as_str(), "ours": ours,
                    "event": json!(event).to_string() });
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
        self.recover(json!({ "op": "found", "v": stream::VERSION, "jobs": found }))
            .await
    }

    /// Notes and queues repositories of an account that GitHub told of, with the time of the last push (ms). With
    /// `hooks` the webhooks of each are looked for.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn discovered(&self, account: &str, repos: &[(String, i64)], hooks: bool) -> Result<(), LedgerError> {
        for some in repos.chunks(PAGE) {
            let repos: Vec<Value> = some
                .iter()
                .map(|(name, at)| json!({ "name": name, "at": at }))
                .collect();
            self.note(json!({ "op": "discovered", "account": account, "repos": repos, "hooks": hooks }))
                .await?;
        }
        Ok(())
    }

    /// Notes the registrations of one scope: `seen` are offline and not busy, `cleared` are online or busy. Those to
    /// delete: unknown here, and seen so at least `confirm` ago, too. The scope is looked at again after `again`, or
    /// after `confirm` where some are noted.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn strays(
        &self,
        account: &str,
        scope: &str,
        seen: &[Registered],
        cleared: &[Registered],
        confirm: Duration,
        again: Duration,
    ) -> Result<Vec<Registered>, LedgerError> {
        let mut args = json!({ "op": "strays", "account": account, "scope": scope, "confirm": millis(confirm),
            "again": millis(again) });
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
        self.note(json!({ "op": "stray_gone", "scope": scope, "name": runner.name, "id": runner.id }))
            .await
    }

    /// Where the deliveries of a webhook of ours were read to, if it is known.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hook(&self, hook: &str) -> Result<Option<HookCursor>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let json: Option<String> = connection.hget(keys::HOOKS_KNOWN, hook).await?;
        Ok(json.map(|json| serde_json::from_str(&json).unwrap_or_default()))
    }

    /// Takes down a webhook of ours, and that it tells of all that is `of` (an owner in lower case, or `app:NAME`).
    /// Whether it was unknown.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn hook_found(&self, account: &str, hook: &str, of: Option<&str>) -> Result<bool, LedgerError> {
        let mut connection = self.pool().get().await?;
        let mut pipe = redis::pipe();
        pipe.atomic()
            .hset_nx(keys::HOOKS_KNOWN, hook, json!(HookCursor::default()).to_string());
        if let Some(of) = of {
            pipe.sadd(keys::HOOKS_OWNERS, of).ignore();
        }
        let (new,): (bool,) = pipe.query_async(&mut connection).await?;
        drop(connection);
        self.enqueue(&[Queued::new(account, Round::Hooks, hook)], &[]).await?;
        Ok(new)
    }

    /// Whether one of these (an owner in lower case, or `app:NAME`) has a webhook of ours that tells of all that is
    /// its.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn any_has_a_hook(&self, of: &[String]) -> Result<bool, LedgerError> {
        let mut connection = self.pool().get().await?;
        let has: Vec<bool> = redis::cmd("SMISMEMBER")
            .arg(keys::HOOKS_OWNERS)
            .arg(of)
            .query_async(&mut connection)
            .await?;
        Ok(has.contains(&true))
    }

    /// Keeps where a hook's deliveries were read to; with none, forgets the hook, and that it tells of all that is
    /// `of`.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn keep_hook(
        &self,
        hook: &str,
        cursor: Option<&HookCursor>,
        of: Option<&str>,
    ) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        match (cursor, of) {
            (Some(cursor), _) => Ok(connection
                .hset(keys::HOOKS_KNOWN, hook, json!(cursor).to_string())
                .await?),
            (None, Some(of)) => Ok(redis::pipe()
                .atomic()
                .hdel(keys::HOOKS_KNOWN, hook)
                .srem(keys::HOOKS_OWNERS, of)
                .query_async(&mut connection)
                .await?),
            (None, None) => Ok(connection.hdel(keys::HOOKS_KNOWN, hook).await?),
        }
    }

    /// Notes what became of deliveries: `failed` in order of time, and `settled`, the guids that a 2xx has answered.
    /// `most` is how often one is repeated.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn note_deliveries(
        &self,
        hook: &str,
        failed: &[FailedDelivery],
        settled: &[String],
        most: u32,
    ) -> Result<(), LedgerError> {
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
        while self
            .recover::<Lists>(json!({ "op": "awake", "hook": hook }))
            .await?
            .more
        {}
        Ok(())
    }

    /// Up to `n` deliveries of a hook to repeat now: those of queued jobs first, newest first.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn redeliverable(&self, hook: &str, n: u32) -> Result<Vec<Redelivery>, LedgerError> {
        Ok(self
            .recover::<Lists>(json!({ "op": "redeliverable", "hook": hook, "n": n }))
            .await?
            .deliveries)
    }

    /// GitHub was asked to repeat a delivery of a hook. `most` is how often it is asked at most.
    ///
    /// # Errors
    /// When Redis is unavailable; it may then be repeated once more.
    pub async fn redelivered(&self, hook: &str, guid: &str, said: Repetition, most: u32) -> Result<(), LedgerError> {
        let (forgotten, refused) = (said == Repetition::Forgotten, said == Repetition::Refused);
        let args = json!({ "op": "redelivered", "hook": hook, "guid": guid, "forgotten": forgotten, "refused": refused,
            "most": most });
        self.note(args).await
    }
}
