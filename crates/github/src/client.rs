//! The client: whose calls go out, and how. The calls themselves stand in the files of what they are about.

use std::fmt;
use std::sync::Arc;

use reqwest::Method;

use crate::answer::Answer;
use crate::app::App;
use crate::error::Error;
use crate::known_groups::KnownGroups;
use crate::login::{Login, Who};
use crate::options::{BuildError, ClientOptions};
use crate::scope::{Scope, resource};
use crate::transport::{Call, Transport};
use crate::words::tidy;

/// A client of one GitHub server with one credential. Clones share connections, cache and counters.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    transport: Transport,
    /// Where calls go out as a GitHub App.
    app: Option<App>,
    groups: KnownGroups,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(self.0.transport.options()).finish()
    }
}

impl Client {
    /// A client; nothing is sent yet. Proxies come from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    ///
    /// Makes ring the process's default provider of cryptography, unless there is one.
    ///
    /// # Errors
    /// Where the options cannot work whatever GitHub answers.
    pub fn new(options: ClientOptions) -> Result<Self, BuildError> {
        let app = match &options.login {
            Login::Token(_) => None,
            Login::App(login) => Some(App::new(login.clone())),
        };
        Ok(Self(Arc::new(Inner {
            transport: Transport::new(options)?,
            app,
            groups: KnownGroups::default(),
        })))
    }

    /// Calls left in GitHub's current window, as the last answer had it; `None` where none said so (GHES without
    /// limits).
    #[must_use]
    pub fn rate_limit_remaining(&self) -> Option<u64> {
        self.transport().remaining()
    }

    /// Whether both are clones of one client.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it speaks as a GitHub App, with a token and an hour of calls for each installation.
    #[must_use]
    pub fn is_app(&self) -> bool {
        self.0.app.is_some()
    }

    /// Whether calls at a scope can go out: a token knows nothing to the contrary, an App needs an installation's,
    /// which is fetched where none is at hand.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Suspended`], [`Error::NoToken`].
    pub async fn ready(&self, scope: &Scope) -> Result<(), Error> {
        match (&self.0.app, Who::of(&scope.segments())) {
            (Some(app), Who::Installation(account)) => {
                app.ready(self.transport(), &tidy(&format!("token for {scope}")), &account)
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Sends a call with the credential that it needs.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Error> {
        let http = self.transport();
        match (&self.0.app, &http.options().login) {
            (Some(app), _) => match call.who.clone() {
                Who::Installation(account) => app.send(http, call, &account).await,
                Who::App => app.send_as_app(http, call).await,
            },
            (None, Login::Token(token)) => {
                let who = call.who.clone();
                let answer = http.send(call, &token()).await?;
                http.last_word(&who, &answer).await;
                Ok(answer)
            }
            (None, Login::App(_)) => unreachable!("an App's login makes an App"),
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn groups(&self) -> &KnownGroups {
        &self.0.groups
    }

    /// A call to `{api}/{scope}/{path}` with the usual time-out and no body.
    pub(crate) fn call(
        &self,
        endpoint: &'static str,
        method: Method,
        scope: &Scope,
        path: &[&str],
        what: String,
    ) -> Result<Call, Error> {
        self.call_at(endpoint, method, &[&scope.segments(), path].concat(), what)
    }

    /// A call to `{api}/{path}` with the usual time-out and no body.
    pub(crate) fn call_at(
        &self,
        endpoint: &'static str,
        method: Method,
        path: &[&str],
        what: String,
    ) -> Result<Call, Error> {
        // A scope may be made of any text.
        let what = tidy(&what);
        let options = self.transport().options();
        let Some(url) = resource(&options.api_url, path) else {
            return Err(Error::Invalid {
                what,
                said: "(not sent) no name that a URL can hold".into(),
            });
        };
        Ok(Call {
            endpoint,
            what,
            method,
            url,
            body: None,
            timeout: options.timeout,
            makes_runner: false,
            secret: false,
            who: Who::of(path),
            known: None,
        })
    }
}
