//! `runners` and `jobs`: what there is, and where it stands.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use jit_core::{
    event::JobId,
    ledger::{JOB_STATES, Listing, shown_state},
    render,
};
use serde_json::json;

use crate::{
    ctl::{Ctl, note},
    names::org,
    table, time,
};

/// Which jobs.
#[derive(clap::Args)]
pub struct JobsArgs {
    /// Only of this organization
    #[arg(long, value_parser = org)]
    org: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = PossibleValuesParser::new(JOB_STATES))]
    state: Option<String>,
    /// Jobs at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only those after this job, which the page before ended with
    #[arg(long)]
    cursor: Option<JobId>,
}

/// `jitctl jobs`.
pub async fn jobs(ctl: &mut Ctl<'_>, wanted: &JobsArgs) -> anyhow::Result<ExitCode> {
    let org = match &wanted.org {
        Some(org) => Some(ctl.known(org).await?),
        None => None,
    };
    let listing = Listing {
        org,
        states: wanted.state.clone().into_iter().collect(),
        limit: wanted.limit as usize,
    };
    let (jobs, more) = ctl.ledger.list_jobs(&listing, wanted.cursor).await?;
    let next = jobs.last().filter(|_| more).map(|(id, _)| id.to_string());
    if ctl.is_json() {
        let shown: Vec<_> = jobs.iter().map(|(id, info)| render::job(*id, info)).collect();
        ctl.json(&json!({ "jobs": shown, "next_cursor": next }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = ctl.now;
    let rows = jobs.iter().map(|(id, info)| {
        let text = |field: &str| {
            info.get(field)
                .filter(|text| !text.is_empty())
                .cloned()
                .unwrap_or_else(|| "-".into())
        };
        let since = info
            .get("started_at")
            .or(info.get("queued_at"))
            .and_then(|at| at.parse::<f64>().ok());
        let labels = info
            .get("labels")
            .and_then(|labels| serde_json::from_str::<Vec<String>>(labels).ok())
            .unwrap_or_default()
            .join(",");
        let since = since.map_or_else(|| "-".into(), |at| time::ago(now - at as i64));
        vec![
            id.to_string(),
            text("repo"),
            text("state"),
            since,
            text("runner"),
            labels,
        ]
    });
    table::print(
        ctl.out,
        &["JOB", "REPOSITORY", "STATE", "SINCE", "RUNNER", "LABELS"],
        rows.collect(),
    )?;
    if let Some(next) = next {
        note(&format!("there are more: --cursor {next}, or a larger --limit"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `jitctl runners`: JSON is each runner's `runner:{name}:info` as it stands.
pub async fn runners(ctl: &mut Ctl<'_>, org: Option<&str>) -> anyhow::Result<ExitCode> {
    let org = match org {
        Some(org) => Some(ctl.known(org).await?),
        None => None,
    };
    let mut runners = ctl.ledger.runners().await?;
    runners.retain(|_, info| org.is_none() || info.get("org") == org.as_ref());
    if ctl.is_json() {
        ctl.json(&runners)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = ctl.now;
    let rows = runners.iter().map(|(name, info)| {
        let text = |field: &str| info.get(field).cloned().unwrap_or_else(|| "-".into());
        let age = info
            .get("reserved_at")
            .and_then(|at| at.parse::<i64>().ok())
            .map_or_else(|| "-".into(), |at| time::ago(now - at));
        vec![
            name.clone(),
            text("org"),
            shown_state(info).to_owned(),
            text("running_job"),
            age,
            info.get("detail").or(info.get("why")).cloned().unwrap_or_default(),
        ]
    });
    table::print(
        ctl.out,
        &["RUNNER", "ORGANIZATION", "STATE", "JOB", "AGE", "NOTE"],
        rows.collect(),
    )?;
    Ok(ExitCode::SUCCESS)
}
