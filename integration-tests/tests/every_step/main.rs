//! Every step can be the last: a worker is killed at each step between two effects in turn, another goes on, and
//! nothing is lost.
//!
//! The steps are read from the worker's source, so a new one is taken up by itself. It has to be reached: one that
//! plain jobs do not reach needs a scenario ([`scenarios`]). `STEP=upkeep.` tries only those that begin so.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Instant;

use integration_tests::{PodCount, assert_sound, kubernetes, number, settle, source, until};
use jit_harness::stack::Stack;

mod scenarios;

use scenarios::{PACE, Run};

#[test]
fn every_effect_of_the_worker_is_followed_by_a_step() {
    let missing = source::without_a_step();
    assert!(
        missing.is_empty(),
        "add `.step(\"…\")` behind the `.await` of:\n{}",
        missing.join("\n")
    );
    let steps = source::steps();
    assert!(steps.len() >= 40, "the steps are not found: {steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_at_every_step() {
    let wanted = std::env::var("STEP").unwrap_or_default();
    let steps: Vec<String> = source::steps()
        .into_keys()
        .filter(|step| step.starts_with(&wanted))
        .collect();
    // GitHub tells what is left of the hour's calls, so that a worker has something to note.
    let mut options = kubernetes(steps.len() + 1, 1, &PACE);
    let app = [
        "--app-id",
        "4711",
        "--app-public-key-file",
        &scenarios::app_key("app-public.pem"),
    ]
    .map(str::to_owned);
    options
        .github_args
        .extend(["--rate-limit".to_owned(), "1000000".to_owned()].into_iter().chain(app));
    let mut stack = Stack::start(&options).await.unwrap();
    let pods = PodCount::watch(stack.namespace.as_deref().unwrap()).await;
    let (mut jobs, mut cancelled) = (0, 0);
    for (number, step) in steps.iter().enumerate() {
        let began = Instant::now();
        let mut run = Run::new(&mut stack, step, number + 1);
        run.play().await;
        (jobs, cancelled) = (jobs + run.jobs, cancelled + run.cancelled);
        println!("{:>5} ms  {}  {step}", began.elapsed().as_millis(), run.org);
    }
    // The one after the last dead one has nothing in its way.
    let worker = stack.part("worker-1").unwrap();
    worker.set_env("JIT_KILL_AT", None);
    stack.restart("worker-1").await.unwrap();
    let began = Instant::now();
    let summary = settle(&stack, jobs).await;
    println!(
        "{:>5} ms  to settle: {} steps, {jobs} jobs, {cancelled} cancelled",
        began.elapsed().as_millis(),
        steps.len()
    );
    assert_eq!(number(&summary, "/jobs/created"), jobs, "{summary:#}");
    assert_eq!(number(&summary, "/jobs/run"), jobs - cancelled, "lost: {summary:#}");
    assert_eq!(number(&summary, "/jobs/run_twice"), 0, "twice: {summary:#}");
    pods.assert_within(2, 200);
    assert_nothing_pending(&stack).await;
    assert_sound(&stack).await;
    stack.stop().await;
}

/// Nothing is left in the ledger that somebody would have to come back to.
async fn assert_nothing_pending(stack: &Stack) {
    until("streams, questions and doubts are empty", async || {
        let mut redis = stack.redis().await.unwrap();
        let mut left = 0;
        for (command, key) in [
            ("XLEN", "jit:events"),
            ("XLEN", "jit:provision"),
            ("ZCARD", "jobs:questions"),
            ("ZCARD", "registrations:uncertain"),
            ("ZCARD", "runners:deadlines"),
            ("SCARD", "runners:live"),
        ] {
            left += redis::cmd(command)
                .arg(key)
                .query_async::<u64>(&mut redis)
                .await
                .unwrap();
        }
        left == 0
    })
    .await;
}
