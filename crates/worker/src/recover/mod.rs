//! Recovery: what never came.
//!
//! GitHub delivers a webhook once. One that was lost, or that came while nobody could take it, is made up for here, and so is what a lost
//! Redis held. Each tick does a slice of four pieces of work, within a budget of GitHub calls that all workers share, and keeps its cursors
//! in the ledger, so that any worker can go on:
//!
//! * `redeliver`: failed deliveries are repeated by GitHub, where the hook has a call for that (an enterprise's has none);
//! * `sweep`: repositories are looked through for jobs that are unknown here; they are appended to `jit:events` like a webhook's;
//! * `rediscover`: the list of these repositories is rebuilt from GitHub, daily and when data may have been lost;
//! * `strays`: registrations that nobody here owns are deleted.
//!
//! Invariants: no job and no runner is changed here; one worker at a time works on a slice; a repository, an organization or a
//! credential that is refused or does not answer costs the others nothing; when data may have been lost, everything is looked for at once.

use std::time::Duration;

use jit_core::ledger::{LedgerError, recovery::RecoverySettings};
use jit_github::{Credential, Scope};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    retry::{Pause, persist},
    step::Step,
};

mod redeliver;
mod rediscover;
mod settings;
mod slice;
mod strays;
mod sweep;

pub use settings::{RecoverArgs, Settings};
use slice::{Slice, Told};

/// A worker that dies over a slice keeps others from it for so long: beyond a slice and the call that it ends with.
const AT_MOST: Duration = Duration::from_secs(120);
/// So long the right to a slice is given back to a ledger that does not answer.
const GIVE_BACK: Duration = Duration::from_secs(30);

/// Works on a slice when rung for, until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    if worker.recovery.webhook_url.is_none() {
        tracing::warn!("WEBHOOK_URL is not set: failed deliveries of webhooks are not repeated, and lost jobs are found by the sweep alone");
    }
    let mut pause = Pause::new();
    loop {
        tokio::select! { () = stop.cancelled() => return, () = worker.recover.notified() => {} }
        match turn(worker, stop).await {
            Ok(()) => pause = Pause::new(),
            Err(error) => {
                tracing::warn!(%error, "recovery is interrupted; the next tick goes on");
                pause.wait(stop).await;
            }
        }
    }
}

/// One slice, unless another worker is at it.
async fn turn(worker: &Worker, stop: &CancellationToken) -> Result<(), LedgerError> {
    if !worker.ledger.take_recovery(&worker.id, AT_MOST, worker.pace.dead_after).await.step("recover.taken")? {
        return Ok(());
    }
    let result = slice(worker, stop).await;
    // A Redis that was away interrupts a slice: it is told when it is back, or others would wait for this one as long as it lives.
    persist(GIVE_BACK, || worker.ledger.end_tick("recovery", &worker.id)).await.step("recover.ended")?;
    result
}

/// Recovery's settings, with the budget of all credentials together.
fn settings(worker: &Worker) -> RecoverySettings {
    let credentials = worker.github.all().len() as u64;
    worker.recovery.of_ledger(worker.budget.spare_calls_per_hour.saturating_mul(credentials))
}

async fn slice(worker: &Worker, stop: &CancellationToken) -> Result<(), LedgerError> {
    let tick = worker.ledger.recovery_tick(&settings(worker)).await.step("recover.ticked")?;
    if !tick.open {
        return Ok(()); // the real runners come first; the reconcile that counts them rings again
    }
    let mut slice = Slice::new(worker, stop, &tick);
    if tick.urgent {
        tracing::info!("the data may have been lost: looking for every job at GitHub");
        let mut more = tick.rediscovery.is_some();
        sweep::visit(&mut slice, true).await?;
        while more && slice.goes_on() {
            more = rediscover::some(&mut slice).await?;
            sweep::visit(&mut slice, false).await?;
        }
        strays::look(&mut slice).await?;
        redeliver::some(&mut slice).await?;
    } else {
        // What is cheap first, and each with a share of the calls, so that none keeps another from its turn.
        slice.share(0.5);
        redeliver::some(&mut slice).await?;
        slice.share(0.25);
        strays::look(&mut slice).await?;
        if tick.rediscovery.is_some() {
            slice.share(0.5);
            while slice.goes_on() && rediscover::some(&mut slice).await? {}
        }
        slice.share(1.0);
        sweep::visit(&mut slice, true).await?;
    }
    if tick.urgent && slice.timed_out() && !stop.is_cancelled() {
        worker.recover.notify_one(); // there is more, and it is urgent
    }
    Ok(())
}

/// The credentials that are GitHub Apps.
fn apps(worker: &Worker) -> Vec<Credential> {
    worker.github.all().iter().filter(|credential| credential.client.is_app()).cloned().collect()
}

/// The scope of a repository by its full name.
fn repository(full_name: &str) -> Option<Scope> {
    format!("repos/{full_name}").parse().ok()
}
