//! What a worker counts.

use std::sync::{Arc, atomic::AtomicU64};

use jit_core::ledger::Silence;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::loops::{self, LoopStatus};

/// Labels of a call of GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// Name of the call.
    pub endpoint: String,
    /// HTTP status, 0 where no answer came.
    pub status: u16,
}

/// Labels of a call of GitHub that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Held {
    /// Name of the call.
    pub endpoint: &'static str,
}

/// Labels of what belongs to a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabel {
    /// The credential's name; `default` where there is one alone.
    pub credential: String,
}

/// Labels of a failure to make a runner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Step {
    /// Step that did not work: `budget` (not tried), `pod`, `registration` or `delivery`.
    pub step: &'static str,
}

/// Labels of jobs that the sweep found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Recovered {
    /// Their state at GitHub: `queued` or `in_progress`.
    pub state: &'static str,
}

/// Labels of a repeated delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Redelivered {
    /// Action of its event.
    pub action: String,
}

/// Labels of a question about a job that GitHub did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Unanswered {
    /// `unreadable` (the credential may not read the job) or `unanswered`.
    pub why: &'static str,
}

impl Unanswered {
    /// The label of this silence.
    #[must_use]
    pub fn of(silence: Silence) -> Self {
        Self {
            why: match silence {
                Silence::Unreadable => "unreadable",
                Silence::Unanswered => "unanswered",
            },
        }
    }
}

/// A worker's counters.
#[derive(Clone)]
pub struct Metrics {
    /// Calls of GitHub.
    pub github_requests: Family<Call, Counter>,
    /// Calls of GitHub that were not made, since a limit of GitHub's holds them back.
    pub github_held: Family<Held, Counter>,
    /// Calls that GitHub still allows in this hour, as it last said.
    pub github_remaining: Family<CredentialLabel, Gauge>,
    /// Runners made.
    pub created: Counter,
    /// Runners that could not be made.
    pub failed: Family<Step, Counter>,
    /// Runners whose slot was freed.
    pub released: Counter,
    /// Job events applied.
    pub events: Counter,
    /// Entries moved to the dead letters.
    pub buried: Counter,
    /// Jobs that a runner began.
    pub started_jobs: Counter,
    /// Jobs that are over.
    pub completed_jobs: Counter,
    /// Seconds from taking up a reservation to a runner that has all it needs.
    pub provision_seconds: Histogram,
    /// What the checks of Redis's settings find wrong.
    pub redis_findings: Gauge,
    /// Questions about jobs that GitHub did not answer.
    pub unanswered: Family<Unanswered, Counter>,
    /// Jobs that the sweep found.
    pub recovered: Family<Recovered, Counter>,
    /// Deliveries that GitHub was asked to repeat.
    pub redelivered: Family<Redelivered, Counter>,
    /// Registrations deleted that nobody here knew.
    pub strays_deleted: Counter,
    /// Pods that should have been gone for minutes, as the last reconcile saw.
    pub stuck_pods: Gauge,
    /// Seconds that the last reconcile took, as bits.
    pub reconcile_seconds: Gauge<f64, AtomicU64>,
    /// How the loops fare.
    pub loops: LoopStatus,
}

impl Metrics {
    /// Counters, and the registry that shows them.
    #[must_use]
    pub fn register() -> (Self, Arc<Registry>) {
        let buckets = [
            0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0,
        ];
        let metrics = Self {
            github_requests: Family::default(),
            github_held: Family::default(),
            github_remaining: Family::default(),
            created: Counter::default(),
            failed: Family::default(),
            released: Counter::default(),
            events: Counter::default(),
            buried: Counter::default(),
            started_jobs: Counter::default(),
            completed_jobs: Counter::default(),
            provision_seconds: Histogram::new(buckets),
            redis_findings: Gauge::default(),
            unanswered: Family::default(),
            recovered: Family::default(),
            redelivered: Family::default(),
            strays_deleted: Counter::default(),
            stuck_pods: Gauge::default(),
            reconcile_seconds: Gauge::default(),
            loops: LoopStatus::new(&loops::NAMES),
        };
        let mut registry = Registry::default();
        registry.register(
            "github_api_requests",
            "Calls of GitHub's API",
            metrics.github_requests.clone(),
        );
        registry.register(
            "github_api_requests_held",
            "Calls of GitHub's API that a limit of GitHub's holds back",
            metrics.github_held.clone(),
        );
        registry.register(
            "github_api_rate_limit_remaining",
            "Calls that GitHub still allows, as it last said",
            metrics.github_remaining.clone(),
        );
        registry.register("runner_jobs_created", "Runners made", metrics.created.clone());
        registry.register(
            "runner_provision_failures",
            "Runners that could not be made, by the step that failed",
            metrics.failed.clone(),
        );
        registry.register(
            "runner_released",
            "Runners whose slot was freed",
            metrics.released.clone(),
        );
        registry.register(
            "job_events_applied",
            "Job events applied to the ledger",
            metrics.events.clone(),
        );
        registry.register(
            "dead_letters",
            "Entries that could not be read or applied",
            metrics.buried.clone(),
        );
        registry.register(
            "jit_redis_findings",
            jit_core::store::check::REDIS_FINDINGS,
            metrics.redis_findings.clone(),
        );
        registry.register(
            "gha_started_jobs",
            "Jobs that a runner began",
            metrics.started_jobs.clone(),
        );
        registry.register(
            "gha_completed_jobs",
            "Jobs that are over",
            metrics.completed_jobs.clone(),
        );
        registry.register(
            "jit_unanswered_questions",
            "Questions about jobs that GitHub did not answer, by why it did not",
            metrics.unanswered.clone(),
        );
        registry.register(
            "jit_recovered_jobs",
            "Jobs that the sweep found and the ledger did not know, by their state at GitHub",
            metrics.recovered.clone(),
        );
        registry.register(
            "jit_redelivered",
            "Failed deliveries that GitHub was asked to repeat",
            metrics.redelivered.clone(),
        );
        registry.register(
            "jit_stray_registrations_deleted",
            "Registrations deleted that nobody here knew",
            metrics.strays_deleted.clone(),
        );
        registry.register_with_unit(
            "runner_provision_duration",
            "From taking up a reservation to a runner that has all it needs",
            Unit::Seconds,
            metrics.provision_seconds.clone(),
        );
        registry.register(
            "jit_stuck_pods",
            "Runner pods that should have been gone for minutes: their nodes are lost, or do not obey",
            metrics.stuck_pods.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time that the last reconcile took",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        metrics.loops.register(&mut registry);
        (metrics, Arc::new(registry))
    }
}
