//! A store of each test's own, with the clock in the test's hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jit_core::{
    config::LimitsSettings,
    event::{JobEvent, JobId},
    ledger::{Answer, AnswerStatus, Claim, Due, Explanation, Ledger, Observation},
    store::{self, RedisSettings},
};

use crate::{default_limits, fresh_redis, maker};

/// A ledger on a Redis of its own, and its clock.
pub struct Store {
    /// The ledger.
    pub ledger: Ledger,
    /// The ledger's clock, in ms.
    pub clock: Arc<AtomicI64>,
    /// Where it lies.
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

    /// Configured with other limits and deadlines, and open.
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

    /// The ledger's time, in ms.
    pub fn time(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// Applies an event, a millisecond after what was before.
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

    /// Takes what is due after so many ms.
    pub async fn due_after(&self, ms: i64) -> Due {
        self.pass(ms);
        self.ledger.due(64, Duration::from_secs(60)).await.expect("due")
    }

    /// A job's state; empty where there is no such job.
    pub async fn state(&self, job: u64) -> String {
        self.ledger
            .job(JobId::new(job).unwrap())
            .await
            .unwrap()
            .and_then(|job| job.state)
            .map(|state| state.to_string())
            .unwrap_or_default()
    }

    /// A runner's state; empty where there is no such runner.
    pub async fn runner_state(&self, name: &str) -> String {
        self.ledger
            .runner(name)
            .await
            .unwrap()
            .and_then(|runner| runner.state)
            .map(|state| state.to_string())
            .unwrap_or_default()
    }

    /// Fails when an invariant does not hold.
    pub async fn assert_sound(&self) {
        let report = self.ledger.doctor().await.expect("examined");
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

/// Why a job waits.
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
