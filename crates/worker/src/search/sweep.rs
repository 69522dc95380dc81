//! The sweep: repositories are looked through for jobs that are unknown here, the one first that was visited longest
//! ago.
//!
//! A visit asks for the newest runs, and for the jobs of those that are not over. Where all are over, GitHub's mark of
//! the list is kept, and the next visit costs nothing unless something has changed (304). Where the list does not reach
//! back to runs that are known to be over, all runs that are queued, in progress or waiting are asked for; and so they
//! are once in a while, for a run that is old and was run again. What the ledger lacks it says itself, in the same step
//! in which the event is appended.

use jit_core::{
    config::GithubSettings,
    event::{Action, Identity, JobEvent, JobId},
    ledger::{
        LedgerError,
        recovery::{DueItem, KnownRuns, Round},
    },
    names::owner_of,
};
use jit_github::{Job, JobStatus, Repository, Run, RunStatus};

use super::{SliceError, Turn};
use crate::{metrics::Recovered, step::Step};

/// A repository that took so many calls when the budget or the time ran out counts as visited: otherwise it could keep
/// all others waiting.
const LONG_VISIT: u64 = 100;

/// What came of a visit.
enum Visit {
    /// It was looked through; what is known of it now.
    Done(Option<KnownRuns>),
    /// GitHub refuses, or does not answer: the others come first.
    Failed,
    /// It was not, for now.
    Later,
    /// Too many events are on their way to tell what is unknown.
    Backlog,
}

impl From<SliceError> for Visit {
    fn from(error: SliceError) -> Self {
        if error == SliceError::Later {
            Self::Later
        } else {
            Self::Failed
        }
    }
}

/// What breaks a visit off, in place of what it was to give.
type Broken<T> = Result<T, Visit>;

/// A repository, and the calls that its visit took.
struct Visited<'a> {
    owner: &'a str,
    name: &'a str,
    calls: u64,
}

/// Visits repositories until the round's share is used up.
pub(super) async fn look(turn: &mut Turn<'_>, round: Round) -> Result<(), LedgerError> {
    while let Some(due) = turn.next(round).await? {
        let Some((owner, name)) = due.item.split_once('/') else {
            turn.done(round, &due.item, None).await?;
            continue;
        };
        let mut repo = Visited { owner, name, calls: 0 };
        let known = match visit(turn, &mut repo, &due, round).await? {
            Visit::Done(known) => known,
            Visit::Failed => None,
            Visit::Later if repo.calls >= LONG_VISIT || turn.slice.timed_out() => None,
            Visit::Later | Visit::Backlog => return Ok(()),
        };
        turn.slice
            .worker
            .ledger
            .looked_at(&turn.account, round, &due.item, Some(turn.slice.now), known.as_ref())
            .await
            .step("recover.swept")?;
        if round == Round::Repos {
            turn.visited();
        }
    }
    Ok(())
}

async fn visit(turn: &mut Turn<'_>, repo: &mut Visited<'_>, due: &DueItem, round: Round) -> Result<Visit, LedgerError> {
    let known = due.runs();
    if round == Round::Rereads {
        return Ok(match all_runs(turn, repo).await? {
            // Nothing that the other visits would not see.
            Ok(active) if active.iter().all(|run| *run >= known.over_below) => Visit::Done(None),
            Ok(active) => Visit::Done(Some(KnownRuns {
                etag: None,
                over_below: active.into_iter().min().unwrap_or(0),
            })),
            Err(broken) => broken,
        });
    }
    let client = match turn.call().await? {
        Ok(client) => client,
        Err(error) => return Ok(error.into()),
    };
    repo.calls += 1;
    let asked = client
        .newest_runs(repo.owner, repo.name, known.etag.as_deref())
        .await
        .step("recover.newest_runs_listed");
    let asked = match turn.heard(repo.owner, asked) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.into()),
    };
    let Some((newest, etag)) = turn.settled(asked).await? else {
        return Ok(Visit::Done(None));
    };
    let reaches_back = !newest.more || newest.items.iter().any(|run| run.id < known.over_below);
    let mut active: Vec<u64> = newest
        .items
        .iter()
        .filter(|run| !run.is_over())
        .map(|run| run.id)
        .collect();
    if reaches_back {
        for run in newest.items.iter().filter(|run| !run.is_over()) {
            if let Err(broken) = jobs(turn, repo, run).await? {
                return Ok(broken);
            }
        }
    } else {
        match all_runs(turn, repo).await? {
            Ok(others) => active.extend(others),
            Err(broken) => return Ok(broken),
        }
    }
    let after_all = newest
        .items
        .iter()
        .map(|run| run.id + 1)
        .max()
        .unwrap_or(1)
        .max(known.over_below);
    let over_below = active.iter().copied().min().unwrap_or(after_all);
    Ok(Visit::Done(Some(KnownRuns {
        etag: etag.filter(|_| active.is_empty()),
        over_below,
    })))
}

/// Looks through all runs that are queued, in progress or waiting; which these are.
async fn all_runs(turn: &mut Turn<'_>, repo: &mut Visited<'_>) -> Result<Broken<Vec<u64>>, LedgerError> {
    let mut active = Vec::new();
    for status in RunStatus::ALL {
        let mut page = 1;
        loop {
            let client = match turn.call().await? {
                Ok(client) if turn.may_call() => client,
                Ok(_) => return Ok(Err(Visit::Later)), // well before the right to the slice ends
                Err(error) => return Ok(Err(error.into())),
            };
            repo.calls += 1;
            let runs = client
                .runs(repo.owner, repo.name, status, page)
                .await
                .step("recover.runs_listed");
            let runs = match turn.heard(repo.owner, runs) {
                Ok(runs) => runs,
                Err(error) => return Ok(Err(error.into())),
            };
            for run in &runs.items {
                active.push(run.id);
                if let Err(broken) = jobs(turn, repo, run).await? {
                    return Ok(Err(broken));
                }
            }
            if !runs.more {
                break;
            }
            page += 1;
        }
    }
    Ok(Ok(active))
}

/// Reports the jobs of one run.
async fn jobs(turn: &mut Turn<'_>, repo: &mut Visited<'_>, run: &Run) -> Result<Broken<()>, LedgerError> {
    let worker = turn.slice.worker;
    let mut page = 1;
    loop {
        let client = match turn.call().await? {
            Ok(client) if turn.may_call() => client,
            Ok(_) => return Ok(Err(Visit::Later)),
            Err(error) => return Ok(Err(error.into())),
        };
        repo.calls += 1;
        let jobs = client
            .run_jobs(repo.owner, repo.name, run.id, page)
            .await
            .step("recover.jobs_listed");
        let jobs = match turn.heard(repo.owner, jobs) {
            Ok(jobs) => jobs,
            // a run that was deleted meanwhile is no reason to leave the others out
            Err(SliceError::Refused) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error.into())),
        };
        let events: Vec<JobEvent> = jobs
            .items
            .iter()
            .filter_map(|job| event(&worker.search.jobs, &run.repository, job))
            .collect();
        let reported = worker
            .ledger
            .report_found(&events, &worker.limits.prefix)
            .await
            .step("recover.found")?;
        if reported.backlog {
            tracing::info!("many events are on their way; the sweep waits for them");
            return Ok(Err(Visit::Backlog));
        }
        for (state, count) in [("queued", reported.queued), ("in_progress", reported.in_progress)] {
            if count > 0 {
                tracing::info!(
                    repository = run.repository.full_name,
                    jobs = count,
                    state,
                    "found jobs that the ledger did not know"
                );
                worker
                    .metrics
                    .recovered
                    .get_or_create(&Recovered { state })
                    .inc_by(count);
            }
        }
        if !jobs.more {
            return Ok(Ok(()));
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
    let owner = repo
        .organization
        .as_deref()
        .unwrap_or_else(|| owner_of(&repo.full_name));
    let refused = (repo.public && !settings.public_repositories) || !settings.owners.serve(owner);
    let class = settings
        .classify(repo.organization.as_deref(), &repo.full_name, &job.labels)
        .filter(|_| !refused);
    if action == Action::Queued && class.is_none() {
        return None;
    }
    let runner = job.runner_name.clone().filter(|_| action == Action::InProgress);
    Some(JobEvent {
        action,
        job: JobId::new(job.id)?,
        attempt: job
            .run_attempt
            .and_then(|attempt| u32::try_from(attempt).ok())
            .filter(|attempt| *attempt > 0),
        org: owner.to_owned(),
        repo: repo.full_name.clone(),
        class,
        runner_id: runner.as_ref().and(job.runner_id),
        runner,
        conclusion: None,
        // GitHub's answer of this moment: no time, so that nothing is later.
        identity: Identity {
            owner_id: repo.owner_id,
            at: None,
            user: repo.organization.is_none(),
        },
    })
}

#[cfg(test)]
mod tests {
    use jit_testing::github_settings;
    use serde_json::json;

    use super::*;

    fn told(server: &str, owner: &str, visibility: &str, status: &str, label: &str) -> Option<JobEvent> {
        let settings = github_settings(server);
        let repo =
            json!({ "full_name": "Acme/app", "owner": { "login": "Acme", "type": owner }, "visibility": visibility });
        let job = json!({ "id": 7, "run_id": 1, "run_attempt": 2, "status": status, "labels": [label], "runner_id": 3,
            "runner_name": "jit-runner-7-a" });
        event(
            &settings,
            &serde_json::from_value(repo).expect("a repository"),
            &serde_json::from_value(job).expect("a job"),
        )
    }

    #[test]
    fn a_job_is_told_of_as_its_webhook_would() {
        let ghes = "https://github.example.com";
        let queued = told(ghes, "Organization", "private", "queued", "Code-Linux").expect("ours");
        assert_eq!(
            (queued.action, queued.attempt, queued.org.as_str(), queued.runner),
            (Action::Queued, Some(2), "Acme", None)
        );
        assert_eq!(queued.class.expect("a class").scope, "orgs/Acme");
        let users = told(ghes, "User", "private", "queued", "code-linux").expect("ours");
        assert_eq!(
            (users.org.as_str(), users.class.expect("a class").scope.as_str()),
            ("Acme", "repos/Acme/app")
        );
        let running =
            told(ghes, "Organization", "private", "in_progress", "other").expect("it may be on one of our runners");
        assert_eq!(
            (running.class, running.runner.as_deref(), running.runner_id),
            (None, Some("jit-runner-7-a"), Some(3))
        );
        assert_eq!(told(ghes, "Organization", "private", "queued", "other"), None);
        assert_eq!(told(ghes, "Organization", "private", "waiting", "code-linux"), None);
        assert_eq!(
            told("https://github.com", "Organization", "public", "queued", "code-linux"),
            None,
            "refused there"
        );
        assert_eq!(
            told(
                "https://github.com",
                "Organization",
                "public",
                "in_progress",
                "code-linux"
            )
            .expect("told")
            .class,
            None
        );
    }
}
