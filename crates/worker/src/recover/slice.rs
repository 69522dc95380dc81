//! A slice of recovery's work: the calls that it may make, and what their errors mean for the rest of it.
//!
//! Invariants: what does not answer, and a credential that is refused or used up, is left out and costs the others nothing; a GitHub that is
//! away as a whole ends the slice.

use std::{collections::HashSet, time::Duration};

use jit_core::ledger::{LedgerError, Spare, recovery::RecoveryTick};
use jit_github::{BackOff, Client, Credential, Error, Scope};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Worker, step::Step};

/// A slice ends after this time, and the next tick goes on.
const SLICE: Duration = Duration::from_secs(60);
/// Calls that a tick may make in any case, however small the budget of an hour: a repository takes three and more.
const LEAST: u64 = 10;
/// GitHub is taken for away when call after call failed, for so many owners …
const OWNERS_IN_A_ROW: usize = 3;
/// … or so many times.
const FAILURES_IN_A_ROW: u64 = 10;

/// What keeps a call from being made, or its error from being the end of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It concerns this one alone, and for good: no credential serves it, or GitHub refuses.
    Refused,
    /// This one does not answer, or its credential is refused. It comes again some time later; the next is asked.
    Failed,
    /// Not in this slice.
    Later,
}

/// A slice of work: how much of it is left.
pub(super) struct Slice<'a> {
    pub(super) worker: &'a Worker,
    pub(super) stop: &'a CancellationToken,
    began: Instant,
    /// Calls that this tick may still make, so that an hour's calls are spread over the hour.
    left: u64,
    /// Of these, what is kept for the pieces of work that follow.
    kept: u64,
    /// GitHub is away.
    ended: bool,
    /// Accounts whose budget is used up, or that are to leave GitHub alone.
    exhausted: HashSet<String>,
    /// Credentials, and accounts of such, that GitHub does not accept.
    refused: HashSet<String>,
    /// What has failed, and is left out of this slice.
    pub(super) skipped: HashSet<String>,
    /// Calls that failed in a row.
    row: Row,
}

impl<'a> Slice<'a> {
    pub(super) fn new(worker: &'a Worker, stop: &'a CancellationToken, tick: &RecoveryTick) -> Self {
        let left = if tick.urgent {
            u64::MAX
        } else {
            let seconds = worker.recovery.interval.as_secs().max(1);
            (super::settings(worker).calls_per_hour.saturating_mul(seconds) / 3600).max(LEAST)
        };
        Self {
            worker,
            stop,
            began: Instant::now(),
            left,
            kept: 0,
            ended: false,
            exhausted: HashSet::new(),
            refused: HashSet::new(),
            skipped: HashSet::new(),
            row: Row::default(),
        }
    }

    /// Lets the next piece of work use this share of what is left.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a few thousand calls")]
    pub(super) fn share(&mut self, share: f64) {
        self.kept = (self.left as f64 * (1.0 - share)) as u64;
    }

    pub(super) fn timed_out(&self) -> bool {
        self.began.elapsed() >= SLICE
    }

    /// Whether another piece may be begun.
    pub(super) fn goes_on(&self) -> bool {
        !self.ended && self.left > self.kept && !self.timed_out() && !self.stop.is_cancelled()
    }

    /// Asks for one call about this scope. What is begun may be finished, also beyond the tick's share, but never beyond the hour's budget.
    pub(super) async fn call(&mut self, scope: &Scope) -> Result<Result<Client, Told>, LedgerError> {
        let Ok(credential) = self.worker.github.of(scope) else { return Ok(Err(Told::Refused)) };
        let account = credential.account(scope);
        self.call_as(credential, account).await
    }

    /// Asks for one call as this credential, on account of what GitHub counts it for.
    pub(super) async fn call_as(&mut self, credential: Credential, account: String) -> Result<Result<Client, Told>, LedgerError> {
        if self.ended || self.stop.is_cancelled() || self.exhausted.contains(&account) {
            return Ok(Err(Told::Later));
        }
        if self.refused.contains(&account) || self.refused.contains(&*credential.name) {
            return Ok(Err(Told::Failed));
        }
        if self.worker.ledger.spend_spare(&account, 1, &self.worker.budget).await.step("recover.spent")? != Spare::Allowed {
            self.exhausted.insert(account);
            return Ok(Err(Told::Later));
        }
        self.left = self.left.saturating_sub(1);
        self.row.calls += 1;
        Ok(Ok(credential.client))
    }

    /// Takes note of an error of a call about this scope.
    pub(super) fn told(&mut self, scope: &Scope, error: &Error) -> Told {
        let account = self.worker.github.of(scope).map(|credential| credential.account(scope)).unwrap_or_default();
        self.told_of(account, scope.owner(), error)
    }

    /// Takes note of an error of the last call, on this account, about something of this owner's.
    pub(super) fn told_of(&mut self, account: String, owner: &str, error: &Error) -> Told {
        let told = match error.backs_off() {
            BackOff::Class | BackOff::Organization => {
                tracing::debug!(%error, "recovery goes on with the next");
                return Told::Refused;
            }
            BackOff::Credential if is_unauthorized(error) => {
                // Where there is no token to be had, it is the App itself that is refused.
                let whole = matches!(error, Error::NoToken { .. });
                self.refused.insert(if whole { account.split('/').next().unwrap_or_default().to_owned() } else { account });
                Told::Failed
            }
            BackOff::Credential => {
                self.exhausted.insert(account);
                Told::Later
            }
            BackOff::All => {
                self.ended = is_away(error) || self.row.failed(owner);
                if self.ended { Told::Later } else { Told::Failed }
            }
        };
        tracing::warn!(%error, "GitHub does not answer recovery; {}", if self.ended { "the next tick goes on" } else { "it goes on with the next" });
        told
    }
}

/// There is no connection, for nobody.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::NoToken { cause, .. } => is_away(cause),
        _ => false,
    }
}

/// The credential is not accepted.
fn is_unauthorized(error: &Error) -> bool {
    match error {
        Error::Unauthorized { .. } => true,
        Error::NoToken { cause, .. } => is_unauthorized(cause),
        _ => false,
    }
}

/// Calls that failed in a row: whether it is GitHub that is away, or the one that was asked about.
#[derive(Default)]
struct Row {
    /// Calls that were made.
    calls: u64,
    /// The last one of the row.
    last: u64,
    failures: u64,
    owners: HashSet<String>,
}

impl Row {
    /// The last call failed; whether that is one too many.
    fn failed(&mut self, owner: &str) -> bool {
        if self.calls != self.last + 1 {
            self.failures = 0;
            self.owners.clear();
        }
        self.last = self.calls;
        self.failures += 1;
        self.owners.insert(owner.to_owned());
        self.owners.len() >= OWNERS_IN_A_ROW || self.failures >= FAILURES_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_before_its_right_does() {
        assert!(SLICE * 2 <= super::super::AT_MOST);
    }

    #[test]
    fn one_owner_ends_a_slice_late_and_several_in_a_row_soon() {
        let failing = |owners: &[&str], between: u64| {
            let mut row = Row::default();
            owners.iter().position(|owner| {
                row.calls += 1 + between;
                row.failed(owner)
            })
        };
        assert_eq!(failing(&["a", "b", "c", "d"], 0), Some(2), "GitHub is away");
        assert_eq!(failing(&["a"; 20], 0), Some(9), "everything of one owner's");
        assert_eq!(failing(&["a", "b", "a", "b"], 0), None);
        assert_eq!(failing(&["a", "b", "c", "d"], 1), None, "others answer in between");
    }
}
