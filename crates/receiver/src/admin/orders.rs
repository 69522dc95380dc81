//! Orders of an operator: pause and resume of an organization, retry of a job, removal of a runner, a reconcile.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use jit_core::{ledger::Known, model::RunnerState, operator, render};
use serde_json::{Value, json};

use crate::{
    admin::{json, limits::forced, tick},
    app::App,
    errors::ApiError,
    messages::Language,
    names::{JobKey, OrgKey, is_runner},
};

/// `POST /admin/orgs/{org}/pause`.
pub async fn pause(
    State(app): State<Arc<App>>,
    OrgKey(org): OrgKey,
    language: Language,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = json(&app, request).await?;
    let reason = operator::reason(body["reason"].as_str().unwrap_or_default())
        .map_err(|error| ApiError::invalid(format!("reason: {error}")))?;
    let until = match &body["until"] {
        Value::Null => None,
        value => {
            let until = operator::until(value.as_str().unwrap_or_default(), app.ledger.now().await?);
            Some(until.map_err(|error| ApiError::invalid(format!("until: {error}")))?)
        }
    };
    let (org, _) = app.ledger.spelling(&org).await?;
    app.ledger.pause(&org, reason, until).await?;
    tracing::info!(job.org = org, reason, "an operator has paused an organization");
    Ok(Json(
        json!({ "organization": org, "paused": true, "reason": reason, "until": until.and_then(render::time),
            "message": language.paused() }),
    ))
}

/// `POST /admin/orgs/{org}/resume`: also when it was not paused.
pub async fn resume(
    State(app): State<Arc<App>>,
    OrgKey(org): OrgKey,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    let (org, _) = app.ledger.spelling(&org).await?;
    app.ledger.resume(&org).await?;
    tick(&app, "dispatch").await;
    tracing::info!(job.org = org, "an operator has resumed an organization");
    Ok(Json(
        json!({ "organization": org, "paused": false, "message": language.resumed() }),
    ))
}

/// `POST /admin/jobs/{id}/retry`: also where nothing holds it back.
pub async fn retry(
    State(app): State<Arc<App>>,
    JobKey(job): JobKey,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    let done = app.ledger.retry(job).await?;
    if done.state == Known::Unknown {
        return Err(ApiError::not_found(format!(
            "job {job} is not known here: its webhook never came, its labels are not ours, or it has long been over"
        )));
    }
    if !done.retried.is_empty() {
        tick(&app, "dispatch").await;
        tracing::info!(job.id = %job, retried = ?done.retried, "an operator wants what holds a job back tried again");
    }
    let message = language.retried(!done.retried.is_empty());
    Ok(Json(
        json!({ "job_id": job.get(), "retried": done.retried, "message": message }),
    ))
}

/// `DELETE /admin/runners/{name}?force=false`: asks for its removal, which workers carry out, at GitHub first; with
/// `force` its pod ends whatever GitHub says.
pub async fn remove_runner(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    language: Language,
) -> Result<Response, ApiError> {
    let force = forced(query.as_deref())?;
    let name = name.ok().map(|Path(name)| name).filter(|name| is_runner(name));
    let name = name.ok_or_else(|| ApiError::bad_request("the path names no runner: 1 to 63 of a-z, 0-9 and -"))?;
    let observed = app
        .ledger
        .observe(operator::removal(force), &name, operator::WANTS_GONE)
        .await?;
    let (status, message) = match observed.state {
        Known::Unknown => return Err(ApiError::not_found("no runner of this name was there in the last day")),
        Known::State(RunnerState::Gone) => (StatusCode::OK, language.already_gone()),
        _ if force => (StatusCode::ACCEPTED, language.removal_forced()),
        _ => (StatusCode::ACCEPTED, language.removal_asked()),
    };
    if observed.changed {
        tick(&app, "dispatch").await;
        tracing::info!(
            runner.name = name,
            runner.state = %observed.state,
            force,
            "an operator wants a runner gone"
        );
    }
    Ok((
        status,
        Json(json!({ "name": name, "state": observed.state, "message": message })),
    )
        .into_response())
}

/// `POST /admin/reconcile`: asks for a sync tick now.
pub async fn reconcile(State(app): State<Arc<App>>, language: Language) -> Result<Response, ApiError> {
    app.publisher.tick("sync").await?;
    tracing::info!("an operator has asked for a reconcile");
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "status": "accepted", "message": language.reconcile_asked() })),
    )
        .into_response())
}
