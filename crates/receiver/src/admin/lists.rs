//! Lists of jobs and runners, in pages: see [`jit_core::ledger::Ledger::list_jobs`].

use std::{fmt::Display, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use jit_core::{
    event::JobId,
    ledger::Listing,
    model::{JobState, RunnerState},
    render::{JobView, RunnerView},
};
use serde::Serialize;
use serde_json::{Value, json};

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

async fn listing<S: Copy + Display>(
    app: &App,
    query: Option<&str>,
    states: &[S],
) -> Result<(Listing<S>, Option<String>), ApiError> {
    let of = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
    let (limit, cursor) = page(query)?;
    let named = |text: String| {
        let state = states.iter().find(|state| state.to_string() == text).copied();
        let words: Vec<String> = states.iter().map(S::to_string).collect();
        state.ok_or_else(|| ApiError::invalid(format!("state: use one of {}", words.join(", "))))
    };
    let state = of("state").map(named).transpose()?;
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
    let (wanted, cursor) = listing(&app, query.as_deref(), &JobState::LISTED).await?;
    let cursor = cursor
        .map(|text| text.parse::<JobId>().map_err(|_| no_cursor()))
        .transpose()?;
    let (jobs, more) = app.ledger.list_jobs(&wanted, cursor).await?;
    let next = jobs.last().filter(|_| more).map(|job| job.id.to_string());
    Ok(answer("jobs", jobs.iter().map(JobView::from).collect(), next))
}

/// `GET /admin/runners?org=&state=&limit=&cursor=`: live runners, by name.
pub async fn runners(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let (wanted, cursor) = listing(&app, query.as_deref(), &RunnerState::LISTED).await?;
    let (runners, more) = app.ledger.list_runners(&wanted, cursor.as_deref()).await?;
    let next = runners.last().filter(|_| more).map(|runner| runner.name.clone());
    Ok(answer("runners", runners.iter().map(RunnerView::from).collect(), next))
}

/// A page as it is answered.
pub(super) fn answer(name: &str, entries: Vec<impl Serialize>, next: Option<String>) -> Json<Value> {
    Json(json!({ name: entries, "next_cursor": next }))
}
