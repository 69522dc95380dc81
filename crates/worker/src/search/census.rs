//! Who and what there is to be looked at, and in whose account: new repositories, and a walk through all owners that
//! are known, so that nobody is left out, also where a credential became another's.

use jit_core::{
    config::Scope as RunnerScope,
    ledger::{
        LedgerError,
        recovery::{Ask, Queued, RecoveryTick, Round},
    },
};
use jit_github::{EVERYBODY, HookAddress, Scope};

use super::Slice;
use crate::{Worker, step::Step};

/// Items of a round that are moved at once.
const PIECE: u32 = 100;
/// All of them.
const ROUNDS: [Round; 5] = [Round::Repos, Round::Rereads, Round::Hooks, Round::Lists, Round::Scopes];
/// The App's own webhook, in a list and in front of its name.
pub(super) const APP_HOOK: &str = "app/hook@";

/// Queues what is new, and some of what is known.
pub(super) async fn take(worker: &Worker, tick: &RecoveryTick) -> Result<(), LedgerError> {
    let mut items: Vec<Queued> = tick
        .repos
        .iter()
        .flat_map(|repo| of_repository(worker, repo, tick.now))
        .collect();
    if !tick.repos.is_empty() {
        worker
            .ledger
            .enqueue(&items, &tick.repos)
            .await
            .step("recover.new_queued")?;
    }
    let mut cursor = tick.walk.clone();
    loop {
        items.clear();
        if cursor == "0" || cursor.is_empty() {
            items.extend(seeds(worker));
        }
        let (next, owners) = worker
            .ledger
            .known_owners(if cursor.is_empty() { "0" } else { &cursor })
            .await
            .step("recover.known_read")?;
        items.extend(owners.iter().flat_map(|owner| of_owner(worker, owner, tick.now)));
        worker.ledger.enqueue(&items, &[]).await.step("recover.known_queued")?;
        worker.ledger.owners_walked(&next).await.step("recover.walked")?;
        cursor = next;
        if !tick.whole || cursor == "0" {
            return Ok(());
        }
    }
}

/// What there is to ask of each credential, whoever is known.
fn seeds(worker: &Worker) -> Vec<Queued> {
    let mut items = Vec::new();
    for credential in worker.github.all().iter() {
        let account = credential.account_of(None);
        if credential.client.is_app() {
            items.push(Queued::new(&account, Round::Lists, "installations"));
            if worker.search.webhook_url.is_some() {
                items.push(Queued::new(&account, Round::Lists, "hook"));
            }
        } else if !is_githubs_own(&worker.search.jobs.server_url) {
            // a token is told of all organizations that a GHES has
            items.push(Queued::new(&account, Round::Lists, "since 0"));
        }
        items.extend(
            credential
                .owners
                .iter()
                .filter(|owner| *owner != EVERYBODY)
                .flat_map(|owner| of_owner(worker, owner, 0)),
        );
    }
    if let RunnerScope::Enterprise(slug) = &worker.search.jobs.scope {
        items.extend(queued(worker, Round::Scopes, format!("enterprises/{slug}")));
    }
    items
}

/// What there is of an owner: an organization, or `owner/repo` for a user's repository, where that user's runners
/// register.
pub(super) fn of_owner(worker: &Worker, owner: &str, now: i64) -> Vec<Queued> {
    if owner.contains('/') {
        let mut items = of_repository(worker, owner, now);
        if worker.search.jobs.scope == RunnerScope::Organization {
            items.extend(queued(worker, Round::Scopes, format!("repos/{owner}")));
        }
        return items;
    }
    let mut items: Vec<Queued> = queued(worker, Round::Lists, format!("repos {owner}"))
        .into_iter()
        .collect();
    if worker.search.webhook_url.is_some() {
        items.extend(queued(worker, Round::Lists, format!("hooks orgs/{owner}")));
    }
    if worker.search.jobs.scope == RunnerScope::Organization {
        items.extend(queued(worker, Round::Scopes, format!("orgs/{owner}")));
    }
    items
}

/// What there is of a repository.
pub(super) fn of_repository(worker: &Worker, repo: &str, now: i64) -> Vec<Queued> {
    let mut items: Vec<Queued> = queued(worker, Round::Repos, repo.to_owned()).into_iter().collect();
    items.extend(queued(worker, Round::Rereads, repo.to_owned()).map(|item| Queued { at: now, ..item }));
    if worker.search.webhook_url.is_some() {
        items.extend(queued(worker, Round::Lists, format!("hooks repos/{repo}")));
    }
    if worker.search.jobs.scope == RunnerScope::Repository {
        items.extend(queued(worker, Round::Scopes, format!("repos/{repo}")));
    }
    items
}

fn queued(worker: &Worker, round: Round, item: String) -> Option<Queued> {
    home(worker, "", round, &item).map(|account| Queued::new(&account, round, item))
}

/// The account that an item belongs to: what stands in `account` and is asked for as the credential itself stays there.
pub(super) fn home(worker: &Worker, account: &str, round: Round, item: &str) -> Option<String> {
    let scope: Option<Scope> = match round {
        Round::Repos | Round::Rereads => format!("repos/{item}").parse().ok(),
        Round::Scopes => item.parse().ok(),
        Round::Hooks if item.starts_with(APP_HOOK) => return itself(worker, account, true),
        Round::Hooks => match item.parse().ok()? {
            HookAddress::Of(scope, _) => Some(scope),
            HookAddress::App => None,
        },
        Round::Lists => match item.split_once(' ') {
            Some(("repos", owner)) => Some(Scope::Organization(owner.to_owned())),
            Some(("hooks", scope)) => scope.parse().ok(),
            Some(("since", _)) => return itself(worker, account, false),
            _ => return itself(worker, account, true),
        },
    };
    let scope = scope?;
    worker
        .github
        .of(&scope)
        .ok()
        .map(|credential| credential.account(&scope))
}

fn itself(worker: &Worker, account: &str, app: bool) -> Option<String> {
    worker
        .github
        .all()
        .iter()
        .any(|credential| &*credential.name == account && credential.client.is_app() == app)
        .then(|| account.to_owned())
}

/// An item is another account's now, or nobody's.
pub(super) async fn moved(
    slice: &Slice<'_>,
    account: &str,
    round: Round,
    item: &str,
    home: Option<String>,
) -> Result<(), LedgerError> {
    if let Some(home) = home {
        slice
            .worker
            .ledger
            .enqueue(&[Queued::new(&home, round, item)], &[])
            .await
            .step("recover.moved")?;
    }
    slice
        .worker
        .ledger
        .looked_at(account, round, item, None, None)
        .await
        .step("recover.left")
}

/// Moves all that stood in the account of a credential that is gone.
pub(super) async fn move_away(slice: &Slice<'_>, account: &str) -> Result<(), LedgerError> {
    while slice.goes_on() {
        let rounds = ROUNDS.map(|name| Ask {
            name,
            before: i64::MAX >> 10,
            n: PIECE,
        });
        let due = slice
            .worker
            .ledger
            .recovery_due(account, &rounds)
            .await
            .step("recover.rest_read")?;
        if due.rounds.is_empty() {
            break;
        }
        for round in due.rounds {
            for item in round.items {
                let home = home(slice.worker, "", round.round, &item.item);
                moved(slice, account, round.round, &item.item, home).await?;
            }
        }
    }
    slice
        .worker
        .ledger
        .account_served(account, slice.now, 0)
        .await
        .step("recover.moved_away")
}

/// github.com or GHE.com: they list strangers' organizations, and count every call.
pub(super) fn is_githubs_own(server: &url::Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    host == "github.com" || host.ends_with(".github.com") || host.ends_with(".ghe.com")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_ghes_lists_its_organizations() {
        let own = |server: &str| super::is_githubs_own(&server.parse().expect("a URL"));
        assert!(!own("https://github.example.com") && !own("http://127.0.0.1:8080") && !own("https://evilghe.com"));
        assert!(own("https://github.com") && own("https://acme.ghe.com"));
    }
}
