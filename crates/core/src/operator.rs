//! What operators order and configure, checked: the rules that the admin API, `jitctl` and the workers share. What an
//! order does is one of the ledger's transitions.

use std::{collections::BTreeMap, path::Path};

use crate::{
    config::{LimitsSettings, MAX_LIMIT, read_org_limits},
    ledger::{Ledger, LedgerError, Observation},
    names::{owner, shown},
};

/// Longest reason of a pause, in characters.
pub const REASON: usize = 200;
/// What a runner is told to go for when an operator removes it.
pub const WANTS_GONE: &str = "an operator wants it gone";

/// The order to remove a runner: at GitHub first, or, with `force`, its pod whatever GitHub says.
#[must_use]
pub fn removal(force: bool) -> Observation {
    if force { Observation::Force } else { Observation::Remove }
}

/// A limit of one organization.
///
/// # Errors
/// When it is none.
pub fn limit(limit: Option<u64>) -> Result<u64, String> {
    limit
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| format!("give a whole number from 1 to {MAX_LIMIT}"))
}

/// The reason of a pause, without the blanks around it.
///
/// # Errors
/// When it says nothing, is too long or holds control characters.
pub fn reason(text: &str) -> Result<&str, String> {
    let reason = text.trim();
    let fits = (1..=REASON).contains(&reason.chars().count()) && !reason.chars().any(char::is_control);
    if fits {
        Ok(reason)
    } else {
        Err(format!(
            "say why, in 1 to {REASON} characters; it is what people are told who wait"
        ))
    }
}

/// The end of a pause, in ms since 1970.
///
/// # Errors
/// When it is no time, or over already.
pub fn until(text: &str, now: i64) -> Result<i64, String> {
    let time = text
        .trim()
        .parse::<jiff::Timestamp>()
        .map_err(|_| "give a time such as 2027-01-15T08:00:00Z".to_owned())?;
    if time.as_millisecond() <= now {
        Err("is over already".into())
    } else {
        Ok(time.as_millisecond())
    }
}

/// A file of limits whose names are names of organizations. No file is `None`.
///
/// # Errors
/// With a sentence that names the file and what is wrong in it.
pub fn limits_file(path: &Path) -> Result<Option<BTreeMap<String, u64>>, String> {
    if !path.exists() {
        return Ok(None);
    }
    let mut limits = BTreeMap::new();
    for (org, limit) in read_org_limits(path)? {
        let Some(login) = owner(&org) else {
            return Err(format!(
                "{}: org_limits.{}: not an organization's name, nor an owner/repository",
                path.display(),
                shown(&org, 100)
            ));
        };
        // A user's repositories had a limit each once: of several, the lowest holds for all.
        let of_all = limits.entry(login.to_owned()).or_insert(limit);
        *of_all = limit.min(*of_all);
    }
    Ok(Some(limits))
}

/// Loads these limits: where Redis holds none, or with `force` in the place of all that it holds. `None` when Redis's
/// own were kept.
///
/// # Errors
/// When Redis is unavailable.
pub async fn load_limits(
    ledger: &Ledger,
    limits: BTreeMap<String, u64>,
    force: bool,
) -> Result<Option<usize>, LedgerError> {
    if !force && !ledger.limits().await?.1.is_empty() {
        return Ok(None);
    }
    let limits: Vec<_> = limits.into_iter().map(|(org, limit)| (org, Some(limit))).collect();
    if force || !limits.is_empty() {
        ledger.set_limits(&limits, force).await?;
    }
    Ok(Some(limits.len()))
}

/// Makes this the effective configuration. Where there was none, the file's limits of organizations come first: without
/// them an organization that has fewer than the others would have as many, until somebody noticed.
///
/// # Errors
/// When Redis is unavailable. A file that is wrong is told and passed over, as at a receiver's start.
pub async fn configure(ledger: &Ledger, limits: &LimitsSettings) -> Result<(), LedgerError> {
    if !ledger.is_configured().await? {
        match limits_file(&limits.org_limits_file) {
            Ok(Some(file)) => {
                let organizations = load_limits(ledger, file, false).await?;
                tracing::info!(
                    organizations,
                    "Redis held no configuration: limits were loaded from ORG_LIMITS_FILE"
                );
            }
            Ok(None) => {}
            Err(detail) => tracing::error!(detail, "ORG_LIMITS_FILE: limits were not loaded"),
        }
    }
    ledger.configure(limits).await
}

/// Makes this the effective configuration where there is none: the data in Redis is gone, and no worker has started
/// since.
///
/// # Errors
/// As [`configure`].
pub async fn ensure_configured(ledger: &Ledger, limits: &LimitsSettings) -> Result<(), LedgerError> {
    if ledger.is_configured().await? {
        Ok(())
    } else {
        configure(ledger, limits).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_checked() {
        assert_eq!((limit(Some(1)), limit(Some(1000))), (Ok(1), Ok(1000)));
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err() && limit(None).is_err());
        assert_eq!(reason(" cluster upgrade "), Ok("cluster upgrade"));
        assert!(reason(" ").is_err() && reason("a\nb").is_err() && reason(&"a".repeat(201)).is_err());
        assert_eq!(until("1970-01-01T00:00:02Z", 1999), Ok(2000));
        assert!(until("1970-01-01T00:00:02Z", 2000).is_err_and(|error| error.contains("over")));
        assert!(until("soon", 0).is_err() && until("", 0).is_err());
    }
}
