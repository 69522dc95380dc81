//! One of ten organizations is refused for ever; `make brakes` plays all ways of that for longer, and measures times,
//! too.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use jit_harness::brakes::{COST, JOBS, Plan, play, sickness};

/// What a sickness costs is bounded, it costs nobody else a job, and in the end the sick organization's jobs have run,
/// each once.
async fn is_braked(name: &str) {
    let brisk = [("START_BACKOFF", "2s"), ("ORGANIZATION_BACKOFF", "2s")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let plan = Plan {
        lasts: Duration::from_secs(12),
        recovery: Duration::from_secs(180), // a bound on patience alone: nothing here is about time
        env: integration_tests::brisk().into_iter().chain(brisk).collect(),
        ..Plan::judged(0)
    };
    let outcome = play(&sickness::named(&[name.to_owned()]).unwrap()[0], &plan)
        .await
        .unwrap();
    println!("{outcome}");
    assert!(
        outcome.pods <= COST && outcome.registrations <= COST,
        "more than {COST}: {outcome}"
    );
    assert_eq!((outcome.ran, outcome.unserved), (JOBS, 0), "{outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_conflicts_whatever_its_name() {
    is_braked("409").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_github_that_fails_for_one_organization() {
    is_braked("502").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_ends_at_once() {
    is_braked("exit-1").await;
}
