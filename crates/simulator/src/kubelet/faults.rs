//! What goes wrong with pods on request: by an annotation on the pod, or by the control port with a probability and a
//! number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::faults::{FaultList, Tallied, Tally, always};

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
    /// The pod is bound, and its node does not admit it: phase Failed at once, with `reason` (`OutOfcpu`) and
    /// `message`.
    Reject,
    /// The image cannot be pulled. The kubelet tries again after 10 s, 20 s … 300 s, and finds it once the fault is
    /// removed.
    ImagePullError,
    /// The runner's container ends with `exit_code` (1) and the last words `message`, `after_ms` (0) after its start,
    /// without having spoken to GitHub.
    Exit,
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
    #[serde(default = "crate::faults::always")]
    pub probability: f64,
    /// How many times it may still strike; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When `evict` and `die` (500) and `exit` (0) strike, in milliseconds after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Exit code of `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The kubelet's reason of `reject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message of `reject`; last words of `exit`, which reach the pod's status only where its container has them taken
    /// from the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its number; only shown.
    #[serde(default)]
    pub id: u64,
    /// How often it struck; only shown.
    #[serde(default)]
    pub struck: u64,
}

impl Tallied for Fault {
    fn tally(&mut self) -> Tally<'_> {
        Tally {
            id: &mut self.id,
            struck: &mut self.struck,
            probability: self.probability,
            count: &mut self.count,
        }
    }
}

impl Fault {
    fn of(kind: Kind) -> Self {
        Self {
            fault: kind,
            org: None,
            probability: always(),
            count: None,
            after_ms: None,
            exit_code: None,
            reason: None,
            message: None,
            id: 0,
            struck: 0,
        }
    }

    /// How long after a pod's start it strikes.
    pub fn after(&self) -> Duration {
        Duration::from_millis(self.after_ms.unwrap_or(if self.fault == Kind::Exit { 0 } else { 500 }))
    }
}

/// The faults, and what their draws come from.
#[derive(Debug)]
pub struct Faults {
    /// The list of them.
    pub list: FaultList<Fault>,
    rng: Rng,
}

impl Faults {
    /// No faults; draws come from this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            list: FaultList::default(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Whether a fault that struck a pod is in force still; one of an annotation always is.
    pub fn holds(&self, fault: &Fault) -> bool {
        fault.id == 0 || self.list.list().iter().any(|other| other.id == fault.id)
    }

    /// Draws what is in store for a pod: its annotation, or the first fault that fits and is drawn.
    pub fn doom(&mut self, pod: &Pod) -> Option<Fault> {
        if let Some(kind) = pod.annotations().get(ANNOTATION) {
            let kind = serde_json::from_value(serde_json::Value::String(kind.clone())).ok()?;
            return Some(Fault::of(kind));
        }
        let org = pod.labels().get("org");
        self.list.strike(&mut self.rng, |fault| {
            fault
                .org
                .as_ref()
                .is_none_or(|wanted| org.is_some_and(|org| org.eq_ignore_ascii_case(wanted)))
        })
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
        assert!(faults.doom(&pod(json!({}))).is_none());
        let doomed = faults
            .doom(&pod(json!({ "annotations": { ANNOTATION: "image_pull_error" } })))
            .unwrap();
        assert!(doomed.fault == Kind::ImagePullError && faults.holds(&doomed));
        faults
            .list
            .add(serde_json::from_value(json!({ "fault": "die", "org": "acme", "count": 1, "after_ms": 20 })).unwrap());
        assert!(faults.doom(&pod(json!({ "labels": { "org": "other" } }))).is_none());
        let acme = pod(json!({ "labels": { "org": "Acme" } }));
        let doomed = faults.doom(&acme).unwrap();
        assert_eq!((doomed.fault, doomed.after()), (Kind::Die, Duration::from_millis(20)));
        assert!(
            faults.doom(&acme).is_none() && faults.holds(&doomed),
            "used up, and in force for the pod that it struck"
        );
        faults.list.clear(None);
        assert!(!faults.holds(&doomed));
    }
}
