//! One stack a test, and the eyes that look at it from the outside: the API server's pods and GitHub's summary.

use std::time::{Duration, Instant};

use jit_harness::stack::{self, Backend, Options, Stack, load};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};

/// So long the system may take on a busy machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(180);

/// Deadlines that suit a test: what takes minutes in production takes seconds. Each can be set by an operator, too.
pub fn brisk() -> Vec<(String, String)> {
    [
        ("DISPATCH_INTERVAL", "1s"),
        ("CLEANUP_INTERVAL", "3s"),
        ("SYNC_INTERVAL", "5s"),
        ("IDLE_CHECK", "3s"),
        ("SURPLUS_GRACE", "3s"),
        ("IDLE_TIMEOUT", "10s"),
        ("MISFIT_HOLD", "2s"),
        ("QUESTION_DELAY", "1s"),
        ("UNCERTAIN_INTERVAL", "2s"),
        ("GITHUB_TIMEOUT", "5s"),
        ("BACKEND_TIMEOUT", "3s"),
        ("LOG_LEVEL", "DEBUG"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A stack whose runners are pods, with brisk deadlines and this further environment.
pub fn kubernetes(orgs: usize, workers: usize, env: &[(&str, &str)]) -> Options {
    let env = brisk()
        .into_iter()
        .chain(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .collect();
    Options {
        orgs,
        workers,
        backend: Backend::Kubernetes,
        env,
        ..Options::default()
    }
}

/// The number at a JSON pointer.
pub fn number(value: &Value, pointer: &str) -> u64 {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer} in {value}"))
}

/// Counts live pods by organization as the API server tells of them, and keeps the most at once.
#[derive(Clone)]
pub struct PodCount(stack::PodCount);

impl PodCount {
    /// Counts from now on.
    pub async fn watch(namespace: &str) -> Self {
        Self(
            stack::PodCount::watch(namespace, |_| usize::MAX, usize::MAX)
                .await
                .unwrap(),
        )
    }

    /// Fails when an organization, or the whole, ever had more pods than allowed.
    pub fn assert_within(&self, limit: usize, maximum: usize) {
        let over: Vec<_> = self.0.most().into_iter().filter(|(_, most)| *most > limit).collect();
        assert!(over.is_empty(), "over the limit of {limit}: {over:?}");
        assert!(
            self.0.most_in_all() <= maximum,
            "{} pods at once, {maximum} are allowed",
            self.0.most_in_all()
        );
        assert!(self.0.seen() > 0, "no pod was ever seen: the watch is blind");
    }

    /// How many pods there were.
    pub fn pods_seen(&self) -> usize {
        self.0.seen()
    }

    /// The most pods at once.
    pub fn most_in_all(&self) -> usize {
        self.0.most_in_all()
    }
}

/// Creates short jobs, spread over the organizations.
pub async fn send(stack: &Stack, jobs: usize, orgs: usize, labels: impl Fn(usize) -> Vec<&'static str>) {
    for first in (0..jobs).step_by(100) {
        let wave = (first..jobs.min(first + 100)).map(|n| {
            json!({ "org": load::org(1 + (n * 7) % orgs), "repo": format!("app-{}", n % 3), "labels": labels(n),
                "duration_ms": 50 + (n * 37) % 400 })
        });
        stack.create_jobs(&Value::from(wave.collect::<Vec<_>>())).await.unwrap();
    }
}

/// Waits until so many jobs are over at GitHub and nothing is left: no runner, no pod, no Secret, nothing live or
/// queued in the ledger.
pub async fn settle(stack: &Stack, jobs: u64) -> Value {
    let began = Instant::now();
    loop {
        let summary = stack.summary().await.unwrap();
        let over =
            number(&summary, "/jobs/success") + number(&summary, "/jobs/failure") + number(&summary, "/jobs/cancelled");
        let left = leftovers(stack, &summary).await;
        if over >= jobs && left.is_empty() {
            return summary;
        }
        if began.elapsed() > PATIENCE {
            let doctor = stack.jitctl(&["doctor"]).await;
            let runners = stack.jitctl(&["runners"]).await;
            for part in &stack.parts {
                eprintln!("--- {}\n{}", part.name(), part.log_tail());
            }
            panic!("{over} of {jobs} jobs are over, left: {left:?}\n{summary}\n{doctor:?}\n{runners:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn leftovers(stack: &Stack, summary: &Value) -> Vec<String> {
    let mut left = Vec::new();
    let ledger = stack.ledger().await.unwrap_or_default();
    for (name, count) in [
        ("runners at GitHub", summary["leftovers"]["runners"].as_u64()),
        ("live in the ledger", ledger["total_running"].as_u64()),
        ("queued in the ledger", ledger["total_pending"].as_u64()),
    ] {
        if count != Some(0) {
            left.push(format!("{name}: {count:?}"));
        }
    }
    if let (true, Some(namespace)) = (left.is_empty(), &stack.namespace) {
        let client = Client::try_default().await.unwrap();
        let pods = Api::<Pod>::namespaced(client.clone(), namespace)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len();
        let secrets = Api::<Secret>::namespaced(client, namespace)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len();
        if pods + secrets > 0 {
            left.push(format!("{pods} pods, {secrets} Secrets"));
        }
    }
    left
}

/// Waits for the end and looks at it from every side: each job ran exactly once, no limit was exceeded, the invariants
/// hold, nothing is left.
pub async fn prove(stack: Stack, pods: &PodCount, jobs: usize, limit: usize, maximum: usize) {
    let summary = settle(&stack, jobs as u64).await;
    assert_all_ran_once(&summary, jobs as u64);
    pods.assert_within(limit, maximum);
    assert_sound(&stack).await;
    stack.stop().await;
}

/// The invariants hold on the live store.
pub async fn assert_sound(stack: &Stack) {
    let report = stack.jitctl(&["doctor"]).await.unwrap();
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report:#}");
}

/// Each job ran exactly once.
pub fn assert_all_ran_once(summary: &Value, jobs: u64) {
    assert_eq!(number(summary, "/jobs/created"), jobs, "{summary:#}");
    assert_eq!(number(summary, "/jobs/run"), jobs, "lost: {summary:#}");
    assert_eq!(number(summary, "/jobs/run_twice"), 0, "twice: {summary:#}");
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not after three minutes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
