//! `runners` and `jobs`: what there is, and where it stands.

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jit_core::{
    event::JobId,
    ledger::Listing,
    model::{JobState, RunnerState},
    render::JobView,
};
use serde_json::json;

use crate::{
    ctl::{Ctl, note},
    names::org,
    table, time,
};

/// States that a person can ask for.
fn listed_state() -> impl TypedValueParser<Value = JobState> {
    PossibleValuesParser::new(JobState::LISTED.map(JobState::as_str)).try_map(|word| word.parse())
}

/// Which jobs.
#[derive(clap::Args)]
pub struct JobsArgs {
    /// Only of this organization
    #[arg(long, value_parser = org)]
    org: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = listed_state())]
    state: Option<JobState>,
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
        states: wanted.state.into_iter().collect(),
        limit: wanted.limit as usize,
    };
    let (jobs, more) = ctl.ledger.list_jobs(&listing, wanted.cursor).await?;
    let next = jobs.last().filter(|_| more).map(|job| job.id.to_string());
    if ctl.is_json() {
        let shown: Vec<_> = jobs.iter().map(JobView::from).collect();
        ctl.json(&json!({ "jobs": shown, "next_cursor": next }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = ctl.now;
    let rows = jobs.iter().map(|job| {
        let since = job.started_at.or(job.queued_at);
        vec![
            job.id.to_string(),
            shown(job.repo.as_deref()),
            shown(job.state.map(JobState::as_str)),
            since.map_or_else(|| "-".into(), |at| time::ago(now - at)),
            shown(job.runner.as_deref()),
            job.labels.as_deref().unwrap_or_default().join(","),
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
    if ctl.is_json() {
        let mut hashes = ctl.ledger.runner_hashes().await?;
        hashes.retain(|_, hash| org.is_none() || hash.get("org") == org.as_ref());
        ctl.json(&hashes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut runners = ctl.ledger.runners().await?;
    runners.retain(|runner| org.is_none() || runner.org == org);
    let now = ctl.now;
    let rows = runners.iter().map(|runner| {
        let note = runner.detail.as_ref().or(runner.why.as_ref());
        vec![
            runner.name.clone(),
            shown(runner.org.as_deref()),
            runner.shown_state().map_or("", RunnerState::as_str).to_owned(),
            runner.running_job.map_or_else(|| "-".into(), |job| job.to_string()),
            runner.reserved_at.map_or_else(|| "-".into(), |at| time::ago(now - at)),
            note.cloned().unwrap_or_default(),
        ]
    });
    table::print(
        ctl.out,
        &["RUNNER", "ORGANIZATION", "STATE", "JOB", "AGE", "NOTE"],
        rows.collect(),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// A cell of a table, `-` where there is nothing to say.
fn shown(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}
