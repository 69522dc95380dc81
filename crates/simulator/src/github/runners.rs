//! The runners' protocol over HTTP: long polls that end when the bell rings, and that tell by being cut that a runner
//! is dead.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::sessions::{Polled, Refusal, Watched};
use crate::jit::JitConfig;

/// Body of a `connect`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Connect {
    /// The JIT configuration, as the runner was given it.
    pub(crate) jit_config: String,
}

/// What is under `/_runner`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/connect", post(connect))
        .route("/{session}/job", get(job))
        .route("/{session}/watch", get(watch))
        .route("/{session}/done", post(done))
        .route("/{session}/bye", post(bye))
}

async fn connect(State(app): State<Arc<App>>, Json(body): Json<Connect>) -> Response {
    let Ok(jit) = JitConfig::decode(&body.jit_config) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match app.with(|server, now| server.connect(&jit, now)) {
        Ok(welcome) => Json(welcome).into_response(),
        Err(Refusal::Unknown) => StatusCode::NOT_FOUND.into_response(),
        Err(Refusal::Taken) => StatusCode::CONFLICT.into_response(),
        Err(Refusal::Mute) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(Refusal::Ends(how)) => (StatusCode::FORBIDDEN, Json(how)).into_response(),
    }
}

/// A request that is held open. While there is one, its runner is alive; when it is dropped, answered or cut, the lease
/// runs.
struct Held<'a> {
    app: &'a App,
    session: &'a str,
    bell: Arc<Notify>,
    until: Instant,
}

impl<'a> Held<'a> {
    fn new(app: &'a App, session: &'a str, longest: Duration) -> Option<Self> {
        let bell = app.with(|server, _| server.open(session))?;
        Some(Self {
            app,
            session,
            bell,
            until: Instant::now() + longest,
        })
    }

    /// Looks whenever the bell rings, until `look` sees something or the time is up.
    async fn wait<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            if let Some(seen) = look() {
                return Some(seen);
            }
            timeout_at(self.until, self.bell.notified()).await.ok()?;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.app.with(|server, now| server.close(self.session, now));
    }
}

async fn job(State(app): State<Arc<App>>, Path(session): Path<String>) -> Response {
    let Some(held) = Held::new(&app, &session, app.poll) else {
        return StatusCode::GONE.into_response();
    };
    let look = || match app.with(|server, now| server.poll(&session, now)) {
        Polled::Nothing => None,
        other => Some(other),
    };
    match held.wait(look).await {
        None | Some(Polled::Nothing) => StatusCode::NO_CONTENT.into_response(),
        Some(Polled::Job(order)) => Json(order).into_response(),
        Some(Polled::Gone) => StatusCode::GONE.into_response(),
    }
}

async fn watch(State(app): State<Arc<App>>, Path(session): Path<String>) -> Response {
    let Some(held) = Held::new(&app, &session, app.poll) else {
        return StatusCode::GONE.into_response();
    };
    let look = || match app.with(|server, _| server.watch(&session)) {
        Watched::Running => None,
        other => Some(other),
    };
    match held.wait(look).await {
        None | Some(Watched::Running) => StatusCode::NO_CONTENT.into_response(),
        Some(Watched::Cancelled) => StatusCode::OK.into_response(),
        Some(Watched::Gone) => StatusCode::GONE.into_response(),
    }
}

async fn done(State(app): State<Arc<App>>, Path(session): Path<String>) -> StatusCode {
    if app.with(|server, now| server.done(&session, now)) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::GONE
    }
}

async fn bye(State(app): State<Arc<App>>, Path(session): Path<String>) -> StatusCode {
    app.with(|server, now| server.bye(&session, now));
    StatusCode::NO_CONTENT
}
