//! Webhooks and what became of their deliveries.
//!
//! GitHub keeps each delivery for 3 days (GHES 7) and delivers none again by itself. Hooks of organizations, of
//! repositories and of an App have calls to list and repeat deliveries; the hook of an enterprise has none. A repeated
//! delivery has the first one's `guid` and an id of its own. The list is read newest first, by a cursor that GitHub
//! gives out.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::client::Client;
use crate::error::Error;
use crate::pages::{Asked, Listed, PER_PAGE};
use crate::scope::Scope;

/// A webhook as GitHub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// GitHub's id of it.
    pub id: u64,
    /// Where its deliveries go.
    pub url: Option<String>,
    /// Whether it is switched on.
    pub active: bool,
    /// Events that it tells of; `*` is all of them.
    pub events: Vec<String>,
}

/// Where a hook's deliveries are asked about. Its text is the path, and is read back: `orgs/acme/hooks/1`,
/// `repos/o/r/hooks/1`, `app/hook`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookAddress {
    /// A hook of an organization or of a repository.
    Of(Scope, u64),
    /// The one hook of a GitHub App.
    App,
}

impl HookAddress {
    fn path(&self, rest: &[&str]) -> Vec<String> {
        let start: Vec<String> = match self {
            Self::Of(scope, id) => scope
                .segments()
                .into_iter()
                .map(str::to_owned)
                .chain(["hooks".to_owned(), id.to_string()])
                .collect(),
            Self::App => vec!["app".to_owned(), "hook".to_owned()],
        };
        start
            .into_iter()
            .chain(rest.iter().map(|segment| (*segment).to_owned()))
            .collect()
    }
}

impl fmt::Display for HookAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path(&[]).join("/"))
    }
}

/// A text that is no [`HookAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no hook: {0:?}; a hook is orgs/ORG/hooks/ID, repos/OWNER/REPO/hooks/ID or app/hook")]
pub struct HookAddressError(String);

impl FromStr for HookAddress {
    type Err = HookAddressError;

    fn from_str(text: &str) -> Result<Self, HookAddressError> {
        if text == "app/hook" {
            return Ok(Self::App);
        }
        let parts = text
            .split_once("/hooks/")
            .and_then(|(scope, id)| Some((scope.parse::<Scope>().ok()?, id.parse().ok()?)));
        parts
            .filter(|(scope, _)| !matches!(scope, Scope::Enterprise(_)))
            .map(|(scope, id)| Self::Of(scope, id))
            .ok_or_else(|| HookAddressError(text.into()))
    }
}

/// One try to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Delivery {
    /// GitHub's id of this try.
    pub id: u64,
    /// `X-GitHub-Delivery`: the same for each try of one event.
    pub guid: String,
    /// When it was sent.
    pub delivered_at: Timestamp,
    /// Whether it repeats an earlier one.
    pub redelivery: bool,
    /// Status that it was answered with; 0 where no answer came.
    #[serde(default)]
    pub status_code: u16,
    /// Event, such as `workflow_job`.
    pub event: String,
    /// The event's `action`.
    #[serde(default)]
    pub action: Option<String>,
}

impl Delivery {
    /// Whether it was answered with a 2xx.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// One page of deliveries, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// What is on it.
    pub items: Vec<Delivery>,
    /// Leads to the page of older ones, where there is one.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    url: Option<String>,
}

#[derive(Deserialize)]
struct Described {
    id: u64,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    events: Vec<String>,
    config: Config,
}

impl Client {
    /// One page (from 1) of the webhooks of an organization or a repository: `GET {scope}/hooks`. An enterprise's are
    /// not to be seen there.
    ///
    /// # Errors
    /// As any call. GitHub answers 404 where the credential may not see hooks (classic tokens: `admin:org_hook`,
    /// `admin:repo_hook`).
    pub async fn hooks(&self, scope: &Scope, page: u32) -> Result<Listed<Hook>, Error> {
        let call = self.call("hooks", Method::GET, scope, &["hooks"], format!("webhooks of {scope}"))?;
        let listed = self.page::<Described, Vec<Described>>(call, page).await?;
        let hook = |hook: Described| Hook {
            id: hook.id,
            url: hook.config.url,
            active: hook.active,
            events: hook.events,
        };
        Ok(Listed {
            items: listed.items.into_iter().map(hook).collect(),
            more: listed.more,
        })
    }

    /// Where the webhook of the GitHub App goes, if it has one: `GET app/hook/config`. Only as the App itself.
    ///
    /// # Errors
    /// As any call.
    pub async fn app_hook_url(&self) -> Result<Option<String>, Error> {
        let call = self.call_at(
            "app-hook",
            Method::GET,
            &["app", "hook", "config"],
            "the App's webhook".to_owned(),
        )?;
        Ok(self.send(call).await?.json::<Config>()?.url)
    }

    /// One page of a hook's deliveries, newest first: `GET {hook}/deliveries`. `cursor` is what the page before gave
    /// out; `known`, the mark of the last answer.
    ///
    /// # Errors
    /// As any call.
    pub async fn deliveries(
        &self,
        hook: &HookAddress,
        cursor: Option<&str>,
        known: Option<&str>,
    ) -> Result<Asked<Deliveries>, Error> {
        let path = hook.path(&["deliveries"]);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut call = self.call_at("deliveries", Method::GET, &path, format!("deliveries of {hook}"))?;
        call.url
            .query_pairs_mut()
            .append_pair("per_page", &PER_PAGE.to_string())
            .extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        call.known = known.map(str::to_owned);
        self.send(call).await?.asked(|answer| {
            let cursor = answer.next.as_deref().and_then(cursor_of);
            Ok(Deliveries {
                items: answer.json()?,
                cursor,
            })
        })
    }

    /// Has GitHub deliver an event again: `POST {hook}/deliveries/{delivery}/attempts`. Whether it will; not where it
    /// does not know the delivery any more.
    ///
    /// # Errors
    /// As any call, but 404 and 422 are answers here.
    pub async fn redeliver(&self, hook: &HookAddress, delivery: u64) -> Result<bool, Error> {
        let id = delivery.to_string();
        let path = hook.path(&["deliveries", &id, "attempts"]);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let call = self.call_at(
            "redeliver",
            Method::POST,
            &path,
            format!("redelivery of {delivery} of {hook}"),
        )?;
        let answer = self.send(call).await?;
        if matches!(answer.status, 404 | 422) {
            return Ok(false);
        }
        answer.success().map(|_| true)
    }
}

/// The `cursor` in the address of the next page. The address itself is not followed: it may name a host that only
/// GitHub knows.
fn cursor_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    url.query_pairs()
        .find(|(name, _)| name == "cursor")
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back() {
        for text in [
            "orgs/acme/hooks/1",
            "repos/o/hello.world/hooks/9007199254740993",
            "app/hook",
        ] {
            assert_eq!(text.parse::<HookAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "orgs/acme",
            "orgs/acme/hooks/x",
            "enterprises/big/hooks/1",
            "app/hooks",
        ] {
            assert!(text.parse::<HookAddress>().is_err(), "{text}");
        }
    }
}
