//! Everything that the simulated GitHub saw and did, in order.
//!
//! Bounded: the oldest entries go first. The summary does not depend on it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::model::{Action, Conclusion, Ms};

/// Entries kept: about 100 bytes each.
const KEEP: usize = 1_000_000;

/// One thing that happened. `owner` is a login or an enterprise's slug.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant says what its fields are")]
pub enum Event {
    /// A job came to be.
    JobCreated { job: u64, owner: Arc<str> },
    /// A request to the webhook's URL began.
    WebhookSent {
        job: u64,
        action: Action,
        delivery: Arc<str>,
    },
    /// It ended: `status` is 0 when there was no answer, and `error` says why.
    WebhookAnswered {
        job: u64,
        action: Action,
        delivery: Arc<str>,
        status: u16,
        took_ms: Ms,
        error: Option<&'static str>,
    },
    /// A fault swallowed it.
    WebhookDropped { job: u64, action: Action },
    /// A REST call other than `generate-jitconfig`; `fault` names what was done to it.
    Rest {
        endpoint: &'static str,
        owner: Arc<str>,
        status: u16,
        fault: Option<&'static str>,
    },
    /// A `generate-jitconfig` call; `runner` is what was registered.
    JitRequest {
        owner: Arc<str>,
        status: u16,
        runner: Option<u64>,
        name: Option<Arc<str>>,
        fault: Option<&'static str>,
    },
    /// A runner opened its session.
    RunnerConnected { runner: u64, owner: Arc<str> },
    /// A fault ended its listener with this code when it wanted a session.
    RunnerEnds { runner: u64, owner: Arc<str>, code: u8 },
    /// Its session ended, by itself or for want of a sign of life.
    RunnerOffline { runner: u64, owner: Arc<str> },
    /// Its registration went.
    RunnerRemoved {
        runner: u64,
        owner: Arc<str>,
        why: &'static str,
    },
    /// A job was given to a runner.
    JobAssigned { job: u64, runner: u64 },
    /// The runner did not take it.
    JobRequeued { job: u64, runner: u64 },
    /// The runner took it.
    JobStarted { job: u64, runner: u64 },
    /// It is over.
    JobCompleted {
        job: u64,
        runner: Option<u64>,
        conclusion: Conclusion,
    },
    /// It waits for an approval again, or was approved.
    JobHeld { job: u64, held: bool },
}

/// An event with its place and time.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counts up from 1.
    pub seq: u64,
    /// When.
    pub at: Ms,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// The log.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Log {
    /// Adds an event.
    pub fn push(&mut self, at: Ms, event: Event) {
        self.last += 1;
        self.entries.push_back(Entry {
            seq: self.last,
            at,
            event,
        });
        if self.entries.len() > KEEP {
            self.entries.pop_front();
        }
    }

    /// Up to `limit` entries after number `after`.
    pub fn after(&self, after: u64, limit: usize) -> impl Iterator<Item = &Entry> {
        let first = self.entries.front().map_or(0, |entry| entry.seq);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).take(limit)
    }

    /// Number of the newest entry.
    pub fn last(&self) -> u64 {
        self.last
    }
}
