//! Drives the ledger and the model through the same steps, and compares what they say and what they hold after each.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use jit_core::{
    class::Class,
    config::LimitsSettings,
    event::{Action, Identity, JobEvent, JobId},
    ledger::{Answer, AnswerStatus, Failure, Ledger, Listed, ListedSpec, Question},
};
use redis::aio::MultiplexedConnection;

use super::{
    IN_FLIGHT, JobNumber, Model, Name, RunnerState, fold,
    keyspace::{self, Dump},
    life,
    steps::{CLASSES, Case, FOREIGN, GithubId, JOBS, ORGS, Seen, Spelt, Step, Who},
};

pub type Checked<T = ()> = Result<T, String>;

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
    pub(super) stores: &'a mut Stores,
    pub(super) homes: Vec<(u8, u8)>,
    pub(super) model: Model,
    pub(super) saved: Option<Model>,
    /// How far the ledger's handle has seen names come: epoch and sequence.
    pub(super) seen: (u64, u64),
    pub(super) held: Dump,
    /// Every runner that there ever was, whatever the ledger has lost since.
    pub(super) ever: BTreeMap<Name, ListedSpec>,
    /// Questions that were handed out, with the last word that the model had of the job.
    pub(super) asked: Vec<(Question, u64)>,
    pub(super) doubts: Vec<jit_core::ledger::Doubt>,
    pub(super) next_id: u64,
    /// The last claim of each runner.
    pub(super) claims: BTreeMap<Name, u64>,
    pub(super) transitions: u32,
    /// What was done, for people.
    pub log: Vec<String>,
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) fn agree<T: PartialEq + Debug>(what: &str, ledger: &T, model: &T) -> Checked {
    if ledger == model {
        Ok(())
    } else {
        Err(format!("{what}: the ledger says {ledger:?}, the model {model:?}"))
    }
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
    Class {
        org: org.into(),
        scope,
        group: group.into(),
        profile: profile.into(),
        labels: Class::normalize_labels(labels),
    }
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
        redis::cmd("FLUSHDB")
            .exec_async(&mut stores.redis)
            .await
            .map_err(text)?;
        stores.clock.store(1_800_000_000_000, Ordering::Relaxed);
        // A process of its own, which remembers nothing of the case before.
        stores.ledger = Ledger::new(stores.ledger.pool().clone())
            .with_clock(stores.clock.clone())
            .at(BTreeMap::new(), IN_FLIGHT);
        let model = Model::new(stores.clock.load(Ordering::Relaxed), settings);
        let mut world = Self {
            stores,
            homes: case.homes.clone(),
            model,
            saved: None,
            seen: (0, 0),
            held: Dump::new(),
            ever: BTreeMap::new(),
            asked: Vec::new(),
            doubts: Vec::new(),
            next_id: 100,
            claims: BTreeMap::new(),
            transitions: 0,
            log: Vec::new(),
        };
        world.configure(world.model.settings.clone()).await?;
        if case.open {
            world.reconcile(0, Vec::new()).await?;
        }
        Ok(world)
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.stores.ledger.clone()
    }

    pub(super) fn pass(&mut self, ms: i64) {
        if ms > 0 {
            self.log.push(format!("pass {ms} ms"));
        }
        self.model.now = self.stores.clock.fetch_add(ms, Ordering::Relaxed) + ms;
    }

    /// Holds everything that Redis has against the model.
    pub(super) async fn check(&mut self) -> Checked {
        let (dump, rung) = keyspace::dump(&mut self.stores.redis).await.map_err(text)?;
        self.held = dump;
        agree("runners rung for without an admission", &rung, &Vec::new())?;
        let differences = keyspace::differences(&keyspace::observed(&self.held), &self.model.keyspace());
        if !differences.is_empty() {
            return Err(differences.join("\n"));
        }
        for key in self.held.keys().filter(|key| {
            key.starts_with("org:")
                && !["backoff", "parked", "made", "started", "work"].contains(&key.rsplit(':').next().unwrap())
        }) {
            let org = key
                .trim_start_matches("org:")
                .rsplit_once(':')
                .map_or("", |(org, _)| org);
            agree(
                "spelling",
                &Some(org.to_owned()),
                &self.model.known.get(&fold(org)).cloned(),
            )?;
        }
        self.transitions += 1;
        if self.transitions.is_multiple_of(DOCTOR_EVERY) {
            self.doctor().await
        } else {
            Ok(())
        }
    }

    pub(super) async fn doctor(&self) -> Checked {
        agree(
            "doctor",
            &self.stores.ledger.doctor().await.map_err(text)?.findings,
            &Vec::new(),
        )
    }

    /// Nothing may have changed, not even what the model does not know of.
    pub(super) async fn check_unchanged(&mut self) -> Checked {
        let before = keyspace::in_order(&self.held);
        self.check().await?;
        agree("a stale call's effect", &keyspace::in_order(&self.held), &before)
    }

    pub(super) fn pick(&self, who: Who, org: Option<&str>) -> Name {
        let among = |names: Vec<Name>, n: u8| names.get(usize::from(n) % names.len().max(1)).cloned();
        let live = || self.model.live().into_iter();
        let found = match who {
            Who::Live(n) => among(live().collect(), n),
            Who::Reserved(n) => among(
                live()
                    .filter(|name| self.model.runners[name].state == RunnerState::Reserved)
                    .collect(),
                n,
            ),
            Who::Fitting(n) => among(live().filter(|name| org == Some(&self.org_of(name))).collect(), n),
            Who::Gone(n) => among(
                self.model
                    .runners
                    .iter()
                    .filter(|(_, runner)| runner.state == RunnerState::Gone)
                    .map(|(name, _)| name.clone())
                    .collect(),
                n,
            ),
            Who::Stranger(n) => among(
                self.ever
                    .keys()
                    .filter(|name| !self.model.runners.contains_key(*name))
                    .cloned()
                    .collect(),
                n,
            ),
        };
        let (Who::Live(n) | Who::Reserved(n) | Who::Fitting(n) | Who::Gone(n) | Who::Stranger(n)) = who;
        found.unwrap_or_else(|| format!("stranger-{}", n % 3))
    }

    pub(super) fn org_of(&self, name: &str) -> String {
        fold(&self.model.classes[&self.model.runners[name].class].org)
    }

    pub(super) fn id_of(&self, name: &str, id: GithubId) -> Option<u64> {
        match id {
            GithubId::None => None,
            GithubId::Wrong => Some(9),
            GithubId::Right => self
                .model
                .runners
                .get(name)
                .and_then(|runner| runner.github_id)
                .or(Some(7)),
        }
    }

    pub(super) fn fence_of(&self, name: &str, stale: bool) -> String {
        let fence = self.model.runners.get(name).and_then(|runner| runner.fence.clone());
        fence.filter(|_| !stale).unwrap_or_else(|| "0".to_owned())
    }

    pub async fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Event {
                job,
                action,
                runner,
                id,
                case,
                elsewhere,
                foreign,
                attempt,
                accepted_ago,
                succeeds,
            } => {
                let mut event = self.happening(*job, *action, (*runner, *id), (*elsewhere, *case), *foreign, *attempt);
                event.conclusion = event
                    .conclusion
                    .map(|success| if *succeeds { success } else { "failure".to_owned() });
                self.event(&event, self.model.now - accepted_ago).await
            }
            Step::Serve { job } => {
                let event = self.happening(
                    *job,
                    Action::Queued,
                    (None, GithubId::None),
                    (false, 0),
                    *job == FOREIGN,
                    Some(1),
                );
                self.event(&event, self.model.now).await?;
                self.admit().await?;
                self.bring_up(&self.pick(Who::Reserved(0), None)).await
            }
            Step::Admit { after } => {
                self.pass(*after);
                self.admit().await.map(|_| ())
            }
            Step::BringUp(who) => self.bring_up(&self.pick(*who, None)).await,
            Step::Claim { who, stale, again } => {
                let name = self.pick(*who, None);
                let claim = self.claim_of(&name, *again);
                self.provision(claim, &name, &self.fence_of(&name, *stale)).await
            }
            Step::Registered { who, stale } => {
                let name = self.pick(*who, None);
                self.provision(
                    life::Step::Registered(self.next_id),
                    &name,
                    &self.fence_of(&name, *stale),
                )
                .await
            }
            Step::Created { who, stale } => {
                let name = self.pick(*who, None);
                self.provision(life::Step::Created, &name, &self.fence_of(&name, *stale))
                    .await
            }
            Step::Fail {
                who,
                stale,
                made,
                registration,
                back_off,
            } => {
                let name = self.pick(*who, None);
                let failure = Failure {
                    made: *made,
                    registration: *registration,
                    back_off: *back_off,
                    why: "it failed".into(),
                };
                self.fail(&name, &self.fence_of(&name, *stale), &failure).await
            }
            Step::Observe { what, who, gone } => self.observe(*what, &self.pick(*who, None), *gone).await,
            Step::Due { after } => {
                self.pass(*after);
                self.due().await.map(|_| ())
            }
            Step::Upkeep {
                after,
                times,
                status,
                what,
            } => {
                for _ in 0..*times {
                    self.pass(*after);
                    self.upkeep(*status, *what).await?;
                }
                Ok(())
            }
            Step::Answer {
                question,
                status,
                runner,
                id,
                succeeds,
            } => {
                let Some((question, word)) = self
                    .asked
                    .iter()
                    .rev()
                    .nth(usize::from(*question) % self.asked.len().max(1))
                    .cloned()
                else {
                    return Ok(());
                };
                let org = self.model.jobs.get(&question.job.get()).map(|job| job.org.clone());
                let runner = runner
                    .filter(|_| matches!(status, AnswerStatus::InProgress | AnswerStatus::Completed))
                    .map(|who| self.pick(who, org.as_deref()));
                let runner_id = runner.as_ref().and_then(|name| self.id_of(name, *id));
                self.answer(
                    &question,
                    word,
                    &Answer {
                        status: *status,
                        runner,
                        runner_id,
                        conclusion: succeeds.then(|| "success".to_owned()),
                    },
                )
                .await
            }
            Step::NoAnswer { question, silence } => {
                let Some((question, word)) = self
                    .asked
                    .iter()
                    .rev()
                    .nth(usize::from(*question) % self.asked.len().max(1))
                    .cloned()
                else {
                    return Ok(());
                };
                self.no_answer(&question, word, *silence).await
            }
            Step::Silence { after, times, silence } => {
                for _ in 0..*times {
                    self.pass(*after);
                    let due = self.due().await?;
                    let asked: Vec<_> = self.asked.iter().rev().take(due.questions.len()).cloned().collect();
                    for (question, word) in asked {
                        self.no_answer(&question, word, *silence).await?;
                    }
                }
                Ok(())
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
            Step::Retry { job } => {
                let job = JOBS[usize::from(*job)];
                self.log.push(format!("retry job {job}"));
                let told = self.ledger().retry(JobId::new(job).unwrap()).await.map_err(text)?;
                let mut expected: Vec<String> = self.model.retry(job).iter().map(super::keyspace::subject).collect();
                let mut retried = told.retried;
                expected.sort();
                retried.sort();
                agree("what is retried", &retried, &expected)?;
                self.check().await
            }
            Step::Configure { max_total, max_per_org } => {
                self.configure(LimitsSettings {
                    max_total: *max_total,
                    max_per_org: *max_per_org,
                    ..self.model.settings.clone()
                })
                .await
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
                redis::cmd("HDEL")
                    .arg("ledger:meta")
                    .arg("epoch")
                    .exec_async(&mut self.stores.redis)
                    .await
                    .map_err(text)?;
                (self.model.open, self.model.epoch_lost) = (false, true);
                self.check().await
            }
            Step::Save => self.save().await,
            Step::RollBack { in_place } => self.roll_back(*in_place).await,
        }
    }

    pub(super) fn happening(
        &self,
        job: u8,
        action: Action,
        runner: (Option<Who>, GithubId),
        place: (bool, u8),
        foreign: bool,
        attempt: Option<u32>,
    ) -> JobEvent {
        let (home, number) = self.homes[usize::from(job)];
        let number = if attempt == Some(2) {
            (number + 1) % CLASSES
        } else {
            number
        }; // its labels were changed meanwhile
        let org = spell(if place.0 { home + 1 } else { home }, place.1);
        let name = runner.0.map(|who| self.pick(who, Some(&fold(&org))));
        JobEvent {
            action,
            job: JobId::new(JOBS[usize::from(job)]).unwrap(),
            attempt,
            repo: if org.contains('/') {
                org.clone()
            } else {
                format!("{org}/app")
            },
            class: (!foreign).then(|| class(&org, number)),
            org,
            runner_id: name.as_ref().and_then(|name| self.id_of(name, runner.1)),
            runner: name,
            conclusion: (action == Action::Completed).then(|| "success".to_owned()),
            identity: Identity::default(),
        }
    }

    pub(super) fn spec_of(&self, name: &str) -> ListedSpec {
        let runner = &self.model.runners[name];
        spec(&self.model.classes[&runner.class], runner.asked_by)
    }

    /// What the backend lists: each name once, and a description where it has one.
    pub(super) fn listing(&mut self, seen: &[Seen], complete: bool) -> Vec<Listed> {
        let mut listed: BTreeMap<Name, Listed> = BTreeMap::new();
        for seen in seen {
            let name = self.pick(seen.who, None);
            let number = name.len() as u8 + name.bytes().last().unwrap_or(0);
            let described = seen.spec.then(|| self.ever.get(&name).cloned()).flatten();
            let spec = described.or_else(|| {
                seen.spec.then(|| {
                    spec(
                        &class(&spell(number, number % 3), number % 4),
                        JOBS[usize::from(number) % 9],
                    )
                })
            });
            let entry = Listed {
                class: None,
                spec,
                ..plain(&name)
            };
            listed.insert(
                name,
                Listed {
                    ended: seen.ended,
                    rejected: seen.rejected,
                    running: seen.running,
                    terminating: seen.terminating,
                    ..entry
                },
            );
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
}

pub(super) fn spec(class: &Class, job: JobNumber) -> ListedSpec {
    ListedSpec {
        org: class.org.clone(),
        scope: class.scope.clone(),
        group: class.group.clone(),
        profile: class.profile.clone(),
        labels: serde_json::json!(class.labels).to_string(),
        job: JobId::new(job).unwrap(),
    }
}

pub(super) fn described(spec: &ListedSpec) -> Class {
    let labels: Vec<String> = serde_json::from_str(&spec.labels).unwrap();
    Class {
        org: spec.org.clone(),
        scope: spec.scope.clone(),
        group: spec.group.clone(),
        profile: spec.profile.clone(),
        labels,
    }
}

pub(super) fn plain(name: &str) -> Listed {
    Listed {
        name: name.to_owned(),
        ended: false,
        rejected: false,
        detail: None,
        running: false,
        terminating: false,
        class: None,
        spec: None,
    }
}
