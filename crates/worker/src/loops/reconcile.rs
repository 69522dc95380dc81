//! Reconcile: the ledger against the runners that are really there.

use std::time::Duration;

use jit_backend::{Observed, Phase, RunnerSpec};
use jit_core::{
    class::Class,
    event::JobId,
    ledger::{Leftover, Listed, ListedSpec, Reconciliation},
    operator,
};
use tokio_util::sync::CancellationToken;

use super::{
    rung::{Next, Rung},
    upkeep,
};
use crate::{Worker, step::Step};

pub(super) const NAME: &str = "reconcile";

/// Reconciles when rung for, until `stop`; by itself when it is time to open the gate, or where it failed.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    let rung = Rung {
        name: NAME,
        bell: &worker.bells.reconcile,
        failed: "cannot reconcile; trying again",
        again: true,
    };
    let work = async || {
        let wait = once(worker).await?.opens_in;
        anyhow::Ok(wait.map_or(Next::WhenRung, |wait| Next::After(Duration::from_millis(wait))))
    };
    rung.run(&worker.loops, stop, work).await;
}

/// Lists the real runners, compares, adopts, releases, and ends what is not wanted.
///
/// # Errors
/// When the backend or the ledger does not answer; nothing is half done that the next one does not finish.
pub async fn once(worker: &Worker) -> anyhow::Result<Reconciliation> {
    let started = tokio::time::Instant::now();
    operator::ensure_configured(&worker.ledger, &worker.limits)
        .await
        .step("reconcile.configured")?;
    let began = worker.ledger.now().await?;
    let seen = worker.backend.list().await.step("reconcile.listed")?;
    tell_of_stuck(worker, &seen);
    let runners: Vec<Listed> = seen.into_iter().map(listed).collect();
    let result = worker
        .ledger
        .reconcile(began, &runners)
        .await
        .step("reconcile.compared")?;
    worker.metrics.reconcile_seconds.set(started.elapsed().as_secs_f64());
    let changed = result.released + result.adopted + result.corrected > 0 || result.opened || !result.stop.is_empty();
    let (listed, released, adopted, corrected) = (runners.len(), result.released, result.adopted, result.corrected);
    if changed {
        tracing::info!(
            listed,
            released,
            adopted,
            corrected,
            ended = result.stop.len(),
            opened = result.opened,
            "reconciled"
        );
    } else {
        tracing::debug!(listed, "reconciled: nothing differs");
    }
    let moved = worker
        .ledger
        .derive_classes(&worker.search.jobs)
        .await
        .step("reconcile.classes_derived")?;
    if moved > 0 {
        tracing::info!(
            jobs = moved,
            "other settings had said where the runners of these jobs register, and how: they wait for others now"
        );
    }
    if let Some(wait) = result.opens_in {
        tracing::info!(
            wait_ms = wait,
            "the data in Redis is new or restored: runners that are on their way are waited for before any more are \
             made"
        );
    } else {
        worker.admit().await;
    }
    if result.opened {
        worker.bells.search.notify_one(); // what the lost data held is looked for at once
    }
    // Last, since GitHub may take its time.
    for leftover in &result.stop {
        end(worker, leftover).await;
    }
    Ok(result)
}

/// What cannot be ended from here: an operator has to look at its node.
fn tell_of_stuck(worker: &Worker, seen: &[Observed]) {
    let stuck: Vec<&str> = seen
        .iter()
        .filter(|runner| runner.stuck)
        .map(|runner| runner.name.as_str())
        .collect();
    worker
        .metrics
        .stuck_pods
        .set(i64::try_from(stuck.len()).unwrap_or(i64::MAX));
    if !stuck.is_empty() {
        tracing::warn!(
            pods = stuck.len(),
            first = stuck[0],
            "pods should have been gone for minutes and are not, as on a lost node"
        );
    }
}

/// Ends what the ledger does not count; where it may be at work, only when GitHub has said that it is not.
async fn end(worker: &Worker, leftover: &Leftover) {
    let name = leftover.name.as_str();
    if let Some(removal) = &leftover.removal
        && !upkeep::may_end(worker, removal).await
    {
        tracing::warn!(
            runner.name = name,
            "a runner that the ledger does not count is at work, or GitHub does not say that it is not; it lives on"
        );
        return;
    }
    tracing::info!(runner.name = name, "ending a runner that the ledger does not count");
    if let Err(error) = worker.backend.stop(name).await.step("reconcile.stopped") {
        tracing::warn!(%error, runner.name = name, "it cannot be ended; the next reconcile tries again");
    }
}

fn listed(seen: Observed) -> Listed {
    let described = seen
        .spec
        .as_ref()
        .and_then(|spec| Some((class_of(spec), JobId::new(spec.job)?, spec)));
    let spec = described.as_ref().map(|(class, job, _)| ListedSpec {
        org: class.org.clone(),
        scope: class.scope.clone(),
        group: class.group.clone(),
        profile: class.profile.clone(),
        labels: serde_json::json!(class.labels).to_string(),
        job: *job,
    });
    Listed {
        ended: seen.phase == Phase::Ended,
        rejected: seen.rejected,
        detail: seen.detail,
        running: seen.phase == Phase::Running,
        terminating: seen.terminating,
        class: described.map(|(class, ..)| class.id()),
        spec,
        name: seen.name,
    }
}

fn class_of(spec: &RunnerSpec) -> Class {
    Class {
        org: spec.org.clone(),
        scope: spec.scope.clone(),
        group: spec.group.clone(),
        profile: spec.profile.clone(),
        labels: Class::normalize_labels(&spec.labels),
    }
}
