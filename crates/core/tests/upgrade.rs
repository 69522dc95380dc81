//! Data of the version before is read by this one. The data set was written before names had ids (commit 0d40656): a
//! job in each state, a user's repository that counts as an organization of its own, a limit, two pauses, a back-off.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use jit_core::{
    class::Class,
    event::{Identity, JobEvent, JobId},
    ledger::{Answer, AnswerStatus, Listed, Observation},
};
use jit_testing::{Store, completed, default_limits, github_settings, in_progress, queued};

const BEFORE: &str = include_str!("data/before-names-had-ids.ndjson");
const ACME: u64 = 77;

/// The data of before, a moment after it was written, and a worker of this version that starts.
async fn upgraded() -> Store {
    let store = Store::empty().await;
    store.clock.store(1_800_000_000_100, Ordering::Relaxed);
    let mut connection = store.ledger.pool().get().await.unwrap();
    redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
    for line in BEFORE.lines() {
        let command: Vec<String> = serde_json::from_str(line).unwrap();
        redis::cmd(&command[0])
            .arg(&command[1..])
            .exec_async(&mut connection)
            .await
            .unwrap();
    }
    drop(connection);
    store.ledger.configure(&default_limits()).await.unwrap();
    let github = github_settings("https://github.example.com");
    store.ledger.announce_classes(&github).await.unwrap();
    let there = |name: &str, running: bool| Listed {
        name: name.into(),
        ended: false,
        rejected: false,
        detail: None,
        running,
        terminating: false,
        class: None,
        spec: None,
    };
    let listed = [
        there("jit-runner-1-tro8w01", true),
        there("jit-runner-2-tro8w02", true),
        there("jit-runner-3-tro8w03", false),
        there("jit-runner-10-tro8w06", true),
    ];
    let reconciled = store.ledger.reconcile(store.time(), &listed).await.unwrap();
    assert_eq!(
        (reconciled.released, reconciled.adopted, reconciled.stop.len()),
        (1, 0, 0),
        "the reservation that nobody had claimed: {reconciled:?}"
    );
    assert_eq!(
        store.ledger.derive_classes(&github).await.unwrap(),
        2,
        "the jobs of the user's repository"
    );
    assert_eq!(store.ledger.derive_classes(&github).await.unwrap(), 0, "once is enough");
    store.assert_sound().await;
    store
}

fn told(event: JobEvent, owner_id: u64, at: i64) -> JobEvent {
    JobEvent {
        identity: Identity {
            owner_id: Some(owner_id),
            at: Some(at),
            user: false,
        },
        ..event
    }
}

/// A job of a user's repository as this version tells of it.
fn of_user(event: JobEvent) -> JobEvent {
    let class = event.class.map(|class| Class {
        org: "octocat".into(),
        scope: "repos/octocat/app".into(),
        ..class
    });
    JobEvent {
        org: "octocat".into(),
        repo: "octocat/app".into(),
        class,
        identity: Identity {
            owner_id: Some(5),
            at: Some(1000),
            user: true,
        },
        ..event
    }
}

#[tokio::test]
async fn each_job_and_runner_of_before_goes_its_way() {
    let store = upgraded().await;
    assert_eq!(store.ledger.org_status("acme").await.unwrap().max, 7, "its limit");
    let paused = |name: &str| name.contains("-5-") || name.contains("-9-");
    assert!(
        !store.admit().await.iter().any(|(name, _)| paused(name)),
        "its pause, and that of the user's repository"
    );
    store.ledger.resume("Acme").await.unwrap();
    // At work, idle, created, queued: each ends with its job.
    store
        .apply(&completed(1, "Acme", Some(("jit-runner-1-tro8w01", 101))))
        .await;
    store.apply(&in_progress(2, "Acme", "jit-runner-2-tro8w02", 102)).await;
    store
        .ledger
        .observe(Observation::Started, "jit-runner-3-tro8w03", "")
        .await
        .unwrap();
    store.apply(&in_progress(3, "Acme", "jit-runner-3-tro8w03", 103)).await;
    store.apply(&queued(6, "Acme")).await;
    assert_eq!(store.state(6).await, "queued", "approved");
    assert_eq!(store.state(8).await, "completed");
    store.apply(&queued(8, "Acme")).await;
    assert_eq!(store.state(8).await, "completed", "a tombstone is final");
    let due = store.due_after(60_000).await;
    assert_eq!(
        due.questions
            .iter()
            .map(|question| question.job.get())
            .collect::<Vec<_>>(),
        [7]
    );
    let answer = Answer {
        status: AnswerStatus::Queued,
        runner: None,
        runner_id: None,
        conclusion: None,
    };
    store.ledger.answer(&due.questions[0], &answer).await.unwrap();
    // The back-off is over; 4, whose reservation was given back, 5, 6, 7 of Acme, 9 of the user, 11 of Globex want
    // runners.
    let made = store.admit().await;
    let mut jobs: Vec<&str> = made.iter().map(|(name, _)| name.split('-').nth(2).unwrap()).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, ["11", "4", "5", "6", "7", "9"]);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_users_runner_of_before_is_believed_and_its_jobs_count_at_the_user() {
    let store = upgraded().await;
    let job = store.ledger.job(JobId::new(9).unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (job.org.as_deref().unwrap(), job.scope.as_deref().unwrap()),
        ("octocat", "repos/octocat/app")
    );
    store
        .apply(&of_user(completed(10, "octocat", Some(("jit-runner-10-tro8w06", 110)))))
        .await;
    assert_eq!(store.state(10).await, "completed");
    let due = store.due_after(6 * 60_000).await;
    assert!(
        due.removals
            .iter()
            .any(|removal| removal.name == "jit-runner-10-tro8w06"),
        "it did not end after its job: {due:?}"
    );
    store.apply(&of_user(queued(12, "octocat"))).await;
    let status = store.ledger.org_status("octocat").await.unwrap();
    assert_eq!((status.organization.as_str(), status.pending), ("octocat", 2));
    store.assert_sound().await;
}

#[tokio::test]
async fn an_owner_of_before_can_be_renamed() {
    let store = upgraded().await;
    store.apply(&told(queued(20, "Acme"), ACME, 1000)).await;
    store
        .apply(&told(
            in_progress(2, "Umbrella", "jit-runner-2-tro8w02", 102),
            ACME,
            2000,
        ))
        .await;
    store.admit().await;
    assert_eq!(store.runner_state("jit-runner-2-tro8w02").await, "busy");
    let status = store.ledger.org_status("Umbrella").await.unwrap();
    assert_eq!((status.running, status.pending, status.max), (3, 4, 7));
    store.assert_sound().await;
}
