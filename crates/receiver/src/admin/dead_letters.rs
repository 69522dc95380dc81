//! Dead letters: listed, looked at, put back, thrown away. See [`jit_core::stream::dead_letters`].

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{StatusCode, request::Parts},
};
use jit_core::{
    render,
    stream::dead_letters::{self, Order, Requeued},
};
use serde_json::{Value, json};

use crate::{
    admin::{
        limits::parameter,
        lists::{answer, no_cursor, page},
    },
    app::App,
    errors::ApiError,
    messages::Language,
};

/// The id of a dead letter, from the path.
pub struct LetterId(String);

impl<S: Send + Sync> FromRequestParts<S> for LetterId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state)
            .await
            .ok()
            .map(|Path(id)| id)
            .filter(|id| dead_letters::is_id(id));
        id.map(Self).ok_or_else(|| {
            ApiError::bad_request(
                "the path names no dead letter: two numbers and a - between them, as the list gives them",
            )
        })
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("no such dead letter: it was requeued, dropped or pushed out by newer ones")
}

/// `GET /admin/dead-letters?order=&limit=&cursor=`: the newest first, or the oldest.
pub async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let query = query.as_deref();
    let order = match parameter(query, "order").as_deref() {
        None | Some("" | "newest") => Order::Newest,
        Some("oldest") => Order::Oldest,
        Some(_) => return Err(ApiError::invalid("order: use newest or oldest")),
    };
    let (limit, cursor) = page(query)?;
    if cursor.as_deref().is_some_and(|cursor| !dead_letters::is_id(cursor)) {
        return Err(no_cursor());
    }
    let page = dead_letters::list(app.ledger.pool(), order, cursor.as_deref(), limit).await?;
    Ok(answer(
        "dead_letters",
        page.letters.iter().map(render::letter).collect(),
        page.next,
    ))
}

/// `GET /admin/dead-letters/{id}`.
pub async fn one(State(app): State<Arc<App>>, LetterId(id): LetterId) -> Result<Json<Value>, ApiError> {
    let letter = dead_letters::one(app.ledger.pool(), &id).await?.ok_or_else(unknown)?;
    Ok(Json(Value::Object(render::letter(&letter))))
}

/// `POST /admin/dead-letters/{id}/requeue`: back into its stream. A reservation is dropped instead: it is long gone.
pub async fn requeue(
    State(app): State<Arc<App>>,
    LetterId(id): LetterId,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    let body = match dead_letters::requeue(app.ledger.pool(), &id).await? {
        Requeued::Back { stream, id: entry } => {
            json!({ "id": id, "requeued": true, "stream": stream, "entry_id": entry, "message": language.requeued() })
        }
        Requeued::Dropped => json!({ "id": id, "requeued": false, "message": language.reservation_gone() }),
        Requeued::Stuck { .. } => {
            let detail = "it came from no stream that an entry can be put back into; look at it, and drop it";
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", detail));
        }
        Requeued::Unknown => return Err(unknown()),
    };
    tracing::info!(
        letter = id,
        requeued = body["requeued"].as_bool(),
        "an operator has requeued a dead letter"
    );
    Ok(Json(body))
}

/// `DELETE /admin/dead-letters/{id}`.
pub async fn remove(
    State(app): State<Arc<App>>,
    LetterId(id): LetterId,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    if !dead_letters::remove(app.ledger.pool(), &id).await? {
        return Err(unknown());
    }
    tracing::info!(letter = id, "an operator has dropped a dead letter");
    Ok(Json(json!({ "id": id, "message": language.dropped() })))
}
