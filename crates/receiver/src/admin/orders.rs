//! What an operator orders: pause and resume of an organization, the end of a runner, a reconcile.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use jit_core::ledger::Observation;
use serde_json::{Value, json};

use crate::{
    admin::{json, tick},
    app::App,
    errors::ApiError,
    messages::Language,
    names::OrgKey,
    render,
};

/// Longest reason of a pause, in characters.
const REASON: usize = 200;

/// `POST /admin/orgs/{org}/pause`.
pub async fn pause(State(app): State<Arc<App>>, OrgKey(org): OrgKey, language: Language, request: Request<Body>) -> Result<Json<Value>, ApiError> {
    let body = json(&app, request).await?;
    let reason =
        body["reason"].as_str().map(str::trim).filter(|reason| (1..=REASON).contains(&reason.chars().count()) && !reason.chars().any(char::is_control));
    let reason = reason.ok_or_else(|| ApiError::invalid(format!("reason: say why, in 1 to {REASON} characters; it is what people are told who wait")))?;
    let until = match &body["until"] {
        Value::Null => None,
        value => {
            let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond);
            let time = time.ok_or_else(|| ApiError::invalid("until: give a time such as 2027-01-15T08:00:00Z"))?;
            if time <= app.ledger.now().await? {
                return Err(ApiError::invalid("until: is over already"));
            }
            Some(time)
        }
    };
    let org = app.ledger.canonical(&org).await?;
    app.ledger.pause(&org, reason, until).await?;
    tracing::info!(job.org = org, reason, "an operator has paused an organization");
    Ok(Json(json!({ "organization": org, "paused": true, "reason": reason, "until": until.and_then(render::time), "message": language.paused() })))
}

/// `POST /admin/orgs/{org}/resume`: also when it was not paused.
pub async fn resume(State(app): State<Arc<App>>, OrgKey(org): OrgKey, language: Language) -> Result<Json<Value>, ApiError> {
    let org = app.ledger.canonical(&org).await?;
    app.ledger.resume(&org).await?;
    tick(&app, "dispatch").await;
    tracing::info!(job.org = org, "an operator has resumed an organization");
    Ok(Json(json!({ "organization": org, "paused": false, "message": language.resumed() })))
}

/// `DELETE /admin/runners/{name}`: asks for its removal, which workers carry out, at GitHub first.
pub async fn remove_runner(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>, language: Language) -> Result<Response, ApiError> {
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = name.ok().map(|Path(name)| name).filter(|name| (1..=63).contains(&name.len()) && name.chars().all(dns));
    let name = name.ok_or_else(|| ApiError::bad_request("the path names no runner: 1 to 63 of a-z, 0-9 and -"))?;
    let observed = app.ledger.observe(Observation::Remove, &name, "an operator wants it gone").await?;
    let (status, message) = match observed.state.as_str() {
        "unknown" => return Err(ApiError::not_found("no runner of this name was there in the last day")),
        "gone" => (StatusCode::OK, language.already_gone()),
        _ => (StatusCode::ACCEPTED, language.removal_asked()),
    };
    if observed.changed {
        tick(&app, "dispatch").await;
        tracing::info!(runner.name = name, runner.state = observed.state, "an operator wants a runner gone");
    }
    Ok((status, Json(json!({ "name": name, "state": observed.state, "message": message }))).into_response())
}

/// `POST /admin/reconcile`: asks for a sync tick now.
pub async fn reconcile(State(app): State<Arc<App>>, language: Language) -> Result<Response, ApiError> {
    app.publisher.tick("sync").await?;
    tracing::info!("an operator has asked for a reconcile");
    Ok((StatusCode::ACCEPTED, Json(json!({ "status": "accepted", "message": language.reconcile_asked() }))).into_response())
}
