//! The worker: makes just-in-time runners, watches them and removes them.
//!
//! Every replica runs the same loops, and any of them may die at any line; the ledger's deadlines and the streams'
//! pending lists hand on what it held. The loops, each a file:
//!
//! * [`intake`]: `jit:events` → ledger, then an admission;
//! * [`admission`]: ledger → `jit:provision`;
//! * [`provision`]: `jit:provision` → pod → GitHub → Secret, as many at once as there are permits;
//! * [`observe`]: the runners' watch → ledger, so that a slot is free milliseconds after its runner has ended;
//! * [`maintenance`]: ticks → [`upkeep`] (removals, questions, doubtful registrations), [`reconcile`] and [`recover`]
//!   (what never came).

use std::{sync::Arc, time::Duration};

use jit_backend::Backend;
use jit_core::{
    config::LimitsSettings,
    ledger::{Budget, Ledger},
    store::RedisSettings,
};
use tokio::sync::Notify;

pub mod admission;
pub mod budget;
pub mod calls;
pub mod choice;
pub mod config;
pub mod credentials;
pub mod intake;
pub mod maintenance;
pub mod metrics;
pub mod observe;
mod permits;
pub mod provision;
pub mod rates;
pub mod reconcile;
pub mod recover;
pub mod retry;
pub mod run;
pub mod step;
pub mod upkeep;

use admission::Admitter;
use choice::Choice;
use config::Pace;
use metrics::Metrics;
use rates::Rates;

/// How long a reader waits for new entries, and so how long a stop may go unnoticed by it.
pub const BLOCK: Duration = Duration::from_millis(1000);

/// What all loops of a worker share.
pub struct Worker {
    /// Names this process among its peers.
    pub id: String,
    /// The ledger.
    pub ledger: Ledger,
    /// Limits and deadlines, for a ledger that has lost them.
    pub limits: LimitsSettings,
    /// Where Redis is, for readers with connections of their own.
    pub redis: RedisSettings,
    /// GitHub, as whoever serves an owner.
    pub github: jit_github::Credentials,
    /// Which of an owner's credentials is used.
    pub choice: Choice,
    /// How much of GitHub's limits is used.
    pub budget: Budget,
    /// What GitHub says of its limits.
    pub rates: Rates,
    /// Wait after an organization refused the first time.
    pub organization_backoff: Duration,
    /// Time-out of a call of GitHub.
    pub github_timeout: Duration,
    /// Where runners run.
    pub backend: Arc<dyn Backend>,
    /// Runners made at once.
    pub concurrency: usize,
    /// How soon others take over from it, and it from others.
    pub pace: Pace,
    /// Admissions.
    pub admitter: Admitter,
    /// Rung when there is something to remove or to ask.
    pub upkeep: Notify,
    /// Rung when the real runners should be counted.
    pub reconcile: Notify,
    /// How what never came is looked for.
    pub recovery: recover::Settings,
    /// Rung when it should be looked for.
    pub recover: Notify,
    /// Counters.
    pub metrics: Metrics,
}

impl Worker {
    /// A worker of these settings, which does nothing yet.
    #[must_use]
    pub fn new(
        id: String,
        settings: &config::Settings,
        ledger: Ledger,
        github: jit_github::Credentials,
        rates: Rates,
        backend: Arc<dyn Backend>,
        metrics: Metrics,
    ) -> Self {
        Self {
            id,
            ledger,
            limits: settings.limits.clone(),
            redis: settings.redis.clone(),
            github,
            budget: settings.budget,
            rates,
            organization_backoff: settings.organization_backoff,
            github_timeout: settings.github_timeout,
            backend,
            concurrency: settings.concurrency,
            pace: settings.pace,
            choice: Choice::default(),
            admitter: Admitter::default(),
            upkeep: Notify::new(),
            reconcile: Notify::new(),
            recovery: settings.recovery.clone(),
            recover: Notify::new(),
            metrics,
        }
    }

    /// Admits what can be admitted, and rings for what that calls for.
    pub async fn admit(&self) {
        let outcome = self.admitter.admit(&self.ledger).await;
        if outcome.reaped {
            self.upkeep.notify_one();
        }
        if outcome.gate_closed {
            self.reconcile.notify_one();
        }
    }
}
