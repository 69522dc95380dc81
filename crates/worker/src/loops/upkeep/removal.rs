//! Removals: at GitHub first, then the pod; and registrations that are left over.

use jit_backend::Stopped;
use jit_core::ledger::{Deregistration, Doubt, LedgerError, Observation, Removal};
use jit_github::{Client, Deletion, Lookup, Scope};

use crate::{Worker, step::Step};

/// What GitHub says of a runner's registration.
enum Deregistered {
    /// Confirmed to be gone.
    Gone(Deregistration),
    /// Not found by its name, in complete lists; a call that is still under way may make it yet.
    NotFound,
    /// At work; with its id, where a look-up found it.
    Busy(Option<u64>),
    /// GitHub does not say.
    Unknown,
    /// Nobody may ask GitHub for its owner any more.
    Unserved,
}

/// `looks`: so many complete lists have to lack a runner whose id is not known before it is not found.
async fn deregister(worker: &Worker, name: &str, scope: &str, id: Option<u64>, looks: u32) -> Deregistered {
    let Ok(scope) = scope.parse::<Scope>() else {
        return Deregistered::NotFound;
    };
    match worker
        .with_client(&scope, |client| delete(client, name, &scope, id, looks))
        .await
    {
        Ok(registration) => registration,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "GitHub does not say whether a runner is gone; asked again");
            if is_unserved(&error) {
                Deregistered::Unserved
            } else {
                Deregistered::Unknown
            }
        }
    }
}

/// Whether no credential can ask: none is configured for the owner, or its App is not installed there, or suspended.
fn is_unserved(error: &jit_github::Error) -> bool {
    use jit_github::Error;
    matches!(
        error,
        Error::NotServed { .. } | Error::NotInstalled { .. } | Error::Suspended { .. }
    )
}

/// Absence is no proof: GitHub answers 404 too where the credential may not see the scope any more. That it does not
/// know the id counts where it lists the runners of the scope, and that no list holds the name, where the list was
/// complete.
async fn delete(
    client: Client,
    name: &str,
    scope: &Scope,
    id: Option<u64>,
    looks: u32,
) -> Result<Deregistered, jit_github::Error> {
    if let Some(id) = id {
        match delete_by_id(&client, scope, id).await? {
            Deletion::Deleted => return Ok(Deregistered::Gone(Deregistration::Deleted)),
            Deletion::Busy => return Ok(Deregistered::Busy(None)),
            Deletion::NotFound => {}
        }
    }
    let looks = if id.is_some() { 1 } else { looks };
    for _ in 0..looks {
        match client
            .find_runner(scope, name)
            .await
            .step("upkeep.registration_found")?
        {
            // two answers that contradict each other
            Lookup::Found(runner) if Some(runner.id) == id => return Ok(Deregistered::Unknown),
            Lookup::Found(runner) => {
                return Ok(match delete_by_id(&client, scope, runner.id).await? {
                    Deletion::Deleted => Deregistered::Gone(Deregistration::Deleted),
                    Deletion::NotFound => Deregistered::Gone(Deregistration::Absent),
                    Deletion::Busy => Deregistered::Busy(Some(runner.id)),
                });
            }
            Lookup::Unseen if id.is_none() => {
                tracing::info!(
                    runner.name = name,
                    %scope,
                    "the list of runners changed while it was read, so it proves nothing; read again"
                );
                return Ok(Deregistered::Unknown);
            }
            Lookup::Unseen | Lookup::Absent => {}
        }
    }
    Ok(if id.is_some() {
        Deregistered::Gone(Deregistration::Absent)
    } else {
        Deregistered::NotFound
    })
}

async fn delete_by_id(client: &Client, scope: &Scope, id: u64) -> Result<Deletion, jit_github::Error> {
    client
        .delete_runner(scope, id)
        .await
        .step("upkeep.registration_deleted")
}

/// GitHub must say first that a runner is not registered, where it may be.
fn must_ask(removal: &Removal) -> bool {
    !removal.deregistered && (removal.github_id.is_some() || removal.uncertain)
}

async fn registration_of(worker: &Worker, removal: &Removal) -> Deregistered {
    let looks = if removal.started { 2 } else { 1 };
    if must_ask(removal) {
        deregister(worker, &removal.name, &removal.scope, removal.github_id, looks).await
    } else {
        Deregistered::NotFound
    }
}

/// Whether the pod of a runner that does not count may end: GitHub has it no more.
pub(in crate::loops) async fn may_end(worker: &Worker, removal: &Removal) -> bool {
    matches!(
        registration_of(worker, removal).await,
        Deregistered::Gone(_) | Deregistered::NotFound
    )
}

pub(super) async fn remove(worker: &Worker, removal: &Removal) -> Result<(), LedgerError> {
    let name = removal.name.as_str();
    let ask = must_ask(removal);
    let registration = registration_of(worker, removal).await;
    let unserved = matches!(registration, Deregistered::Unserved);
    let settled = !ask || matches!(registration, Deregistered::Gone(_));
    let (confirmed, observation) = match registration {
        Deregistered::Busy(id) => {
            tracing::info!(
                runner.name = name,
                "a runner that was to be removed is at work, and lives"
            );
            return worker
                .ledger
                .observe_busy(name, id)
                .await
                .step("upkeep.found_busy")
                .map(|_| ());
        }
        Deregistered::Unknown | Deregistered::Unserved => (None, Observation::Postpone), // its pod is not touched
        Deregistered::NotFound => (None, stop(worker, name, settled).await),
        Deregistered::Gone(how) => (Some(how), stop(worker, name, settled).await),
    };
    let why = "removed";
    let observed = match (confirmed, observation) {
        (Some(how), _) => worker
            .ledger
            .observe_deregistered(observation, name, why, how)
            .await
            .step("upkeep.removed")?,
        (None, Observation::Postpone) => worker
            .ledger
            .postpone(name, why, unserved)
            .await
            .step("upkeep.postponed")?,
        (None, _) => worker
            .ledger
            .observe(observation, name, why)
            .await
            .step("upkeep.removed_unregistered")?,
    };
    if observation != Observation::Postpone {
        tracing::info!(runner.name = name, runner.state = %observed.state, "runner removed");
    }
    Ok(())
}

/// Ends the pod, and says what is to be observed then. A pod that does not go, as on a lost node, keeps no slot where
/// it is `settled` that its runner takes no job any more.
async fn stop(worker: &Worker, name: &str, settled: bool) -> Observation {
    match worker.backend.stop(name).await.step("upkeep.pod_stopped") {
        Ok(Stopped::Stuck) if settled => {
            tracing::warn!(
                runner.name = name,
                "a pod was to be gone minutes ago and is not, as on a lost node; its slot is free, since its runner is \
                 not registered any more"
            );
            Observation::Release
        }
        Ok(Stopped::Ending | Stopped::Stuck) => Observation::Note, // its slot is freed when it is gone
        Ok(Stopped::Absent) => Observation::Absent,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "a runner's pod cannot be removed; tried again");
            Observation::Postpone
        }
    }
}

/// Deletes a registration that may be left over, whose runner is gone.
pub(super) async fn look_up(worker: &Worker, doubt: &Doubt) -> Result<(), LedgerError> {
    if let Deregistered::Gone(how) = deregister(worker, &doubt.name, &doubt.scope, doubt.github_id, 1).await {
        if how == Deregistration::Deleted {
            tracing::info!(runner.name = doubt.name, "deleted a registration that was left over");
        }
        worker.ledger.settle_doubt(doubt).await.step("upkeep.doubt_settled")?;
    }
    Ok(())
}
