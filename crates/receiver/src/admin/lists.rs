//! Lists of jobs and runners, in pages.
//!
//! A page is ordered by what does not change, the job's id or the runner's name, and the cursor is the last one shown; so what comes and goes between
//! two pages neither hides nor repeats anything else.

use std::{ops::Bound, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use jit_core::{event::JobId, ledger::shown_state};
use serde_json::{Value, json};

use crate::{admin::limits::parameter, app::App, errors::ApiError, names::OrgKey, render};

/// Entries of a page where none are asked for, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// States that jobs are listed by. Those that are over are not listed; `GET /jobs/{id}` still tells of them.
const JOB_STATES: [&str; 4] = ["waiting", "queued", "in_question", "in_progress"];
/// States that runners are listed by.
const RUNNER_STATES: [&str; 5] = ["reserved", "created", "idle", "busy", "removing"];

/// What a list was asked for.
struct Wanted {
    org: Option<String>,
    state: Option<String>,
    limit: usize,
    cursor: Option<String>,
}

impl Wanted {
    async fn read(app: &App, query: Option<&str>, states: &[&str]) -> Result<Self, ApiError> {
        let of = |name: &str| parameter(query, name).filter(|value| !value.is_empty());
        let org = match of("org").map(|org| OrgKey::parse(&org)) {
            None => None,
            Some(Some(OrgKey(org))) => Some(app.ledger.canonical(&org).await?),
            Some(None) => return Err(ApiError::invalid("org: not an organization's name, nor an owner/repository")),
        };
        let state = of("state");
        if state.as_deref().is_some_and(|state| !states.contains(&state)) {
            return Err(ApiError::invalid(format!("state: use one of {}", states.join(", "))));
        }
        let limit = of("limit").map_or(Some(PAGE.0), |text| text.parse().ok().filter(|limit| (1..=PAGE.1).contains(limit)));
        let limit = limit.ok_or_else(|| ApiError::invalid(format!("limit: use a whole number from 1 to {}", PAGE.1)))?;
        Ok(Self { org, state, limit, cursor: of("cursor") })
    }

    fn takes(&self, org: Option<&String>, state: &str) -> bool {
        self.org.as_ref().is_none_or(|wanted| org == Some(wanted)) && self.state.as_deref().is_none_or(|wanted| state == wanted)
    }
}

/// `GET /admin/jobs?org=&state=&limit=&cursor=`: jobs that are not over, oldest first.
pub async fn jobs(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let wanted = Wanted::read(&app, query.as_deref(), &JOB_STATES).await?;
    let after = match &wanted.cursor {
        Some(text) => Bound::Excluded(text.parse::<JobId>().map_err(|_| ApiError::invalid("cursor: not one that a page gave"))?),
        None => Bound::Unbounded,
    };
    let open = app.ledger.open_jobs(wanted.org.as_deref()).await?;
    let ids: Vec<JobId> = open.range((after, Bound::Unbounded)).copied().collect();
    let mut page = Vec::new();
    // One more than a page tells whether there is a next one.
    'page: for chunk in ids.chunks(500) {
        for (id, info) in chunk.iter().zip(app.ledger.jobs(chunk).await?) {
            let state = info.get("state").map_or("", String::as_str);
            if JOB_STATES.contains(&state) && wanted.takes(info.get("org"), state) {
                page.push((id.to_string(), render::job(*id, &info)));
                if page.len() > wanted.limit {
                    break 'page;
                }
            }
        }
    }
    Ok(answer("jobs", page, wanted.limit))
}

/// `GET /admin/runners?org=&state=&limit=&cursor=`: live runners, by name.
pub async fn runners(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let wanted = Wanted::read(&app, query.as_deref(), &RUNNER_STATES).await?;
    let after = wanted.cursor.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let live = app.ledger.runners().await?;
    let fitting = live.range::<String, _>((after, Bound::Unbounded)).filter(|(_, info)| wanted.takes(info.get("org"), shown_state(info)));
    let page = fitting.take(wanted.limit + 1).map(|(name, info)| (name.clone(), render::runner(name, info))).collect();
    Ok(answer("runners", page, wanted.limit))
}

fn answer(name: &str, mut page: Vec<(String, serde_json::Map<String, Value>)>, limit: usize) -> Json<Value> {
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|(key, _)| key.clone());
    let entries: Vec<_> = page.into_iter().map(|(_, entry)| entry).collect();
    Json(json!({ name: entries, "next_cursor": next }))
}
