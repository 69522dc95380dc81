//! Questions about jobs: what GitHub says, and what is made of it where it does not say.

use jit_core::ledger::{Answer, AnswerStatus, Applied, Silence};

use super::{JobNumber, JobState, Model, RunnerState};

impl Model {
    /// How long to wait before GitHub is asked for the `times`th time about what does not change.
    pub fn seldom(&self, times: u32) -> i64 {
        self.time("question_interval") * (1..times).fold(1, |wait, _| (wait * 2).min(24))
    }

    /// GitHub's answer about a job; `fresh` if nothing was learned of it since it was asked.
    pub fn answer(&mut self, id: JobNumber, fresh: bool, answer: &Answer) -> Applied {
        let Some(job) = self.jobs.get(&id) else {
            return Applied::Ignored;
        };
        let (state, org, ours) = (job.state, job.org.clone(), job.class.is_some());
        if state == JobState::Completed {
            return Applied::State(state);
        }
        if !fresh {
            self.ask(id, self.now);
            return Applied::State(state);
        }
        let job = self.job(id);
        (job.unreadable, job.unanswered) = (0, 0);
        if answer.status == AnswerStatus::Missing {
            self.hear(id);
            return self.missing(id);
        }
        self.tell(id);
        self.job(id).missing = 0;
        let runner = self.believed(answer.runner.as_ref(), &org, answer.runner_id);
        self.identify(runner.as_ref(), answer.runner_id);
        match answer.status {
            // A job of other runners' labels that one of ours had taken: theirs again.
            AnswerStatus::Queued | AnswerStatus::Waiting if !ours => {
                let job = self.jobs.remove(&id).unwrap();
                if let Some(taker) = job
                    .runner
                    .and_then(|name| self.runners.get_mut(&name))
                    .filter(|taker| taker.runs == Some(id))
                {
                    taker.job_left = true;
                }
            }
            AnswerStatus::Queued => {
                self.job(id).ask_at = None;
                if state != JobState::Queued {
                    self.queue(id, self.now);
                }
            }
            AnswerStatus::Waiting => self.wait(id),
            AnswerStatus::InProgress => {
                if state != JobState::InProgress {
                    self.start(id, answer.runner.as_ref());
                }
                if let Some(runner) = &runner {
                    self.busy(runner, Some(id));
                }
                let gone = answer
                    .runner
                    .as_ref()
                    .and_then(|name| self.runners.get(name))
                    .is_some_and(|runner| runner.state == RunnerState::Gone);
                self.job(id).ask_at = Some(self.after(if gone { "uncertain_first" } else { "question_interval" }));
            }
            AnswerStatus::Completed => {
                self.complete(id, answer.runner.as_ref(), answer.conclusion.as_deref());
                if let Some(runner) = runner {
                    self.ending(&runner, id);
                }
            }
            AnswerStatus::Missing => unreachable!("see above"),
        }
        self.settle();
        self.jobs
            .get(&id)
            .map_or(Applied::Ignored, |job| Applied::State(job.state))
    }

    /// GitHub does not know it, and shows what it would stand among.
    fn missing(&mut self, id: JobNumber) -> Applied {
        self.job(id).missing += 1;
        let missing = self.job(id).missing;
        if missing >= 3 {
            self.give_up(id);
        } else {
            self.job(id).ask_at = Some(self.now + self.time("uncertain_first") * i64::from(missing));
        }
        Applied::State(self.jobs[&id].state)
    }

    /// GitHub does not answer a question; `fresh` if nothing was learned of the job since it was asked.
    pub fn no_answer(&mut self, id: JobNumber, fresh: bool, silence: Silence) -> Applied {
        let Some(job) = self.jobs.get(&id) else {
            return Applied::Ignored;
        };
        let state = job.state;
        if state == JobState::Completed {
            return Applied::State(state);
        }
        if !fresh {
            self.ask(id, self.now);
            return Applied::State(state);
        }
        self.hear(id);
        match silence {
            Silence::Unreadable => {
                let days = match state {
                    JobState::InProgress => 5,
                    JobState::Waiting => 35,
                    _ => 2,
                };
                let kept_until = self.jobs[&id].told_at + days * 86_400_000;
                if self.now >= kept_until {
                    self.give_up(id);
                } else {
                    self.queue_unsettled(id);
                    self.job(id).unreadable += 1;
                    let ask_at = self.now + self.seldom(self.jobs[&id].unreadable);
                    self.job(id).ask_at = Some(ask_at.min(kept_until));
                }
            }
            Silence::Unanswered => {
                self.job(id).unanswered += 1;
                let times = self.jobs[&id].unanswered;
                if times >= 3 && matches!(state, JobState::InQuestion | JobState::Queued) {
                    self.job(id).unanswered = 0;
                    self.queue_unsettled(id);
                } else {
                    let longer = matches!(state, JobState::InProgress | JobState::Waiting);
                    let doubled = (1..times).fold(20_000, |wait, _| (wait * 2).min(self.time("question_interval")));
                    let wait = if longer { doubled } else { 20_000 };
                    self.job(id).ask_at = Some(self.now + wait + self.jitter(&id.to_string(), 5000));
                }
            }
        }
        self.settle();
        Applied::State(self.jobs[&id].state)
    }

    fn queue_unsettled(&mut self, id: JobNumber) {
        self.job(id).ask_at = None;
        if self.jobs[&id].state == JobState::InQuestion {
            self.queue(id, self.now);
        }
    }

    /// 0 to `most` ms, by the moment and whom it concerns.
    pub fn jitter(&self, what: &str, most: i64) -> i64 {
        (self.now + 7919 * what.bytes().map(i64::from).sum::<i64>()) % (most + 1)
    }

    fn give_up(&mut self, id: JobNumber) {
        self.complete(id, None, None);
        self.job(id).given_up = true;
    }
}
