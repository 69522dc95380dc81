//! Observe: the runners' watch → ledger. Every replica watches; a slot is freed by whoever sees the end first, the
//! others change nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use jit_backend::{Change, Observed, Phase};
use jit_core::ledger::{LedgerError, Observation};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Worker, retry::persist, step::Step};

pub(super) const NAME: &str = "observe";
/// So long an observation is offered to a ledger that does not answer; after that the next reconcile finds the
/// difference.
const PERSIST: Duration = Duration::from_secs(30);

/// Watches until `stop`.
pub async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut changes = worker.backend.watch();
    let tasks = TaskTracker::new();
    // What was last told of each runner, so that a pod that changes often costs the ledger nothing.
    let mut told: HashMap<String, (Phase, Option<String>)> = HashMap::new();
    loop {
        let change = tokio::select! { () = stop.cancelled() => break, change = changes.next() => change };
        let round = worker.loops.begin(NAME);
        match change {
            Some(Change::Seen(seen)) => {
                let news = (seen.phase, seen.detail.clone());
                if told.get(&seen.name) == Some(&news) {
                    round.succeeded();
                } else {
                    told.insert(seen.name.clone(), news);
                    round.end(tell(&worker, &tasks, seen).await);
                }
            }
            Some(Change::Gone(name)) => {
                told.remove(&name);
                round.end(release(&worker, &tasks, &name, "gone", false).await);
            }
            Some(Change::Restarted) => {
                worker.bells.reconcile.notify_one();
                round.succeeded();
            }
            None => {
                round.failed(&"the watch has ended");
                tracing::warn!("the watch has ended; watching anew");
                changes = worker.backend.watch();
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn tell(worker: &Arc<Worker>, tasks: &TaskTracker, seen: Observed) -> Result<(), LedgerError> {
    let (what, why) = match (seen.phase, seen.detail) {
        (Phase::Ended, detail) => {
            return release(
                worker,
                tasks,
                &seen.name,
                &detail.unwrap_or_else(|| "ended".into()),
                seen.rejected,
            )
            .await;
        }
        (Phase::Running, _) => (Observation::Started, String::new()),
        (Phase::Starting, Some(detail)) => (Observation::Note, detail),
        (Phase::Starting, None) => return Ok(()),
    };
    match persist(PERSIST, || worker.ledger.observe(what, &seen.name, &why))
        .await
        .step("observe.told")
    {
        Ok(observed) if observed.woken => worker.admit().await,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, runner.name = seen.name, "the ledger did not take what was seen of a runner");
            return Err(error);
        }
    }
    Ok(())
}

/// GitHub refuses a runner that is too old: its program ends with this code, and so would every other of its image.
fn is_outdated(why: &str) -> bool {
    why.strip_prefix("exit code 7")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Frees the runner's slot, admits, and then removes what is left of the runner. A removal that is lost here is the
/// next reconcile's.
async fn release(
    worker: &Arc<Worker>,
    tasks: &TaskTracker,
    name: &str,
    why: &str,
    rejected: bool,
) -> Result<(), LedgerError> {
    let what = match (is_outdated(why), rejected) {
        (true, _) => Observation::Outdated,
        (false, true) => Observation::Rejected,
        (false, false) => Observation::Release,
    };
    match persist(PERSIST, || worker.ledger.observe(what, name, why))
        .await
        .step("observe.released")
    {
        Ok(observed) if observed.changed => {
            worker.metrics.released.inc();
            tracing::info!(runner.name = name, why, "runner released");
            worker.admit().await;
            let (worker, name) = (worker.clone(), name.to_owned());
            tasks.spawn(async move {
                if let Err(error) = worker.backend.stop(&name).await.step("observe.remains_removed") {
                    tracing::warn!(
                        %error,
                        runner.name = name,
                        "what is left of a runner cannot be removed; the next reconcile does"
                    );
                }
            });
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(
                %error,
                runner.name = name,
                "the ledger did not take a runner's end; the next reconcile finds it"
            );
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_outdated;

    #[test]
    fn exit_code_7_and_no_other_means_outdated() {
        assert!(is_outdated("exit code 7") && is_outdated("exit code 7: Error"));
        for other in [
            "exit code 70: Error",
            "exit code 137: OOMKilled",
            "dind: exit code 7: Error",
            "ended",
        ] {
            assert!(!is_outdated(other), "{other}");
        }
    }
}
