//! What runners say: connect, poll for a job, watch for a cancellation, done, bye.
//!
//! The protocol is the simulator's own; only its meaning is GitHub's. A runner is alive while a request of it is open,
//! and for a lease after that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::faults::Kind;
use super::log::Event;
use super::model::{Conclusion, Ms, RunnerRef, Session, Work};
use super::state::{Server, uuid};
use crate::jit::JitConfig;
use crate::runner::TOO_OLD;

/// Why a runner gets no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not registered (any more), or its secret is not right: 404; the runner gives up.
    Unknown,
    /// It has a session already: 409; the runner tries again later.
    Taken,
    /// A fault: 503; the runner tries for ever.
    Mute,
    /// A fault: 403; the runner's program ends.
    Ends(Return),
}

/// How a runner's listener is to end, as the runner gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// Its exit code.
    pub code: u8,
    /// What it prints.
    pub words: String,
}

/// A session, as the runner gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Part of the path of all that follows.
    pub session: String,
    /// A job shorter than this needs no watch.
    pub lease_ms: Ms,
}

/// A job, as the runner gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// GitHub's id of the job.
    pub job_id: u64,
    /// How long to work.
    pub duration_ms: Ms,
    /// When to die, if a fault says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die_after_ms: Option<Ms>,
}

/// Answer to a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Here is work.
    Job(Order),
    /// Nothing yet.
    Nothing,
    /// There is no such session (any more): the runner gives up.
    Gone,
}

/// Answer to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Go on.
    Running,
    /// Stop: the job was cancelled.
    Cancelled,
    /// The session is over.
    Gone,
}

impl Server {
    /// A runner opens its session.
    ///
    /// # Errors
    ///
    /// A [`Refusal`].
    pub fn connect(&mut self, jit: &JitConfig, now: Ms) -> Result<Welcome, Refusal> {
        let lease = self.settings.lease_ms;
        let Some(runner) = self
            .runners
            .get_mut(&jit.runner_id)
            .filter(|runner| runner.secret == jit.secret)
        else {
            return Err(Refusal::Unknown);
        };
        let owner: Arc<str> = runner.scope.owner().into();
        let (faults, rng) = (&mut self.faults, &mut self.rng);
        if *runner
            .mute
            .get_or_insert_with(|| faults.runner(rng, &runner.scope, Kind::RunnerNeverConnects).is_some())
        {
            return Err(Refusal::Mute);
        }
        if let Some(fault) = faults.runner(rng, &runner.scope, Kind::RunnerEnds) {
            let code = fault.exit_code.unwrap_or(TOO_OLD);
            let words = fault.message.unwrap_or_else(|| {
                "An error occurred: Runner version v2.320.0 is deprecated and cannot receive messages.".into()
            });
            self.log.push(
                now,
                Event::RunnerEnds {
                    runner: runner.id,
                    owner,
                    code,
                },
            );
            return Err(Refusal::Ends(Return { code, words }));
        }
        match (&runner.session, runner.work) {
            (Some(_), _) => return Err(Refusal::Taken),
            (None, Work::Spent) => return Err(Refusal::Unknown),
            (None, _) => {}
        }
        let session = uuid(rng);
        let id = runner.id;
        runner.session = Some(Session {
            id: session.clone(),
            open: 0,
            lease_until: now + lease,
        });
        runner.offline_since = None;
        self.sessions.insert(session.clone(), id);
        self.counters.runners_connected += 1;
        self.gauges.entry(owner.to_string()).or_default().connected.up();
        self.totals.connected.up();
        self.log.push(now, Event::RunnerConnected { runner: id, owner });
        self.idle(id, now);
        Ok(Welcome {
            session,
            lease_ms: lease,
        })
    }

    /// A request of the runner is held open from now on; the bell rings when it should look again.
    pub fn open(&mut self, session: &str) -> Option<Arc<Notify>> {
        let runner = self.sessions.get(session).and_then(|id| self.runners.get_mut(id))?;
        runner.session.as_mut()?.open += 1;
        Some(runner.bell.clone())
    }

    /// The request is over, answered or cut.
    pub fn close(&mut self, session: &str, now: Ms) {
        let lease = self.settings.lease_ms;
        let runner = self.sessions.get(session).and_then(|id| self.runners.get_mut(id));
        if let Some(session) = runner.and_then(|runner| runner.session.as_mut()) {
            session.open = session.open.saturating_sub(1);
            session.lease_until = now + lease;
        }
    }

    /// The runner asks for its job; with that, the job is in progress. Asked again, the answer is the same.
    pub fn poll(&mut self, session: &str, now: Ms) -> Polled {
        let Some(runner) = self.sessions.get(session).and_then(|id| self.runners.get_mut(id)) else {
            return Polled::Gone;
        };
        let id = match runner.work {
            Work::Idle => return Polled::Nothing,
            Work::Spent => return Polled::Gone,
            Work::Running(job) => return Polled::Job(self.order(job, false)),
            Work::Assigned(job) => job,
        };
        runner.work = Work::Running(id);
        let scope = runner.scope.clone();
        let runner = RunnerRef {
            id: runner.id,
            name: runner.name.clone(),
            group_id: runner.group_id,
            group_name: runner.group_name.clone(),
        };
        self.begin(id, runner, now);
        let dies = self.faults.runner(&mut self.rng, &scope, Kind::RunnerDies).is_some();
        Polled::Job(self.order(id, dies))
    }

    fn order(&self, job: u64, dies: bool) -> Order {
        let duration_ms = self.jobs.get(&job).map_or(0, |job| job.facts.duration);
        Order {
            job_id: job,
            duration_ms,
            die_after_ms: dies.then_some(duration_ms / 2),
        }
    }

    /// The runner asks whether its job is still wanted.
    pub fn watch(&self, session: &str) -> Watched {
        let Some(runner) = self.sessions.get(session).and_then(|id| self.runners.get(id)) else {
            return Watched::Gone;
        };
        match runner.work {
            Work::Running(job) if self.jobs.get(&job).is_some_and(|job| job.cancelled) => Watched::Cancelled,
            Work::Running(_) => Watched::Running,
            Work::Idle | Work::Assigned(_) | Work::Spent => Watched::Gone,
        }
    }

    /// The runner is done with its job, and with that goes its registration. False when it has no such session or job.
    pub fn done(&mut self, session: &str, now: Ms) -> bool {
        let Some(id) = self.sessions.get(session).copied() else {
            return false;
        };
        let Some(Work::Running(job)) = self.runners.get(&id).map(|runner| runner.work) else {
            return false;
        };
        let conclusion = match self.jobs.get(&job) {
            Some(job) if job.cancelled => Conclusion::Cancelled,
            Some(job) => job.facts.outcome,
            None => Conclusion::Success,
        };
        self.finish(id, job, conclusion, now);
        true
    }

    /// The runner was told to stop, and says so: its job fails at once, and an idle one is offline.
    pub fn bye(&mut self, session: &str, now: Ms) {
        let Some(id) = self.sessions.get(session).copied() else {
            return;
        };
        match self.runners.get(&id).map(|runner| runner.work) {
            Some(Work::Running(job)) => self.finish(id, job, Conclusion::Failure, now),
            _ => self.go_offline(id, now),
        }
    }

    fn finish(&mut self, runner: u64, job: u64, conclusion: Conclusion, now: Ms) {
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.work = Work::Spent;
        }
        self.complete(job, conclusion, now);
        self.remove_runner(runner, "job done", now);
    }
}
