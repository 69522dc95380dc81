//! Runners as pods.
//!
//! A plain create is the compare-and-set: the second of two workers is told [`BackendError::Exists`]. The pod names its
//! Secret as a volume and waits for it, so quota and policy refuse before GitHub is asked for anything. Nothing is
//! remembered between two calls: the pod holds all that a later one needs, so any worker can take over.
//!
//! Rights, in each namespace of the profiles: pods create, get, list, watch, delete; secrets create, delete; and, to
//! tell the namespace from one of its name in another cluster, get of itself.
//!
//! kube's client would retry 429, 503 and 504 up to 15 times, waiting for minutes; that is off, and each request has a
//! time limit, since who calls decides what an outage means.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use jit_core::ledger::places::Places;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use secrecy::SecretString;

use self::labels::SELECTOR;
use self::pod::{GRACE_SECONDS, pod};
use self::profile::{Mode, Profile};
use self::refusal::{found, refusal};
use self::secret::secret;
use self::state::{is_stuck, observe};
use self::watch::changes;
use crate::{Backend, BackendError, Change, Observed, Phase, RunnerSpec, Stopped};

mod kubeconfig;
mod labels;
pub mod pod;
pub mod profile;
mod refusal;
mod secret;
pub mod state;
mod watch;

/// Time after which the server ends a watch and it is taken up again where it was. kube's own is 290 s; but it is also
/// how long a connection that silently died goes unnoticed (plus 5 s), and with it the slots of the runners that end
/// meanwhile.
const WATCH_SECONDS: u32 = 60;
/// Pods a page of a list: what a worker holds in memory at once.
const PAGE: u32 = 500;
/// How often a list begins anew because its pages have expired on the server.
const LIST_TRIES: usize = 3;
/// First minor release of Kubernetes 1 whose servers have native sidecars on by default.
const NATIVE_SIDECARS: u32 = 29;

/// Runners as pods of one cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: kube::Client,
    /// For watches, and the lists that they begin with: nothing else would notice that such a list never ends.
    watching: kube::Client,
    /// By name, each with the namespace that it was resolved to.
    profiles: Arc<BTreeMap<String, (String, Profile)>>,
    /// Every namespace that a runner may be in; most installations have one.
    namespaces: Arc<BTreeSet<String>>,
    /// Uids of those that it may see: a namespace of this name elsewhere is another place.
    uids: Arc<BTreeMap<String, String>>,
    native_sidecars: bool,
    /// So long one request may take.
    timeout: Duration,
}

impl Kubernetes {
    /// Connects as `$KUBECONFIG` or the pod's service account says, and asks the server for its version once.
    /// `namespace` is for the profiles that name none, `timeout` for each request. The proxy of `HTTPS_PROXY` is not
    /// used; a kubeconfig's `proxy-url` is.
    ///
    /// # Errors
    /// No configuration, a server that does not answer, no profile, or two of one name.
    pub async fn connect(profiles: Vec<Profile>, namespace: &str, timeout: Duration) -> anyhow::Result<Self> {
        // Another part of the process may have installed it already: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self::with_config(kubeconfig::find().await?, profiles, namespace, timeout).await
    }

    /// As [`Kubernetes::connect`], with a configuration at hand.
    pub async fn with_config(
        mut config: kube::Config,
        profiles: Vec<Profile>,
        namespace: &str,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let by_name = by_name(profiles, namespace)?;
        let namespaces: BTreeSet<_> = by_name.values().map(|(namespace, _)| namespace.clone()).collect();

        config.default_retry = false;
        config.connect_timeout = Some(timeout / 2);
        let client = kube::Client::try_from(config.clone()).context("cannot make a Kubernetes client")?;
        config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 10));
        config.reset_reader_on_write = true;
        let watching = kube::Client::try_from(config.clone()).context("cannot make a Kubernetes client")?;

        let version = tokio::time::timeout(timeout, client.apiserver_version()).await;
        let version = version
            .context("no answer in time")
            .and_then(|answer| Ok(answer?))
            .with_context(|| format!("Kubernetes at {}", config.cluster_url))?;
        let native_sidecars = native_sidecars(&version.major, &version.minor);
        if !native_sidecars && by_name.values().any(|(_, profile)| profile.mode == Mode::Dind) {
            tracing::warn!(
                kubernetes.version = version.git_version,
                "no native sidecars before 1.29: pods with Docker are deleted when their runner has ended"
            );
        }
        tracing::info!(
            kubernetes.version = version.git_version,
            kubernetes.namespaces = ?namespaces,
            "connected to Kubernetes"
        );
        let mut uids = BTreeMap::new();
        for name in &namespaces {
            match answer(timeout, Api::<Namespace>::all(client.clone()).get(name)).await {
                Ok(namespace) => uids.extend(namespace.metadata.uid.map(|uid| (name.clone(), uid))),
                Err(error) => {
                    tracing::info!(
                        %error,
                        kubernetes.namespace = name,
                        "the namespace may not be looked at: one of this name in another cluster would be taken for it"
                    )
                }
            }
        }
        Ok(Self {
            client,
            watching,
            profiles: Arc::new(by_name),
            namespaces: Arc::new(namespaces),
            uids: Arc::new(uids),
            native_sidecars,
            timeout,
        })
    }

    fn place(&self, spec: &RunnerSpec) -> Result<&(String, Profile), BackendError> {
        self.profiles
            .get(&spec.profile)
            .ok_or_else(|| BackendError::Refused(format!("no runner profile is named {:?}", spec.profile)))
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn list_namespace(&self, namespace: &str) -> kube::Result<Vec<Observed>> {
        let pods = self.pods(namespace);
        let mut tries = LIST_TRIES;
        'anew: loop {
            let mut found = Vec::new();
            // No resourceVersion: the answer is at least as new as this moment. The pages after the first are of the
            // same state.
            let mut page = ListParams::default().labels(SELECTOR).limit(PAGE);
            loop {
                match answer(self.timeout, pods.list(&page)).await {
                    Ok(list) => {
                        found.extend(list.items.iter().map(observe));
                        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
                        if page.continue_token.is_none() {
                            return Ok(found);
                        }
                    }
                    Err(kube::Error::Api(status)) if status.code == 410 && tries > 1 => {
                        tries -= 1;
                        continue 'anew;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Deletes what bears the name; whether there was a pod.
    async fn stop_in(&self, namespace: &str, name: &str) -> Result<Stopped, BackendError> {
        let pod = async {
            let params = DeleteParams::background().grace_period(GRACE_SECONDS);
            match found(answer(self.timeout, self.pods(namespace).delete(name, &params)).await)? {
                None => Ok(Stopped::Absent),
                Some(deleted)
                    if deleted
                        .as_ref()
                        .left()
                        .is_some_and(|pod| is_stuck(pod, Timestamp::now())) =>
                {
                    Ok(Stopped::Stuck)
                }
                Some(_) => Ok(Stopped::Ending),
            }
        };
        // It would go with its pod; but it may have been made after the pod was gone.
        let secret = async {
            found(
                answer(
                    self.timeout,
                    self.secrets(namespace).delete(name, &DeleteParams::background()),
                )
                .await,
            )
        };
        let (pod, secret) = tokio::join!(pod, secret);
        secret?;
        pod
    }
}

/// Profiles by name, each with its namespace; `namespace` for those that name none.
fn by_name(profiles: Vec<Profile>, namespace: &str) -> anyhow::Result<BTreeMap<String, (String, Profile)>> {
    let mut by_name = BTreeMap::new();
    for profile in profiles {
        let namespace = profile.namespace.clone().unwrap_or_else(|| namespace.to_owned());
        let name = profile.name.clone();
        anyhow::ensure!(
            by_name.insert(name.clone(), (namespace, profile)).is_none(),
            "two runner profiles are named {name:?}"
        );
    }
    anyhow::ensure!(!by_name.is_empty(), "there is no runner profile");
    Ok(by_name)
}

#[async_trait]
impl Backend for Kubernetes {
    async fn start(&self, spec: &RunnerSpec) -> Result<(), BackendError> {
        let (namespace, profile) = self.place(spec)?;
        let pod = pod(spec, profile, self.native_sidecars);
        answer(self.timeout, self.pods(namespace).create(&PostParams::default(), &pod))
            .await
            .map(drop)
            .map_err(refusal)
    }

    async fn deliver(&self, spec: &RunnerSpec, jit_config: &SecretString) -> Result<(), BackendError> {
        let (namespace, _) = self.place(spec)?;
        // Asking for the pod costs some 2 ms next to the 10 of its creation, gives its uid whoever made it, and keeps a
        // configuration from being left behind for a pod that was evicted or deleted while GitHub was asked.
        let Some(pod) = answer(self.timeout, self.pods(namespace).get_opt(&spec.name))
            .await
            .map_err(refusal)?
        else {
            return Err(BackendError::Gone("its pod does not exist".into()));
        };
        let seen = observe(&pod);
        if seen.terminating || seen.phase == Phase::Ended {
            return Err(BackendError::Gone(
                seen.detail.unwrap_or_else(|| "its pod is being deleted".into()),
            ));
        }
        let secret = secret(spec, pod.metadata.uid.as_deref().unwrap_or_default(), jit_config);
        answer(
            self.timeout,
            self.secrets(namespace).create(&PostParams::default(), &secret),
        )
        .await
        .map(drop)
        .map_err(refusal)
    }

    async fn may_deliver(&self, spec: &RunnerSpec) -> Result<(), BackendError> {
        let (namespace, _) = self.place(spec)?;
        // Rights, quota and policy answer a dry run as they would the real one. A pod that owns it need not be there
        // for that.
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let secret = secret(spec, "00000000-0000-0000-0000-000000000000", &SecretString::from(""));
        answer(self.timeout, self.secrets(namespace).create(&dry, &secret))
            .await
            .map(drop)
            .map_err(refusal)
    }

    async fn stop(&self, name: &str) -> Result<Stopped, BackendError> {
        let mut stopped = Stopped::Absent;
        for namespace in self.namespaces.iter() {
            match self.stop_in(namespace, name).await? {
                Stopped::Absent => {}
                seen => stopped = seen,
            }
        }
        Ok(stopped)
    }

    async fn list(&self) -> Result<Vec<Observed>, BackendError> {
        let mut all = Vec::new();
        for namespace in self.namespaces.iter() {
            all.extend(self.list_namespace(namespace).await.map_err(refusal)?);
        }
        Ok(all)
    }

    fn places(&self) -> Places {
        let place = |namespace: &str| match self.uids.get(namespace) {
            Some(uid) => format!("kubernetes/{namespace}/{uid}"),
            None => format!("kubernetes/{namespace}"),
        };
        self.profiles
            .iter()
            .map(|(profile, (namespace, _))| (profile.clone(), place(namespace)))
            .collect()
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        let config = watcher::Config::default()
            .labels(SELECTOR)
            .page_size(PAGE)
            .timeout(WATCH_SECONDS);
        let streams: Vec<_> = self
            .namespaces
            .iter()
            .map(|namespace| {
                let events =
                    watcher(Api::<Pod>::namespaced(self.watching.clone(), namespace), config.clone()).default_backoff();
                let mut listing = false;
                events
                    .flat_map(move |event| stream::iter(changes(event, &mut listing)))
                    .boxed()
            })
            .collect();
        stream::select_all(streams).boxed()
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// The answer to a request, or an error of its own if there was none in time.
async fn answer<T>(timeout: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let limit = tokio::time::timeout(timeout, request).await;
    limit.unwrap_or_else(|_| {
        Err(kube::Error::Service(
            format!("no answer within {} s", timeout.as_secs_f32()).into(),
        ))
    })
}

/// Whether a server of this version has native sidecars. Some providers write the minor release as `29+`.
fn native_sidecars(major: &str, minor: &str) -> bool {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    major == "1" && digits.parse::<u32>().is_ok_and(|minor| minor >= NATIVE_SIDECARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_is_given_up() {
        let error = answer::<()>(Duration::from_secs(10), std::future::pending())
            .await
            .map_err(refusal);
        assert!(matches!(error, Err(BackendError::Unavailable(text)) if text.contains("no answer within 10 s")));
    }

    #[test]
    fn versions() {
        for (minor, native) in [
            ("36", true),
            ("29", true),
            ("29+", true),
            ("28", false),
            ("24+", false),
            ("", false),
        ] {
            assert_eq!(native_sidecars("1", minor), native, "{minor}");
        }
    }
}
