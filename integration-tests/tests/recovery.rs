//! What never came: lost webhooks, a receiver that was away, lost data, registrations without an owner. All of it is
//! found, and nothing is done twice.

#![allow(clippy::unwrap_used, missing_docs)]

use integration_tests::{PodCount, assert_all_ran_once, assert_sound, kubernetes, number, prove, settle, until};
use jit_harness::stack::{Options, Stack};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

/// Looks every second, with as many calls as it takes.
fn attentive(orgs: usize, env: &[(&str, &str)]) -> Options {
    // A webhook that is made after the start is found by the next list.
    let brisk = [
        ("RECOVER_INTERVAL", "1s"),
        ("REDISCOVER_INTERVAL", "3s"),
        ("RECOVERY_CALLS_PER_HOUR", "1000000"),
        ("MAX_RUNNERS_PER_ORG", "3"),
    ];
    kubernetes(orgs, 2, &[&brisk, env].concat())
}

fn jobs(org: &str, repo: &str, count: u64) -> Value {
    json!({ "org": org, "repo": repo, "labels": ["code-linux"], "duration_ms": 50, "count": count })
}

async fn control(stack: &Stack, what: &str, body: Value) -> Value {
    stack
        .post(&format!("{}/_control/{what}", stack.github_url), &body)
        .await
        .unwrap()
}

async fn recovery(stack: &Stack) -> Value {
    stack.jitctl(&["status"]).await.unwrap()["recovery"].clone()
}

/// How often the fault of this place has struck.
async fn struck(stack: &Stack, fault: usize) -> u64 {
    number(
        &stack
            .get(&format!("{}/_control/faults", stack.github_url))
            .await
            .unwrap()["faults"][fault],
        "/struck",
    )
}

async fn all_over(stack: &Stack, jobs: u64) {
    until(&format!("{jobs} jobs are over"), async || {
        number(&stack.summary().await.unwrap(), "/jobs/success") == jobs
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_whose_webhook_was_lost_are_found() {
    let stack = Stack::start(&attentive(3, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    // A user's repository is known by its jobs alone. The third organization was never heard of, and is rediscovered.
    let users = json!({ "user": "alice", "repo": "dots", "labels": ["code-linux"], "duration_ms": 50 });
    stack
        .create_jobs(&json!([jobs("org-0001", "app", 1), jobs("org-0002", "app", 1), users]))
        .await
        .unwrap();
    all_over(&stack, 3).await;
    let before = number(&recovery(&stack).await, "/found_jobs");
    control(&stack, "faults", json!({ "fault": "webhook_drop", "action": "queued" })).await;
    let mut lost = users.clone();
    lost["count"] = json!(4);
    let foreign = json!({ "org": "org-0001", "repo": "app", "labels": ["ubuntu-latest"], "count": 2 });
    let mut held = jobs("org-0002", "app", 2);
    held["environment"] = json!("production");
    let ids = stack
        .create_jobs(&json!([
            jobs("org-0001", "app", 8),
            jobs("org-0002", "app", 8),
            jobs("org-0003", "new", 8),
            lost,
            foreign,
            held
        ]))
        .await
        .unwrap();
    for id in &ids[ids.len() - 2..] {
        control(&stack, &format!("jobs/{id}/approve"), json!({})).await; // what says that they are queued is lost, too
    }
    all_over(&stack, 3 + 28 + 2).await;
    for id in &ids[28..30] {
        control(&stack, &format!("jobs/{id}/cancel"), json!({})).await; // nobody here runs these
    }
    let summary = settle(&stack, 35).await;
    assert_eq!(
        (
            number(&summary, "/jobs/run"),
            number(&summary, "/jobs/run_twice"),
            number(&summary, "/jobs/cancelled")
        ),
        (33, 0, 2),
        "{summary:#}"
    );
    // A runner that was made for one may take another before that is found, and its start is told.
    let found = number(&recovery(&stack).await, "/found_jobs") - before;
    assert!((1..=30).contains(&found), "each is found once, at most: {found}");
    pods.assert_within(3, 200);
    assert_sound(&stack).await;
    stack.stop().await;
}

/// The receiver is away, and the jobs of the hour in which it was come to nothing; then it is back.
async fn an_hour_without_receiver(stack: &mut Stack, count: u64) {
    let before = number(&stack.summary().await.unwrap(), "/webhooks/unanswered");
    stack.part("receiver").unwrap().kill().await;
    let mut missed = jobs("org-0001", "app", count);
    missed["age_ms"] = json!(3_600_000);
    stack.create_jobs(&missed).await.unwrap();
    until("all webhooks came to nothing", async || {
        number(&stack.summary().await.unwrap(), "/webhooks/unanswered") >= before + count
    })
    .await;
    stack.restart("receiver").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_deliveries_of_an_organizations_hook_are_repeated() {
    let mut stack = Stack::start(&attentive(1, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    control(&stack, "hooks", json!({ "owner": "org-0001", "kind": "organization" })).await;
    stack.create_jobs(&jobs("org-0001", "app", 1)).await.unwrap();
    all_over(&stack, 1).await;
    until("the hook is found", async || {
        number(&recovery(&stack).await, "/hooks") == 1
    })
    .await;
    // The sweep is blind: what runs has been delivered again.
    control(
        &stack,
        "faults",
        json!({ "fault": "rest_status", "endpoint": "list_runs", "status": 403 }),
    )
    .await;
    let found = number(&recovery(&stack).await, "/found_jobs");
    an_hour_without_receiver(&mut stack, 12).await;
    all_over(&stack, 13).await;
    until("all twelve were repeated", async || {
        number(&recovery(&stack).await, "/redelivered") >= 12
    })
    .await;
    assert_eq!(number(&recovery(&stack).await, "/found_jobs"), found);
    until("nothing is left to repeat", async || {
        number(&recovery(&stack).await, "/failed_deliveries") == 0
    })
    .await;
    let doctor = tokio::process::Command::new(stack.bin().join("jitctl"))
        .args(["--redis-url", &stack.redis_url, "doctor"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(
        said.contains("a job whose webhook was lost is found within about ")
            && said.contains("failed deliveries of 1 webhooks are repeated; each is read within about ")
            && said.contains("; 0 wait"),
        "{said}"
    );
    prove(stack, &pods, 13, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_deliveries_of_a_repositorys_hook_are_repeated() {
    let mut stack = Stack::start(&attentive(1, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    stack.create_jobs(&jobs("org-0001", "app", 1)).await.unwrap();
    all_over(&stack, 1).await;
    control(
        &stack,
        "hooks",
        json!({ "owner": "org-0001", "repo": "app", "kind": "repository" }),
    )
    .await;
    // Hooks were listed before this one was there; they are again and again.
    until("the hook is found", async || {
        number(&recovery(&stack).await, "/hooks") == 1
    })
    .await;
    control(
        &stack,
        "faults",
        json!({ "fault": "rest_status", "endpoint": "list_runs", "status": 404 }),
    )
    .await;
    an_hour_without_receiver(&mut stack, 3).await;
    prove(stack, &pods, 4, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_is_looked_for_until_github_has_told_of_it() {
    let stack = Stack::start(&attentive(1, &[])).await.unwrap();
    control(&stack, "hooks", json!({ "owner": "org-0001", "kind": "organization" })).await;
    control(
        &stack,
        "faults",
        json!({ "fault": "rest_status", "endpoint": "list_hooks", "status": 502, "count": 4 }),
    )
    .await;
    stack.create_jobs(&jobs("org-0001", "app", 1)).await.unwrap();
    until("the hook is found", async || {
        number(&recovery(&stack).await, "/hooks") == 1
    })
    .await;
    assert_eq!(struck(&stack, 0).await, 4);
    assert_all_ran_once(&settle(&stack, 1).await, 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apps_deliveries_are_repeated_and_its_installations_searched() {
    let key = |name: &str| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crates/github/tests/common")
            .join(name)
            .display()
            .to_string()
    };
    let private = key("app-pkcs1.pem");
    let env = [
        ("GITHUB_APP_ID", "4711"),
        ("GITHUB_APP_PRIVATE_KEY_FILE", private.as_str()),
    ];
    let mut options = attentive(2, &env);
    options.github_args = ["--app-id", "4711", "--app-public-key-file", &key("app-public.pem")]
        .map(str::to_owned)
        .into();
    let mut stack = Stack::start(&options).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    for org in ["org-0001", "org-0002"] {
        control(&stack, "app", json!({ "account": org, "state": "installed" })).await;
    }
    control(&stack, "hooks", json!({ "owner": "org-0001", "kind": "app" })).await;
    until("the App's hook is found", async || {
        number(&recovery(&stack).await, "/hooks") == 1
    })
    .await;
    control(
        &stack,
        "faults",
        json!({ "fault": "rest_status", "endpoint": "list_runs", "status": 403 }),
    )
    .await;
    an_hour_without_receiver(&mut stack, 6).await;
    all_over(&stack, 6).await;
    // GitHub repeats at once; that it was asked to is noted when its answer is there.
    until("all six were repeated", async || {
        number(&recovery(&stack).await, "/redelivered") >= 6
    })
    .await;
    assert_eq!(number(&recovery(&stack).await, "/found_jobs"), 0);
    stack.end_github_faults(None).await.unwrap();
    // An organization that was never heard of, and is not known but by the installation there.
    control(&stack, "faults", json!({ "fault": "webhook_drop", "action": "queued" })).await;
    stack.create_jobs(&jobs("org-0002", "new", 4)).await.unwrap();
    prove(stack, &pods, 10, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enterprises_hook_has_no_deliveries_and_its_jobs_are_swept() {
    let mut stack = Stack::start(&attentive(1, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    stack.create_jobs(&jobs("org-0001", "app", 1)).await.unwrap();
    all_over(&stack, 1).await;
    an_hour_without_receiver(&mut stack, 12).await;
    all_over(&stack, 13).await;
    let now = recovery(&stack).await;
    assert_eq!((number(&now, "/hooks"), number(&now, "/redelivered")), (0, 0), "{now}");
    assert!(number(&now, "/found_jobs") > 0, "{now}");
    prove(stack, &pods, 13, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sweep_finds_and_a_late_webhook_tells_is_one_job() {
    let stack = Stack::start(&attentive(1, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    stack.create_jobs(&jobs("org-0001", "app", 1)).await.unwrap();
    all_over(&stack, 1).await;
    control(
        &stack,
        "faults",
        json!([{ "fault": "webhook_delay", "delay_ms": 5000 }, { "fault": "webhook_double" }]),
    )
    .await;
    let mut late = jobs("org-0001", "app", 9);
    late["duration_ms"] = json!(3000);
    stack.create_jobs(&late).await.unwrap();
    let summary = settle(&stack, 10).await;
    // Two webhooks of each queued job and two more of its start and end came after the sweep had found it.
    until("all webhooks have come", async || {
        number(&stack.summary().await.unwrap(), "/webhooks/accepted") == 3 + 9 * 6
    })
    .await;
    assert_eq!(
        number(&summary, "/runners/registered"),
        10,
        "one runner a job: {summary:#}"
    );
    prove(stack, &pods, 10, 3, 200).await;
}

/// One command to Redis; nobody waits for its answer.
async fn redis(stack: &Stack, command: &str) {
    let mut connection =
        tokio::net::TcpStream::connect(stack.redis_url.trim_start_matches("redis://").trim_end_matches("/0"))
            .await
            .unwrap();
    connection.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 16];
    tokio::io::AsyncReadExt::read(&mut connection, &mut answer)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_emptied_with_jobs_queued_and_running_loses_none() {
    let stack = Stack::start(&attentive(3, &[("MAX_RUNNERS_PER_ORG", "2")]))
        .await
        .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let mut long = [1, 2, 3].map(|n| jobs(&format!("org-000{n}"), "app", 8));
    for spec in &mut long {
        spec["duration_ms"] = json!(6000); // so long that six run at once, also where runners start slowly
    }
    stack.create_jobs(&json!(long)).await.unwrap();
    until("six jobs run, the others are queued", async || {
        number(&stack.summary().await.unwrap(), "/leftovers/in_progress") == 6
    })
    .await;
    redis(&stack, "FLUSHALL").await;
    prove(stack, &pods, 24, 2, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_that_nobody_knows_are_deleted() {
    let stack = Stack::start(&attentive(2, &[("STRAY_INTERVAL", "1s"), ("STRAY_CONFIRM", "2s")]))
        .await
        .unwrap();
    // One whose pod does not start: registered, offline, not busy, and live here.
    let live = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 600_000 }))
        .await
        .unwrap()[0];
    let runners = async || {
        stack
            .get(&format!("{}/_control/runners", stack.github_url))
            .await
            .unwrap()["runners"]
            .as_array()
            .cloned()
            .unwrap()
    };
    until("a runner works", async || runners().await.len() == 1).await;
    // What a worker left that died between GitHub's answer and its next word, and what is another's.
    for name in [
        "jit-runner-4711-dead1",
        "jit-runner-4712-dead2",
        "build-07",
        "jit-runnerette-1",
    ] {
        let body = json!({ "name": name, "runner_group_id": 1, "labels": ["something-else"] });
        stack
            .github_post("/orgs/org-0001/actions/runners/generate-jitconfig", &body)
            .await
            .unwrap();
    }
    assert_eq!(runners().await.len(), 5);
    until("what nobody knows is gone", async || {
        number(&recovery(&stack).await, "/strays_deleted") == 2
    })
    .await;
    let looks = async || {
        number(
            &stack
                .get(&format!("{}/_control/log?limit=100000", stack.github_url))
                .await
                .unwrap(),
            "/last",
        )
    };
    let seen = looks().await;
    until("it has looked again, more than once", async || {
        looks().await > seen + 20
    })
    .await;
    let mut left: Vec<String> = runners()
        .await
        .iter()
        .map(|runner| runner["name"].as_str().unwrap().to_owned())
        .collect();
    left.sort();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left[0] == "build-07" && left[1].starts_with(&format!("jit-runner-{live}-")) && left[2] == "jit-runnerette-1",
        "{left:?}"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_that_refuse_cost_the_others_nothing() {
    let stack = Stack::start(&attentive(3, &[])).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    stack
        .create_jobs(&json!([
            jobs("org-0001", "app", 1),
            jobs("org-0002", "app", 1),
            jobs("org-0003", "app", 1)
        ]))
        .await
        .unwrap();
    all_over(&stack, 3).await;
    for (org, status) in [("org-0001", 404), ("org-0002", 403)] {
        control(
            &stack,
            "faults",
            json!({ "fault": "rest_status", "endpoint": "list_runs", "org": org, "status": status, "count": 10 }),
        )
        .await;
    }
    control(&stack, "faults", json!({ "fault": "webhook_drop", "action": "queued" })).await;
    // The one that answers is the oldest, and looked at last.
    for org in ["org-0003", "org-0001", "org-0002"] {
        stack.create_jobs(&jobs(org, "app", 4)).await.unwrap();
    }
    until("the one that answers is served", async || {
        over(&stack, "org-0003").await == 5
    })
    .await;
    until("both others have refused", async || {
        struck(&stack, 0).await > 0 && struck(&stack, 1).await > 0
    })
    .await;
    // When they answer again, they are served too.
    let summary = settle(&stack, 15).await;
    assert_all_ran_once(&summary, 15);
    pods.assert_within(3, 200);
    stack.stop().await;
}

/// Jobs of an organization that are over.
async fn over(stack: &Stack, org: &str) -> u64 {
    number(
        &stack
            .get(&format!("{}/_control/jobs?org={org}&state=completed", stack.github_url))
            .await
            .unwrap(),
        "/total_count",
    )
}

/// A registration that nobody here knows.
async fn stray(stack: &Stack, org: &str) {
    let body = json!({ "name": "jit-runner-4711-stray", "runner_group_id": 1, "labels": ["something-else"] });
    stack
        .github_post(&format!("/orgs/{org}/actions/runners/generate-jitconfig"), &body)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_that_does_not_answer_costs_the_others_nothing() {
    let stack = Stack::start(&attentive(3, &[("STRAY_INTERVAL", "1s"), ("STRAY_CONFIRM", "1s")]))
        .await
        .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    control(&stack, "hooks", json!({ "owner": "org-0001", "kind": "organization" })).await;
    stack
        .create_jobs(&json!([
            jobs("org-0001", "app", 1),
            jobs("org-0002", "app", 1),
            jobs("org-0003", "app", 1)
        ]))
        .await
        .unwrap();
    all_over(&stack, 3).await;
    until("the hook is found", async || {
        number(&recovery(&stack).await, "/hooks") == 1
    })
    .await;
    for endpoint in [
        "list_runs",
        "list_deliveries",
        "list_runners",
        "list_repositories",
        "list_hooks",
    ] {
        control(
            &stack,
            "faults",
            json!({ "fault": "rest_status", "endpoint": endpoint, "org": "org-0001", "status": 502 }),
        )
        .await;
    }
    control(&stack, "faults", json!({ "fault": "webhook_drop", "action": "queued" })).await;
    // The one that does not answer is the newest, and looked at first; pass after pass.
    for wave in 1..=3 {
        for org in ["org-0003", "org-0002", "org-0001"] {
            stack.create_jobs(&jobs(org, "app", 2)).await.unwrap();
        }
        for org in ["org-0003", "org-0002"] {
            until("the ones that answer are served", async || {
                over(&stack, org).await == 1 + 2 * wave
            })
            .await;
        }
    }
    stray(&stack, "org-0002").await;
    until("a stray is found", async || {
        number(&recovery(&stack).await, "/strays_deleted") > 0
    })
    .await;
    // With the data lost, they are known by the rediscovery alone.
    redis(&stack, "FLUSHALL").await;
    for org in ["org-0003", "org-0002", "org-0001"] {
        stack.create_jobs(&jobs(org, "new", 2)).await.unwrap();
    }
    stray(&stack, "org-0003").await;
    for org in ["org-0003", "org-0002"] {
        until("the ones that answer are found again", async || {
            over(&stack, org).await == 9
        })
        .await;
    }
    until("a stray is found", async || {
        number(&recovery(&stack).await, "/strays_deleted") > 0
    })
    .await;
    for fault in 0..4 {
        until("the one that does not answer was asked", async || {
            struck(&stack, fault).await > 0
        })
        .await;
    }
    assert_eq!(over(&stack, "org-0001").await, 1);
    // It is asked again and again: when it answers, it is served.
    stack.end_github_faults(None).await.unwrap();
    prove(stack, &pods, 27, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_refused_cost_the_owners_of_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials.yaml");
    let key = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/github/tests/common/app-pkcs1.pem");
    std::fs::write(
        &file,
        format!(
            "credentials:\n- {{name: revoked, owners: [org-0001], token: revoked}}\n- {{name: app, owners: [org-0002], \
             app_id: 1, private_key_file: {}}}\n\
             - {{name: good, owners: ['*'], token: good}}\n",
            key.display()
        ),
    )
    .unwrap();
    let path = file.display().to_string();
    let env = [
        ("GITHUB_CREDENTIALS_FILE", path.as_str()),
        ("STRAY_INTERVAL", "1s"),
        ("STRAY_CONFIRM", "1s"),
    ];
    let stack = Stack::start(&attentive(4, &env)).await.unwrap();
    control(&stack, "tokens", json!({ "token": "good" })).await;
    // Known, and first in each list.
    stack
        .create_jobs(&json!([jobs("org-0001", "app", 1), jobs("org-0002", "app", 1)]))
        .await
        .unwrap();
    until("they wait", async || {
        number(&stack.jitctl(&["status"]).await.unwrap(), "/total_pending") == 2
    })
    .await;
    stack.create_jobs(&jobs("org-0003", "app", 1)).await.unwrap();
    all_over(&stack, 1).await;
    control(&stack, "faults", json!({ "fault": "webhook_drop", "action": "queued" })).await;
    stray(&stack, "org-0003").await;
    stack.create_jobs(&jobs("org-0003", "app", 2)).await.unwrap();
    all_over(&stack, 3).await;
    until("the stray is found", async || {
        number(&recovery(&stack).await, "/strays_deleted") == 1
    })
    .await;
    // With the data lost, they are known by the rediscovery alone.
    stack
        .create_jobs(&json!([jobs("org-0003", "app", 2), jobs("org-0004", "new", 2)]))
        .await
        .unwrap();
    redis(&stack, "FLUSHALL").await;
    all_over(&stack, 7).await;
    assert_eq!((over(&stack, "org-0001").await, over(&stack, "org-0002").await), (0, 0));
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_budget_is_kept() {
    let mut options = attentive(6, &[("RECOVERY_CALLS_PER_HOUR", "25"), ("STRAY_INTERVAL", "1s")]);
    // a server without limits needs no budget of an hour
    options.github_args = ["--rate-limit", "5000"].map(str::to_owned).into();
    let stack = Stack::start(&options).await.unwrap();
    let all: Vec<Value> = (1..=6).map(|n| jobs(&format!("org-{n:04}"), "app", 1)).collect();
    stack.create_jobs(&json!(all)).await.unwrap();
    all_over(&stack, 6).await;
    // Those that GitHub counts: not those that it answers with 304.
    let calls = async || {
        let log = stack
            .get(&format!("{}/_control/log?limit=100000", stack.github_url))
            .await
            .unwrap();
        let unchanged = number(&stack.summary().await.unwrap(), "/runners/rest_unchanged");
        let ours = |event: &&Value| {
            let names = [
                "list_runs",
                "list_run_jobs",
                "list_hooks",
                "list_deliveries",
                "redeliver",
                "list_organizations",
                "list_repositories",
                "list_runners",
            ];
            names.contains(&event["endpoint"].as_str().unwrap_or_default())
        };
        (log["events"].as_array().unwrap().iter().filter(ours).count() as u64).saturating_sub(unchanged)
    };
    until("all calls are used", async || calls().await >= 25).await;
    // Ten ticks more, with repositories that were not looked at for long.
    let mut ticks = std::collections::BTreeSet::new();
    let seen = std::sync::Mutex::new(&mut ticks);
    until("it ticks on", async || {
        let metrics = recovery(&stack).await;
        let mut seen = seen.lock().unwrap();
        seen.insert(number(&metrics, "/ticked_at"));
        seen.len() > 10
    })
    .await;
    assert_eq!(calls().await, 25);
    assert_all_ran_once(&settle(&stack, 6).await, 6);
    stack.stop().await;
}
