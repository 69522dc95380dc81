//! Simulators of what the project cannot run in a test: a GitHub Enterprise Server ([`github`]), the runners that it
//! gives jobs to ([`runner`]), and a kubelet for an API server that has no nodes ([`kubelet`]).
//!
//! The system under test knows nothing of them: it talks REST, webhooks and Kubernetes as it would to the real ones.
//! Some integration tests start them in-process, `jit-harness` as the binary `jit-simulator`.

#![cfg_attr(test, allow(clippy::unwrap_used))]
// One `json!` of a whole repository object, field by field.
#![recursion_limit = "256"]

pub mod clock;
pub mod faults;
pub mod github;
pub mod jit;
pub mod kubelet;
pub mod runner;
mod serve;

/// Makes ring the TLS provider, as reqwest and kube expect to find one. Harmless when one is there already.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
