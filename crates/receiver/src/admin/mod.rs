//! The admin API: what operators change while the system runs.
//!
//! Every change goes through one of the ledger's transitions, so it is whole or not at all, and a tick makes the
//! workers act on it at once rather than at beat's next one.

use std::sync::Arc;

use axum::{body::Body, http::Request};
use serde_json::Value;

use crate::{app::App, errors::ApiError};

pub mod dead_letters;
pub mod key;
pub mod limits;
pub mod lists;
pub mod orders;

/// Largest body of an admin request: limits of 10,000 organizations fit.
const MAX_BODY: usize = 1024 * 1024;

/// A request's JSON; an empty body is `null`.
async fn json(app: &App, request: Request<Body>) -> Result<Value, ApiError> {
    let (parts, body) = request.into_parts();
    let body = app.bodies.read(&parts.headers, body, MAX_BODY).await?;
    if body.bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body.bytes).map_err(|error| ApiError::bad_request(format!("the body is no JSON: {error}")))
}

/// Makes the workers act now. Beat does so anyway in a while, so what was decided stands also when this fails.
async fn tick(app: &Arc<App>, kind: &str) {
    if let Err(error) = app.publisher.tick(kind).await {
        tracing::warn!(%error, tick.kind = kind, "a tick was not emitted; beat's next one takes its place");
    }
}
