//! What Prometheus is told: the webhooks of this process, and the ledger as it is when it is asked.
//!
//! Names are those of ARC's scale sets and of the systems that this one replaces. Each receiver tells the ledger's
//! numbers, which are the same for all: take their maximum, not their sum. One registry serves two texts: OpenMetrics
//! as the library writes it, and the older Prometheus format, in which a counter's own name has its `_total`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jit_core::ledger::Overview;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::messages::weighted;
use jit_core::store::check::REDIS_FINDINGS;

/// Bounds of webhook latencies, in seconds: from a good day's to GitHub's patience.
const LATENCIES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0];

/// The metrics of this process.
pub struct Metrics {
    registry: Registry,
    webhooks: Family<Vec<(&'static str, String)>, Counter>,
    latency: Histogram,
    /// What the checks of Redis's settings find wrong.
    pub redis_findings: Gauge,
    ledger: Arc<LedgerGauges>,
}

/// A form of answering `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people and scripts.
    Json,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Prometheus,
}

impl Format {
    /// What `Accept` gives most weight; JSON where it names neither text.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        let mut best = (0.0, Self::Json);
        for (range, weight) in weighted(accept) {
            let format = match range.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" => Self::Prometheus,
                "application/json" => Self::Json,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, format);
            }
        }
        best.1
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let webhooks = Family::default();
        registry.register("webhook_requests", "Webhooks by what became of them", webhooks.clone());
        let latency = Histogram::new(LATENCIES);
        registry.register_with_unit(
            "webhook_latency",
            "Time to answer a webhook",
            Unit::Seconds,
            latency.clone(),
        );
        let redis_findings = Gauge::default();
        registry.register("jit_redis_findings", REDIS_FINDINGS, redis_findings.clone());
        let ledger = Arc::new(LedgerGauges::default());
        registry.register_collector(Box::new(ledger.clone()));
        Self {
            registry,
            webhooks,
            latency,
            redis_findings,
            ledger,
        }
    }

    /// Counts a webhook. `repository` is `owner/repo` where series by repository are wanted; empty where it is not
    /// known.
    pub fn webhook(&self, status: &'static str, repository: Option<&str>, took: Duration) {
        let mut labels = vec![("status", status.to_owned())];
        if let Some(repository) = repository {
            let (owner, repo) = repository.split_once('/').unwrap_or_default();
            labels.extend([("owner", owner.to_owned()), ("repo", repo.to_owned())]);
        }
        self.webhooks.get_or_create(&labels).inc();
        self.latency.observe(took.as_secs_f64());
    }

    /// The text, with the ledger's numbers where they could be read.
    ///
    /// # Errors
    /// Never, in effect: writing to a string does not fail.
    pub fn text(&self, format: Format, overview: Option<Arc<Overview>>) -> Result<String, fmt::Error> {
        *self.ledger.0.lock().unwrap_or_else(PoisonError::into_inner) = overview;
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &self.registry)?;
        Ok(if format == Format::Prometheus {
            prometheus(&openmetrics)
        } else {
            openmetrics
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The older format: counters are declared by their full name, and units and the end are not.
fn prometheus(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics
        .lines()
        .filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF")
    {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}"))
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Gauges of the ledger as it was last read; none where it could not be.
#[derive(Debug, Default)]
struct LedgerGauges(Mutex<Option<Arc<Overview>>>);

impl Collector for LedgerGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let overview = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut gauge = |name: &str, help: &str, value: u64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
        };
        gauge("jit_redis_up", "Whether Redis answered", overview.is_some().into())?;
        let Some(overview) = overview else { return Ok(()) };
        let runners = |state: &str| overview.runners.get(state).copied().unwrap_or(0);
        let (busy, idle) = (runners("busy"), runners("idle"));
        let assigned = overview.total_pending + busy;
        gauge(
            "runner_jobs_active",
            "Live runners, from their reservation until their pod is gone",
            overview.total_running,
        )?;
        gauge(
            "gha_assigned_jobs",
            "Jobs that are ours: queued, or on a runner of ours",
            assigned,
        )?;
        gauge("gha_running_jobs", "Jobs on a runner of ours", busy)?;
        gauge(
            "gha_registered_runners",
            "Runners that are starting, idle or busy",
            runners("created") + idle + busy,
        )?;
        gauge("gha_busy_runners", "Runners that work on a job", busy)?;
        gauge(
            "gha_idle_runners",
            "Runners that wait for GitHub to give them a job",
            idle,
        )?;
        gauge("gha_max_runners", "Runners at once in all, at most", overview.max_total)?;
        gauge(
            "gha_desired_runners",
            "Runners that the jobs want, within the maximum",
            assigned.min(overview.max_total),
        )?;
        gauge("jit_pending_jobs", "Queued jobs", overview.total_pending)?;
        gauge("jit_workers", "Workers heard of in the last 30 s", overview.workers)?;
        gauge(
            "jit_admission_open",
            "Whether runners are admitted: not before the real ones have been counted",
            overview.admitting.into(),
        )?;
        if let Some(seconds) = overview.recovery.seconds {
            gauge(
                "jit_recovery_seconds",
                "Time in which a job is found whose webhook was lost",
                seconds,
            )?;
        }
        let [events, provision, ticks, dead] = overview.backlog;
        gauge("jit_events_backlog", "Job events that wait for a worker", events)?;
        gauge(
            "jit_provision_backlog",
            "Reservations that wait for a worker",
            provision,
        )?;
        gauge("jit_ticks_backlog", "Ticks that wait for a worker", ticks)?;
        gauge("jit_dead_letters", "Entries that could not be read or applied", dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_its_text_and_people_json() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Json),
            ("application/json", Format::Json),
            ("application/json;q=0.2, text/plain", Format::Prometheus),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Prometheus),
            (prometheus_3, Format::OpenMetrics),
        ] {
            assert_eq!(Format::of(accept), format, "{accept}");
        }
    }

    #[test]
    fn both_texts_are_as_their_formats_want_them() {
        let metrics = Metrics::new();
        metrics.webhook("queued", None, Duration::from_millis(3));
        metrics.webhook("queued", Some("Acme/app"), Duration::from_millis(3));
        let overview = Overview {
            total_running: 3,
            total_pending: 4,
            max_total: 5,
            runners: [("busy".into(), 2), ("idle".into(), 1)].into(),
            ..Overview::default()
        };
        let open = metrics
            .text(Format::OpenMetrics, Some(Arc::new(overview)))
            .expect("text");
        for line in [
            "# TYPE webhook_requests counter",
            "webhook_requests_total{status=\"queued\"} 1",
            "webhook_requests_total{status=\"queued\",owner=\"Acme\",repo=\"app\"} 1",
            "webhook_latency_seconds_count 2",
            "gha_assigned_jobs 6",
            "gha_desired_runners 5",
            "gha_registered_runners 3",
            "jit_redis_up 1",
            "# EOF",
        ] {
            assert!(open.lines().any(|have| have == line), "{line} in\n{open}");
        }
        let old = metrics.text(Format::Prometheus, None).expect("text");
        for line in [
            "# TYPE webhook_requests_total counter",
            "webhook_requests_total{status=\"queued\"} 1",
            "# TYPE webhook_latency_seconds histogram",
            "jit_redis_up 0",
        ] {
            assert!(old.lines().any(|have| have == line), "{line} in\n{old}");
        }
        assert!(
            !old.contains("EOF") && !old.contains("UNIT") && !old.contains("gha_"),
            "{old}"
        );
    }
}
