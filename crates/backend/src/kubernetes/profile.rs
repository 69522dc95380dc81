//! What a runner's pod is made of, apart from the runner itself.
//!
//! A [`Profile`] is plain data: whoever reads the configuration fills it in, [`super::pod()`] makes a manifest of it.
//! The parts that are Kubernetes' own (resources, tolerations, volumes …) are taken over as they stand; the API server
//! checks them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, EnvVar, ResourceRequirements, Toleration, Volume, VolumeMount};
use serde::{Deserialize, Serialize};

/// How much a job in the pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The runner alone, without Docker; nothing in the pod is privileged.
    Standard,
    /// A privileged Docker daemon beside the runner: `docker`, `container:` jobs and services work.
    #[default]
    Dind,
}

/// One kind of runner pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Profile {
    /// Name by which [`crate::RunnerSpec::profile`] refers to it.
    pub name: String,
    /// What a job in the pod may do.
    pub mode: Mode,
    /// Namespace of the pods; `None`: the one that the backend was given.
    pub namespace: Option<String>,

    /// Image of the container `runner`. It needs `/bin/sh` and `cat`.
    pub image: String,
    /// What starts the runner in that image, with the JIT configuration in `ACTIONS_RUNNER_INPUT_JITCONFIG`.
    pub command: Vec<String>,
    /// Requests and limits of the container `runner`.
    pub resources: ResourceRequirements,
    /// Further environment of the container `runner`. What the pod needs itself cannot be overridden.
    pub env: Vec<EnvVar>,
    /// Further mounts of the container `runner`, of [`Profile::volumes`].
    pub mounts: Vec<VolumeMount>,

    /// Image of the container `dind`. It needs the `docker` client too, which tells when the daemon is ready.
    pub dind_image: String,
    /// Further arguments of dockerd, for example `--registry-mirror=…` or `--mtu=1400`.
    pub dind_args: Vec<String>,
    /// Group that may use the Docker socket: the runner image's `docker`, which is 123 in GitHub's.
    pub dind_group: u32,
    /// Requests and limits of the container `dind`.
    pub dind_resources: ResourceRequirements,
    /// Further mounts of the container `dind`, of [`Profile::volumes`]. What jobs share with it by path (say `/tmp`) is
    /// mounted in both.
    pub dind_mounts: Vec<VolumeMount>,

    /// Further volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Service account, for identity that a cloud binds to it; its Kubernetes token is not mounted.
    pub service_account: Option<String>,
    /// When the images are pulled: `Always`, `IfNotPresent`, `Never`; `None`: as Kubernetes does, which is `Always` for
    /// the tag `latest`.
    pub image_pull_policy: Option<String>,
    /// Secrets to pull the images with.
    pub image_pull_secrets: Vec<String>,
    /// Group that owns the volumes.
    pub fs_group: Option<i64>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Rules on nodes and neighbours.
    pub affinity: Option<Affinity>,
    /// Taints that the pod tolerates.
    pub tolerations: Vec<Toleration>,
    /// Runtime class, for example one with a sandbox.
    pub runtime_class: Option<String>,
    /// Priority class.
    pub priority_class: Option<String>,
    /// Further labels of the pod. Ours win.
    pub labels: BTreeMap<String, String>,
    /// Further annotations of the pod. Ours win.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: "default".into(),
            mode: Mode::default(),
            namespace: None,
            image: "ghcr.io/actions/actions-runner:latest".into(),
            command: vec!["/home/runner/run.sh".into()],
            resources: ResourceRequirements::default(),
            env: Vec::new(),
            mounts: Vec::new(),
            dind_image: "docker:dind".into(),
            dind_args: Vec::new(),
            dind_group: 123,
            dind_resources: ResourceRequirements::default(),
            dind_mounts: Vec::new(),
            volumes: Vec::new(),
            service_account: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            fs_group: None,
            node_selector: BTreeMap::new(),
            affinity: None,
            tolerations: Vec::new(),
            runtime_class: None,
            priority_class: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default_and_what_is_misspelt_is_refused() {
        let profile: Profile = serde_json::from_value(serde_json::json!({
            "name": "big", "mode": "standard", "nodeSelector": {"pool": "big"},
            "resources": {"requests": {"cpu": "4"}}, "tolerations": [{"key": "ci", "operator": "Exists"}],
        }))
        .unwrap();
        assert_eq!(
            (profile.mode, profile.dind_image.as_str()),
            (Mode::Standard, "docker:dind")
        );
        assert_eq!(profile.node_selector["pool"], "big");
        let error = serde_json::from_str::<Profile>(r#"{"nodeselector": {}}"#).unwrap_err();
        assert!(error.to_string().contains("nodeselector"), "{error}");
    }
}
