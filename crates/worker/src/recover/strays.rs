//! Strays: registrations with our prefix that are offline, not busy, and nobody's here. Seen twice, they are deleted.
//!
//! They are left over from a crash between GitHub's answer and ours, or from a Redis that lost its data. A runner that is live here is
//! never one; nor is one of another prefix. Two installations that share a prefix on one GitHub would take each other's runners for strays.

use jit_core::ledger::{LedgerError, recovery::Registered};
use jit_github::{Deletion, Runner, RunnerStatus, Scope};

use super::{Slice, Told};
use crate::step::Step;

/// Scopes that are taken from the ledger at once.
const BATCH: u32 = 20;

/// Looks at the registrations of the scopes whose time has come.
pub(super) async fn look(slice: &mut Slice<'_>) -> Result<(), LedgerError> {
    while slice.goes_on() {
        let scopes = slice.worker.ledger.stray_scopes(BATCH).await.step("recover.stray_scopes_read")?;
        if scopes.is_empty() {
            return Ok(());
        }
        for text in scopes {
            if !slice.goes_on() {
                return Ok(());
            }
            scope(slice, &text).await?;
        }
    }
    Ok(())
}

/// Looks at one scope. One that cannot be looked at now is looked at again as soon as one where something was seen, so that the others come first.
async fn scope(slice: &mut Slice<'_>, text: &str) -> Result<(), LedgerError> {
    let worker = slice.worker;
    let (mut seen, mut cleared, mut told) = (Vec::new(), Vec::new(), Told::Refused);
    let scope = text.parse::<Scope>().ok();
    if let Some(scope) = &scope {
        let mut page = 1;
        loop {
            let client = match slice.call(scope).await? {
                Ok(client) => client,
                Err(why) => {
                    told = why;
                    break;
                }
            };
            let listed = match client.runners_page(scope, page).await.step("recover.runners_listed") {
                Ok(listed) => listed,
                Err(error) => {
                    told = slice.told(scope, &error);
                    break;
                }
            };
            for runner in listed.items.iter().filter(|runner| is_ours(&runner.name, &worker.limits.prefix)) {
                let list = if may_be_stray(runner) { &mut seen } else { &mut cleared };
                list.push(Registered { name: runner.name.clone(), id: runner.id.to_string() });
            }
            if !listed.more {
                break;
            }
            page += 1;
        }
    }
    let waits = told != Told::Refused;
    if waits && !slice.goes_on() {
        return Ok(()); // it is the first of the next slice
    }
    let (confirm, interval) = (worker.recovery.stray_confirm, worker.recovery.stray_interval);
    let again = if waits { confirm.min(interval) } else { interval };
    let delete = worker.ledger.strays(text, &seen, &cleared, confirm, again).await.step("recover.strays_noted")?;
    let Some(scope) = scope.filter(|_| !waits) else { return Ok(()) };
    for stray in delete {
        let Ok(id) = stray.id.parse() else { continue };
        let Ok(client) = slice.call(&scope).await? else { return Ok(()) };
        match client.delete_runner(&scope, id).await.step("recover.stray_deleted") {
            Ok(Deletion::Busy) => {} // it works after all
            Ok(deletion) => {
                if deletion == Deletion::Deleted {
                    tracing::info!(runner.name = stray.name, scope = text, "deleted a registration that nobody here knows");
                    worker.metrics.strays_deleted.inc();
                }
                worker.ledger.stray_gone(text, &stray).await.step("recover.stray_settled")?;
            }
            Err(error) if slice.told(&scope, &error) == Told::Refused => {}
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
