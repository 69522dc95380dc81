//! The simulated kubelet on a real API server (`$KUBECONFIG`; `make test` sets it).
//!
//! Each test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Lab, lab};
use jit_simulator::github::Settings;
use jit_simulator::kubelet::{self, Options, Running, faults::ANNOTATION};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

struct Cluster {
    lab: Lab,
    kubelet: Running,
    client: Client,
    namespace: String,
}

async fn cluster(name: &str, start_delay: Duration) -> Cluster {
    let client = kubelet::client().await.unwrap();
    let namespace = format!("{name}-{:x}", fastrand::u32(..));
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    let kubelet = kubelet::start(Options {
        start_delay,
        ..Options::new(client.clone(), &namespace)
    })
    .await
    .unwrap();
    Cluster {
        lab: lab(Settings {
            lease_ms: 1000,
            ..Settings::default()
        })
        .await,
        kubelet,
        client,
        namespace,
    }
}

impl Cluster {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn pod(&self, name: &str, annotations: Value) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": "jit-runner", "org": "org-0001" },
            "annotations": annotations },
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false,
                "volumes": [{ "name": "jit", "secret": { "secretName": name } }],
                "initContainers": [{ "name": "dind", "image": "docker:dind", "restartPolicy": "Always" }],
                "containers": [{ "name": "runner", "image": "runner:latest",
                "volumeMounts": [{ "name": "jit", "mountPath": "/jit" }] }],
            },
        }))
        .unwrap();
        // The controller manager makes a new namespace's service account a moment later.
        for _ in 0..1200 {
            match self.pods().create(&PostParams::default(), &pod).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the pod was not admitted");
    }

    async fn secret(&self, name: &str) {
        let jit = self.lab.jit(name).await;
        let secret: Secret =
            serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": { "jitconfig": jit } }))
                .unwrap();
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
    }

    async fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..3000 {
            last = json!(self.pods().get_opt(name).await.unwrap());
            if is(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is not {what}: {last:#}");
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "gone", Value::is_null).await;
    }

    async fn end(self) {
        self.kubelet.stop().await;
        Api::<Namespace>::all(self.client.clone())
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_its_secret_runs_its_job_and_succeeds() {
    let cluster = cluster("life", Duration::ZERO).await;
    let job = cluster.lab.job(300).await;
    cluster.pod("a", json!({})).await;
    let bound = cluster
        .until("a", "bound", |pod| pod["spec"]["nodeName"] == "simulated-node")
        .await;
    assert_eq!(bound["status"]["phase"], "Pending");
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.secret("a").await;
    let running = cluster.until_phase("a", "Running").await;
    assert_eq!(running["status"]["initContainerStatuses"][0]["ready"], true);
    let done = cluster.until_phase("a", "Succeeded").await;
    assert_eq!(
        done["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        0
    );
    assert!(done["status"]["initContainerStatuses"][0]["state"]["terminated"].is_object());
    assert_eq!(cluster.lab.until_job(job, "completed").await["conclusion"], "success");
    cluster.delete("a").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_at_once_at_every_stage() {
    let cluster = cluster("deleted", Duration::ZERO).await;
    cluster.pod("waiting", json!({})).await;
    cluster
        .until("waiting", "bound", |pod| pod["spec"]["nodeName"].is_string())
        .await;
    cluster.delete("waiting").await;
    let job = cluster.lab.job(60_000).await;
    cluster.pod("running", json!({})).await;
    cluster.secret("running").await;
    cluster.lab.until_job(job, "in_progress").await;
    cluster.delete("running").await;
    assert_eq!(cluster.lab.until_job(job, "completed").await["conclusion"], "failure");
    let job = cluster.lab.job(60_000).await;
    cluster.pod("forced", json!({})).await;
    cluster.secret("forced").await;
    cluster.lab.until_job(job, "in_progress").await;
    cluster
        .pods()
        .delete("forced", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(cluster.lab.until_job(job, "completed").await["conclusion"], "failure");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_pods() {
    let cluster = cluster("faults", Duration::ZERO).await;
    for (name, fault) in [
        ("stuck", "never_start"),
        ("nowhere", "unschedulable"),
        ("no-image", "image_pull_error"),
        ("killed", "die"),
        ("evicted", "evict"),
    ] {
        cluster.pod(name, json!({ ANNOTATION: fault })).await;
        cluster.secret(name).await;
    }
    cluster
        .lab
        .control(
            "jobs",
            json!({ "org": "org-0001", "labels": ["x"], "count": 2, "duration_ms": 60_000 }),
        )
        .await;
    cluster
        .until("stuck", "bound", |pod| pod["spec"]["nodeName"].is_string())
        .await;
    cluster
        .until("nowhere", "unschedulable", |pod| {
            pod["status"]["conditions"][0]["reason"] == "Unschedulable"
        })
        .await;
    cluster
        .until("no-image", "backing off", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
        })
        .await;
    let killed = cluster.until_phase("killed", "Failed").await;
    assert_eq!(
        killed["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "OOMKilled"
    );
    assert_eq!(
        cluster.until_phase("evicted", "Failed").await["status"]["reason"],
        "Evicted"
    );
    for name in ["stuck", "nowhere", "no-image", "killed", "evicted"] {
        cluster.delete(name).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_end_without_having_worked() {
    let cluster = cluster("endless", Duration::ZERO).await;
    let fault = |fault: Value| cluster.kubelet.add_fault(serde_json::from_value(fault).unwrap());
    fault(json!({ "fault": "reject", "org": "org-0001", "count": 1 }));
    fault(
        json!({ "fault": "exit", "org": "org-0001", "exit_code": 1, "message": "Must not run interactively with \
         sudo", "count": 1 }),
    );
    fault(json!({ "fault": "exit", "org": "other", "exit_code": 3 }));
    cluster.pod("rejected", json!({})).await;
    let rejected = cluster.until_phase("rejected", "Failed").await;
    assert_eq!(
        (&rejected["status"]["reason"], &rejected["status"]["containerStatuses"]),
        (&json!("OutOfcpu"), &Value::Null)
    );
    assert_eq!(rejected["spec"]["nodeName"], "simulated-node");
    let terminated = |pod: Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    cluster.pod("ends", json!({})).await;
    cluster.secret("ends").await;
    assert_eq!(terminated(cluster.until_phase("ends", "Failed").await)["exitCode"], 1);
    // It is too old, and its container is not told to say so: as run.sh, it ends well.
    cluster
        .lab
        .control("faults", json!({ "fault": "runner_ends", "org": "org-0001" }))
        .await;
    cluster.pod("too-old", json!({})).await;
    cluster.secret("too-old").await;
    assert_eq!(
        terminated(cluster.until_phase("too-old", "Succeeded").await)["exitCode"],
        0
    );
    for name in ["rejected", "ends", "too-old"] {
        cluster.delete(name).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_pods_at_once() {
    let cluster = cluster("many", Duration::ZERO).await;
    cluster
        .lab
        .control("jobs", json!({ "org": "org-0001", "labels": ["x"], "count": 500 }))
        .await;
    let names: Vec<String> = (0..500).map(|number| format!("r-{number}")).collect();
    for chunk in names.chunks(50) {
        futures::future::join_all(chunk.iter().map(|name| cluster.secret(name))).await;
    }
    cluster.pod("first", json!({})).await;
    let started = Instant::now();
    for chunk in names.chunks(50) {
        futures::future::join_all(chunk.iter().map(|name| cluster.pod(name, json!({})))).await;
    }
    let created = started.elapsed();
    let over = loop {
        let pods = cluster.pods().list(&ListParams::default()).await.unwrap();
        let over = pods
            .iter()
            .filter(|pod| {
                pod.name_any() != "first" && pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded")
            })
            .count();
        if over == 500 || started.elapsed() > Duration::from_secs(180) {
            break over;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!(
        "500 pods created in {created:?}, over after {:?}; {:?}",
        started.elapsed(),
        cluster.kubelet.counts()
    );
    assert_eq!(over, 500);
    assert_eq!(cluster.lab.github.summary().jobs.success, 500);
    cluster.end().await;
}
