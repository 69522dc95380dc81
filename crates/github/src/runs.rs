//! Workflow runs and their jobs: what GitHub knows of jobs that nobody told of.

use reqwest::Method;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::pages::{Asked, Listed, OnePage};
use crate::repositories::Repository;
use crate::scope::Scope;
use crate::types::Job;

/// Runs that may have jobs without a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// No job of it has begun.
    Queued,
    /// Some job runs; others may be queued.
    InProgress,
    /// Some job waits for an approval; others may be queued.
    Waiting,
}

impl RunStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queued, Self::InProgress, Self::Waiting];

    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Waiting => "waiting",
        }
    }
}

/// Newest runs that are asked for at once.
const NEWEST: usize = 20;

/// A workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Run {
    /// GitHub's id of it. A newer run has a higher one.
    pub id: u64,
    /// `completed`, or what GitHub calls it until then.
    #[serde(default)]
    pub status: Option<String>,
    /// Where it runs.
    pub repository: Repository,
}

impl Run {
    /// Whether nothing of it can run any more, unless somebody runs it again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.as_deref() == Some("completed")
    }
}

#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

impl OnePage<Run> for Runs {
    fn items(self) -> Vec<Run> {
        self.workflow_runs
    }
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

impl OnePage<Job> for Jobs {
    fn items(self) -> Vec<Job> {
        self.jobs
    }
}

impl Client {
    /// One page (from 1) of a repository's runs of this status, newest first: `GET
    /// repos/{owner}/{repo}/actions/runs?status=`.
    ///
    /// # Errors
    /// As any call. GitHub answers 404 also where the credential may not see the repository.
    pub async fn runs(&self, owner: &str, repo: &str, status: RunStatus, page: u32) -> Result<Listed<Run>, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let mut call = self.call(
            "runs",
            Method::GET,
            &scope,
            &["actions", "runs"],
            format!("{} runs of {scope}", status.as_str()),
        )?;
        call.url.query_pairs_mut().append_pair("status", status.as_str());
        self.page::<_, Runs>(call, page).await
    }

    /// Whether this credential may read a repository's runs, and so its jobs: `GET repos/{owner}/{repo}/actions/runs`.
    /// No on 403 and 404. Reading them takes the same right as reading one job: "Actions: read" of a GitHub App or a
    /// fine-grained token, `repo` of a classic one.
    ///
    /// # Errors
    /// As any call, but 403 that is no limit and 404 are answers here.
    pub async fn may_read_runs(&self, owner: &str, repo: &str) -> Result<bool, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let mut call = self.call(
            "runs",
            Method::GET,
            &scope,
            &["actions", "runs"],
            format!("runs of {scope}"),
        )?;
        call.url.query_pairs_mut().append_pair("per_page", "1");
        // A proxy's page is no list: absence is no proof, and neither is a presence that nobody can read.
        match self.send(call).await?.json::<Runs>() {
            Ok(_) => Ok(true),
            Err(Error::Forbidden { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest 20 runs of a repository, whatever their status: `GET repos/{owner}/{repo}/actions/runs`. `known` is
    /// the mark of the last answer.
    ///
    /// # Errors
    /// As any call.
    pub async fn newest_runs(&self, owner: &str, repo: &str, known: Option<&str>) -> Result<Asked<Listed<Run>>, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let mut call = self.call(
            "newest-runs",
            Method::GET,
            &scope,
            &["actions", "runs"],
            format!("runs of {scope}"),
        )?;
        call.url
            .query_pairs_mut()
            .append_pair("per_page", &NEWEST.to_string())
            .append_pair("exclude_pull_requests", "true");
        call.known = known.map(str::to_owned);
        self.send(call).await?.asked(|answer| {
            let linked = answer.next.is_some();
            let items = answer.json::<Runs>()?.items();
            let more = linked || items.len() >= NEWEST;
            Ok(Listed { items, more })
        })
    }

    /// One page (from 1) of the jobs of a run's latest attempt: `GET repos/{owner}/{repo}/actions/runs/{run}/jobs`.
    ///
    /// # Errors
    /// As any call.
    pub async fn run_jobs(&self, owner: &str, repo: &str, run: u64, page: u32) -> Result<Listed<Job>, Error> {
        let scope = Scope::Repository {
            owner: owner.to_owned(),
            name: repo.to_owned(),
        };
        let call = self.call(
            "run-jobs",
            Method::GET,
            &scope,
            &["actions", "runs", &run.to_string(), "jobs"],
            format!("jobs of run {run} of {scope}"),
        )?;
        self.page::<_, Jobs>(call, page).await
    }
}
