//! The life of a job: created, queued, held, approved, cancelled, run again.
//!
//! `waiting ⇄ queued → in_progress → completed`; what is completed stays so, and a rerun is a new job. Each step emits
//! the webhook that GitHub sends for it.

use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::log::Event;
use super::model::{Action, Conclusion, Job, JobFacts, JobState, Ms, OwnerKind, RunnerRef, Times};
use super::state::{Delivery, Server, uuid};

/// Why the control API could not do what it was asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    /// No such job: 404.
    #[error("no such job")]
    NoJob,
    /// The job is in a state that does not allow it: 409.
    #[error("the job is {0:?}")]
    State(JobState),
    /// The request makes no sense: 422.
    #[error("{0}")]
    Invalid(String),
}

/// Jobs to be created.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Organization that owns the repository; created when it is new.
    pub org: Option<String>,
    /// User that owns it, in place of `org`.
    pub user: Option<String>,
    /// Repository; created when it is new.
    #[serde(default = "default_repo")]
    pub repo: String,
    /// Makes a new repository public.
    #[serde(default)]
    pub public: bool,
    /// What the job asks of a runner.
    pub labels: Vec<String>,
    /// How long it runs.
    #[serde(default)]
    pub duration_ms: Ms,
    /// How many of them.
    #[serde(default = "one")]
    pub count: usize,
    /// How many of them make a run.
    #[serde(default = "one")]
    pub jobs_per_run: usize,
    /// Name of the job.
    pub name: Option<String>,
    /// Name of the workflow.
    pub workflow: Option<String>,
    /// Environment that it deploys to: its webhooks hold a `deployment`.
    pub environment: Option<String>,
    /// Whether it starts out waiting for an approval; by default when it names an environment.
    pub approval: Option<bool>,
    /// Adds a `deployment` to its webhooks.
    #[serde(default)]
    pub deployment: bool,
    /// How it ends; by default in success.
    pub conclusion: Option<Conclusion>,
    /// So long ago it was created, and its first webhook sent: what is an hour old need not be waited for.
    #[serde(default)]
    pub age_ms: Ms,
}

fn default_repo() -> String {
    "repo".into()
}

fn one() -> usize {
    1
}

/// Most jobs of one request: a mistyped number should not end the process.
const MOST_JOBS: usize = 1_000_000;

impl Server {
    /// Creates jobs, and the owner and repository that they name; returns their ids.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`].
    pub fn create_jobs(&mut self, spec: &JobSpec, now: Ms) -> Result<Vec<u64>, ControlError> {
        let (login, kind) = match (&spec.org, &spec.user) {
            (Some(org), None) => (org, OwnerKind::Organization),
            (None, Some(user)) => (user, OwnerKind::User),
            _ => return Err(ControlError::Invalid("name either org or user".into())),
        };
        if spec.repo.is_empty() || spec.repo.contains('/') || spec.labels.is_empty() || spec.jobs_per_run == 0 {
            return Err(ControlError::Invalid(
                "repo, labels and jobs_per_run must not be empty".into(),
            ));
        }
        if spec.count == 0 || spec.count > MOST_JOBS {
            return Err(ControlError::Invalid(format!("count must be from 1 to {MOST_JOBS}")));
        }
        self.add_owner(login, kind)?;
        let repo = self
            .repo(login, &spec.repo, !spec.public)
            .ok_or_else(|| ControlError::Invalid("no such owner".into()))?;
        let facts = Arc::new(JobFacts {
            repo,
            name: spec.name.as_deref().unwrap_or("build").into(),
            workflow: spec.workflow.as_deref().unwrap_or("CI").into(),
            labels: spec.labels.clone(),
            folded: spec.labels.iter().map(|label| label.to_lowercase()).collect(),
            duration: spec.duration_ms,
            outcome: spec.conclusion.unwrap_or(Conclusion::Success),
            environment: spec.environment.as_deref().map(Into::into),
            deployment: spec.deployment || spec.environment.is_some(),
            head_sha: format!(
                "{:016x}{:016x}{:08x}",
                self.rng.u64(..),
                self.rng.u64(..),
                self.rng.u32(..)
            ),
        });
        let waiting = spec.approval.unwrap_or(spec.environment.is_some());
        let mut ids = Vec::with_capacity(spec.count);
        for number in 0..spec.count {
            if number % spec.jobs_per_run == 0 {
                self.next.run += 1;
            }
            ids.push(self.create_job(facts.clone(), self.next.run, 1, waiting, now, spec.age_ms));
        }
        Ok(ids)
    }

    fn create_job(
        &mut self,
        facts: Arc<JobFacts>,
        run_id: u64,
        run_attempt: u32,
        waiting: bool,
        now: Ms,
        age: Ms,
    ) -> u64 {
        self.next.job += 1;
        let id = self.next.job;
        let (owner, _) = facts.repo.key();
        self.gauges.entry(owner).or_default().jobs += 1;
        self.totals.jobs += 1;
        self.log.push(
            now,
            Event::JobCreated {
                job: id,
                owner: facts.repo.owner.clone(),
            },
        );
        let run = self.runs.entry(run_id).or_default();
        if run.is_empty() {
            self.repo_runs.entry(facts.repo.id).or_default().push(run_id);
        }
        run.push(id);
        let times = Times {
            created: now.saturating_sub(age),
            ..Times::default()
        };
        let job = Job {
            id,
            run_id,
            run_attempt,
            facts,
            state: JobState::Waiting,
            conclusion: None,
            assigned: None,
            runner: None,
            cancelled: false,
            starts: 0,
            times,
        };
        self.jobs.insert(id, job);
        if waiting {
            self.emit(id, Action::Waiting, now)
        } else {
            self.queue(id, now, age)
        }
        id
    }

    /// A waiting job becomes queued, and goes to a runner if one is free.
    fn queue(&mut self, id: u64, now: Ms, age: Ms) {
        let since = now.saturating_sub(age);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Queued;
        job.times.queued = Some(since);
        let (owner, _) = job.facts.repo.key();
        if job.times.requested.is_none() {
            self.unrequested.entry(owner.clone()).or_default().insert((since, id));
        }
        self.queued.entry(owner).or_default().insert((since, id));
        self.emit(id, Action::Queued, now);
        self.place_job(id, now);
    }

    /// Puts a webhook about the job, as it is now, in the outbox, or not, as the faults will.
    pub(super) fn emit(&mut self, id: u64, action: Action, now: Ms) {
        let Some(job) = self.jobs.get(&id) else { return };
        let fate = self
            .faults
            .webhook(&mut self.rng, &job.facts.repo.owner, &job.facts.repo.name, action);
        if fate.copies == 0 {
            self.counters.webhooks_dropped += 1;
            self.log.push(now, Event::WebhookDropped { job: id, action });
        }
        let backdated = if action == Action::Queued {
            now.saturating_sub(job.times.queued.unwrap_or(now))
        } else {
            0
        };
        let delivery = Delivery {
            id: uuid(&mut self.rng).into(),
            action,
            job: job.clone(),
            delay: fate.delay,
            backdated,
            redelivery: false,
        };
        for _ in 0..fate.copies {
            self.outbox.push(delivery.clone());
        }
    }

    /// Somebody cancels the job; a running one ends when its runner says so.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoJob`], or [`ControlError::State`] when it is over.
    pub fn cancel(&mut self, id: u64, now: Ms) -> Result<(), ControlError> {
        let job = self.jobs.get_mut(&id).ok_or(ControlError::NoJob)?;
        match job.state {
            JobState::Completed => Err(ControlError::State(job.state)),
            JobState::InProgress => {
                job.cancelled = true;
                if let Some(runner) = job.runner.as_ref().and_then(|runner| self.runners.get(&runner.id)) {
                    runner.bell.notify_one();
                }
                Ok(())
            }
            JobState::Waiting | JobState::Queued => {
                self.leave_queue(id, now);
                self.complete(id, Conclusion::Cancelled, now);
                Ok(())
            }
        }
    }

    /// A waiting job is approved.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoJob`], or [`ControlError::State`] when it does not wait.
    pub fn approve(&mut self, id: u64, now: Ms) -> Result<(), ControlError> {
        self.in_state(id, JobState::Waiting)?;
        self.log.push(now, Event::JobHeld { job: id, held: false });
        self.queue(id, now, 0);
        Ok(())
    }

    /// A queued job needs an approval after all.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoJob`], or [`ControlError::State`] when it is not queued.
    pub fn hold(&mut self, id: u64, now: Ms) -> Result<(), ControlError> {
        self.in_state(id, JobState::Queued)?;
        self.leave_queue(id, now);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = JobState::Waiting;
        }
        self.log.push(now, Event::JobHeld { job: id, held: true });
        self.emit(id, Action::Waiting, now);
        Ok(())
    }

    /// A completed job is run again: a new job of the same run, one attempt later. Returns its id.
    ///
    /// # Errors
    ///
    /// [`ControlError::NoJob`], or [`ControlError::State`] when it is not over.
    pub fn rerun(&mut self, id: u64, now: Ms) -> Result<u64, ControlError> {
        self.in_state(id, JobState::Completed)?;
        let job = self.jobs.get(&id).ok_or(ControlError::NoJob)?;
        let (facts, run, attempt) = (job.facts.clone(), job.run_id, job.run_attempt + 1);
        Ok(self.create_job(facts, run, attempt, false, now, 0))
    }

    fn in_state(&self, id: u64, state: JobState) -> Result<(), ControlError> {
        let job = self.jobs.get(&id).ok_or(ControlError::NoJob)?;
        if job.state == state {
            Ok(())
        } else {
            Err(ControlError::State(job.state))
        }
    }

    /// The job takes no runner any more: out of the queue, or away from the runner that has not taken it yet.
    fn leave_queue(&mut self, id: u64, now: Ms) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (owner, _) = job.facts.repo.key();
        let place = (job.times.queued.unwrap_or(0), id);
        for index in [&mut self.queued, &mut self.unrequested] {
            index.get_mut(&owner).map(|jobs| jobs.remove(&place));
        }
        self.unassign(id, now);
    }

    /// The job is over: counts, log and webhook.
    pub(super) fn complete(&mut self, id: u64, conclusion: Conclusion, now: Ms) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (owner, _) = job.facts.repo.key();
        if job.state == JobState::InProgress {
            self.totals.running.down();
            self.gauges.entry(owner.clone()).or_default().running.down();
        }
        job.state = JobState::Completed;
        job.conclusion = Some(conclusion);
        job.times.completed = Some(now);
        let place = (job.times.queued.unwrap_or(0), id);
        self.log.push(
            now,
            Event::JobCompleted {
                job: id,
                runner: job.runner.as_ref().map(|runner| runner.id),
                conclusion,
            },
        );
        self.unrequested.get_mut(&owner).map(|jobs| jobs.remove(&place));
        self.emit(id, Action::Completed, now);
    }

    /// The runner takes the job that it was assigned.
    pub(super) fn begin(&mut self, id: u64, runner: RunnerRef, now: Ms) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.log.push(
            now,
            Event::JobStarted {
                job: id,
                runner: runner.id,
            },
        );
        job.state = JobState::InProgress;
        job.starts += 1;
        job.assigned = None;
        job.times.started = Some(now);
        job.runner = Some(runner);
        let (owner, _) = job.facts.repo.key();
        self.assigned.remove(&id);
        self.totals.running.up();
        self.gauges.entry(owner).or_default().running.up();
        self.emit(id, Action::InProgress, now);
    }
}
