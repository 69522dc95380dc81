//! The node: an object that says it is ready, and a lease that says it still is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Kubelet;

/// How often the lease is renewed; the controller manager waits 40 s before it says that the node is gone.
const RENEW: Duration = Duration::from_secs(10);

/// Makes the node, unless it is there, and says that it is ready.
pub(super) async fn register(kubelet: &Kubelet) -> anyhow::Result<()> {
    let name = &kubelet.options.node;
    let nodes: Api<Node> = Api::all(kubelet.client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "type": "jit-simulator",
        } },
        "spec": { "providerID": format!("simulated://{name}") },
    }))?;
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).context("create the node"),
    }
    ready(kubelet).await.context("set the node's status")?;
    renew(kubelet).await.context("renew the node's lease")
}

async fn ready(kubelet: &Kubelet) -> kube::Result<()> {
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, is: bool, reason: &str| {
        let status = if is { "True" } else { "False" };
        json!({ "type": kind, "status": status, "reason": reason, "message": "simulated", "lastHeartbeatTime": now,
            "lastTransitionTime": now })
    };
    let resources = json!({ "cpu": "10000", "memory": "100000Gi", "ephemeral-storage": "100000Gi", "pods": "100000" });
    let status = json!({
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("Ready", true, "KubeletReady"),
            condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID"),
        ],
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" },
        { "type": "Hostname", "address": kubelet.options.node }],
    });
    let nodes: Api<Node> = Api::all(kubelet.client.clone());
    nodes
        .patch_status(
            &kubelet.options.node,
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await
        .map(|_| ())
}

async fn renew(kubelet: &Kubelet) -> kube::Result<()> {
    let name = &kubelet.options.node;
    let leases: Api<Lease> = Api::namespaced(kubelet.client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro(Timestamp::now()) },
    });
    // Applied, so that it is made when it is missing.
    leases
        .patch(
            name,
            &PatchParams::apply("jit-simulator").force(),
            &Patch::Apply(&lease),
        )
        .await
        .map(|_| ())
}

/// A time with exactly six digits after the point, as a `MicroTime` must have.
fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Renews the lease until `shutdown`.
pub(super) async fn keep_alive(kubelet: Arc<Kubelet>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
        if let Err(error) = renew(&kubelet).await {
            tracing::warn!(%error, "the node's lease was not renewed");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn micro_time_has_six_digits() {
        assert_eq!(
            super::micro(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            "1970-01-01T00:00:00.000000Z"
        );
    }
}
