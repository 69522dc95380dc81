//! Loops that work when rung for: what all of them have in common.

use std::{fmt::Display, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::status::LoopStatus;
use crate::retry::Pause;

/// What loops are rung with, by one another. Rung twice before it is heard, a bell is heard once.
#[derive(Default)]
pub struct Bells {
    /// There is something to remove or to ask.
    pub upkeep: Notify,
    /// The real runners should be counted.
    pub reconcile: Notify,
    /// What never came should be looked for.
    pub search: Notify,
}

/// When a loop works again after a round.
pub(super) enum Next {
    /// When it is rung for.
    WhenRung,
    /// By itself, after this time.
    After(Duration),
}

/// A loop that works when rung for.
pub(super) struct Rung<'a> {
    /// As `/loops` names it.
    pub(super) name: &'static str,
    pub(super) bell: &'a Notify,
    /// Said of a round that failed, and what comes then.
    pub(super) failed: &'static str,
    /// Whether a round that failed is tried again by itself.
    pub(super) again: bool,
}

impl Rung<'_> {
    /// Works when rung for, until `stop`. After a round that failed it pauses, longer from failure to failure.
    pub(super) async fn run<E: Display, F: Future<Output = Result<Next, E>>>(
        &self,
        status: &LoopStatus,
        stop: &CancellationToken,
        mut work: impl FnMut() -> F,
    ) {
        let mut pause = Pause::new();
        loop {
            tokio::select! { () = stop.cancelled() => return, () = self.bell.notified() => {} }
            let round = status.begin(self.name);
            let result = work().await;
            round.end(result.as_ref().map(|_| ()));
            let again = match result {
                Ok(next) => {
                    pause = Pause::new();
                    let Next::After(wait) = next else { continue };
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(wait) => {} }
                    true
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "{}", self.failed);
                    pause.wait(stop).await;
                    self.again
                }
            };
            if again {
                self.bell.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Rings once, and gives the rounds of an hour in which each has this result.
    async fn rounds(again: bool, result: impl Fn() -> Result<Next, String>) -> u32 {
        let (bell, count, stop) = (Notify::new(), Cell::new(0), CancellationToken::new());
        let rung = Rung {
            name: "test",
            bell: &bell,
            failed: "it failed",
            again,
        };
        bell.notify_one();
        let status = LoopStatus::new(&[]);
        let run = rung.run(&status, &stop, || {
            count.set(count.get() + 1);
            let result = result();
            async { result }
        });
        let _ = tokio::time::timeout(Duration::from_secs(3600), run).await;
        count.get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_works_when_rung_for_and_by_itself_where_it_says_so() {
        assert_eq!(rounds(false, || Ok(Next::WhenRung)).await, 1);
        let wait = Duration::from_secs(601);
        assert_eq!(rounds(false, || Ok(Next::After(wait))).await, 6);
        assert_eq!(rounds(false, || Err("no".into())).await, 1, "the next tick rings");
        let tries = rounds(true, || Err("no".into())).await;
        assert!((700..730).contains(&tries), "every 5 s: {tries}");
    }
}
