//! Speaking as a GitHub App: a JWT for the App itself, an installation's token for each account where it is installed.
//!
//! Invariants: a token is used for the account only that it was made for; for each account at most one token is being
//! fetched at a time, and whoever waits for it gets the same token or the same error; a token is renewed ahead of its
//! end, and as long as the old one holds, a renewal that fails is no failure; no token outlives a 401. Tokens are in
//! memory and nowhere else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::answer::Answer;
use crate::error::Error;
use crate::jwt;
use crate::login::{Account, AppLogin, Who};
use crate::scope::resource;
use crate::transport::{Call, Transport};
use crate::types::Installation;
use crate::words::tidy;

/// A token is renewed so long before its end. GitHub's live for an hour.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// After a renewal that failed, the next try is so far away while the old token holds.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// A JWT that GitHub refused is signed again when the clocks turn out to differ by more than that from what it was
/// signed with.
const TIME_MATTERS: SignedDuration = SignedDuration::from_secs(5);
/// Pages of 100 installations in which an enterprise's is looked for.
const PAGES: u32 = 100;

/// A token, and how long it holds, by GitHub's clock.
#[derive(Clone)]
struct Held {
    token: SecretString,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    /// Held by whoever fetches a token.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct SlotState {
    held: Option<Held>,
    installation: Option<u64>,
    /// Counts the fetches that ended, and what the last one ended with, if it failed: who waited for it need not try
    /// again.
    fetches: u64,
    failed: Option<Error>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a token stands.
enum Standing {
    Good(SecretString),
    /// It holds, and it is time for the next one.
    Due(SecretString),
    None,
}

/// The App, with its installations' tokens.
pub(crate) struct App {
    login: AppLogin,
    slots: Mutex<HashMap<(bool, String), Arc<Slot>>>,
    jwt: Mutex<Option<Signed>>,
}

#[derive(Clone)]
struct Signed {
    token: SecretString,
    key: SecretString,
    at: Timestamp,
    /// How far the local clock was thought to be off.
    offset: SignedDuration,
}

#[derive(Deserialize)]
struct Issued {
    token: String,
    expires_at: Timestamp,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.login.id)
            .finish_non_exhaustive()
    }
}

impl App {
    pub(crate) fn new(login: AppLogin) -> Self {
        Self {
            login,
            slots: Mutex::default(),
            jwt: Mutex::default(),
        }
    }

    /// Sends a call with the token of an account's installation. A token that GitHub does not accept is dropped, and
    /// the call, which has done nothing then, is sent once more with a new one.
    pub(crate) async fn send(&self, http: &Transport, call: Call, account: &Account) -> Result<Answer, Error> {
        let token = self.token(http, &call.what, account).await?;
        let answer = http.send(call.clone(), &token).await?;
        let answer = if answer.status == 401 {
            self.drop_token(account, &token);
            tracing::info!(
                owner = account.name(),
                "GitHub does not accept an installation's token any more; fetching another"
            );
            let token = self.token(http, &call.what, account).await?;
            let answer = http.send(call, &token).await?;
            http.last_word(&Who::Installation(account.clone()), &answer).await;
            answer
        } else {
            answer
        };
        if answer.status == 403 && suspended(&answer) {
            self.drop_token(account, &answer.token);
            let error = Error::Suspended {
                what: answer.what,
                owner: tidy(account.name()),
            };
            http.refused(&Who::Installation(account.clone()), error.to_string())
                .await;
            return Err(error);
        }
        Ok(answer)
    }

    /// Sends a call as the App itself. A JWT that was refused because of its time is signed again with GitHub's.
    pub(crate) async fn send_as_app(&self, http: &Transport, call: Call) -> Result<Answer, Error> {
        let signed = self.jwt(http, &call.what)?;
        let answer = http.send(call.clone(), &signed.token).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        // The refusal's `Date` has told what GitHub's time is.
        self.drop_jwt();
        let again = self.jwt(http, &call.what)?;
        let time = (again.offset - signed.offset).abs() > TIME_MATTERS;
        let answer = if time || again.key.expose_secret() != signed.key.expose_secret() {
            http.send(call, &again.token).await?
        } else {
            answer
        };
        http.last_word(&Who::App, &answer).await;
        Ok(answer)
    }

    fn jwt(&self, http: &Transport, what: &str) -> Result<Signed, Error> {
        let (key, now, offset) = ((self.login.private_key)(), http.time().now(), http.time().offset());
        let mut cached = self.jwt.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |signed: &&Signed| {
            (0..jwt::USED_FOR).contains(&now.duration_since(signed.at).as_secs())
                && signed.key.expose_secret() == key.expose_secret()
        };
        if let Some(signed) = cached.as_ref().filter(usable) {
            return Ok(signed.clone());
        }
        let token = jwt::sign(&self.login.id, &key, now).map_err(|error| Error::Unauthorized {
            what: what.to_owned(),
            said: format!("(not sent) the private key of the GitHub App {error}"),
        })?;
        let signed = Signed {
            token,
            key,
            at: now,
            offset,
        };
        *cached = Some(signed.clone());
        Ok(signed)
    }

    fn drop_jwt(&self) {
        *self.jwt.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn slot(&self, account: &Account) -> Arc<Slot> {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(account.key())
            .or_default()
            .clone()
    }

    fn drop_token(&self, account: &Account, token: &SecretString) {
        let slot = self.slot(account);
        let mut state = slot.state();
        if state
            .held
            .as_ref()
            .is_some_and(|held| held.token.expose_secret() == token.expose_secret())
        {
            state.held = None;
        }
    }

    /// Fetches the account's token, unless one is at hand.
    pub(crate) async fn ready(&self, http: &Transport, what: &str, account: &Account) -> Result<(), Error> {
        self.token(http, what, account).await.map(|_| ())
    }

    /// The account's token: the one at hand, or a new one.
    async fn token(&self, http: &Transport, what: &str, account: &Account) -> Result<SecretString, Error> {
        let slot = self.slot(account);
        match standing(&slot, http.time().now()) {
            Standing::Good(token) => return Ok(token),
            Standing::Due(old) => {
                // Somebody else is at it, and the old one holds.
                let Ok(_alone) = slot.fetching.try_lock() else {
                    return Ok(old);
                };
                return Ok(match self.fetch(http, what, account, &slot).await {
                    Ok(token) => token,
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            owner = account.name(),
                            "an installation's token could not be renewed yet; the old one holds"
                        );
                        let again = http.time().now() + AGAIN;
                        if let Some(held) = &mut slot.state().held {
                            held.renew_at = again;
                        }
                        old
                    }
                });
            }
            Standing::None => {}
        }
        let before = slot.state().fetches;
        let _alone = slot.fetching.lock().await;
        if let Standing::Good(token) | Standing::Due(token) = standing(&slot, http.time().now()) {
            return Ok(token);
        }
        {
            let state = slot.state();
            if let (true, Some(error)) = (state.fetches != before, &state.failed) {
                return Err(error.clone());
            }
        }
        self.fetch(http, what, account, &slot).await
    }

    /// Fetches a token, and notes how that ended.
    async fn fetch(&self, http: &Transport, what: &str, account: &Account, slot: &Slot) -> Result<SecretString, Error> {
        let known = slot.state().installation;
        let mut fetched = match known {
            Some(installation) => self
                .issue(http, what, account, installation)
                .await
                .map(|held| (installation, held)),
            None => self.look_up_and_issue(http, what, account).await,
        };
        // Removed and installed again, it has another id.
        if known.is_some() && matches!(fetched, Err(Error::NotInstalled { .. })) {
            fetched = self.look_up_and_issue(http, what, account).await;
        }
        if let Err(error @ (Error::NotInstalled { .. } | Error::Suspended { .. })) = &fetched {
            http.refused(&Who::Installation(account.clone()), error.to_string())
                .await;
        }
        let mut state = slot.state();
        state.fetches += 1;
        match fetched {
            Ok((installation, held)) => {
                let token = held.token.clone();
                (state.installation, state.held, state.failed) = (Some(installation), Some(held), None);
                Ok(token)
            }
            Err(error) => {
                if matches!(error, Error::NotInstalled { .. }) {
                    state.installation = None;
                }
                state.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn look_up_and_issue(&self, http: &Transport, what: &str, account: &Account) -> Result<(u64, Held), Error> {
        let installation = self.installation(http, what, account).await?;
        Ok((installation, self.issue(http, what, account, installation).await?))
    }

    /// The installation at an account.
    async fn installation(&self, http: &Transport, what: &str, account: &Account) -> Result<u64, Error> {
        let not_installed = || Error::NotInstalled {
            what: what.to_owned(),
            owner: tidy(account.name()),
        };
        let found = match account {
            Account::Organization(org) => self.installed_at(http, what, &["orgs", org, "installation"]).await?,
            Account::Owner(owner) => match self.installed_at(http, what, &["orgs", owner, "installation"]).await? {
                Some(found) => Some(found),
                None => self.installed_at(http, what, &["users", owner, "installation"]).await?,
            },
            Account::Enterprise(slug) => self.installed_at_enterprise(http, what, slug).await?,
        };
        let installation = found.ok_or_else(not_installed)?;
        if installation.suspended_at.is_some() {
            return Err(Error::Suspended {
                what: what.to_owned(),
                owner: tidy(account.name()),
            });
        }
        Ok(installation.id)
    }

    async fn installed_at(&self, http: &Transport, what: &str, path: &[&str]) -> Result<Option<Installation>, Error> {
        let answer = self.ask(http, what, "installation", Method::GET, path, None).await?;
        if answer.status == 404 {
            Ok(None)
        } else {
            answer.json().map(Some).map_err(|cause| no_token(what, cause))
        }
    }

    /// GitHub has no call for an enterprise's installation; it is one of the App's.
    async fn installed_at_enterprise(
        &self,
        http: &Transport,
        what: &str,
        slug: &str,
    ) -> Result<Option<Installation>, Error> {
        for page in 1..=PAGES {
            let answer = self
                .ask(
                    http,
                    what,
                    "installations",
                    Method::GET,
                    &["app", "installations"],
                    Some(page),
                )
                .await?;
            let linked = answer.next.is_some();
            let all: Vec<Installation> = answer.json().map_err(|cause| no_token(what, cause))?;
            let full = all.len() >= 100;
            if let Some(found) = all.into_iter().find(|installation| installation.is_at_enterprise(slug)) {
                return Ok(Some(found));
            }
            if !linked && !full {
                break;
            }
        }
        Ok(None)
    }

    async fn issue(&self, http: &Transport, what: &str, account: &Account, installation: u64) -> Result<Held, Error> {
        let path = ["app", "installations", &installation.to_string(), "access_tokens"];
        let answer = self.ask(http, what, "access-tokens", Method::POST, &path, None).await?;
        match answer.status {
            404 => {
                return Err(Error::NotInstalled {
                    what: what.to_owned(),
                    owner: tidy(account.name()),
                });
            }
            403 if suspended(&answer) => {
                return Err(Error::Suspended {
                    what: what.to_owned(),
                    owner: tidy(account.name()),
                });
            }
            _ => {}
        }
        let issued: Issued = answer.json().map_err(|cause| no_token(what, cause))?;
        let now = http.time().now();
        let life = issued.expires_at.duration_since(now);
        // A life shorter than GitHub's hour is renewed as early in proportion.
        let renew_at = issued.expires_at.checked_sub(AHEAD.min(life / 5)).unwrap_or(now);
        Ok(Held {
            token: issued.token.into(),
            renew_at,
            expires_at: issued.expires_at,
        })
    }

    /// A call of the App's own on the way to a token. 404 is an answer, and so is 403 of an access token.
    async fn ask(
        &self,
        http: &Transport,
        what: &str,
        endpoint: &'static str,
        method: Method,
        path: &[&str],
        page: Option<u32>,
    ) -> Result<Answer, Error> {
        let Some(mut url) = resource(&http.options().api_url, path) else {
            return Err(Error::Invalid {
                what: what.to_owned(),
                said: "(not sent) no name that a URL can hold".into(),
            });
        };
        if let Some(page) = page {
            url.query_pairs_mut()
                .append_pair("per_page", "100")
                .append_pair("page", &page.to_string());
        }
        let call = Call {
            endpoint,
            what: tidy(&path.join("/")),
            method,
            url,
            body: None,
            timeout: http.options().timeout,
            makes_runner: false,
            secret: true,
            who: Who::App,
            known: None,
        };
        self.send_as_app(http, call)
            .await
            .map_err(|cause| no_token(what, cause))
    }
}

fn no_token(what: &str, cause: Error) -> Error {
    Error::NoToken {
        what: what.to_owned(),
        cause: Box::new(cause),
    }
}

fn standing(slot: &Slot, now: Timestamp) -> Standing {
    match &slot.state().held {
        Some(held) if now < held.renew_at => Standing::Good(held.token.clone()),
        Some(held) if now < held.expires_at => Standing::Due(held.token.clone()),
        _ => Standing::None,
    }
}

/// Whether a refusal says that the installation is suspended: "This installation has been suspended".
fn suspended(answer: &Answer) -> bool {
    String::from_utf8_lossy(&answer.body)
        .to_ascii_lowercase()
        .contains("suspended")
}
