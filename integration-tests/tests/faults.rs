//! What goes wrong around the system: GitHub, runners, Redis. The system settles by itself, and nothing is lost.

#![allow(clippy::unwrap_used, missing_docs)]

use integration_tests::{PodCount, assert_sound, kubernetes, number, prove, send, settle, until};
use jit_harness::stack::Stack;
use serde_json::json;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn github_that_fails_in_every_way_costs_time_and_no_job() {
    let stack = Stack::start(&kubernetes(6, 2, &[("MAX_RUNNERS_PER_ORG", "3")]))
        .await
        .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let jit = "generate_jitconfig";
    let faults = json!([
        { "fault": "rest_status", "endpoint": "list_groups", "status": 404, "count": 1 },
        { "fault": "rest_cut", "endpoint": jit, "probability": 0.2, "count": 3 },
        { "fault": "rest_garbage", "endpoint": jit, "probability": 0.2, "count": 2 },
        { "fault": "rest_status", "endpoint": jit, "status": 503, "probability": 0.2, "count": 3 },
        { "fault": "rest_status", "endpoint": jit, "status": 429, "retry_after": 1, "probability": 0.2, "count": 2 },
        { "fault": "rest_status", "endpoint": jit, "status": 409, "probability": 0.2, "count": 2 },
        { "fault": "rest_slow", "endpoint": jit, "delay_ms": 7000, "probability": 0.1, "count": 1 },
        { "fault": "rest_status", "endpoint": "delete_runner", "status": 500, "count": 2 },
        { "fault": "rest_status", "endpoint": "list_runners", "status": 502, "count": 2 },
        { "fault": "rest_status", "endpoint": "get_job", "status": 500, "count": 2 },
    ]);
    stack
        .post(&format!("{}/_control/faults", stack.github_url), &faults)
        .await
        .unwrap();
    send(&stack, 60, 6, |_| vec!["code-linux"]).await;
    prove(stack, &pods, 60, 3, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_dies_frees_its_slot_and_leaves_nothing() {
    let stack = Stack::start(&kubernetes(
        2,
        2,
        &[("MAX_RUNNERS_PER_ORG", "2"), ("MISFIT_HOLD", "2s")],
    ))
    .await
    .unwrap();
    let faults = json!([{ "fault": "runner_dies", "count": 3 }, { "fault": "runner_never_connects", "count": 1 }]);
    stack
        .post(&format!("{}/_control/faults", stack.github_url), &faults)
        .await
        .unwrap();
    send(&stack, 12, 2, |_| vec!["code-linux"]).await;
    let summary = settle(&stack, 12).await;
    // A job whose runner dies fails at GitHub, as it does there; none is run twice, and every other one succeeds.
    assert_eq!(number(&summary, "/jobs/failure"), 3, "{summary:#}");
    assert_eq!(number(&summary, "/jobs/success"), 9, "{summary:#}");
    assert_eq!(number(&summary, "/jobs/run_twice"), 0, "{summary:#}");
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_at_work_keeps_its_pod_while_github_does_not_say_that_it_is_gone() {
    let env = [
        ("MAX_RUNNERS_PER_ORG", "1"),
        ("IDLE_CHECK", "1s"),
        ("IDLE_TIMEOUT", "2s"),
        ("MISFIT_HOLD", "2s"),
    ];
    let stack = Stack::start(&kubernetes(1, 1, &env)).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    // Nobody tells that it works, neither a webhook nor the sweep: it looks idle beside a job that waits, and is to be
    // removed.
    let faults = json!([
        { "fault": "webhook_drop", "action": "in_progress" },
        { "fault": "rest_status", "endpoint": "list_runs", "status": 500 },
        { "fault": "rest_status", "endpoint": "get_job", "status": 500 },
        { "fault": "rest_status", "endpoint": "delete_runner", "status": 500 },
    ]);
    stack
        .post(&format!("{}/_control/faults", stack.github_url), &faults)
        .await
        .unwrap();
    stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 20_000 }))
        .await
        .unwrap();
    until("GitHub has been asked to delete the runner", async || {
        let log = stack
            .get(&format!("{}/_control/log?limit=100000", stack.github_url))
            .await
            .unwrap();
        log["events"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["endpoint"] == "delete_runner")
    })
    .await;
    let summary = settle(&stack, 1).await;
    assert_eq!(
        (number(&summary, "/jobs/success"), number(&summary, "/jobs/run_twice")),
        (1, 0),
        "{summary:#}"
    );
    pods.assert_within(1, 1);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_killed_and_comes_back_loses_no_accepted_job() {
    let mut stack = Stack::start(&kubernetes(
        6,
        2,
        &[("MAX_RUNNERS_PER_ORG", "2"), ("MAX_TOTAL_RUNNERS", "8")],
    ))
    .await
    .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    send(&stack, 60, 6, |_| vec!["code-linux"]).await;
    // The append-only file is written every second: what was answered before that second is what this is about.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    stack.part("redis").unwrap().kill().await;
    stack.restart("redis").await.unwrap();
    prove(stack, &pods, 60, 2, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_emptied_learns_the_running_pods_before_it_admits() {
    let stack = Stack::start(&kubernetes(2, 2, &[("MAX_RUNNERS_PER_ORG", "2")]))
        .await
        .unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 6000, "count": 2 }))
        .await
        .unwrap();
    until("both jobs run", async || {
        number(&stack.summary().await.unwrap(), "/leftovers/in_progress") == 2
    })
    .await;
    let mut redis =
        tokio::net::TcpStream::connect(stack.redis_url.trim_start_matches("redis://").trim_end_matches("/0"))
            .await
            .unwrap();
    redis.write_all(b"FLUSHALL\r\n").await.unwrap();
    // At the limit of the organization, whose two runners nobody remembers.
    stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 10, "count": 3 }))
        .await
        .unwrap();
    prove(stack, &pods, 5, 2, 200).await;
}
