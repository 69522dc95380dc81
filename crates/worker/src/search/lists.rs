//! Lists: what there is, asked of GitHub once in a while: repositories that may have jobs (those that were pushed to in
//! the last 30 days), webhooks of ours, installations of an App, organizations of a GHES.
//!
//! A GHES lists its organizations, and an App where it is installed. github.com and GHE.com list strangers': with a
//! token it is the organizations that are known here there, or that a credential names. A user's repositories are known
//! by their jobs alone. The webhooks of a repository are listed only where neither its organization nor the App has one
//! of ours.

use jit_core::{
    config::Scope as RunnerScope,
    ledger::{
        LedgerError,
        recovery::{Queued, Round},
    },
};
use jit_github::{EVERYBODY, Hook, HookAddress, Repository, Scope};
use url::Url;

use super::{
    SliceError, Turn,
    census::{APP_HOOK, of_owner},
};
use crate::step::Step;

/// A repository that was not pushed to for so long is not swept until it is heard of again, ms.
const LATELY_MS: i64 = 30 * 86_400_000;

/// Lists what is due.
pub(super) async fn look(turn: &mut Turn<'_>) -> Result<(), LedgerError> {
    let mut news = false;
    while let Some(due) = turn.next(Round::Lists).await? {
        news = true;
        let told = match due.item.split_once(' ').unwrap_or((&due.item, "")) {
            ("repos", owner) => repositories(turn, owner).await?,
            ("hooks", scope) => hooks(turn, scope).await?,
            ("since", since) => organizations(turn, since.parse().unwrap_or(0)).await?,
            ("installations", _) => installations(turn).await?,
            ("hook", _) => app_hook(turn).await?,
            _ => Err(SliceError::Refused),
        };
        let settings = &turn.slice.worker.search;
        let again = match told {
            Ok(()) | Err(SliceError::Refused) => settings.rediscover_interval,
            Err(SliceError::Failed) => settings.interval, // after those that have waited longer
            Err(SliceError::Later) => break,
        };
        let again = i64::try_from(again.as_millis()).unwrap_or(i64::MAX);
        turn.done(Round::Lists, &due.item, Some(turn.slice.now.saturating_add(again)))
            .await?;
    }
    if news { turn.read_anew().await } else { Ok(()) }
}

/// The repositories of an organization that were pushed to lately.
async fn repositories(turn: &mut Turn<'_>, owner: &str) -> Result<Result<(), SliceError>, LedgerError> {
    let worker = turn.slice.worker;
    let with_hooks = match &worker.search.webhook_url {
        Some(_) => !is_covered(turn, owner).await?,
        None => false,
    };
    let mut page = 1;
    loop {
        let client = match turn.call().await? {
            Ok(client) => client,
            Err(told) => return Ok(Err(told)),
        };
        let listed = client
            .org_repositories(owner, page)
            .await
            .step("recover.repositories_listed");
        let listed = match turn.heard(owner, listed) {
            Ok(listed) => listed,
            Err(told) => return Ok(Err(told)),
        };
        let pushed = |repo: &Repository| repo.pushed_at.map_or(0, |at| at.as_millisecond());
        let lately = listed
            .items
            .iter()
            .filter(|repo| pushed(repo) > turn.slice.now - LATELY_MS);
        let all = lately.clone().count() == listed.items.len();
        let repos: Vec<(String, i64)> = lately
            .filter(|repo| !repo.asleep)
            .map(|repo| (repo.full_name.clone(), pushed(repo)))
            .collect();
        worker
            .ledger
            .discovered(&turn.account, &repos, with_hooks)
            .await
            .step("recover.repositories_noted")?;
        if worker.search.jobs.scope == RunnerScope::Repository {
            let scopes: Vec<Queued> = repos
                .iter()
                .map(|(name, _)| Queued::new(&turn.account, Round::Scopes, format!("repos/{name}")))
                .collect();
            turn.enqueue(&scopes).await?;
        }
        if !listed.more || !all {
            return Ok(Ok(()));
        }
        page += 1;
    }
}

/// Whether the organization, or the App, has a webhook of ours, which tells of all repositories.
async fn is_covered(turn: &Turn<'_>, owner: &str) -> Result<bool, LedgerError> {
    let of = [owner.to_ascii_lowercase(), format!("app:{}", turn.credential.name)];
    turn.slice
        .worker
        .ledger
        .any_has_a_hook(&of)
        .await
        .step("recover.hooks_asked")
}

/// Which webhooks of a scope are ours.
async fn hooks(turn: &mut Turn<'_>, scope: &str) -> Result<Result<(), SliceError>, LedgerError> {
    let (Some(url), Ok(scope)) = (turn.slice.worker.search.webhook_url.clone(), scope.parse::<Scope>()) else {
        return Ok(Err(SliceError::Refused));
    };
    let whole = matches!(scope, Scope::Organization(_));
    if !whole && is_covered(turn, scope.owner()).await? {
        return Ok(Ok(()));
    }
    let mut page = 1;
    loop {
        let client = match turn.call().await? {
            Ok(client) => client,
            Err(told) => return Ok(Err(told)),
        };
        let listed = client.hooks(&scope, page).await.step("recover.hooks_listed");
        let listed = match turn.heard(scope.owner(), listed) {
            Ok(listed) => listed,
            Err(told) => return Ok(Err(told)),
        };
        for hook in listed.items.iter().filter(|hook| is_ours(hook, &url)) {
            let owner = scope.owner().to_ascii_lowercase();
            found(
                turn,
                &HookAddress::Of(scope.clone(), hook.id).to_string(),
                whole.then_some(&*owner),
            )
            .await?;
        }
        if !listed.more {
            return Ok(Ok(()));
        }
        page += 1;
    }
}

/// Whether the App's own webhook is ours.
async fn app_hook(turn: &mut Turn<'_>) -> Result<Result<(), SliceError>, LedgerError> {
    let Some(url) = turn.slice.worker.search.webhook_url.clone() else {
        return Ok(Err(SliceError::Refused));
    };
    let client = match turn.call().await? {
        Ok(client) => client,
        Err(told) => return Ok(Err(told)),
    };
    let its = client.app_hook_url().await.step("recover.app_hook_read");
    let account = turn.account.clone();
    match turn.heard(&account, its) {
        Ok(Some(its)) if leads_to(&its, &url) => {
            found(turn, &format!("{APP_HOOK}{account}"), Some(&format!("app:{account}"))).await?;
            Ok(Ok(()))
        }
        Ok(_) => Ok(Ok(())),
        Err(told) => Ok(Err(told)),
    }
}

/// Takes down a webhook of ours, unless it is known.
async fn found(turn: &Turn<'_>, address: &str, of: Option<&str>) -> Result<(), LedgerError> {
    if turn
        .slice
        .worker
        .ledger
        .hook_found(&turn.account, address, of)
        .await
        .step("recover.hook_found")?
    {
        tracing::info!(hook = address, "failed deliveries of this webhook are repeated");
    }
    Ok(())
}

/// One page of the organizations that a server has.
async fn organizations(turn: &mut Turn<'_>, since: u64) -> Result<Result<(), SliceError>, LedgerError> {
    let client = match turn.call().await? {
        Ok(client) => client,
        Err(told) => return Ok(Err(told)),
    };
    let listed = client.organizations(since).await.step("recover.organizations_listed");
    let account = turn.account.clone();
    let listed = match turn.heard(&account, listed) {
        Ok(listed) => listed,
        Err(told) => return Ok(Err(told)),
    };
    let next = listed
        .items
        .last()
        .filter(|_| listed.more)
        .map(|last| Queued::new(&turn.account, Round::Lists, format!("since {}", last.id)));
    let mut items: Vec<Queued> = listed
        .items
        .iter()
        .flat_map(|one| of_owner(turn.slice.worker, &one.login, turn.slice.now))
        .collect();
    items.extend(next);
    turn.enqueue(&items).await?;
    Ok(Ok(()))
}

/// The organizations where an App is installed.
async fn installations(turn: &mut Turn<'_>) -> Result<Result<(), SliceError>, LedgerError> {
    let mut page = 1;
    loop {
        let client = match turn.call().await? {
            Ok(client) => client,
            Err(told) => return Ok(Err(told)),
        };
        let listed = client.installations(page).await.step("recover.installations_listed");
        let account = turn.account.clone();
        let listed = match turn.heard(&account, listed) {
            Ok(listed) => listed,
            Err(told) => return Ok(Err(told)),
        };
        let works = listed
            .items
            .into_iter()
            .filter(|one| one.suspended_at.is_none() && one.target_type.as_deref() == Some("Organization"));
        let owners = works
            .filter_map(|one| one.account.and_then(|account| account.login))
            .filter(|owner| owner != EVERYBODY);
        let items: Vec<Queued> = owners
            .flat_map(|owner| of_owner(turn.slice.worker, &owner, turn.slice.now))
            .collect();
        turn.enqueue(&items).await?;
        if !listed.more {
            return Ok(Ok(()));
        }
        page += 1;
    }
}

/// Whether a webhook is switched on, comes to us, and tells of jobs.
fn is_ours(hook: &Hook, url: &Url) -> bool {
    let leads_here = hook.url.as_deref().is_some_and(|its| leads_to(its, url));
    hook.active
        && leads_here
        && hook
            .events
            .iter()
            .any(|event| matches!(event.as_str(), "workflow_job" | "*"))
}

/// Whether an address is ours, however it is written.
fn leads_to(text: &str, url: &Url) -> bool {
    Url::parse(text).is_ok_and(|its| {
        its.origin() == url.origin() && its.path().trim_end_matches('/') == url.path().trim_end_matches('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_ours_by_its_address() {
        let url: Url = "https://jit.example.com/webhook".parse().expect("a URL");
        let hook = |url: &str, events: &[&str], active| Hook {
            id: 1,
            url: Some(url.into()),
            active,
            events: events.iter().map(|e| (*e).into()).collect(),
        };
        assert!(is_ours(
            &hook("https://JIT.example.com:443/webhook/", &["push", "workflow_job"], true),
            &url
        ));
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
