//! The ledger as the design tells it, on plain collections: what the property test holds the Lua against.
//!
//! State is kept once, in a job and in a runner; whatever can be derived (queues, idle sets, unmet demand, who is
//! ready) is derived in [`definitions`] each time it is asked for. Logins are compared without regard to case, so they
//! are kept in lower case here.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jit_core::{
    class::Class,
    config::LimitsSettings,
    ledger::Needs,
    model::{JobState, RunnerState},
};

pub mod backoff;
pub mod both;
pub mod definitions;
pub mod drive;
pub mod jobs;
pub mod keyspace;
pub mod life;
pub mod operate;
pub mod questions;
pub mod rest;
pub mod steps;

/// Time after its claim within which a runner may yet come to be.
pub const IN_FLIGHT: Duration = Duration::from_secs(2);

/// A login in lower case.
pub type Org = String;
pub type JobNumber = u64;
pub type Name = String;
pub type ClassId = String;

#[derive(Clone, Debug)]
pub struct Job {
    pub state: JobState,
    pub org: Org,
    /// None where the job is other runners' business, and one of ours took it.
    pub class: Option<ClassId>,
    pub attempt: Option<u32>,
    /// When it first became demand.
    pub queued_at: Option<i64>,
    pub runner: Option<Name>,
    /// It ended in success, so that GitHub has removed its runner.
    pub succeeded: bool,
    /// It was given up without GitHub's word.
    pub given_up: bool,
    /// When GitHub is asked about it.
    pub ask_at: Option<i64>,
    /// How often in a row GitHub did not know it, might not tell, did not answer, said that it waits.
    pub missing: u32,
    pub unreadable: u32,
    pub unanswered: u32,
    pub waits: u32,
    /// When GitHub last said something of it.
    pub told_at: i64,
    /// How often it was held back, and until when it is.
    pub misfits: u32,
    /// The runner that ended early, and may have run it.
    pub suspect: Option<Name>,
    pub held_until: Option<i64>,
    /// The last thing that was learned of it. A question asked before that is stale.
    pub word: u64,
}

#[derive(Clone, Debug)]
pub struct Runner {
    pub state: RunnerState,
    pub class: ClassId,
    /// The job that asked for it.
    pub asked_by: JobNumber,
    /// The job that it runs or ran.
    pub runs: Option<JobNumber>,
    /// What its maker has to show; nobody may make it any more where there is none.
    pub fence: Option<String>,
    pub claimed_at: Option<i64>,
    /// What it is the probe of.
    pub probes: Vec<Held>,
    /// The number of the claim, as long as it may come again.
    pub claim: Option<u64>,
    pub github_id: Option<u64>,
    pub uncertain: bool,
    pub deregistered: bool,
    /// Its pod ends whatever GitHub says.
    pub forced: bool,
    /// GitHub has said that its job runs on it no more, or is over.
    pub job_left: bool,
    /// How often its removal was put off.
    pub removal_tries: u32,
    /// GitHub deleted it before it had any job.
    pub unused: bool,
    pub credential: Option<String>,
    /// Its pod was seen to find no image.
    pub without_image: bool,
    pub create_timeout: i64,
    pub reserved_at: i64,
    pub created_at: Option<i64>,
    pub started_at: Option<i64>,
    pub busy_at: Option<i64>,
    pub gone_at: Option<i64>,
    /// A create may be in flight until then.
    pub hold_until: Option<i64>,
    /// When it must have moved on.
    pub deadline: Option<i64>,
    /// When its registration is looked up at GitHub, and how often that was done.
    pub look_up_at: Option<i64>,
    pub looked_up: u32,
}

/// What backs off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Never held itself: a member of its class.
    Runner(Name),
    Class(ClassId),
    Scope(String),
    Org(Org),
    Profile(String),
    Credential(String),
    Global,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub now: i64,
    pub settings: LimitsSettings,
    /// A reconcile has run since the data came up.
    pub open: bool,
    /// Since when it is known that none has; some data may have been lost before.
    pub lost_at: Option<i64>,
    /// There is no epoch: all data was lost, or there never was any.
    pub epoch_lost: bool,
    /// Each login as GitHub wrote it first.
    pub known: BTreeMap<Org, String>,
    pub limits: BTreeMap<Org, u64>,
    /// Until when, where it ends by itself.
    pub paused: BTreeMap<Org, Option<i64>>,
    /// The credential that each was last served with.
    pub credentials: BTreeMap<Org, String>,
    pub backoffs: BTreeMap<Held, i64>,
    pub rows: BTreeMap<Held, backoff::Row>,
    /// Members that failed since something of the whole succeeded, and when.
    pub failing: BTreeMap<(Held, Needs), BTreeMap<Held, i64>>,
    /// Number of the admission at which each was last served.
    pub served: BTreeMap<Org, u64>,
    pub admissions: u64,
    pub jobs: BTreeMap<JobNumber, Job>,
    pub runners: BTreeMap<Name, Runner>,
    /// Descriptions of all classes ever heard of.
    pub classes: BTreeMap<ClassId, Class>,
    pub surplus_since: BTreeMap<ClassId, i64>,
    /// Classes that get one runner at a time.
    pub misfits: BTreeSet<ClassId>,
    /// When a runner last got work, and when one that had stayed idle was last replaced.
    pub last_start: Option<i64>,
    pub replaced_at: Option<i64>,
    /// What the quota let in when it last refused, and when that was.
    pub ceiling: Option<(u64, i64)>,
    /// How far names have come: epoch, reservations and adoptions.
    pub epoch: u64,
    pub sequence: u64,
    pub words: u64,
}

pub fn fold(org: &str) -> Org {
    org.to_lowercase()
}

impl Model {
    pub fn new(now: i64, settings: LimitsSettings) -> Self {
        Self {
            now,
            settings,
            open: false,
            lost_at: None,
            epoch_lost: true,
            known: BTreeMap::new(),
            limits: BTreeMap::new(),
            paused: BTreeMap::new(),
            credentials: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            rows: BTreeMap::new(),
            failing: BTreeMap::new(),
            served: BTreeMap::new(),
            admissions: 0,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            classes: BTreeMap::new(),
            surplus_since: BTreeMap::new(),
            misfits: BTreeSet::new(),
            last_start: None,
            replaced_at: None,
            ceiling: None,
            epoch: 0,
            sequence: 0,
            words: 0,
        }
    }

    pub fn after(&self, time: &str) -> i64 {
        self.now + self.time(time)
    }

    pub fn time(&self, time: &str) -> i64 {
        i64::try_from(self.settings.times[time].as_millis()).unwrap()
    }

    pub fn job(&mut self, job: JobNumber) -> &mut Job {
        self.jobs.get_mut(&job).unwrap()
    }

    pub fn runner(&mut self, name: &str) -> &mut Runner {
        self.runners.get_mut(name).unwrap()
    }

    /// The runner that GitHub names, if it is ours, live, of this organization, and of this id where one is known.
    pub fn believed(&self, name: Option<&String>, org: &str, github_id: Option<u64>) -> Option<Name> {
        let name = name.filter(|name| self.is_named(name, org, github_id))?;
        (self.runners[name].state != RunnerState::Gone).then(|| name.clone())
    }

    fn is_named(&self, name: &str, org: &str, github_id: Option<u64>) -> bool {
        let Some(runner) = self.runners.get(name) else {
            return false;
        };
        let class = &self.classes[&runner.class];
        let same_id = runner.github_id.is_none() || github_id.is_none() || runner.github_id == github_id;
        same_id && (fold(&class.org) == org || class.scope.starts_with("enterprises/"))
    }

    fn hear(&mut self, job: JobNumber) {
        self.words += 1;
        self.job(job).word = self.words;
    }

    /// GitHub's own word.
    fn tell(&mut self, job: JobNumber) {
        self.hear(job);
        self.job(job).told_at = self.now;
    }

    /// GitHub told the id of a runner that it is believed about.
    fn identify(&mut self, name: Option<&Name>, github_id: Option<u64>) {
        if let Some(name) = name {
            let runner = self.runner(name);
            runner.github_id = runner.github_id.or(github_id);
        }
    }

    /// Asks about a job at `at`, or earlier where that is planned; not while it is held back.
    fn ask(&mut self, job: JobNumber, at: i64) {
        let at = self.jobs[&job].held_until.map_or(at, |until| at.max(until));
        let ask_at = &mut self.job(job).ask_at;
        *ask_at = Some(ask_at.map_or(at, |planned| planned.min(at)));
    }

    pub fn learn_class(&mut self, class: &Class) -> ClassId {
        let id = class.id();
        self.classes.entry(id.clone()).or_insert_with(|| class.clone());
        id
    }

    /// Names of the runners that count.
    pub fn live(&self) -> BTreeSet<Name> {
        self.runners
            .iter()
            .filter(|(_, runner)| runner.state != RunnerState::Gone)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// Which runners' pods find no image, when anything is noted of them.
pub fn without_image(name: &str) -> bool {
    name.bytes().map(usize::from).sum::<usize>() % 2 == 0
}
