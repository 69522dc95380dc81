//! `pause`, `resume`, `retry`, `remove`, `give-up`, `reconcile`: orders of an operator.

use std::process::ExitCode;

use jit_core::{event::JobId, ledger::Known, model::RunnerState, operator, render};
use serde_json::json;

use crate::{
    ctl::{Ctl, note},
    names::org,
};

/// Whom to pause, and why.
#[derive(clap::Args)]
pub struct PauseArgs {
    /// Organization or user
    #[arg(value_parser = org)]
    org: String,
    /// Why; it is what people are told who wait
    #[arg(long, value_parser = reason)]
    reason: String,
    /// When it ends by itself, such as 2027-01-15T08:00:00Z; without it, it lasts until `jitctl resume`
    #[arg(long)]
    until: Option<String>,
}

fn reason(text: &str) -> Result<String, String> {
    operator::reason(text).map(str::to_owned)
}

/// `jitctl pause ORG --reason … [--until …]`.
pub async fn pause(ctl: &mut Ctl<'_>, wanted: &PauseArgs) -> anyhow::Result<ExitCode> {
    let until = match &wanted.until {
        Some(text) => Some(operator::until(text, ctl.now).map_err(|error| anyhow::anyhow!("--until {text}: {error}"))?),
        None => None,
    };
    let org = ctl.named(&wanted.org).await?;
    ctl.ledger.pause(&org, &wanted.reason, until).await?;
    let until = until.and_then(render::time);
    let end = until.as_ref().map_or_else(
        || format!("until `jitctl resume {org}`"),
        |time| format!("until {time}"),
    );
    let answer = json!({ "organization": org, "paused": true, "reason": wanted.reason, "until": until });
    ctl.say(&answer, &format!("{org} is paused {end}; its runners that run go on"))?;
    Ok(ExitCode::SUCCESS)
}

/// `jitctl resume ORG`: also when it was not paused.
pub async fn resume(ctl: &mut Ctl<'_>, org: &str) -> anyhow::Result<ExitCode> {
    let org = ctl.known(org).await?;
    ctl.ledger.resume(&org).await?;
    ctl.act_at_once().await;
    ctl.say(
        &json!({ "organization": org, "paused": false }),
        &format!("{org} is not paused: runners are made for it within its limit"),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// `jitctl retry JOB`: also where nothing holds it back.
pub async fn retry(ctl: &mut Ctl<'_>, job: JobId) -> anyhow::Result<ExitCode> {
    let done = ctl.ledger.retry(job).await?;
    anyhow::ensure!(
        done.state != Known::Unknown,
        "job {job} is not known here: its webhook never came, its labels are not ours, or it has long been over"
    );
    let sentence = if done.retried.is_empty() {
        format!("nothing that may be tried earlier holds {job} back: `jitctl why {job}` says what it waits for")
    } else {
        ctl.act_at_once().await;
        format!(
            "tried again now, by one runner: {}; `jitctl why {job}` says how it goes",
            done.retried.join(", ")
        )
    };
    ctl.say(&json!({ "job_id": job.get(), "retried": done.retried }), &sentence)?;
    Ok(ExitCode::SUCCESS)
}

/// `jitctl remove RUNNER`: asks for its removal, which workers carry out, at GitHub first; with `force` its pod ends
/// whatever GitHub says.
pub async fn remove(ctl: &mut Ctl<'_>, runner: &str, force: bool) -> anyhow::Result<ExitCode> {
    let observed = ctl
        .ledger
        .observe(operator::removal(force), runner, operator::WANTS_GONE)
        .await?;
    anyhow::ensure!(
        observed.state != Known::Unknown,
        "{runner}: no runner of this name was there in the last day (jitctl runners shows those that live)"
    );
    if observed.changed {
        ctl.act_at_once().await;
    }
    let sentence = match observed.state {
        Known::State(RunnerState::Gone) => format!("{runner} is gone"),
        _ if force => {
            format!("the pod of {runner} is ended, whatever GitHub says; its registration is looked up at GitHub later")
        }
        _ => format!("{runner} is removed at GitHub first, then its pod; if GitHub calls it busy it lives on"),
    };
    ctl.say(&json!({ "name": runner, "state": observed.state }), &sentence)?;
    Ok(ExitCode::SUCCESS)
}

/// `jitctl give-up PLACE`: frees the slots of all runners there.
pub async fn give_up(ctl: &mut Ctl<'_>, place: &str) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !ctl.ledger.is_listed(place).await?,
        "{place}: a worker lists what is there, so nothing of it is given up"
    );
    let freed = ctl.ledger.give_up(place).await?;
    anyhow::ensure!(
        freed > 0,
        "{place}: no runner counts there (jitctl doctor names the places that no worker lists)"
    );
    ctl.act_at_once().await;
    ctl.say(
        &json!({ "place": place, "freed": freed }),
        &format!("{freed} runners of {place} count no more; GitHub is asked about their registrations and jobs"),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// `jitctl reconcile`: asks for a sync tick now.
pub async fn reconcile(ctl: &mut Ctl<'_>) -> anyhow::Result<ExitCode> {
    ctl.tick("sync").await?;
    if ctl.ledger.workers_alive().await? == 0 {
        note("no worker is alive; the next one that starts reconciles anyway");
    }
    ctl.say(
        &json!({ "status": "accepted" }),
        "a worker compares the ledger with the real runners now",
    )?;
    Ok(ExitCode::SUCCESS)
}
