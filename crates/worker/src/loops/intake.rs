//! Intake: `jit:events` → ledger. A batch is applied, admitted, acknowledged, in this order: what dies in between is
//! applied again.

use std::{collections::HashSet, time::Duration};

use jit_core::{
    ledger::LedgerError,
    stream::{
        self, Entry, Reader, dead_letters,
        poison::{self, Suspect},
    },
};
use tokio_util::sync::CancellationToken;

use super::BLOCK;
use crate::{
    Worker,
    retry::Pause,
    step::{self, Step},
};

pub(super) const NAME: &str = "intake";
/// Events of one batch: some 15 ms of work.
const BATCH: usize = 64;

/// Takes events until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    let mut reader = Reader::new(worker.redis.clone(), stream::EVENTS, &worker.id, BLOCK);
    let mut pause = Pause::new();
    while !stop.is_cancelled() {
        let read = reader.read(BATCH).await.step_if("intake.read", step::not_empty);
        let round = worker.loops.begin(NAME);
        match read {
            Ok(entries) => {
                pause = Pause::new();
                process(worker, &entries, stop).await;
                round.succeeded();
            }
            Err(error) => {
                round.failed(&error);
                tracing::warn!(%error, stream = stream::EVENTS, "cannot read events; trying again");
                pause.wait(stop).await;
            }
        }
    }
}

/// Applies entries, whoever held them before.
pub async fn process(worker: &Worker, entries: &[Entry], stop: &CancellationToken) {
    let mut done = Vec::with_capacity(entries.len());
    for entry in entries {
        if apply(worker, entry, stop).await {
            done.push(entry.id.clone());
        }
    }
    if done.is_empty() {
        return;
    }
    worker.admit().await;
    if let Err(error) = stream::acknowledge(worker.ledger.pool(), stream::EVENTS, &done)
        .await
        .step("intake.acknowledged")
    {
        tracing::warn!(
            %error,
            events = done.len(),
            "events were applied and not acknowledged; they will be applied again, which is harmless"
        );
    }
}

/// Whether the entry's effect is in the ledger (or the entry among the dead letters, where it is no longer pending).
async fn apply(worker: &Worker, entry: &Entry, stop: &CancellationToken) -> bool {
    let event = match entry.job_event() {
        Ok(mut event) => {
            worker.search.jobs.derive(&mut event);
            event
        }
        Err(error) => {
            bury(worker, entry, &error.to_string()).await;
            return false;
        }
    };
    let mut pause = Pause::new();
    loop {
        match worker
            .ledger
            .apply(&event, entry.accepted_at())
            .await
            .step("intake.applied")
        {
            Ok(state) => {
                worker.metrics.events.inc();
                match event.action {
                    jit_core::event::Action::InProgress => worker.metrics.started_jobs.inc(),
                    jit_core::event::Action::Completed => worker.metrics.completed_jobs.inc(),
                    _ => 0,
                };
                tracing::debug!(job.id = %event.job, job.action = event.action.as_str(), job.state = %state,
                    org = event.org, "event applied");
                return true;
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, job.id = %event.job, "the ledger did not take an event; trying again");
                pause.wait(stop).await;
                if stop.is_cancelled() {
                    return false;
                }
            }
            Err(error) => {
                bury(worker, entry, &error.to_string()).await;
                return false;
            }
        }
    }
}

async fn bury(worker: &Worker, entry: &Entry, reason: &str) {
    buried(worker, entry, reason);
    if let Err(error) = dead_letters::bury(worker.ledger.pool(), stream::EVENTS, entry, reason)
        .await
        .step("intake.buried")
    {
        tracing::warn!(%error, entry = entry.id, "it could not be moved; it will come again");
    }
}

fn buried(worker: &Worker, entry: &Entry, reason: &str) {
    tracing::error!(
        entry = entry.id,
        reason,
        "an event cannot be applied and goes to the dead letters (jitctl dead list)"
    );
    worker.metrics.buried.inc();
}

/// Applies what workers that are gone had read and not acknowledged. One of these entries may be what ended them: it
/// circles for a while, alone, and is buried then.
pub async fn take_from_dead(worker: &Worker, living: &HashSet<String>, stop: &CancellationToken) {
    if let Err(error) = try_take_from_dead(worker, living, stop).await {
        tracing::warn!(%error, "cannot take over events");
    }
}

async fn try_take_from_dead(
    worker: &Worker,
    living: &HashSet<String>,
    stop: &CancellationToken,
) -> Result<(), LedgerError> {
    let pool = worker.ledger.pool();
    let taken = poison::take_over(pool, stream::EVENTS, &worker.id, living, BATCH)
        .await
        .step_if("intake.taken_over", took_some)?;
    if !taken.entries.is_empty() {
        tracing::info!(
            events = taken.entries.len(),
            "taking over events that a dead worker held"
        );
        process(worker, &taken.entries, stop).await;
    }
    for id in taken.suspects {
        if stop.is_cancelled() {
            break;
        }
        match poison::take_suspect(pool, stream::EVENTS, &worker.id, &id)
            .await
            .step("intake.suspect_taken")?
        {
            Suspect::Alone(entry, deaths) => {
                tracing::warn!(
                    entry = entry.id,
                    deaths,
                    "workers died while they held this event; it is applied alone"
                );
                process(worker, &[entry], stop).await;
            }
            Suspect::Buried(entry, reason) => buried(worker, &entry, &reason),
            Suspect::Gone => {}
        }
    }
    Ok(())
}

fn took_some(taken: &Result<poison::TakenOver, LedgerError>) -> bool {
    taken.as_ref().is_ok_and(|taken| !taken.entries.is_empty())
}

/// Applies what living workers have held for longer than `idle`: an acknowledgement that was lost, mostly.
pub async fn take_overdue(worker: &Worker, idle: Duration, stop: &CancellationToken) {
    match stream::claim_abandoned(worker.ledger.pool(), stream::EVENTS, &worker.id, idle, BATCH)
        .await
        .step_if("intake.taken_up", step::not_empty)
    {
        Ok(entries) => process(worker, &entries, stop).await,
        Err(error) => tracing::warn!(%error, "cannot take up events"),
    }
}
