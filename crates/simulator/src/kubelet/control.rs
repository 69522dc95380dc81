//! The control port: faults in, counts out. Loopback only, no authentication.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Kubelet;
use super::faults::{Fault, lock};

/// Serves until `shutdown`.
pub(super) async fn serve(listener: TcpListener, kubelet: Arc<Kubelet>, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/faults", get(list).post(add).delete(clear))
        .route("/counts", get(counts))
        .with_state(kubelet);
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
    {
        tracing::error!(%error, "the control port is gone");
    }
}

async fn list(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    Json(json!({ "faults": lock(&kubelet.faults).list() }))
}

async fn add(State(kubelet): State<Arc<Kubelet>>, fault: Result<Json<Fault>, JsonRejection>) -> Response {
    match fault {
        Ok(Json(fault)) => (
            StatusCode::CREATED,
            Json(json!({ "ids": [lock(&kubelet.faults).add(fault)] })),
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
    lock(&kubelet.faults).clear();
    StatusCode::NO_CONTENT
}

async fn counts(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    Json(json!(kubelet.counts))
}
