//! Provision: `jit:provision` → pod → JIT configuration → Secret. One runner, step by step, each step behind the
//! ledger's fence.
//!
//! | step | if the process dies after it |
//! |---|---|
//! | the reservation is taken up | its deadline drops it, demand makes another |
//! | pod created; quota and policy refuse here, before GitHub is asked | the deadline removes the pod |
//! | registered at GitHub | the deadline removes runner and pod |
//! | Secret delivered, `created` | reconcile finds it, or the deadline removes it |
//!
//! Only as many reservations are read as there are free permits, so none waits in a busy worker while another is idle.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Worker, permits::Permits};

mod claim;
mod discard;
mod failure;
mod make;
mod patience;
mod queue;
mod registrar;

pub(crate) use claim::NO_CREDENTIAL;
use patience::Patience;
pub(crate) use queue::NAME;
pub use queue::{run, take_from_dead, take_overdue};

/// What the runners that are made at once share.
struct Shared {
    permits: Permits,
    patience: Patience,
    /// Organizations whose last Secret was refused: whether the next would be is asked of Kubernetes before GitHub is
    /// asked.
    undeliverable: Mutex<HashSet<String>>,
}

impl Shared {
    fn new(worker: &Worker) -> Self {
        Self {
            permits: Permits::new(worker.concurrency),
            patience: Patience::new(worker.github_timeout),
            undeliverable: Mutex::default(),
        }
    }

    fn undeliverable(&self) -> MutexGuard<'_, HashSet<String>> {
        self.undeliverable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
