//! Lists of jobs and runners, in pages: see [`jit_core::ledger::Ledger::list_jobs`].

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use jit_core::{
    event::JobId,
    ledger::{JOB_STATES, Listing, RUNNER_STATES},
    render,
};
use serde_json::{Map, Value, json};

use crate::{admin::limits::parameter, app::App, errors::ApiError, names::OrgKey};

/// Entries of a page where none are asked for, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// How many entries a page is to have, and after which it begins.
pub(super) fn page(query: Option<&str>) -> Result<(usize, Option<String>), ApiError> {
    let of = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
    let limit = of("limit").map_or(Some(PAGE.0), |text| {
        text.parse().ok().filter(|limit| (1..=PAGE.1).contains(limit))
    });
    let limit = limit.ok_or_else(|| ApiError::invalid(format!("limit: use a whole number from 1 to {}", PAGE.1)))?;
    Ok((limit, of("cursor")))
}

/// The refusal of a cursor that no page gave.
pub(super) fn no_cursor() -> ApiError {
    ApiError::invalid("cursor: not one that a page gave")
}

async fn listing(app: &App, query: Option<&str>, states: &[&str]) -> Result<(Listing, Option<String>), ApiError> {
    let of = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
    let (limit, cursor) = page(query)?;
    let state = of("state");
    if state.as_deref().is_some_and(|state| !states.contains(&state)) {
        return Err(ApiError::invalid(format!("state: use one of {}", states.join(", "))));
    }
    let org = match of("org").map(|org| OrgKey::parse(&org)) {
        None => None,
        Some(Some(OrgKey(org))) => Some(app.ledger.canonical(&org).await?),
        Some(None) => {
            return Err(ApiError::invalid(
                "org: not an organization's name, nor an owner/repository",
            ));
        }
    };
    Ok((
        Listing {
            org,
            states: state.into_iter().collect(),
            limit,
        },
        cursor,
    ))
}

/// `GET /admin/jobs?org=&state=&limit=&cursor=`: jobs that are not over, oldest first.
pub async fn jobs(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let (wanted, cursor) = listing(&app, query.as_deref(), &JOB_STATES).await?;
    let cursor = cursor
        .map(|text| text.parse::<JobId>().map_err(|_| no_cursor()))
        .transpose()?;
    let (jobs, more) = app.ledger.list_jobs(&wanted, cursor).await?;
    let next = jobs.last().filter(|_| more).map(|(id, _)| id.to_string());
    Ok(answer(
        "jobs",
        jobs.iter().map(|(id, info)| render::job(*id, info)).collect(),
        next,
    ))
}

/// `GET /admin/runners?org=&state=&limit=&cursor=`: live runners, by name.
pub async fn runners(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let (wanted, cursor) = listing(&app, query.as_deref(), &RUNNER_STATES).await?;
    let (runners, more) = app.ledger.list_runners(&wanted, cursor.as_deref()).await?;
    let next = runners.last().filter(|_| more).map(|(name, _)| name.clone());
    Ok(answer(
        "runners",
        runners.iter().map(|(name, info)| render::runner(name, info)).collect(),
        next,
    ))
}

/// A page as it is answered.
pub(super) fn answer(name: &str, entries: Vec<Map<String, Value>>, next: Option<String>) -> Json<Value> {
    Json(json!({ name: entries, "next_cursor": next }))
}
