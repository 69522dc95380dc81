//! The ledger: what is known of every job and runner, in Redis, and the rules by which it changes.
//!
//! # Keys
//!
//! ```text
//! org_limits              HASH    org → limit                        (operators write it too)
//! org:{org}:running       STRING  live runners of the org            (a mirror for operators: never read by admission)
//! global:total_running    STRING  live runners in all                (a mirror)
//! orgs:running            HASH    org → live runners, of those that have any     (a mirror, for people)
//! orgs:pending            HASH    org → queued jobs, of those that have any      (a mirror, for people)
//! org:{org}:pending       ZSET    queued job → time queued, ms
//! org:{org}:runners       SET     live runners                       (its size is what admission trusts)
//! org:{org}:classes       ZSET    class → time of its oldest job without a runner   (unmet demand that is not backing off)
//! class:{id}:info         HASH    org, scope, group, profile, labels
//! class:{id}:queued       ZSET    job → time queued, ms
//! class:{id}:idle         SET     runners reserved, starting or idle
//! classes:surplus         ZSET    class with more idle runners than queued jobs → since
//! orgs:ready              ZSET    org → fairness score               (unmet demand, room, no back-off, no pause)
//! orgs:served             HASH    org → number of the admission at which it was last served
//! orgs:known              HASH    lower-case login → login as GitHub writes it
//! org:{org}:repos         SET     names of a user's repositories
//! owners:logins           HASH    GitHub's id of an owner → its login
//! owners:ids              HASH    lower-case login → GitHub's id of the owner
//! owners:told             HASH    GitHub's id → when it first told the login of now
//! owners:were             HASH    login of before → GitHub's id of the owner
//! owners:moving           HASH    GitHub's id → cursor, while records of its jobs move to the login of now
//! owners:heard            ZSET    login → when a new job last came; 30 days
//! orgs:paused             HASH    org → {reason, until_ms, since}
//! orgs:credential         HASH    org → the credential that alone serves it, as its last runner's maker knew it
//! credential:{name}:orgs  SET     organizations that a credential serves
//! backoffs                ZSET    what backs off (class:ID, scope:SCOPE, org:ORG, profile:NAME, credential:NAME, global, pause:ORG) → until
//! backoffs:waking         ZSET    what backs off no more, and has something put aside
//! {subject}:backoff       HASH    reason, since, until, failures in a row, first, needs, timed, probe
//! {subject}:failing:{needs} ZSET  members of it that failed since something of it succeeded → when
//! {subject}:parked        ZSET    organizations or classes that are put aside while it backs off
//! orgs:parked             HASH    organization → what it is put aside for; of a class, `parked` in its info
//! jobs:questions          ZSET    job → when to ask GitHub about it
//! registrations:uncertain ZSET    runner → when to look it up at GitHub and delete it
//! quota:ceiling           HASH    how many runners the namespace's quota let in when it last refused one, since, reason
//! repos:active            ZSET    owner/repo → last seen; 30 days     (what the sweep visits)
//! repos:unreadable        ZSET    owner/repo whose jobs the credential may not read → when GitHub last said so   (for people)
//! repos:new               SET     of these, those that are in no account's queue yet
//! repos:runs              HASH    owner/repo → what is known of its runs: GitHub's ETag, the id below which all were over, JSON
//! recovery                HASH    the epoch that was searched, the walk through known owners, the longest times between two looks, counts
//! recovery:accounts       ZSET    account (whatever GitHub counts calls of) → when its turn may come next
//! recovery:oldest         ZSET    account → last visit of the repository that has waited longest
//! recovery:unvisited      ZSET    account → time until those are visited that never were
//! recover:{account}:{round} ZSET  repos, hooks, rereads → when last looked at; lists, scopes → when due
//! recover:{account}       HASH    the epoch that its lists are of, its pace
//! hooks:known             HASH    webhook of ours → where its deliveries were read to, JSON
//! hooks:owners            SET     owners, and app:NAME, with a webhook of ours for all of their repositories
//! hook:{hook}:failed      ZSET    guid of a delivery to repeat → its time (queued ones first)
//! hook:{hook}:later       ZSET    guid of one that failed again → when to repeat it
//! deliveries:open         ZSET    guids of both, of all hooks → noted
//! delivery:{guid}         HASH    id of the last try, action, time, tries, whether it is settled; 7 days
//! strays:seen             ZSET    registration that is offline and unknown here → first seen
//! runners:live            SET     every live runner
//! runners:deadlines       ZSET    runner → when it must have moved on
//! conditions              ZSET    what is wrong around a process, as it says, JSON → last told
//! places                  ZSET    where runners run → when a worker last listed what is there
//! workers:alive           ZSET    worker → last heartbeat
//! job:{id}:info           HASH    state, org, repo, class, times, runner, conclusion, reason; expires after the end
//! runner:{name}:info      HASH    org, class, job that asked for it, job that it runs, state, fence, GitHub id, times; expires after the end
//! credential:{name}:rate  HASH    limit, remaining, reset: what GitHub last said of the hour's calls; spent since then
//! credential:{name}:points ZSET   runner → when its registration was asked for (one minute)
//! credential:{name}:spare HASH    minute → optional calls (one hour), but those answered with 304
//! credential:{name}:asked HASH    this minute, and all optional calls of it
//! credential:{name}:unlimited STRING the server told of no limit (one hour)
//! scope:{scope}:registrations ZSET runner → when it was registered (five minutes)
//! ledger:meta             HASH    schema, epoch, sequence, effective configuration and its generation
//! ```
//!
//! Nothing outside this module knows a key or a script. Nothing runs `KEYS` or `SCAN`.
//!
//! # Transitions
//!
//! Each is one Lua script, atomic and idempotent: a body in `lua/ops`, behind the parts of `lua/prelude` that it needs.
//! Keys are named inside the scripts, so this needs one Redis (or a Sentinel group), not a Redis Cluster. A
//! transition costs O(log n), however deep the queues are.
//!
//! # Invariants
//!
//! Checked after every transition by a property test against a model in memory, and on a live store by
//! [`Ledger::doctor`].
//!
//! 1. `org:{org}:running` is the size of `org:{org}:runners`; `global:total_running` is the size of `runners:live` and
//!    their sum; every idle set is part of them.
//! 2. No admission takes an organization over its limit or the whole over the maximum. A runner counts from its
//!    reservation until its pod is gone.
//! 3. No admission makes a class's idle runners more than its queued jobs.
//! 4. Every accepted job is in exactly one place: `jit:events`, waiting, queued, in question, in progress, completed.
//! 5. An organization is in `orgs:ready`, or put aside for what backs off, exactly when it has unmet demand, room, and
//!    no pause; a class with unmet demand is in its organization's `classes`, or put aside likewise.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

mod budget;
mod calls;
mod classes;
pub mod conditions;
mod doctor;
mod explain;
mod lists;
mod overview;
mod owners;
pub mod places;
pub mod records;
pub mod recovery;
mod scripts;
mod transitions;
mod types;
mod workers;

pub use budget::{Budget, RESERVE, RateWord, Spare, Spending, Whose};
pub use calls::{AT_ONCE, CallOf, Ended, Entering, Turn};
pub use doctor::{Finding, Report};
pub use explain::Explanation;
pub use lists::Listing;
pub use overview::{OrgStatus, Overview};
pub use records::{JobRecord, RunnerRecord};
pub use transitions::{ADMIT_BATCH, Claim};
pub use types::*;

use crate::{
    config::GithubSettings,
    store::{Pool, PoolError, error},
};

/// A time as the scripts take it, ms.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why the ledger could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Redis cannot be reached or did not answer: try again. The transition may or may not have happened; all are
    /// idempotent.
    #[error("Redis is unavailable: {0}")]
    Unavailable(String),
    /// Redis refuses for now: it is full, read-only, loading, wants another password, or holds what is not ours.
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// The transition itself failed: what it was given, or what it found, is not what it can work with.
    #[error("the ledger cannot apply this: {0}")]
    Rejected(String),
}

impl LedgerError {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Rejected(_))
    }
}

impl From<redis::RedisError> for LedgerError {
    fn from(error: redis::RedisError) -> Self {
        if error::is_refusal(&error) {
            Self::Refused(error.to_string())
        } else if error::is_answer(&error) {
            Self::Rejected(error.to_string())
        } else {
            Self::Unavailable(error.to_string())
        }
    }
}

impl From<PoolError> for LedgerError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A handle on the ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    pool: Pool,
    clock: Option<Arc<AtomicI64>>,
    /// The furthest that this process has seen the ledger's names come: data that is behind it has been rolled back,
    /// and admits nothing.
    seen: Arc<Mutex<Option<Seen>>>,
    /// What this process derives classes by: see [`Ledger::derive_classes`].
    classes: Option<Arc<str>>,
    /// Where this process makes, lists and ends runners.
    places: Arc<places::Places>,
    /// Time after its claim within which a runner may yet come to be.
    in_flight: Duration,
}

#[derive(Serialize)]
struct Timed<'a, A> {
    #[serde(flatten)]
    args: &'a A,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<i64>,
}

impl Ledger {
    /// The ledger in the Redis of this pool.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            clock: None,
            seen: Arc::default(),
            classes: None,
            places: Arc::default(),
            in_flight: Duration::ZERO,
        }
    }

    /// The same ledger with time, in ms since 1970, taken from `clock` and not from Redis: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<AtomicI64>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The same ledger, for a process that derives classes by these settings.
    #[must_use]
    pub fn with_classes(mut self, github: &GithubSettings) -> Self {
        self.classes = Some(github.fingerprint().into());
        self
    }

    fn seen(&self) -> Option<Seen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, now: Option<Seen>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (*seen).max(now);
    }

    /// The pool, for the streams.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Redis's time in ms since 1970.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn now(&self) -> Result<i64, LedgerError> {
        if let Some(clock) = &self.clock {
            return Ok(clock.load(Ordering::Relaxed));
        }
        let mut connection = self.pool.get().await?;
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// Whether Redis answers.
    pub async fn is_reachable(&self) -> bool {
        self.pool.get().await.is_ok()
    }

    /// Runs one script with one JSON argument and reads its one JSON answer.
    async fn run<T: DeserializeOwned>(&self, script: &redis::Script, args: &impl Serialize) -> Result<T, LedgerError> {
        let now = self.clock.as_ref().map(|clock| clock.load(Ordering::Relaxed));
        let json =
            serde_json::to_string(&Timed { args, now }).map_err(|error| LedgerError::Rejected(error.to_string()))?;
        let mut connection = self.pool.get().await?;
        let answer: String = script.arg(json).invoke_async(&mut connection).await?;
        serde_json::from_str(&answer).map_err(|error| LedgerError::Rejected(format!("unexpected answer: {error}")))
    }
}
