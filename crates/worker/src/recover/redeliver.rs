//! Redelivery: GitHub repeats the deliveries that failed, where their hook has a call for that.
//!
//! A hook's deliveries are read newest first until where the last walk began. A success that came after a failure is a repetition, so it is
//! met first on that way, and settles its event. What failed is repeated, the newest and queued jobs first; while the hook's newest delivery
//! has failed, the receiver is taken for away, and one a tick is a probe.

use std::collections::HashSet;

use jit_core::ledger::{
    LedgerError,
    recovery::{FailedDelivery, HookCursor, Repetition},
};
use jit_github::{Client, Delivery, Error, Hook, HookAddress, Scope};
use url::Url;

use super::{Slice, Told, apps};
use crate::{metrics::Redelivered, step::Step};

/// So often one event is repeated at most: with waits of 1, 2, 4, … 60 minutes, some three hours.
const MOST: u32 = 8;
/// A hook that is read for the first time is read so far back, ms: a job waits no longer at GitHub.
const HORIZON_MS: i64 = 24 * 3_600_000;
/// A delivery stands in the list once it is answered, with the time at which it was sent: so much of what was read is read again, ms.
const OVERLAP_MS: i64 = 5 * 60_000;
/// Pages of one hook in one slice.
const PAGES: u32 = 20;
/// Deliveries that are taken from the ledger at once.
const BATCH: u32 = 500;

/// Reads the deliveries of the hooks that are ours, and has those repeated that failed.
pub(super) async fn some(slice: &mut Slice<'_>) -> Result<(), LedgerError> {
    let Some(url) = slice.worker.recovery.webhook_url.clone() else { return Ok(()) };
    look_for_the_apps_hook(slice, &url).await?;
    let mut away = HashSet::new();
    for (hook, mut cursor) in slice.worker.ledger.hooks().await.step("recover.hooks_read")? {
        if !slice.goes_on() {
            return Ok(());
        }
        if let Ok(address) = hook.parse::<HookAddress>() {
            walk(slice, &address, &mut cursor).await?;
        }
        if !cursor.works {
            away.insert(hook);
        }
    }
    repeat(slice, away).await
}

/// What asks about a hook, and the account that it is counted for. The App's own hook is asked about as the App; there is one App for that.
async fn client_for(slice: &mut Slice<'_>, hook: &HookAddress) -> Result<Option<(Client, String)>, LedgerError> {
    let (credential, account) = match hook {
        HookAddress::Of(scope, _) => match slice.worker.github.of(scope) {
            Ok(credential) => (credential.clone(), credential.account(scope)),
            Err(_) => return Ok(None),
        },
        HookAddress::App => match apps(slice.worker).into_iter().next() {
            Some(app) => (app.clone(), app.account_of(None)),
            None => return Ok(None),
        },
    };
    Ok(slice.call_as(credential, account.clone()).await?.ok().map(|client| (client, account)))
}

/// Takes note of an error of a call about a hook.
fn told_of(slice: &mut Slice<'_>, hook: &HookAddress, account: String, error: &Error) -> Told {
    let owner = match hook {
        HookAddress::Of(scope, _) => scope.owner().to_owned(),
        HookAddress::App => account.clone(),
    };
    slice.told_of(account, &owner, error)
}

/// Looks, once in a while, whether the App's own webhook is ours.
async fn look_for_the_apps_hook(slice: &mut Slice<'_>, url: &Url) -> Result<(), LedgerError> {
    if apps(slice.worker).is_empty() {
        return Ok(());
    }
    let address = HookAddress::App.to_string();
    let within = slice.worker.recovery.rediscover_interval;
    if slice.worker.ledger.hooks_were_asked(&address, within).await.step("recover.app_hook_asked")? {
        return Ok(());
    }
    let Some((client, account)) = client_for(slice, &HookAddress::App).await? else { return Ok(()) };
    match client.app_hook_url().await.step("recover.app_hook_read") {
        Ok(Some(its)) if leads_to(&its, url) => found(slice, &address).await?,
        Ok(_) => {}
        Err(error) if told_of(slice, &HookAddress::App, account, &error) == Told::Refused => {}
        Err(_) => return Ok(()), // it is asked again
    }
    slice.worker.ledger.hooks_are_asked(&address).await.step("recover.app_hook_noted")
}

/// Takes down a webhook of ours, unless it is known.
async fn found(slice: &mut Slice<'_>, address: &str) -> Result<(), LedgerError> {
    if !slice.worker.ledger.hooks().await.step("recover.hooks_compared")?.contains_key(address) {
        tracing::info!(hook = address, "failed deliveries of this webhook are repeated");
        slice.worker.ledger.keep_hook(address, Some(&HookCursor::default())).await.step("recover.hook_found")?;
    }
    Ok(())
}

/// Reads on in a hook's deliveries.
async fn walk(slice: &mut Slice<'_>, hook: &HookAddress, cursor: &mut HookCursor) -> Result<(), LedgerError> {
    let name = hook.to_string();
    for _ in 0..PAGES {
        if !slice.goes_on() {
            return Ok(());
        }
        let Some((client, account)) = client_for(slice, hook).await? else { return Ok(()) };
        let page = match client.deliveries(hook, cursor.page.as_deref()).await.step("recover.deliveries_listed") {
            Ok(page) => page,
            Err(error) => {
                if told_of(slice, hook, account, &error) == Told::Refused {
                    // Either the hook is gone, or the page that the walk was to go on with.
                    let anew = cursor.page.take().map(|_| HookCursor { walk_from: None, ..cursor.clone() });
                    slice.worker.ledger.keep_hook(&name, anew.as_ref()).await.step("recover.hook_dropped")?;
                }
                return Ok(());
            }
        };
        if cursor.page.is_none() {
            let works = page.items.first().is_none_or(Delivery::succeeded);
            if works && !cursor.works {
                slice.worker.ledger.hook_awake(&name).await.step("recover.hook_awake")?;
            }
            cursor.works = works;
            cursor.walk_from = page.items.first().map(|newest| newest.delivered_at.as_millisecond());
        }
        let (failed, settled) = sort(&page.items);
        slice.worker.ledger.note_deliveries(&name, &failed, &settled, MOST).await.step("recover.deliveries_noted")?;
        let oldest = page.items.last().map(|oldest| oldest.delivered_at.as_millisecond());
        let until = match (cursor.read_until, cursor.walk_from) {
            (0, newest) => newest.unwrap_or(0) - HORIZON_MS,
            (read, _) => read - OVERLAP_MS,
        };
        cursor.page = page.cursor.filter(|_| oldest.is_some_and(|oldest| oldest > until));
        let over = cursor.page.is_none();
        if over {
            cursor.read_until = cursor.walk_from.take().unwrap_or(0).max(cursor.read_until);
        }
        slice.worker.ledger.keep_hook(&name, Some(cursor)).await.step("recover.hook_kept")?;
        if over {
            return Ok(());
        }
    }
    Ok(())
}

/// Those of a page that failed, oldest first, and the events that a repetition has delivered.
fn sort(page: &[Delivery]) -> (Vec<FailedDelivery>, Vec<String>) {
    let jobs = || page.iter().filter(|delivery| delivery.event == "workflow_job");
    let settled = jobs().filter(|delivery| delivery.redelivery && delivery.succeeded()).map(|delivery| delivery.guid.clone()).collect();
    let failed = jobs().filter(|delivery| !delivery.succeeded()).map(|delivery| FailedDelivery {
        guid: delivery.guid.clone(),
        id: delivery.id.to_string(),
        action: delivery.action.clone().unwrap_or_default(),
        at: delivery.delivered_at.as_millisecond(),
    });
    (failed.rev().collect(), settled)
}

/// Has deliveries repeated; of a hook whose receiver seems to be `away`, one.
async fn repeat(slice: &mut Slice<'_>, away: HashSet<String>) -> Result<(), LedgerError> {
    let mut probed = HashSet::new();
    for delivery in slice.worker.ledger.redeliverable(BATCH).await.step("recover.redeliverable")? {
        if !slice.goes_on() {
            return Ok(());
        }
        if slice.skipped.contains(&delivery.hook) || away.contains(&delivery.hook) && !probed.insert(delivery.hook.clone()) {
            continue;
        }
        let (Ok(hook), Ok(id)) = (delivery.hook.parse::<HookAddress>(), delivery.id.parse::<u64>()) else { continue };
        let Some((client, account)) = client_for(slice, &hook).await? else { continue };
        let said = match client.redeliver(&hook, id).await.step("recover.redelivered") {
            Ok(true) => Repetition::Accepted,
            Ok(false) => Repetition::Forgotten,
            Err(error) => {
                let told = told_of(slice, &hook, account, &error);
                if told != Told::Refused {
                    slice.skipped.insert(delivery.hook.clone());
                }
                if told == Told::Later {
                    continue;
                }
                Repetition::Refused
            }
        };
        slice.worker.ledger.redelivered(&delivery.guid, said, MOST).await.step("recover.redelivery_noted")?;
        if said == Repetition::Accepted {
            tracing::info!(delivery = delivery.guid, action = delivery.action, hook = delivery.hook, "GitHub repeats a delivery that failed");
            slice.worker.metrics.redelivered.get_or_create(&Redelivered { action: delivery.action }).inc();
        }
    }
    Ok(())
}

/// Looks, once in a while, which webhooks of this repository and of its owner are ours.
pub(super) async fn look_for_hooks(slice: &mut Slice<'_>, repository: &Scope) -> Result<(), LedgerError> {
    let Some(url) = slice.worker.recovery.webhook_url.clone() else { return Ok(()) };
    let owner = Scope::Organization(repository.owner().to_owned());
    for scope in [&owner, repository] {
        let (name, within) = (scope.to_string(), slice.worker.recovery.rediscover_interval);
        // The owner's are met again with each of its repositories: what does not answer is asked once a slice.
        let hooks = format!("hooks of {name}");
        if slice.skipped.contains(&hooks) || slice.worker.ledger.hooks_were_asked(&name, within).await.step("recover.hooks_asked")? {
            continue;
        }
        if list_hooks(slice, scope, &url).await? {
            slice.worker.ledger.hooks_are_asked(&name).await.step("recover.hooks_noted")?;
        } else {
            slice.skipped.insert(hooks);
        }
    }
    Ok(())
}

/// Takes down which webhooks of a scope are ours; whether it has told, or refuses to.
async fn list_hooks(slice: &mut Slice<'_>, scope: &Scope, url: &Url) -> Result<bool, LedgerError> {
    let mut page = 1;
    loop {
        let Ok(client) = slice.call(scope).await? else { return Ok(false) };
        let hooks = match client.hooks(scope, page).await.step("recover.hooks_listed") {
            Ok(hooks) => hooks,
            Err(error) => return Ok(slice.told(scope, &error) == Told::Refused),
        };
        for hook in hooks.items.iter().filter(|hook| is_ours(hook, url)) {
            let address = HookAddress::Of(scope.clone(), hook.id).to_string();
            found(slice, &address).await?;
        }
        if !hooks.more {
            return Ok(true);
        }
        page += 1;
    }
}

/// Whether a webhook is switched on, comes to us, and tells of jobs.
fn is_ours(hook: &Hook, url: &Url) -> bool {
    let leads_here = hook.url.as_deref().is_some_and(|its| leads_to(its, url));
    hook.active && leads_here && hook.events.iter().any(|event| matches!(event.as_str(), "workflow_job" | "*"))
}

/// Whether an address is ours, however it is written.
fn leads_to(text: &str, url: &Url) -> bool {
    Url::parse(text).is_ok_and(|its| its.origin() == url.origin() && its.path().trim_end_matches('/') == url.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_sorted_into_what_failed_and_what_was_repeated_with_success() {
        let delivery = |id: u64, guid: &str, event: &str, redelivery: bool, status: u16| {
            serde_json::from_value(json!({
                "id": id, "guid": guid, "delivered_at": "2026-11-24T06:00:00Z", "redelivery": redelivery, "duration": 0.1, "status": "x", "status_code": status,
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
        assert_eq!(failed.iter().map(|one| one.guid.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(settled, ["a"]);
    }

    #[test]
    fn a_hook_is_ours_by_its_address() {
        let url: Url = "https://jit.example.com/webhook".parse().expect("a URL");
        let hook = |url: &str, events: &[&str], active| Hook { id: 1, url: Some(url.into()), active, events: events.iter().map(|e| (*e).into()).collect() };
        assert!(is_ours(&hook("https://JIT.example.com:443/webhook/", &["push", "workflow_job"], true), &url));
        assert!(is_ours(&hook("https://jit.example.com/webhook", &["*"], true), &url));
        for other in [
            hook("https://jit.example.com/webhook", &["push"], true),
            hook("https://jit.example.com/webhook", &["*"], false),
            hook("https://jit.example.com/webhooks", &["*"], true),
            hook("https://other.example.com/webhook", &["*"], true),
            hook("nonsense", &["*"], true),
        ] {
            assert!(!is_ours(&other, &url), "{other:?}");
        }
    }
}
