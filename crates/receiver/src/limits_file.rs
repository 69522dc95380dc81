//! `ORG_LIMITS_FILE`: loaded once Redis is there, if Redis holds no limits; later only when an operator asks.
//!
//! Redis holds the truth: a limit that was changed or dropped while the system ran does not come back with a restart.

use std::{sync::Arc, time::Duration};

use jit_core::config::read_org_limits;

use crate::{app::App, errors::ApiError, names::OrgKey};

/// Redis is looked for again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// Loads the file's limits: where Redis holds none, or with `force` in the place of all that it holds. `None` when Redis's own were kept.
///
/// # Errors
/// When the file is wrong, or with `force` is not there; when Redis is unavailable.
pub async fn load(app: &App, force: bool) -> Result<Option<usize>, ApiError> {
    let path = app.settings.limits.org_limits_file.clone();
    let read = tokio::task::spawn_blocking(move || path.exists().then(|| read_org_limits(&path)).transpose()).await;
    let file = read.map_err(|_| ApiError::busy())?.map_err(|error| ApiError::invalid(format!("ORG_LIMITS_FILE: {error}")))?;
    // Without the file there is nothing to replace the limits by: more likely a mount is missing than that all are to go.
    if file.is_none() && force {
        return Err(ApiError::invalid("ORG_LIMITS_FILE: there is no such file; the limits were kept"));
    }
    let file = file.unwrap_or_default();
    if let Some(org) = file.keys().find(|org| OrgKey::parse(org).is_none()) {
        return Err(ApiError::invalid(format!("ORG_LIMITS_FILE: org_limits.{org}: not an organization's name, nor an owner/repository")));
    }
    if !force && !app.ledger.limits().await?.1.is_empty() {
        return Ok(None);
    }
    let limits: Vec<_> = file.into_iter().map(|(org, limit)| (org, Some(limit))).collect();
    if force || !limits.is_empty() {
        app.ledger.set_limits(&limits, force).await?;
        tracing::info!(organizations = limits.len(), force, "limits were loaded from ORG_LIMITS_FILE");
    }
    Ok(Some(limits.len()))
}

/// Loads the file's limits as soon as Redis is there, if it holds none.
pub async fn load_at_start(app: Arc<App>) {
    let mut told = false;
    loop {
        match load(&app, false).await {
            Ok(_) => return,
            Err(error) if error.status.is_client_error() => {
                tracing::error!(detail = %error.detail, "limits were not loaded");
                return;
            }
            Err(_) if !told => {
                tracing::warn!(redis = app.settings.redis.address(), "Redis cannot be reached yet: webhooks are answered 503 until it is");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}
