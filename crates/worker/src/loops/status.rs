//! How each loop fares: its last round and its last error, for `/loops` of the probes' port and for the metrics.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Labels of what belongs to a loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    r#loop: &'static str,
}

#[derive(Default)]
struct Status {
    /// When the last round began, and whether it is under way.
    last_start: Option<Timestamp>,
    running: bool,
    /// Of the last round that is over.
    last_duration_ms: Option<u64>,
    last_success: Option<Timestamp>,
    errors: u64,
    last_error: Option<(Timestamp, String)>,
}

impl Status {
    fn json(&self, name: &str) -> Value {
        json!({
            "name": name,
            "running": self.running,
            "last_start": self.last_start.map(text),
            "last_duration_ms": self.last_duration_ms,
            "last_success": self.last_success.map(text),
            "errors": self.errors,
            "last_error": self.last_error.as_ref().map(|(at, error)| json!({ "at": text(*at), "error": error })),
        })
    }
}

/// A time as the admin API writes it.
fn text(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// The status of each loop of a worker. Clones are the same.
#[derive(Clone)]
pub struct LoopStatus(Arc<Shared>);

struct Shared {
    loops: Mutex<BTreeMap<&'static str, Status>>,
    success: Family<Label, Gauge<f64, AtomicU64>>,
    errors: Family<Label, Counter>,
}

impl LoopStatus {
    /// Of loops with these names, which have begun nothing yet.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let errors = Family::<Label, Counter>::default();
        for name in names {
            // 0, so that the first error is seen as an increase.
            drop(errors.get_or_create(&Label { r#loop: name }));
        }
        Self(Arc::new(Shared {
            loops: Mutex::new(names.iter().map(|name| (*name, Status::default())).collect()),
            success: Family::default(),
            errors,
        }))
    }

    /// Shows the loops among the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "jit_loop_last_success_timestamp",
            "When a loop's last round without an error ended",
            Unit::Seconds,
            self.0.success.clone(),
        );
        registry.register(
            "jit_loop_errors",
            "Rounds of a loop that met an error",
            self.0.errors.clone(),
        );
    }

    /// The loops, as `/loops` shows them.
    #[must_use]
    pub fn json(&self) -> Value {
        let loops = self.loops();
        json!({ "loops": loops.iter().map(|(name, status)| status.json(name)).collect::<Vec<_>>() })
    }

    /// Begins a round of a loop.
    pub(crate) fn begin(&self, name: &'static str) -> Round {
        let mut loops = self.loops();
        let status = loops.entry(name).or_default();
        (status.last_start, status.running) = (Some(Timestamp::now()), true);
        Round {
            of: self.clone(),
            name,
            began: Instant::now(),
        }
    }

    fn loops(&self) -> MutexGuard<'_, BTreeMap<&'static str, Status>> {
        self.0.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A round that is under way.
pub(crate) struct Round {
    of: LoopStatus,
    name: &'static str,
    began: Instant,
}

impl Round {
    /// Notes that the round met no error.
    pub(crate) fn succeeded(self) {
        self.end(Ok::<(), String>(()));
    }

    /// Notes an error that the round met.
    pub(crate) fn failed(self, error: &impl Display) {
        self.end(Err(error));
    }

    /// Notes what the round came to.
    pub(crate) fn end<E: Display>(self, result: Result<(), E>) {
        let Self { of, name, began } = self;
        let (now, label) = (Timestamp::now(), Label { r#loop: name });
        let mut loops = of.loops();
        let status = loops.entry(name).or_default();
        status.running = false;
        status.last_duration_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match result {
            Ok(()) => {
                status.last_success = Some(now);
                let seconds = now.as_duration().as_secs_f64();
                of.0.success.get_or_create(&label).set(seconds);
            }
            Err(error) => {
                status.errors += 1;
                status.last_error = Some((now, format!("{error:#}")));
                of.0.errors.get_or_create(&label).inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_shows_its_last_round_and_its_last_error() {
        let (status, mut registry) = (LoopStatus::new(&["intake", "upkeep"]), Registry::default());
        status.register(&mut registry);
        assert_eq!(
            status.json()["loops"][1]["last_start"],
            Value::Null,
            "nothing has begun"
        );
        status.begin("intake").failed(&"Redis is away");
        let round = status.begin("intake");
        assert_eq!(status.json()["loops"][0]["running"], true);
        round.succeeded();
        let intake = &status.json()["loops"][0];
        assert_eq!((&intake["name"], &intake["running"]), (&json!("intake"), &json!(false)));
        assert_eq!(
            (&intake["errors"], &intake["last_error"]["error"]),
            (&json!(1), &json!("Redis is away"))
        );
        assert!(
            intake["last_success"].is_string() && intake["last_duration_ms"].is_u64(),
            "{intake}"
        );
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics");
        for line in [
            "jit_loop_errors_total{loop=\"intake\"} 1\n",
            "jit_loop_errors_total{loop=\"upkeep\"} 0\n",
            "jit_loop_last_success_timestamp_seconds{loop=\"intake\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
