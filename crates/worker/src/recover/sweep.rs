//! The sweep: repositories are looked through, the newest first, for jobs that are unknown here.
//!
//! A job can be queued in a run that GitHub calls queued, in progress or waiting. So a repository costs three calls, and one more for each
//! hundred jobs of such a run. What the ledger lacks it says itself, in the same step in which the event is appended.

use jit_core::{
    config::GithubSettings,
    event::{Action, JobEvent, JobId},
    ledger::LedgerError,
};
use jit_github::{Job, JobStatus, Repository, Run, RunStatus, Scope};

use super::{Slice, Told, redeliver, repository};
use crate::{metrics::Recovered, step::Step};

/// Repositories that are taken from the ledger at once.
const BATCH: u32 = 50;
/// A repository that took so many calls when the hour's budget or the slice's time ran out counts as visited: otherwise it could keep all others waiting.
const LONG_VISIT: u64 = 100;

/// What came of a visit.
enum Visit {
    /// It was looked through, or refuses.
    Done,
    /// It does not answer.
    Failed,
    /// It was not, for now.
    Later,
    /// The slice's time was over first.
    TooLong,
    /// Too many events are on their way to tell what is unknown.
    Backlog,
}

impl From<Told> for Visit {
    fn from(told: Told) -> Self {
        match told {
            Told::Refused => Self::Done,
            Told::Failed => Self::Failed,
            Told::Later => Self::Later,
        }
    }
}

/// Visits repositories until the pass is over or the slice ends. With `start` a new pass may begin.
pub(super) async fn visit(slice: &mut Slice<'_>, start: bool) -> Result<(), LedgerError> {
    let (mut skipped, mut start) = (0, start);
    while slice.goes_on() {
        let sweep = slice.worker.ledger.sweep(skipped, BATCH, start).await.step("recover.swept_on")?;
        start = false; // one pass a tick, at most
        if sweep.repos.is_empty() {
            return Ok(());
        }
        for repo in sweep.repos {
            if !slice.goes_on() {
                return Ok(());
            }
            if slice.skipped.contains(&repo) {
                skipped += 1;
                continue;
            }
            let mut calls = 0;
            let failed = match one(slice, &repo, &mut calls).await? {
                Visit::Backlog => return Ok(()),
                Visit::Later if calls < LONG_VISIT => {
                    skipped += 1;
                    continue;
                }
                Visit::TooLong if calls < LONG_VISIT => true, // the others come first in the next slice
                Visit::Failed => slice.skipped.insert(repo.clone()),
                Visit::Later | Visit::TooLong | Visit::Done => false,
            };
            slice.worker.ledger.swept(&repo, calls, failed).await.step("recover.swept")?;
        }
    }
    Ok(())
}

async fn one(slice: &mut Slice<'_>, full_name: &str, calls: &mut u64) -> Result<Visit, LedgerError> {
    let Some((scope, (owner, name))) = repository(full_name).zip(full_name.split_once('/')) else { return Ok(Visit::Done) };
    redeliver::look_for_hooks(slice, &scope).await?;
    for status in RunStatus::ALL {
        let mut page = 1;
        loop {
            if slice.timed_out() {
                return Ok(Visit::TooLong); // well before the right to the slice ends
            }
            let client = match slice.call(&scope).await? {
                Ok(client) => client,
                Err(told) => return Ok(told.into()),
            };
            *calls += 1;
            let runs = match client.runs(owner, name, status, page).await.step("recover.runs_listed") {
                Ok(runs) => runs,
                Err(error) => return Ok(slice.told(&scope, &error).into()),
            };
            for run in &runs.items {
                match jobs(slice, &scope, owner, name, run, calls).await? {
                    Visit::Done => {}
                    other => return Ok(other),
                }
            }
            if !runs.more {
                break;
            }
            page += 1;
        }
    }
    Ok(Visit::Done)
}

/// Reports the jobs of one run.
async fn jobs(slice: &mut Slice<'_>, scope: &Scope, owner: &str, name: &str, run: &Run, calls: &mut u64) -> Result<Visit, LedgerError> {
    let worker = slice.worker;
    let mut page = 1;
    loop {
        if slice.timed_out() {
            return Ok(Visit::TooLong);
        }
        let client = match slice.call(scope).await? {
            Ok(client) => client,
            Err(told) => return Ok(told.into()),
        };
        *calls += 1;
        let jobs = match client.run_jobs(owner, name, run.id, page).await.step("recover.jobs_listed") {
            Ok(jobs) => jobs,
            // A run that was deleted meanwhile is no reason to leave the others out.
            Err(error) => return Ok(slice.told(scope, &error).into()),
        };
        let events: Vec<JobEvent> = jobs.items.iter().filter_map(|job| event(&worker.recovery.jobs, &run.repository, job)).collect();
        let reported = worker.ledger.report_found(&events, &worker.limits.prefix).await.step("recover.found")?;
        if reported.backlog {
            tracing::info!("many events are on their way; the sweep waits for them");
            return Ok(Visit::Backlog);
        }
        for (state, count) in [("queued", reported.queued), ("in_progress", reported.in_progress)] {
            if count > 0 {
                tracing::info!(repository = run.repository.full_name, jobs = count, state, "found jobs that the ledger did not know");
                worker.metrics.recovered.get_or_create(&Recovered { state }).inc_by(count);
            }
        }
        if !jobs.more {
            return Ok(Visit::Done);
        }
        page += 1;
    }
}

/// The event that a webhook would have told, if it is one of ours.
fn event(settings: &GithubSettings, repo: &Repository, job: &Job) -> Option<JobEvent> {
    let action = match job.status {
        JobStatus::Queued => Action::Queued,
        JobStatus::InProgress => Action::InProgress,
        _ => return None,
    };
    if repo.organization.is_none() && !settings.user_repositories {
        return None;
    }
    let refused = repo.public && !settings.public_repositories;
    let class = settings.classify(repo.organization.as_deref(), &repo.full_name, &job.labels).filter(|_| !refused);
    if action == Action::Queued && class.is_none() {
        return None;
    }
    let runner = job.runner_name.clone().filter(|_| action == Action::InProgress);
    Some(JobEvent {
        action,
        job: JobId::new(job.id)?,
        attempt: job.run_attempt.and_then(|attempt| u32::try_from(attempt).ok()).filter(|attempt| *attempt > 0),
        org: repo.organization.clone().unwrap_or_else(|| repo.full_name.clone()),
        repo: repo.full_name.clone(),
        class,
        runner_id: runner.as_ref().and(job.runner_id),
        runner,
        conclusion: None,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jit_core::config::{GithubArgs, Problems};
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        github: GithubArgs,
    }

    fn told(server: &str, owner: &str, visibility: &str, status: &str, label: &str) -> Option<JobEvent> {
        let mut problems = Problems::default();
        let settings = Cli::parse_from(["test", "--ghes-url", server]).github.resolve(&mut problems);
        let repo = json!({ "full_name": "Acme/app", "owner": { "login": "Acme", "type": owner }, "visibility": visibility });
        let job = json!({ "id": 7, "run_id": 1, "run_attempt": 2, "status": status, "labels": [label], "runner_id": 3, "runner_name": "jit-runner-7-a" });
        event(&settings, &serde_json::from_value(repo).expect("a repository"), &serde_json::from_value(job).expect("a job"))
    }

    #[test]
    fn a_job_is_told_of_as_its_webhook_would() {
        let ghes = "https://github.example.com";
        let queued = told(ghes, "Organization", "private", "queued", "Code-Linux").expect("ours");
        assert_eq!((queued.action, queued.attempt, queued.org.as_str(), queued.runner), (Action::Queued, Some(2), "Acme", None));
        assert_eq!(queued.class.expect("a class").scope, "orgs/Acme");
        let users = told(ghes, "User", "private", "queued", "code-linux").expect("ours");
        assert_eq!((users.org.as_str(), users.class.expect("a class").scope.as_str()), ("Acme/app", "repos/Acme/app"));
        let running = told(ghes, "Organization", "private", "in_progress", "other").expect("it may be on one of our runners");
        assert_eq!((running.class, running.runner.as_deref(), running.runner_id), (None, Some("jit-runner-7-a"), Some(3)));
        assert_eq!(told(ghes, "Organization", "private", "queued", "other"), None);
        assert_eq!(told(ghes, "Organization", "private", "waiting", "code-linux"), None);
        assert_eq!(told("https://github.com", "Organization", "public", "queued", "code-linux"), None, "refused there");
        assert_eq!(told("https://github.com", "Organization", "public", "in_progress", "code-linux").expect("told").class, None);
    }
}
