//! The control port: faults in, counts out. Loopback only, no authentication.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Kubelet;
use super::faults::{Fault, lock};

/// What it answers.
pub(super) fn router(kubelet: Arc<Kubelet>) -> Router {
    Router::new()
        .route("/faults", get(list).post(add).delete(clear))
        .route("/counts", get(counts))
        .with_state(kubelet)
}

async fn list(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    Json(json!({ "faults": lock(&kubelet.faults).list.list() }))
}

async fn add(State(kubelet): State<Arc<Kubelet>>, fault: Result<Json<Fault>, JsonRejection>) -> Response {
    match fault {
        Ok(Json(fault)) => (
            StatusCode::CREATED,
            Json(json!({ "ids": [lock(&kubelet.faults).list.add(fault)] })),
        )
            .into_response(),
        Err(rejection) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({ "error": rejection.body_text() })),
        )
            .into_response(),
    }
}

async fn clear(State(kubelet): State<Arc<Kubelet>>) -> StatusCode {
    lock(&kubelet.faults).list.clear(None);
    StatusCode::NO_CONTENT
}

async fn counts(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    Json(json!(kubelet.counts))
}
