//! The ledger: what is known of every job and runner, in Redis, and the rules by which it changes.
//!
//! # Keys
//!
//! [`keys`] declares each, with its type and what it holds. [`records`] decodes the two hashes of jobs and runners.
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
pub mod keys;
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
