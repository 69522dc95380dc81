//! The entries of `jit:provision`: reads as many as there are permits, takes over and drops those of other workers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jit_core::{
    ledger::Observation,
    model::RunnerState,
    stream::{self, Entry, Reader},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Shared, claim::process};
use crate::{
    Worker,
    loops::BLOCK,
    permits::owner_of,
    retry::Pause,
    step::{self, Step},
};

/// The loop's name; the rounds of it are reads. What takes long is each runner's own.
pub(crate) const NAME: &str = "provision";

/// Reads reservations and makes their runners until `stop`, then finishes those in hand.
pub async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut reader = Reader::new(worker.redis.clone(), stream::PROVISION, &worker.id, BLOCK);
    let shared = Arc::new(Shared::new(&worker));
    let (tasks, mut pause) = (TaskTracker::new(), Pause::new());
    loop {
        // One permit at least, and then as many entries as there are permits.
        let first = tokio::select! {
            () = stop.cancelled() => break,
            permit = shared.permits.permit() => permit,
        };
        let Some(first) = first else { break };
        let read = reader
            .read(1 + shared.permits.available())
            .await
            .step_if("provision.read", step::not_empty);
        let round = worker.loops.begin(NAME);
        let entries = match read {
            Ok(entries) => entries,
            Err(error) => {
                round.failed(&error);
                tracing::warn!(%error, stream = stream::PROVISION, "cannot read reservations; trying again");
                pause.wait(&stop).await;
                continue;
            }
        };
        pause = Pause::new();
        let mut first = Some(first);
        for entry in entries {
            let permit = match first.take() {
                Some(permit) => permit,
                None => match shared.permits.permit().await {
                    Some(permit) => permit,
                    None => break,
                },
            };
            let (worker, shared) = (worker.clone(), shared.clone());
            tasks.spawn(async move {
                let owner = entry.field("scope").map_or_else(|_| String::new(), owner_of);
                let work = process(&worker, &shared, &owner, &entry);
                shared.permits.hold(permit, &owner, work).await;
            });
        }
        round.succeeded();
    }
    tasks.close();
    if !tasks.is_empty() {
        tracing::info!(runners = tasks.len(), "finishing the runners in hand");
    }
    tasks.wait().await;
}

/// Drops the reservations that workers which are gone had taken: what they made of them is removed, and demand makes
/// others.
pub async fn take_from_dead(worker: &Worker, living: &HashSet<String>) {
    match stream::claim_from_dead(worker.ledger.pool(), stream::PROVISION, &worker.id, living, 100)
        .await
        .step_if("provision.taken_over", step::not_empty)
    {
        Ok(entries) => drop_all(worker, entries, "its worker is gone").await,
        Err(error) => tracing::warn!(%error, "cannot take over reservations"),
    }
}

/// Drops the reservations that are held for longer than `idle`, beyond any deadline: their entries were not
/// acknowledged.
pub async fn take_overdue(worker: &Worker, idle: Duration) {
    match stream::claim_abandoned(worker.ledger.pool(), stream::PROVISION, &worker.id, idle, 100)
        .await
        .step_if("provision.taken_up", step::not_empty)
    {
        Ok(entries) => drop_all(worker, entries, "its worker did not finish it").await,
        Err(error) => tracing::warn!(%error, "cannot take up reservations"),
    }
}

async fn drop_all(worker: &Worker, entries: Vec<Entry>, why: &str) {
    for entry in &entries {
        if let Ok(runner) = entry.field("runner") {
            let state = match worker.ledger.runner(runner).await {
                Ok(record) => record.and_then(|record| record.state),
                Err(error) => {
                    return tracing::warn!(%error, runner.name = runner, "cannot drop a reservation; its deadline does");
                }
            };
            // One that got as far as `created` lives on: only its entry was left.
            if state == Some(RunnerState::Reserved) {
                tracing::info!(runner.name = runner, why, "dropping a reservation");
                if let Err(error) = worker
                    .ledger
                    .observe(Observation::Remove, runner, why)
                    .await
                    .step("provision.dropped")
                {
                    return tracing::warn!(%error, runner.name = runner, "cannot drop a reservation; its deadline does");
                }
            }
        }
        acknowledge(worker, entry).await;
    }
    if !entries.is_empty() {
        worker.bells.upkeep.notify_one();
        worker.admit().await;
    }
}

pub(super) async fn acknowledge(worker: &Worker, entry: &Entry) {
    if let Err(error) = stream::acknowledge(worker.ledger.pool(), stream::PROVISION, std::slice::from_ref(&entry.id))
        .await
        .step("provision.acknowledged")
    {
        tracing::warn!(%error, entry = entry.id, "a reservation's entry was not acknowledged; it is dropped later");
    }
}
