//! Organizations and repositories: where there may be jobs.

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::login::{Account, Who};
use crate::pages::{Listed, OnePage, PER_PAGE};
use crate::scope::Scope;

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Described")]
pub struct Repository {
    /// `owner/name`, as GitHub writes it.
    pub full_name: String,
    /// Login of the organization that owns it; none where a user does.
    pub organization: Option<String>,
    /// GitHub's id of the owner.
    pub owner_id: Option<u64>,
    /// Whether everybody sees it. One that does not say is taken for public.
    pub public: bool,
    /// Whether it is archived or switched off: no workflow runs there.
    pub asleep: bool,
    /// When it was last pushed to.
    pub pushed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Described {
    full_name: String,
    owner: Owner,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    pushed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Owner {
    login: String,
    #[serde(default)]
    id: Option<u64>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl From<Described> for Repository {
    fn from(it: Described) -> Self {
        let public = match it.visibility.as_deref() {
            Some(visibility) => !matches!(visibility, "private" | "internal"),
            None => !it.private.unwrap_or(false),
        };
        let organization = (it.owner.kind.as_deref() == Some("Organization")).then_some(it.owner.login);
        Self {
            full_name: it.full_name,
            organization,
            owner_id: it.owner.id,
            public,
            asleep: it.archived || it.disabled,
            pushed_at: it.pushed_at,
        }
    }
}

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Organization {
    /// GitHub's id of it: leads to the next page of [`Client::organizations`].
    pub id: u64,
    /// Its login.
    pub login: String,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Vec<Repository>,
}

impl OnePage<Repository> for Repositories {
    fn items(self) -> Vec<Repository> {
        self.repositories
    }
}

impl Client {
    /// Organizations of the server whose id is greater than `since`, by id: `GET organizations`. On a GHES these are
    /// all; on github.com, millions. Not as an App, which has its [installations](Self::installations).
    ///
    /// # Errors
    /// As any call.
    pub async fn organizations(&self, since: u64) -> Result<Listed<Organization>, Error> {
        let mut call = self.call_at(
            "organizations",
            Method::GET,
            &["organizations"],
            "organizations of the server".to_owned(),
        )?;
        call.url
            .query_pairs_mut()
            .append_pair("since", &since.to_string())
            .append_pair("per_page", &PER_PAGE.to_string());
        let answer = self.send(call).await?;
        let linked = answer.next.is_some();
        let items: Vec<Organization> = answer.json()?;
        let more = linked || items.len() >= PER_PAGE;
        Ok(Listed { items, more })
    }

    /// One page (from 1) of an organization's repositories, the one that was pushed to last first: `GET
    /// orgs/{org}/repos`.
    ///
    /// # Errors
    /// As any call.
    pub async fn org_repositories(&self, org: &str, page: u32) -> Result<Listed<Repository>, Error> {
        let scope = Scope::Organization(org.to_owned());
        let mut call = self.call(
            "org-repositories",
            Method::GET,
            &scope,
            &["repos"],
            format!("repositories of {scope}"),
        )?;
        call.url
            .query_pairs_mut()
            .append_pair("sort", "pushed")
            .append_pair("direction", "desc");
        self.page::<_, Vec<Repository>>(call, page).await
    }

    /// One page (from 1) of the repositories that the App's installation at `owner` sees: `GET
    /// installation/repositories`. Only as an App.
    ///
    /// # Errors
    /// As any call.
    pub async fn installation_repositories(&self, owner: &str, page: u32) -> Result<Listed<Repository>, Error> {
        let what = format!("repositories that the installation at {owner} sees");
        let mut call = self.call_at(
            "installation-repositories",
            Method::GET,
            &["installation", "repositories"],
            what,
        )?;
        call.who = Who::Installation(Account::Owner(owner.to_owned()));
        self.page::<_, Repositories>(call, page).await
    }
}
