//! Calls about runners: registering, finding, listing, deleting.

use std::ops::ControlFlow;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::pages::{Reading, Runners};
use crate::scope::Scope;
use crate::types::{Deletion, JitRequest, JitRunner, Lookup, Runner};

impl Client {
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
}
