//! What all loops of a worker share.

use std::{sync::Arc, time::Duration};

use jit_backend::Backend;
use jit_core::{
    config::LimitsSettings,
    ledger::{Budget, Ledger},
    store::RedisSettings,
};

use crate::{
    choice::Choice,
    config::{self, TakeOver},
    loops::{Admitter, Bells, LoopStatus},
    metrics::Metrics,
    rates::Rates,
    search,
};

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
    pub take_over: TakeOver,
    /// Admissions.
    pub admitter: Admitter,
    /// What wakes its loops.
    pub bells: Bells,
    /// How its loops fare.
    pub loops: LoopStatus,
    /// How what never came is looked for.
    pub search: search::Settings,
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
            take_over: settings.take_over,
            choice: Choice::default(),
            admitter: Admitter::default(),
            bells: Bells::default(),
            loops: metrics.loops.clone(),
            search: settings.search.clone(),
            metrics,
        }
    }

    /// Admits what can be admitted, and rings for what that calls for.
    pub async fn admit(&self) {
        let outcome = self.admitter.admit(&self.ledger).await;
        if outcome.reaped {
            self.bells.upkeep.notify_one();
        }
        if outcome.gate_closed {
            self.bells.reconcile.notify_one();
        }
    }
}
