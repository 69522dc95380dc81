//! What a real API server refuses by its own means: a policy for one organization, a quota for the namespace.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Pod, ResourceQuota, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::Stack;

/// What a policy can be about.
const RESOURCES: [&str; 2] = ["pods", "secrets"];
/// Name of the quota of Secrets.
const QUOTA: &str = "secrets";

impl Stack {
    /// Has the API server refuse new `pods` or `secrets` of one organization, by a policy of the cluster. Returns once
    /// it does.
    ///
    /// # Errors
    /// When there is no cluster, or it does not take the policy.
    pub async fn refuse_in_cluster(&self, resource: &str, org: &str) -> anyhow::Result<()> {
        let namespace = self
            .namespace
            .as_deref()
            .context("runners are processes here: there is no cluster")?;
        let (client, name) = (Client::try_default().await?, format!("{namespace}-{resource}"));
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                    "objectSelector": { "matchLabels": { "org": org } },
                    "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": [resource] }],
                },
                "validations": [{ "expression": "false", "message": format!("no {resource} for {org} in this \
                 cluster"), "reason": "Forbidden" }],
            },
        }))?;
        let spec = json!({ "policyName": name, "validationActions": ["Deny"] });
        let binding: ValidatingAdmissionPolicyBinding =
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &policy)
            .await
            .context("create a policy")?;
        Api::all(client.clone())
            .create(&PostParams::default(), &binding)
            .await
            .context("bind a policy")?;
        until_refused(&client, namespace, resource, org, true).await
    }

    /// Takes the policies of [`Stack::refuse_in_cluster`] away. Returns once the organization is refused nothing any
    /// more.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn allow_in_cluster(&self, org: &str) -> anyhow::Result<()> {
        let namespace = self
            .namespace
            .as_deref()
            .context("runners are processes here: there is no cluster")?;
        let client = Client::try_default().await?;
        forget(&client, namespace).await;
        for resource in RESOURCES {
            until_refused(&client, namespace, resource, org, false).await?;
        }
        Ok(())
    }

    /// Lets the namespace hold so many Secrets, or with none any number: a `ResourceQuota`, which concerns all
    /// organizations.
    ///
    /// # Errors
    /// When the API server does not take the quota.
    pub async fn limit_secrets(&self, most: Option<u32>) -> anyhow::Result<()> {
        let namespace = self
            .namespace
            .as_deref()
            .context("runners are processes here: there is no cluster")?;
        let quotas: Api<ResourceQuota> = Api::namespaced(Client::try_default().await?, namespace);
        match most {
            Some(most) => {
                let spec = json!({ "hard": { "count/secrets": most.to_string() } });
                let quota = serde_json::from_value(json!({ "metadata": { "name": QUOTA }, "spec": spec }))?;
                quotas
                    .create(&PostParams::default(), &quota)
                    .await
                    .context("create a quota")?;
                for _ in 0..600 {
                    let known = quotas.get(QUOTA).await?.status.and_then(|status| status.hard).is_some();
                    if known {
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                bail!("the quota of Secrets is not in force after a minute: does kube-controller-manager run?")
            }
            None => Ok(quotas.delete(QUOTA, &DeleteParams::default()).await.map(drop)?),
        }
    }
}

/// Deletes the policies that were made for a namespace.
pub(super) async fn forget(client: &Client, namespace: &str) {
    for resource in RESOURCES {
        let name = format!("{namespace}-{resource}");
        // There may be none.
        let _ = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
            .delete(&name, &DeleteParams::default())
            .await;
        let _ = Api::<ValidatingAdmissionPolicy>::all(client.clone())
            .delete(&name, &DeleteParams::default())
            .await;
    }
}

/// The server takes note of a policy a moment after it was made or deleted: asks with creations that are not carried
/// out.
async fn until_refused(
    client: &Client,
    namespace: &str,
    resource: &str,
    org: &str,
    wanted: bool,
) -> anyhow::Result<()> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let metadata = json!({ "generateName": "policy-", "labels": { "org": org } });
    for _ in 0..600 {
        let asked = if resource == "pods" {
            let pod: Pod = serde_json::from_value(
                json!({ "metadata": metadata, "spec": { "containers": [{ "name": "x", "image": "x" }] } }),
            )?;
            Api::namespaced(client.clone(), namespace)
                .create(&dry, &pod)
                .await
                .map(drop)
        } else {
            let secret: Secret = serde_json::from_value(json!({ "metadata": metadata }))?;
            Api::namespaced(client.clone(), namespace)
                .create(&dry, &secret)
                .await
                .map(drop)
        };
        match asked {
            Ok(()) if !wanted => return Ok(()),
            Err(kube::Error::Api(status))
                if wanted && status.code == 403 && status.message.contains("ValidatingAdmissionPolicy") =>
            {
                return Ok(());
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    bail!(
        "after a minute {resource} of {org} are {}refused",
        if wanted { "not " } else { "still " }
    )
}
