//! One pod's life on the simulated node: bound, waiting for its secret, running its runner, over.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Kubelet;
use super::faults::{Fault, Kind, lock};
use super::status::{Stage, is_running, runner_container, status};
use crate::jit::JitConfig;
use crate::runner::{self, Ended, TELLS_TOO_OLD};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(15);
/// First and longest time between two looks for a secret, doubled each time: a secret that comes 2 s late costs a
/// second, as on a real node.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// First and longest time between two tries to pull an image, doubled each time, as a kubelet has them.
const PULL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// First and longest time between two tries of a request.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The pod is no more, or is another one of the same name: nothing is left to do.
pub(super) struct Gone;

impl Kubelet {
    /// Makes a request, one of a limited number at once, until it is answered; none means that the thing is not there,
    /// or not as expected.
    pub(super) async fn request<T, F>(&self, what: &'static str, make: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut wait = RETRY.0;
        loop {
            let result = {
                // The semaphore is never closed.
                let _permit = self.permits.acquire().await.ok()?;
                timeout(REQUEST, make()).await
            };
            match result {
                Ok(Ok(answer)) => return Some(answer),
                // Too many writers at once, as opposed to another pod of the same name.
                Ok(Err(kube::Error::Api(status)))
                    if status.code == 409 && status.message.contains("has been modified") =>
                {
                    tracing::debug!(what, "conflict")
                }
                Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                    if status.code != 404 && status.code != 409 {
                        tracing::warn!(
                            what,
                            code = status.code,
                            reason = status.reason,
                            message = status.message,
                            "the API server refused"
                        );
                    }
                    return None;
                }
                Ok(Err(error)) => tracing::debug!(what, %error, "request failed"),
                Err(_) => tracing::debug!(what, "request timed out"),
            }
            count(&self.counts.retries);
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    async fn set(&self, pod: &Pod, stage: Stage, started: Timestamp) -> Result<(), Gone> {
        let body = json!({ "metadata": { "uid": pod.uid() }, "status": status(pod, stage, started, Timestamp::now()) });
        let name = pod.name_any();
        let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
        self.request("patch status", || self.pods.patch_status(&name, &params, &patch))
            .await
            .map(|_| ())
            .ok_or(Gone)
    }

    async fn bind(&self, pod: &Pod) {
        let name = pod.name_any();
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(self.options.node.clone()),
                ..ObjectReference::default()
            },
        };
        let params = PostParams::default();
        // Refused when somebody else bound it, or it is gone; the next write finds out.
        let bound = self
            .request("bind", || {
                self.pods
                    .create_subresource::<_, Status>("binding", &name, &params, &binding)
            })
            .await;
        if bound.is_some() {
            count(&self.counts.bound);
        }
    }

    async fn secret(&self, name: &str) -> Secret {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.options.namespace);
        let mut wait = LOOK.0;
        loop {
            if let Some(secret) = self.request("get secret", || secrets.get(name)).await {
                return secret;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LOOK.1);
        }
    }

    /// Confirms a deletion, so that the API server lets go of the pod.
    async fn confirm_deletion(&self, pod: &Pod) {
        let preconditions = Preconditions {
            uid: pod.uid(),
            ..Preconditions::default()
        };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let name = pod.name_any();
        if self
            .request("delete", || self.pods.delete(&name, &params))
            .await
            .is_some()
        {
            count(&self.counts.deleted);
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Lives the life of a pod, from wherever it stands, until it is over; `stop` says that somebody deleted it.
pub(super) async fn live(kubelet: &Kubelet, pod: &Pod, stop: &CancellationToken) {
    let started = Timestamp::now();
    // A pod that ran before this kubelet did: its containers are not to be found any more.
    if is_running(pod) && !stop.is_cancelled() {
        let lost = Stage::Ended {
            exit_code: 137,
            reason: "ContainerStatusUnknown",
            words: String::new(),
        };
        count(&kubelet.counts.failed);
        let _ = kubelet.set(pod, lost, started).await;
    } else if let Err(Gone) = start_and_run(kubelet, pod, stop, started).await {
        return;
    }
    // Over or not, what remains to be done is a deletion; an API server needs no kubelet for one that is over, and says
    // it is gone.
    stop.cancelled().await;
    kubelet.confirm_deletion(pod).await;
}

async fn start_and_run(kubelet: &Kubelet, pod: &Pod, stop: &CancellationToken, started: Timestamp) -> Result<(), Gone> {
    let doom = lock(&kubelet.faults).doom(pod);
    if let Some(doom) = doom.as_ref().filter(|doom| doom.fault == Kind::Reject) {
        return reject(kubelet, pod, doom, started).await;
    }
    let prepared = stop
        .run_until_cancelled(prepare(kubelet, pod, doom.as_ref(), started))
        .await;
    let jit = match prepared {
        Some(jit) => jit?,
        // Deleted before it started: there is nothing to end.
        None => return Ok(()),
    };
    kubelet.set(pod, Stage::Running, started).await?;
    count(&kubelet.counts.started);
    let stage = run(pod, jit.as_deref(), doom.as_ref(), stop).await;
    let well = matches!(stage, Stage::Ended { exit_code: 0, .. });
    count(if well {
        &kubelet.counts.succeeded
    } else {
        &kubelet.counts.failed
    });
    kubelet.set(pod, stage, started).await
}

/// Takes the pod and does not admit it.
async fn reject(kubelet: &Kubelet, pod: &Pod, doom: &Fault, started: Timestamp) -> Result<(), Gone> {
    kubelet.bind(pod).await;
    let reason = doom.reason.clone().unwrap_or_else(|| "OutOfcpu".into());
    let usual =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 9999600, capacity: 10000000";
    let message = doom.message.clone().unwrap_or_else(|| usual.into());
    count(&kubelet.counts.failed);
    kubelet.set(pod, Stage::Rejected { reason, message }, started).await
}

/// Everything before the containers run. Returns the JIT configuration, if the pod has one.
async fn prepare(
    kubelet: &Kubelet,
    pod: &Pod,
    doom: Option<&Fault>,
    started: Timestamp,
) -> Result<Option<String>, Gone> {
    let doomed = |kind| doom.is_some_and(|doom| doom.fault == kind);
    if doomed(Kind::Unschedulable) {
        kubelet.set(pod, Stage::Unschedulable, started).await?;
        std::future::pending::<()>().await;
    }
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
        kubelet.bind(pod).await;
    }
    if doomed(Kind::NeverStart) {
        kubelet.set(pod, Stage::Waiting("ContainerCreating"), started).await?;
        std::future::pending::<()>().await;
    }
    let Some(spec) = &pod.spec else { return Err(Gone) };
    let mut jit = plain(spec);
    for name in secrets(spec) {
        let secret = kubelet.secret(&name).await;
        let values = secret
            .data
            .into_iter()
            .flatten()
            .filter_map(|(_, value)| String::from_utf8(value.0).ok());
        jit = jit.or_else(|| values.into_iter().find(|value| JitConfig::decode(value).is_ok()));
    }
    if let Some(fault) = doom.filter(|doom| doom.fault == Kind::ImagePullError) {
        kubelet.set(pod, Stage::Waiting("ErrImagePull"), started).await?;
        sleep(Duration::from_secs(1)).await;
        kubelet.set(pod, Stage::Waiting("ImagePullBackOff"), started).await?;
        let mut wait = PULL.0;
        loop {
            sleep(wait).await;
            if !lock(&kubelet.faults).holds(fault) {
                break;
            }
            wait = (wait * 2).min(PULL.1);
        }
    }
    sleep(kubelet.options.start_delay).await;
    Ok(jit)
}

/// Runs the runner to its end, or to its doom.
async fn run(pod: &Pod, jit: Option<&str>, doom: Option<&Fault>, stop: &CancellationToken) -> Stage {
    let ended = |exit_code: u8, words: &str| {
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        Stage::Ended {
            exit_code,
            reason,
            words: words.into(),
        }
    };
    // A container without a JIT configuration fails at once.
    let Some(jit) = jit else { return ended(1, "") };
    if let Some(doom) = doom.filter(|doom| doom.fault == Kind::Exit) {
        sleep(doom.after()).await;
        return ended(doom.exit_code.unwrap_or(1), doom.message.as_deref().unwrap_or_default());
    }
    let struck = async {
        match doom.filter(|doom| matches!(doom.fault, Kind::Die | Kind::Evict)) {
            Some(doom) => {
                sleep(doom.after()).await;
                doom.fault
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        how = runner::run(jit, stop) => match how {
            // From outside it looks like any container that was told to stop.
            Ended::Stopped => Stage::Killed { reason: "", message: "", exit_code: 143 },
            how => ended(how.exit_code(tells_too_old(pod)), how.words()),
        },
        kind = struck => match kind {
            Kind::Evict => Stage::Killed { reason: "Evicted", message: "The node was low on resource: \
             memory.", exit_code: 137 },
            _ => Stage::Ended { exit_code: 137, reason: "OOMKilled", words: String::new() },
        },
    }
}

/// Whether the runner's container is to tell that it is too old.
fn tells_too_old(pod: &Pod) -> bool {
    let container = pod.spec.as_ref().and_then(runner_container);
    container
        .into_iter()
        .flat_map(|container| container.env.iter().flatten())
        .any(|set| set.name == TELLS_TOO_OLD && set.value.as_deref() == Some("1"))
}

/// Names of the secrets that the pod cannot start without: volumes, and the environment of any container.
fn secrets(spec: &PodSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(secret) = volume.secret.as_ref().filter(|secret| secret.optional != Some(true)) {
            names.extend(secret.secret_name.clone());
        }
        for source in volume
            .projected
            .iter()
            .filter_map(|projected| projected.sources.as_ref())
            .flatten()
        {
            names.extend(
                source
                    .secret
                    .iter()
                    .filter(|secret| secret.optional != Some(true))
                    .map(|secret| secret.name.clone()),
            );
        }
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for variable in container.env.iter().flatten() {
            let key = variable
                .value_from
                .as_ref()
                .and_then(|from| from.secret_key_ref.as_ref());
            names.extend(key.filter(|key| key.optional != Some(true)).map(|key| key.name.clone()));
        }
        for from in container.env_from.iter().flatten() {
            names.extend(
                from.secret_ref
                    .iter()
                    .filter(|secret| secret.optional != Some(true))
                    .map(|secret| secret.name.clone()),
            );
        }
    }
    names
}

/// A JIT configuration that is written into the pod itself, where everybody can read it.
fn plain(spec: &PodSpec) -> Option<String> {
    let container = runner_container(spec)?;
    let values = container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value.as_ref());
    values
        .chain(container.args.iter().flatten())
        .chain(container.command.iter().flatten())
        .find(|value| JitConfig::decode(value).is_ok())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_wherever_a_pod_names_them() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [{ "name": "a", "secret": { "secretName": "volume" } },
            { "name": "b", "secret": { "secretName": "not-needed", "optional": true } },
                { "name": "c", "projected": { "sources": [{ "secret": { "name": "projected" } }] } }],
            "containers": [{ "name": "runner", "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "env",
            "key": "k" } } }],
                "envFrom": [{ "secretRef": { "name": "env-from" } }] }],
        }))
        .unwrap();
        assert_eq!(
            secrets(&spec).into_iter().collect::<Vec<_>>(),
            ["env", "env-from", "projected", "volume"]
        );
        assert_eq!(plain(&spec), None);
    }
}
