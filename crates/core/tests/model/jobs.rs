//! A job's life: what each event makes of it.

use jit_core::{
    class::Class,
    event::{Action, JobEvent},
    ledger::Applied,
};

use super::{Job, JobNumber, JobState, Model, Name, fold};

impl Model {
    /// One event. The job's state afterwards.
    pub fn event(&mut self, event: &JobEvent, accepted_at: i64) -> Applied {
        let (id, org) = (event.job.get(), fold(&event.org));
        let runner = self.believed(event.runner.as_ref(), &org, event.runner_id);
        self.identify(runner.as_ref(), event.runner_id);
        let before = self.jobs.get(&id).map(|job| job.state);
        let given_up = self.jobs.get(&id).is_some_and(|job| job.given_up);
        let attempts = (self.jobs.get(&id).and_then(|job| job.attempt), event.attempt);
        let (earlier, later) = match attempts {
            (Some(known), Some(told)) => (told < known, told > known),
            _ => (false, false),
        };
        if let (true, Some(state)) = (earlier, before) {
            return Applied::State(state); // late: another attempt has begun since
        }
        let back = later || (given_up && event.action != Action::Completed);
        let first_word = before.is_none() || (before == Some(JobState::Completed) && back);
        let class = event.class.as_ref().map(|class| self.learn_class(class));
        let others = self
            .jobs
            .get(&id)
            .is_some_and(|job| job.class.is_none() && job.state != JobState::Completed);
        if first_word {
            let ran_here = runner.is_some() && matches!(event.action, Action::InProgress | Action::Completed);
            if event.class.is_none() && !ran_here {
                return before.map_or(Applied::Ignored, Applied::State);
            }
            self.known.entry(org.clone()).or_insert_with(|| event.org.clone());
            let job = Job {
                state: JobState::Waiting,
                org: org.clone(),
                class,
                attempt: event.attempt,
                queued_at: None,
                runner: None,
                succeeded: false,
                given_up: false,
                ask_at: None,
                missing: 0,
                unreadable: 0,
                unanswered: 0,
                waits: 0,
                told_at: self.now,
                misfits: 0,
                suspect: None,
                held_until: None,
                word: 0,
            };
            self.jobs.insert(id, job);
        } else if let (true, Some(class)) = (others, class) {
            self.known.entry(org.clone()).or_insert_with(|| event.org.clone());
            let job = self.job(id); // taken for other runners' business until now
            (job.org, job.class, job.attempt) = (org.clone(), Some(class), event.attempt.or(job.attempt));
        } else if later {
            self.job(id).attempt = event.attempt;
        }
        let state = before.filter(|_| !first_word);
        if state == Some(JobState::Completed) && !given_up {
            if let (Action::Completed, Some(runner)) = (event.action, runner) {
                self.ending(&runner, id);
            }
            return Applied::State(JobState::Completed);
        }
        self.tell(id);
        let asks = matches!(event.action, Action::Queued | Action::Waiting);
        let has_not_begun = matches!(state, Some(JobState::Queued | JobState::Waiting | JobState::InQuestion))
            && self.jobs[&id].class.is_some();
        let moves = |job: &Job, class: &Class| job.class.as_deref() != Some(&class.id()) || job.org != org;
        if let (true, true, Some(class)) = (
            asks,
            has_not_begun,
            event.class.as_ref().filter(|class| moves(&self.jobs[&id], class)),
        ) {
            self.known.entry(org.clone()).or_insert_with(|| event.org.clone());
            let job = self.job(id);
            (job.org, job.class) = (org.clone(), Some(class.id()));
            let again = job
                .class
                .clone()
                .filter(|_| job.misfits > 0 && job.state == JobState::Queued);
            self.misfits.extend(again);
            self.settle();
        }
        match (event.action, state) {
            (Action::Queued, None | Some(JobState::Waiting)) => self.queue(id, accepted_at),
            (Action::Queued, Some(JobState::InQuestion)) => self.ask(id, self.now),
            (Action::Waiting, None) => self.wait(id),
            (Action::Waiting, Some(JobState::Queued)) => {
                self.job(id).state = JobState::InQuestion;
                self.ask(id, self.now);
            }
            (Action::InProgress, _) => {
                if state != Some(JobState::InProgress) {
                    self.start(id, event.runner.as_ref());
                }
                if let Some(runner) = runner {
                    self.busy(&runner, Some(id));
                }
            }
            (Action::Completed, _) => {
                self.complete(id, event.runner.as_ref(), event.conclusion.as_deref());
                if let Some(runner) = runner {
                    self.ending(&runner, id);
                }
                // It went before this word came, and had run to the end: GitHub has removed its registration.
                let ran = event
                    .runner
                    .as_ref()
                    .filter(|_| event.conclusion.as_deref() == Some("success"));
                if let Some(name) = ran.filter(|name| self.is_named(name, &org, event.runner_id)) {
                    self.runner(name).look_up_at = None;
                }
            }
            _ => {}
        }
        self.settle();
        Applied::State(self.jobs[&id].state)
    }

    pub fn queue(&mut self, id: JobNumber, accepted_at: i64) {
        let job = self.job(id);
        job.state = JobState::Queued;
        job.queued_at = job.queued_at.or(Some(accepted_at));
        (job.runner, job.held_until, job.waits) = (None, None, 0);
        let again = job.class.clone().filter(|_| job.misfits > 0);
        self.misfits.extend(again);
        self.judge(id, None, true);
        self.settle();
    }

    pub fn wait(&mut self, id: JobNumber) {
        self.judge(id, None, false);
        self.job(id).waits += 1;
        let ask_at = self.now + self.seldom(self.jobs[&id].waits);
        let job = self.job(id);
        (job.state, job.ask_at, job.runner, job.held_until) = (JobState::Waiting, Some(ask_at), None, None);
        self.settle();
    }

    pub fn start(&mut self, id: JobNumber, runner: Option<&Name>) {
        self.judge(id, runner, false);
        let ask_at = self.after("question_interval");
        let job = self.job(id);
        (job.state, job.ask_at, job.held_until, job.misfits) = (JobState::InProgress, Some(ask_at), None, 0);
        (job.waits, job.unanswered) = (0, 0);
        job.runner = runner.cloned().or(job.runner.take());
        self.settle();
    }

    pub fn complete(&mut self, id: JobNumber, runner: Option<&Name>, conclusion: Option<&str>) {
        self.judge(id, runner, false);
        let job = self.job(id);
        job.succeeded = conclusion == Some("success");
        (job.state, job.ask_at, job.missing, job.held_until, job.misfits) = (JobState::Completed, None, 0, None, 0);
        (job.unreadable, job.unanswered, job.waits, job.given_up) = (0, 0, 0, false);
        job.runner = runner.cloned().or(job.runner.take());
        self.settle();
    }
}
