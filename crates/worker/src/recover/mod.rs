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
//! Invariants: no job and no runner is changed here; one worker at a time works on a slice; a repository or an organization that refuses
//! costs the others nothing; when data may have been lost, everything is looked for at once.

use std::{collections::HashSet, time::Duration};

use jit_core::ledger::{
    LedgerError, Spare,
    recovery::{RecoverySettings, RecoveryTick},
};
use jit_github::{BackOff, Client, Credential, Error, Scope};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    retry::{Pause, persist},
    step::Step,
};

mod redeliver;
mod rediscover;
mod settings;
mod strays;
mod sweep;

pub use settings::{RecoverArgs, Settings};

/// A slice ends after this time, and the next tick goes on.
const SLICE: Duration = Duration::from_secs(60);
/// A worker that dies over a slice keeps others from it for so long: beyond a slice and the call that it ends with.
const AT_MOST: Duration = Duration::from_secs(120);
/// So long the right to a slice is given back to a ledger that does not answer.
const GIVE_BACK: Duration = Duration::from_secs(30);
/// Calls that a tick may make in any case, however small the budget of an hour: a repository takes three and more.
const LEAST: u64 = 10;

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

/// What came of asking for a call.
enum Turn {
    /// It may be made, by this client.
    Call(Client),
    /// Not in this slice.
    Later,
    /// No credential serves this owner.
    NotServed,
}

/// What an error of GitHub's means for the rest of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It concerns this one alone: go on with the next.
    Refused,
    /// Not in this slice.
    Later,
}

/// A slice of work: how much of it is left.
struct Slice<'a> {
    worker: &'a Worker,
    stop: &'a CancellationToken,
    began: Instant,
    /// Calls that this tick may still make, so that an hour's calls are spread over the hour.
    left: u64,
    /// Of these, what is kept for the pieces of work that follow.
    kept: u64,
    /// GitHub is away, or wants to be left alone.
    ended: bool,
    /// Accounts whose budget is used up, or that GitHub refuses.
    exhausted: HashSet<String>,
}

impl<'a> Slice<'a> {
    fn new(worker: &'a Worker, stop: &'a CancellationToken, tick: &RecoveryTick) -> Self {
        let left = if tick.urgent {
            u64::MAX
        } else {
            let seconds = worker.recovery.interval.as_secs().max(1);
            (settings(worker).calls_per_hour.saturating_mul(seconds) / 3600).max(LEAST)
        };
        Self { worker, stop, began: Instant::now(), left, kept: 0, ended: false, exhausted: HashSet::new() }
    }

    /// Lets the next piece of work use this share of what is left.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a few thousand calls")]
    fn share(&mut self, share: f64) {
        self.kept = (self.left as f64 * (1.0 - share)) as u64;
    }

    fn timed_out(&self) -> bool {
        self.began.elapsed() >= SLICE
    }

    /// Whether another piece may be begun.
    fn goes_on(&self) -> bool {
        !self.ended && self.left > self.kept && !self.timed_out() && !self.stop.is_cancelled()
    }

    /// Asks for one call about this scope. What is begun may be finished, also beyond the tick's share, but never beyond the hour's budget.
    async fn call(&mut self, scope: &Scope) -> Result<Turn, LedgerError> {
        let Ok(credential) = self.worker.github.of(scope) else { return Ok(Turn::NotServed) };
        let account = credential.account(scope);
        self.call_as(credential, account).await
    }

    /// Asks for one call as this credential, on account of what GitHub counts it for.
    async fn call_as(&mut self, credential: Credential, account: String) -> Result<Turn, LedgerError> {
        if self.ended || self.stop.is_cancelled() || self.exhausted.contains(&account) {
            return Ok(Turn::Later);
        }
        if self.worker.ledger.spend_spare(&account, 1, &self.worker.budget).await.step("recover.spent")? != Spare::Allowed {
            self.exhausted.insert(account);
            return Ok(Turn::Later);
        }
        self.left = self.left.saturating_sub(1);
        Ok(Turn::Call(credential.client))
    }

    /// Takes note of an error of a call about this scope.
    fn told(&mut self, scope: &Scope, error: &Error) -> Told {
        let account = self.worker.github.of(scope).map(|credential| credential.account(scope)).unwrap_or_default();
        self.told_of(account, error)
    }

    /// Takes note of an error of a call on this account.
    fn told_of(&mut self, account: String, error: &Error) -> Told {
        match error.backs_off() {
            BackOff::Class | BackOff::Organization => {
                tracing::debug!(%error, "recovery goes on with the next");
                return Told::Refused;
            }
            BackOff::Credential => {
                self.exhausted.insert(account);
            }
            BackOff::All => self.ended = true,
        }
        tracing::warn!(%error, "GitHub does not answer recovery; the next tick goes on");
        Told::Later
    }
}

/// The credentials that are GitHub Apps.
fn apps(worker: &Worker) -> Vec<Credential> {
    worker.github.all().iter().filter(|credential| credential.client.is_app()).cloned().collect()
}

/// The scope of a repository by its full name.
fn repository(full_name: &str) -> Option<Scope> {
    format!("repos/{full_name}").parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slice_ends_before_its_right_does() {
        assert!(super::SLICE * 2 <= super::AT_MOST);
    }
}
