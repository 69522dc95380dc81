//! The world around the system changes while it works: names, and what a job's runner is made by. Runners are processes
//! here: what they run on does not matter to this.

#![allow(clippy::unwrap_used, missing_docs)]

use integration_tests::{assert_sound, brisk, number, settle, until};
use jit_harness::stack::{Backend, Options, Stack};
use serde_json::{Value, json};

fn options(env: &[(&str, &str)]) -> Options {
    let env = brisk()
        .into_iter()
        .chain(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .collect();
    Options {
        orgs: 2,
        workers: 2,
        backend: Backend::Process,
        env,
        ..Options::default()
    }
}

async fn state(stack: &Stack, job: u64) -> Value {
    stack
        .get(&format!("{}/_control/jobs/{job}", stack.github_url))
        .await
        .unwrap()["state"]
        .clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_organization_keeps_its_jobs_and_its_runner_at_work() {
    let stack = Stack::start(&options(&[("MAX_RUNNERS_PER_ORG", "1")])).await.unwrap();
    let of = |org: &str, duration: u64| {
        json!({ "org": org, "repo": "app", "labels": ["code-linux"],
        "duration_ms": duration })
    };
    let at_work = stack.create_jobs(&of("org-0001", 12_000)).await.unwrap()[0];
    until("a job is at work", async || {
        state(&stack, at_work).await == "in_progress"
    })
    .await;
    let waits = stack.create_jobs(&of("org-0001", 50)).await.unwrap()[0];
    until("another waits", async || {
        number(&stack.ledger().await.unwrap_or_default(), "/total_pending") == 1
    })
    .await;
    stack
        .post(
            &format!("{}/_control/orgs/org-0001/rename", stack.github_url),
            &json!({ "login": "Umbrella" }),
        )
        .await
        .unwrap();
    let after = stack.create_jobs(&of("Umbrella", 50)).await.unwrap()[0];
    // Idle checks, questions and surplus come by several times while the first job runs.
    until("all jobs are over", async || {
        state(&stack, after).await == "completed" && state(&stack, waits).await == "completed"
    })
    .await;
    let summary = settle(&stack, 3).await;
    assert_eq!(
        number(&summary, "/jobs/success"),
        3,
        "no runner was ended at its work: {summary}"
    );
    let status = stack
        .get(&format!("{}/orgs/umbrella/status", stack.receiver_url))
        .await
        .unwrap();
    assert_eq!(status["organization"], "Umbrella");
    assert_eq!(status["is_custom_limit"], false);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_came_under_wrong_settings_runs_when_they_are_right() {
    let mut stack = Stack::start(&options(&[("RUNNER_GROUP", "mispelt")])).await.unwrap();
    stack
        .post(
            &format!("{}/_control/groups", stack.github_url),
            &json!({ "org": "org-0001", "name": "misspelt" }),
        )
        .await
        .unwrap();
    let job = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 50 }))
        .await
        .unwrap()[0];
    until("the job waits for a group that is not there", async || {
        let why = stack.jitctl(&["why", &job.to_string()]).await.unwrap_or_default();
        why.to_string().contains("mispelt")
    })
    .await;
    for part in ["receiver", "worker-1", "worker-2"] {
        stack.part(part).unwrap().set_env("RUNNER_GROUP", Some("misspelt"));
        stack.restart(part).await.unwrap();
    }
    let summary = settle(&stack, 1).await;
    assert_eq!(number(&summary, "/jobs/success"), 1);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_repositories_share_one_limit() {
    const LIMIT: u64 = 2;
    let stack = Stack::start(&options(&[("MAX_RUNNERS_PER_ORG", "2")])).await.unwrap();
    stack
        .post(
            &format!("{}/_control/orgs", stack.github_url),
            &json!({ "login": "octocat", "user": true }),
        )
        .await
        .unwrap();
    let jobs = (0..12).map(|n| {
        json!({ "user": "octocat", "repo": format!("app-{}", n % 6), "labels": ["code-linux"],
        "duration_ms": 100 })
    });
    stack.create_jobs(&Value::from(jobs.collect::<Vec<_>>())).await.unwrap();
    let summary = settle(&stack, 12).await;
    assert_eq!(number(&summary, "/jobs/success"), 12);
    let most = number(&summary, "/orgs/octocat/max_registered");
    assert!(most <= LIMIT, "{most} runners at once: {summary}");
    let status = stack
        .get(&format!("{}/orgs/octocat/status", stack.receiver_url))
        .await
        .unwrap();
    assert_eq!(number(&status, "/max"), LIMIT);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_looks_elsewhere_frees_and_ends_nobodys_runners() {
    const LIMIT: u64 = 5;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut stack = Stack::start(&options(&[("MAX_RUNNERS_PER_ORG", "5"), ("SYNC_INTERVAL", "1s")]))
        .await
        .unwrap();
    stack
        .part("worker-2")
        .unwrap()
        .set_env("RUNNER_DIRECTORY", elsewhere.path().to_str());
    stack.restart("worker-2").await.unwrap();
    stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 4000, "count": 10 }))
        .await
        .unwrap();
    let summary = settle(&stack, 10).await;
    assert_eq!(
        number(&summary, "/jobs/success"),
        10,
        "no runner was ended at its work: {summary}"
    );
    let most = number(&summary, "/orgs/org-0001/max_registered");
    assert!(most <= LIMIT, "{most} runners at once: {summary}");
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_lost_data_each_worker_counts_what_runs_at_its_own_place() {
    const LIMIT: u64 = 5;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut stack = Stack::start(&options(&[
        ("MAX_RUNNERS_PER_ORG", "5"),
        ("WORKER_CONCURRENCY", "2"),
        ("WORKER_HEARTBEAT", "1s"),
    ]))
    .await
    .unwrap();
    stack
        .part("worker-2")
        .unwrap()
        .set_env("RUNNER_DIRECTORY", elsewhere.path().to_str());
    stack.restart("worker-2").await.unwrap();
    let jobs = |count: u64, duration: u64| {
        json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": duration,
        "count": count })
    };
    stack.create_jobs(&jobs(5, 15_000)).await.unwrap();
    until("five jobs run", async || {
        number(&stack.summary().await.unwrap(), "/leftovers/in_progress") == 5
    })
    .await;
    redis::cmd("FLUSHALL")
        .exec_async(&mut stack.redis().await.unwrap())
        .await
        .unwrap();
    stack.create_jobs(&jobs(5, 100)).await.unwrap();
    let summary = settle(&stack, 10).await;
    assert_eq!(number(&summary, "/jobs/success"), 10, "{summary}");
    let most = number(&summary, "/orgs/org-0001/max_registered");
    assert!(most <= LIMIT, "{most} runners at once: {summary}");
    assert_sound(&stack).await;
    stack.stop().await;
}
