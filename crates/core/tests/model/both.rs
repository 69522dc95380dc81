//! Each transition on both: what the ledger and the model answer is compared, and then everything that they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jit_core::{
    config::LimitsSettings,
    event::JobEvent,
    ledger::{
        ADMIT_BATCH, Answer, AnswerStatus, Claim, Deregistration, Due, Failure, Listed, Maker, Observation, Question,
        Silence,
    },
};
use redis::aio::MultiplexedConnection;

use super::{
    JobNumber, Model, Name,
    drive::{Checked, World, agree, text},
    keyspace, life,
};

/// Time-out of each step of making a runner.
const TIMEOUT: Duration = Duration::from_secs(20);
/// So long work that is due is leased.
const LEASE: Duration = Duration::from_secs(90);

impl World<'_> {
    pub(super) async fn bring_up(&mut self, name: &str) -> Checked {
        let fence = self.fence_of(name, false);
        let claim = self.claim_of(name, false);
        self.provision(claim, name, &fence).await?;
        self.provision(life::Step::Registered(self.next_id), name, &fence)
            .await?;
        self.provision(life::Step::Created, name, &fence).await?;
        self.observe(Observation::Started, name, None).await
    }

    pub(super) async fn event(&mut self, event: &JobEvent, accepted_at: i64) -> Checked {
        self.log.push(format!("{event:?}, accepted at {accepted_at}"));
        let state = self.ledger().apply(event, Some(accepted_at)).await.map_err(text)?;
        agree("the job's state", &state, &self.model.event(event, accepted_at))?;
        self.check().await
    }

    pub(super) async fn admit(&mut self) -> Checked<bool> {
        self.log.push("admit".into());
        // Names that are behind what was seen are of data that was rolled back.
        self.model.open &= (self.model.epoch, self.model.sequence) >= self.seen;
        let before = self.model.clone();
        let admission = self.ledger().admit().await.map_err(text)?;
        // What was rung for has to be known before the model can follow; the comparison comes after it.
        let (_, rung) = keyspace::dump(&mut self.stores.redis).await.map_err(text)?;
        self.log.push(format!("  {admission:?} {rung:?}"));
        let expected = self.model.admit(ADMIT_BATCH as usize, rung.iter().cloned());
        let jobs: Vec<JobNumber> = rung
            .iter()
            .map(|(name, _)| name.split('-').nth(2).and_then(|job| job.parse().ok()).unwrap_or(0))
            .collect();
        agree("reserved for", &jobs, &expected.reserved)?;
        agree(
            "admitted",
            &(admission.admitted, admission.reaped, admission.gate_closed),
            &(jobs.len() as u32, expected.reaped, expected.gate_closed),
        )?;
        if !expected.gate_closed {
            self.seen = self.seen.max((self.model.epoch, self.model.sequence));
        }
        before.check_admission(&self.model, &expected, admission.more)?;
        for (name, _) in rung {
            if self.ever.insert(name.clone(), self.spec_of(&name)).is_some() {
                return Err(format!("{name} is used again"));
            }
        }
        self.check().await?;
        Ok(admission.more || admission.reaped > 0)
    }

    pub(super) async fn provision(&mut self, step: life::Step, name: &str, fence: &str) -> Checked {
        self.log.push(format!("{step:?} {name} with fence {fence}"));
        let ledger = self.ledger();
        let told = match step {
            life::Step::Claim {
                credential,
                alone,
                claim,
            } => {
                let maker = Maker {
                    worker: "worker",
                    claim,
                    credential,
                    alone,
                    timeout: TIMEOUT,
                    create_timeout: TIMEOUT / 2,
                };
                match ledger.claim(name, fence, &maker).await.map_err(text)? {
                    Claim::Ours(reservation) => {
                        agree(
                            "the reservation's job",
                            &Some(reservation.job.get()),
                            &self.model.runners.get(name).map(|runner| runner.asked_by),
                        )?;
                        Claim::Ours(())
                    }
                    Claim::Stale => Claim::Stale,
                }
            }
            life::Step::Registered(id) => {
                self.next_id += 1;
                ledger.registered(name, fence, id, TIMEOUT).await.map_err(text)?
            }
            life::Step::Created => match ledger.created(name, fence).await.map_err(text)? {
                Claim::Ours(_) => Claim::Ours(()),
                Claim::Stale => Claim::Stale,
            },
        };
        let expected = self.model.provision(step, name, fence, TIMEOUT);
        self.claimed(told, expected).await
    }

    /// A claim of the runner, or the last one of it again.
    pub(super) fn claim_of(&mut self, name: &str, again: bool) -> life::Step {
        let claim = self.claims.entry(name.to_owned()).or_default();
        *claim += u64::from(!again);
        life::Step::Claim {
            credential: credential(name),
            alone: is_alone(name),
            claim: *claim,
        }
    }

    pub(super) async fn claimed(&mut self, told: Claim<()>, expected: life::Told) -> Checked {
        agree(
            "the claim",
            &told,
            &if expected == life::Told::Ours {
                Claim::Ours(())
            } else {
                Claim::Stale
            },
        )?;
        if expected == life::Told::Stale {
            self.check_unchanged().await
        } else {
            self.check().await
        }
    }

    pub(super) async fn fail(&mut self, name: &str, fence: &str, failure: &Failure) -> Checked {
        self.log.push(format!("fail {name} with fence {fence}: {failure:?}"));
        let told = self.ledger().fail(name, fence, failure).await.map_err(text)?;
        let ours = self.model.fail(name, fence, failure);
        self.claimed(told, if ours { life::Told::Ours } else { life::Told::Stale })
            .await
    }

    pub(super) async fn observe(&mut self, what: Observation, name: &str, gone: Option<Deregistration>) -> Checked {
        self.log
            .push(format!("observe {what:?} of {name}, registration gone: {gone:?}"));
        let ledger = self.ledger();
        let seen = if super::without_image(name) {
            "ErrImagePull: no such image"
        } else {
            "Unschedulable: no node fits"
        };
        let told = match gone {
            Some(gone) => ledger.observe_deregistered(what, name, seen, gone).await,
            None => ledger.observe(what, name, seen).await,
        };
        let told = told.map_err(text)?;
        agree(
            "the runner's state",
            &(told.state, told.changed),
            &self.model.observe(what, name, gone),
        )?;
        self.check().await
    }

    pub(super) async fn due(&mut self) -> Checked<Due> {
        self.log.push("due".into());
        let due = self.ledger().due(64, LEASE).await.map_err(text)?;
        self.log.push(format!("  {due:?}"));
        let (removals, questions, doubts) = self.model.due(LEASE.as_millis() as i64);
        let told: BTreeMap<_, _> = due
            .removals
            .iter()
            .map(|removal| {
                (
                    removal.name.clone(),
                    (
                        removal.github_id,
                        removal.deregistered,
                        removal.uncertain,
                        removal.started,
                    ),
                )
            })
            .collect();
        let of = |name: &Name| {
            let runner = &self.model.runners[name];
            (
                name.clone(),
                (
                    runner.github_id,
                    runner.deregistered || runner.forced,
                    runner.uncertain || runner.claimed_at.is_some(),
                    runner.started_at.is_some(),
                ),
            )
        };
        agree("removals", &told, &removals.iter().map(of).collect())?;
        agree(
            "questions",
            &due.questions
                .iter()
                .map(|question| question.job.get())
                .collect::<BTreeSet<_>>(),
            &questions.into_iter().collect(),
        )?;
        let told: BTreeMap<_, _> = due
            .registrations
            .iter()
            .map(|doubt| (doubt.name.clone(), doubt.github_id))
            .collect();
        agree(
            "lookups",
            &told,
            &doubts
                .into_iter()
                .map(|name| (name.clone(), self.model.runners[&name].github_id))
                .collect(),
        )?;
        self.asked.extend(
            due.questions
                .iter()
                .map(|question| (question.clone(), self.model.jobs[&question.job.get()].word)),
        );
        self.doubts.extend(due.registrations.iter().cloned());
        self.check().await?;
        Ok(due)
    }

    pub(super) async fn answer(&mut self, question: &Question, word: u64, answer: &Answer) -> Checked {
        self.log.push(format!("{question:?} asked at word {word}: {answer:?}"));
        let state = self.ledger().answer(question, answer).await.map_err(text)?;
        let fresh = self
            .model
            .jobs
            .get(&question.job.get())
            .is_some_and(|job| job.word == word);
        agree(
            "the answered job's state",
            &state,
            &self.model.answer(question.job.get(), fresh, answer),
        )?;
        self.check().await
    }

    pub(super) async fn no_answer(&mut self, question: &Question, word: u64, silence: Silence) -> Checked {
        self.log.push(format!("{question:?} asked at word {word}: {silence:?}"));
        let state = self
            .ledger()
            .no_answer(question, silence, "GitHub says nothing")
            .await
            .map_err(text)?;
        let fresh = self
            .model
            .jobs
            .get(&question.job.get())
            .is_some_and(|job| job.word == word);
        agree(
            "the job's state without an answer",
            &state,
            &self.model.no_answer(question.job.get(), fresh, silence),
        )?;
        self.check().await
    }

    pub(super) async fn upkeep(&mut self, status: AnswerStatus, what: Observation) -> Checked {
        let due = self.due().await?;
        for removal in &due.removals {
            self.observe(what, &removal.name, None).await?;
        }
        let asked: Vec<_> = self.asked.iter().rev().take(due.questions.len()).cloned().collect();
        for (question, word) in asked {
            let Some(job) = self.model.jobs.get(&question.job.get()) else {
                continue;
            };
            let ran = matches!(status, AnswerStatus::InProgress | AnswerStatus::Completed);
            let answer = Answer {
                status,
                runner: job.runner.clone().filter(|_| ran),
                runner_id: None,
                conclusion: ran.then(|| "success".to_owned()),
            };
            self.answer(&question, word, &answer).await?;
        }
        Ok(())
    }

    pub(super) async fn settle_doubt(&mut self, doubt: u8) -> Checked {
        let Some(doubt) = self.doubts.get(usize::from(doubt) % self.doubts.len().max(1)).cloned() else {
            return Ok(());
        };
        self.log.push(format!("settled: {doubt:?}"));
        self.ledger().settle_doubt(&doubt).await.map_err(text)?;
        if let Some(runner) = self.model.runners.get_mut(&doubt.name) {
            runner.look_up_at = None;
        }
        self.check().await
    }

    pub(super) async fn set_limits(&mut self, limits: Vec<(String, Option<u64>)>, replace: bool) -> Checked {
        self.log.push(format!("limits {limits:?}, replace {replace}"));
        let previous = self.ledger().set_limits(&limits, replace).await.map_err(text)?;
        agree("limits before", &previous, &self.model.set_limits(&limits, replace))?;
        self.check().await
    }

    pub(super) async fn configure(&mut self, settings: LimitsSettings) -> Checked {
        self.log.push(format!(
            "configure {} in all, {} each",
            settings.max_total, settings.max_per_org
        ));
        self.ledger().configure(&settings).await.map_err(text)?;
        self.model.configure(&settings);
        self.check().await
    }

    pub(super) async fn reconcile(&mut self, ago: i64, listed: Vec<Listed>) -> Checked {
        let began = self.model.now - ago;
        self.log.push(format!("reconcile from {began}: {listed:?}"));
        let told = self.ledger().reconcile(began, &listed).await.map_err(text)?;
        self.log.push(format!("  {told:?}"));
        let expected = self.model.reconcile(began, &listed);
        if expected.opened {
            self.model.epoch = self.model.epoch.max(self.seen.0 + 1);
        }
        let stop: Vec<_> = told.stop.iter().map(|leftover| leftover.name.clone()).collect();
        agree(
            "reconciled",
            &(told.released, told.adopted, told.opened, &stop),
            &(expected.released, expected.adopted, expected.opened, &expected.stop),
        )?;
        agree("mirrors that were wrong", &told.corrected, &0)?;
        self.check().await
    }

    /// Redis comes up empty; a worker tells it the configuration. The runners are still there.
    pub(super) async fn flush(&mut self) -> Checked {
        self.log.push("FLUSHDB".into());
        redis::cmd("FLUSHDB")
            .exec_async(&mut self.stores.redis)
            .await
            .map_err(text)?;
        self.pass(1000); // an epoch is a second
        self.asked.clear();
        let classes = std::mem::take(&mut self.model.classes);
        self.model = Model {
            classes,
            epoch: self.model.epoch,
            ..Model::new(self.model.now, self.model.settings.clone())
        };
        self.configure(self.model.settings.clone()).await
    }

    pub(super) async fn save(&mut self) -> Checked {
        self.log.push("save".into());
        self.saved = Some(self.model.clone());
        copy(&mut self.stores.redis, self.stores.databases.1).await
    }

    /// Redis comes up with the data of the last copy, as another process or, where it was restored in place, as the
    /// same one.
    pub(super) async fn roll_back(&mut self, in_place: bool) -> Checked {
        let Some(saved) = self.saved.clone() else { return Ok(()) };
        self.log.push("rolled back".into());
        redis::cmd("FLUSHDB")
            .exec_async(&mut self.stores.redis)
            .await
            .map_err(text)?;
        copy(&mut self.stores.backup, self.stores.databases.0).await?;
        if !in_place {
            redis::cmd("HSET")
                .arg("ledger:meta")
                .arg("run_id")
                .arg("another")
                .exec_async(&mut self.stores.redis)
                .await
                .map_err(text)?;
        }
        self.asked.clear();
        let classes = std::mem::take(&mut self.model.classes);
        self.model = Model {
            now: self.model.now,
            open: saved.open && in_place,
            classes,
            ..saved
        };
        self.check().await
    }
}

fn sum(runner: &str) -> u64 {
    runner.bytes().map(u64::from).sum()
}

/// Two credentials serve the world, and an organization changes between them.
pub(super) fn credential(runner: &str) -> &'static str {
    if sum(runner).is_multiple_of(2) { "even" } else { "odd" }
}

/// And sometimes both serve it.
fn is_alone(runner: &str) -> bool {
    !sum(runner).is_multiple_of(3)
}

async fn copy(from: &mut MultiplexedConnection, to: u32) -> Checked {
    let script = redis::Script::new(
        "redis.call('SELECT', ARGV[1]) redis.call('FLUSHDB') redis.call('SELECT', ARGV[2])
         for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[1]) end",
    );
    let here: String = redis::cmd("CLIENT").arg("INFO").query_async(from).await.map_err(text)?;
    let here = here
        .split_whitespace()
        .find_map(|field| field.strip_prefix("db="))
        .unwrap_or("0")
        .to_owned();
    script.arg(to).arg(here).invoke_async::<()>(from).await.map_err(text)
}
