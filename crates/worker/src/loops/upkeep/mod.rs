//! Upkeep: the work whose time has come. Runners to remove, jobs to ask GitHub about, registrations that may be left
//! over.
//!
//! There is one way to remove a runner, whoever wants it gone: at GitHub first, and only when GitHub confirms that it
//! is not registered is its pod touched. GitHub refuses (422) while a job runs on it, and then the runner lives.
//!
//! Absence is not taken for proof. A 404 counts where GitHub shows what would stand beside the thing that is not there:
//! the runners of its scope, the runs of its repository. Else nothing is removed, and no job is given up.

use std::{sync::Arc, time::Duration};

use jit_core::{
    ledger::{Doubt, LedgerError, Question, Removal},
    names,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::rung::{Next, Rung};
use crate::{
    Worker,
    permits::{Permits, owner_of},
    step::Step,
};

mod question;
mod removal;

use question::ask;
pub(super) use removal::may_end;
use removal::{look_up, remove};

pub(super) const NAME: &str = "upkeep";
/// Pieces of each kind that are taken at once.
const BATCH: u32 = 64;
/// Pieces that are worked on at once.
const AT_ONCE: usize = 8;
/// So long what is in hand is waited for at the end; what is not done then is handed out again.
const FINISH: Duration = Duration::from_secs(5);

/// Works when rung for, until `stop`.
pub async fn run(worker: &Arc<Worker>, stop: &CancellationToken) {
    let (permits, tasks) = (Arc::new(Permits::new(AT_ONCE)), TaskTracker::new());
    let rung = Rung {
        name: NAME,
        bell: &worker.bells.upkeep,
        failed: "upkeep is interrupted; what is not done is taken up again",
        again: false,
    };
    let work = async || work(worker, &permits, &tasks, stop).await.map(|()| Next::WhenRung);
    rung.run(&worker.loops, stop, work).await;
    tasks.close();
    let _ = tokio::time::timeout(FINISH, tasks.wait()).await;
}

/// Works off what is due now, and what that makes due: a tick of a clock that a test drives.
///
/// # Errors
/// When Redis is unavailable.
pub async fn once(worker: &Arc<Worker>) -> Result<(), LedgerError> {
    let (permits, tasks) = (Arc::new(Permits::new(AT_ONCE)), TaskTracker::new());
    let result = work(worker, &permits, &tasks, &CancellationToken::new()).await;
    tasks.close();
    tasks.wait().await;
    result
}

/// One piece of work that is due.
enum Piece {
    Removal(Removal),
    Question(Question),
    Doubt(Doubt),
}

impl Piece {
    /// Whose it is.
    fn owner(&self) -> String {
        match self {
            Self::Removal(removal) => owner_of(&removal.scope),
            Self::Question(question) => names::owner_of(&question.repo).to_lowercase(),
            Self::Doubt(doubt) => owner_of(&doubt.scope),
        }
    }

    async fn work(&self, worker: &Worker) {
        let (result, what) = match self {
            Self::Removal(removal) => (remove(worker, removal).await, &removal.name),
            Self::Question(question) => (ask(worker, question).await, &question.repo),
            Self::Doubt(doubt) => (look_up(worker, doubt).await, &doubt.name),
        };
        if let Err(error) = result {
            tracing::warn!(%error, what, "the ledger did not take a result; it is tried again");
        }
        worker.admit().await;
    }
}

async fn work(
    worker: &Arc<Worker>,
    permits: &Arc<Permits>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), LedgerError> {
    loop {
        let due = worker
            .ledger
            .due(BATCH, worker.take_over.lease)
            .await
            .step_if("upkeep.leased", |due| due.as_ref().is_ok_and(|due| !due.is_empty()))?;
        match due.is_empty() {
            _ if stop.is_cancelled() => return Ok(()),
            true if due.held == 0 => return Ok(()),
            true => continue, // behind what GitHub holds back there may be work of others
            false => {}
        }
        let removals = due.removals.into_iter().map(Piece::Removal);
        for piece in removals
            .chain(due.questions.into_iter().map(Piece::Question))
            .chain(due.registrations.into_iter().map(Piece::Doubt))
        {
            let owner = piece.owner();
            if permits.exhausted(&owner).is_some() {
                continue; // slow enough: it is handed out again when its lease is over
            }
            let Some(permit) = permits.permit().await else {
                return Ok(());
            };
            let (worker, permits) = (worker.clone(), permits.clone());
            tasks.spawn(async move { permits.hold(permit, &owner, piece.work(&worker)).await });
        }
    }
}
