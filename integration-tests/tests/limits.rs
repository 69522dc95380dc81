//! GitHub's limits hold for all workers together: a limit that one call meets stops all that uses its credential, and
//! no more than 100 calls are under way at once. Runners are processes here: what they run on does not matter to this.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use integration_tests::{assert_sound, brisk, number, settle, until};
use jit_core::{
    ledger::{AT_ONCE, Budget, Ledger},
    store::{self, RedisSettings},
};
use jit_github::{Client, ClientOptions, Error};
use jit_harness::stack::{Backend, Options, Stack};
use jit_worker::{calls::Calls, metrics::Metrics};
use serde_json::{Value, json};

/// The limit is over after so long, s, and met again as long as the fault lasts.
const RESET: u64 = 20;

fn options(workers: usize, env: &[(&str, &str)]) -> Options {
    let env = brisk()
        .into_iter()
        .chain(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .collect();
    Options {
        orgs: 1,
        workers,
        backend: Backend::Process,
        env,
        ..Options::default()
    }
}

/// Times of the calls that the fault refused, ms.
async fn refused(stack: &Stack) -> Vec<u64> {
    let log = stack
        .get(&format!("{}/_control/log?limit=1000000", stack.github_url))
        .await
        .unwrap();
    let events = log["events"].as_array().unwrap().iter();
    events
        .filter(|event| event["fault"] == "rest_status" && event["status"] == 403)
        .map(|event| event["at"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_removals_at_a_used_up_hour_cost_a_handful_of_calls() {
    const RUNNERS: usize = 60;
    const WORKERS: usize = 2;
    let env = [
        ("MAX_RUNNERS_PER_ORG", "60"),
        ("IDLE_CHECK", "1h"),
        ("IDLE_TIMEOUT", "2h"),
        ("START_TIMEOUT", "1h"),
        ("SURPLUS_GRACE", "1s"),
    ];
    let stack = Stack::start(&options(WORKERS, &env)).await.unwrap();
    stack
        .github_faults(&json!({ "fault": "runner_never_connects" }))
        .await
        .unwrap();
    let ids = stack
        .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 50, "count": RUNNERS }))
        .await
        .unwrap();
    until("all runners are made", async || {
        let runners = stack.jitctl(&["runners"]).await.unwrap_or_default();
        let is_made = |runner: &&Value| runner["state"] == "created";
        runners
            .as_object()
            .is_some_and(|runners| runners.values().filter(is_made).count() == RUNNERS)
    })
    .await;
    let fault = json!({ "fault": "rest_status", "status": 403, "rate_limit": true, "retry_after": RESET });
    let fault = stack.github_faults(&fault).await.unwrap()[0];
    for id in ids {
        stack
            .post(&format!("{}/_control/jobs/{id}/cancel", stack.github_url), &json!({}))
            .await
            .unwrap();
    }
    // Until the limit has been met, and has been met again after it was over.
    until("one call has tried whether it is over", async || {
        let times = refused(&stack).await;
        times
            .first()
            .zip(times.last())
            .is_some_and(|(first, last)| last - first >= RESET * 1000 - 1000)
    })
    .await;
    let times = refused(&stack).await;
    let (first, last) = (times[0], *times.last().unwrap());
    // What was under way when it was met first (eight removals of each worker, and a call of each other loop); then one
    // each time that it is over.
    let most = WORKERS * 12 + usize::try_from((last - first) / ((RESET - 1) * 1000)).unwrap() + 1;
    assert!(
        times.len() <= most,
        "{} calls were refused, {most} are allowed: {times:?}",
        times.len()
    );
    stack.end_github_faults(Some(fault)).await.unwrap();
    settle(&stack, RUNNERS as u64).await;
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_have_no_more_than_a_hundred_calls_under_way() {
    let stack = Stack::start(&options(0, &[])).await.unwrap();
    stack
        .github_faults(&json!({ "fault": "rest_slow", "endpoint": "get_job", "delay_ms": 3000 }))
        .await
        .unwrap();
    let token = std::fs::read_to_string(stack.dir().join("token")).unwrap();
    let api = jit_github::api_url_for(&stack.github_url.parse().unwrap());
    let clients: Vec<Client> = ["worker-1", "worker-2"]
        .iter()
        .map(|worker| {
            let ledger = Ledger::new(store::pool(&RedisSettings::of_url(&stack.redis_url).unwrap()).unwrap());
            let budget = Budget {
                registrations: 0,
                points_per_minute: 0,
                spare_calls_per_hour: 0,
            };
            let (token, (metrics, _)) = (token.clone(), Metrics::register());
            let mut options = ClientOptions::new(api.clone(), Arc::new(move || token.trim().into()));
            options.timeout = Duration::from_secs(60);
            options.gate = Some(Calls::new(worker, &ledger, budget, &metrics).gate("default"));
            Client::new(options).unwrap()
        })
        .collect();
    // As many as two workers with WORKER_CONCURRENCY=75 have.
    let calls = (0..150).map(async |n| {
        // One whose turn does not come for long is told to come later.
        loop {
            match clients[n % 2].job("org-0001", "app-0", 1).await {
                Err(Error::Held { .. }) => {}
                answer => break answer.unwrap(),
            }
        }
    });
    for answer in join_all(calls).await {
        assert_eq!(answer, None, "there is no such job, and every call was made");
    }
    let summary = stack.summary().await.unwrap();
    let most = number(&summary, "/runners/rest_most_at_once");
    assert!(most <= AT_ONCE && most > 1, "{most} at once");
    stack.stop().await;
}
