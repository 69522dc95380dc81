//! Counts runner pods as the API server tells of them, and keeps the most at once: what a limit is held against.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event},
};

/// Live pods by organization: those that are neither gone nor over.
#[derive(Clone, Default)]
pub struct PodCount(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    live: HashMap<String, String>,
    /// Names of a list that is being read: what is not in it is gone.
    listed: Option<BTreeSet<String>>,
    most: BTreeMap<String, usize>,
    most_in_all: usize,
    seen: BTreeSet<String>,
    /// What was live at the first moment at which a limit was exceeded.
    over: Option<String>,
}

impl PodCount {
    /// Watches a namespace from now on, straight at the API server of `$KUBECONFIG`. `limit` is that of an
    /// organization, by its label.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn watch(
        namespace: &str,
        limit: impl Fn(&str) -> usize + Send + 'static,
        maximum: usize,
    ) -> anyhow::Result<Self> {
        let counts = Self::default();
        let pods: Api<Pod> = Api::namespaced(Client::try_default().await?, namespace);
        let told = Arc::downgrade(&counts.0);
        tokio::spawn(async move {
            let events = watcher::watcher(pods, watcher::Config::default().labels("app=jit-runner"));
            pin_mut!(events);
            while let Some(event) = events.next().await {
                let Some(counts) = told.upgrade() else { return };
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Init) => counts.listed = Some(BTreeSet::new()),
                    Ok(Event::InitDone) => counts.end_list(),
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => counts.saw(&pod, false, &limit, maximum),
                    Ok(Event::Delete(pod)) => counts.saw(&pod, true, &limit, maximum),
                    Err(_) => {}
                }
            }
        });
        Ok(counts)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that an organization had at once, by its label.
    #[must_use]
    pub fn most(&self) -> BTreeMap<String, usize> {
        self.counts().most.clone()
    }

    /// The most at once in all.
    #[must_use]
    pub fn most_in_all(&self) -> usize {
        self.counts().most_in_all
    }

    /// Pods that were ever seen.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.counts().seen.len()
    }

    /// Pods that are live now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.counts().live.len()
    }

    /// What was live when a limit was exceeded for the first time, if one ever was.
    #[must_use]
    pub fn over(&self) -> Option<String> {
        self.counts().over.clone()
    }
}

impl Counts {
    fn end_list(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.live.retain(|name, _| listed.contains(name));
        }
    }

    fn saw(&mut self, pod: &Pod, gone: bool, limit: &impl Fn(&str) -> usize, maximum: usize) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let org = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("org"))
            .cloned()
            .unwrap_or_default();
        let over = matches!(
            pod.status.as_ref().and_then(|status| status.phase.as_deref()),
            Some("Succeeded" | "Failed")
        );
        self.seen.insert(name.clone());
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        if gone || over {
            self.live.remove(&name);
        } else {
            self.live.insert(name, org.clone());
        }
        // While a list is read, those that went meanwhile are still counted.
        if self.listed.is_some() {
            return;
        }
        let now = self.live.values().filter(|other| **other == org).count();
        let in_all = self.live.len();
        let most = self.most.entry(org.clone()).or_default();
        *most = (*most).max(now);
        self.most_in_all = self.most_in_all.max(in_all);
        if (now > limit(&org) || in_all > maximum) && self.over.is_none() {
            let names: BTreeSet<_> = self
                .live
                .iter()
                .filter(|(_, other)| in_all > maximum || **other == org)
                .map(|(name, _)| name)
                .collect();
            self.over = Some(format!("{now} pods of {org}, {in_all} in all: {names:?}"));
        }
    }
}
