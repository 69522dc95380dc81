//! A slice of recovery's work, as all accounts share it: its time, its calls in all, and whether GitHub is there.
//!
//! Invariants: what does not answer costs the others nothing; a GitHub that is away as a whole ends the slice; no more
//! calls go out in a minute than a server bears, counted or not.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Worker;

/// A slice ends after this time, and the next tick goes on.
const SLICE: Duration = Duration::from_secs(60);
/// Calls in a minute, of all accounts together, where the budget of one does not ask for more.
const MOST_A_MINUTE: u64 = 1200;
/// Calls that a slice may make in any case, however short the time between two ticks.
const LEAST: u64 = 60;
/// GitHub is taken for away when call after call failed, for so many owners …
const OWNERS_IN_A_ROW: usize = 3;
/// … or so many times.
const FAILURES_IN_A_ROW: u64 = 10;

/// A slice of work: how much of it is left.
pub(super) struct Slice<'a> {
    pub(super) worker: &'a Worker,
    stop: &'a CancellationToken,
    /// When it began by the ledger's clock, ms: what was looked at since is not looked at again.
    pub(super) now: i64,
    began: Instant,
    /// Calls that may still go out.
    left: AtomicU64,
    /// GitHub is away.
    ended: AtomicBool,
    urgent: AtomicBool,
    /// Credentials that GitHub does not accept.
    refused: Mutex<HashSet<String>>,
    /// Calls that failed in a row.
    row: Mutex<Row>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Slice<'a> {
    pub(super) fn new(worker: &'a Worker, stop: &'a CancellationToken, now: i64) -> Self {
        let most = MOST_A_MINUTE.max(worker.budget.spare_calls_per_minute());
        Self {
            worker,
            stop,
            now,
            began: Instant::now(),
            left: AtomicU64::new((most * worker.search.interval.as_secs().max(1) / 60).max(LEAST)),
            ended: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            refused: Mutex::default(),
            row: Mutex::default(),
        }
    }

    pub(super) fn timed_out(&self) -> bool {
        self.began.elapsed() >= SLICE
    }

    /// Whether another piece may be begun.
    pub(super) fn goes_on(&self) -> bool {
        self.may_call() && self.left.load(Ordering::Relaxed) > 0 && !self.timed_out()
    }

    /// Whether what was begun may be finished.
    pub(super) fn may_call(&self) -> bool {
        !self.ended.load(Ordering::Relaxed) && !self.stop.is_cancelled()
    }

    /// A call goes out.
    pub(super) fn called(&self) {
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(1))
        });
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        *lock(&self.row) = Row::default();
    }

    /// A call about something of this owner's failed, or there is no connection at all; whether GitHub is taken for
    /// away.
    pub(super) fn failed(&self, owner: &str, away: bool) -> bool {
        if lock(&self.row).failed(owner) || away {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.ended.load(Ordering::Relaxed)
    }

    /// GitHub does not accept this credential, whatever account it is used for.
    pub(super) fn refuse(&self, credential: &str) {
        lock(&self.refused).insert(credential.to_owned());
    }

    pub(super) fn refuses(&self, credential: &str) -> bool {
        lock(&self.refused).contains(credential)
    }

    pub(super) fn set_urgent(&self) {
        if !self.urgent.swap(true, Ordering::Relaxed) {
            tracing::info!("the data may have been lost: looking for every job at GitHub");
        }
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }
}

/// Calls that failed in a row: whether it is GitHub that is away, or the one that was asked about.
#[derive(Default)]
struct Row {
    failures: u64,
    owners: HashSet<String>,
}

impl Row {
    /// The last call failed; whether that is one too many.
    fn failed(&mut self, owner: &str) -> bool {
        self.failures += 1;
        self.owners.insert(owner.to_owned());
        self.owners.len() >= OWNERS_IN_A_ROW || self.failures >= FAILURES_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_before_its_right_does() {
        assert!(SLICE * 2 <= super::super::AT_MOST);
    }

    #[test]
    fn one_owner_ends_a_slice_late_and_several_in_a_row_soon() {
        let failing = |owners: &[&str]| {
            let mut row = Row::default();
            owners.iter().position(|owner| row.failed(owner))
        };
        assert_eq!(failing(&["a", "b", "c", "d"]), Some(2), "GitHub is away");
        assert_eq!(failing(&["a"; 20]), Some(9), "everything of one owner's");
        assert_eq!(failing(&["a", "b", "a", "b"]), None);
    }
}
