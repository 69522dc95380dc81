//! Search: what never came.
//!
//! GitHub delivers a webhook once. One that was lost, or that came while nobody could take it, is made up for here, and
//! so is what a lost Redis held. Each tick is a slice of work, within budgets of GitHub calls that all workers share.
//! What is to be looked at stands in queues in the ledger, one for each account (whatever GitHub counts calls of) and
//! round of work, so that any worker can go on:
//!
//! * `hooks`: failed deliveries are repeated by GitHub, where the hook has a call for that (an enterprise's has none);
//! * `lists`: what there is: repositories of owners, webhooks, installations, listed daily and when data may have been
//!   lost;
//! * `strays`: registrations that nobody here owns are deleted;
//! * `sweep`: repositories are looked through for jobs that are unknown here; they are appended to `jit:events` like a
//!   webhook's.
//!
//! Invariants: no job and no runner is changed here; one worker at a time works on a slice; an account without budget
//! costs nothing, and one that is slow, refused or away costs the others nothing; no round keeps another from its turn;
//! when data may have been lost, everything is looked for at once.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use jit_core::ledger::{LedgerError, recovery::Round};
use tokio_util::sync::CancellationToken;

use crate::{Worker, retry::persist, step::Step};

mod census;
mod hooks;
mod lists;
mod settings;
mod slice;
mod strays;
mod sweep;
mod turn;

pub use settings::{SearchArgs, Settings};
use slice::Slice;
use turn::{Share, SliceError, Turn};

/// A worker that dies over a slice keeps others from it for so long: beyond a slice and the call that it ends with.
const AT_MOST: Duration = Duration::from_secs(120);
/// So long the right to a slice is given back to a ledger that does not answer.
const GIVE_BACK: Duration = Duration::from_secs(30);
/// Accounts that are looked at side by side.
const SIDE_BY_SIDE: usize = 8;

/// One slice, unless another worker is at it.
///
/// # Errors
/// When Redis is unavailable; the next slice goes on.
pub async fn one(worker: &Worker, stop: &CancellationToken) -> Result<(), LedgerError> {
    if !worker
        .ledger
        .take_recovery(&worker.id, AT_MOST, worker.take_over.dead_after)
        .await
        .step("recover.taken")?
    {
        return Ok(());
    }
    let result = all_accounts(worker, stop).await;
    // A Redis that was away interrupts a slice: it is told when it is back, or others would wait for this one as long
    // as it lives.
    persist(GIVE_BACK, || worker.ledger.end_tick("recovery", &worker.id))
        .await
        .step("recover.ended")?;
    result
}

async fn all_accounts(worker: &Worker, stop: &CancellationToken) -> Result<(), LedgerError> {
    let tick = worker
        .ledger
        .recovery_tick(&worker.search.of_ledger(worker.budget.spare_calls_per_hour))
        .await
        .step("recover.ticked")?;
    if !tick.open {
        return Ok(()); // the real runners come first; the reconcile that counts them rings again
    }
    census::take(worker, &tick).await?;
    let slice = Slice::new(worker, stop, tick.now);
    let (mut waiting, mut turns, mut more) = (VecDeque::new(), FuturesUnordered::new(), true);
    loop {
        while turns.len() < SIDE_BY_SIDE && slice.goes_on() && (more || !waiting.is_empty()) {
            if waiting.is_empty() {
                waiting.extend(
                    worker
                        .ledger
                        .recovery_accounts(tick.now, 8)
                        .await
                        .step("recover.accounts_taken")?,
                );
                more = !waiting.is_empty();
            }
            turns.extend(waiting.pop_front().map(|account| account_turn(&slice, account)));
        }
        match turns.next().await {
            Some(result) => result?,
            None => break,
        }
    }
    if slice.is_urgent() && slice.timed_out() && !stop.is_cancelled() {
        worker.bells.search.notify_one(); // there is more, and it is urgent
    }
    Ok(())
}

/// An account's turn: each round has a share of its calls and of the time, and begins one item in any case.
async fn account_turn(slice: &Slice<'_>, account: String) -> Result<(), LedgerError> {
    let Some(mut turn) = Turn::begin(slice, account.clone()).await? else {
        return census::move_away(slice, &account).await;
    };
    let short = Duration::from_secs(10);
    // What is cheap first. What is left over of a round's share is the next one's.
    turn.share(Share {
        calls: 0.25,
        all: 0.2,
        time: short,
    });
    lists::look(&mut turn).await?;
    turn.share(Share {
        calls: 0.25,
        all: 0.2,
        time: short,
    });
    hooks::look(&mut turn).await?;
    turn.share(Share {
        calls: 0.15,
        all: 0.1,
        time: short,
    });
    strays::look(&mut turn).await?;
    turn.share(Share {
        calls: 0.85,
        all: 0.95,
        time: Duration::MAX,
    });
    sweep::look(&mut turn, Round::Repos).await?;
    turn.share(Share {
        calls: 1.0,
        all: 1.0,
        time: short,
    });
    sweep::look(&mut turn, Round::Rereads).await?;
    turn.end().await
}
