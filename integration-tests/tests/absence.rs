//! Absence is no proof: a GitHub that does not show something, to this credential or at this moment, ends no job and no
//! runner at work.

#![allow(clippy::unwrap_used, missing_docs)]

use integration_tests::{assert_sound, kubernetes, number, settle, until};
use jit_harness::stack::Stack;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

const ORG: &str = "org-0001";

/// How often GitHub was asked this.
async fn asked(stack: &Stack, endpoint: &str) -> usize {
    let log = stack
        .get(&format!("{}/_control/log?limit=100000", stack.github_url))
        .await
        .unwrap();
    log["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["endpoint"] == endpoint)
        .count()
}

async fn job(stack: &Stack, id: u64) -> Value {
    stack
        .get(&format!("{}/_control/jobs/{id}", stack.github_url))
        .await
        .unwrap()
}

/// The one runner of the organization in the ledger, by its name.
async fn runner(stack: &Stack) -> Option<(String, Value)> {
    let runners = stack.jitctl(&["runners", "--org", ORG]).await.unwrap_or_default();
    runners
        .as_object()?
        .iter()
        .next()
        .map(|(name, info)| (name.clone(), info.clone()))
}

/// A job that runs until it is cancelled, once its runner is known to work.
async fn long_job(stack: &Stack) -> u64 {
    let id = stack
        .create_jobs(&json!({ "org": ORG, "repo": "app", "labels": ["code-linux"], "duration_ms": 3_600_000 }))
        .await
        .unwrap()[0];
    until("its runner is known to work", async || {
        runner(stack).await.is_some_and(|(_, info)| info["state"] == "busy")
    })
    .await;
    id
}

async fn assert_at_work(stack: &Stack, id: u64) {
    let job = job(stack, id).await;
    assert_eq!(
        (&job["state"], &job["starts"]),
        (&json!("in_progress"), &json!(1)),
        "{job}"
    );
    assert_eq!(stack.in_cluster().await.unwrap().0, 1, "its pod is there");
}

async fn cancel(stack: &Stack, id: u64) {
    stack
        .post(&format!("{}/_control/jobs/{id}/cancel", stack.github_url), &json!({}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_the_token_may_not_read_is_not_lost_when_its_runner_dies() {
    let stack = Stack::start(&kubernetes(1, 1, &[])).await.unwrap();
    // A token that may register runners and may not read the repository is answered 404 for all that is in it.
    let faults = json!([
        { "fault": "rest_status", "endpoint": "get_job", "status": 404 },
        { "fault": "rest_status", "endpoint": "list_runs", "status": 404 },
        { "fault": "runner_never_connects", "count": 1 },
    ]);
    stack.github_faults(&faults).await.unwrap();
    stack
        .kubelet_fault(&json!({ "fault": "die", "count": 1, "after_ms": 1500 }))
        .await
        .unwrap();
    stack
        .create_jobs(&json!({ "org": ORG, "repo": "app", "labels": ["code-linux"], "duration_ms": 100 }))
        .await
        .unwrap();
    let summary = settle(&stack, 1).await;
    assert_eq!(
        (number(&summary, "/jobs/success"), number(&summary, "/jobs/run_twice")),
        (1, 0),
        "{summary:#}"
    );
    let doctor = stack.jitctl(&["doctor"]).await.unwrap();
    assert_eq!(
        doctor["unreadable"],
        json!([format!("{ORG}/app")]),
        "it says which right is missing: {doctor:#}"
    );
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_at_work_outlives_that_the_credential_sees_its_organization_no_more() {
    let env = [
        ("QUESTION_DELAY", "500ms"),
        ("QUESTION_INTERVAL", "1s"),
        ("END_TIMEOUT", "1s"),
        ("BUSY_RECHECK", "1s"),
    ];
    let stack = Stack::start(&kubernetes(1, 1, &env)).await.unwrap();
    let id = long_job(&stack).await;
    // The owner of the token has left: 404 for everything. An operator wants the runner gone besides.
    stack
        .github_faults(&json!({ "fault": "rest_status", "org": ORG, "status": 404 }))
        .await
        .unwrap();
    let before = asked(&stack, "get_job").await;
    until("GitHub was asked about the job", async || {
        asked(&stack, "get_job").await >= before + 3
    })
    .await;
    stack.remove_runner(&runner(&stack).await.unwrap().0).await.unwrap();
    until("GitHub was asked to delete the runner", async || {
        asked(&stack, "delete_runner").await >= 3
    })
    .await;
    assert_at_work(&stack, id).await;
    stack.end_github_faults(None).await.unwrap();
    until("GitHub has said that it works", async || {
        runner(&stack).await.is_some_and(|(_, info)| info["state"] == "busy")
    })
    .await;
    assert_at_work(&stack, id).await;
    cancel(&stack, id).await;
    settle(&stack, 1).await;
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_runner_at_work_outlives_lists_that_pass_it_over() {
    let mut options = kubernetes(1, 1, &[]);
    // It ignores the filter by name.
    options
        .github_args
        .extend(["--server-version".to_owned(), "3.10.12".to_owned()]);
    let stack = Stack::start(&options).await.unwrap();
    // Another hundred runners fill the first page, so that ours is the first of the second, which is the one that a
    // moving list passes over.
    let register = async |number: u32| {
        let runner = json!({ "name": format!("another-{number}"), "runner_group_id": 1, "labels": ["nothing"] });
        stack
            .github_post(&format!("/orgs/{ORG}/actions/runners/generate-jitconfig"), &runner)
            .await
            .unwrap();
    };
    for number in 0..100 {
        register(number).await;
    }
    let id = long_job(&stack).await;
    for number in 100..120 {
        register(number).await;
    }
    // Nobody tells that it works, and Redis loses all that it knew.
    let faults =
        json!([{ "fault": "runners_shift" }, { "fault": "rest_status", "endpoint": "list_runs", "status": 500 }]);
    let faults = stack.github_faults(&faults).await.unwrap();
    let mut redis =
        tokio::net::TcpStream::connect(stack.redis_url.trim_start_matches("redis://").trim_end_matches("/0"))
            .await
            .unwrap();
    redis.write_all(b"FLUSHALL\r\n").await.unwrap();
    until("its removal was put off", async || {
        let tries = |info: &Value| {
            info["removal_tries"]
                .as_str()
                .and_then(|tries| tries.parse::<u32>().ok())
                .unwrap_or(0)
        };
        runner(&stack)
            .await
            .is_some_and(|(_, info)| info["adopted_at"].is_string() && tries(&info) >= 2)
    })
    .await;
    assert_at_work(&stack, id).await;
    stack.end_github_faults(Some(faults[0])).await.unwrap();
    until("a list has shown it, with its id", async || {
        runner(&stack)
            .await
            .is_some_and(|(_, info)| info["state"] == "busy" && info["github_id"].is_string())
    })
    .await;
    assert_at_work(&stack, id).await;
    stack.end_github_faults(None).await.unwrap();
    cancel(&stack, id).await;
    until("its slot is free", async || {
        number(&stack.ledger().await.unwrap_or_default(), "/total_running") == 0
    })
    .await;
    until("its pod is gone", async || stack.in_cluster().await.unwrap().0 == 0).await;
    assert_sound(&stack).await;
    stack.stop().await;
}
