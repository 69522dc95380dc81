//! A namespace of its own for each stack, in the cluster that `$KUBECONFIG` names.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

/// A new namespace in which pods can be created: its `default` service account is there.
pub(super) async fn create_namespace() -> anyhow::Result<String> {
    anyhow::ensure!(
        std::env::var_os("KUBECONFIG").is_some(),
        "KUBECONFIG is not set: run through `make`, which starts a control plane"
    );
    let client = Client::try_default().await.context("the cluster of $KUBECONFIG")?;
    let metadata = ObjectMeta {
        generate_name: Some("jit-runners-".into()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    let created = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .context("cannot create a namespace")?;
    let name = created.metadata.name.context("a namespace has a name")?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
    for _ in 0..600 {
        if accounts.get_opt("default").await?.is_some() {
            return Ok(name);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("namespace {name} has no default service account after 30 s: does kube-controller-manager run?")
}

pub(super) async fn delete_namespace(name: &str) {
    if let Ok(client) = Client::try_default().await {
        let _ = Api::<Node>::all(client.clone())
            .delete(name, &DeleteParams::default())
            .await;
        super::policy::forget(&client, name).await;
        let _ = Api::<Namespace>::all(client)
            .delete(name, &DeleteParams::default())
            .await;
    }
}

/// Each stack's node has the name of its namespace.
pub(super) async fn delete_node(name: &str) -> anyhow::Result<()> {
    match Api::<Node>::all(Client::try_default().await?)
        .delete(name, &DeleteParams::default())
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

pub(super) async fn delete_bound_pods(namespace: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(Client::try_default().await?, namespace);
    for pod in pods.list(&ListParams::default()).await?.items {
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if let (true, Some(name)) = (bound, pod.metadata.name) {
            let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await; // it may be gone by itself
        }
    }
    Ok(())
}

/// Pods and Secrets that are there.
pub(super) async fn contents(namespace: &str) -> anyhow::Result<(usize, usize)> {
    let client = Client::try_default().await?;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await?
        .items
        .len();
    let secrets = Api::<Secret>::namespaced(client, namespace)
        .list(&ListParams::default())
        .await?
        .items
        .len();
    Ok((pods, secrets))
}
