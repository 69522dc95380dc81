//! Ticks: `jit:ticks` → the loops whose work it is. They are the safety net; events do the same work sooner.

use std::{collections::HashSet, time::Duration};

use jit_core::stream::{self, Entry, Reader};
use tokio_util::sync::CancellationToken;

use super::{BLOCK, intake};
use crate::{
    Worker, provision,
    retry::Pause,
    step::{self, Step},
};

pub(super) const NAME: &str = "ticks";
/// A tick that nobody took within this time is dropped: another has come meanwhile.
const STALE: Duration = Duration::from_secs(60);

/// Takes ticks until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    let mut reader = Reader::new(worker.redis.clone(), stream::TICKS, &worker.id, BLOCK);
    let mut pause = Pause::new();
    while !stop.is_cancelled() {
        let read = reader.read(1).await.step_if("maintenance.tick_read", step::not_empty);
        let round = worker.loops.begin(NAME);
        match read {
            Ok(entries) => {
                pause = Pause::new();
                for entry in entries {
                    // Acknowledged first: a tick is never repeated, the next one comes by itself.
                    if let Err(error) =
                        stream::acknowledge(worker.ledger.pool(), stream::TICKS, std::slice::from_ref(&entry.id))
                            .await
                            .step("maintenance.tick_acknowledged")
                    {
                        tracing::warn!(%error, "a tick was not acknowledged");
                    }
                    take(worker, &entry, stop).await;
                }
                round.succeeded();
            }
            Err(error) => {
                round.failed(&error);
                tracing::warn!(%error, stream = stream::TICKS, "cannot read ticks; trying again");
                pause.wait(stop).await;
            }
        }
    }
}

async fn take(worker: &Worker, entry: &Entry, stop: &CancellationToken) {
    let kind = match entry.field("kind") {
        Ok(kind) => kind,
        Err(error) => return tracing::warn!(%error, entry = entry.id, "a tick cannot be read and is dropped"),
    };
    let age = match (worker.ledger.now().await, entry.accepted_at()) {
        (Ok(now), Some(at)) => Duration::from_millis(u64::try_from(now - at).unwrap_or(0)),
        _ => return,
    };
    if age > STALE {
        return tracing::info!(
            tick = kind,
            age_seconds = age.as_secs(),
            "a tick that nobody took in time is dropped"
        );
    }
    // One that dies over a tick keeps others from that kind until it is taken for dead. One that is slower than that is
    // joined by another, which is harmless.
    match worker
        .ledger
        .take_tick(kind, &worker.id, worker.take_over.dead_after)
        .await
        .step("maintenance.tick_taken")
    {
        Ok(true) => {}
        Ok(false) => return tracing::debug!(tick = kind, "a tick of this kind is being worked on"),
        Err(error) => return tracing::warn!(%error, tick = kind, "cannot take a tick"),
    }
    work(worker, kind, stop).await;
    if let Err(error) = worker
        .ledger
        .end_tick(kind, &worker.id)
        .await
        .step("maintenance.tick_ended")
    {
        tracing::debug!(%error, tick = kind, "the right to a tick ends by itself");
    }
}

/// Does what a tick of this kind is for, or has another loop do it.
async fn work(worker: &Worker, kind: &str, stop: &CancellationToken) {
    match kind {
        "dispatch" => {
            match worker.ledger.living_workers(worker.take_over.dead_after).await {
                Ok(living) => {
                    intake::take_from_dead(worker, &living, stop).await;
                    provision::take_from_dead(worker, &living).await;
                    forget_ticks(worker, &living).await;
                }
                Err(error) => tracing::warn!(%error, "cannot tell which workers live"),
            }
            worker.admit().await;
            worker.bells.upkeep.notify_one();
        }
        "cleanup" => {
            intake::take_overdue(worker, worker.take_over.events_held, stop).await;
            provision::take_overdue(worker, worker.take_over.reservations_held).await;
        }
        "sync" => worker.bells.reconcile.notify_one(),
        "recover" => worker.bells.search.notify_one(),
        other => tracing::warn!(
            tick = other,
            "a tick of a kind that this release does not know is dropped"
        ),
    }
}

/// A tick that a dead worker had taken is not worked on again: others have come since.
async fn forget_ticks(worker: &Worker, living: &HashSet<String>) {
    let pool = worker.ledger.pool();
    let forgotten = match stream::claim_from_dead(pool, stream::TICKS, &worker.id, living, 100)
        .await
        .step_if("maintenance.ticks_claimed", step::not_empty)
    {
        Ok(entries) => stream::acknowledge(
            pool,
            stream::TICKS,
            &entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>(),
        )
        .await
        .step("maintenance.ticks_forgotten"),
        Err(error) => Err(error),
    };
    if let Err(error) = forgotten {
        tracing::warn!(%error, "cannot forget the ticks of dead workers");
    }
}
