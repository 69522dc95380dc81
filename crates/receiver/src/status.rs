//! What anybody in the cluster may ask: whether the receiver works, what runs where, and why a job waits. Reads that
//! change nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jit_core::{
    ledger::OrgStatus,
    render::{self, JobView},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    app::App,
    errors::ApiError,
    messages::Language,
    metrics::Format,
    names::{JobKey, OrgKey},
};

/// A probe is answered within this time: a kubelet waits for a second.
const PROBE: Duration = Duration::from_millis(800);

/// `GET /webhook/test`.
pub async fn webhook_test(language: Language) -> Json<Value> {
    Json(json!({ "status": "ok", "message": language.alive() }))
}

/// `GET /health`: always 200 while the process lives; a Redis that is away is no reason to restart it.
pub async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let workers = async {
        timeout(PROBE, app.ledger.workers_alive())
            .await
            .ok()
            .and_then(Result::ok)
    };
    let (redis, workers) = tokio::join!(app.publisher.is_reachable(PROBE), workers);
    // The receiver does not talk to Kubernetes: that a worker is heard of is all that it knows.
    let kubernetes = if workers.is_some_and(|workers| workers > 0) {
        "connected"
    } else {
        "unknown"
    };
    let limits = &app.settings.limits;
    Json(json!({
        "status": if redis { "healthy" } else { "degraded" },
        "redis": if redis { "connected" } else { "disconnected" },
        "kubernetes": kubernetes,
        "config": { "ghes_url": app.settings.github.server_url.as_str().trim_end_matches('/'),
        "max_per_org": limits.max_per_org, "max_total": limits.max_total },
    }))
}

/// `GET /ready`: whether a webhook could be taken now.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let status = |ready: bool, redis: &str| {
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (
            status,
            Json(json!({ "status": if ready { "ready" } else { "not_ready" }, "redis": redis })),
        )
            .into_response()
    };
    if app.stop.is_cancelled() {
        return status(false, "draining");
    }
    let redis = app.publisher.is_reachable(PROBE).await;
    status(redis, if redis { "connected" } else { "disconnected" })
}

/// `GET /metrics`: JSON, or what Prometheus asks for.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",");
    let format = Format::of(&accept);
    let overview = app.overview().await;
    if format == Format::Json {
        let overview = overview?;
        let organizations = overview
            .organizations
            .iter()
            .map(|(org, (running, pending))| (org, json!({ "running": running, "pending": pending })));
        return Ok(Json(json!({
            "status": "healthy",
            "total_running": overview.total_running,
            "total_pending": overview.total_pending,
            "max_total": overview.max_total,
            "max_per_org": overview.max_per_org,
            "organizations": organizations.collect::<std::collections::BTreeMap<_, _>>(),
        }))
        .into_response());
    }
    // What this process has counted is told without Redis too.
    let overview = overview
        .inspect_err(|error| tracing::warn!(%error, "the ledger could not be read for metrics"))
        .ok();
    let text = app.metrics.text(format, overview).map_err(|_| ApiError::busy())?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// `GET /orgs/{org}/status` and `GET /orgs/{owner}/{repo}/status`.
pub async fn org(State(app): State<Arc<App>>, OrgKey(org): OrgKey) -> Result<Json<Value>, ApiError> {
    let question = org.to_lowercase();
    if let Some(answer) = app.reads.answered(&question) {
        return Ok(Json(answer));
    }
    let status = org_status(&app, &org).await?;
    let reasons = app.ledger.org_reasons(&org).await?;
    let mut body = json!(status);
    body["reasons"] = json!(reasons);
    app.reads.keep(question, body.clone());
    Ok(Json(body))
}

/// An organization's numbers, with this process's own default where no worker has set one.
///
/// # Errors
/// When Redis is unavailable.
pub async fn org_status(app: &App, org: &str) -> Result<OrgStatus, ApiError> {
    let mut status = app.ledger.org_status(org).await?;
    if status.default_max == 0 {
        status.default_max = app.settings.limits.max_per_org;
        if !status.is_custom_limit {
            status.max = status.default_max;
        }
        status.available = status.max.saturating_sub(status.running);
    }
    Ok(status)
}

/// `GET /jobs/{id}`.
pub async fn job(State(app): State<Arc<App>>, JobKey(id): JobKey) -> Result<Json<Value>, ApiError> {
    let (record, explanation) = (app.ledger.job(id).await?, app.ledger.explain(id).await?);
    let record = record.ok_or_else(|| ApiError::not_found(format!("job {id}: {}", explanation.why)))?;
    let mut body = json!(JobView::from(&record));
    body["why"] = json!(explanation.why);
    for (field, ms) in [("since", explanation.since), ("next", explanation.next)] {
        if let Some(time) = ms.and_then(render::time) {
            body[field] = json!(time);
        }
    }
    Ok(Json(body))
}
