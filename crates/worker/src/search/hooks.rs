//! Redelivery: GitHub repeats the deliveries that failed, where their hook has a call for that.
//!
//! Hooks are taken round, the one first that was read longest ago, each with so many calls at most that the others come
//! soon. A hook's deliveries are read newest first until where the last walk began; a walk that is interrupted goes on
//! the next time. A success that came after a failure is a repetition, so it is met first on that way, and settles its
//! event. What failed is repeated, the newest and queued jobs first; while the hook's newest delivery has failed, the
//! receiver is taken for away, and one repetition is a probe.

use jit_core::ledger::{
    LedgerError,
    recovery::{FailedDelivery, HookCursor, Repetition, Round},
};
use jit_github::{Delivery, HookAddress};

use super::{SliceError, Turn, census::APP_HOOK};
use crate::{metrics::Redelivered, step::Step};

/// So often one event is repeated at most: with waits of 1, 2, 4, … 60 minutes, some three hours.
const MOST: u32 = 8;
/// A hook that is read for the first time is read so far back, ms: a job waits no longer at GitHub.
const HORIZON_MS: i64 = 24 * 3_600_000;
/// A delivery stands in the list once it is answered, with the time at which it was sent: so much of what was read is
/// read again, ms.
const OVERLAP_MS: i64 = 5 * 60_000;
/// Pages of one hook at a time.
const PAGES: u32 = 20;
/// Repetitions of one hook at a time.
const REPEATS: u32 = 20;
/// A hook that GitHub did not know so often in a row is gone; before, a right may be gone for a while.
const UNKNOWN: u32 = 60;

/// Reads the deliveries of the hooks that are ours, and has those repeated that failed.
pub(super) async fn look(turn: &mut Turn<'_>) -> Result<(), LedgerError> {
    while let Some(due) = turn.next(Round::Hooks).await? {
        let Some(mut cursor) = turn
            .slice
            .worker
            .ledger
            .hook(&due.item)
            .await
            .step("recover.hook_read")?
        else {
            turn.done(Round::Hooks, &due.item, None).await?;
            continue;
        };
        let Ok(address) = due.item.split('@').next().unwrap_or_default().parse::<HookAddress>() else {
            continue;
        };
        let hook = Hook {
            name: due.item,
            owner: owner_of(&address, turn),
            address,
        };
        match walk(turn, &hook, &mut cursor).await? {
            Walk::Over => repeat(turn, &hook, cursor.works).await?,
            Walk::Missed => {}
            Walk::Later => return Ok(()),
        }
        let at = (cursor.unknown < UNKNOWN).then_some(turn.slice.now);
        turn.done(Round::Hooks, &hook.name, at).await?;
    }
    Ok(())
}

/// A webhook of ours.
struct Hook {
    /// Its name in the ledger: its address, and which App's it is.
    name: String,
    address: HookAddress,
    owner: String,
}

impl Hook {
    /// Whose jobs it tells of, all of them.
    fn covers(&self) -> Option<String> {
        match (&self.address, self.name.strip_prefix(APP_HOOK)) {
            (HookAddress::Of(jit_github::Scope::Organization(org), _), _) => Some(org.to_ascii_lowercase()),
            (_, Some(app)) => Some(format!("app:{app}")),
            _ => None,
        }
    }
}

fn owner_of(address: &HookAddress, turn: &Turn<'_>) -> String {
    match address {
        HookAddress::Of(scope, _) => scope.owner().to_owned(),
        HookAddress::App => turn.account.clone(),
    }
}

/// How far a walk came.
enum Walk {
    /// As far as it was to, or may; it goes on when the other hooks have had their turn.
    Over,
    /// GitHub refuses, or does not answer.
    Missed,
    /// Nowhere: there is no budget.
    Later,
}

/// Reads on in a hook's deliveries.
async fn walk(turn: &mut Turn<'_>, hook: &Hook, cursor: &mut HookCursor) -> Result<Walk, LedgerError> {
    let covers = hook.covers();
    for page in 0..PAGES {
        if page > 0 && !turn.goes_on() {
            return Ok(Walk::Over);
        }
        let Ok(client) = turn.call().await? else {
            return Ok(if page == 0 { Walk::Later } else { Walk::Over });
        };
        let first = cursor.page.is_none();
        let known = cursor.etag.as_deref().filter(|_| first);
        let asked = client
            .deliveries(&hook.address, cursor.page.as_deref(), known)
            .await
            .step("recover.deliveries_listed");
        let asked = match turn.heard(&hook.owner, asked) {
            Ok(asked) => asked,
            Err(SliceError::Refused) => {
                // Either GitHub does not know the hook, or the page that the walk was to go on with.
                if cursor.page.take().is_some() {
                    cursor.walk_from = None;
                } else {
                    cursor.unknown += 1;
                }
                let kept = (cursor.unknown < UNKNOWN).then_some(&*cursor);
                turn.slice
                    .worker
                    .ledger
                    .keep_hook(&hook.name, kept, covers.as_deref())
                    .await
                    .step("recover.hook_missed")?;
                return Ok(Walk::Missed);
            }
            Err(SliceError::Failed) => return Ok(Walk::Missed),
            Err(SliceError::Later) => return Ok(Walk::Later),
        };
        let Some((page, etag)) = turn.settled(asked).await? else {
            return Ok(Walk::Over);
        };
        cursor.unknown = 0;
        if first {
            let works = page.items.first().is_none_or(Delivery::succeeded);
            if works && !cursor.works {
                turn.slice
                    .worker
                    .ledger
                    .hook_awake(&hook.name)
                    .await
                    .step("recover.hook_awake")?;
            }
            cursor.works = works;
            cursor.walk_from = page.items.first().map(|newest| newest.delivered_at.as_millisecond());
        }
        let (failed, settled) = sort(&page.items);
        turn.slice
            .worker
            .ledger
            .note_deliveries(&hook.name, &failed, &settled, MOST)
            .await
            .step("recover.deliveries_noted")?;
        let oldest = page.items.last().map(|oldest| oldest.delivered_at.as_millisecond());
        let until = match (cursor.read_until, cursor.walk_from) {
            (0, newest) => newest.unwrap_or(0) - HORIZON_MS,
            (read, _) => read - OVERLAP_MS,
        };
        cursor.page = page.cursor.filter(|_| oldest.is_some_and(|oldest| oldest > until));
        // The newest page is known when nothing before it is left to read.
        cursor.etag = etag.filter(|_| first && cursor.page.is_none());
        let over = cursor.page.is_none();
        if over {
            cursor.read_until = cursor.walk_from.take().unwrap_or(0).max(cursor.read_until);
        }
        turn.slice
            .worker
            .ledger
            .keep_hook(&hook.name, Some(cursor), None)
            .await
            .step("recover.hook_kept")?;
        if over {
            return Ok(Walk::Over);
        }
    }
    Ok(Walk::Over)
}

/// Has deliveries repeated: some, or one where the receiver seems to be away.
async fn repeat(turn: &mut Turn<'_>, hook: &Hook, works: bool) -> Result<(), LedgerError> {
    let most = if works { REPEATS } else { 1 };
    for (n, delivery) in turn
        .slice
        .worker
        .ledger
        .redeliverable(&hook.name, most)
        .await
        .step("recover.redeliverable")?
        .into_iter()
        .enumerate()
    {
        if n > 0 && !turn.goes_on() {
            return Ok(());
        }
        let Ok(id) = delivery.id.parse::<u64>() else { continue };
        let Ok(client) = turn.call().await? else { return Ok(()) };
        let asked = client.redeliver(&hook.address, id).await.step("recover.redelivered");
        let said = match turn.heard(&hook.owner, asked) {
            Ok(true) => Repetition::Accepted,
            Ok(false) => Repetition::Forgotten,
            Err(SliceError::Later) => return Ok(()),
            Err(SliceError::Refused | SliceError::Failed) => Repetition::Refused,
        };
        turn.slice
            .worker
            .ledger
            .redelivered(&hook.name, &delivery.guid, said, MOST)
            .await
            .step("recover.redelivery_noted")?;
        if said == Repetition::Accepted {
            tracing::info!(
                delivery = delivery.guid,
                action = delivery.action,
                hook = hook.name,
                "GitHub repeats a delivery that failed"
            );
            turn.slice
                .worker
                .metrics
                .redelivered
                .get_or_create(&Redelivered {
                    action: delivery.action,
                })
                .inc();
        }
    }
    Ok(())
}

/// Those of a page that failed, oldest first, and the events that a repetition has delivered.
fn sort(page: &[Delivery]) -> (Vec<FailedDelivery>, Vec<String>) {
    let jobs = || page.iter().filter(|delivery| delivery.event == "workflow_job");
    let settled = jobs()
        .filter(|delivery| delivery.redelivery && delivery.succeeded())
        .map(|delivery| delivery.guid.clone())
        .collect();
    let failed = jobs()
        .filter(|delivery| !delivery.succeeded())
        .map(|delivery| FailedDelivery {
            guid: delivery.guid.clone(),
            id: delivery.id.to_string(),
            action: delivery.action.clone().unwrap_or_default(),
            at: delivery.delivered_at.as_millisecond(),
        });
    (failed.rev().collect(), settled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_sorted_into_what_failed_and_what_was_repeated_with_success() {
        let delivery = |id: u64, guid: &str, event: &str, redelivery: bool, status: u16| {
            serde_json::from_value(json!({
                "id": id, "guid": guid, "delivered_at": "2026-11-24T06:00:00Z", "redelivery": redelivery,
                "duration": 0.1, "status": "x", "status_code": status,
                "event": event, "action": "queued",
            }))
            .expect("a delivery")
        };
        let page = [
            delivery(5, "a", "workflow_job", true, 200),
            delivery(4, "b", "workflow_job", false, 200),
            delivery(3, "c", "workflow_job", false, 0),
            delivery(2, "d", "push", false, 503),
            delivery(1, "a", "workflow_job", false, 503),
        ];
        let (failed, settled) = sort(&page);
        assert_eq!(
            failed.iter().map(|one| one.guid.as_str()).collect::<Vec<_>>(),
            ["a", "c"]
        );
        assert_eq!(settled, ["a"]);
    }
}
