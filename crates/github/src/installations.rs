//! Where a GitHub App is installed.

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::pages::Listed;

/// An installation of a GitHub App.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Installation {
    /// GitHub's id of it.
    pub id: u64,
    /// Where it is installed.
    #[serde(default)]
    pub account: Option<InstalledAt>,
    /// `Organization`, `User` or `Enterprise`.
    #[serde(default)]
    pub target_type: Option<String>,
    /// Since when it may do nothing.
    #[serde(default)]
    pub suspended_at: Option<Timestamp>,
}

/// An account: a user or an organization has a login, an enterprise a slug.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InstalledAt {
    /// Login of a user or an organization.
    #[serde(default)]
    pub login: Option<String>,
    /// Slug of an enterprise.
    #[serde(default)]
    pub slug: Option<String>,
}

impl Installation {
    /// Whether it is at the enterprise of this slug.
    pub(crate) fn is_at_enterprise(&self, slug: &str) -> bool {
        let own = self.account.as_ref().and_then(|account| account.slug.as_deref());
        self.target_type.as_deref() == Some("Enterprise") && own.is_some_and(|own| own.eq_ignore_ascii_case(slug))
    }
}

impl Client {
    /// One page (from 1) of the App's installations: `GET app/installations`. Only as an App.
    ///
    /// # Errors
    /// As any call.
    pub async fn installations(&self, page: u32) -> Result<Listed<Installation>, Error> {
        let call = self.call_at(
            "installations",
            Method::GET,
            &["app", "installations"],
            "installations of the GitHub App".to_owned(),
        )?;
        self.page::<_, Vec<Installation>>(call, page).await
    }
}
