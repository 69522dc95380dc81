//! A real Redis for each test binary, and a store of its own for each test.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use jit_core::{
    class::Class,
    config::{LimitsArgs, LimitsSettings, Problems, RedisSettings},
    event::{Action, Identity, JobEvent, JobId},
    ledger::{
        Answer, AnswerStatus, BackOff, Claim, Due, Explanation, Failure, Growth, Hold, Ledger, Listed, ListedSpec,
        Maker, Needs, Observation, Registration, Subject,
    },
    store,
};

mod shared_redis;
pub use shared_redis::fresh_redis;

/// The default limits and deadlines.
pub fn default_limits() -> LimitsSettings {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        limits: LimitsArgs,
    }
    let mut problems = Problems::default();
    let limits = Cli::parse_from(["test"]).limits.resolve(&mut problems);
    problems.finish(limits).expect("the defaults are valid")
}

pub struct Store {
    pub ledger: Ledger,
    pub clock: Arc<AtomicI64>,
    pub redis: RedisSettings,
}

impl Store {
    /// Configured, and not yet open for admission.
    pub async fn empty() -> Self {
        Self::build(|_| {}).await
    }

    /// Configured and open.
    pub async fn open() -> Self {
        Self::with_limits(|_| {}).await
    }

    pub async fn with_limits(change: impl FnOnce(&mut LimitsSettings)) -> Self {
        let store = Self::build(change).await;
        store.ledger.reconcile(store.time(), &[]).await.expect("reconciled");
        store
    }

    async fn build(change: impl FnOnce(&mut LimitsSettings)) -> Self {
        let redis = fresh_redis();
        let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
        let ledger = Ledger::new(store::pool(&redis).expect("a pool")).with_clock(clock.clone());
        let mut limits = default_limits();
        change(&mut limits);
        ledger.configure(&limits).await.expect("configured");
        Self { ledger, clock, redis }
    }

    pub fn time(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub async fn apply(&self, event: &JobEvent) {
        self.pass(1);
        self.ledger.apply(event, Some(self.time())).await.expect("applied");
    }

    /// Admits until there is no more room or demand; the reservations that were rung for since the last call.
    pub async fn admit(&self) -> Vec<(String, String)> {
        while self.ledger.admit().await.expect("admitted").more {}
        let mut connection = self.ledger.pool().get().await.unwrap();
        let entries: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg("jit:provision")
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .unwrap();
        let mut reserved = Vec::new();
        for entry in entries.ids {
            reserved.push((entry.get("runner").unwrap(), entry.get("fence").unwrap()));
            let _: i64 = redis::cmd("XDEL")
                .arg("jit:provision")
                .arg(&entry.id)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
        reserved
    }

    /// Walks a reservation through its steps until its program runs.
    pub async fn make(&self, name: &str, fence: &str, github_id: u64) {
        self.create(name, fence, github_id).await;
        self.ledger.observe(Observation::Started, name, "").await.unwrap();
    }

    /// Walks a reservation through its steps until all is there that it needs to start.
    pub async fn create(&self, name: &str, fence: &str, github_id: u64) {
        let timeout = Duration::from_secs(20);
        assert!(matches!(
            self.ledger.claim(name, fence, &maker("w", "default")).await.unwrap(),
            Claim::Ours(_)
        ));
        assert_eq!(
            self.ledger.registered(name, fence, github_id, timeout).await.unwrap(),
            Claim::Ours(())
        );
        assert!(matches!(
            self.ledger.created(name, fence).await.unwrap(),
            Claim::Ours(_)
        ));
    }

    pub async fn due_after(&self, ms: i64) -> Due {
        self.pass(ms);
        self.ledger.due(64, Duration::from_secs(60)).await.expect("due")
    }

    pub async fn state(&self, job: u64) -> String {
        self.ledger
            .job(JobId::new(job).unwrap())
            .await
            .unwrap()
            .unwrap_or_default()
            .remove("state")
            .unwrap_or_default()
    }

    pub async fn runner_state(&self, name: &str) -> String {
        self.ledger
            .runner(name)
            .await
            .unwrap()
            .unwrap_or_else(BTreeMap::new)
            .remove("state")
            .unwrap_or_default()
    }

    pub async fn assert_sound(&self) {
        let report = self.ledger.doctor().await.expect("examined");
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

/// A worker that has 20 s to make a runner, half of it for the pod.
pub fn maker<'a>(worker: &'a str, credential: &'a str) -> Maker<'a> {
    Maker {
        worker,
        claim: 1,
        credential,
        alone: true,
        timeout: Duration::from_secs(20),
        create_timeout: Duration::from_secs(10),
    }
}

/// A step that did not work and left nothing; the first of these backs off for a minute at first, ten at most.
pub fn refused(chain: &'static [Subject], why: &str) -> Failure {
    let (first, most) = (Duration::from_secs(60), Duration::from_secs(600));
    failed(
        BackOff::Hold(Hold {
            chain,
            needs: Needs::Made,
            first,
            most,
            growth: Growth::Doubles,
        }),
        why,
    )
}

/// A step that did not work and left nothing.
pub fn failed(back_off: BackOff, why: &str) -> Failure {
    Failure {
        made: false,
        registration: Registration::None,
        back_off: Some(back_off),
        why: why.into(),
    }
}

/// A runner of an organization that a list has found at work.
pub fn listed(name: &str, org: &str) -> Listed {
    let class = queued(9, org).class.unwrap();
    let spec = ListedSpec {
        org: class.org.clone(),
        scope: class.scope.clone(),
        group: class.group.clone(),
        profile: class.profile.clone(),
        labels: serde_json::json!(class.labels).to_string(),
        job: JobId::new(9).unwrap(),
    };
    Listed {
        class: Some(class.id()),
        spec: Some(spec),
        ..unexplained(name)
    }
}

/// A runner that a list has found, and that says nothing of itself.
pub fn unexplained(name: &str) -> Listed {
    Listed {
        name: name.into(),
        ended: false,
        rejected: false,
        detail: None,
        running: true,
        terminating: false,
        class: None,
        spec: None,
    }
}

fn event(action: Action, job: u64, org: &str) -> JobEvent {
    let class = Class {
        org: org.into(),
        scope: format!("orgs/{org}"),
        group: "default".into(),
        profile: "default".into(),
        labels: vec!["code-linux".into()],
    };
    JobEvent {
        action,
        job: JobId::new(job).expect("a job id"),
        attempt: Some(1),
        org: org.into(),
        repo: format!("{org}/app"),
        class: Some(class),
        runner: None,
        runner_id: None,
        conclusion: None,
        identity: Identity::default(),
    }
}

pub fn queued(job: u64, org: &str) -> JobEvent {
    event(Action::Queued, job, org)
}

pub fn waiting(job: u64, org: &str) -> JobEvent {
    event(Action::Waiting, job, org)
}

pub fn in_progress(job: u64, org: &str, runner: &str, runner_id: u64) -> JobEvent {
    JobEvent {
        runner: Some(runner.into()),
        runner_id: Some(runner_id),
        ..event(Action::InProgress, job, org)
    }
}

pub fn completed(job: u64, org: &str, runner: Option<(&str, u64)>) -> JobEvent {
    JobEvent {
        runner: runner.map(|(name, _)| name.into()),
        runner_id: runner.map(|(_, id)| id),
        conclusion: Some(if runner.is_some() { "success" } else { "cancelled" }.into()),
        ..event(Action::Completed, job, org)
    }
}

pub async fn why(store: &Store, job: u64) -> Explanation {
    store
        .ledger
        .explain(JobId::new(job).expect("an id"))
        .await
        .expect("explained")
}

/// GitHub says of each question that its job is queued still.
pub async fn still_queued(store: &Store, due: &Due) {
    for question in &due.questions {
        let answer = Answer {
            status: AnswerStatus::Queued,
            runner: None,
            runner_id: None,
            conclusion: None,
        };
        store.ledger.answer(question, &answer).await.expect("answered");
    }
}
