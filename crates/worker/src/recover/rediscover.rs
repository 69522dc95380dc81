//! Rediscovery: which repositories may have jobs, asked of GitHub. Those that were pushed to in the last 30 days are swept.
//!
//! A GHES lists its organizations, and an App where it is installed. github.com and GHE.com list strangers': with a token it is the organizations
//! that are known here there, or that a credential names. A user's repositories are known by their jobs alone.

use jit_core::ledger::LedgerError;
use jit_github::{Credential, EVERYBODY, Repository, Scope};

use super::{Slice, Told, Turn, apps};
use crate::step::Step;

/// Owners whose repositories are listed before the sweep goes on.
const BATCH: u32 = 20;
/// A repository that was not pushed to for so long is not swept until it is heard of again, ms.
const LATELY_MS: i64 = 30 * 86_400_000;
/// All organizations have been listed.
const END: &str = "end";

/// Lists some more; whether there is more to list.
pub(super) async fn some(slice: &mut Slice<'_>) -> Result<bool, LedgerError> {
    let tick = slice.worker.ledger.recovery_tick(&super::settings(slice.worker)).await.step("recover.rediscovery_read")?;
    let Some(cursor) = tick.rediscovery else { return Ok(false) };
    if cursor != END && !owners(slice, &cursor).await? {
        return Ok(false);
    }
    let now = slice.worker.ledger.now().await?;
    let left = slice.worker.ledger.owners_to_list(BATCH).await.step("recover.owners_read")?;
    for owner in &left {
        if !slice.goes_on() || !repositories(slice, owner, now).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes down one page of the organizations; false when it has to wait.
async fn owners(slice: &mut Slice<'_>, cursor: &str) -> Result<bool, LedgerError> {
    let worker = slice.worker;
    let mut owners = Vec::new();
    if cursor == "0" {
        owners = worker.ledger.known_owners().await.step("recover.known_read")?;
        owners.extend(worker.github.all().iter().flat_map(|credential| credential.owners.iter().cloned()).filter(|owner| owner != EVERYBODY));
    }
    let apps = apps(worker);
    for app in apps.iter().filter(|_| cursor == "0") {
        if !installations(slice, app, &mut owners).await? {
            return Ok(false);
        }
    }
    let mut next = END.to_owned();
    // An App is told of its own installations; a token, of all that there is.
    let token = worker.github.all().iter().find(|credential| !credential.client.is_app()).cloned();
    if let Some(token) = token.filter(|_| lists_its_organizations(&worker.recovery.jobs.server_url)) {
        let account = token.account_of(None);
        let client = match slice.call_as(token, account.clone()).await? {
            Turn::Call(client) => client,
            Turn::Later | Turn::NotServed => return Ok(false),
        };
        match client.organizations(cursor.parse().unwrap_or(0)).await.step("recover.organizations_listed") {
            Ok(listed) => {
                if let Some(last) = listed.items.last().filter(|_| listed.more) {
                    next = last.id.to_string();
                }
                owners.extend(listed.items.into_iter().map(|organization| organization.login));
            }
            Err(error) if slice.told_of(account, &error) == Told::Refused => {}
            Err(_) => return Ok(false),
        }
    }
    owners.retain(|owner| worker.github.serving(owner.split('/').next().unwrap_or(owner)).is_some());
    worker.ledger.discovered(&[], &owners, None, Some(&next)).await.step("recover.owners_noted")?;
    Ok(true)
}

/// Adds the organizations where an App is installed; false when that has to wait.
async fn installations(slice: &mut Slice<'_>, app: &Credential, owners: &mut Vec<String>) -> Result<bool, LedgerError> {
    let account = app.account_of(None);
    let mut page = 1;
    while let Turn::Call(client) = slice.call_as(app.clone(), account.clone()).await? {
        match client.installations(page).await.step("recover.installations_listed") {
            Ok(listed) => {
                let works = listed.items.into_iter().filter(|one| one.suspended_at.is_none() && one.target_type.as_deref() == Some("Organization"));
                owners.extend(works.filter_map(|one| one.account.and_then(|account| account.login)));
                if !listed.more {
                    return Ok(true);
                }
            }
            Err(error) => return Ok(slice.told_of(account, &error) == Told::Refused),
        }
        page += 1;
    }
    Ok(false)
}

/// Whether `GET organizations` means those of this installation.
fn lists_its_organizations(server: &url::Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    !(host == "github.com" || host.ends_with(".github.com") || host.ends_with(".ghe.com"))
}

/// Takes down an owner's repositories that were pushed to lately; false when that has to wait.
async fn repositories(slice: &mut Slice<'_>, owner: &str, now: i64) -> Result<bool, LedgerError> {
    let worker = slice.worker;
    let mut found = Vec::new();
    if owner.contains('/') {
        found.push((owner.to_owned(), now)); // a user's repository counts as an organization here
    } else {
        let scope = Scope::Organization(owner.to_owned());
        let mut page = 1;
        loop {
            let client = match slice.call(&scope).await? {
                Turn::Call(client) => client,
                Turn::Later => return Ok(false),
                Turn::NotServed => break,
            };
            match client.org_repositories(owner, page).await.step("recover.repositories_listed") {
                Ok(listed) => {
                    let pushed = |repo: &Repository| repo.pushed_at.map_or(0, |at| at.as_millisecond());
                    let lately = listed.items.iter().filter(|repo| pushed(repo) > now - LATELY_MS);
                    let all = lately.clone().count() == listed.items.len();
                    found.extend(lately.filter(|repo| !repo.asleep).map(|repo| (repo.full_name.clone(), pushed(repo))));
                    if !listed.more || !all {
                        break;
                    }
                }
                Err(error) if slice.told(&scope, &error) == Told::Refused => break,
                Err(_) => return Ok(false),
            }
            page += 1;
        }
    }
    worker.ledger.discovered(&found, &[], Some(owner), None).await.step("recover.repositories_noted")?;
    Ok(true)
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
