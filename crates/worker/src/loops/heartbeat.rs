//! Heartbeat: this worker lives, and what it holds is not taken over.

use tokio_util::sync::CancellationToken;

use crate::{Worker, step::Step};

pub(super) const NAME: &str = "heartbeat";

/// Says that this worker is alive, until `stop`. Where data was lost, each worker lists its own places before the gate
/// opens: another worker may list others.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    let mut interval = tokio::time::interval(worker.take_over.heartbeat);
    loop {
        tokio::select! { () = stop.cancelled() => break, _ = interval.tick() => {} }
        let round = worker.loops.begin(NAME);
        let heard = worker.ledger.heartbeat(&worker.id).await.step("maintenance.heartbeat");
        if let Err(error) = &heard {
            tracing::debug!(%error, "no heartbeat");
        }
        if matches!(worker.ledger.gate_is_open().await, Ok(false)) {
            worker.bells.reconcile.notify_one();
        }
        round.end(heard);
    }
    let _ = worker.ledger.retire(&worker.id).await.step("maintenance.retired");
}
