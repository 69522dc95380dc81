//! The control API: what a test, a demo or a person does to the simulated GitHub and asks of it.
//!
//! No authentication: it is for loopback. Errors are `{"error": "…"}`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::{AppState, Caller};
use super::faults::Fault;
use super::hooks::HookKind;
use super::jobs::{ControlError, JobSpec};
use super::log::Entry;
use super::model::{Job, JobState, Ms, OwnerKind, Runner, Work};
use super::rights::Right;
use super::state::Server;
use super::{App, summary::Summary};

type Shared = State<Arc<App>>;
type Posted<T> = Result<Json<T>, JsonRejection>;

/// Most entries of one answer.
const MOST: usize = 100_000;

/// What is under `/_control`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs", get(jobs).post(create))
        .route("/jobs/{id}", get(job))
        .route(
            "/jobs/{id}/cancel",
            post(|app: Shared, id: Path<u64>| act(app, id, |server, id, now| server.cancel(id, now).map(|()| id))),
        )
        .route(
            "/jobs/{id}/approve",
            post(|app: Shared, id: Path<u64>| act(app, id, |server, id, now| server.approve(id, now).map(|()| id))),
        )
        .route(
            "/jobs/{id}/hold",
            post(|app: Shared, id: Path<u64>| act(app, id, |server, id, now| server.hold(id, now).map(|()| id))),
        )
        .route(
            "/jobs/{id}/rerun",
            post(|app: Shared, id: Path<u64>| act(app, id, Server::rerun)),
        )
        .route("/runners", get(runners))
        .route("/orgs", post(add_owner))
        .route("/orgs/{login}/rename", post(rename_owner))
        .route("/app", post(set_app))
        .route("/tokens", post(add_token))
        .route("/rate-limit", post(set_rate_limit))
        .route("/rights", post(set_rights))
        .route("/groups", post(set_group))
        .route("/webhook", post(set_webhook))
        .route("/hooks", post(set_hooks))
        .route("/faults", get(list_faults).post(add_faults).delete(clear_faults))
        .route("/faults/{id}", delete(clear_fault))
        .route("/log", get(log))
        .route("/summary", get(summary))
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoJob => StatusCode::NOT_FOUND,
            Self::State(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

fn posted<T>(body: Posted<T>) -> Result<T, ControlError> {
    body.map(|Json(body)| body)
        .map_err(|rejection| ControlError::Invalid(rejection.body_text()))
}

/// Reads one or a list of `T`, and says of a mistake what it is, which an untagged enum would not.
fn one_or_many<T: serde::de::DeserializeOwned>(body: Posted<Value>) -> Result<Vec<T>, ControlError> {
    let read = |value: Value| serde_json::from_value(value).map_err(|error| ControlError::Invalid(error.to_string()));
    match posted(body)? {
        Value::Array(many) => many.into_iter().map(read).collect(),
        one => Ok(vec![read(one)?]),
    }
}

async fn create(State(app): Shared, body: Posted<Value>) -> Result<Response, ControlError> {
    let specs: Vec<JobSpec> = one_or_many(body)?;
    let ids = app.with(|server, now| {
        specs
            .iter()
            .map(|spec| server.create_jobs(spec, now))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok((StatusCode::CREATED, Json(json!({ "ids": ids.concat() }))).into_response())
}

async fn act(
    State(app): Shared,
    Path(id): Path<u64>,
    step: impl FnOnce(&mut Server, u64, Ms) -> Result<u64, ControlError>,
) -> Result<Json<Value>, ControlError> {
    let id = app.with(|server, now| step(server, id, now))?;
    Ok(Json(json!({ "id": id })))
}

fn job_json(job: &Job) -> Value {
    json!({
        "id": job.id, "run_id": job.run_id, "run_attempt": job.run_attempt, "org": job.facts.repo.owner,
        "repo": job.facts.repo.full_name(),
        "labels": job.facts.labels, "state": job.state, "conclusion": job.conclusion,
        "runner_id": job.runner.as_ref().map(|runner| runner.id),
        "runner_name": job.runner.as_ref().map(|runner| &runner.name),
        "assigned_to": job.assigned.map(|(runner, _)| runner), "starts": job.starts, "times": job.times,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobQuery {
    org: Option<String>,
    state: Option<JobState>,
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn jobs(State(app): Shared, Query(query): Query<JobQuery>) -> Json<Value> {
    app.with(|server, _| {
        let fits = |job: &&Job| {
            query
                .org
                .as_ref()
                .is_none_or(|org| org.eq_ignore_ascii_case(&job.facts.repo.owner))
                && query.state.is_none_or(|state| job.state == state)
        };
        let shown: Vec<Value> = server
            .jobs
            .range(query.after + 1..)
            .map(|(_, job)| job)
            .filter(fits)
            .take(query.limit.unwrap_or(MOST))
            .map(job_json)
            .collect();
        Json(json!({ "total_count": server.jobs.values().filter(fits).count(), "jobs": shown }))
    })
}

async fn job(State(app): Shared, Path(id): Path<u64>) -> Result<Json<Value>, ControlError> {
    app.with(|server, _| server.job(id).map(|job| Json(job_json(job))))
        .ok_or(ControlError::NoJob)
}

async fn runners(State(app): Shared) -> Json<Value> {
    let json = |runner: &Runner| {
        let job = match runner.work {
            Work::Assigned(job) | Work::Running(job) => Some(job),
            Work::Idle | Work::Spent => None,
        };
        json!({
            "id": runner.id, "name": runner.name, "owner": runner.scope.owner(), "group": runner.group_name,
            "labels": runner.labels,
            "online": runner.session.is_some(), "busy": runner.busy(), "job": job, "registered": runner.registered,
        })
    };
    app.with(|server, _| {
        Json(json!({ "total_count": server.runners.len(),
        "runners": server.runners.values().map(json).collect::<Vec<_>>() }))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOwner {
    login: String,
    #[serde(default)]
    user: bool,
}

async fn add_owner(State(app): Shared, body: Posted<NewOwner>) -> Result<Json<Value>, ControlError> {
    let owner = posted(body)?;
    let kind = if owner.user {
        OwnerKind::User
    } else {
        OwnerKind::Organization
    };
    app.with(|server, _| server.add_owner(&owner.login, kind))?;
    Ok(Json(json!({ "login": owner.login })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLogin {
    login: String,
}

async fn rename_owner(
    State(app): Shared,
    Path(login): Path<String>,
    body: Posted<NewLogin>,
) -> Result<Json<Value>, ControlError> {
    let new = posted(body)?.login;
    app.with(|server, _| server.rename_owner(&login, &new))?;
    Ok(Json(json!({ "login": new })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppAt {
    /// Login of an organization or user, or slug of the enterprise.
    account: String,
    state: AppState,
}

async fn set_app(State(app): Shared, body: Posted<AppAt>) -> Result<Json<Value>, ControlError> {
    let at = posted(body)?;
    app.with(|server, now| server.set_installation(&at.account, at.state, now))?;
    Ok(Json(json!({ "account": at.account })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    token: String,
    rate_limit: Option<u64>,
}

async fn add_token(State(app): Shared, body: Posted<NewToken>) -> Result<Json<Value>, ControlError> {
    let new = posted(body)?;
    app.with(|server, _| server.add_token(&new.token, new.rate_limit));
    Ok(Json(json!({ "rate_limit": new.rate_limit })))
}

/// Calls an hour of a token that has no limit of its own; none: the server counts none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    limit: Option<u64>,
}

async fn set_rate_limit(State(app): Shared, body: Posted<RateLimit>) -> Result<Json<Value>, ControlError> {
    let new = posted(body)?;
    app.with(|server, _| server.settings.rate_limit = new.limit);
    Ok(Json(json!({ "rate_limit": new.limit })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRights {
    /// The server's own token or one that was added; none: whoever calls, the installations of the App too.
    token: Option<String>,
    /// None: at every owner.
    owner: Option<String>,
    /// All that is lacking from now on; nothing gives all back.
    without: BTreeSet<Right>,
}

async fn set_rights(State(app): Shared, body: Posted<NewRights>) -> Result<Json<Value>, ControlError> {
    let new = posted(body)?;
    let caller = new.token.map(|token| {
        if token == app.token.expose_secret() {
            Caller::Anybody
        } else {
            Caller::Token(token)
        }
    });
    let shown = json!({ "owner": new.owner, "without": new.without });
    app.with(|server, _| server.set_rights(caller, new.owner.as_deref(), new.without));
    Ok(Json(shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    /// None: the enterprise.
    org: Option<String>,
    name: String,
    selected: Option<Vec<String>>,
    #[serde(default)]
    public: bool,
}

async fn set_group(State(app): Shared, body: Posted<NewGroup>) -> Result<Json<Value>, ControlError> {
    let group = posted(body)?;
    let id = app.with(|server, _| server.set_group(group.org.as_deref(), &group.name, group.selected, group.public))?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookUrl {
    url: String,
}

async fn set_webhook(State(app): Shared, body: Posted<WebhookUrl>) -> Result<Json<Value>, ControlError> {
    let hook = posted(body)?;
    app.set_webhook_url(&hook.url);
    Ok(Json(json!({ "url": hook.url })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHook {
    owner: String,
    /// For the hook of one repository.
    repo: Option<String>,
    kind: HookKind,
    /// So many hooks of others are listed before it.
    #[serde(default)]
    others: u64,
}

/// One or many; `id` is the first one's.
async fn set_hooks(State(app): Shared, body: Posted<Value>) -> Result<Json<Value>, ControlError> {
    let hooks: Vec<NewHook> = one_or_many(body)?;
    let set = |server: &mut Server, hook: &NewHook| {
        server.set_hook(&hook.owner, hook.repo.as_deref(), hook.kind, hook.others)
    };
    let ids = app.with(|server, _| {
        hooks
            .iter()
            .map(|hook| set(server, hook))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(Json(json!({ "id": ids.first(), "ids": ids })))
}

async fn list_faults(State(app): Shared) -> Json<Value> {
    app.with(|server, _| Json(json!({ "faults": server.faults.list() })))
}

async fn add_faults(State(app): Shared, body: Posted<Value>) -> Result<Response, ControlError> {
    let faults: Vec<Fault> = one_or_many(body)?;
    if let Some(complaint) = faults.iter().find_map(Fault::complaint) {
        return Err(ControlError::Invalid(complaint.into()));
    }
    let ids: Vec<u64> = app.with(|server, _| faults.into_iter().map(|fault| server.faults.add(fault)).collect());
    Ok((StatusCode::CREATED, Json(json!({ "ids": ids }))).into_response())
}

async fn clear_faults(State(app): Shared) -> StatusCode {
    app.with(|server, _| server.faults.clear(None));
    StatusCode::NO_CONTENT
}

async fn clear_fault(State(app): Shared, Path(id): Path<u64>) -> StatusCode {
    app.with(|server, _| server.faults.clear(Some(id)));
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn log(State(app): Shared, Query(query): Query<LogQuery>) -> Json<Value> {
    // Copied under the lock, written as JSON outside of it.
    let (entries, last): (Vec<Entry>, u64) = app.with(|server, _| {
        (
            server
                .log
                .after(query.after, query.limit.unwrap_or(MOST))
                .cloned()
                .collect(),
            server.log.last(),
        )
    });
    Json(json!({ "next": entries.last().map_or(query.after, |entry| entry.seq), "last": last, "events": entries }))
}

async fn summary(State(app): Shared) -> Json<Summary> {
    Json(app.with(|server, _| server.summary()))
}
