//! Recovery at the size that is promised, with the default settings: 1000 organizations with a webhook and five
//! repositories each, on one token.
//!
//! The clocks of the ledger and of GitHub are the test's, so hours pass in the time that their calls take. Webhooks are
//! lost and doubled, and for an hour there is neither receiver nor worker. All jobs are found, each within the time
//! that the status announces, and never with more calls than are allowed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use clap::Parser;
use jit_backend::process::Process;
use jit_core::{
    event::JobEvent,
    ledger::{
        Ledger,
        recovery::{HookCursor, KnownRuns, Queued, Recovery, RecoverySettings, Round},
    },
    store,
};
use jit_github::{Asked, HookAddress};
use jit_simulator::{
    clock::Clock,
    github::{self, Hook, Options, Running, faults::Fault, hooks::HookKind, jobs::JobSpec},
};
use jit_testing::fresh_redis;
use jit_worker::{Worker, calls::Calls, config::Args, credentials::Keeper, metrics::Metrics, rates::Rates, search};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const ORGANIZATIONS: usize = 1000;
const REPOSITORIES: usize = 5;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

struct Town {
    worker: Arc<Worker>,
    github: Running,
    receiver_url: String,
    ledger_clock: Arc<AtomicI64>,
    github_clock: Arc<AtomicU64>,
    stop: CancellationToken,
    /// Jobs that are to be found: when they were lost, and the longest time that was announced since, s.
    lost: BTreeMap<u64, (i64, u64)>,
    _directory: tempfile::TempDir,
}

/// A job of an organization's repository, as GitHub is told of it.
fn job(org: usize, repo: usize) -> JobSpec {
    serde_json::from_value(
        json!({ "org": format!("org-{:04}", org + 1), "repo": format!("app-{repo}"), "labels": ["code-linux"] }),
    )
    .unwrap()
}

fn fault(value: serde_json::Value) -> Fault {
    serde_json::from_value(value).unwrap()
}

impl Town {
    async fn build() -> Self {
        let start = 1_800_000_000_000_u64;
        let (ledger_clock, github_clock) = (
            Arc::new(AtomicI64::new(i64::try_from(start).unwrap())),
            Arc::new(AtomicU64::new(start)),
        );
        let redis = fresh_redis();
        let stop = CancellationToken::new();
        let directory = tempfile::tempdir().unwrap();

        let secret = directory.path().join("secret");
        std::fs::write(&secret, "a-secret").unwrap();
        let url = redis.url.clone();
        let github_settings = github::Settings {
            orgs: ORGANIZATIONS,
            rate_limit: Some(5000),
            payload_bytes: 1000,
            ..github::Settings::default()
        };
        let hook = Hook {
            url: None,
            secret: "a-secret".to_owned().into(),
        };
        let options = Options {
            settings: github_settings,
            clock: Clock::Manual(github_clock.clone()),
            ..Options::local("a-token", Some(hook))
        };
        let github = github::start(options).await.unwrap();

        let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver_url = format!("http://{}/webhook", receiver.local_addr().unwrap());
        let arguments = jit_receiver::config::ReceiverArgs::parse_from([
            "test",
            "--redis-url",
            &url,
            "--ghes-url",
            &github.url,
            "--webhook-secret-file",
            secret.to_str().unwrap(),
            "--admin-insecure",
            "true",
        ]);
        let app = Arc::new(jit_receiver::app::App::new(arguments.resolve().unwrap(), stop.clone()).unwrap());
        tokio::spawn(jit_receiver::server::serve(receiver, app));

        let token = directory.path().join("token");
        std::fs::write(&token, "a-token").unwrap();
        // The defaults, but for where things are.
        let arguments = Args::parse_from([
            "test",
            "--redis-url",
            &url,
            "--ghes-url",
            &github.url,
            "--github-pat-file",
            token.to_str().unwrap(),
            "--webhook-url",
            &receiver_url,
            "--runner-backend",
            "process",
            "--runner-command",
            "true",
            "--runner-directory",
            directory.path().to_str().unwrap(),
        ]);
        let settings = arguments.resolve().unwrap();
        let ledger = Ledger::new(store::pool(&redis).unwrap()).with_clock(ledger_clock.clone());
        ledger.configure(&settings.limits).await.unwrap();
        ledger
            .reconcile(ledger_clock.load(Ordering::Relaxed), &[])
            .await
            .unwrap();
        let ((metrics, _), rates) = (Metrics::register(), Rates::default());
        let calls = Calls::new("worker", &ledger, settings.budget, &metrics);
        let (_, credentials) = Keeper::new(&settings, &metrics, &rates, &calls).unwrap();
        let backend = Arc::new(Process::new("true", directory.path(), std::time::Duration::from_secs(10)).unwrap());
        let worker = Arc::new(Worker::new(
            "worker".into(),
            &settings,
            ledger,
            credentials,
            rates,
            backend,
            metrics,
        ));
        Self {
            worker,
            github,
            receiver_url,
            ledger_clock,
            github_clock,
            stop,
            lost: BTreeMap::new(),
            _directory: directory,
        }
    }

    fn now(&self) -> i64 {
        self.ledger_clock.load(Ordering::Relaxed)
    }

    fn pass(&self, ms: i64) {
        self.ledger_clock.fetch_add(ms, Ordering::Relaxed);
        self.github_clock
            .fetch_add(u64::try_from(ms).unwrap(), Ordering::Relaxed);
    }

    /// What was learned before: all repositories are known, none of which has had a run, and so are the webhooks, none
    /// of which has told of anything.
    async fn learned(&self) {
        let (ledger, now) = (&self.worker.ledger, self.now());
        let account = self.worker.github.all()[0].account_of(None);
        let client = self.worker.github.all()[0].client.clone();
        let hooks: Vec<u64> = self.github.with(|server, _| {
            let mut hook_of = |org: usize| {
                let owner = format!("org-{:04}", org + 1);
                assert!((0..REPOSITORIES).all(|repo| server.add_repository(&owner, &format!("app-{repo}"))));
                server.set_hook(&owner, None, HookKind::Organization, 0).unwrap()
            };
            (0..ORGANIZATIONS).map(&mut hook_of).collect()
        });
        self.github.set_webhook_url(&self.receiver_url);
        let settings = RecoverySettings {
            interval: self.worker.search.interval,
            calls_per_hour: 1000,
            redelivery: true,
        };
        assert!(
            ledger.recovery_tick(&settings).await.unwrap().open,
            "the first tick of this epoch"
        );
        ledger.owners_walked("0").await.unwrap();
        // Empty answers are the same everywhere, and so is GitHub's mark of them.
        let Asked::News { etag: no_runs, .. } = client.newest_runs("org-0001", "app-0", None).await.unwrap() else {
            panic!()
        };
        let first_hook = HookAddress::Of("orgs/org-0001".parse().unwrap(), hooks[0]);
        let Asked::News {
            etag: no_deliveries, ..
        } = client.deliveries(&first_hook, None, None).await.unwrap()
        else {
            panic!()
        };
        assert!(no_runs.is_some() && no_deliveries.is_some());
        let mut lists = Vec::new();
        for (org, hook) in hooks.into_iter().enumerate() {
            let owner = format!("org-{:04}", org + 1);
            let repos: Vec<(String, i64)> = (0..REPOSITORIES)
                .map(|repo| (format!("{owner}/app-{repo}"), now))
                .collect();
            ledger.discovered(&account, &repos, false).await.unwrap();
            for (name, _) in &repos {
                let known = KnownRuns {
                    etag: no_runs.clone(),
                    over_below: 1,
                };
                ledger
                    .looked_at(&account, Round::Repos, name, Some(now), Some(&known))
                    .await
                    .unwrap();
            }
            let scope: jit_github::Scope = format!("orgs/{owner}").parse().unwrap();
            let address = HookAddress::Of(scope, hook);
            ledger
                .hook_found(&account, &address.to_string(), Some(&owner))
                .await
                .unwrap();
            let cursor = HookCursor {
                read_until: now,
                works: true,
                etag: no_deliveries.clone(),
                ..HookCursor::default()
            };
            ledger
                .keep_hook(&address.to_string(), Some(&cursor), None)
                .await
                .unwrap();
            // What is listed daily and looked at hourly is spread over its time.
            let after =
                |span: i64| now + span * i64::try_from(org + 1).unwrap() / i64::try_from(ORGANIZATIONS).unwrap();
            let queued = |round, item: String, at| Queued {
                at,
                ..Queued::new(&account, round, item)
            };
            lists.push(queued(Round::Lists, format!("repos {owner}"), after(24 * HOUR)));
            lists.push(queued(Round::Lists, format!("hooks orgs/{owner}"), after(24 * HOUR)));
            lists.push(queued(Round::Scopes, format!("orgs/{owner}"), after(HOUR)));
        }
        lists.push(Queued {
            at: now + 24 * HOUR,
            ..Queued::new(&account, Round::Lists, "since 0")
        });
        ledger.enqueue(&lists, &[]).await.unwrap();
        self.pass(MINUTE);
    }

    async fn status(&self) -> Recovery {
        self.worker.ledger.recovery().await.unwrap()
    }

    /// A tick of recovery, and a minute after it. What came in meanwhile is applied; jobs that were found end at
    /// GitHub.
    async fn tick(&mut self) {
        search::one(&self.worker, &self.stop).await.unwrap();
        self.settle().await;
        let mut connection = self.worker.ledger.pool().get().await.unwrap();
        let entries: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg("jit:events")
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .unwrap();
        for entry in entries.ids {
            let event: JobEvent = serde_json::from_str(&entry.get::<String>("event").unwrap()).unwrap();
            self.worker.ledger.apply(&event, Some(self.now())).await.unwrap();
            let _: i64 = redis::cmd("XDEL")
                .arg("jit:events")
                .arg(&entry.id)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
        let announced = self.status().await.seconds.unwrap();
        let now = self.now();
        let mut found = Vec::new();
        for (id, (since, longest)) in &mut self.lost {
            *longest = announced.max(*longest);
            if self
                .worker
                .ledger
                .job(jit_core::event::JobId::new(*id).unwrap())
                .await
                .unwrap()
                .is_some()
            {
                let took = u64::try_from(now - *since).unwrap() / 1000;
                assert!(
                    took <= *longest,
                    "job {id} was found after {took} s; at most {longest} s were announced"
                );
                found.push(*id);
            }
        }
        for id in found {
            self.lost.remove(&id);
            self.github.with(|server, now| server.cancel(id, now).unwrap());
        }
        self.pass(MINUTE);
    }

    /// Waits until GitHub has sent all webhooks that are under way, and has taken down what became of them.
    async fn settle(&self) {
        let mut before = None;
        for _ in 0..600 {
            let webhooks = self.github.summary().webhooks;
            let now = (
                webhooks.sent,
                webhooks.accepted + webhooks.refused + webhooks.unanswered,
            );
            if now.0 == now.1 && before == Some(now) {
                return;
            }
            before = Some(now);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("webhooks are under way for a minute");
    }

    /// Jobs in repositories here and there, whose webhooks are lost or not as the faults say; those of which nothing
    /// came are to be found.
    async fn jobs(&mut self, from: usize, count: usize) {
        let now = self.now();
        for n in 0..count {
            let place = (from + n * 97) % (ORGANIZATIONS * REPOSITORIES);
            let ids = self.github.with(|server, now| {
                server
                    .create_jobs(&job(place / REPOSITORIES, place % REPOSITORIES), now)
                    .unwrap()
            });
            self.lost.insert(ids[0], (now, 0));
        }
        self.settle().await;
    }

    async fn until_found(&mut self, what: &str, ticks: usize) {
        for _ in 0..ticks {
            if self.lost.is_empty() {
                return;
            }
            self.tick().await;
        }
        assert!(
            self.lost.is_empty(),
            "{what}: not found within {ticks} minutes: {:?}; {:?}",
            self.lost,
            self.status().await
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_lost_is_found_within_the_time_that_is_announced() {
    let mut town = Town::build().await;
    town.learned().await;
    let before = town.github.summary().runners;

    // Webhooks are lost and doubled.
    town.tick().await;
    town.github.with(|server, _| {
        server.faults.add(fault(
            json!({ "fault": "webhook_drop", "action": "queued", "probability": 0.5 }),
        ));
        server
            .faults
            .add(fault(json!({ "fault": "webhook_double", "probability": 0.5 })));
    });
    town.jobs(3, 40).await;
    town.until_found("lost webhooks", 20).await;
    let status = town.status().await;
    assert!(
        status.seconds.unwrap() <= 15 * 60,
        "5000 repositories in a quarter of an hour: {status:?}"
    );
    town.github.with(|server, _| server.faults.clear(None));

    // For an hour nobody takes webhooks, and nobody looks.
    town.github.set_webhook_url("http://127.0.0.1:9/webhook");
    town.jobs(11, 30).await;
    town.pass(HOUR);
    town.jobs(29, 10).await;
    let receiver_url = town.receiver_url.clone();
    town.github.set_webhook_url(&receiver_url);
    town.until_found("an hour without receiver", 40).await;

    let status = town.status().await;
    assert!(
        status.hooks == ORGANIZATIONS as u64 && status.repositories == (ORGANIZATIONS * REPOSITORIES) as u64,
        "{status:?}"
    );
    let after = town.github.summary().runners;
    let counted = (after.rest_calls - before.rest_calls) - (after.rest_unchanged - before.rest_unchanged);
    assert!(
        counted <= 3000 && after.rest_limited == 0,
        "{counted} counted calls in two to three hours"
    );
    let findings = town.worker.ledger.doctor().await.unwrap().findings;
    assert!(findings.is_empty(), "{findings:#?}");
    town.stop.cancel();
}
