//! An account's turn in a slice: the calls that it may make, and what their errors mean for the rest of it.
//!
//! Invariants: no call goes out beyond the hour's budget of the account, or beyond its minute's; calls that GitHub does
//! not count are given back; a round begins one item in any case, and leaves to the others what is theirs.

use std::{collections::HashSet, time::Duration};

use jit_core::ledger::{
    LedgerError, Spare,
    recovery::{AccountDue, Ask, DueItem, Queued, Round},
};
use jit_github::{Asked, BackOff, Client, Credential, Error};
use tokio::time::Instant;

use super::{Slice, census};
use crate::step::Step;

/// Counted calls that a turn may make in any case, however small the budget of an hour.
const LEAST: u64 = 10;
/// Items that are taken from a queue at once.
const BATCH: u32 = 50;
/// An account that did not answer in time so often gives its place up to others.
const TIMEOUTS: u32 = 2;

/// What keeps a call from being made, or its error from being the end of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceError {
    /// It concerns this item alone, and for good: GitHub refuses.
    Refused,
    /// This item does not answer. It comes again some time later; the next is asked.
    Failed,
    /// Not in this turn.
    Later,
}

/// A round's part of what is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Of the calls that GitHub counts.
    pub(super) calls: f64,
    /// Of all calls.
    pub(super) all: f64,
    /// Time at most.
    pub(super) time: Duration,
}

/// What is left of a kind of calls, and how much of it is kept for the rounds that follow.
#[derive(Clone, Copy)]
struct Allowance {
    left: u64,
    kept: u64,
}

impl Allowance {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few thousand calls"
    )]
    fn share(&mut self, share: f64) {
        self.kept = (self.left as f64 * (1.0 - share)) as u64;
    }

    fn has(&self) -> bool {
        self.left > self.kept
    }
}

/// A turn: what is left of it.
pub(super) struct Turn<'a> {
    pub(super) slice: &'a Slice<'a>,
    pub(super) account: String,
    pub(super) credential: Credential,
    pub(super) urgent: bool,
    /// Calls that GitHub counts.
    counted: Allowance,
    /// All calls.
    all: Allowance,
    until: Option<Instant>,
    /// The round has begun no item yet.
    fresh: bool,
    /// Nothing more in this turn; the next comes after this time, ms.
    not_before: Option<i64>,
    timeouts: u32,
    /// Whether the server is known to count calls, or not to.
    counts: Option<bool>,
    visited: u64,
    /// What was looked at in this turn, and is due all the same.
    seen: HashSet<(Round, String)>,
    /// What is due, as it was read last.
    due: AccountDue,
}

impl<'a> Turn<'a> {
    /// Begins a turn; none where the account is no credential's any more.
    pub(super) async fn begin(slice: &'a Slice<'a>, account: String) -> Result<Option<Self>, LedgerError> {
        let name = account.split('/').next().unwrap_or_default();
        let Some(credential) = slice
            .worker
            .github
            .all()
            .iter()
            .find(|credential| &*credential.name == name)
            .cloned()
        else {
            return Ok(None);
        };
        let (budget, seconds) = (slice.worker.budget, slice.worker.search.interval.as_secs().max(1));
        let least = |calls: u64| Allowance {
            left: calls.max(LEAST),
            kept: 0,
        };
        let mut turn = Self {
            slice,
            account,
            credential,
            urgent: false,
            counted: least(budget.spare_calls_per_hour.saturating_mul(seconds) / 3600),
            all: least(budget.spare_calls_per_minute().saturating_mul(seconds) / 60),
            until: None,
            fresh: true,
            not_before: None,
            timeouts: 0,
            counts: None,
            visited: 0,
            seen: HashSet::new(),
            due: AccountDue::default(),
        };
        turn.read_anew().await?;
        if turn.due.urgent {
            slice.set_urgent();
            (turn.urgent, turn.counted.left) = (true, u64::MAX);
        }
        Ok(Some(turn))
    }

    /// Reads what is due, again after something was listed: it is looked at in this turn.
    pub(super) async fn read_anew(&mut self) -> Result<(), LedgerError> {
        let rounds =
            [Round::Lists, Round::Hooks, Round::Scopes, Round::Repos, Round::Rereads].map(|round| self.question(round));
        self.due = self
            .slice
            .worker
            .ledger
            .recovery_due(&self.account, &rounds)
            .await
            .step("recover.due_read")?;
        Ok(())
    }

    fn question(&self, round: Round) -> Ask {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let before = match round {
            Round::Repos | Round::Hooks => self.slice.now,
            Round::Rereads => self
                .slice
                .now
                .saturating_sub(millis(self.slice.worker.search.reread_interval))
                .saturating_add(1),
            Round::Lists | Round::Scopes => self.slice.now.saturating_add(1),
        };
        Ask {
            name: round,
            before,
            n: BATCH,
        }
    }

    /// Gives the next round its share.
    pub(super) fn share(&mut self, share: Share) {
        self.counted.share(share.calls);
        self.all.share(share.all);
        self.until = Instant::now().checked_add(share.time);
        self.fresh = true;
    }

    /// Whether the round may begin another item.
    pub(super) fn goes_on(&self) -> bool {
        let share = self.fresh
            || (self.counted.has() && self.all.has() && self.until.is_none_or(|until| Instant::now() < until));
        self.not_before.is_none() && share && self.slice.goes_on()
    }

    /// Whether what was begun may be finished.
    pub(super) fn may_call(&self) -> bool {
        self.not_before.is_none() && self.slice.may_call() && !self.slice.timed_out()
    }

    /// The next item of a round, until its share is used up.
    pub(super) async fn next(&mut self, round: Round) -> Result<Option<DueItem>, LedgerError> {
        while self.goes_on() {
            let Some(list) = self.due.rounds.iter_mut().find(|due| due.round == round) else {
                return Ok(None);
            };
            if list.items.is_empty() {
                let ask = self.question(round);
                let mut more = self
                    .slice
                    .worker
                    .ledger
                    .recovery_due(&self.account, &[ask])
                    .await
                    .step("recover.more_due_read")?;
                self.due.rounds.retain(|due| due.round != round);
                self.due.rounds.extend(more.rounds.pop());
                continue;
            }
            let item = list.items.remove(0);
            if !self.seen.insert((round, item.item.clone())) {
                return Ok(None); // it was left as it was
            }
            match census::home(self.slice.worker, &self.account, round, &item.item) {
                Some(home) if home == self.account => {
                    self.fresh = false;
                    return Ok(Some(item));
                }
                home => census::moved(self.slice, &self.account, round, &item.item, home).await?,
            }
        }
        Ok(None)
    }

    /// Asks for one call. What is begun may be finished, also beyond the round's share, but never beyond the budget.
    pub(super) async fn call(&mut self) -> Result<Result<Client, SliceError>, LedgerError> {
        if self.not_before.is_some() || !self.slice.may_call() {
            return Ok(Err(SliceError::Later));
        }
        if self.slice.refuses(&self.credential.name) {
            self.not_before = Some(self.slice.now); // another may be there in the next tick
            return Ok(Err(SliceError::Later));
        }
        if let Spare::Wait(wait) = self
            .slice
            .worker
            .ledger
            .spend_spare(&self.account, 1, &self.slice.worker.budget)
            .await
            .step("recover.spent")?
        {
            self.ends_for(wait);
            return Ok(Err(SliceError::Later));
        }
        self.counted.left = self.counted.left.saturating_sub(1);
        self.all.left = self.all.left.saturating_sub(1);
        self.slice.called();
        Ok(Ok(self.credential.client.clone()))
    }

    fn ends_for(&mut self, wait: Duration) {
        // The turn comes after this time, so that there is budget then.
        self.not_before = Some(
            self.slice
                .now
                .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
                .saturating_sub(1)
                .max(self.slice.now),
        );
    }

    /// What a call about something of this owner's came to.
    pub(super) fn heard<T>(&mut self, owner: &str, result: Result<T, Error>) -> Result<T, SliceError> {
        match result {
            Ok(answer) => {
                self.slice.answered();
                Ok(answer)
            }
            Err(error) => Err(self.told(owner, &error)),
        }
    }

    /// What a question came to whose last answer is known. One that GitHub does not count is given back.
    pub(super) async fn settled<T>(&mut self, asked: Asked<T>) -> Result<Option<(T, Option<String>)>, LedgerError> {
        match asked {
            Asked::Same => {
                self.counted.left = self.counted.left.saturating_add(1);
                self.slice
                    .worker
                    .ledger
                    .uncount_spare(&self.account)
                    .await
                    .step("recover.uncounted")?;
                Ok(None)
            }
            Asked::News { answer, etag, counted } => {
                let counted = counted || census::is_githubs_own(&self.slice.worker.search.jobs.server_url);
                if !counted && self.counts != Some(false) {
                    self.slice
                        .worker
                        .ledger
                        .note_unlimited(&self.account)
                        .await
                        .step("recover.unlimited_noted")?;
                    self.counted.left = u64::MAX; // those of the minute are what counts
                    self.counted.kept = 0;
                }
                self.counts = Some(counted);
                Ok(Some((answer, etag)))
            }
        }
    }

    fn told(&mut self, owner: &str, error: &Error) -> SliceError {
        let told = match error.backs_off() {
            BackOff::Class | BackOff::Organization => {
                tracing::debug!(%error, "recovery goes on with the next");
                self.slice.answered();
                return SliceError::Refused;
            }
            BackOff::Credential if is_unauthorized(error) => {
                // Where there is no token to be had, it is the App itself that is refused.
                if matches!(error, Error::NoToken { .. }) {
                    self.slice.refuse(&self.credential.name);
                }
                self.not_before = Some(self.slice.now); // another may be there in the next tick
                SliceError::Later
            }
            BackOff::Credential => {
                self.ends_for(error.retry_after().unwrap_or(Duration::from_secs(60)));
                SliceError::Later
            }
            BackOff::All => {
                let away = self.slice.failed(owner, is_away(error));
                self.timeouts += u32::from(matches!(error, Error::TimedOut { .. }));
                if self.timeouts >= TIMEOUTS {
                    self.not_before = Some(self.slice.now);
                }
                if away { SliceError::Later } else { SliceError::Failed }
            }
        };
        tracing::warn!(
            %error,
            account = self.account,
            "GitHub does not answer recovery; {}",
            if told == SliceError::Later { "a later tick goes on" } else { "it goes on with the next" }
        );
        told
    }

    /// An item was looked at, and has this time from now on; see [`Round`]. None: it leaves its queue.
    pub(super) async fn done(&mut self, round: Round, item: &str, at: Option<i64>) -> Result<(), LedgerError> {
        self.slice
            .worker
            .ledger
            .looked_at(&self.account, round, item, at, None)
            .await
            .step("recover.looked_at")
    }

    /// A repository was visited.
    pub(super) fn visited(&mut self) {
        self.visited += 1;
    }

    /// Queues what was found for whoever it belongs to.
    pub(super) async fn enqueue(&self, items: &[Queued]) -> Result<(), LedgerError> {
        self.slice
            .worker
            .ledger
            .enqueue(items, &[])
            .await
            .step("recover.found_queued")
    }

    pub(super) async fn end(self) -> Result<(), LedgerError> {
        let not_before = self.not_before.unwrap_or(self.slice.now);
        self.slice
            .worker
            .ledger
            .account_served(&self.account, not_before, self.visited)
            .await
            .step("recover.served")
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
