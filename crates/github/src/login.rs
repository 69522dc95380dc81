//! As whom GitHub is called: with a token, or as an App and one of its installations.

use std::sync::Arc;

use secrecy::SecretString;

/// Gives the token for the next call; asked once a call, so a token file that was read again takes effect at once.
pub type Token = Arc<dyn Fn() -> SecretString + Send + Sync>;

/// As whom GitHub is called.
#[derive(Clone)]
pub enum Login {
    /// As whoever the token belongs to.
    Token(Token),
    /// As a GitHub App, installed at each owner that it serves.
    App(AppLogin),
}

impl Login {
    pub(crate) fn is_app(&self) -> bool {
        matches!(self, Self::App(_))
    }
}

/// As which App.
#[derive(Clone)]
pub struct AppLogin {
    /// Its id, or its client id.
    pub id: String,
    /// Gives its private key, PEM; asked each time that one is needed, so a file that was read again takes effect.
    pub private_key: Token,
}

/// Whose installation a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// An organization's.
    Organization(String),
    /// That of a repository's owner, who may be a user or an organization.
    Owner(String),
    /// An enterprise's.
    Enterprise(String),
}

/// As whom a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// As the installation there.
    Installation(Account),
    /// As the App itself.
    App,
}

impl Who {
    /// As whom a path is asked for: it begins with the owner that it is about, but for the App's own.
    pub(crate) fn of(path: &[&str]) -> Self {
        let account = match *path {
            ["orgs", org, ..] => Account::Organization(org.to_owned()),
            ["repos", owner, ..] => Account::Owner(owner.to_owned()),
            ["enterprises", slug, ..] => Account::Enterprise(slug.to_owned()),
            _ => return Self::App,
        };
        Self::Installation(account)
    }
}

impl Account {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Organization(name) | Self::Owner(name) | Self::Enterprise(name) => name,
        }
    }

    /// An organization is the same account as the owner of its repositories.
    pub(crate) fn key(&self) -> (bool, String) {
        (matches!(self, Self::Enterprise(_)), self.name().to_ascii_lowercase())
    }
}
