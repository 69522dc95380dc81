//! What a kubelet writes into a pod's status at each stage of its life.
//!
//! Pure. A native sidecar (an init container that restarts always) ends with the pod's own containers; an ordinary
//! second container does not, and keeps the pod running, as on a real node.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// A stage of a pod's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No node: `reason` of the condition is Unschedulable.
    Unschedulable,
    /// Its node did not admit it: no container was ever made.
    Rejected {
        /// The pod's reason.
        reason: String,
        /// The pod's message.
        message: String,
    },
    /// Its containers wait, for this reason.
    Waiting(&'static str),
    /// Its containers run.
    Running,
    /// The runner's container ended by itself.
    Ended {
        /// Its exit code.
        exit_code: u8,
        /// The reason that the container's status gives.
        reason: &'static str,
        /// The end of its log.
        words: String,
    },
    /// All containers were ended from outside.
    Killed {
        /// The pod's reason.
        reason: &'static str,
        /// The pod's message.
        message: &'static str,
        /// Exit code of the runner's container.
        exit_code: u8,
    },
}

/// Name of the container in which the runner is.
pub const RUNNER: &str = "runner";

/// Whether the pod has ended.
pub fn is_over(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

/// Whether the pod was started by a kubelet.
pub fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// The container in which the runner is: `runner`, or else the first.
pub fn runner_container(spec: &PodSpec) -> Option<&Container> {
    spec.containers
        .iter()
        .find(|container| container.name == RUNNER)
        .or(spec.containers.first())
}

/// State of one container.
fn state(stage: &Stage, role: Role, started: Timestamp, now: Timestamp) -> Value {
    let running = || json!({ "running": { "startedAt": second(started) } });
    let terminated = |exit_code: u8, reason: &str| {
        json!({ "terminated": { "exitCode": exit_code, "reason": reason,
        "startedAt": second(started), "finishedAt": second(now) } })
    };
    match (stage, role) {
        (Stage::Unschedulable | Stage::Rejected { .. }, _) => json!({ "waiting": { "reason": "ContainerCreating" } }),
        // Sidecars and init containers of a pod whose image cannot be pulled wait as well.
        (Stage::Waiting(reason), _) => json!({ "waiting": { "reason": reason } }),
        (_, Role::Init) => terminated(0, "Completed"),
        (Stage::Running, _) | (Stage::Ended { .. }, Role::Other) => running(),
        (Stage::Ended { exit_code, reason, .. }, Role::Runner) => terminated(*exit_code, reason),
        (Stage::Ended { .. }, Role::Sidecar) => terminated(0, "Completed"),
        (Stage::Killed { exit_code, .. }, Role::Runner) => {
            terminated(*exit_code, if *exit_code == 0 { "Completed" } else { "Error" })
        }
        (Stage::Killed { .. }, Role::Sidecar | Role::Other) => terminated(143, "Error"),
    }
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Runner,
    Sidecar,
    Init,
    Other,
}

fn second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// The status of a pod at a stage, to be merged into the one it has.
pub fn status(pod: &Pod, stage: Stage, started: Timestamp, now: Timestamp) -> Value {
    let Some(spec) = &pod.spec else { return json!({}) };
    if let Stage::Rejected { reason, message } = &stage {
        return json!({ "phase": "Failed", "reason": reason, "message": message, "startTime": second(started) });
    }
    let runner = runner_container(spec).map(|container| container.name.as_str());
    let describe = |container: &Container, role: Role| {
        let mut state = state(&stage, role, started, now);
        if let (
            Stage::Ended {
                exit_code: 1.., words, ..
            },
            Role::Runner,
        ) = (&stage, role)
            && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
            && !words.is_empty()
        {
            state["terminated"]["message"] = json!(words);
        }
        let up = state.get("running").is_some();
        let image = container.image.clone().unwrap_or_default();
        let image_id = if state.get("waiting").is_some() {
            String::new()
        } else {
            format!("simulated://{image}")
        };
        json!({ "name": container.name, "image": image, "imageID": image_id, "ready": up || role == Role::Init,
            "started": up, "restartCount": 0, "state": state })
    };
    let containers: Vec<Value> = spec
        .containers
        .iter()
        .map(|container| {
            describe(
                container,
                if Some(container.name.as_str()) == runner {
                    Role::Runner
                } else {
                    Role::Other
                },
            )
        })
        .collect();
    let init: Vec<Value> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| {
            describe(
                container,
                if container.restart_policy.as_deref() == Some("Always") {
                    Role::Sidecar
                } else {
                    Role::Init
                },
            )
        })
        .collect();
    let (all_over, all_well) = containers.iter().fold((true, true), |(over, well), container| {
        let exit = container["state"]["terminated"]["exitCode"].as_u64();
        (over && exit.is_some(), well && exit == Some(0))
    });
    let phase = match &stage {
        Stage::Unschedulable | Stage::Waiting(_) => "Pending",
        Stage::Running => "Running",
        Stage::Rejected { .. } => "Failed",
        Stage::Killed { reason, .. } if !reason.is_empty() => "Failed",
        Stage::Ended { .. } | Stage::Killed { .. } => match (all_over, all_well) {
            (true, true) => "Succeeded",
            (true, false) => "Failed",
            (false, _) => "Running",
        },
    };
    if stage == Stage::Unschedulable {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 \
         nodes are available: 1 Insufficient cpu.", "lastTransitionTime": second(now) });
        return json!({ "phase": phase, "conditions": [condition] });
    }
    let ready = phase == "Running" && stage == Stage::Running;
    let initialized = !matches!(stage, Stage::Waiting(_));
    let condition = |kind: &str, is: bool| {
        let mut condition =
            json!({ "type": kind, "status": if is { "True" } else { "False" }, "lastTransitionTime": second(now) });
        if !is {
            condition["reason"] = json!(if matches!(phase, "Succeeded") {
                "PodCompleted"
            } else {
                "ContainersNotReady"
            });
        }
        condition
    };
    let conditions = [
        ("PodReadyToStartContainers", initialized),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", true),
    ];
    let mut json = json!({
        "phase": phase,
        "conditions": conditions.map(|(kind, is)| condition(kind, is)),
        "hostIP": "127.0.0.1",
        "startTime": second(started),
        "containerStatuses": containers,
    });
    if !init.is_empty() {
        json["initContainerStatuses"] = json!(init);
    }
    if let Stage::Killed { reason, message, .. } = stage
        && !reason.is_empty()
    {
        json["reason"] = json!(reason);
        json["message"] = json!(message);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: Value, init: Value) -> Pod {
        serde_json::from_value(json!({ "spec": { "containers": containers, "initContainers": init } })).unwrap()
    }

    fn at(pod: &Pod, stage: Stage) -> Value {
        status(pod, stage, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)
    }

    fn ended(exit_code: u8, words: &str) -> Stage {
        Stage::Ended {
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" },
            words: words.into(),
        }
    }

    #[test]
    fn a_native_sidecar_ends_with_its_runner() {
        let pod = pod(
            json!([{ "name": "runner", "image": "r" }]),
            json!([{ "name": "dind", "restartPolicy": "Always" }, { "name": "setup" }]),
        );
        let running = at(&pod, Stage::Running);
        assert_eq!(
            (&running["phase"], &running["initContainerStatuses"][0]["ready"]),
            (&json!("Running"), &json!(true))
        );
        assert_eq!(
            running["initContainerStatuses"][1]["state"]["terminated"]["exitCode"],
            0
        );
        let done = at(&pod, ended(0, ""));
        assert_eq!(
            (
                &done["phase"],
                &done["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            ),
            (&json!("Succeeded"), &json!(0))
        );
        assert!(done["initContainerStatuses"][0]["state"].get("terminated").is_some());
        assert_eq!(at(&pod, ended(1, ""))["phase"], "Failed");
    }

    #[test]
    fn an_ordinary_second_container_keeps_its_pod_running() {
        let pod = pod(json!([{ "name": "dind" }, { "name": "runner" }]), Value::Null);
        let done = at(&pod, ended(0, ""));
        assert_eq!(done["phase"], "Running");
        assert!(
            done["containerStatuses"][1]["state"].get("terminated").is_some()
                && done["containerStatuses"][0]["state"].get("running").is_some()
        );
        let evicted = at(
            &pod,
            Stage::Killed {
                reason: "Evicted",
                message: "low on memory",
                exit_code: 137,
            },
        );
        assert_eq!(
            (&evicted["phase"], &evicted["reason"]),
            (&json!("Failed"), &json!("Evicted"))
        );
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let pod = pod(json!([{ "name": "runner" }]), Value::Null);
        let waiting = at(&pod, Stage::Waiting("ImagePullBackOff"));
        assert_eq!(
            (
                &waiting["phase"],
                &waiting["containerStatuses"][0]["state"]["waiting"]["reason"]
            ),
            (&json!("Pending"), &json!("ImagePullBackOff"))
        );
        assert_eq!(
            at(&pod, Stage::Unschedulable)["conditions"][0]["reason"],
            "Unschedulable"
        );
    }

    #[test]
    fn last_words_are_in_the_status_where_the_container_wants_them_from_its_log() {
        let words = |policy: Value, exit_code| {
            let pod = pod(
                json!([{ "name": "runner", "terminationMessagePolicy": policy }]),
                Value::Null,
            );
            at(
                &pod,
                ended(
                    exit_code,
                    "Must not run interactively with \
             sudo",
                ),
            )["containerStatuses"][0]["state"]["terminated"]["message"]
                .clone()
        };
        assert_eq!(
            words(json!("FallbackToLogsOnError"), 1),
            "Must not run interactively with sudo"
        );
        assert_eq!(
            words(json!("FallbackToLogsOnError"), 0),
            Value::Null,
            "an end with 0 is no error"
        );
        assert_eq!(words(Value::Null, 1), Value::Null);
    }

    #[test]
    fn a_pod_that_its_node_does_not_admit_has_no_container() {
        let rejected = at(
            &pod(json!([{ "name": "runner" }]), Value::Null),
            Stage::Rejected {
                reason: "OutOfcpu".into(),
                message: "no room".into(),
            },
        );
        assert_eq!(
            (&rejected["phase"], &rejected["reason"], &rejected["message"]),
            (&json!("Failed"), &json!("OutOfcpu"), &json!("no room"))
        );
        assert!(rejected.get("containerStatuses").is_none());
    }
}
