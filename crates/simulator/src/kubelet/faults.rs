//! What goes wrong with pods on request: by an annotation on the pod, or by the control port with a probability and a number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// Annotation that names a [`Kind`], for tests that make the pod themselves.
pub const ANNOTATION: &str = "jit-simulator/fault";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The pod is bound, and its containers are never created.
    NeverStart,
    /// No node takes the pod.
    Unschedulable,
    /// The image cannot be pulled.
    ImagePullError,
    /// The pod is evicted `after_ms` after its start.
    Evict,
    /// The runner's container is killed `after_ms` after its start, for using too much memory.
    Die,
}

/// A fault, as the control port takes and shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: Kind,
    /// Only for pods with this value of the label `org`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// From 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How many times it may still strike; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When `evict` and `die` strike, in milliseconds after the start.
    #[serde(default = "soon")]
    pub after_ms: u64,
    /// Its number; only shown.
    #[serde(default)]
    pub id: u64,
    /// How often it struck; only shown.
    #[serde(default)]
    pub struck: u64,
}

fn always() -> f64 {
    1.0
}

fn soon() -> u64 {
    500
}

/// What is in store for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// What goes wrong.
    pub kind: Kind,
    /// How long after the start.
    pub after: Duration,
}

/// The list of faults.
#[derive(Debug)]
pub struct Faults {
    list: Vec<Fault>,
    rng: Rng,
    last: u64,
}

impl Faults {
    /// No faults; draws come from this seed.
    pub fn new(seed: u64) -> Self {
        Self { list: Vec::new(), rng: Rng::with_seed(seed), last: 0 }
    }

    /// Adds a fault and returns its number.
    pub fn add(&mut self, fault: Fault) -> u64 {
        self.last += 1;
        self.list.push(Fault { id: self.last, struck: 0, ..fault });
        self.last
    }

    /// All of them, with those that are used up.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Draws what is in store for a pod: its annotation, or the first fault that fits and is drawn.
    pub fn doom(&mut self, pod: &Pod) -> Option<Doom> {
        if let Some(kind) = pod.annotations().get(ANNOTATION) {
            let kind = serde_json::from_value(serde_json::Value::String(kind.clone())).ok()?;
            return Some(Doom { kind, after: Duration::from_millis(soon()) });
        }
        let (org, rng) = (pod.labels().get("org"), &mut self.rng);
        let fits = |fault: &Fault| fault.count != Some(0) && fault.org.as_ref().is_none_or(|wanted| org.is_some_and(|org| org.eq_ignore_ascii_case(wanted)));
        let fault = self.list.iter_mut().find(|fault| fits(fault) && rng.f64() < fault.probability)?;
        fault.struck += 1;
        fault.count = fault.count.map(|left| left - 1);
        Some(Doom { kind: fault.fault, after: Duration::from_millis(fault.after_ms) })
    }
}

/// Locks the faults, whatever became of whoever held them.
pub(crate) fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": value })).unwrap()
    }

    #[test]
    fn by_annotation_or_by_list() {
        let mut faults = Faults::new(1);
        assert_eq!(faults.doom(&pod(json!({}))), None);
        let doomed = faults.doom(&pod(json!({ "annotations": { ANNOTATION: "image_pull_error" } }))).unwrap();
        assert_eq!(doomed.kind, Kind::ImagePullError);
        faults.add(serde_json::from_value(json!({ "fault": "die", "org": "acme", "count": 1, "after_ms": 20 })).unwrap());
        assert_eq!(faults.doom(&pod(json!({ "labels": { "org": "other" } }))), None);
        let acme = pod(json!({ "labels": { "org": "Acme" } }));
        assert_eq!(faults.doom(&acme), Some(Doom { kind: Kind::Die, after: Duration::from_millis(20) }));
        assert_eq!(faults.doom(&acme), None);
    }
}
