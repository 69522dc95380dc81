//! What to start.

use std::path::PathBuf;

/// Where runners run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// As processes of this machine.
    Process,
    /// As pods of the cluster that `$KUBECONFIG` names, run by a simulated kubelet.
    Kubernetes,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Organizations of the simulated GitHub: org-0001, org-0002, …
    pub orgs: usize,
    /// Workers.
    pub workers: usize,
    /// Where runners run.
    pub backend: Backend,
    /// Seed of everything random.
    pub seed: u64,
    /// Further environment of receiver, workers and beat: limits, intervals.
    pub env: Vec<(String, String)>,
    /// Limits of single organizations, in `ORG_LIMITS_FILE`.
    pub org_limits: Vec<(String, usize)>,
    /// Further arguments of the simulated GitHub.
    pub github_args: Vec<String>,
    /// Runs a program of ours by name in place of those beside this one.
    pub bin: Option<PathBuf>,
    /// Proxies stand between the parts, so that the network can fail.
    pub proxies: bool,
    /// One gate stands between all workers and the API server: it counts what they create, and refuses it on request.
    /// Not with `proxies`.
    pub gate: bool,
    /// How many seconds the clock of each worker is ahead; needs libfaketime.
    pub clocks: Vec<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            orgs: 20,
            workers: 2,
            backend: Backend::Process,
            seed: 1,
            env: Vec::new(),
            org_limits: Vec::new(),
            github_args: Vec::new(),
            bin: None,
            proxies: false,
            gate: false,
            clocks: Vec::new(),
        }
    }
}
