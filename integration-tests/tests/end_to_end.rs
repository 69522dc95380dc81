//! The main job: signed webhooks become runners that run their jobs, on a real Redis and a real API server.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use integration_tests::{PodCount, assert_all_ran_once, assert_sound, kubernetes, number, prove, send, settle, until};
use jit_harness::stack::Stack;
use serde_json::json;

/// Size of the two large runs; `E2E_ORGS=200 E2E_JOBS=2000` is what the project is judged by.
fn size() -> (usize, usize) {
    let variable = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    (variable("E2E_ORGS", 40), variable("E2E_JOBS", 400))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_many_organizations_runs_once_within_every_limit() {
    let (orgs, jobs) = size();
    let stack = Stack::start(&kubernetes(
        orgs,
        3,
        &[("MAX_RUNNERS_PER_ORG", "3"), ("MAX_TOTAL_RUNNERS", "60")],
    ))
    .await
    .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    send(&stack, jobs, orgs, |_| vec!["code-linux"]).await;
    prove(stack, &pods, jobs, 3, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_webhooks_doubled_shuffled_and_some_lost() {
    let (orgs, jobs) = size();
    let stack = Stack::start(&kubernetes(
        orgs,
        3,
        &[("MAX_RUNNERS_PER_ORG", "3"), ("MAX_TOTAL_RUNNERS", "60")],
    ))
    .await
    .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let faults = json!([
        { "fault": "webhook_drop", "action": "in_progress", "probability": 0.1 },
        { "fault": "webhook_drop", "action": "completed", "probability": 0.1 },
        { "fault": "webhook_double", "probability": 1.0 },
        { "fault": "webhook_shuffle", "delay_ms": 1500, "probability": 1.0 },
    ]);
    stack
        .post(&format!("{}/_control/faults", stack.github_url), &faults)
        .await
        .unwrap();
    send(&stack, jobs, orgs, |_| vec!["code-linux"]).await;
    prove(stack, &pods, jobs, 3, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_overlap_let_github_give_runners_to_other_jobs() {
    let stack = Stack::start(&kubernetes(
        6,
        2,
        &[("MAX_RUNNERS_PER_ORG", "4"), ("LABEL_MATCHERS", "linux")],
    ))
    .await
    .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let kinds: [&[&str]; 3] = [&["linux"], &["linux", "x64"], &["linux", "x64", "gpu"]];
    send(&stack, 150, 6, |n| kinds[n % 3].to_vec()).await;
    prove(stack, &pods, 150, 4, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_held_and_rerun_jobs_get_what_they_need_and_no_more() {
    let stack = Stack::start(&kubernetes(3, 2, &[("MAX_RUNNERS_PER_ORG", "2")]))
        .await
        .unwrap();
    let control = |id: u64, what: &str| format!("{}/_control/jobs/{id}/{what}", stack.github_url);
    // Two slots are taken by long jobs, so that a third waits and is cancelled before its start.
    let long = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 6000, "count": 2 }))
        .await
        .unwrap();
    let cancelled = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 10 }))
        .await
        .unwrap()[0];
    until("the third job is queued in the ledger", async || {
        stack
            .jitctl(&["why", &cancelled.to_string()])
            .await
            .is_ok_and(|why| why["why"].as_str().is_some_and(|text| text.contains("2 of 2 runners")))
    })
    .await;
    stack.post(&control(cancelled, "cancel"), &json!({})).await.unwrap();

    // Queued, held after all, and approved later: waiting is no demand, and no runner is made for it meanwhile.
    let late = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 10 }))
        .await
        .unwrap()[0];
    let why = async |id: u64| stack.jitctl(&["why", &id.to_string()]).await;
    until("the fourth job is queued in the ledger", async || {
        why(late).await.is_ok_and(|why| why["state"] == "queued")
    })
    .await;
    stack.post(&control(late, "hold"), &json!({})).await.unwrap();
    until("the fourth job waits in the ledger", async || {
        why(late).await.is_ok_and(|why| why["state"] == "waiting")
    })
    .await;
    stack.post(&control(late, "approve"), &json!({})).await.unwrap();

    // Held for an approval from the start, then approved.
    let held = stack
        .create_jobs(
            &json!({ "org": "org-0002", "labels": ["code-linux"], "duration_ms": 10, "environment": "production" }),
        )
        .await
        .unwrap()[0];
    until("the held job waits", async || {
        stack
            .jitctl(&["why", &held.to_string()])
            .await
            .is_ok_and(|why| why["state"] == "waiting")
    })
    .await;
    stack.post(&control(held, "approve"), &json!({})).await.unwrap();

    // A re-run is another job, with another id.
    let first = stack
        .create_jobs(&json!({ "org": "org-0003", "labels": ["code-linux"], "duration_ms": 10 }))
        .await
        .unwrap()[0];
    until("the first attempt is over", async || {
        stack
            .get(&format!("{}/_control/jobs/{first}", stack.github_url))
            .await
            .is_ok_and(|job| job["state"] == "completed")
    })
    .await;
    stack.post(&control(first, "rerun"), &json!({})).await.unwrap();

    let summary = settle(&stack, long.len() as u64 + 5).await;
    assert_eq!(
        number(&summary, "/jobs/run"),
        6,
        "all but the cancelled one: {summary:#}"
    );
    assert_eq!(number(&summary, "/jobs/run_twice"), 0);
    assert_eq!(number(&summary, "/jobs/cancelled"), 1);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_any_process_at_any_moment_loses_nothing() {
    let (orgs, jobs) = (10, 200);
    let mut stack = Stack::start(&kubernetes(
        orgs,
        2,
        &[("MAX_RUNNERS_PER_ORG", "3"), ("MAX_TOTAL_RUNNERS", "20")],
    ))
    .await
    .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let seed = std::env::var("KILL_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..1000));
    println!("KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let victims = ["worker-1", "receiver", "beat", "worker-1", "worker-2"];
    let (mut sent, mut next) = (0, 0);
    while sent < jobs {
        send(&stack, 20, orgs, |_| vec!["code-linux"]).await;
        sent += 20;
        if sent % 40 == 0 && next < victims.len() {
            // What was answered with 200 is what must not be lost: GitHub does not send again what a dead receiver left
            // unanswered.
            until("every queued webhook is answered", async || all_accepted(&stack).await).await;
            // The moment is drawn, not waited for: nothing in the test depends on it.
            tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
            stack.part(victims[next]).unwrap().kill().await;
            stack.restart(victims[next]).await.unwrap();
            next += 1;
        }
    }
    assert_eq!(next, victims.len());
    prove(stack, &pods, jobs, 3, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_drains_and_leaves_no_reservation() {
    let mut stack = Stack::start(&kubernetes(4, 1, &[])).await.unwrap();
    send(&stack, 40, 4, |_| vec!["code-linux"]).await;
    let worker = stack.part("worker-1").unwrap();
    worker.terminate();
    let status = worker
        .wait_or_kill(Duration::from_secs(40))
        .await
        .expect("it ended by itself");
    assert!(status.success(), "{status}");
    assert!(
        std::fs::read_to_string(worker.log())
            .unwrap()
            .contains("nothing is left in hand")
    );
    stack.restart("worker-1").await.unwrap();
    let summary = settle(&stack, 40).await;
    assert_all_ran_once(&summary, 40);
    stack.stop().await;
}

async fn all_accepted(stack: &Stack) -> bool {
    let jobs = stack.get(&format!("{}/_control/jobs", stack.github_url)).await.unwrap();
    jobs["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .all(|job| job["times"]["accepted"].is_u64())
}
