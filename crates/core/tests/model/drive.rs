//! Drives the ledger and the model through the same steps, and compares what they say and what they hold after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jit_core::{
    class::Class,
    config::LimitsSettings,
    event::{Action, JobEvent, JobId},
    ledger::{ADMIT_BATCH, Answer, AnswerStatus, Claim, Deregistration, Failure, Ledger, Listed, ListedSpec, Observation, Question},
};
use redis::aio::MultiplexedConnection;

use super::{
    JobNumber, JobState, Model, Name, Stage, fold,
    keyspace::{self, Dump},
    life,
    steps::{CLASSES, Case, FOREIGN, GithubId, JOBS, ORGS, Seen, Spelt, Step, Who},
};

pub type Checked<T = ()> = Result<T, String>;

/// Time-out of each step of making a runner.
const TIMEOUT: Duration = Duration::from_secs(20);
/// So long work that is due is leased.
const LEASE: Duration = Duration::from_secs(90);
/// The real doctor is asked every so many transitions; the comparison of keyspaces implies its findings.
const DOCTOR_EVERY: u32 = 8;

/// The stores that one thread of the test uses for all of its cases.
pub struct Stores {
    pub ledger: Ledger,
    pub clock: Arc<AtomicI64>,
    pub redis: MultiplexedConnection,
    /// Where `Save` copies the data to: a connection, and the numbers of both databases.
    pub backup: MultiplexedConnection,
    pub databases: (u32, u32),
}

pub struct World<'a> {
    stores: &'a mut Stores,
    homes: Vec<(u8, u8)>,
    model: Model,
    saved: Option<Model>,
    held: Dump,
    rung: Vec<(Name, String)>,
    /// Every runner that there ever was, whatever the ledger has lost since.
    ever: BTreeMap<Name, ListedSpec>,
    reserved: BTreeSet<Name>,
    /// Questions that were handed out, with the last word that the model had of the job.
    asked: Vec<(Question, u64)>,
    doubts: Vec<jit_core::ledger::Doubt>,
    next_id: u64,
    transitions: u32,
    /// What was done, for people.
    pub log: Vec<String>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn agree<T: PartialEq + Debug>(what: &str, ledger: &T, model: &T) -> Checked {
    if ledger == model { Ok(()) } else { Err(format!("{what}: the ledger says {ledger:?}, the model {model:?}")) }
}

pub fn class(org: &str, number: u8) -> Class {
    let (profile, group, labels): (_, _, &[&str]) = match number {
        0 => ("default", "default", &["linux"]),
        1 => ("default", "default", &["gpu", "linux"]),
        2 => ("large", "special", &["large"]),
        _ => ("large", "default", &["enterprise"]),
    };
    let scope = match (number, org.contains('/')) {
        (3, _) => "enterprises/big".to_owned(),
        (_, true) => format!("repos/{org}"),
        (_, false) => format!("orgs/{org}"),
    };
    Class { org: org.into(), scope, group: group.into(), profile: profile.into(), labels: Class::normalize_labels(labels) }
}

fn spell(org: u8, case: u8) -> String {
    let org = ORGS[usize::from(org) % ORGS.len()];
    match case {
        0 => org.to_owned(),
        1 => org.to_uppercase(),
        _ => org.to_lowercase(),
    }
}

impl<'a> World<'a> {
    pub async fn new(stores: &'a mut Stores, case: &Case, mut settings: LimitsSettings) -> Checked<Self> {
        (settings.max_total, settings.max_per_org) = (case.max_total, case.max_per_org);
        redis::cmd("FLUSHDB").exec_async(&mut stores.redis).await.map_err(text)?;
        stores.clock.store(1_800_000_000_000, Ordering::Relaxed);
        let model = Model::new(stores.clock.load(Ordering::Relaxed), settings);
        let mut world = Self {
            stores,
            homes: case.homes.clone(),
            model,
            saved: None,
            held: Dump::new(),
            rung: Vec::new(),
            ever: BTreeMap::new(),
            reserved: BTreeSet::new(),
            asked: Vec::new(),
            doubts: Vec::new(),
            next_id: 100,
            transitions: 0,
            log: Vec::new(),
        };
        world.configure(world.model.settings.clone()).await?;
        if case.open {
            world.reconcile(0, Vec::new()).await?;
        }
        Ok(world)
    }

    fn ledger(&self) -> Ledger {
        self.stores.ledger.clone()
    }

    fn pass(&mut self, ms: i64) {
        self.log.push(format!("pass {ms} ms"));
        self.model.now = self.stores.clock.fetch_add(ms, Ordering::Relaxed) + ms;
    }

    /// Holds everything that Redis has against the model.
    async fn check(&mut self) -> Checked {
        let (dump, rung) = keyspace::dump(&mut self.stores.redis).await.map_err(text)?;
        self.held = dump;
        self.rung.extend(rung);
        let differences = keyspace::differences(&keyspace::observed(&self.held), &self.model.keyspace());
        if !differences.is_empty() {
            return Err(differences.join("\n"));
        }
        for key in self.held.keys().filter(|key| key.starts_with("org:") && !key.ends_with(":backoff")) {
            let org = key.trim_start_matches("org:").rsplit_once(':').map_or("", |(org, _)| org);
            agree("spelling", &Some(org.to_owned()), &self.model.known.get(&fold(org)).cloned())?;
        }
        self.transitions += 1;
        if self.transitions.is_multiple_of(DOCTOR_EVERY) { self.doctor().await } else { Ok(()) }
    }

    async fn doctor(&self) -> Checked {
        agree("doctor", &self.stores.ledger.doctor().await.map_err(text)?.findings, &Vec::new())
    }

    /// Nothing may have changed, not even what the model does not know of.
    async fn check_unchanged(&mut self) -> Checked {
        let before = std::mem::take(&mut self.held);
        self.check().await?;
        agree("a stale call's effect", &self.held, &before)
    }

    fn pick(&self, who: Who, org: Option<&str>) -> Name {
        let among = |names: Vec<Name>, n: u8| names.get(usize::from(n) % names.len().max(1)).cloned();
        let live = || self.model.live().into_iter();
        let found = match who {
            Who::Live(n) => among(live().collect(), n),
            Who::Reserved(n) => among(live().filter(|name| self.model.runners[name].stage == Stage::Reserved).collect(), n),
            Who::Fitting(n) => among(live().filter(|name| org == Some(&self.org_of(name))).collect(), n),
            Who::Gone(n) => among(self.model.runners.iter().filter(|(_, runner)| runner.stage == Stage::Gone).map(|(name, _)| name.clone()).collect(), n),
            Who::Stranger(n) => among(self.ever.keys().filter(|name| !self.model.runners.contains_key(*name)).cloned().collect(), n),
        };
        let (Who::Live(n) | Who::Reserved(n) | Who::Fitting(n) | Who::Gone(n) | Who::Stranger(n)) = who;
        found.unwrap_or_else(|| format!("stranger-{}", n % 3))
    }

    fn org_of(&self, name: &str) -> String {
        fold(&self.model.classes[&self.model.runners[name].class].org)
    }

    fn id_of(&self, name: &str, id: GithubId) -> Option<u64> {
        match id {
            GithubId::None => None,
            GithubId::Wrong => Some(9),
            GithubId::Right => self.model.runners.get(name).and_then(|runner| runner.github_id).or(Some(7)),
        }
    }

    fn fence_of(&self, name: &str, stale: bool) -> String {
        let fence = self.model.runners.get(name).and_then(|runner| runner.fence.clone());
        fence.filter(|_| !stale).unwrap_or_else(|| "0".to_owned())
    }

    pub async fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Event { job, action, runner, id, case, elsewhere, foreign, attempt, accepted_ago } => {
                let event = self.happening(*job, *action, (*runner, *id), (*elsewhere, *case), *foreign, *attempt);
                self.event(&event, self.model.now - accepted_ago).await
            }
            Step::Serve { job } => {
                let event = self.happening(*job, Action::Queued, (None, GithubId::None), (false, 0), *job == FOREIGN, Some(1));
                self.event(&event, self.model.now).await?;
                self.admit().await?;
                self.bring_up(&self.pick(Who::Reserved(0), None)).await
            }
            Step::Admit => self.admit().await.map(|_| ()),
            Step::BringUp(who) => self.bring_up(&self.pick(*who, None)).await,
            Step::Claim { who, stale } => {
                let name = self.pick(*who, None);
                self.provision(life::Step::Claim, &name, &self.fence_of(&name, *stale)).await
            }
            Step::Registered { who, stale } => {
                let name = self.pick(*who, None);
                self.provision(life::Step::Registered(self.next_id), &name, &self.fence_of(&name, *stale)).await
            }
            Step::Created { who, stale } => {
                let name = self.pick(*who, None);
                self.provision(life::Step::Created, &name, &self.fence_of(&name, *stale)).await
            }
            Step::Fail { who, stale, made, registration, subject } => {
                let name = self.pick(*who, None);
                let secs = Duration::from_secs;
                let back_off = subject.map(|(subject, delay)| (subject, secs(delay), secs(300)));
                let failure = Failure { made: *made, registration: *registration, back_off, why: "it failed".into() };
                self.fail(&name, &self.fence_of(&name, *stale), &failure).await
            }
            Step::Observe { what, who, gone } => self.observe(*what, &self.pick(*who, None), *gone).await,
            Step::Due { after } => {
                self.pass(*after);
                self.due().await.map(|_| ())
            }
            Step::Answer { question, status, runner, id } => {
                let Some((question, word)) = self.asked.iter().rev().nth(usize::from(*question) % self.asked.len().max(1)).cloned() else { return Ok(()) };
                let org = self.model.jobs.get(&question.job.get()).map(|job| job.org.clone());
                let runner = runner.filter(|_| matches!(status, AnswerStatus::InProgress | AnswerStatus::Completed)).map(|who| self.pick(who, org.as_deref()));
                let runner_id = runner.as_ref().and_then(|name| self.id_of(name, *id));
                self.answer(&question, word, &Answer { status: *status, runner, runner_id, conclusion: None }).await
            }
            Step::Settle { doubt } => self.settle_doubt(*doubt).await,
            Step::Limits { limits, replace } => {
                let mut named = BTreeMap::new();
                for (Spelt { org, case }, limit) in limits {
                    named.entry(org % 4).or_insert((spell(*org, *case), *limit));
                }
                self.set_limits(named.into_values().collect(), *replace).await
            }
            Step::Pause { org, minutes } => {
                let until = minutes.map(|minutes| self.model.now + minutes * 60_000);
                let org = spell(org.org, org.case);
                self.log.push(format!("pause {org} until {until:?}"));
                self.ledger().pause(&org, "maintenance", until).await.map_err(text)?;
                self.model.pause(&org, until);
                self.check().await
            }
            Step::Resume { org } => {
                let org = spell(org.org, org.case);
                self.log.push(format!("resume {org}"));
                self.ledger().resume(&org).await.map_err(text)?;
                self.model.resume(&org);
                self.check().await
            }
            Step::Configure { max_total, max_per_org } => {
                self.configure(LimitsSettings { max_total: *max_total, max_per_org: *max_per_org, ..self.model.settings.clone() }).await
            }
            Step::Reconcile { ago, seen, complete } => {
                let listed = self.listing(seen, *complete);
                self.reconcile(*ago, listed).await
            }
            Step::Pass { ms } => {
                self.pass(*ms);
                Ok(())
            }
            Step::Flush => self.flush().await,
            Step::LoseEpoch => {
                self.log.push("the epoch is lost".into());
                redis::cmd("HDEL").arg("ledger:meta").arg("epoch").exec_async(&mut self.stores.redis).await.map_err(text)?;
                self.model.open = false;
                self.check().await
            }
            Step::Save => {
                self.log.push("save".into());
                self.saved = Some(self.model.clone());
                copy(&mut self.stores.redis, self.stores.databases.1).await
            }
            Step::RollBack => self.roll_back().await,
        }
    }

    fn happening(&self, job: u8, action: Action, runner: (Option<Who>, GithubId), place: (bool, u8), foreign: bool, attempt: Option<u32>) -> JobEvent {
        let (home, number) = self.homes[usize::from(job)];
        let number = if attempt == Some(2) { (number + 1) % CLASSES } else { number }; // its labels were changed meanwhile
        let org = spell(if place.0 { home + 1 } else { home }, place.1);
        let name = runner.0.map(|who| self.pick(who, Some(&fold(&org))));
        JobEvent {
            action,
            job: JobId::new(JOBS[usize::from(job)]).unwrap(),
            attempt,
            repo: if org.contains('/') { org.clone() } else { format!("{org}/app") },
            class: (!foreign).then(|| class(&org, number)),
            org,
            runner_id: name.as_ref().and_then(|name| self.id_of(name, runner.1)),
            runner: name,
            conclusion: (action == Action::Completed).then(|| "success".to_owned()),
        }
    }

    async fn bring_up(&mut self, name: &str) -> Checked {
        let fence = self.fence_of(name, false);
        self.provision(life::Step::Claim, name, &fence).await?;
        self.provision(life::Step::Registered(self.next_id), name, &fence).await?;
        self.provision(life::Step::Created, name, &fence).await?;
        self.observe(Observation::Started, name, None).await
    }

    async fn event(&mut self, event: &JobEvent, accepted_at: i64) -> Checked {
        self.log.push(format!("{event:?}, accepted at {accepted_at}"));
        let state = self.ledger().apply(event, Some(accepted_at)).await.map_err(text)?;
        agree("the job's state", &state.as_str(), &self.model.event(event, accepted_at))?;
        self.check().await
    }

    async fn admit(&mut self) -> Checked<bool> {
        self.log.push("admit".into());
        let before = self.model.clone();
        let admission = self.ledger().admit().await.map_err(text)?;
        // What was rung for has to be known before the model can follow; the comparison comes after it.
        let (_, rung) = keyspace::dump(&mut self.stores.redis).await.map_err(text)?;
        self.log.push(format!("  {admission:?} {rung:?}"));
        let expected = self.model.admit(ADMIT_BATCH as usize, rung.iter().cloned());
        let jobs: Vec<JobNumber> = rung.iter().map(|(name, _)| name.split('-').nth(2).and_then(|job| job.parse().ok()).unwrap_or(0)).collect();
        agree("reserved for", &jobs, &expected.reserved)?;
        agree("admitted", &(admission.admitted, admission.reaped, admission.gate_closed), &(jobs.len() as u32, expected.reaped, expected.gate_closed))?;
        before.check_admission(&self.model, &expected, admission.more)?;
        for (name, _) in rung {
            let known = self.ever.insert(name.clone(), self.spec_of(&name));
            if known.is_some() || !self.reserved.insert(name.clone()) {
                return Err(format!("{name} is used again"));
            }
        }
        self.check().await?;
        Ok(admission.more || admission.reaped > 0)
    }

    fn spec_of(&self, name: &str) -> ListedSpec {
        let runner = &self.model.runners[name];
        spec(&self.model.classes[&runner.class], runner.asked_by)
    }

    async fn provision(&mut self, step: life::Step, name: &str, fence: &str) -> Checked {
        self.log.push(format!("{step:?} {name} with fence {fence}"));
        let ledger = self.ledger();
        let told = match step {
            life::Step::Claim => match ledger.claim(name, fence, TIMEOUT, "worker").await.map_err(text)? {
                Claim::Ours(reservation) => {
                    agree("the reservation's job", &Some(reservation.job.get()), &self.model.runners.get(name).map(|runner| runner.asked_by))?;
                    Claim::Ours(())
                }
                Claim::Stale => Claim::Stale,
            },
            life::Step::Registered(id) => {
                self.next_id += 1;
                ledger.registered(name, fence, id, TIMEOUT).await.map_err(text)?
            }
            life::Step::Created => ledger.created(name, fence).await.map_err(text)?,
        };
        let ours = self.model.provision(step, name, fence, TIMEOUT);
        self.claimed(told, ours).await
    }

    async fn claimed(&mut self, told: Claim<()>, ours: bool) -> Checked {
        agree("the claim", &told, &if ours { Claim::Ours(()) } else { Claim::Stale })?;
        if ours { self.check().await } else { self.check_unchanged().await }
    }

    async fn fail(&mut self, name: &str, fence: &str, failure: &Failure) -> Checked {
        self.log.push(format!("fail {name} with fence {fence}: {failure:?}"));
        let told = self.ledger().fail(name, fence, failure).await.map_err(text)?;
        let ours = self.model.fail(name, fence, failure);
        self.claimed(told, ours).await
    }

    async fn observe(&mut self, what: Observation, name: &str, gone: Option<Deregistration>) -> Checked {
        self.log.push(format!("observe {what:?} of {name}, registration gone: {gone:?}"));
        let ledger = self.ledger();
        let told = match gone {
            Some(gone) => ledger.observe_deregistered(what, name, "seen", gone).await,
            None => ledger.observe(what, name, "seen").await,
        };
        let told = told.map_err(text)?;
        agree("the runner's state", &(told.state.as_str(), told.changed), &self.model.observe(what, name, gone))?;
        self.check().await
    }

    async fn due(&mut self) -> Checked<jit_core::ledger::Due> {
        self.log.push("due".into());
        let due = self.ledger().due(64, LEASE).await.map_err(text)?;
        self.log.push(format!("  {due:?}"));
        let (removals, questions, doubts) = self.model.due(LEASE.as_millis() as i64);
        let told: BTreeMap<_, _> =
            due.removals.iter().map(|removal| (removal.name.clone(), (removal.github_id, removal.deregistered, removal.uncertain))).collect();
        let of = |name: &Name| {
            let runner = &self.model.runners[name];
            (name.clone(), (runner.github_id, runner.deregistered, runner.uncertain || runner.claimed))
        };
        agree("removals", &told, &removals.iter().map(of).collect())?;
        agree("questions", &due.questions.iter().map(|question| question.job.get()).collect::<BTreeSet<_>>(), &questions.into_iter().collect())?;
        agree("lookups", &due.registrations.iter().map(|doubt| doubt.name.clone()).collect::<BTreeSet<_>>(), &doubts.into_iter().collect())?;
        self.asked.extend(due.questions.iter().map(|question| (question.clone(), self.model.jobs[&question.job.get()].word)));
        self.doubts.extend(due.registrations.iter().cloned());
        self.check().await?;
        Ok(due)
    }

    async fn answer(&mut self, question: &Question, word: u64, answer: &Answer) -> Checked {
        self.log.push(format!("{question:?} asked at word {word}: {answer:?}"));
        let state = self.ledger().answer(question, answer).await.map_err(text)?;
        let fresh = self.model.jobs.get(&question.job.get()).is_some_and(|job| job.word == word);
        agree("the answered job's state", &state.as_str(), &self.model.answer(question.job.get(), fresh, answer))?;
        self.check().await
    }

    async fn settle_doubt(&mut self, doubt: u8) -> Checked {
        let Some(doubt) = self.doubts.get(usize::from(doubt) % self.doubts.len().max(1)).cloned() else { return Ok(()) };
        self.log.push(format!("settled: {doubt:?}"));
        self.ledger().settle_doubt(&doubt).await.map_err(text)?;
        if let Some(runner) = self.model.runners.get_mut(&doubt.name) {
            runner.look_up_at = None;
        }
        self.check().await
    }

    async fn set_limits(&mut self, limits: Vec<(String, Option<u64>)>, replace: bool) -> Checked {
        self.log.push(format!("limits {limits:?}, replace {replace}"));
        let previous = self.ledger().set_limits(&limits, replace).await.map_err(text)?;
        agree("limits before", &previous, &self.model.set_limits(&limits, replace))?;
        self.check().await
    }

    async fn configure(&mut self, settings: LimitsSettings) -> Checked {
        self.log.push(format!("configure {} in all, {} each", settings.max_total, settings.max_per_org));
        self.ledger().configure(&settings).await.map_err(text)?;
        self.model.configure(&settings);
        self.check().await
    }

    /// What the backend lists: each name once, and a description where it has one.
    fn listing(&mut self, seen: &[Seen], complete: bool) -> Vec<Listed> {
        let mut listed: BTreeMap<Name, Listed> = BTreeMap::new();
        for seen in seen {
            let name = self.pick(seen.who, None);
            let number = name.len() as u8 + name.bytes().last().unwrap_or(0);
            let described = seen.spec.then(|| self.ever.get(&name).cloned()).flatten();
            let spec = described.or_else(|| seen.spec.then(|| spec(&class(&spell(number, number % 3), number % 4), JOBS[usize::from(number) % 9])));
            let entry = Listed { class: None, spec, ..plain(&name) };
            listed.insert(name, Listed { ended: seen.ended, running: seen.running, terminating: seen.terminating, ..entry });
        }
        for name in self.model.live().into_iter().filter(|_| complete) {
            listed.entry(name.clone()).or_insert_with(|| plain(&name));
        }
        for entry in listed.values_mut() {
            let Some(spec) = &entry.spec else { continue };
            let class = described(spec);
            entry.class = Some(self.model.learn_class(&class));
            self.ever.entry(entry.name.clone()).or_insert_with(|| spec.clone());
        }
        listed.into_values().collect()
    }

    async fn reconcile(&mut self, ago: i64, listed: Vec<Listed>) -> Checked {
        let began = self.model.now - ago;
        self.log.push(format!("reconcile from {began}: {listed:?}"));
        let told = self.ledger().reconcile(began, &listed).await.map_err(text)?;
        self.log.push(format!("  {told:?}"));
        let expected = self.model.reconcile(began, &listed);
        agree("reconciled", &(told.released, told.adopted, told.opened, &told.stop), &(expected.released, expected.adopted, expected.opened, &expected.stop))?;
        agree("mirrors that were wrong", &told.corrected, &0)?;
        self.check().await
    }

    /// Redis comes up empty; a worker tells it the configuration. The runners are still there.
    async fn flush(&mut self) -> Checked {
        self.log.push("FLUSHDB".into());
        redis::cmd("FLUSHDB").exec_async(&mut self.stores.redis).await.map_err(text)?;
        self.pass(1000); // an epoch is a second
        self.asked.clear();
        let classes = std::mem::take(&mut self.model.classes);
        self.model = Model { classes, ..Model::new(self.model.now, self.model.settings.clone()) };
        self.configure(self.model.settings.clone()).await
    }

    /// Redis comes up with the data of the last copy, as another process.
    async fn roll_back(&mut self) -> Checked {
        let Some(saved) = self.saved.clone() else { return Ok(()) };
        self.log.push("rolled back".into());
        redis::cmd("FLUSHDB").exec_async(&mut self.stores.redis).await.map_err(text)?;
        copy(&mut self.stores.backup, self.stores.databases.0).await?;
        redis::cmd("HSET").arg("ledger:meta").arg("run_id").arg("another").exec_async(&mut self.stores.redis).await.map_err(text)?;
        self.asked.clear();
        let classes = std::mem::take(&mut self.model.classes);
        self.model = Model { now: self.model.now, open: false, classes, ..saved };
        self.check().await
    }

    /// Faults end: GitHub says of every job that it is over, every removal works, every question is answered. All has to come to rest.
    pub async fn finish(&mut self) -> Checked {
        let open: Vec<JobNumber> = self.model.jobs.iter().filter(|(_, job)| job.state != JobState::Completed).map(|(id, _)| *id).collect();
        for id in open {
            let job = &self.model.jobs[&id];
            let org = self.model.known[&job.org].clone();
            let event = JobEvent {
                action: Action::Completed,
                job: JobId::new(id).unwrap(),
                attempt: job.attempt,
                repo: format!("{org}/app"),
                class: None,
                org,
                runner: None,
                runner_id: None,
                conclusion: Some("cancelled".into()),
            };
            self.event(&event, self.model.now).await?;
        }
        for _ in 0..8 {
            self.pass(3_700_000);
            if !self.model.open {
                let listed = self.listing(&[], true);
                self.reconcile(0, listed).await?;
            }
            while self.admit().await? {}
            let due = self.due().await?;
            for removal in &due.removals {
                self.observe(Observation::Absent, &removal.name, Some(Deregistration::Absent)).await?;
            }
            agree("questions when all jobs are over", &due.questions, &Vec::new())?;
        }
        self.pass(86_400_000);
        self.admit().await?;
        self.doctor().await?;
        self.at_rest()
    }

    /// What may be left: what outlives redelivery and late pods, what is known of organizations, and mirrors of zero.
    fn at_rest(&self) -> Checked {
        for (key, (expires, content)) in &self.held {
            let state = content.iter().position(|field| field == "state").map(|at| content[at + 1].as_str());
            let may_stay = match key.as_str() {
                "ledger:meta" | "orgs:known" | "orgs:served" | "orgs:paused" | "org_limits" | "repos:active" => true,
                "global:total_running" => content == &["0"],
                _ if key.starts_with("job:") => *expires && state == Some("completed"),
                _ if key.starts_with("runner:") => *expires && state == Some("gone"),
                _ if key.ends_with(":backoff") => *expires && !key.starts_with("class:"),
                _ if key.starts_with("org:") && key.ends_with(":running") => content == &["0"],
                _ => false,
            };
            if !may_stay {
                return Err(format!("{key} is left over: {content:?}"));
            }
        }
        Ok(())
    }
}

fn spec(class: &Class, job: JobNumber) -> ListedSpec {
    ListedSpec {
        org: class.org.clone(),
        scope: class.scope.clone(),
        group: class.group.clone(),
        profile: class.profile.clone(),
        labels: serde_json::json!(class.labels).to_string(),
        job: JobId::new(job).unwrap(),
    }
}

fn described(spec: &ListedSpec) -> Class {
    let labels: Vec<String> = serde_json::from_str(&spec.labels).unwrap();
    Class { org: spec.org.clone(), scope: spec.scope.clone(), group: spec.group.clone(), profile: spec.profile.clone(), labels }
}

fn plain(name: &str) -> Listed {
    Listed { name: name.to_owned(), ended: false, running: false, terminating: false, class: None, spec: None }
}

async fn copy(from: &mut MultiplexedConnection, to: u32) -> Checked {
    let script = redis::Script::new(
        "redis.call('SELECT', ARGV[1]) redis.call('FLUSHDB') redis.call('SELECT', ARGV[2])
         for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[1]) end",
    );
    let here: String = redis::cmd("CLIENT").arg("INFO").query_async(from).await.map_err(text)?;
    let here = here.split_whitespace().find_map(|field| field.strip_prefix("db=")).unwrap_or("0").to_owned();
    script.arg(to).arg(here).invoke_async::<()>(from).await.map_err(text)
}
