//! The whole system on one machine: a Redis of its own, the simulated GitHub, receiver, workers and beat, each a
//! separate process.
//!
//! The demo, the benchmark and the integration tests stand on it. Everything lies in one temporary directory, listens
//! on free loopback ports, gets a clean environment, and ends with the [`Stack`], however that ends.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

mod cluster;
mod gate;
pub mod load;
mod managed;
mod memory;
mod network;
mod options;
mod pods;
mod policy;
pub mod proxy;
mod start;
mod steer;

pub use gate::Refusal;
pub use managed::Managed;
pub use memory::pss_kib;
pub use network::Network;
pub use options::{Backend, Options};
pub use pods::PodCount;

/// So long a part may take to come up; a machine that builds something else at the same time is slow.
const START: Duration = Duration::from_secs(30);

/// So often a part is looked at before its silence is an error.
const LOOKS: u32 = 5;

/// A running system.
pub struct Stack {
    /// Redis's URL.
    pub redis_url: String,
    /// The receiver's URL.
    pub receiver_url: String,
    /// The simulated GitHub's URL.
    pub github_url: String,
    /// Key of the admin API.
    pub admin_key: String,
    /// The parts by name: redis, github, receiver, worker-1 …, beat, kubelet.
    pub parts: Vec<Managed>,
    /// Namespace of the runners, with the Kubernetes backend.
    pub namespace: Option<String>,
    /// Where the simulated kubelet is steered, with the Kubernetes backend.
    pub kubelet_url: Option<String>,
    /// What stands between the parts, with [`Options::proxies`].
    pub network: Network,
    http: reqwest::Client,
    bin: PathBuf,
    dir: tempfile::TempDir,
}

impl Stack {
    /// A part by name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn part(&mut self, name: &str) -> anyhow::Result<&mut Managed> {
        self.parts
            .iter_mut()
            .find(|part| part.name() == name)
            .with_context(|| format!("no part is named {name}"))
    }

    /// Starts a part that was ended, with what it was started with before, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let http = self.http.clone();
        let part = self.part(name)?;
        part.spawn().await?;
        part.ready(&http, START).await
    }

    /// Starts what was killed and not started again, and waits until every part is ready.
    ///
    /// # Errors
    /// With the part that does not come up.
    pub async fn all_ready(&mut self) -> anyhow::Result<()> {
        for part in &mut self.parts {
            if part.ended().is_some() || !part.is_running() {
                part.spawn().await?;
            }
            part.ready(&self.http, START).await?;
        }
        Ok(())
    }

    /// Directory of logs, records and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends everything: the system first and gracefully, then what it stands on.
    pub async fn stop(mut self) {
        for part in self
            .parts
            .iter_mut()
            .filter(|part| !matches!(part.name(), "redis" | "github" | "kubelet"))
        {
            part.terminate();
        }
        for part in self.parts.iter_mut().rev() {
            part.terminate();
            part.wait_or_kill(Duration::from_secs(10)).await;
        }
        self.end_runners();
        if let Some(namespace) = self.namespace.take() {
            cluster::delete_namespace(&namespace).await;
        }
    }

    /// Runners of the process backend outlive their workers by design.
    fn end_runners(&self) {
        managed::end_recorded_runners(&self.dir.path().join("runners"));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.end_runners();
    }
}
