//! Strays: registrations with our prefix that are offline, not busy, and nobody's here. Seen twice, they are deleted.
//!
//! They are left over from a crash between GitHub's answer and ours, or from a Redis that lost its data. A runner that
//! is live here is never one; nor is one of another prefix. Two installations that share a prefix on one GitHub would
//! take each other's runners for strays.

use jit_core::ledger::{
    LedgerError,
    recovery::{Registered, Round},
};
use jit_github::{Deletion, Runner, RunnerStatus, Scope};

use super::{SliceError, Turn};
use crate::step::Step;

/// Looks at the registrations of the scopes whose time has come.
pub(super) async fn look(turn: &mut Turn<'_>) -> Result<(), LedgerError> {
    while let Some(due) = turn.next(Round::Scopes).await? {
        match due.item.parse::<Scope>() {
            Ok(scope) => one(turn, &due.item, &scope).await?,
            Err(_) => turn.done(Round::Scopes, &due.item, None).await?,
        }
    }
    Ok(())
}

/// Looks at one scope. One that does not answer is looked at again as soon as one where something was seen, so that the
/// others come first.
async fn one(turn: &mut Turn<'_>, text: &str, scope: &Scope) -> Result<(), LedgerError> {
    let worker = turn.slice.worker;
    let (mut seen, mut cleared, mut waits) = (Vec::new(), Vec::new(), false);
    let mut page = 1;
    loop {
        let Ok(client) = turn.call().await? else { return Ok(()) }; // it is the first of the next turn
        let listed = client.runners_page(scope, page).await.step("recover.runners_listed");
        let listed = match turn.heard(scope.owner(), listed) {
            Ok(listed) => listed,
            Err(SliceError::Later) => return Ok(()),
            Err(told) => {
                waits = told == SliceError::Failed;
                break;
            }
        };
        for runner in listed
            .items
            .iter()
            .filter(|runner| is_ours(&runner.name, &worker.limits.prefix))
        {
            let list = if may_be_stray(runner) { &mut seen } else { &mut cleared };
            list.push(Registered {
                name: runner.name.clone(),
                id: runner.id.to_string(),
            });
        }
        if !listed.more {
            break;
        }
        page += 1;
    }
    let (confirm, interval) = (worker.search.stray_confirm, worker.search.stray_interval);
    let again = if waits { confirm.min(interval) } else { interval };
    let delete = worker
        .ledger
        .strays(&turn.account, text, &seen, &cleared, confirm, again)
        .await
        .step("recover.strays_noted")?;
    if waits {
        return Ok(());
    }
    for stray in delete {
        let Ok(id) = stray.id.parse() else { continue };
        let Ok(client) = turn.call().await? else { return Ok(()) };
        let deleted = client.delete_runner(scope, id).await.step("recover.stray_deleted");
        match turn.heard(scope.owner(), deleted) {
            Ok(Deletion::Busy) | Err(SliceError::Refused) => {} // it works after all
            Ok(deletion) => {
                if deletion == Deletion::Deleted {
                    tracing::info!(
                        runner.name = stray.name,
                        scope = text,
                        "deleted a registration that nobody here knows"
                    );
                    worker.metrics.strays_deleted.inc();
                }
                worker
                    .ledger
                    .stray_gone(text, &stray)
                    .await
                    .step("recover.stray_settled")?;
            }
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn is_ours(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}

fn may_be_stray(runner: &Runner) -> bool {
    runner.status == RunnerStatus::Offline && !runner.busy
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_ours_by_the_whole_prefix() {
        assert!(super::is_ours("jit-runner-7-abc", "jit-runner"));
        assert!(!super::is_ours("jit-runnerette-7-abc", "jit-runner") && !super::is_ours("build-01", "jit-runner"));
    }
}
