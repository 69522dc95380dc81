//! An entry of `jit:provision`: claims its reservation for this worker and has its runner made.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jit_core::{
    ledger::{Claim, LedgerError, Maker},
    stream::{self, Entry, dead_letters},
};
use tokio::time::Instant;

use super::{
    Shared,
    make::{Order, make},
    queue::acknowledge,
    registrar::Registrar,
};
use crate::{Worker, retry::persist, step::Step};

/// What a reservation is claimed with whose owner no credential serves.
pub(crate) const NO_CREDENTIAL: &str = "none";
/// Before anything is made there is nothing to clear up, so a Redis that is full or away is waited for: below the time
/// after which another worker takes the entry for forgotten.
const PERSIST_CLAIM: Duration = Duration::from_secs(240);
/// Numbers this worker's claims, so that one whose answer was lost can be told from another of the same reservation.
static CLAIMS: AtomicU64 = AtomicU64::new(1);

/// Makes the runner of an entry, and acknowledges the entry. One that cannot be read goes to the dead letters.
pub(super) async fn process(worker: &Worker, shared: &Shared, owner: &str, entry: &Entry) {
    let (runner, fence) = match (entry.field("runner"), entry.field("fence")) {
        (Ok(runner), Ok(fence)) => (runner, fence),
        (Err(error), _) | (_, Err(error)) => return bury(worker, entry, &error.to_string()).await,
    };
    match scope_of(worker, entry, runner).await {
        Ok(Some(scope)) => claim(worker, shared, owner, &scope, runner, fence).await,
        Ok(None) => tracing::debug!(runner.name = runner, "this reservation is gone"),
        Err(error) => unanswered(runner, &error),
    }
    acknowledge(worker, entry).await;
}

async fn bury(worker: &Worker, entry: &Entry, error: &str) {
    tracing::error!(entry = entry.id, %error, "a reservation cannot be read and goes to the dead letters");
    worker.metrics.buried.inc();
    if let Err(error) = dead_letters::bury(worker.ledger.pool(), stream::PROVISION, entry, error)
        .await
        .step("provision.buried")
    {
        tracing::warn!(%error, "it could not be moved; it will come again");
    }
}

fn unanswered(runner: &str, error: &LedgerError) {
    tracing::warn!(%error, runner.name = runner, "the ledger does not answer; the reservation's deadline drops it");
}

/// Where a runner registers: in its entry, or (a release before wrote none there) in the ledger. None where the runner
/// is gone.
async fn scope_of(worker: &Worker, entry: &Entry, runner: &str) -> Result<Option<String>, LedgerError> {
    if let Ok(scope) = entry.field("scope") {
        return Ok(Some(scope.to_owned()));
    }
    Ok(persist(PERSIST_CLAIM, || worker.ledger.runner(runner))
        .await?
        .and_then(|record| record.scope))
}

async fn claim(worker: &Worker, shared: &Shared, owner: &str, scope: &str, runner: &str, fence: &str) {
    let create_timeout = worker.backend.timeout();
    let timeout = create_timeout + shared.patience.get(owner);
    let registrar = Registrar::of(worker, scope);
    let maker = Maker {
        worker: &worker.id,
        claim: CLAIMS.fetch_add(1, Ordering::Relaxed),
        credential: registrar
            .as_ref()
            .map_or(NO_CREDENTIAL, |registrar| &*registrar.credential.name),
        alone: registrar.as_ref().map_or(true, |registrar| registrar.alone),
        timeout,
        create_timeout,
    };
    let claim = async || {
        let began = Instant::now(); // of the try that worked: until then there was nothing to come too late for
        let claim = worker
            .ledger
            .claim(runner, fence, &maker)
            .await
            .step("provision.claimed")?;
        Ok((claim, began))
    };
    let (reservation, began) = match persist(PERSIST_CLAIM, claim).await {
        Ok((Claim::Ours(reservation), began)) => (reservation, began),
        Ok((Claim::Stale, _)) => {
            tracing::debug!(runner.name = runner, "this reservation is not ours any more");
            return worker.admit().await; // it may have been given back, and its room be another's
        }
        Err(error) => return unanswered(runner, &error),
    };
    match make(&Order::new(worker, shared, &reservation, fence, began), registrar).await {
        Ok(()) => {
            worker.metrics.provision_seconds.observe(began.elapsed().as_secs_f64());
        }
        Err(error) => {
            tracing::warn!(
                %error,
                runner.name = runner,
                "the ledger did not take a runner's step; its deadline clears up"
            )
        }
    }
}
