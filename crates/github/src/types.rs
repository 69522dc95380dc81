//! What goes to GitHub and comes back, in this crate's words.
//!
//! The wire shapes are private to the calls that read them; what callers see is normalized here: a job without a runner
//! has `None`, where GitHub writes `null`, `0` or an empty name, and words that GitHub may add to are open enums.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};

/// What a just-in-time runner shall be; the body of `generate-jitconfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JitRequest {
    /// Name of the runner, unique in its scope: a second one of the same name is refused with 409.
    pub name: String,
    /// Id of the runner group, from [`Client::runner_group_id`](crate::Client::runner_group_id). GitHub requires it.
    pub runner_group_id: u64,
    /// The labels that jobs ask for, 1 to 100 (GitHub's limits). GitHub adds none by itself, not even `self-hosted`.
    pub labels: Vec<String>,
    /// Folder that jobs work in, relative to the runner's; `_work` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_folder: Option<String>,
}

/// A registered just-in-time runner.
#[derive(Clone, Debug)]
pub struct JitRunner {
    /// GitHub's id of the runner, for [`Client::delete_runner`](crate::Client::delete_runner).
    pub id: u64,
    /// What the runner is started with. It holds the runner's credentials: whoever has it can take the job.
    pub encoded_jit_config: SecretString,
}

/// A runner as GitHub lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Runner {
    /// GitHub's id of the runner.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether it is connected to GitHub.
    pub status: RunnerStatus,
    /// Whether it runs a job.
    pub busy: bool,
    /// Names of its labels.
    #[serde(default, deserialize_with = "label_names")]
    pub labels: Vec<String>,
}

/// Whether a runner is connected to GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum RunnerStatus {
    /// Connected.
    Online,
    /// Not connected: not started yet, or gone.
    Offline,
    /// A word that this release does not know.
    Other(String),
}

/// What became of [`Client::find_runner`](crate::Client::find_runner).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is registered.
    Found(Runner),
    /// It is not: a page that held the whole list lacks it, or two complete readings of several pages do.
    Absent,
    /// It was not seen, and neither was all that GitHub counts: the list changed while it was read.
    Unseen,
}

/// What became of [`Client::delete_runner`](crate::Client::delete_runner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It was there, and is deleted (204).
    Deleted,
    /// It is not there (404). GitHub answers the same where the token may not see the scope.
    NotFound,
    /// It runs a job, and stays (422).
    Busy,
}

/// A job of a workflow run. [`Client::job`](crate::Client::job) leaves out its steps.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// GitHub's id of the job, as in `workflow_job.id`.
    pub id: u64,
    /// Id of the workflow run it belongs to.
    pub run_id: u64,
    /// Number of the run's attempt, from 1; older servers leave it out.
    #[serde(default)]
    pub run_attempt: Option<u64>,
    /// Where it is.
    pub status: JobStatus,
    /// How it ended: `success`, `failure`, `cancelled`, …; `None` while it has not.
    #[serde(default)]
    pub conclusion: Option<String>,
    /// Its name in the workflow.
    #[serde(default)]
    pub name: String,
    /// The labels that it asks for.
    #[serde(default)]
    pub labels: Vec<String>,
    /// GitHub's id of the runner that runs or ran it.
    #[serde(default, deserialize_with = "none_if_zero")]
    pub runner_id: Option<u64>,
    /// That runner's name.
    #[serde(default, deserialize_with = "none_if_empty")]
    pub runner_name: Option<String>,
    /// That runner's group.
    #[serde(default, deserialize_with = "none_if_zero")]
    pub runner_group_id: Option<u64>,
    /// When the job was created.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When it started; while it is queued, GitHub gives the time of its creation.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
}

/// Where a job is, in GitHub's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum JobStatus {
    /// Waits for a runner.
    Queued,
    /// Runs.
    InProgress,
    /// Has ended; [`Job::conclusion`] says how.
    Completed,
    /// Waits for an approval, a deployment's say.
    Waiting,
    /// Created, and not yet queued.
    Requested,
    /// Waits for its concurrency group.
    Pending,
    /// A word that this release does not know.
    Other(String),
}

impl From<String> for RunnerStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "online" => Self::Online,
            "offline" => Self::Offline,
            _ => Self::Other(word),
        }
    }
}

impl From<String> for JobStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "queued" => Self::Queued,
            "in_progress" => Self::InProgress,
            "completed" => Self::Completed,
            "waiting" => Self::Waiting,
            "requested" => Self::Requested,
            "pending" => Self::Pending,
            _ => Self::Other(word),
        }
    }
}

/// GitHub lists a label as `{id, name, type}`.
fn label_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Label {
        name: String,
    }
    Ok(Vec::<Label>::deserialize(from)?
        .into_iter()
        .map(|label| label.name)
        .collect())
}

/// A job that never had a runner: `runner_id` is `null` in the description and `0` in the wild.
fn none_if_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(from)?.filter(|id| *id != 0))
}

/// As [`none_if_zero`], for `runner_name`.
fn none_if_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|name| !name.is_empty()))
}

/// An installation of a GitHub App.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Installation {
    /// GitHub's id of it.
    pub id: u64,
    /// Where it is installed.
    #[serde(default)]
    pub account: Option<InstalledAt>,
    /// `Organization`, `User` or `Enterprise`.
    #[serde(default)]
    pub target_type: Option<String>,
    /// Since when it may do nothing.
    #[serde(default)]
    pub suspended_at: Option<Timestamp>,
}

/// An account: a user or an organization has a login, an enterprise a slug.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InstalledAt {
    /// Login of a user or an organization.
    #[serde(default)]
    pub login: Option<String>,
    /// Slug of an enterprise.
    #[serde(default)]
    pub slug: Option<String>,
}

impl Installation {
    /// Whether it is at the enterprise of this slug.
    pub(crate) fn is_at_enterprise(&self, slug: &str) -> bool {
        let own = self.account.as_ref().and_then(|account| account.slug.as_deref());
        self.target_type.as_deref() == Some("Enterprise") && own.is_some_and(|own| own.eq_ignore_ascii_case(slug))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_without_a_runner_has_none() {
        for (id, name) in [(json!(0), json!("")), (json!(null), json!(null))] {
            let job: Job = serde_json::from_value(json!({
                "id": 1, "run_id": 2, "status": "completed", "conclusion": "cancelled",
                "runner_id": id, "runner_name": name, "created_at": "2026-11-22T09:00:00+09:00",
            }))
            .unwrap();
            assert_eq!((job.runner_id, job.runner_name), (None, None));
            assert_eq!(job.created_at.unwrap().to_string(), "2026-11-22T00:00:00Z");
        }
    }

    #[test]
    fn words_that_are_new_are_kept() {
        assert_eq!(JobStatus::from("paused".to_owned()), JobStatus::Other("paused".into()));
        assert_eq!(
            RunnerStatus::from("idle".to_owned()),
            RunnerStatus::Other("idle".into())
        );
    }

    #[test]
    fn debug_hides_the_configuration() {
        let runner = JitRunner {
            id: 7,
            encoded_jit_config: "c2VjcmV0".into(),
        };
        assert!(!format!("{runner:?}").contains("c2VjcmV0"));
    }
}
