//! A kubelet without containers, for a real API server that has no nodes: binds runner pods to a node of its own, moves
//! them through their phases, and runs a simulated runner in place of their container.
//!
//! One watch, one task a pod, and a limited number of requests at once. What a pod's task does is in [`pod`], what it
//! writes in [`status`], the node in [`node`], and what can go wrong in [`faults`].

pub mod control;
pub mod faults;
pub mod node;
pub mod pod;
pub mod status;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::faults::Faults;
use crate::serve::{self, Tasks};

/// How to start a simulated kubelet.
#[derive(Clone)]
pub struct Options {
    /// Where its API server is. Its own retries should be off: see [`client`].
    pub client: Client,
    /// The namespace whose runner pods it takes.
    pub namespace: String,
    /// Which pods it takes.
    pub selector: String,
    /// Name of its node.
    pub node: String,
    /// Between a pod's secret being there and its containers running: what pulling images takes.
    pub start_delay: Duration,
    /// Requests at once, and so connections.
    pub connections: usize,
    /// Seed of the faults.
    pub seed: u64,
    /// Address of the control port; none without it.
    pub control: Option<SocketAddr>,
}

impl Options {
    /// For the pods `app=jit-runner` of a namespace, on the node `simulated-node`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            selector: "app=jit-runner".to_owned(),
            node: "simulated-node".to_owned(),
            start_delay: Duration::ZERO,
            connections: 16,
            seed: 1,
            control: None,
        }
    }
}

/// A client from $KUBECONFIG (or what else kube finds) without retries of its own: the kubelet has its own patience.
///
/// # Errors
///
/// When there is no configuration, or it is wrong.
pub async fn client() -> anyhow::Result<Client> {
    crate::install_tls();
    let mut config = kube::Config::infer().await.context("no Kubernetes configuration")?;
    config.default_retry = false;
    Client::try_from(config).context("Kubernetes client")
}

/// What it counted.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Pods bound to the node.
    pub bound: AtomicU64,
    /// Pods whose containers were started.
    pub started: AtomicU64,
    /// Pods that ended well.
    pub succeeded: AtomicU64,
    /// Pods that ended badly.
    pub failed: AtomicU64,
    /// Pods whose deletion it carried out.
    pub deleted: AtomicU64,
    /// Requests that failed and were tried again.
    pub retries: AtomicU64,
}

/// What all pods' tasks share.
pub(crate) struct Kubelet {
    pub(crate) client: Client,
    pub(crate) pods: Api<Pod>,
    pub(crate) options: Options,
    pub(crate) permits: Semaphore,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) counts: Counts,
}

/// How a pod's task is told what became of its pod.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// Somebody deleted the pod: end it, then confirm.
    pub(crate) stop: CancellationToken,
    /// The pod is no more.
    pub(crate) gone: CancellationToken,
}

/// A running kubelet. It ends when this is dropped or [`Running::stop`] is called; its node and pods stay.
pub struct Running {
    /// Address of the control port.
    pub control: Option<SocketAddr>,
    kubelet: Arc<Kubelet>,
    tasks: Tasks,
}

impl Running {
    /// What it counted so far.
    pub fn counts(&self) -> &Counts {
        &self.kubelet.counts
    }

    /// Adds a fault and returns its number.
    pub fn add_fault(&self, fault: faults::Fault) -> u64 {
        faults::lock(&self.kubelet.faults).list.add(fault)
    }

    /// Ends it, and waits until it has ended.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// Starts a kubelet; returns when its node is ready.
///
/// # Errors
///
/// When the node cannot be made, or the control port not be listened on.
pub async fn start(options: Options) -> anyhow::Result<Running> {
    let kubelet = Arc::new(Kubelet {
        client: options.client.clone(),
        pods: Api::namespaced(options.client.clone(), &options.namespace),
        permits: Semaphore::new(options.connections.max(1)),
        faults: Mutex::new(Faults::new(options.seed)),
        counts: Counts::default(),
        options,
    });
    node::register(&kubelet).await.context("make the node")?;
    let mut tasks = Tasks::default();
    tasks.spawn(|shutdown| node::keep_alive(kubelet.clone(), shutdown));
    tasks.spawn(|shutdown| watch(kubelet.clone(), shutdown));
    let mut control = None;
    if let Some(address) = kubelet.options.control {
        let (listener, address) = serve::listen(address).await?;
        control = Some(address);
        let router = control::router(kubelet.clone());
        tasks.spawn(|shutdown| serve::serve(listener, router, shutdown));
    }
    Ok(Running {
        control,
        kubelet,
        tasks,
    })
}

/// Follows the pods, and starts and tells their tasks.
async fn watch(kubelet: Arc<Kubelet>, shutdown: CancellationToken) {
    let config = watcher::Config::default().labels(&kubelet.options.selector);
    let mut events = watcher(kubelet.pods.clone(), config).default_backoff().boxed();
    let tracker = TaskTracker::new();
    let mut pods: HashMap<String, Signals> = HashMap::new();
    let mut listed: HashSet<String> = HashSet::new();
    while let Some(event) = shutdown.run_until_cancelled(events.try_next()).await {
        match event {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(pod))) => {
                listed.extend(pod.uid());
                saw(&kubelet, &mut pods, &tracker, &shutdown, pod);
            }
            Ok(Some(Event::InitDone)) => pods.retain(|uid, signals| {
                let there = listed.contains(uid);
                if !there {
                    signals.gone.cancel();
                }
                there
            }),
            Ok(Some(Event::Apply(pod))) => saw(&kubelet, &mut pods, &tracker, &shutdown, pod),
            Ok(Some(Event::Delete(pod))) => {
                if let Some(signals) = pod.uid().and_then(|uid| pods.remove(&uid)) {
                    signals.gone.cancel();
                }
            }
            Ok(None) => break,
            Err(error) => tracing::warn!(%error, "the watch on pods was interrupted"),
        }
    }
    pods.values().for_each(|signals| signals.gone.cancel());
    tracker.close();
    tracker.wait().await;
}

fn saw(
    kubelet: &Arc<Kubelet>,
    pods: &mut HashMap<String, Signals>,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
    pod: Pod,
) {
    let Some(uid) = pod.uid() else { return };
    let deleted = pod.metadata.deletion_timestamp.is_some();
    if let Some(signals) = pods.get(&uid) {
        if deleted {
            signals.stop.cancel();
        }
        return;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.is_some_and(|node| node != kubelet.options.node) || status::is_over(&pod) {
        return;
    }
    let signals = Signals {
        gone: shutdown.child_token(),
        ..Signals::default()
    };
    if deleted {
        signals.stop.cancel();
    }
    pods.insert(uid, signals.clone());
    let kubelet = kubelet.clone();
    tracker.spawn(async move {
        signals
            .gone
            .run_until_cancelled(pod::live(&kubelet, &pod, &signals.stop))
            .await;
    });
}
