//! What transitions take and give.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    event::JobId,
    model::{JobState, RunnerState},
};

/// What an admission did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Admission {
    /// Runners reserved.
    pub admitted: u32,
    /// There may be room and demand for more.
    pub more: bool,
    /// Surplus runners whose removal has begun.
    pub reaped: u32,
    /// The data may be lost or rolled back: nothing is admitted until a reconcile has run.
    pub gate_closed: bool,
    /// How far the ledger's names have come; none while the gate is closed.
    pub(super) seen: Option<Seen>,
}

/// How far the ledger's names have come. Data that is behind what was seen before has been rolled back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Epoch, seconds since 1970.
    pub(super) epoch: u64,
    /// Number of the last reservation.
    pub(super) sequence: u64,
}

/// A reservation taken up: what runner to make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reservation {
    /// Unique name.
    pub name: String,
    /// Organization whose limit it counts against.
    pub org: String,
    /// Class that it serves.
    pub class: String,
    /// Where it registers.
    pub scope: String,
    /// Runner group's name.
    pub group: String,
    /// Profile of its pod.
    pub profile: String,
    /// Labels that it registers with, as a JSON array.
    #[serde(deserialize_with = "json_text")]
    pub labels: Vec<String>,
    /// Job that asked for it.
    pub job: JobId,
}

fn json_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    serde_json::from_str(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Who takes up a reservation, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The worker, by its id.
    pub worker: &'a str,
    /// The number of this claim among the worker's: the same when it is tried again, since its answer did not come.
    pub claim: u64,
    /// What serves the organization at GitHub, by its name.
    pub credential: &'a str,
    /// Whether no other credential serves the organization. If none does, the credential's back-off holds back the
    /// organization.
    pub alone: bool,
    /// Time-out of all that happens until the runner is registered: a reservation that takes a minute more is removed.
    pub timeout: Duration,
    /// Time-out of creating its pod: what a dead worker had asked for may come about until twice that has passed, and
    /// its slot is kept for so long.
    pub create_timeout: Duration,
}

/// What a failure holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The runner's class: GitHub refuses what it asks for.
    Class,
    /// Where it registers, where that is a repository of an organization: no right there.
    Scope,
    /// Its organization: no right there, or not installed.
    Org,
    /// Its profile: the pod is refused.
    Profile,
    /// The credential that it was claimed with, and so every organization that this one serves: not accepted, or its
    /// calls are used up.
    Credential,
    /// Everything: an outage.
    Global,
}

/// How far a runner has to come for a row of failures to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// It has all that it needs to start.
    Made,
    /// Its program has started.
    Started,
    /// It has had work.
    Work,
}

/// How the wait grows with each failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It doubles.
    Doubles,
    /// It doubles, and stays below 25 s for the first quarter of an hour: what is put right by then is noticed soon.
    Patient,
    /// The same, and the first is tried again at once.
    Again,
    /// It does not: GitHub has named the time.
    Named,
}

/// Who is held back by a failure, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Narrowest first. The first is held; a wider one in its place where several of its members have failed and none
    /// has succeeded between.
    pub chain: &'static [Subject],
    /// What ends it.
    pub needs: Needs,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// How one grows to the other.
    pub growth: Growth,
}

/// What backs off after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackOff {
    /// The runners' namespace: its quota is used up. Held not for a time, but at the number of runners that are live
    /// now, plus one for each `quota_interval` that passes.
    Quota,
    /// Subjects, for a time.
    Hold(Hold),
}

/// Why a runner could not be made.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Something may exist that has to be removed.
    pub made: bool,
    /// What is known of its registration at GitHub.
    pub registration: Registration,
    /// What backs off, if anything.
    pub back_off: Option<BackOff>,
    /// A sentence for people.
    pub why: String,
}

/// What is known of a registration at GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// GitHub was not asked, or refused.
    None,
    /// GitHub may have done it: to be looked up by name.
    Uncertain,
    /// GitHub did it, and its id is in the ledger.
    Known,
}

/// What was seen of a runner, or is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// Its runner program has started.
    Started,
    /// A word on why it does not start.
    Note,
    /// It has ended or is gone: its slot is free.
    Release,
    /// It has ended, and its program never ran: its node did not take its pod. Its slot is free.
    Rejected,
    /// The runner has ended because GitHub refuses its version: its slot is free, and its class backs off at once.
    Outdated,
    /// GitHub refuses to delete it since it is at work.
    Busy,
    /// It is to be removed.
    Remove,
    /// It is to be removed, and its pod ended whatever GitHub says: an operator's order.
    Force,
    /// Its removal has to wait: GitHub does not say whether it works, or its pod cannot be ended.
    Postpone,
    /// A consistent read found no pod of this name.
    Absent,
}

/// What GitHub confirmed of a registration that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deregistration {
    /// It was deleted on our word, so the runner never had a job: GitHub deletes none that works, and removes those
    /// that have worked.
    Deleted,
    /// It was not there any more; the runner may have had its job.
    Absent,
}

/// The answer to a question about a job or a runner by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known<S> {
    /// Nothing is known of it, or no more.
    Unknown,
    /// It is in this state.
    #[serde(untagged)]
    State(S),
}

impl<S: std::fmt::Display> std::fmt::Display for Known<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::State(state) => state.fmt(f),
        }
    }
}

/// A job after an event or an answer about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// The job is none of ours.
    Ignored,
    /// The job is in this state.
    #[serde(untagged)]
    State(JobState),
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ignored => f.write_str("ignored"),
            Self::State(state) => state.fmt(f),
        }
    }
}

/// The state of a runner after an observation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Observed {
    /// The runner's state; unknown where there was none of this name in the last day.
    pub state: Known<RunnerState>,
    /// The observation was news.
    pub changed: bool,
    /// What had been held back may be admitted now.
    #[serde(default)]
    pub woken: bool,
}

/// Result of an operator's retry of a job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Retried {
    /// The job's state; only a queued one waits for anything.
    pub state: Known<JobState>,
    /// Subjects whose wait was ended: `class:ID`, `scope:SCOPE`, `org:ORG`, `profile:NAME`, `credential:NAME`,
    /// `global`.
    #[serde(default)]
    pub retried: Vec<String>,
}

/// A runner to remove: first at GitHub, then its pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Removal {
    /// Unique name.
    pub name: String,
    /// Where it is registered.
    pub scope: String,
    /// GitHub's id, where it is known.
    #[serde(default, deserialize_with = "id_text")]
    pub github_id: Option<u64>,
    /// GitHub is not to be asked first: it has confirmed already that there is no such registration, or an operator has
    /// ordered it, or nobody may ask for its owner any more.
    pub deregistered: bool,
    /// It may be registered without its id being known: to be looked up by name.
    pub uncertain: bool,
    /// Its program has started: it may be at work.
    pub started: bool,
}

fn id_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

/// A job that only GitHub knows about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// Which job.
    pub job: JobId,
    /// `owner/repo`.
    pub repo: String,
    /// Revision of what was heard of it; the answer must carry it.
    pub rev: String,
}

/// A registration that may be left over at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Doubt {
    /// The runner's name.
    pub name: String,
    /// Where it would be registered.
    pub scope: String,
    /// GitHub's id, where it is known: then one look settles the doubt.
    #[serde(default, deserialize_with = "id_text")]
    pub github_id: Option<u64>,
}

/// Work whose time has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Due {
    /// Runners to remove.
    pub removals: Vec<Removal>,
    /// Jobs to ask GitHub about.
    pub questions: Vec<Question>,
    /// Registrations to look up and delete.
    pub registrations: Vec<Doubt>,
    /// What was due, and was put off since GitHub holds it back.
    pub held: u32,
}

impl Due {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.questions.is_empty() && self.registrations.is_empty()
    }
}

/// What GitHub said about a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Its state at GitHub.
    pub status: AnswerStatus,
    /// Runner that works or worked on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// GitHub's id of that runner.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text_of_id")]
    pub runner_id: Option<u64>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
}

pub(super) fn text_of_id<S: serde::Serializer>(id: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// A job's state at GitHub, as far as the ledger tells states apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStatus {
    /// It wants a runner.
    Queued,
    /// It is held.
    Waiting,
    /// It runs.
    InProgress,
    /// It is over.
    Completed,
    /// GitHub knows no such job, and shows what it would stand among.
    Missing,
}

/// Why a question about a job has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// The credential may not read the job: GitHub refuses (403), or shows nothing of its repository (404).
    Unreadable,
    /// GitHub is away, limits its answers, or answers what cannot be understood.
    Unanswered,
}

/// A runner as the backend's consistent list shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Unique name.
    pub name: String,
    /// It has ended.
    pub ended: bool,
    /// It has ended, and its program never ran.
    pub rejected: bool,
    /// How it ended, in the backend's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its runner program runs.
    pub running: bool,
    /// Its deletion is under way.
    pub terminating: bool,
    /// Its class's id, with `spec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What is needed to adopt it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<ListedSpec>,
}

/// What is needed to adopt a runner.
#[derive(Clone, Debug, Serialize)]
pub struct ListedSpec {
    /// Organization.
    pub org: String,
    /// Where it registers.
    pub scope: String,
    /// Runner group.
    pub group: String,
    /// Profile.
    pub profile: String,
    /// Labels as a JSON array.
    pub labels: String,
    /// Job that asked for it.
    pub job: JobId,
}

/// What a reconcile did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reconciliation {
    /// Slots freed.
    pub released: u32,
    /// Runners adopted.
    pub adopted: u32,
    /// Mirrors that were wrong.
    pub corrected: u32,
    /// The epoch gate was closed and is open now.
    pub opened: bool,
    /// The epoch gate is closed: a list that begins in so many ms opens it.
    pub opens_in: Option<u64>,
    /// Runners to end: left over from ones that are released, or never ours.
    pub stop: Vec<Leftover>,
}

/// A runner that is there and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Leftover {
    /// Unique name.
    pub name: String,
    /// The question to GitHub that comes first, where the runner may be at work.
    #[serde(default)]
    pub removal: Option<Removal>,
}
