//! Limits of single organizations: `/admin/org-limits…`.
//!
//! A limit takes effect at the next admission, for which a tick asks at once: upward by admitting, downward by
//! admitting no more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::Request,
};
use jit_core::operator;
use serde_json::{Value, json};

use crate::{
    admin::{json, tick},
    app::App,
    errors::ApiError,
    limits_file,
    messages::Language,
    names::{OrgKey, shown},
    status::org_status,
};

/// Limits as they are in force.
struct InForce {
    default: u64,
    /// No worker has set the default in Redis yet.
    assumed: bool,
    custom: BTreeMap<String, u64>,
}

impl InForce {
    async fn read(app: &App) -> Result<Self, ApiError> {
        let (default, custom) = app.ledger.limits().await?;
        Ok(match default {
            0 => Self {
                default: app.settings.limits.max_per_org,
                assumed: true,
                custom,
            },
            default => Self {
                default,
                assumed: false,
                custom,
            },
        })
    }

    /// What the ledger says that a limit was before; it says 0 for a default that nobody has set.
    fn previous(&self, told: Option<&u64>) -> u64 {
        match told {
            None | Some(0) if self.assumed => self.default,
            told => told.copied().unwrap_or(self.default),
        }
    }
}

/// `GET /admin/org-limits`.
pub async fn all(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let limits = InForce::read(&app).await?;
    Ok(Json(
        json!({ "default_limit": limits.default, "total_custom_orgs": limits.custom.len(),
            "custom_limits": limits.custom }),
    ))
}

/// `GET /admin/org-limits/{org}`.
pub async fn one(State(app): State<Arc<App>>, OrgKey(org): OrgKey) -> Result<Json<Value>, ApiError> {
    let (org, _) = app.ledger.spelling(&org).await?;
    let status = org_status(&app, &org).await?;
    Ok(Json(json!({
        "organization": status.organization, "limit": status.max, "is_custom": status.is_custom_limit,
        "current_running": status.running, "available": status.available,
    })))
}

/// `PUT /admin/org-limits/{org}`.
pub async fn set_one(
    State(app): State<Arc<App>>,
    OrgKey(org): OrgKey,
    language: Language,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = json(&app, request).await?;
    let limit = limit("limit", &body["limit"])?;
    let limits = InForce::read(&app).await?;
    let (org, _) = app.ledger.spelling(&org).await?;
    let previous = app.ledger.set_limits(&[(org.clone(), Some(limit))], false).await?;
    tick(&app, "dispatch").await;
    let previous = limits.previous(previous.first());
    tracing::info!(job.org = org, limit, previous, "an operator has set a limit");
    Ok(Json(
        json!({ "organization": org, "limit": limit, "previous_limit": previous, "is_custom": true,
            "message": language.limit_set(limit) }),
    ))
}

/// `PUT /admin/org-limits`: all of them, or none if one is wrong.
pub async fn set_many(
    State(app): State<Arc<App>>,
    language: Language,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = json(&app, request).await?;
    let wanted = body["limits"]
        .as_object()
        .ok_or_else(|| ApiError::invalid("limits: give an object of organizations and their limits"))?;
    let (mut orgs, mut values, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (org, value) in wanted {
        let at = format!("limits.{}", shown(org, 100));
        let OrgKey(org) = OrgKey::parse(org)
            .ok_or_else(|| ApiError::invalid(format!("{at}: not an organization's name, nor an owner/repository")))?;
        values.push(limit(&at, value)?);
        if !seen.insert(org.to_lowercase()) {
            return Err(ApiError::invalid(format!("{at}: stands twice, in two spellings")));
        }
        orgs.push(org);
    }
    let spelt = app.ledger.spellings(&orgs).await?;
    let changes: Vec<_> = spelt
        .into_iter()
        .zip(values)
        .map(|((org, _), limit)| (org, Some(limit)))
        .collect();
    if !changes.is_empty() {
        app.ledger.set_limits(&changes, false).await?;
        tick(&app, "dispatch").await;
    }
    tracing::info!(organizations = changes.len(), "an operator has set limits");
    let set: BTreeMap<_, _> = changes.into_iter().collect();
    Ok(Json(
        json!({ "updated": set.len(), "message": language.limits_set(set.len()), "limits": set }),
    ))
}

/// `DELETE /admin/org-limits/{org}`: back to the default, also when there was no limit of its own.
pub async fn drop_one(
    State(app): State<Arc<App>>,
    OrgKey(org): OrgKey,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    let limits = InForce::read(&app).await?;
    let (org, _) = app.ledger.spelling(&org).await?;
    let previous = app.ledger.set_limits(&[(org.clone(), None)], false).await?;
    tick(&app, "dispatch").await;
    let (previous, default) = (limits.previous(previous.first()), limits.default);
    tracing::info!(
        job.org = org,
        limit = default,
        previous,
        "an operator has dropped a limit"
    );
    let message = if limits.custom.contains_key(&org) {
        language.limit_dropped(default)
    } else {
        language.no_limit_to_drop(default)
    };
    Ok(Json(
        json!({ "organization": org, "limit": default, "previous_limit": previous, "is_custom": false,
            "message": message }),
    ))
}

/// `POST /admin/org-limits/reload?force=false`.
pub async fn reload(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    language: Language,
) -> Result<Json<Value>, ApiError> {
    let force = forced(query.as_deref())?;
    let loaded = limits_file::load(&app, force).await?;
    if loaded.is_some() {
        tick(&app, "dispatch").await;
    }
    let message = loaded.map_or_else(|| language.limits_kept(), |count| language.limits_loaded(count));
    Ok(Json(json!({ "loaded": loaded.unwrap_or(0), "message": message })))
}

/// Whether a query says `force=true`.
pub(super) fn forced(query: Option<&str>) -> Result<bool, ApiError> {
    match parameter(query, "force").as_deref() {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(ApiError::invalid("force: use true or false")),
    }
}

/// One parameter of a query.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query?.as_bytes()).find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

fn limit(at: &str, value: &Value) -> Result<u64, ApiError> {
    // 25.0 is a whole number too: JSON does not tell them apart.
    let whole = value
        .as_f64()
        .filter(|limit| limit.fract() == 0.0 && (0.0..=1e9).contains(limit))
        .map(|limit| limit as u64);
    operator::limit(value.as_u64().or(whole)).map_err(|error| ApiError::invalid(format!("{at}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_whole_number_from_1_to_1000() {
        for good in [json!(1), json!(25), json!(1000), json!(25.0)] {
            assert!(limit("limit", &good).is_ok(), "{good}");
        }
        for bad in [
            json!(0),
            json!(1001),
            json!(-1),
            json!(-0.0),
            json!(2.5),
            json!(1e300),
            json!("25"),
            json!(true),
            json!(null),
            json!([25]),
            json!({}),
        ] {
            assert_eq!(
                limit("limits.a", &bad).expect_err("bad").detail,
                "limits.a: give a whole number from 1 to 1000",
                "{bad}"
            );
        }
    }
}
