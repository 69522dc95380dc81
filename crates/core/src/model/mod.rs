//! The domain's words as types. Nothing here knows Redis, a runtime or Kubernetes.

pub mod job;
pub mod runner;

pub use job::JobState;
pub use runner::RunnerState;

/// The text names no state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a {1}")]
pub struct UnknownState(String, &'static str);
