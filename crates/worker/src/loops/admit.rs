//! Admission: called after every transition that could make room or demand, and on every tick. Calls that come while
//! one is under way are answered by one more.

use std::sync::atomic::{AtomicBool, Ordering};

use jit_core::ledger::Ledger;
use tokio::sync::Mutex;

use crate::step::Step;

/// What an admission calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Surplus runners are to be removed.
    pub reaped: bool,
    /// The real runners have to be counted before anything is admitted.
    pub gate_closed: bool,
}

/// Lets one admission of this process run at a time.
#[derive(Default)]
pub struct Admitter {
    wanted: AtomicBool,
    running: Mutex<()>,
}

impl Admitter {
    /// Admits until demand or room is used up. When Redis fails, the next event or tick admits.
    pub async fn admit(&self, ledger: &Ledger) -> Outcome {
        self.wanted.store(true, Ordering::Release);
        let _turn = self.running.lock().await;
        let mut outcome = Outcome::default();
        // Whoever had the turn before may have answered for us.
        while self.wanted.swap(false, Ordering::AcqRel) {
            loop {
                let admission = ledger.admit().await.step_if("admission.reserved", |result| {
                    result.as_ref().is_ok_and(|admission| admission.admitted > 0)
                });
                match admission.step_if("admission.reaped", |result| {
                    result.as_ref().is_ok_and(|admission| admission.reaped > 0)
                }) {
                    Ok(admission) => {
                        outcome.reaped |= admission.reaped > 0;
                        outcome.gate_closed = admission.gate_closed;
                        if admission.admitted > 0 {
                            tracing::debug!(runners = admission.admitted, "admitted");
                        }
                        // A reservation that was reaped has made room.
                        if !admission.more && admission.reaped == 0 {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "admission failed; the next event or tick tries again");
                        break;
                    }
                }
            }
        }
        outcome
    }
}
