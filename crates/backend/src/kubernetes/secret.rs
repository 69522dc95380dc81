//! The manifest of the Secret that a runner's pod waits for.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use secrecy::{ExposeSecret, SecretString};

use super::labels::labels;
use crate::RunnerSpec;

/// Key of the JIT configuration in the Secret, and name of its file in the container.
pub const KEY: &str = "jitconfig";

/// The Secret that holds a runner's JIT configuration; it goes with its pod.
pub fn secret(spec: &RunnerSpec, pod_uid: &str, jit_config: &SecretString) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(spec.name.clone()),
            labels: Some(labels(spec)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: spec.name.clone(),
                uid: pod_uid.into(),
                ..Default::default()
            }]),
            ..Default::default()
        },
        type_: Some("Opaque".into()),
        string_data: Some([(KEY.to_owned(), jit_config.expose_secret().to_owned())].into()),
        // Never changes, so the kubelet need not watch it.
        immutable: Some(true),
        ..Default::default()
    }
}
