//! A worker's own loops on a real Redis, the simulated GitHub and a backend of the test's. The ledger's clock is the
//! test's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use jit_core::{
    class::Class,
    event::{JobEvent, JobId},
    ledger::{Explanation, Ledger},
    store,
};
use jit_simulator::github::{
    self, Hook, Options, Running,
    app::{AppState, public_key},
    faults::Fault,
    hooks::HookKind,
};
use jit_testing::{fresh_redis, queued};
use jit_worker::{
    Worker,
    calls::Calls,
    config::Args,
    credentials::Keeper,
    loops::{observe, reconcile, upkeep},
    metrics::Metrics,
    provision,
    rates::Rates,
    search,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::yard::Yard;

/// What is not there: webhooks come to nothing.
const NOWHERE: &str = "http://127.0.0.1:9/webhook";
/// A call of GitHub may take so long.
pub const TIMEOUT: Duration = Duration::from_secs(1);

pub struct Rig {
    pub worker: Arc<Worker>,
    pub github: Running,
    pub yard: Yard,
    clock: Arc<AtomicI64>,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn app_key(name: &str) -> String {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/github/tests/common")
        .join(name)
        .display()
        .to_string()
}

impl Rig {
    pub async fn start(app: bool) -> Self {
        let redis = fresh_redis();
        let directory = tempfile::tempdir().unwrap();
        let hook = Hook {
            url: Some(NOWHERE.to_owned()),
            secret: "a-secret".to_owned().into(),
        };
        let settings = github::Settings {
            rate_limit: Some(5000),
            payload_bytes: 1000,
            ..github::Settings::default()
        };
        let github = github::start(Options {
            settings,
            ..Options::local("a-token", Some(hook))
        })
        .await
        .unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let mut arguments = vec![
            "test".to_owned(),
            "--redis-url".into(),
            redis.url.clone(),
            "--ghes-url".into(),
            github.url.clone(),
        ];
        let timeout = format!("{}s", TIMEOUT.as_secs());
        let own = [
            ("--github-timeout", timeout.as_str()),
            ("--webhook-url", NOWHERE),
            ("--runner-backend", "process"),
            ("--runner-command", "true"),
        ];
        // By default once an hour, and twice before one goes.
        let strays = [("--stray-interval", "2m"), ("--stray-confirm", "2m")];
        // So few repositories need no more.
        let calls = [("--recovery-calls-per-hour", "200")];
        let own = own
            .into_iter()
            .chain(strays)
            .chain(calls)
            .chain([("--runner-directory", directory.path().to_str().unwrap())]);
        arguments.extend(own.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]));
        if app {
            arguments.extend([
                "--github-app-id".into(),
                "4711".into(),
                "--github-app-private-key-file".into(),
                app_key("app-pkcs1.pem"),
            ]);
        } else {
            arguments.extend(["--github-pat-file".into(), file("token", "a-token")]);
        }
        let settings = Args::parse_from(arguments).resolve().unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let clock = Arc::new(AtomicI64::new(i64::try_from(now.as_millis()).unwrap()));
        let ledger = Ledger::new(store::pool(&redis).unwrap()).with_clock(clock.clone());
        ledger.configure(&settings.limits).await.unwrap();
        let ((metrics, _), rates) = (Metrics::register(), Rates::default());
        let calls = Calls::new("worker", &ledger, settings.budget, &metrics);
        let (_, credentials) = Keeper::new(&settings, &metrics, &rates, &calls).unwrap();
        let yard = Yard::default();
        let worker = Arc::new(Worker::new(
            "worker".into(),
            &settings,
            ledger,
            credentials,
            rates,
            Arc::new(yard.clone()),
            metrics,
        ));
        let stop = CancellationToken::new();
        tokio::spawn(provision::run(worker.clone(), stop.clone()));
        tokio::spawn(observe::run(worker.clone(), stop.clone()));
        reconcile::once(&worker).await.unwrap();
        let rig = Self {
            worker,
            github,
            yard,
            clock,
            stop,
            _directory: directory,
        };
        for org in ["sick", "healthy"] {
            rig.github.with(|server, now| {
                assert!(
                    server
                        .add_owner(org, jit_simulator::github::model::OwnerKind::Organization)
                        .is_ok()
                );
                server.add_repository(org, "app");
                server.set_group(Some(org), "builders", None, false).unwrap();
                server.set_hook(org, None, HookKind::Organization, 0).unwrap();
                if app {
                    server.set_app(
                        "4711",
                        public_key(&std::fs::read_to_string(app_key("app-public.pem")).unwrap()).unwrap(),
                    );
                    server.set_installation(org, AppState::Installed, now).unwrap();
                }
            });
        }
        rig
    }

    /// A job of this organization, at GitHub and here.
    pub async fn job(&self, org: &str, group: &str, label: Option<String>) -> u64 {
        let labels: Vec<String> = std::iter::once("code-linux".to_owned()).chain(label).collect();
        let spec = serde_json::from_value(json!({ "org": org, "repo": "app", "labels": labels })).unwrap();
        let id = self.github.with(|server, now| server.create_jobs(&spec, now).unwrap())[0];
        let mut event: JobEvent = queued(id, org);
        if let Some(class) = &mut event.class {
            class.labels = Class::normalize_labels(&labels);
            class.group = group.to_owned();
        }
        self.worker.ledger.apply(&event, Some(self.now())).await.unwrap();
        id
    }

    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn clock(&self) -> Arc<AtomicI64> {
        self.clock.clone()
    }

    /// A registration that nobody here owns.
    pub async fn stray(&self, org: &str) {
        let scope: jit_github::Scope = format!("orgs/{org}").parse().unwrap();
        let request = jit_github::JitRequest {
            name: "jit-runner-77-1".into(),
            runner_group_id: 1,
            labels: vec!["code-linux".into()],
            work_folder: None,
        };
        let client = self.worker.github.of(&scope).unwrap().client;
        client.generate_jit_config(&scope, &request, TIMEOUT).await.unwrap();
    }

    /// GitHub refuses from now on.
    pub fn fault(&self, fault: Value) {
        let fault: Fault = serde_json::from_value(fault).unwrap();
        self.github.with(|server, _| server.faults.add(fault));
    }

    /// How often a fault that lasts, or the backend, has refused.
    pub fn refused(&self) -> u64 {
        let lasting = |fault: &&Fault| fault.count.is_none();
        self.yard.refused()
            + self.github.with(|server, _| {
                server
                    .faults
                    .list()
                    .iter()
                    .filter(lasting)
                    .map(|fault| fault.struck)
                    .sum::<u64>()
            })
    }

    pub fn registrations(&self, org: &str) -> u64 {
        let summary = serde_json::to_value(self.github.summary()).unwrap();
        summary["orgs"][org]["jit_requests"].as_u64().unwrap_or(0)
    }

    pub async fn why(&self, job: u64) -> Explanation {
        self.worker.ledger.explain(JobId::new(job).unwrap()).await.unwrap()
    }

    /// Lets this many seconds pass, and all happen that is due then.
    pub async fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
        self.yard.end_programs();
        self.settle().await;
    }

    /// A minute's tick: the real runners are counted, and what never came is looked for.
    pub async fn minute(&self, recovery: bool) {
        if let Err(error) = reconcile::once(&self.worker).await {
            assert!(error.to_string().contains(crate::yard::WORDS), "{error:#}");
        }
        if recovery {
            search::one(&self.worker, &self.stop).await.unwrap();
        }
    }

    /// Waits until nothing is in hand and nothing is due.
    pub async fn settle(&self) {
        loop {
            let before = self.activity();
            self.worker.admit().await;
            self.until_made().await;
            upkeep::once(&self.worker).await.unwrap();
            self.until_made().await;
            if self.activity() == before {
                return;
            }
        }
    }

    fn activity(&self) -> (u64, u64) {
        (self.yard.calls(), self.github.summary().runners.rest_calls)
    }

    /// Waits until each reservation is worked off, and what the watch has told.
    async fn until_made(&self) {
        for _ in 0..60_000 {
            let mut connection = self.worker.ledger.pool().get().await.unwrap();
            let reservations: u64 = redis::cmd("XLEN")
                .arg("jit:provision")
                .query_async(&mut connection)
                .await
                .unwrap();
            if reservations == 0 && self.yard.is_quiet() {
                return;
            }
            drop(connection);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("a reservation is in hand for minutes");
    }
}
