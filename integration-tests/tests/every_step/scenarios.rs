//! What makes a worker reach a step: most are reached by any job, the others by something that goes wrong.

use std::{process::ExitStatus, time::Duration};

use integration_tests::until;
use jit_harness::stack::{Stack, load};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

/// Deadlines that let a test wait for what takes minutes in production.
pub const PACE: [(&str, &str); 24] = [
    ("MAX_RUNNERS_PER_ORG", "2"),
    ("WORKER_HEARTBEAT", "400ms"),
    ("WORKER_DEAD_AFTER", "2s"),
    ("UPKEEP_LEASE", "3s"),
    ("EVENTS_HELD", "3s"),
    ("RESERVATIONS_HELD", "4s"),
    ("RESERVE_TIMEOUT", "10s"),
    ("CLEANUP_INTERVAL", "1s"),
    ("DISPATCH_INTERVAL", "500ms"),
    ("SYNC_INTERVAL", "2s"),
    ("START_TIMEOUT", "4s"),
    ("START_BACKOFF", "1s"),
    ("SURPLUS_GRACE", "1s"),
    ("UNCERTAIN_INTERVAL", "1s"),
    ("QUESTION_DELAY", "300ms"),
    ("BUSY_RECHECK", "3s"),
    ("GITHUB_TIMEOUT", "3s"),
    ("BACKEND_TIMEOUT", "3s"),
    ("RECOVER_INTERVAL", "1s"),
    ("RECOVERY_CALLS_PER_HOUR", "1000000"),
    ("REDISCOVER_INTERVAL", "1s"),
    ("REREAD_INTERVAL", "1s"),
    ("STRAY_INTERVAL", "1s"),
    ("STRAY_CONFIRM", "1s"),
];

/// The one worker's part: whoever is killed is followed by another process of the same name.
const WORKER: &str = "worker-1";

/// A worker that says that it lives, and does nothing.
const GHOST: &str = "ghost";

/// A key of the App that the simulated GitHub knows.
pub fn app_key(name: &str) -> String {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/github/tests/common")
        .join(name)
        .display()
        .to_string()
}

/// One step, in an organization of its own.
pub struct Run<'a> {
    pub stack: &'a mut Stack,
    pub step: String,
    /// Step that the worker which runs now dies at.
    armed: String,
    pub org: String,
    /// Jobs that were created, and of them those that were cancelled before they ran.
    pub jobs: u64,
    pub cancelled: u64,
}

impl<'a> Run<'a> {
    pub fn new(stack: &'a mut Stack, step: &str, number: usize) -> Self {
        Self {
            stack,
            step: step.to_owned(),
            armed: String::new(),
            org: load::org(number),
            jobs: 0,
            cancelled: 0,
        }
    }

    /// Does what makes a worker reach the step, and waits until it has died there.
    pub async fn play(&mut self) {
        match self.step.clone().as_str() {
            "intake.taken_over" => {
                self.arm("intake.applied").await;
                self.job(200).await;
                self.killed().await;
                self.arm_here().await;
            }
            "intake.suspect_taken" => {
                // One worker dies over the event, and two that take it over, which nothing else may end.
                self.calm().await;
                self.arm("intake.read").await;
                self.job(200).await;
                for _ in 0..2 {
                    self.killed().await;
                    self.arm("intake.taken_over").await;
                }
                self.killed().await;
                self.arm_here().await;
            }
            "provision.taken_over" | "provision.dropped" => {
                self.arm("provision.claimed").await;
                self.job(200).await;
                self.killed().await;
                self.arm_here().await;
            }
            "maintenance.ticks_claimed" | "maintenance.ticks_forgotten" => {
                self.arm("maintenance.tick_read").await;
                self.killed().await;
                self.arm_here().await;
            }
            "maintenance.retired" => {
                self.arm_here().await;
                self.ready().await;
                self.stack.part(WORKER).unwrap().terminate();
            }
            "intake.buried" => self.rubbish("jit:events").await,
            "provision.buried" => self.rubbish("jit:provision").await,
            "intake.taken_up" => {
                self.idle().await;
                self.job(200).await;
                self.held_by_a_ghost("jit:events").await;
            }
            "provision.taken_up" => {
                self.arm("admission.reserved").await;
                self.job(200).await;
                self.killed().await;
                self.held_by_a_ghost("jit:provision").await;
            }
            "credentials.renewed" => {
                self.arm_here().await;
                self.ready().await;
                // Another token, which GitHub knows as well.
                self.stack
                    .post(
                        &format!("{}/_control/tokens", self.stack.github_url),
                        &json!({ "token": "another" }),
                    )
                    .await
                    .unwrap();
                std::fs::write(self.stack.dir().join("token"), "another").unwrap();
            }
            "admission.reaped" => self.surplus().await,
            "provision.failed" | "upkeep.removed_unregistered" => {
                self.refused(&json!({ "fault": "rest_status", "status": 409 })).await
            }
            "upkeep.registration_found" => self.refused(&json!({ "fault": "rest_cut" })).await,
            "provision.late_runner_deleted" | "provision.late_pod_stopped" => self.late().await,
            "upkeep.found_busy" => self.busy().await,
            "upkeep.leased" | "upkeep.registration_deleted" | "upkeep.pod_stopped" | "upkeep.removed" => {
                self.never_starts().await
            }
            "upkeep.postponed" => {
                self.github(json!({ "fault": "rest_status", "endpoint": "delete_runner", "status": 500, "count": 1 }))
                    .await;
                self.never_starts().await;
            }
            "upkeep.repository_asked" => {
                self.github(json!({ "fault": "rest_status", "endpoint": "get_job", "status": 404, "count": 1 }))
                    .await;
                self.unheard().await;
            }
            "upkeep.unanswered" => {
                self.github(json!({ "fault": "rest_status", "endpoint": "get_job", "status": 500, "count": 1 }))
                    .await;
                self.unheard().await;
            }
            "upkeep.job_asked" | "upkeep.answered" | "upkeep.doubt_settled" => self.unheard().await,
            "reconcile.stopped" => self.stray_pod().await,
            "recover.app_hook_read" | "recover.installations_listed" => self.as_an_app().await,
            "recover.new_queued" => {
                self.arm_here().await;
                self.job(200).await; // in a repository that is heard of for the first time
            }
            "recover.rest_read" | "recover.moved" | "recover.left" | "recover.moved_away" => {
                self.of_a_credential_that_is_gone().await
            }
            step if step.starts_with("recover.") => self.never_came(step).await,
            _ => {
                self.arm_here().await;
                self.job(200).await;
            }
        }
        self.killed().await;
        let _: () = redis::cmd("ZREM")
            .arg("workers:alive")
            .arg(GHOST)
            .query_async(&mut self.redis().await)
            .await
            .unwrap();
    }

    /// Ends the worker that is there, and starts another that dies at a step.
    async fn arm(&mut self, step: &str) {
        step.clone_into(&mut self.armed);
        let worker = self.stack.part(WORKER).unwrap();
        worker.kill().await;
        worker.set_env("JIT_KILL_AT", Some(step));
        worker.spawn().await.unwrap();
    }

    async fn arm_here(&mut self) {
        self.arm(&self.step.clone()).await;
    }

    /// A worker that does not die ends all that is under way.
    async fn calm(&mut self) {
        self.arm("nowhere").await;
        until("nothing is under way", async || {
            let ledger = self.stack.ledger().await.unwrap_or_default();
            let runners = self.stack.jitctl(&["runners"]).await.unwrap_or_default();
            let events: u64 = redis::cmd("XLEN")
                .arg("jit:events")
                .query_async(&mut self.redis().await)
                .await
                .unwrap();
            // One whose maker died keeps its slot for a while, and does nothing more.
            let over = runners
                .as_object()
                .is_some_and(|runners| runners.values().all(|runner| runner["state"] == "removing"));
            over && ledger["total_pending"] == 0 && events == 0
        })
        .await;
    }

    /// No worker runs.
    async fn idle(&mut self) {
        self.stack.part(WORKER).unwrap().kill().await;
    }

    async fn ready(&mut self) {
        until("the worker is ready", async || {
            self.stack
                .parts
                .iter()
                .any(|part| part.name() == WORKER && part.log_since_start().contains("worker started"))
        })
        .await;
    }

    /// Waits until the armed worker is dead: by SIGKILL, at its step.
    async fn killed(&mut self) {
        let began = std::time::Instant::now();
        let worker = self.stack.part(WORKER).unwrap();
        let status: ExitStatus = loop {
            if let Some(status) = worker.ended() {
                break status;
            }
            assert!(
                began.elapsed() < Duration::from_secs(40),
                "{}: not reached within 40 s; the step needs a scenario\n{}",
                self.step,
                worker.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let log = worker.log_since_start();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{}: {status}\n{}",
            self.step,
            worker.log_tail()
        );
        // Another task may write a line between this one and the signal.
        let killed = format!("killed at {}", self.armed);
        assert!(
            log.lines().any(|line| line == killed),
            "{}: it died elsewhere\n{}",
            self.step,
            worker.log_tail()
        );
    }

    async fn job(&mut self, duration_ms: u64) -> u64 {
        self.jobs += 1;
        self.stack
            .create_jobs(&json!({ "org": self.org, "labels": ["code-linux"], "duration_ms": duration_ms }))
            .await
            .unwrap()[0]
    }

    async fn github(&self, mut fault: Value) {
        fault["org"] = json!(self.org);
        self.stack.github_faults(&fault).await.unwrap();
    }

    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        self.stack.redis().await.unwrap()
    }

    /// The organization's runner in the ledger, once it is there and fits.
    async fn runner(&self, what: &str, fits: impl Fn(&Value) -> bool) -> String {
        let name = std::sync::Mutex::new(String::new());
        until(what, async || {
            let runners = self
                .stack
                .jitctl(&["runners", "--org", &self.org])
                .await
                .unwrap_or_default();
            let Some((found, _)) = runners
                .as_object()
                .and_then(|runners| runners.iter().find(|(_, info)| fits(info)))
            else {
                return false;
            };
            found.clone_into(&mut name.lock().unwrap());
            true
        })
        .await;
        name.into_inner().unwrap()
    }

    /// An entry that nobody can read.
    async fn rubbish(&mut self, stream: &str) {
        self.arm_here().await;
        let _: String = redis::cmd("XADD")
            .arg(stream)
            .arg("*")
            .arg("v")
            .arg("1")
            .arg("what")
            .arg("rubbish")
            .query_async(&mut self.redis().await)
            .await
            .unwrap();
    }

    /// What is in the stream is in the hands of a worker that lives and does nothing.
    async fn held_by_a_ghost(&mut self, stream: &str) {
        until("a ghost holds the entry", async || {
            let mut redis = self.redis().await;
            let _: () = redis::cmd("ZADD")
                .arg("workers:alive")
                .arg(4_000_000_000_000_u64)
                .arg(GHOST)
                .query_async(&mut redis)
                .await
                .unwrap();
            let _: redis::Value = redis::cmd("XREADGROUP")
                .arg("GROUP")
                .arg("workers")
                .arg(GHOST)
                .arg("STREAMS")
                .arg(stream)
                .arg(">")
                .query_async(&mut redis)
                .await
                .unwrap();
            let _: redis::Value = redis::cmd("XAUTOCLAIM")
                .arg(stream)
                .arg("workers")
                .arg(GHOST)
                .arg(0)
                .arg(0)
                .query_async(&mut redis)
                .await
                .unwrap();
            let pending: Vec<redis::Value> = redis::cmd("XPENDING")
                .arg(stream)
                .arg("workers")
                .arg("-")
                .arg("+")
                .arg(10)
                .arg(GHOST)
                .query_async(&mut redis)
                .await
                .unwrap();
            !pending.is_empty()
        })
        .await;
        self.arm_here().await;
    }

    /// A runner too many: its job is cancelled while its pod starts.
    async fn surplus(&mut self) {
        self.stack
            .kubelet_fault(&json!({ "fault": "never_start", "org": self.org, "count": 1 }))
            .await
            .unwrap();
        self.arm_here().await;
        let job = self.job(200).await;
        self.runner("a runner is made", |runner| runner["state"] == "created")
            .await;
        self.stack
            .post(
                &format!("{}/_control/jobs/{job}/cancel", self.stack.github_url),
                &json!({}),
            )
            .await
            .unwrap();
        self.cancelled += 1;
    }

    /// GitHub does not register a runner, or does not say so.
    async fn refused(&mut self, fault: &Value) {
        let mut fault = fault.clone();
        fault["endpoint"] = json!("generate_jitconfig");
        fault["count"] = json!(1);
        self.github(fault).await;
        self.arm_here().await;
        self.job(200).await;
    }

    /// The runner is given up while GitHub registers it.
    async fn late(&mut self) {
        self.github(json!({ "fault": "rest_slow", "endpoint": "generate_jitconfig", "delay_ms": 2000, "count": 1 }))
            .await;
        self.arm_here().await;
        self.job(200).await;
        let name = self
            .runner("a reservation is taken up", |runner| !runner["claimed_at"].is_null())
            .await;
        self.stack.remove_runner(&name).await.unwrap();
    }

    /// A runner at work is to be removed.
    async fn busy(&mut self) {
        self.arm_here().await;
        self.job(4000).await;
        let name = self.runner("a runner works", |runner| runner["state"] == "busy").await;
        self.stack.remove_runner(&name).await.unwrap();
    }

    /// A pod that never starts.
    async fn never_starts(&mut self) {
        self.stack
            .kubelet_fault(&json!({ "fault": "never_start", "org": self.org, "count": 1 }))
            .await
            .unwrap();
        self.arm_here().await;
        self.job(200).await;
    }

    /// Neither the start nor the end of the job is told.
    async fn unheard(&mut self) {
        for action in ["in_progress", "completed"] {
            self.github(json!({ "fault": "webhook_drop", "action": action, "count": 1 }))
                .await;
        }
        self.arm_here().await;
        self.job(200).await;
    }

    /// A pod with our labels, and nothing that says whose it is.
    async fn stray_pod(&mut self) {
        let pods: Api<Pod> = Api::namespaced(
            Client::try_default().await.unwrap(),
            self.stack.namespace.as_deref().unwrap(),
        );
        let stray = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "stray", "labels": { "app": "jit-runner",
            "app.kubernetes.io/managed-by": "jit-runner-manager" } },
            "spec": { "containers": [{ "name": "runner", "image": "none" }],
            "volumes": [{ "name": "jit", "secret": { "secretName": "stray" } }] },
        });
        self.arm_here().await;
        pods.create(&PostParams::default(), &serde_json::from_value(stray).unwrap())
            .await
            .unwrap();
    }

    /// A repository stands in the account of a credential that is none any more.
    async fn of_a_credential_that_is_gone(&mut self) {
        self.arm_here().await;
        for (key, member) in [
            ("recover:gone:repos", format!("{}/app", self.org)),
            ("recovery:accounts", "gone".to_owned()),
        ] {
            let _: i64 = redis::cmd("ZADD")
                .arg(key)
                .arg(0)
                .arg(member)
                .query_async(&mut self.redis().await)
                .await
                .unwrap();
        }
        let _: i64 = redis::cmd("ZADD")
            .arg("repos:active")
            .arg(4_000_000_000_000_u64)
            .arg(format!("{}/app", self.org))
            .query_async(&mut self.redis().await)
            .await
            .unwrap();
    }

    /// The worker that dies is a GitHub App; those after it have the token again.
    async fn as_an_app(&mut self) {
        let token = self.stack.dir().join("token").display().to_string();
        let worker = self.stack.part(WORKER).unwrap();
        worker.set_env("GITHUB_APP_ID", Some("4711"));
        worker.set_env("GITHUB_APP_PRIVATE_KEY_FILE", Some(&app_key("app-pkcs1.pem")));
        worker.set_env("GITHUB_PAT_FILE", None);
        self.arm_here().await;
        // These count from the next start on.
        let worker = self.stack.part(WORKER).unwrap();
        worker.set_env("GITHUB_APP_ID", None);
        worker.set_env("GITHUB_APP_PRIVATE_KEY_FILE", None);
        worker.set_env("GITHUB_PAT_FILE", Some(&token));
    }

    /// The webhook of a queued job comes to nothing, and GitHub has a registration that nobody knows.
    async fn never_came(&mut self, step: &str) {
        self.arm_here().await;
        let control = async |what: &str, body: Value| {
            self.stack
                .post(&format!("{}/_control/{what}", self.stack.github_url), &body)
                .await
                .unwrap()
        };
        control("hooks", json!({ "owner": self.org, "kind": "organization" })).await;
        if step == "recover.unlimited_noted" {
            control("rate-limit", json!({ "limit": null })).await; // as most servers that are no github.com
        }
        if step == "recover.hook_missed" {
            self.github(json!({ "fault": "rest_status", "endpoint": "list_deliveries", "status": 404, "count": 1 }))
                .await;
        }
        control("webhook", json!({ "url": "http://127.0.0.1:9/webhook" })).await;
        let job = json!({ "org": self.org, "labels": ["code-linux"], "duration_ms": 2000 });
        let job = self.stack.create_jobs(&job).await.unwrap()[0];
        until("its webhook came to nothing", async || {
            let log = self
                .stack
                .get(&format!("{}/_control/log", self.stack.github_url))
                .await
                .unwrap();
            log["events"]
                .as_array()
                .unwrap()
                .iter()
                .any(|event| event["event"] == "webhook_answered" && event["job"] == job)
        })
        .await;
        control(
            "webhook",
            json!({ "url": format!("{}/webhook", self.stack.receiver_url) }),
        )
        .await;
        let stray = json!({ "name": format!("jit-runner-{job}-stray"), "runner_group_id": 1, "labels": ["nothing"] });
        self.stack
            .github_post(
                &format!("/orgs/{}/actions/runners/generate-jitconfig", self.org),
                &stray,
            )
            .await
            .unwrap();
        self.jobs += 1;
    }
}
