//! What stands between the parts of a stack whose network can fail: a proxy from each to Redis, from each worker to the
//! API server.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use anyhow::Context;
use kube::config::Kubeconfig;

use super::{
    gate::{Gate, Refusal},
    managed,
    proxy::{Mode, Proxy},
};

/// The proxies of a stack.
pub struct Network {
    redis: BTreeMap<String, Proxy>,
    kubernetes: BTreeMap<String, Proxy>,
    /// In front of the API server: for the first worker, or for all.
    gate: Option<Gate>,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            redis: BTreeMap::new(),
            kubernetes: BTreeMap::new(),
            gate: None,
        }
    }

    /// A way of its own to Redis for a part: the URL of that.
    pub(super) async fn redis_for(&mut self, part: &str, url: &str) -> anyhow::Result<String> {
        let upstream: SocketAddr = url
            .trim_start_matches("redis://")
            .trim_end_matches("/0")
            .parse()
            .context("Redis's address")?;
        let proxy = Proxy::start(upstream).await?;
        let url = format!("redis://{}/0", proxy.address());
        self.redis.insert(part.to_owned(), proxy);
        Ok(url)
    }

    /// A way of its own to the API server for a worker, written to `path` as a kubeconfig. The first worker's ends in a
    /// [`Gate`] and is plain HTTP; the others' is TLS from end to end.
    pub(super) async fn kubernetes_for(&mut self, part: &str, path: &Path) -> anyhow::Result<()> {
        let own = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
        let mut config = Kubeconfig::read_from(Path::new(&own))?;
        let cluster = config
            .clusters
            .first_mut()
            .and_then(|named| named.cluster.as_mut())
            .context("a cluster in $KUBECONFIG")?;
        let server = cluster.server.clone().unwrap_or_default();
        let first = self.gate.is_none();
        let upstream = if first {
            let gate = Gate::start().await?;
            let address = gate.address();
            self.gate = Some(gate);
            address
        } else {
            server
                .trim_start_matches("https://")
                .trim_end_matches('/')
                .parse()
                .with_context(|| format!("{server} is not an address on loopback"))?
        };
        let proxy = Proxy::start(upstream).await?;
        cluster.server = Some(format!(
            "{}://{}",
            if first { "http" } else { "https" },
            proxy.address()
        ));
        managed::write_secret(path, &serde_json::to_string(&config)?)?;
        self.kubernetes.insert(part.to_owned(), proxy);
        Ok(())
    }

    /// A way to the API server that leads all workers through one [`Gate`], written to `path` as a kubeconfig.
    pub(super) async fn gated(&mut self, path: &Path) -> anyhow::Result<()> {
        let own = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
        let mut config = Kubeconfig::read_from(Path::new(&own))?;
        let cluster = config
            .clusters
            .first_mut()
            .and_then(|named| named.cluster.as_mut())
            .context("a cluster in $KUBECONFIG")?;
        let gate = match self.gate.take() {
            Some(gate) => gate,
            None => Gate::start().await?,
        };
        cluster.server = Some(format!("http://{}", gate.address()));
        self.gate = Some(gate);
        managed::write_secret(path, &serde_json::to_string(&config)?)?;
        Ok(())
    }

    /// Refuses these creations at the gate.
    pub fn refuse(&self, refusal: Refusal) {
        if let Some(gate) = &self.gate {
            gate.refuse(refusal);
        }
    }

    /// How many of a resource the workers behind the gate were to create for an organization, refused ones too.
    #[must_use]
    pub fn asked(&self, resource: &str, org: &str) -> u64 {
        self.gate.as_ref().map_or(0, |gate| gate.asked(resource, org))
    }

    /// What a part's way to Redis does from now on.
    pub fn redis(&self, part: &str, mode: Mode) {
        if let Some(proxy) = self.redis.get(part) {
            proxy.set(mode);
        }
    }

    /// Resets a part's connections to Redis, once.
    pub fn cut_redis(&self, part: &str) {
        if let Some(proxy) = self.redis.get(part) {
            proxy.cut();
        }
    }

    /// What all ways to the API server do from now on.
    pub fn kubernetes(&self, mode: Mode) {
        self.kubernetes.values().for_each(|proxy| proxy.set(mode));
    }

    /// Resets all connections to the API server, and so all watches, once.
    pub fn cut_kubernetes(&self) {
        self.kubernetes.values().for_each(Proxy::cut);
    }

    /// Ends the first worker's watches with 410 Gone.
    pub fn end_watches(&self) {
        if let Some(gate) = &self.gate {
            gate.end_watches();
        }
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.redis
            .values()
            .chain(self.kubernetes.values())
            .for_each(|proxy| proxy.set(Mode::Pass));
        if let Some(gate) = &self.gate {
            gate.allow();
        }
    }
}
