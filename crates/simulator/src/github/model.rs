//! The nouns of the simulated GitHub: owners, repositories, runner groups, jobs and runners.
//!
//! Plain data; what may happen to it is in [`super::state`]. Names are compared without regard to case, so every index
//! holds lower case and every answer holds the name as it was first written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Milliseconds since the Unix epoch, or a span of them.
pub type Ms = u64;

/// State of a job, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Needs an approval first.
    Waiting,
    /// Any fitting runner may take it.
    Queued,
    /// A runner has it.
    InProgress,
    /// Over, for ever.
    Completed,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The job did what it should.
    Success,
    /// The job failed, or its runner was lost.
    Failure,
    /// Somebody cancelled it, or it waited too long.
    Cancelled,
}

/// The `action` of a `workflow_job` webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The job waits for a runner.
    Queued,
    /// The job waits for an approval.
    Waiting,
    /// A runner took the job.
    InProgress,
    /// The job is over.
    Completed,
}

/// Where a runner is registered; the names are lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// An organization.
    Organization(String),
    /// Owner and name of one repository.
    Repository(String, String),
    /// An enterprise, by its slug.
    Enterprise(String),
}

impl Scope {
    /// The account whose runners these are: what limits and counts go by.
    pub fn owner(&self) -> &str {
        match self {
            Self::Organization(owner) | Self::Repository(owner, _) | Self::Enterprise(owner) => owner,
        }
    }

    /// The name of the repository, where it is one.
    pub fn repo(&self) -> Option<&str> {
        if let Self::Repository(_, repo) = self {
            Some(repo)
        } else {
            None
        }
    }
}

/// Who owns repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// Its webhooks have an `organization`.
    Organization,
    /// Its webhooks have none, and runners register at its repositories only.
    User,
}

/// A number that goes up and down, and the most that it ever was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauge {
    /// Now.
    pub now: u64,
    /// The most so far.
    pub max: u64,
}

impl Gauge {
    /// One more.
    pub fn up(&mut self) {
        self.now += 1;
        self.max = self.max.max(self.now);
    }

    /// One less.
    pub fn down(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}

/// What is counted for an owner, and for all of them together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Calls of `generate-jitconfig`, refused ones too.
    pub jit_requests: u64,
    /// Calls that registered a runner.
    pub registrations: u64,
    /// Runners registered, connected or not.
    pub registered: Gauge,
    /// Runners with a session.
    pub connected: Gauge,
    /// Jobs in progress.
    pub running: Gauge,
    /// Jobs created.
    pub jobs: u64,
}

/// An organization or a user.
#[derive(Debug)]
pub struct Owner {
    /// GitHub's id.
    pub id: u64,
    /// As it was first written.
    pub login: Arc<str>,
    /// Organization or user.
    pub kind: OwnerKind,
    /// Its runner groups, the default one first.
    pub groups: Vec<Group>,
    /// Its repositories, by lower-case name.
    pub repos: BTreeMap<String, Arc<Repo>>,
    /// Its `organization` object in a webhook, built once.
    pub payload: OnceLock<Arc<str>>,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// GitHub's id.
    pub id: u64,
    /// Login of its owner, as it was first written.
    pub owner: Arc<str>,
    /// GitHub's id of the owner.
    pub owner_id: u64,
    /// What the owner is.
    pub owner_kind: OwnerKind,
    /// As it was first written.
    pub name: Arc<str>,
    /// Whether only members see it.
    pub private: bool,
    /// Its `repository` object in a webhook, built once: it is most of the payload.
    pub payload: OnceLock<Arc<str>>,
}

impl Repo {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Owner's and repository's name in lower case: the key of every index.
    pub fn key(&self) -> (String, String) {
        (self.owner.to_lowercase(), self.name.to_lowercase())
    }
}

/// A runner group: which repositories its runners serve.
#[derive(Clone, Debug)]
pub struct Group {
    /// GitHub's id; 1 is the default group.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Lower-case names of the repositories (of the organizations, in an enterprise's group) that it serves; none means
    /// all.
    pub selected: Option<BTreeSet<String>>,
    /// Whether public repositories may use it.
    pub public: bool,
}

impl Group {
    /// The group that every organization and enterprise has.
    pub fn default_group() -> Self {
        Self {
            id: 1,
            name: "Default".into(),
            selected: None,
            public: true,
        }
    }

    /// Whether a job of `repo` may run on this group's runners; `member` is what `selected` lists.
    pub fn allows(&self, repo: &Repo, member: &str) -> bool {
        (repo.private || self.public) && self.selected.as_ref().is_none_or(|names| names.contains(member))
    }
}

/// What is known of a job before anything happens to it; shared by its reruns.
#[derive(Clone, Debug)]
pub struct JobFacts {
    /// Where it belongs.
    pub repo: Arc<Repo>,
    /// Its name.
    pub name: Arc<str>,
    /// Name of its workflow.
    pub workflow: Arc<str>,
    /// What it asks of a runner, as the workflow writes it.
    pub labels: Vec<String>,
    /// The same in lower case, as they are matched.
    pub folded: Vec<String>,
    /// How long it runs.
    pub duration: Ms,
    /// How it ends when nothing gets in its way.
    pub outcome: Conclusion,
    /// The environment that it deploys to.
    pub environment: Option<Arc<str>>,
    /// Whether its webhooks hold a `deployment`.
    pub deployment: bool,
    /// The commit.
    pub head_sha: String,
}

/// Moments of a job's life.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Created.
    pub created: Ms,
    /// Queued, for the last time.
    pub queued: Option<Ms>,
    /// The first `queued` webhook began to be sent.
    pub sent: Option<Ms>,
    /// The first `queued` webhook was answered with a 2xx.
    pub accepted: Option<Ms>,
    /// A JIT configuration was asked for that can serve it: the n-th request of an owner pairs with its n-th fitting
    /// job.
    pub requested: Option<Ms>,
    /// A runner took it.
    pub started: Option<Ms>,
    /// Over.
    pub completed: Option<Ms>,
}

/// The runner that ran a job, which outlives the registration.
#[derive(Clone, Debug)]
pub struct RunnerRef {
    /// GitHub's id.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its group's id.
    pub group_id: u64,
    /// Its group's name.
    pub group_name: Arc<str>,
}

/// A workflow job.
#[derive(Clone, Debug)]
pub struct Job {
    /// GitHub's id; a rerun has its own.
    pub id: u64,
    /// The run that it is part of.
    pub run_id: u64,
    /// 1, and one more for each rerun.
    pub run_attempt: u32,
    /// What does not change.
    pub facts: Arc<JobFacts>,
    /// Where it stands.
    pub state: JobState,
    /// How it ended.
    pub conclusion: Option<Conclusion>,
    /// The runner that was told to take it and has not yet, and since when.
    pub assigned: Option<(u64, Ms)>,
    /// The runner that took it.
    pub runner: Option<RunnerRef>,
    /// Somebody cancelled it while it ran.
    pub cancelled: bool,
    /// How many times a runner took it; more than once is what must never be.
    pub starts: u32,
    /// When what happened.
    pub times: Times,
}

/// What a runner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Idle,
    /// It is to take this job at its next poll.
    Assigned(u64),
    /// It runs this job.
    Running(u64),
    /// It was lost with its job; it never takes another.
    Spent,
}

/// A connection of a runner.
#[derive(Debug)]
pub struct Session {
    /// The name of the session, known to the runner only.
    pub id: String,
    /// Requests of the runner that are being held open now: while there is one, the runner is alive.
    pub open: u32,
    /// With no request open, the runner is taken for dead from this moment on.
    pub lease_until: Ms,
}

/// A registered runner.
#[derive(Debug)]
pub struct Runner {
    /// GitHub's id.
    pub id: u64,
    /// Its name, unique in its scope.
    pub name: Arc<str>,
    /// Where it is registered.
    pub scope: Scope,
    /// Its group.
    pub group_id: u64,
    /// Its group's name.
    pub group_name: Arc<str>,
    /// As they were registered.
    pub labels: Vec<String>,
    /// The same in lower case.
    pub folded: BTreeSet<String>,
    /// What its JIT configuration must hold.
    pub secret: String,
    /// When it was registered.
    pub registered: Ms,
    /// Since when it has had no session.
    pub offline_since: Option<Ms>,
    /// Present while it is online.
    pub session: Option<Session>,
    /// Idle, or what it does.
    pub work: Work,
    /// Rung when its poll should look again.
    pub bell: Arc<Notify>,
    /// Decided at its first try to connect: a fault keeps it from ever getting through.
    pub mute: Option<bool>,
}

impl Runner {
    /// Whether GitHub calls it busy.
    pub fn busy(&self) -> bool {
        matches!(self.work, Work::Running(_))
    }

    /// Whether its labels hold all of the job's.
    pub fn fits(&self, job: &JobFacts) -> bool {
        job.folded.iter().all(|label| self.folded.contains(label))
    }
}
