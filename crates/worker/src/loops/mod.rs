//! The loops of a worker, and the order in which they start and stop.
//!
//! ```text
//! JOB FLOW
//!
//!   receiver, search ──▶ jit:events ──▶ intake ──▶ ledger ──▶ admit ──▶ jit:provision ──▶ provision
//!                                                  ▲  ▲  ▲                                    │
//!                                                  │  │  │                    pod, GitHub, Secret
//!                                                  │  │  │                                    ▼
//!                                                  │  │  └──────── observe ◀────────────── runner
//!                                                  │  │                                     ▲  ▲
//!                                                  │  └─ reconcile: is it what is there? ───┘  │
//!                                                  └─── upkeep: removals, questions ───────────┘
//!
//!   beat ──▶ jit:ticks ──▶ ticks ──▶ bells of upkeep, reconcile and search; entries of dead workers
//! ```
//!
//! | loop | does | a round of it is |
//! |---|---|---|
//! | [`intake`] | applies job events | a batch |
//! | [`provision`] | makes runners, as many at once as there are permits | a read of reservations |
//! | [`ticks`] | passes on ticks; takes over what dead workers held | a read of ticks |
//! | [`search`] | asks GitHub for what never came | a slice |
//! | [`upkeep`] | removes runners, asks about jobs | what was due when it was rung for |
//! | [`reconcile`] | compares the ledger with the runners that are there | a comparison |
//! | [`observe`] | tells the ledger what the watch on runners shows | a change |
//! | [`heartbeat`] | says that the worker lives | a beat |
//! | [`rates`] | passes on what GitHub says of its limits | what was said within a second |
//! | [`credentials`] | looks for changed credentials | a look |
//!
//! [`admit`] is no loop: each of them admits after what could make room or demand. [`Bells`] wake the loops that work
//! when rung for, and [`LoopStatus`] holds how each fares.
//!
//! What takes in new work (intake, provision, ticks, search) stops first. What finishes work follows when nothing is in
//! hand any more.

use std::{sync::Arc, time::Duration};

use jit_core::{ledger::conditions, store::check::Checks};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    credentials::{self, Keeper},
    provision, rates,
};

pub mod admit;
pub mod heartbeat;
pub mod intake;
pub mod observe;
pub mod reconcile;
mod rung;
pub mod search;
mod status;
pub mod ticks;
pub mod upkeep;

pub use admit::{Admitter, Outcome};
pub use rung::Bells;
pub use status::LoopStatus;

/// How long a reader waits for new entries, and so how long a stop may go unnoticed by it.
pub(crate) const BLOCK: Duration = Duration::from_millis(1000);

/// The loops by name.
pub(crate) const NAMES: [&str; 10] = [
    intake::NAME,
    provision::NAME,
    ticks::NAME,
    search::NAME,
    upkeep::NAME,
    reconcile::NAME,
    observe::NAME,
    heartbeat::NAME,
    rates::NAME,
    credentials::NAME,
];

/// Loops that are under way.
pub(crate) struct Loops {
    /// Stopped first.
    taking: Vec<JoinHandle<()>>,
    /// Stopped by `finish`.
    finishing: Vec<JoinHandle<()>>,
    finish: CancellationToken,
}

impl Loops {
    /// Starts all loops. `stop` ends those that take in work.
    pub(crate) fn start(worker: &Arc<Worker>, keeper: Keeper, checks: Checks, stop: &CancellationToken) -> Self {
        let finish = CancellationToken::new();
        let finishing = vec![
            spawn(worker, &finish, async |worker, stop| upkeep::run(&worker, &stop).await),
            spawn(worker, &finish, async |worker, stop| {
                reconcile::run(&worker, &stop).await
            }),
            spawn(worker, &finish, async |worker, stop| {
                heartbeat::run(&worker, &stop).await
            }),
            spawn(worker, &finish, observe::run),
            spawn(worker, &finish, async |worker, stop| rates::run(&worker, &stop).await),
            spawn(worker, &finish, async move |worker, stop| {
                keeper.watch(&worker, &stop).await
            }),
            spawn(worker, &finish, async move |_, stop| checks.watch(&stop).await),
            spawn(worker, &finish, async |worker, stop| {
                conditions::watch(&worker.ledger, &worker.id, &stop).await
            }),
        ];
        let taking = vec![
            spawn(worker, stop, async |worker, stop| intake::run(&worker, &stop).await),
            spawn(worker, stop, async |worker, stop| ticks::run(&worker, &stop).await),
            spawn(worker, stop, async |worker, stop| search::run(&worker, &stop).await),
            spawn(worker, stop, provision::run),
        ];
        Self {
            taking,
            finishing,
            finish,
        }
    }

    /// Waits until what takes in work has ended, and nothing is in hand any more.
    pub(crate) async fn taken(&mut self) -> Result<(), JoinError> {
        for task in self.taking.drain(..) {
            task.await?;
        }
        Ok(())
    }

    /// Stops the rest.
    pub(crate) async fn finish(self) -> Result<(), JoinError> {
        self.finish.cancel();
        for task in self.finishing {
            task.await?;
        }
        Ok(())
    }
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    worker: &Arc<Worker>,
    stop: &CancellationToken,
    task: impl FnOnce(Arc<Worker>, CancellationToken) -> F,
) -> JoinHandle<()> {
    tokio::spawn(task(worker.clone(), stop.clone()))
}
