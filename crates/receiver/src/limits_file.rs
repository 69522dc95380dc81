//! `ORG_LIMITS_FILE`: loaded once Redis is there, if Redis holds no limits; later only when an operator asks.
//!
//! Redis holds the truth: a limit that was changed or dropped while the system ran does not come back with a restart.

use std::{sync::Arc, time::Duration};

use jit_core::operator;

use crate::{app::App, errors::ApiError};

/// Redis is looked for again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// Loads the file's limits: where Redis holds none, or with `force` in the place of all that it holds. `None` when
/// Redis's own were kept.
///
/// # Errors
/// When the file is wrong, or with `force` is not there; when Redis is unavailable.
pub async fn load(app: &App, force: bool) -> Result<Option<usize>, ApiError> {
    let path = app.settings.limits.org_limits_file.clone();
    let read = tokio::task::spawn_blocking(move || operator::limits_file(&path)).await;
    let file = read
        .map_err(|_| ApiError::busy())?
        .map_err(|error| ApiError::invalid(format!("ORG_LIMITS_FILE: {error}")))?;
    if file.is_none() && !force {
        tracing::info!(
            path = %app.settings.limits.org_limits_file.display(),
            "there is no ORG_LIMITS_FILE: no organization has a limit of its own from a file"
        );
    }
    // Without the file there is nothing to replace the limits by: more likely a mount is missing than that all are to
    // go.
    if file.is_none() && force {
        return Err(ApiError::invalid(
            "ORG_LIMITS_FILE: there is no such file; the limits were kept",
        ));
    }
    let loaded = operator::load_limits(&app.ledger, file.unwrap_or_default(), force).await?;
    if let Some(organizations) = loaded.filter(|organizations| force || *organizations > 0) {
        tracing::info!(organizations, force, "limits were loaded from ORG_LIMITS_FILE");
    }
    Ok(loaded)
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
                tracing::warn!(
                    redis = app.settings.redis.address(),
                    "Redis cannot be reached yet: webhooks are answered 503 until it is"
                );
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
