//! `POST /webhook`: from GitHub's bytes to an entry of `jit:events`.
//!
//! In this order: size, headers, body and its signature, JSON, decision, one round trip to Redis. Invariants: no byte
//! of a body is read before its headers are complete and well formed; nothing is parsed before its signature was found
//! good; the answer is 200 only once the entry is in Redis, or when there is nothing to enter; it comes within GitHub's
//! patience, whatever Redis does.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use jit_core::event::{Action, JobEvent};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    app::App,
    body::Budget,
    connections::Connection,
    errors::ApiError,
    job::{Decision, Reason, decide},
    messages::Language,
    names::shown,
    payload::Payload,
    signature::{Untrusted, Verifier},
};

/// What a webhook was answered with.
enum Answer {
    Published(JobEvent),
    Acknowledged(JobEvent),
    NotOurs(Reason, JobEvent),
    UnknownAction(String),
    OtherEvent(String),
}

/// How far a webhook came, for whoever runs out of time.
#[derive(Default)]
struct Progress {
    verified: bool,
}

/// Takes a webhook.
pub async fn receive(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let delivery = delivery(&parts.headers);
    let mut progress = Progress::default();
    let answer = match timeout(
        app.settings.timeouts.webhook,
        take(&app, &parts, body, &delivery, &mut progress),
    )
    .await
    {
        Ok(answer) => answer,
        Err(_) if progress.verified => Err(ApiError::timed_out()),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not come in time",
        )),
    };
    let took = started.elapsed();
    let (outcome, event) = match &answer {
        Ok(answer) => answer.outcome(),
        Err(error) => (error.error, None),
    };
    let repository = app
        .settings
        .repository_labels
        .then(|| event.map_or("", |event| event.repo.as_str()));
    app.metrics.webhook(outcome, repository, took);
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match answer {
        Ok(answer) => {
            let (outcome, event) = answer.outcome();
            let (name, reason) = answer.told();
            tracing::info!(
                http.path = "/webhook",
                http.status = 200,
                duration_ms = ms,
                outcome,
                github.delivery = delivery,
                github.event = name,
                reason,
                job.action = event.map(|event| event.action.as_str()),
                job.id = event.map(|event| event.job.get()),
                job.org = event.map(|event| event.org.as_str()),
                job.repo = event.map(|event| event.repo.as_str()),
                "webhook"
            );
            answer.response(Language::of(&parts.headers))
        }
        Err(error) => {
            let detail = shown(&error.detail, 200);
            tracing::warn!(
                http.path = "/webhook",
                http.status = error.status.as_u16(),
                duration_ms = ms,
                outcome,
                github.delivery = delivery,
                detail,
                "webhook refused"
            );
            error.into_response()
        }
    }
}

async fn take(
    app: &App,
    request: &Parts,
    body: Body,
    delivery: &str,
    progress: &mut Progress,
) -> Result<Answer, ApiError> {
    let (headers, limit) = (&request.headers, app.settings.max_body_bytes);
    Budget::announced(headers, limit)?;
    let mut verifier = Verifier::new(&app.settings.webhook_secrets, headers).map_err(untrusted)?;
    let event = headers
        .get("x-github-event")
        .ok_or_else(|| ApiError::bad_request("X-GitHub-Event is missing"))?;
    let event = event
        .to_str()
        .map_err(|_| ApiError::bad_request("X-GitHub-Event is no text"))?;
    let body = app
        .bodies
        .read_with(headers, body, limit, |piece| verifier.update(piece))
        .await?;
    verifier.verdict().map_err(untrusted)?;
    progress.verified = true;
    if let Some(connection) = request.extensions.get::<Arc<Connection>>() {
        connection.verified();
    }
    if event != "workflow_job" {
        return Ok(Answer::OtherEvent(shown(event, 64)));
    }
    let payload = Payload::read(&json(headers, &body.bytes)?).map_err(ApiError::bad_request)?;
    // The body has been read for good: its memory is another's while this one waits for Redis.
    drop(body);
    let event = match decide(&payload, &app.settings.github, &app.settings.limits)? {
        Decision::Publish(event) => event,
        Decision::Acknowledge(event) => return Ok(Answer::Acknowledged(event)),
        Decision::NotOurs(reason, event) => return Ok(Answer::NotOurs(reason, event)),
        Decision::UnknownAction(action) => return Ok(Answer::UnknownAction(action)),
    };
    let _place = app.webhooks.enter()?;
    match app
        .publisher
        .publish(&event, delivery, app.settings.backlog_limit)
        .await
    {
        Ok(true) => Ok(Answer::Published(event)),
        Ok(false) => Err(ApiError::backlog_full()),
        Err(error) => {
            tracing::warn!(%error, "Redis did not take a job event");
            Err(ApiError::redis_away())
        }
    }
}

fn untrusted(error: Untrusted) -> ApiError {
    match error {
        Untrusted::NoSecret => ApiError::no_secret("no_secret", error.to_string()),
        _ => ApiError::new(StatusCode::UNAUTHORIZED, "invalid_signature", error.to_string()),
    }
}

/// The JSON of a body: all of it, or the field `payload` of a form, which GitHub sends when its webhook says so.
fn json<'b>(headers: &HeaderMap, body: &'b [u8]) -> Result<Cow<'b, [u8]>, ApiError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Cow::Borrowed(body));
    }
    let payload = url::form_urlencoded::parse(body)
        .find_map(|(name, value)| (name == "payload").then(|| value.into_owned().into_bytes()));
    payload.map(Cow::Owned).ok_or_else(|| {
        ApiError::bad_request("the form has no field payload; to send JSON, say Content-Type: application/json")
    })
}

/// GitHub's id of the delivery, for the log and the entry.
fn delivery(headers: &HeaderMap) -> String {
    let text = headers
        .get("x-github-delivery")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect()
}

impl Answer {
    /// One word for metrics and the log, and the event where there is one.
    fn outcome(&self) -> (&'static str, Option<&JobEvent>) {
        match self {
            Self::Published(event) if event.action == Action::Queued => ("queued", Some(event)),
            Self::Published(event) | Self::Acknowledged(event) => ("acknowledged", Some(event)),
            Self::NotOurs(Reason::NoLabels, event) => ("no_labels", Some(event)),
            Self::NotOurs(_, event) => ("ignored", Some(event)),
            Self::UnknownAction(_) | Self::OtherEvent(_) => ("ignored", None),
        }
    }

    /// The event's name and the reason, for the log.
    fn told(&self) -> (&str, Option<&str>) {
        match self {
            Self::OtherEvent(event) => (event, None),
            Self::UnknownAction(action) => ("workflow_job", Some(action)),
            Self::NotOurs(reason, _) => ("workflow_job", Some(reason.as_str())),
            Self::Published(_) => ("workflow_job", None),
            Self::Acknowledged(_) => ("workflow_job", Some("not_ours")),
        }
    }

    fn response(&self, language: Language) -> Response {
        let body = match self {
            Self::Published(event) if event.action == Action::Queued => {
                json!({ "status": "queued", "action": "queued", "org": event.org, "job_id": event.job.get(),
                    "message": language.queued(event.job) })
            }
            Self::Published(event) | Self::Acknowledged(event) => acknowledged(event),
            Self::NotOurs(reason, _) => json!({ "status": "ignored", "reason": reason.as_str() }),
            Self::UnknownAction(action) => json!({ "status": "ignored", "action": action }),
            Self::OtherEvent(event) => json!({ "status": "ignored", "event": event }),
        };
        Json(body).into_response()
    }
}

fn acknowledged(event: &JobEvent) -> Value {
    let mut body = json!({ "status": "acknowledged", "action": event.action.as_str(), "org": event.org,
        "job_id": event.job.get() });
    if event.action == Action::Completed {
        body["conclusion"] = json!(event.conclusion);
    }
    body
}
