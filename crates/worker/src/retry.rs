//! Waiting between tries.

use std::{future::Future, time::Duration};

use jit_core::ledger::LedgerError;
use tokio_util::sync::CancellationToken;

/// A pause that doubles from try to try, up to a bound.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    next: Duration,
    most: Duration,
}

impl Pause {
    /// Starts at 100 ms and ends at 5 s: an outage of Redis is noticed to be over soon, and costs little while it
    /// lasts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: Duration::from_millis(100),
            most: Duration::from_secs(5),
        }
    }

    /// Waits, but no longer than until `stop`.
    pub async fn wait(&mut self, stop: &CancellationToken) {
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(self.next) => {} }
        self.next = (self.next * 2).min(self.most);
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls the ledger until it answers, or `give_up` has passed. Transitions are idempotent, so a second try after a lost
/// answer is harmless.
///
/// # Errors
/// The last one, when it never did.
pub async fn persist<T, F: Future<Output = Result<T, LedgerError>>>(
    give_up: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, LedgerError> {
    let (mut pause, began, never) = (Pause::new(), tokio::time::Instant::now(), CancellationToken::new());
    loop {
        match call().await {
            Err(error) if error.is_transient() && began.elapsed() < give_up => {
                tracing::debug!(%error, "the ledger did not answer; trying again");
                pause.wait(&never).await;
            }
            result => return result,
        }
    }
}
