//! Rediscovery: which repositories may have jobs, asked of GitHub. Those that were pushed to in the last 30 days are swept.
//!
//! A GHES lists its organizations, and an App where it is installed. github.com and GHE.com list strangers': with a token it is the organizations
//! that are known here there, or that a credential names. A user's repositories are known by their jobs alone.

use jit_core::ledger::{LedgerError, recovery::Asked};
use jit_github::{EVERYBODY, Repository, Scope};

use super::{Slice, Told, apps};
use crate::step::Step;

/// Owners whose repositories are listed before the sweep goes on.
const BATCH: usize = 20;
/// A repository that was not pushed to for so long is not swept until it is heard of again, ms.
const LATELY_MS: i64 = 30 * 86_400_000;
/// All organizations have been listed, or what lists them has.
const END: &str = "end";
/// Among the owners: an App of this name, whose installations are to be listed.
const APP: &str = "app:";
/// Among the owners: the organizations after this id are to be listed.
const SINCE: &str = "since:";

/// What was found.
#[derive(Default)]
struct Found {
    /// Repositories, with the time of the last push, ms.
    repos: Vec<(String, i64)>,
    /// Owners, and what lists more of them.
    owners: Vec<String>,
}

/// Lists some more; whether there is more to list.
pub(super) async fn some(slice: &mut Slice<'_>) -> Result<bool, LedgerError> {
    let tick = slice.worker.ledger.recovery_tick(&super::settings(slice.worker)).await.step("recover.rediscovery_read")?;
    let Some(cursor) = tick.rediscovery else { return Ok(false) };
    if cursor != END {
        begin(slice, &cursor).await?;
    }
    let now = slice.worker.ledger.now().await?;
    // In no order: more than are left out, so that some others are among them, if there are any.
    let enough = u32::try_from(BATCH.max(2 * slice.skipped.len())).unwrap_or(u32::MAX);
    let mut left = slice.worker.ledger.owners_to_list(enough).await.step("recover.owners_read")?;
    left.retain(|owner| !slice.skipped.contains(owner));
    left.truncate(BATCH);
    for owner in &left {
        if !slice.goes_on() {
            return Ok(false);
        }
        one(slice, owner, now).await?;
    }
    Ok(!left.is_empty())
}

/// Takes down the owners that are known here, and what lists others.
async fn begin(slice: &mut Slice<'_>, cursor: &str) -> Result<(), LedgerError> {
    let worker = slice.worker;
    let mut owners = worker.ledger.known_owners().await.step("recover.known_read")?;
    owners.extend(worker.github.all().iter().flat_map(|credential| credential.owners.iter().cloned()).filter(|owner| owner != EVERYBODY));
    retain_served(slice, &mut owners);
    owners.extend(apps(worker).iter().map(|app| format!("{APP}{}", app.name)));
    // An App is told of its own installations; a token, of all that there is.
    let lists = lists_its_organizations(&worker.recovery.jobs.server_url);
    if lists && worker.github.all().iter().any(|credential| !credential.client.is_app()) {
        owners.push(format!("{SINCE}{}", cursor.parse::<u64>().unwrap_or(0)));
    }
    worker.ledger.discovered(&[], &owners, None, Some(END)).await.step("recover.owners_noted")
}

fn retain_served(slice: &Slice<'_>, owners: &mut Vec<String>) {
    owners.retain(|owner| slice.worker.github.serving(owner.split('/').next().unwrap_or(owner)).is_some());
}

/// Lists what one owner has. One that does not answer is left out of this slice, and so is one whose hour is used up.
async fn one(slice: &mut Slice<'_>, owner: &str, now: i64) -> Result<(), LedgerError> {
    let mut found = Found::default();
    let told = if let Some(app) = owner.strip_prefix(APP) {
        installations(slice, app, &mut found).await?
    } else if let Some(since) = owner.strip_prefix(SINCE) {
        organizations(slice, since.parse().unwrap_or(0), &mut found).await?
    } else if owner.contains('/') {
        found.repos.push((owner.to_owned(), now)); // a user's repository counts as an organization here
        Ok(())
    } else {
        repositories(slice, owner, now, &mut found).await?
    };
    let asked = match told {
        Ok(()) | Err(Told::Refused) => Some(Asked::Answered(owner)),
        Err(Told::Failed) => Some(Asked::Missed(owner)),
        Err(Told::Later) => None,
    };
    if !matches!(asked, Some(Asked::Answered(_))) {
        slice.skipped.insert(owner.to_owned());
    }
    slice.worker.ledger.discovered(&found.repos, &found.owners, asked, None).await.step("recover.repositories_noted")
}

/// One page of the organizations that a server has: told by the first token that it answers.
async fn organizations(slice: &mut Slice<'_>, since: u64, found: &mut Found) -> Result<Result<(), Told>, LedgerError> {
    let mut told = Ok(());
    for token in slice.worker.github.all().iter().filter(|credential| !credential.client.is_app()) {
        let account = token.account_of(None);
        let client = match slice.call_as(token.clone(), account.clone()).await? {
            Ok(client) => client,
            Err(why) => {
                told = Err(why);
                continue;
            }
        };
        match client.organizations(since).await.step("recover.organizations_listed") {
            Ok(listed) => {
                let next = listed.items.last().filter(|_| listed.more).map(|last| format!("{SINCE}{}", last.id));
                found.owners = listed.items.into_iter().map(|organization| organization.login).collect();
                retain_served(slice, &mut found.owners);
                found.owners.extend(next);
                return Ok(Ok(()));
            }
            Err(error) => told = Err(slice.told_of(account.clone(), &account, &error)),
        }
    }
    Ok(told)
}

/// The organizations where an App is installed.
async fn installations(slice: &mut Slice<'_>, name: &str, found: &mut Found) -> Result<Result<(), Told>, LedgerError> {
    let Some(app) = apps(slice.worker).into_iter().find(|app| &*app.name == name) else { return Ok(Ok(())) };
    let account = app.account_of(None);
    let mut page = 1;
    loop {
        let client = match slice.call_as(app.clone(), account.clone()).await? {
            Ok(client) => client,
            Err(told) => return Ok(Err(told)),
        };
        match client.installations(page).await.step("recover.installations_listed") {
            Ok(listed) => {
                let works = listed.items.into_iter().filter(|one| one.suspended_at.is_none() && one.target_type.as_deref() == Some("Organization"));
                found.owners.extend(works.filter_map(|one| one.account.and_then(|account| account.login)));
                retain_served(slice, &mut found.owners);
                if !listed.more {
                    return Ok(Ok(()));
                }
            }
            Err(error) => return Ok(Err(slice.told_of(account.clone(), &account, &error))),
        }
        page += 1;
    }
}

/// Whether `GET organizations` means those of this installation.
fn lists_its_organizations(server: &url::Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    !(host == "github.com" || host.ends_with(".github.com") || host.ends_with(".ghe.com"))
}

/// The repositories of an organization that were pushed to lately.
async fn repositories(slice: &mut Slice<'_>, owner: &str, now: i64, found: &mut Found) -> Result<Result<(), Told>, LedgerError> {
    let scope = Scope::Organization(owner.to_owned());
    let mut page = 1;
    loop {
        let client = match slice.call(&scope).await? {
            Ok(client) => client,
            Err(told) => return Ok(Err(told)),
        };
        match client.org_repositories(owner, page).await.step("recover.repositories_listed") {
            Ok(listed) => {
                let pushed = |repo: &Repository| repo.pushed_at.map_or(0, |at| at.as_millisecond());
                let lately = listed.items.iter().filter(|repo| pushed(repo) > now - LATELY_MS);
                let all = lately.clone().count() == listed.items.len();
                found.repos.extend(lately.filter(|repo| !repo.asleep).map(|repo| (repo.full_name.clone(), pushed(repo))));
                if !listed.more || !all {
                    return Ok(Ok(()));
                }
            }
            Err(error) => return Ok(Err(slice.told(&scope, &error))),
        }
        page += 1;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_ghes_lists_its_organizations() {
        let lists = |server: &str| super::lists_its_organizations(&server.parse().expect("a URL"));
        assert!(lists("https://github.example.com") && lists("http://127.0.0.1:8080") && lists("https://evilghe.com"));
        assert!(!lists("https://github.com") && !lists("https://acme.ghe.com"));
    }
}
