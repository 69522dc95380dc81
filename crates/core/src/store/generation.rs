//! What the connections of a process tell each other: which server is the master, and that it is gone.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Counts the generations of connections. News that a server is gone ends one; its connections are thrown away at their
/// next use.
#[derive(Debug, Default)]
pub struct Generation {
    number: AtomicU64,
    master: Mutex<Option<(String, u16)>>,
}

impl Generation {
    pub(super) fn current(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Ends this generation, unless somebody has done so.
    pub(super) fn end(&self, number: u64) {
        let _ = self
            .number
            .compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sentinel names this master; connections to another one are of the past.
    pub(super) fn learn(&self, address: &(String, u16)) {
        let mut known = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(address)
            && let Some(old) = known.replace(address.clone())
        {
            tracing::warn!(
                from = format!("{}:{}", old.0, old.1),
                to = format!("{}:{}", address.0, address.1),
                "Sentinel names another master"
            );
            self.number.fetch_add(1, Ordering::AcqRel);
        }
    }
}
