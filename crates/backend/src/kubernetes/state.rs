//! The state of a runner, read from its pod: the way back from [`mod@super::pod`].
//!
//! The runner has ended when its container has, whatever becomes of the rest of the pod: an ordinary second container
//! (Docker on a server older than 1.29) would keep the pod running for ever.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::labels::{ANNOTATION, labels};
use super::pod::RUNNER;
use crate::{Observed, Phase, RunnerSpec, bounded};

/// A pod that is still there so long after it was to be gone does not go by itself.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// Reasons of a waiting container that say no more than that it is being made.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// How a runner's pod looks.
pub fn observe(pod: &Pod) -> Observed {
    let status = pod.status.as_ref();
    let phase = phase(status);
    Observed {
        name: pod.metadata.name.clone().unwrap_or_default(),
        phase,
        rejected: status.is_some_and(|status| phase == Phase::Ended && !ran(status)),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        stuck: is_stuck(pod, Timestamp::now()),
        spec: spec(pod),
        detail: status
            .and_then(|status| detail(status, phase))
            .map(|text| bounded(&text)),
    }
}

/// Whether a pod should have been gone for some minutes: Kubernetes sets the time of its end, grace included, when it
/// is to be deleted.
pub(super) fn is_stuck(pod: &Pod, now: Timestamp) -> bool {
    pod.metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|due| now.duration_since(due.0) > STUCK_AFTER)
}

/// The specification in the annotations; `None` where one is missing or cannot be read, or where they contradict the
/// labels or the name.
fn spec(pod: &Pod) -> Option<RunnerSpec> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let get = |key: &str| annotations.get(&format!("{ANNOTATION}{key}")).cloned();
    let spec = RunnerSpec {
        name: pod.metadata.name.clone()?,
        org: get("org")?,
        scope: get("scope")?,
        group: get("group")?,
        profile: get("profile")?,
        labels: serde_json::from_str(&get("labels")?).ok()?,
        job: get("job")?.parse().ok()?,
    };
    let theirs = pod.metadata.labels.as_ref()?;
    ["org", "job-id", "runner-name"]
        .into_iter()
        .all(|key| theirs.get(key) == labels(&spec).get(key))
        .then_some(spec)
}

fn phase(status: Option<&PodStatus>) -> Phase {
    let Some(status) = status else { return Phase::Starting };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Phase::Ended;
    }
    match runner(status).and_then(|container| container.state.as_ref()) {
        Some(ContainerState {
            terminated: Some(_), ..
        }) => Phase::Ended,
        Some(ContainerState { running: Some(_), .. }) => Phase::Running,
        _ => Phase::Starting,
    }
}

/// Whether its program ran, or may have.
fn ran(status: &PodStatus) -> bool {
    status.phase.as_deref() == Some("Succeeded")
        || runner(status)
            .and_then(|container| container.state.as_ref())
            .is_some_and(|state| state.terminated.is_some() || state.running.is_some())
}

fn detail(status: &PodStatus, phase: Phase) -> Option<String> {
    match phase {
        Phase::Running => None,
        Phase::Starting => waiting(status),
        Phase::Ended => ended(status),
    }
}

/// Why it does not start: a container that waits for more than its turn, else a scheduler that finds no place.
fn waiting(status: &PodStatus) -> Option<String> {
    let reasons = containers(status).filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| !USUAL.contains(reason))?;
        Some(said(reason, waiting.message.as_deref()))
    });
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    reasons
        .into_iter()
        .next()
        .or_else(|| unscheduled.map(|it| said(it.reason.as_deref().unwrap_or("not scheduled"), it.message.as_deref())))
}

/// The end of a runner: what was done to the whole pod (evicted, node lost), else the runner's exit, else that of the
/// container that failed.
fn ended(status: &PodStatus) -> Option<String> {
    if let Some(reason) = status.reason.as_deref() {
        return Some(said(reason, status.message.as_deref()));
    }
    let exit = |container: &ContainerStatus| container.state.as_ref()?.terminated.clone();
    if let Some(terminated) = runner(status).and_then(exit) {
        return Some(code(&terminated));
    }
    let failed = containers(status)
        .find_map(|container| Some((&container.name, exit(container).filter(|it| it.exit_code != 0)?)));
    failed
        .map(|(name, terminated)| format!("{name}: {}", code(&terminated)))
        .or_else(|| status.message.clone())
}

/// `exit code 137: OOMKilled`. The number comes first, so that it can be recognized.
fn code(terminated: &ContainerStateTerminated) -> String {
    let said = said(
        terminated.reason.as_deref().unwrap_or_default(),
        terminated.message.as_deref(),
    );
    format!(
        "exit code {}{}{said}",
        terminated.exit_code,
        if said.is_empty() { "" } else { ": " }
    )
}

fn said(reason: &str, message: Option<&str>) -> String {
    match message.unwrap_or_default() {
        "" => reason.to_owned(),
        message if reason.is_empty() => message.to_owned(),
        message => format!("{reason}: {message}"),
    }
}

fn runner(status: &PodStatus) -> Option<&ContainerStatus> {
    status
        .container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == RUNNER)
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::pod::pod;
    use super::super::profile::Profile;
    use super::*;

    fn made(org: &str) -> (RunnerSpec, Pod) {
        let spec = RunnerSpec {
            name: "jit-runner-4711-1".into(),
            org: org.into(),
            scope: format!("repos/{org}"),
            group: "Größe M".into(),
            profile: "default".into(),
            labels: vec!["a,b".into(), "\"quoted\"".into()],
            job: 4711,
        };
        let pod = pod(&spec, &Profile::default(), true);
        (spec, pod)
    }

    fn seen(status: Value) -> (Phase, Option<String>) {
        let (_, mut pod) = made("acme");
        pod.status = Some(serde_json::from_value(status).unwrap());
        let observed = observe(&pod);
        (observed.phase, observed.detail)
    }

    #[test]
    fn a_pod_holds_all_that_it_was_made_of() {
        for org in ["acme", "acme/site", &"long-".repeat(20)] {
            let (spec, pod) = made(org);
            let expected = Observed {
                name: spec.name.clone(),
                phase: Phase::Starting,
                rejected: false,
                terminating: false,
                stuck: false,
                spec: Some(spec),
                detail: None,
            };
            assert_eq!(observe(&pod), expected);
        }
    }

    #[test]
    fn a_pod_that_was_tampered_with_has_no_specification() {
        for key in ["org", "scope", "group", "profile", "labels", "job"] {
            let (_, mut pod) = made("acme/site");
            pod.metadata
                .annotations
                .as_mut()
                .unwrap()
                .remove(&format!("{ANNOTATION}{key}"));
            assert_eq!(observe(&pod).spec, None, "{key} removed");
        }
        for (key, value) in [
            ("org", "other"),
            ("job", "4712"),
            ("job", "many"),
            ("labels", "a,b"),
            ("labels", "{}"),
        ] {
            let (_, mut pod) = made("acme/site");
            pod.metadata
                .annotations
                .as_mut()
                .unwrap()
                .insert(format!("{ANNOTATION}{key}"), value.into());
            assert_eq!(observe(&pod).spec, None, "{key} is {value}");
        }
        assert_eq!(observe(&Pod::default()).spec, None);
    }

    #[test]
    fn starting() {
        let scheduler = "0/3 nodes are available: 3 Insufficient cpu.";
        let unscheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": scheduler}]});
        assert_eq!(
            seen(unscheduled),
            (Phase::Starting, Some(format!("Unschedulable: {scheduler}")))
        );
        let container = |name: &str, state: Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state})
        };
        let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        let usual = json!({"phase": "Pending", "containerStatuses": [container("runner",
            json!({"waiting": {"reason": "ContainerCreating"}}))]});
        assert_eq!(seen(usual), (Phase::Starting, None));
        let image = json!({"phase": "Pending",
            "initContainerStatuses": [container("dind", waiting("ErrImagePull", "no such image"))],
            "containerStatuses": [container("runner", waiting("PodInitializing", ""))]});
        assert_eq!(
            seen(image),
            (Phase::Starting, Some("ErrImagePull: no such image".into()))
        );
        // Docker runs, the runner does not yet.
        let docker = json!({"phase": "Running",
            "containerStatuses": [container("dind", json!({"running": {}})),
            container("runner", waiting("CreateContainerConfigError", &"x".repeat(400)))]});
        let (phase, detail) = seen(docker);
        assert_eq!((phase, detail.unwrap().chars().count()), (Phase::Starting, 300));
    }

    #[test]
    fn running_and_ended() {
        let container = |name: &str, state: Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state})
        };
        let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let running = json!({"phase": "Running", "containerStatuses": [container("dind",
            json!({"waiting": {"reason": "CrashLoopBackOff"}})), container("runner", json!({"running": {}}))]});
        assert_eq!(seen(running), (Phase::Running, None));
        // The sidecar of an old server is still there: the runner has ended all the same.
        let old = json!({"phase": "Running", "containerStatuses": [container("dind", json!({"running": {}})),
            container("runner", ended(7, "Error"))]});
        assert_eq!(seen(old), (Phase::Ended, Some("exit code 7: Error".into())));
        let well = json!({"phase": "Succeeded", "containerStatuses": [container("runner", ended(0, "Completed"))]});
        assert_eq!(seen(well), (Phase::Ended, Some("exit code 0: Completed".into())));
        let memory = json!({"phase": "Failed", "containerStatuses": [container("runner", ended(137, "OOMKilled"))]});
        assert_eq!(seen(memory), (Phase::Ended, Some("exit code 137: OOMKilled".into())));
        let evicted =
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "});
        assert_eq!(
            seen(evicted),
            (
                Phase::Ended,
                Some("Evicted: The node was low on resource: memory.".into())
            )
        );
        let sidecar = json!({"phase": "Failed", "initContainerStatuses": [container("dind", ended(1, "Error"))],
            "containerStatuses": [container("runner", json!({"waiting": {"reason": "PodInitializing"}}))]});
        assert_eq!(seen(sidecar), (Phase::Ended, Some("dind: exit code 1: Error".into())));
    }

    #[test]
    fn a_pod_whose_node_did_not_take_it_never_ran() {
        let rejected = |status: Value| {
            let (_, mut pod) = made("acme");
            pod.status = Some(serde_json::from_value(status).unwrap());
            observe(&pod).rejected
        };
        let state = |state: Value| {
            json!([{"name": "runner", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}])
        };
        assert!(rejected(
            json!({"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected"})
        ));
        assert!(rejected(
            json!({"phase": "Failed", "containerStatuses": state(json!({"waiting": {"reason": "PodInitializing"}}))})
        ));
        assert!(!rejected(
            json!({"phase": "Failed", "containerStatuses": state(json!({"terminated": {"exitCode": 1}}))})
        ));
        assert!(!rejected(json!({"phase": "Succeeded"})));
        assert!(!rejected(json!({"phase": "Pending"})));
    }

    #[test]
    fn a_pod_is_stuck_when_it_was_to_be_gone_minutes_ago() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        let now = Timestamp::now();
        let due = |minutes: i64| {
            let mut pod = Pod::default();
            pod.metadata.deletion_timestamp = Some(Time(now - SignedDuration::from_mins(minutes)));
            pod
        };
        assert!(is_stuck(&due(6), now));
        for pod in [due(4), due(-1), Pod::default()] {
            assert!(!is_stuck(&pod, now));
        }
    }
}
