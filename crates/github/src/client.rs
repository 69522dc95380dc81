//! The calls.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::app::{App, Who};
use crate::error::Error;
use crate::groups::Groups;
use crate::options::{BuildError, ClientOptions, Login};
use crate::pages::{Reading, Runners};
use crate::scope::{Scope, resource};
use crate::transport::{Call, Transport};
use crate::types::{Deletion, JitRequest, JitRunner, Job, Lookup, Runner};
use crate::words::tidy;

/// A client of one GitHub server with one credential. Clones share connections, cache and counters.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    transport: Transport,
    /// Where calls go out as a GitHub App.
    app: Option<App>,
    groups: Groups,
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
            groups: Groups::default(),
        })))
    }

    /// Registers a just-in-time runner: `POST {scope}/actions/runners/generate-jitconfig`.
    ///
    /// `timeout` holds from the start of the request to the end of the answer. GitHub counts at most 1500 registrations
    /// in 5 minutes and scope.
    ///
    /// # Errors
    /// Where [`Error::uncertain`] holds, a runner of this name may be registered all the same.
    pub async fn generate_jit_config(
        &self,
        scope: &Scope,
        request: &JitRequest,
        timeout: Duration,
    ) -> Result<JitRunner, Error> {
        #[derive(Deserialize)]
        struct Registered {
            runner: Id,
            encoded_jit_config: String,
        }
        #[derive(Deserialize)]
        struct Id {
            id: u64,
        }
        let what = format!("JIT config for runner {:?} at {scope}", request.name);
        let mut call = self.call(
            "generate-jitconfig",
            Method::POST,
            scope,
            &["actions", "runners", "generate-jitconfig"],
            what.clone(),
        )?;
        // Cannot fail: strings and a number.
        let body = serde_json::to_vec(request).map_err(|error| Error::Invalid {
            what: what.clone(),
            said: error.to_string(),
        })?;
        call.body = Some(body);
        call.timeout = timeout;
        (call.makes_runner, call.secret) = (true, true);
        let answer = self.send(call).await?;
        let status = answer.status;
        if matches!(status, 403 | 404 | 422) {
            self.groups().forget(scope, request.runner_group_id);
        }
        let Registered {
            runner,
            encoded_jit_config,
        } = answer.json()?;
        if encoded_jit_config.is_empty() {
            return Err(Error::Unreadable {
                what,
                status,
                why: "the JIT config is empty".into(),
            });
        }
        Ok(JitRunner {
            id: runner.id,
            encoded_jit_config: encoded_jit_config.into(),
        })
    }

    /// Looks for the runner of this name (without regard to case): `GET {scope}/actions/runners?name=`.
    ///
    /// GHES ignores `name` before 3.11, so the answer is searched whatever it holds: one call where the server filters,
    /// else up to one per 100 runners. A list of several pages is read twice before the runner is called absent, since
    /// runners come and go between two pages, and push others from one to the next.
    ///
    /// # Errors
    /// As any call.
    pub async fn find_runner(&self, scope: &Scope, name: &str) -> Result<Lookup, Error> {
        let what = format!("runner {name:?} of {scope}");
        for _ in 0..2 {
            let mut found = None;
            let look = |runner: Runner| {
                if runner.name.eq_ignore_ascii_case(name) {
                    found = Some(runner);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            let reading = self
                .each::<Runners>("runners", &what, scope, "runners", &[("name", name)], look)
                .await?;
            match (found, reading) {
                (Some(runner), _) => return Ok(Lookup::Found(runner)),
                (None, Reading { complete: false, .. }) => return Ok(Lookup::Unseen),
                (None, Reading { pages: 1, .. }) => return Ok(Lookup::Absent),
                (None, _) => {}
            }
        }
        Ok(Lookup::Absent)
    }

    /// All runners registered at this scope itself: `GET {scope}/actions/runners`, one call per 100.
    ///
    /// The list may change while it is read: a runner that is missing in one listing may be there.
    ///
    /// # Errors
    /// As any call; then nothing of the list is given.
    pub async fn list_runners(&self, scope: &Scope) -> Result<Vec<Runner>, Error> {
        let mut runners = Vec::new();
        self.each::<Runners>(
            "runners",
            &format!("runners of {scope}"),
            scope,
            "runners",
            &[],
            |runner| {
                runners.push(runner);
                ControlFlow::Continue(())
            },
        )
        .await?;
        Ok(runners)
    }

    /// Removes a runner, unless it runs a job: `DELETE {scope}/actions/runners/{id}`.
    ///
    /// # Errors
    /// As any call, but 404 and 422 are answers here.
    pub async fn delete_runner(&self, scope: &Scope, id: u64) -> Result<Deletion, Error> {
        let what = format!("deletion of runner {id} of {scope}");
        let call = self.call(
            "delete-runner",
            Method::DELETE,
            scope,
            &["actions", "runners", &id.to_string()],
            what,
        )?;
        let answer = self.send(call).await?;
        match answer.status {
            404 => Ok(Deletion::NotFound),
            422 => Ok(Deletion::Busy),
            204 => Ok(Deletion::Deleted),
            status => {
                let what = answer.success()?.what;
                Err(Error::Unreadable {
                    what,
                    status,
                    why: "GitHub confirms a deletion with 204".into(),
                })
            }
        }
    }

    /// A job: `GET repos/{owner}/{repo}/actions/jobs/{id}`. `None` on 404, which GitHub also answers where the
    /// credential may not see the repository.
    ///
    /// # Errors
    /// As any call, but 404 is an answer here.
    pub async fn job(&self, owner: &str, repo: &str, id: u64) -> Result<Option<Job>, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let what = format!("job {id} of {scope}");
        let call = self.call("job", Method::GET, &scope, &["actions", "jobs", &id.to_string()], what)?;
        let answer = self.send(call).await?;
        if answer.status == 404 {
            Ok(None)
        } else {
            answer.json().map(Some)
        }
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

    /// Sends a call as whoever it needs.
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

    pub(crate) fn groups(&self) -> &Groups {
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
