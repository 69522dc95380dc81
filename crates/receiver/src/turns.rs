//! Turns: work on what large senders send is done one piece at a time in the whole process, with a pause after each.
//!
//! The process has two threads. Two hundred senders that each send as fast as they can would keep both busy, and a
//! webhook would wait for all of them at each of its steps. With turns and pauses they take a tenth of one thread, some
//! 30 MB a second together: a body of 25 MB that comes alone is read within a second.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// Nobody has a turn for so long after one: the shortest time that tokio's clock knows.
const PAUSE: Duration = Duration::from_millis(1);

/// The turns of this process. Whoever asked first is first.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Waits for a turn, does `work` on one piece, and pauses.
    pub async fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        // The semaphore is never closed. Were it so, the work would be done without a turn.
        let turn: Option<OwnedSemaphorePermit> = self.0.clone().acquire_owned().await.ok();
        let done = work();
        sleep(PAUSE).await;
        drop(turn);
        done
    }
}
