//! A runner's life: its steps, what is seen of it, the one way to remove it, and what it leaves open.

use std::time::Duration;

use jit_core::ledger::{BackOff, Deregistration, Failure, Growth, Known, Needs, Observation, Registration};

use super::{Held, JobNumber, JobState, Model, Name, RunnerState, backoff::FailedStep};

/// What the worker was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// With which credential, whether no other serves, and its number.
    Claim {
        credential: &'static str,
        alone: bool,
        claim: u64,
    },
    Registered(u64),
    Created,
}

/// What a worker is told of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Ours,
    Stale,
    /// It is not the caller's: something that it needs backs off, or the gate is closed.
    GivenBack,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

impl Model {
    fn holds(&self, name: &str, fence: &str) -> bool {
        self.runners
            .get(name)
            .is_some_and(|runner| runner.state != RunnerState::Gone && runner.fence.as_deref() == Some(fence))
    }

    /// A step of making a runner; stale where the runner is not the caller's (any more).
    pub fn provision(&mut self, step: Step, name: &str, fence: &str, timeout: Duration) -> Told {
        if !self.holds(name, fence) {
            return Told::Stale;
        }
        let (now, timeout) = (self.now, millis(timeout));
        let (start_timeout, idle_check) = (self.after("start_timeout"), self.after("idle_check"));
        let runner = self.runner(name);
        match step {
            Step::Claim {
                credential,
                alone,
                claim,
            } => {
                let again = runner.claim == Some(claim);
                if runner.state != RunnerState::Reserved || (runner.claimed_at.is_some() && !again) {
                    return Told::Stale;
                }
                if again {
                    runner.deadline = Some(now + timeout + 60_000);
                    return Told::Ours;
                }
                if !self.open {
                    self.lost_at.get_or_insert(now);
                    return Told::GivenBack;
                }
                let class = self.classes[&self.runners[name].class].clone();
                let org = super::fold(&class.org);
                if alone {
                    self.credentials.insert(org.clone(), credential.into());
                } else {
                    self.credentials.remove(&org);
                }
                let narrow = [
                    Held::Org(org),
                    Held::Profile(class.profile.clone()),
                    Held::Scope(super::fold(&class.scope)),
                    Held::Class(class.id()),
                ];
                let needs = [Held::Global]
                    .into_iter()
                    .chain(alone.then(|| Held::Credential(credential.into())))
                    .chain(narrow);
                let is_probe = |held: &Held| {
                    self.rows
                        .get(held)
                        .is_some_and(|row| row.probe.as_deref() == Some(name))
                };
                if needs
                    .into_iter()
                    .any(|held| self.backoffs.contains_key(&held) && !is_probe(&held))
                {
                    self.free(name, false);
                    return Told::GivenBack;
                }
                let runner = self.runner(name);
                (runner.claimed_at, runner.create_timeout, runner.deadline) =
                    (Some(now), timeout / 2, Some(now + timeout + 60_000));
                (runner.claim, runner.credential) = (Some(claim), Some(credential.into()));
            }
            Step::Registered(id) => {
                (runner.github_id, runner.uncertain, runner.create_timeout, runner.claim) = (Some(id), false, 0, None);
                if runner.state == RunnerState::Reserved {
                    runner.deadline = Some(now + timeout + 60_000);
                }
            }
            Step::Created => {
                runner.created_at = Some(now);
                if runner.state == RunnerState::Reserved {
                    runner.state = RunnerState::Created;
                    runner.deadline = Some(if runner.started_at.is_some() {
                        idle_check
                    } else {
                        start_timeout
                    });
                }
                self.succeeded(name, Needs::Made);
            }
        }
        Told::Ours
    }

    /// A step did not work; false where the runner is not the caller's (any more).
    pub fn fail(&mut self, name: &str, fence: &str, failure: &Failure) -> bool {
        if !self.holds(name, fence) {
            return false;
        }
        let runner = self.runner(name);
        runner.uncertain |= failure.registration == Registration::Uncertain;
        runner.deregistered |= failure.registration == Registration::None;
        if let Some(back_off) = failure.back_off {
            self.failed_step(name, back_off);
        }
        // A slot is free at once only where there is certainly nothing.
        if failure.made || self.runners[name].state != RunnerState::Reserved {
            self.begin_removal(name)
        } else {
            self.free(name, false)
        }
        if failure.back_off == Some(BackOff::Quota) {
            self.ceiling = Some((self.live().len() as u64, self.now));
        }
        true
    }

    /// What was seen of a runner, or is wanted of it: its state afterwards, and whether that was news.
    pub fn observe(
        &mut self,
        what: Observation,
        name: &str,
        gone: Option<Deregistration>,
    ) -> (Known<RunnerState>, bool) {
        let Some(state) = self.runners.get(name).map(|runner| runner.state) else {
            return (Known::Unknown, false);
        };
        if state == RunnerState::Gone {
            return (Known::State(state), false);
        }
        let runner = self.runner(name);
        runner.deregistered |= gone.is_some();
        runner.unused |= gone == Some(Deregistration::Deleted);
        let mut news = true;
        match what {
            Observation::Started => news = self.started(name),
            Observation::Note => runner.without_image = super::without_image(name),
            Observation::Release => self.ended(name, false),
            Observation::Rejected => self.ended(name, true),
            Observation::Outdated => {
                let chain = self.ends_of(name);
                let (first, begun) = (self.time("start_backoff"), self.runners[name].claimed_at);
                self.fails(
                    &chain,
                    FailedStep {
                        needs: Needs::Work,
                        first,
                        most: 16 * first,
                        growth: Growth::Doubles,
                        runner: name.to_owned(),
                        begun,
                    },
                );
                self.free(name, false);
            }
            Observation::Busy => {
                self.runner(name).state = RunnerState::Busy;
                self.busy(name, None);
                self.runner(name).deadline = Some(self.after("busy_recheck"));
            }
            Observation::Remove => {
                news = state != RunnerState::Removing;
                self.begin_removal(name);
            }
            Observation::Force => {
                let now = self.now;
                self.runner(name).forced = true;
                if state == RunnerState::Removing {
                    self.runner(name).deadline = Some(now)
                } else {
                    self.begin_removal(name)
                }
            }
            Observation::Postpone => {
                news = state == RunnerState::Removing;
                if news {
                    let runner = self.runner(name);
                    runner.removal_tries += 1;
                    let wait = (1..=runner.removal_tries).fold(1000, |wait, _| (wait * 2).min(20_000));
                    self.runner(name).deadline = Some(self.now + wait + self.jitter(name, wait / 4));
                }
            }
            Observation::Absent => {
                let hold = self.runners[name]
                    .hold_until
                    .filter(|hold| state == RunnerState::Removing && *hold > self.now);
                match (state, hold) {
                    (RunnerState::Reserved, _) => news = false, // its pod may be on its way
                    (_, Some(hold)) => {
                        self.runner(name).deadline = Some(hold);
                        news = false;
                    }
                    _ => self.free(name, false),
                }
            }
        }
        self.settle();
        (Known::State(self.runners[name].state), news)
    }

    /// Its program runs: false where that was known.
    pub fn started(&mut self, name: &str) -> bool {
        let (now, idle_check) = (self.now, self.after("idle_check"));
        let runner = self.runner(name);
        if runner.started_at.is_some() {
            return false;
        }
        runner.started_at = Some(now);
        if runner.state == RunnerState::Created {
            runner.deadline = Some(idle_check);
        }
        self.succeeded(name, Needs::Started);
        true
    }

    /// GitHub says that it works, on `job` where it says so. A runner runs one job in its life.
    pub fn busy(&mut self, name: &str, job: Option<JobNumber>) {
        let (now, deadline) = (
            self.now,
            self.after(if job.is_some() {
                "question_interval"
            } else {
                "busy_recheck"
            }),
        );
        let runner = self.runner(name);
        if runner.runs.is_some() {
            return;
        }
        (runner.state, runner.busy_at, runner.runs, runner.deadline) =
            (RunnerState::Busy, Some(now), job, Some(deadline));
        let class = runner.class.clone();
        self.misfits.remove(&class);
        self.succeeded(name, Needs::Work);
        self.last_start = Some(now);
        self.settle();
    }

    /// Its job is over: it should end by itself.
    pub fn ending(&mut self, name: &str, job: JobNumber) {
        self.busy(name, Some(job));
        let deadline = self.after("end_timeout");
        let runner = self.runner(name);
        if runner.runs == Some(job) {
            runner.job_left = true;
            if runner.state == RunnerState::Busy {
                runner.deadline = Some(deadline);
            }
        }
    }

    /// It leaves its idle set and keeps its slot; whoever still makes it has lost it.
    pub fn begin_removal(&mut self, name: &str) {
        let now = self.now;
        let runner = self.runner(name);
        if matches!(runner.state, RunnerState::Removing | RunnerState::Gone) {
            return;
        }
        runner.fence = None;
        if runner.state == RunnerState::Reserved && runner.claimed_at.is_none() {
            return self.free(name, false); // nobody has made anything of it
        }
        if runner.state == RunnerState::Reserved {
            runner.hold_until = Some(now + 2 * runner.create_timeout);
        }
        (runner.state, runner.deadline) = (RunnerState::Removing, Some(now));
        self.drop_probes(name);
        self.settle();
    }

    /// It has ended or is gone by itself: before it had work, that may be a failure.
    pub fn ended(&mut self, name: &str, rejected: bool) {
        let runner = self.runners[name].clone();
        let waits = matches!(runner.state, RunnerState::Reserved | RunnerState::Created);
        if waits && rejected && runner.started_at.is_none() {
            self.runner(name).unused = true;
            let most = 16 * self.time("start_backoff");
            let failed = FailedStep {
                needs: Needs::Started,
                first: 2000,
                most,
                growth: Growth::Patient,
                runner: name.to_owned(),
                begun: runner.claimed_at,
            };
            self.fails(&self.ends_of(name), failed);
        }
        let early = runner
            .started_at
            .or(runner.created_at)
            .is_none_or(|since| self.now - since < 120_000);
        self.free(name, waits && early);
    }

    /// Its pod has ended, is gone, or never was. Of a `suspect` the job in question tells whether it had work.
    pub fn free(&mut self, name: &str, suspect: bool) {
        let (now, first) = (self.now, self.after("uncertain_first"));
        let runner = self.runner(name);
        (runner.state, runner.gone_at, runner.deadline) = (RunnerState::Gone, Some(now), None);
        let (class, asked_by, runs, registered, unused) = (
            runner.class.clone(),
            runner.asked_by,
            runner.runs,
            runner.github_id.is_some(),
            runner.unused,
        );
        let state_of_run = runs.and_then(|job| self.jobs.get(&job)).map(|job| job.state);

        if let (Some(job), Some(JobState::InProgress)) = (runs, state_of_run) {
            self.ask(job, self.after("question_delay"));
        }
        let mut may_have_run = None;
        if runs.is_none() && registered && !unused {
            let queued = self.queued(&class);
            let own = queued.iter().find(|(_, job)| *job == asked_by.to_string());
            if let Some((_, job)) = own.or(queued.first()) {
                let job = job.parse().unwrap();
                self.put_in_question(job);
                may_have_run = Some(job);
            }
        }
        match may_have_run.filter(|_| suspect) {
            Some(job) => self.job(job).suspect = Some(name.to_owned()),
            None => self.drop_probes(name),
        }
        let over = runs
            .and_then(|job| self.jobs.get(&job))
            .is_some_and(|job| job.succeeded);
        let runner = self.runner(name);
        let may_be_registered = registered || runner.uncertain || runner.claimed_at.is_some();
        if may_be_registered && !runner.deregistered && !over {
            runner.look_up_at = Some(first);
        }
        self.settle();
    }

    fn put_in_question(&mut self, job: JobNumber) {
        self.hear(job);
        self.job(job).state = JobState::InQuestion;
        self.ask(job, self.after("question_delay"));
    }

    /// The work whose time has come: runners to remove, jobs to ask about, registrations to look up.
    pub fn due(&mut self, lease: i64) -> (Vec<Name>, Vec<JobNumber>, Vec<Name>) {
        let now = self.now;
        let mut late: Vec<_> = self
            .runners
            .iter()
            .filter_map(|(name, runner)| Some((runner.deadline.filter(|at| *at <= now)?, name.clone())))
            .collect();
        late.sort();
        for (_, name) in &late {
            self.overdue(name);
        }
        let removals: Vec<Name> = late
            .into_iter()
            .map(|(_, name)| name)
            .filter(|name| self.runners[name].state == RunnerState::Removing)
            .collect();
        for name in &removals {
            self.runner(name).deadline = Some(now + lease);
        }
        let questions: Vec<JobNumber> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.ask_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for job in &questions {
            self.job(*job).ask_at = Some(now + lease);
        }
        let doubts: Vec<Name> = self
            .runners
            .iter()
            .filter(|(_, runner)| runner.look_up_at.is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        let first = self.time("uncertain_first");
        for name in &doubts {
            let runner = self.runner(name);
            runner.looked_up += 1;
            runner.look_up_at = match runner.looked_up {
                1 => Some(now + 2 * first), // at 1, 3 and 15 minutes
                2 => Some(now + 12 * first),
                _ => None,
            };
        }
        (removals, questions, doubts)
    }

    fn stayed_idle(&mut self, name: &str) {
        let (now, idle_timeout) = (self.now, self.time("idle_timeout"));
        let class = self.runners[name].class.clone();
        let Some(oldest) = self
            .queued(&class)
            .first()
            .map(|(_, job)| job.parse::<JobNumber>().unwrap())
        else {
            return self.begin_removal(name);
        };
        if self.misfits.contains(&class) && self.idle(&class).len() > 1 {
            return self.begin_removal(name);
        }
        let within = |at: Option<i64>| at.is_some_and(|at| now < at + idle_timeout);
        if !within(self.last_start) && within(self.replaced_at) {
            self.runner(name).deadline = Some(now + idle_timeout); // GitHub gives out no work
            return;
        }
        self.replaced_at = Some(now);
        self.misfits.insert(class);
        self.hear(oldest);
        let hold = self.time("misfit_hold");
        let job = self.job(oldest);
        job.misfits += 1;
        let until = now + hold * (1..job.misfits).fold(1, |times, _| (times * 2).min(6));
        (job.state, job.held_until, job.ask_at) = (JobState::InQuestion, Some(until), Some(until));
        self.settle();
        self.begin_removal(name);
    }

    fn overdue(&mut self, name: &str) {
        let runner = self.runners[name].clone();
        let (idle_timeout, start_backoff) = (self.time("idle_timeout"), self.time("start_backoff"));
        match (runner.state, runner.started_at, runner.runs) {
            (RunnerState::Created, Some(started_at), _) if self.now < started_at + idle_timeout => {
                // Its class's oldest jobs may be over without a word.
                for (_, job) in self
                    .queued(&runner.class)
                    .into_iter()
                    .take(self.idle(&runner.class).len())
                {
                    let job: JobNumber = job.parse().unwrap();
                    if self.jobs[&job].unreadable == 0 {
                        self.ask(job, self.now);
                    }
                }
                self.runner(name).deadline = Some(started_at + idle_timeout);
            }
            (RunnerState::Created, Some(_), _) => self.stayed_idle(name),
            (RunnerState::Created, None, _) => {
                let chain = self.ends_of(name);
                let chain = if runner.without_image { &chain[2..] } else { &chain[..] };
                let (needs, growth) = (Needs::Started, Growth::Doubles);
                let failed = FailedStep {
                    needs,
                    first: start_backoff,
                    most: 16 * start_backoff,
                    growth,
                    runner: name.to_owned(),
                    begun: runner.claimed_at,
                };
                self.fails(chain, failed);
                self.begin_removal(name);
            }
            // Only GitHub's word ends its work: not that the job was given up, or is not known any more.
            (RunnerState::Busy, _, Some(job))
                if !runner.job_left
                    && self
                        .jobs
                        .get(&job)
                        .is_none_or(|job| job.state == JobState::InProgress || job.given_up) =>
            {
                self.runner(name).deadline = Some(self.after("question_interval"));
            }
            _ => self.begin_removal(name),
        }
    }
}
