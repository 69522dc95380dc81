//! A backend whose answers the test gives. Its runners are entries of a map: what is asked here is what the worker
//! makes of a refusal.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use jit_backend::{Backend, BackendError, Change, Observed, Phase, RunnerSpec, Stopped};
use jit_core::ledger::places::Places;
use secrecy::SecretString;
use tokio::sync::Notify;

/// What a call of the backend is called in the worker's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Start,
    Deliver,
    Stop,
    List,
}

/// How the backend refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Quota,
    Refused,
    Exists,
    Gone,
    Unreachable,
    Unavailable,
}

/// What the other side says; it has to be found in what `jitctl why` says.
pub const WORDS: &str = "a saying of the other side";

impl Refusal {
    fn error(self) -> BackendError {
        let words = WORDS.to_owned();
        match self {
            Self::Quota => BackendError::Quota(words),
            Self::Refused => BackendError::Refused(words),
            Self::Exists => BackendError::Exists,
            Self::Gone => BackendError::Gone(words),
            Self::Unreachable => BackendError::Unreachable(words),
            Self::Unavailable => BackendError::Unavailable(words),
        }
    }
}

/// What becomes of a runner that should start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its program ends at once with this code.
    Exit(u8),
    /// Its node does not take it.
    Rejected,
    /// It says so, and never starts.
    Stuck,
}

struct Runner {
    spec: RunnerSpec,
    phase: Phase,
    rejected: bool,
    detail: Option<String>,
}

/// For the owner whose name begins so: `sick`, and how many times yet.
struct Rule<T> {
    what: T,
    owner: &'static str,
    left: u64,
}

#[derive(Default)]
struct State {
    runners: BTreeMap<String, Runner>,
    changes: VecDeque<Change>,
    /// The watch has been told everything, and waits.
    told: bool,
    refusals: Vec<Rule<(Asked, Refusal)>>,
    ends: Vec<Rule<End>>,
    /// How often the worker was refused.
    refused: u64,
    /// Runners that were asked for, by owner.
    started: BTreeMap<String, u64>,
    /// Jobs whose runners have their configuration.
    delivered: Vec<u64>,
    /// All calls.
    calls: u64,
    /// Runners whose program has started, and how it is about to end.
    ending: Vec<(String, u8)>,
    /// Awaited once when a configuration is delivered.
    delay: Option<Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>>,
}

/// The backend, and what the test does with it.
#[derive(Clone, Default)]
pub struct Yard {
    state: Arc<Mutex<State>>,
    rung: Arc<Notify>,
}

impl Yard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Refuses this to owners whose name begins so, as often as said.
    pub fn refuse(&self, asked: Asked, refusal: Refusal, owner: &'static str, times: u64) {
        self.state().refusals.push(Rule {
            what: (asked, refusal),
            owner,
            left: times,
        });
    }

    /// Has their runners end so, as often as said.
    pub fn end(&self, end: End, owner: &'static str, times: u64) {
        self.state().ends.push(Rule {
            what: end,
            owner,
            left: times,
        });
    }

    /// Time passes: programs that had started, end.
    pub fn end_programs(&self) {
        let mut state = self.state();
        for (name, code) in std::mem::take(&mut state.ending) {
            state.change(&name, |runner| {
                (runner.phase, runner.detail) = (Phase::Ended, Some(format!("exit code {code}: {WORDS}")))
            });
        }
        drop(state);
        self.rung.notify_one();
    }

    /// Refuses nothing any more, and runners start.
    pub fn heal(&self) {
        let mut state = self.state();
        state.refusals.clear();
        state.ends.clear();
    }

    /// Runs this when the next configuration is delivered, before the answer.
    pub fn delay_next_delivery(&self, wait: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static) {
        self.state().delay = Some(Box::new(wait));
    }

    /// A runner that nobody asked for is there.
    pub fn plant(&self, spec: RunnerSpec) {
        self.state().runners.insert(
            spec.name.clone(),
            Runner {
                spec,
                phase: Phase::Running,
                rejected: false,
                detail: None,
            },
        );
    }

    pub fn is_quiet(&self) -> bool {
        let state = self.state();
        state.told && state.changes.is_empty()
    }

    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    pub fn started(&self, owner: &str) -> u64 {
        self.state().started.get(owner).copied().unwrap_or_default()
    }

    pub fn was_delivered(&self, job: u64) -> bool {
        self.state().delivered.contains(&job)
    }

    /// Runners of this owner whose program runs.
    pub fn running(&self, owner: &str) -> usize {
        self.state()
            .runners
            .values()
            .filter(|runner| runner.spec.org == owner && runner.phase == Phase::Running)
            .count()
    }
}

impl State {
    fn refuses(&mut self, asked: Asked, owner: &str) -> Result<(), BackendError> {
        self.calls += 1;
        let rule = self
            .refusals
            .iter_mut()
            .find(|rule| rule.what.0 == asked && rule.left > 0 && owner.starts_with(rule.owner));
        let Some(rule) = rule else { return Ok(()) };
        rule.left -= 1;
        self.refused += 1;
        Err(rule.what.1.error())
    }

    fn ends(&mut self, owner: &str, wanted: impl Fn(End) -> bool) -> Option<End> {
        let rule = self
            .ends
            .iter_mut()
            .find(|rule| wanted(rule.what) && rule.left > 0 && owner.starts_with(rule.owner))?;
        rule.left -= 1;
        self.refused += 1;
        Some(rule.what)
    }

    /// Changes a runner, and tells the watch.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Runner)) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        change(runner);
        let seen = seen(runner);
        self.tell(Change::Seen(seen));
    }

    fn tell(&mut self, change: Change) {
        self.told = false;
        self.changes.push_back(change);
    }
}

fn seen(runner: &Runner) -> Observed {
    let Runner {
        spec,
        phase,
        rejected,
        detail,
    } = runner;
    Observed {
        name: spec.name.clone(),
        phase: *phase,
        rejected: *rejected,
        terminating: false,
        stuck: false,
        spec: Some(spec.clone()),
        detail: detail.clone(),
    }
}

#[async_trait::async_trait]
impl Backend for Yard {
    fn places(&self) -> Places {
        Places::new()
    }

    async fn start(&self, spec: &RunnerSpec) -> Result<(), BackendError> {
        let mut state = self.state();
        *state.started.entry(spec.org.clone()).or_default() += 1;
        state.refuses(Asked::Start, &spec.org)?;
        state.runners.insert(
            spec.name.clone(),
            Runner {
                spec: spec.clone(),
                phase: Phase::Starting,
                rejected: false,
                detail: None,
            },
        );
        if state.ends(&spec.org, |end| end == End::Rejected).is_some() {
            state.change(&spec.name, |runner| {
                (runner.phase, runner.rejected, runner.detail) =
                    (Phase::Ended, true, Some(format!("OutOfcpu: {WORDS}")));
            });
        }
        drop(state);
        self.rung.notify_one();
        Ok(())
    }

    async fn deliver(&self, spec: &RunnerSpec, _: &SecretString) -> Result<(), BackendError> {
        let delay = self.state().delay.take();
        if let Some(delay) = delay {
            delay().await;
        }
        let mut state = self.state();
        state.refuses(Asked::Deliver, &spec.org)?;
        match state.runners.get(&spec.name) {
            None => return Err(BackendError::Gone("not there".into())),
            Some(runner) if runner.phase == Phase::Ended => return Err(BackendError::Gone("ended".into())),
            Some(_) => {}
        }
        state.delivered.push(spec.job);
        match state.ends(&spec.org, |end| end != End::Rejected) {
            Some(End::Stuck) => state.change(&spec.name, |runner| {
                runner.detail = Some(format!("ImagePullBackOff: {WORDS}"))
            }),
            Some(End::Exit(code)) => {
                state.ending.push((spec.name.clone(), code));
                state.change(&spec.name, |runner| runner.phase = Phase::Running);
            }
            _ => state.change(&spec.name, |runner| runner.phase = Phase::Running),
        }
        drop(state);
        self.rung.notify_one();
        Ok(())
    }

    async fn may_deliver(&self, spec: &RunnerSpec) -> Result<(), BackendError> {
        let mut state = self.state();
        let wanted =
            |rule: &Rule<(Asked, Refusal)>| matches!(rule.what, (Asked::Deliver, Refusal::Refused | Refusal::Quota));
        if state
            .refusals
            .iter()
            .any(|rule| wanted(rule) && spec.org.starts_with(rule.owner))
        {
            state.refuses(Asked::Deliver, &spec.org)
        } else {
            Ok(())
        }
    }

    async fn stop(&self, name: &str) -> Result<Stopped, BackendError> {
        let mut state = self.state();
        let owner = state.runners.get(name).map(|runner| runner.spec.org.clone());
        state.refuses(Asked::Stop, owner.as_deref().unwrap_or_default())?;
        let stopped = if state.runners.remove(name).is_some() {
            Stopped::Ending
        } else {
            Stopped::Absent
        };
        if stopped == Stopped::Ending {
            state.tell(Change::Gone(name.to_owned()));
        }
        drop(state);
        self.rung.notify_one();
        Ok(stopped)
    }

    async fn list(&self) -> Result<Vec<Observed>, BackendError> {
        let mut state = self.state();
        state.refuses(Asked::List, "")?;
        Ok(state.runners.values().map(seen).collect())
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        let yard = self.clone();
        let next = move |()| {
            let yard = yard.clone();
            async move {
                loop {
                    {
                        let mut state = yard.state();
                        if let Some(change) = state.changes.pop_front() {
                            return Some((change, ()));
                        }
                        state.told = true;
                    }
                    yard.rung.notified().await;
                }
            }
        };
        futures::stream::unfold((), next).boxed()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}
