//! Runners as pods, on a real API server. There is no kubelet: the tests play it. Each test has a namespace of its own,
//! and the backend acts as a user who has there the rights that its documentation names, and no others.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in the tests, but not in what they share"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use jit_backend::kubernetes::Kubernetes;
use jit_backend::kubernetes::pod::pod;
use jit_backend::kubernetes::profile::{Mode, Profile};
use jit_backend::{Backend, BackendError, Change, Observed, Phase, RunnerSpec, Stopped};
use k8s_openapi::api::core::v1::{Binding, Namespace, Pod, ResourceQuota, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Time after which a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// One test's namespace.
struct Cluster {
    admin: kube::Client,
    /// How the backend reaches the server.
    config: kube::Config,
    namespace: String,
}

impl Cluster {
    /// A namespace with these labels, ready to take pods.
    async fn new(labels: Value) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "$KUBECONFIG is not set, and these tests need a real API server: run them through `make test`"
        );
        let mut config = kube::Config::infer().await.expect("$KUBECONFIG is readable");
        let admin = kube::Client::try_from(config.clone()).unwrap();

        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let namespace = format!(
            "jit-test-{now}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let api: Api<Namespace> = Api::all(admin.clone());
        api.create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": namespace, "labels": labels}})),
        )
        .await
        .unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
        eventually(async || accounts.get_opt("default").await.unwrap()).await;

        let roles: Api<Role> = Api::namespaced(admin.clone(), &namespace);
        let role = json!({"metadata": {"name": "worker"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "delete"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]},
        ]});
        roles.create(&PostParams::default(), &object(role)).await.unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), &namespace);
        let subject = json!({"kind": "User", "name": namespace, "apiGroup": "rbac.authorization.k8s.io"});
        let role = json!({"kind": "Role", "name": "worker", "apiGroup": "rbac.authorization.k8s.io"});
        bindings
            .create(
                &PostParams::default(),
                &object(json!({"metadata": {"name": "worker"}, "subjects": [subject], "roleRef": role})),
            )
            .await
            .unwrap();
        config.auth_info.impersonate = Some(namespace.clone());
        let cluster = Self {
            admin,
            config,
            namespace,
        };
        let backend = cluster.backend(vec![Profile::default()]).await;
        eventually(async || backend.list().await.ok()).await; // the server has taken note of the rights
        cluster
    }

    async fn backend(&self, profiles: Vec<Profile>) -> Kubernetes {
        Kubernetes::with_config(self.config.clone(), profiles, &self.namespace, TIMEOUT)
            .await
            .unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Says what a kubelet would say.
    async fn status(&self, name: &str, status: Value) {
        self.pods()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status})))
            .await
            .unwrap();
    }

    /// Gives the pod a node, so that deleting it waits for a kubelet.
    async fn schedule(&self, name: &str) {
        let binding: Binding =
            object(json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}}));
        self.pods()
            .create_subresource::<_, Value>("binding", name, &PostParams::default(), &binding)
            .await
            .unwrap();
        eventually(async || self.pods().get(name).await.unwrap().spec?.node_name).await;
    }

    /// Ends a test. (Namespaces of tests that failed are left to be looked at.)
    async fn done(self) {
        let api: Api<Namespace> = Api::all(self.admin.clone());
        api.delete(&self.namespace, &DeleteParams::background()).await.unwrap();
    }
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn spec(name: &str) -> RunnerSpec {
    RunnerSpec {
        name: name.into(),
        org: "acme/site".into(),
        scope: "repos/acme/site".into(),
        group: "Default".into(),
        profile: "default".into(),
        labels: vec!["code-linux".into(), "größe:m".into()],
        job: 4711,
    }
}

fn config() -> SecretString {
    SecretString::from("ENCODED-CONFIG")
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

async fn eventually<T>(mut test: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            match test().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it happens in time")
}

async fn change(watch: &mut BoxStream<'static, Change>) -> Change {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("a change in time")
        .expect("a watch never ends")
}

async fn seen(watch: &mut BoxStream<'static, Change>, test: impl Fn(&Observed) -> bool) -> Observed {
    loop {
        match change(watch).await {
            Change::Seen(seen) if test(&seen) => return seen,
            _ => {}
        }
    }
}

async fn gone(watch: &mut BoxStream<'static, Change>, name: &str) {
    while change(watch).await != Change::Gone(name.into()) {}
}

#[tokio::test]
async fn from_start_to_gone() {
    let cluster = Cluster::new(json!({})).await;
    let backend = cluster.backend(vec![Profile::default()]).await;
    let mut watch = backend.watch();
    assert_eq!(change(&mut watch).await, Change::Restarted);

    let spec = spec("r-1");
    backend.start(&spec).await.unwrap();
    let starting = Observed {
        name: "r-1".into(),
        phase: Phase::Starting,
        rejected: false,
        terminating: false,
        stuck: false,
        spec: Some(spec.clone()),
        detail: None,
    };
    assert_eq!(change(&mut watch).await, Change::Seen(starting.clone()));
    assert_eq!(backend.list().await.unwrap(), [starting]);
    let pod = cluster.pods().get("r-1").await.unwrap();
    let parts = pod.spec.unwrap();
    assert_eq!(
        parts.init_containers.unwrap()[0].restart_policy.as_deref(),
        Some("Always"),
        "the server keeps the native sidecar"
    );
    assert!(
        parts.volumes.unwrap().iter().all(|volume| volume.projected.is_none()),
        "no token is mounted"
    );
    assert!(cluster.secrets().get_opt("r-1").await.unwrap().is_none());

    backend.deliver(&spec, &config()).await.unwrap();
    let secret = cluster.secrets().get("r-1").await.unwrap();
    assert_eq!(
        (secret.data.unwrap()["jitconfig"].0.as_slice(), secret.type_.as_deref()),
        (b"ENCODED-CONFIG".as_slice(), Some("Opaque"))
    );
    let owner = &secret.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (&owner.kind[..], &owner.name[..], Some(&owner.uid)),
        ("Pod", "r-1", pod.metadata.uid.as_ref())
    );

    let image = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
    cluster
        .status(
            "r-1",
            json!({"phase": "Pending", "containerStatuses": [container("runner", image)]}),
        )
        .await;
    let starting = seen(&mut watch, |seen| seen.detail.is_some()).await;
    assert_eq!(
        (starting.phase, starting.detail.as_deref()),
        (Phase::Starting, Some("ImagePullBackOff: Back-off pulling image"))
    );
    cluster
        .status(
            "r-1",
            json!({"phase": "Running", "containerStatuses": [container("runner", json!({"running": {}}))]}),
        )
        .await;
    seen(&mut watch, |seen| seen.phase == Phase::Running).await;
    // As on a server without native sidecars: Docker runs on.
    let statuses = [
        container("dind", json!({"running": {}})),
        container("runner", json!({"terminated": {"exitCode": 7, "reason": "Error"}})),
    ];
    cluster
        .status("r-1", json!({"phase": "Running", "containerStatuses": statuses}))
        .await;
    let ended = seen(&mut watch, |seen| seen.phase == Phase::Ended).await;
    assert_eq!(
        (ended.detail.as_deref(), ended.spec),
        (Some("exit code 7: Error"), Some(spec))
    );

    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    gone(&mut watch, "r-1").await;
    assert!(cluster.secrets().get_opt("r-1").await.unwrap().is_none());
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Absent);
    assert!(backend.list().await.unwrap().is_empty());
    cluster.done().await;
}

#[tokio::test]
async fn a_pod_on_a_node_is_gone_when_its_kubelet_says_so() {
    let cluster = Cluster::new(json!({})).await;
    let backend = cluster.backend(vec![Profile::default()]).await;
    backend.start(&spec("r-1")).await.unwrap();
    cluster.schedule("r-1").await;
    let mut watch = backend.watch();
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    assert_eq!(
        backend.stop("r-1").await.unwrap(),
        Stopped::Ending,
        "it may be asked for again"
    );
    seen(&mut watch, |seen| seen.terminating).await;
    assert!(backend.list().await.unwrap()[0].terminating);
    assert_eq!(
        cluster
            .pods()
            .get("r-1")
            .await
            .unwrap()
            .metadata
            .deletion_grace_period_seconds,
        Some(30)
    );
    assert!(matches!(
        backend.deliver(&spec("r-1"), &config()).await,
        Err(BackendError::Gone(_))
    ));
    cluster
        .pods()
        .delete("r-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    gone(&mut watch, "r-1").await;
    cluster.done().await;
}

#[tokio::test]
async fn one_of_many_makes_the_runner_and_one_delivers() {
    let cluster = Cluster::new(json!({})).await;
    let backends: Vec<_> = stream::iter(0..4)
        .then(|_| cluster.backend(vec![Profile::default()]))
        .collect()
        .await;
    let (spec, config) = (spec("r-1"), config());
    let exists = |result: &Result<(), BackendError>| matches!(result, Err(BackendError::Exists));
    let made = futures::future::join_all(backends.iter().map(|backend| backend.start(&spec))).await;
    assert_eq!(
        (
            made.iter().filter(|made| made.is_ok()).count(),
            made.iter().filter(|made| exists(made)).count()
        ),
        (1, 3),
        "{made:?}"
    );
    let delivered = futures::future::join_all(backends.iter().map(|backend| backend.deliver(&spec, &config))).await;
    assert_eq!(
        (
            delivered.iter().filter(|it| it.is_ok()).count(),
            delivered.iter().filter(|it| exists(it)).count()
        ),
        (1, 3),
        "{delivered:?}"
    );
    cluster.done().await;
}

#[tokio::test]
async fn a_secret_goes_with_its_pod() {
    let cluster = Cluster::new(json!({})).await;
    let backend = cluster.backend(vec![Profile::default()]).await;
    backend.start(&spec("r-1")).await.unwrap();
    backend.deliver(&spec("r-1"), &config()).await.unwrap();
    cluster
        .pods()
        .delete("r-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually(async || cluster.secrets().get_opt("r-1").await.unwrap().is_none().then_some(())).await;
    assert!(matches!(
        backend.deliver(&spec("r-1"), &config()).await,
        Err(BackendError::Gone(_))
    ));
    assert!(cluster.secrets().get_opt("r-1").await.unwrap().is_none());

    // One that was left behind without a pod.
    let orphan: Secret = object(json!({"metadata": {"name": "r-2"}}));
    cluster.secrets().create(&PostParams::default(), &orphan).await.unwrap();
    assert_eq!(backend.stop("r-2").await.unwrap(), Stopped::Absent);
    assert!(cluster.secrets().get_opt("r-2").await.unwrap().is_none());

    // A pod that failed before its configuration came.
    backend.start(&spec("r-3")).await.unwrap();
    cluster
        .status(
            "r-3",
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
        )
        .await;
    let gone = backend.deliver(&spec("r-3"), &config()).await;
    assert!(
        matches!(&gone, Err(BackendError::Gone(why)) if why == "Evicted: low on memory"),
        "{gone:?}"
    );
    cluster.done().await;
}

#[tokio::test]
async fn a_used_up_quota_is_told_from_a_refusal() {
    let cluster = Cluster::new(json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let standard = Profile {
        name: "standard".into(),
        mode: Mode::Standard,
        ..Profile::default()
    };
    let nameless = Profile {
        name: "no-image".into(),
        image: String::new(),
        ..standard.clone()
    };
    let lost = Profile {
        name: "lost".into(),
        namespace: Some(format!("{}-x", cluster.namespace)),
        ..standard.clone()
    };
    let backend = cluster.backend(vec![Profile::default(), standard, nameless]).await;
    let in_profile = |name: &str, profile: &str| RunnerSpec {
        profile: profile.into(),
        ..spec(name)
    };

    // Pod security's baseline takes the standard mode, and refuses the privileged one.
    let policy = backend.start(&in_profile("r-1", "default")).await;
    assert!(
        matches!(&policy, Err(BackendError::Refused(why)) if why.contains("violates PodSecurity")),
        "{policy:?}"
    );
    let invalid = backend.start(&in_profile("r-1", "no-image")).await;
    assert!(
        matches!(&invalid, Err(BackendError::Refused(why)) if why.contains("image")),
        "{invalid:?}"
    );
    let unknown = backend.start(&in_profile("r-1", "another")).await;
    assert!(
        matches!(&unknown, Err(BackendError::Refused(why)) if why.contains("another")),
        "{unknown:?}"
    );
    let right = cluster
        .backend(vec![lost])
        .await
        .start(&in_profile("r-1", "lost"))
        .await;
    assert!(
        matches!(&right, Err(BackendError::Refused(why)) if why.contains("cannot create resource")),
        "{right:?}"
    );

    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    quotas
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "runners"}, "spec": {"hard": {"pods": "1"}}})),
        )
        .await
        .unwrap();
    eventually(async || quotas.get("runners").await.unwrap().status?.used).await;
    backend.start(&in_profile("r-1", "standard")).await.unwrap();
    let quota = backend.start(&in_profile("r-2", "standard")).await;
    assert!(
        matches!(&quota, Err(BackendError::Quota(why)) if why.contains("exceeded quota: runners")),
        "{quota:?}"
    );
    cluster.done().await;
}

#[tokio::test]
async fn whether_a_secret_would_be_refused_is_told_beforehand_and_leaves_none() {
    let cluster = Cluster::new(json!({})).await;
    let lost = Profile {
        name: "lost".into(),
        namespace: Some(format!("{}-x", cluster.namespace)),
        ..Profile::default()
    };
    let backend = cluster.backend(vec![Profile::default(), lost]).await;
    backend.may_deliver(&spec("r-1")).await.unwrap();
    let right = backend
        .may_deliver(&RunnerSpec {
            profile: "lost".into(),
            ..spec("r-1")
        })
        .await;
    assert!(
        matches!(&right, Err(BackendError::Refused(why)) if why.contains("cannot create resource \"secrets\"")),
        "{right:?}"
    );
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    quotas
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}})),
        )
        .await
        .unwrap();
    eventually(async || quotas.get("none").await.unwrap().status?.used).await;
    let quota = backend.may_deliver(&spec("r-1")).await;
    assert!(
        matches!(&quota, Err(BackendError::Quota(why)) if why.contains("exceeded quota: none")),
        "{quota:?}"
    );
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    assert!(secrets.get_opt("r-1").await.unwrap().is_none(), "a dry run makes none");
    cluster.done().await;
}

#[tokio::test]
async fn a_pod_that_was_tampered_with_is_seen_without_specification() {
    let cluster = Cluster::new(json!({})).await;
    let backend = cluster.backend(vec![Profile::default()]).await;
    let mut watch = backend.watch();
    backend.start(&spec("r-1")).await.unwrap();
    seen(&mut watch, |seen| seen.spec.is_some()).await;
    let tampered = json!({"metadata": {"annotations": {"jit-runner-manager/org": "another"}}});
    cluster
        .pods()
        .patch("r-1", &PatchParams::default(), &Patch::Merge(tampered))
        .await
        .unwrap();
    seen(&mut watch, |seen| seen.spec.is_none()).await;
    assert_eq!(backend.list().await.unwrap()[0].spec, None);
    // Without the label it is no runner of ours any more.
    cluster
        .pods()
        .patch(
            "r-1",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"app": null}}})),
        )
        .await
        .unwrap();
    gone(&mut watch, "r-1").await;
    cluster.done().await;
}

#[tokio::test]
async fn a_list_of_more_than_a_page_is_whole() {
    let cluster = Cluster::new(json!({})).await;
    let backend = cluster.backend(vec![Profile::default()]).await;
    let mut names: Vec<_> = (0..510).map(|n| format!("r-{n}")).collect();
    let specs = stream::iter(names.iter().map(|name| spec(name)));
    specs
        .map(Ok)
        .try_for_each_concurrent(16, async |spec: RunnerSpec| backend.start(&spec).await)
        .await
        .unwrap();
    let mut listed: Vec<_> = backend
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|seen| seen.name)
        .collect();
    let mut watch = backend.watch();
    let mut watched = Vec::new();
    assert_eq!(change(&mut watch).await, Change::Restarted);
    while watched.len() < names.len() {
        watched.push(seen(&mut watch, |_| true).await.name);
    }
    names.sort_unstable();
    listed.sort_unstable();
    watched.sort_unstable();
    assert!(listed == names && watched == names);
    cluster.done().await;
}

#[tokio::test]
async fn the_server_takes_every_manifest() {
    let cluster = Cluster::new(json!({})).await;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for (mode, native) in [(Mode::Standard, true), (Mode::Dind, true), (Mode::Dind, false)] {
        let spec = RunnerSpec {
            org: "조직/저장소".into(),
            name: "r".repeat(63),
            ..spec("")
        };
        let pod = pod(
            &spec,
            &Profile {
                mode,
                ..Profile::default()
            },
            native,
        );
        cluster.pods().create(&dry_run, &pod).await.unwrap();
    }
    cluster.done().await;
}

/// A port in front of the API server. Connections end with it.
async fn forward(listener: TcpListener, to: String) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let to = to.clone();
        connections.spawn(async move {
            let mut server = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test]
async fn while_the_server_is_away_calls_say_so_and_the_watch_waits() {
    let mut cluster = Cluster::new(json!({})).await;
    let server = cluster.config.cluster_url.authority().unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let away = tokio::spawn(forward(listener, server.clone()));
    cluster.config.cluster_url = format!("https://{address}").parse().unwrap();
    let backend = cluster.backend(vec![Profile::default()]).await;
    let mut watch = backend.watch();
    assert_eq!(change(&mut watch).await, Change::Restarted);
    backend.start(&spec("r-1")).await.unwrap();
    seen(&mut watch, |_| true).await;

    away.abort();
    let _ = away.await;
    assert!(matches!(
        backend.start(&spec("r-2")).await,
        Err(BackendError::Unreachable(_))
    ));
    assert!(matches!(backend.list().await, Err(BackendError::Unreachable(_))));
    assert!(matches!(backend.stop("r-1").await, Err(BackendError::Unreachable(_))));
    let nobody = Kubernetes::with_config(cluster.config.clone(), vec![Profile::default()], "x", TIMEOUT)
        .await
        .err()
        .unwrap();
    assert!(format!("{nobody:#}").contains(&address.to_string()), "{nobody:#}");

    // What happens meanwhile is told afterwards.
    cluster
        .pods()
        .delete("r-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(forward(listener, server));
    gone(&mut watch, "r-1").await;
    cluster.done().await;
}
