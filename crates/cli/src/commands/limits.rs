//! `limits`: how many runners an organization may have at once.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use jit_core::operator;
use serde_json::json;

use crate::{ctl::Ctl, names::org, table};

/// What to do with one limit, or with a file of them.
#[derive(Subcommand)]
pub enum Command {
    /// The limit of an organization
    Get {
        /// Organization or user
        #[arg(value_parser = org)]
        org: String,
    },
    /// Gives an organization a limit of its own; upward it takes effect at once, downward no runner is ended for it
    Set {
        /// Organization or user
        #[arg(value_parser = org)]
        org: String,
        /// Runners at once, 1 to 1000
        #[arg(value_parser = limit)]
        limit: u64,
    },
    /// Gives an organization the default limit again
    Unset {
        /// Organization or user
        #[arg(value_parser = org)]
        org: String,
    },
    /// Loads a file of limits (`org_limits: {org: n}`) where Redis holds none
    Load {
        /// The file
        file: PathBuf,
        /// In the place of all limits that Redis holds
        #[arg(long)]
        force: bool,
    },
}

fn limit(text: &str) -> Result<u64, String> {
    operator::limit(text.parse().ok())
}

/// `jitctl limits`.
pub async fn all(ctl: &mut Ctl<'_>) -> anyhow::Result<ExitCode> {
    let (default, custom) = ctl.ledger.limits().await?;
    if ctl.is_json() {
        ctl.json(&json!({ "default_limit": default, "custom_limits": custom, "total_custom_orgs": custom.len() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match default {
        0 => writeln!(ctl.out, "default  not known: no worker has started on this Redis yet")?,
        default => writeln!(ctl.out, "default  {default}")?,
    }
    if !custom.is_empty() {
        writeln!(ctl.out)?;
        table::print(
            ctl.out,
            &["ORGANIZATION", "LIMIT"],
            custom
                .into_iter()
                .map(|(org, limit)| vec![org, limit.to_string()])
                .collect(),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `jitctl limits get|set|unset|load`.
pub async fn one(ctl: &mut Ctl<'_>, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Get { org } => get(ctl, &org).await,
        Command::Set { org, limit } => set(ctl, &org, limit).await,
        Command::Unset { org } => unset(ctl, &org).await,
        Command::Load { file, force } => load(ctl, file, force).await,
    }
}

async fn get(ctl: &mut Ctl<'_>, org: &str) -> anyhow::Result<ExitCode> {
    let org = ctl.known(org).await?;
    let status = ctl.ledger.org_status(&org).await?;
    let answer = json!({
        "organization": status.organization, "limit": status.max, "is_custom": status.is_custom_limit,
        "current_running": status.running, "available": status.available,
    });
    let own = if status.is_custom_limit {
        "its own"
    } else {
        "the default"
    };
    ctl.say(
        &answer,
        &format!(
            "{}: {} ({own}), {} running, {} available",
            status.organization, status.max, status.running, status.available
        ),
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn set(ctl: &mut Ctl<'_>, org: &str, limit: u64) -> anyhow::Result<ExitCode> {
    let org = ctl.named(org).await?;
    let previous = ctl
        .ledger
        .set_limits(&[(org.clone(), Some(limit))], false)
        .await?
        .first()
        .copied()
        .unwrap_or_default();
    ctl.act_at_once().await;
    let answer = json!({ "organization": org, "limit": limit, "previous_limit": previous, "is_custom": true });
    ctl.say(&answer, &format!("{org}: {limit}{}", was(previous)))?;
    Ok(ExitCode::SUCCESS)
}

async fn unset(ctl: &mut Ctl<'_>, org: &str) -> anyhow::Result<ExitCode> {
    let org = ctl.known(org).await?;
    let own = ctl.ledger.org_status(&org).await?.is_custom_limit;
    let previous = ctl
        .ledger
        .set_limits(&[(org.clone(), None)], false)
        .await?
        .first()
        .copied()
        .unwrap_or_default();
    ctl.act_at_once().await;
    let (default, _) = ctl.ledger.limits().await?;
    let answer = json!({ "organization": org, "limit": default, "previous_limit": previous, "is_custom": false });
    let sentence = if own {
        format!("{org}: the default again, {default}{}", was(previous))
    } else {
        format!("{org}: had none of its own; the default is {default}")
    };
    ctl.say(&answer, &sentence)?;
    Ok(ExitCode::SUCCESS)
}

async fn load(ctl: &mut Ctl<'_>, file: PathBuf, force: bool) -> anyhow::Result<ExitCode> {
    let limits = operator::limits_file(&file).map_err(anyhow::Error::msg)?;
    let limits =
        limits.ok_or_else(|| anyhow::anyhow!("{}: there is no such file; the limits were kept", file.display()))?;
    let loaded = operator::load_limits(&ctl.ledger, limits, force).await?;
    if loaded.is_some() {
        ctl.act_at_once().await;
    }
    let sentence = match loaded {
        Some(count) => format!("limits of {count} organizations were loaded"),
        None => "Redis holds limits already, which were kept; --force replaces them".to_owned(),
    };
    ctl.say(&json!({ "loaded": loaded.unwrap_or(0) }), &sentence)?;
    Ok(ExitCode::SUCCESS)
}

/// A limit that nobody has set is told as 0.
fn was(previous: u64) -> String {
    if previous == 0 {
        String::new()
    } else {
        format!(", it was {previous}")
    }
}
