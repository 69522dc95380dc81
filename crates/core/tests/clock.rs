//! Redis's clock was an hour ahead, and is right again: everything goes on within the time that it takes by itself. On
//! a real Redis.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jit_core::{
    ledger::{Budget, Observation, RateWord, Spending, Subject},
    store, stream,
};
use jit_testing::{Store, completed, maker, queued, refused};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A store whose Redis's clock is an hour ahead, and its workers have noticed nothing.
async fn ahead() -> Store {
    let store = Store::open().await;
    store.ledger.heartbeat("w").await.unwrap();
    store.pass(HOUR);
    store.ledger.heartbeat("w").await.unwrap();
    store
}

/// The clock is right again, and a worker's heart beats.
async fn set_back(store: &Store) {
    store.pass(-HOUR);
    store.ledger.heartbeat("w").await.unwrap();
}

/// GitHub refuses the runner of job 1.
async fn refuse(store: &Store) {
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.ledger.claim(&name, &fence, &maker("w", "default")).await.unwrap();
    store
        .ledger
        .fail(&name, &fence, &refused(&[Subject::Org], "GitHub answered 403"))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_backs_off_is_tried_again_after_its_wait() {
    let store = ahead().await;
    refuse(&store).await;
    set_back(&store).await;
    assert!(store.admit().await.is_empty());
    store.pass(61 * SECOND);
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_probe_holds_the_others_up_no_longer_than_it_may() {
    let store = ahead().await;
    refuse(&store).await;
    store.pass(2 * MINUTE);
    assert_eq!(store.admit().await.len(), 1, "the probe");
    store.apply(&queued(2, "acme")).await;
    store.pass(-2 * MINUTE);
    set_back(&store).await;
    store.pass(11 * MINUTE);
    store.ledger.due(64, Duration::from_secs(60)).await.unwrap();
    assert!(!store.admit().await.is_empty());
}

#[tokio::test]
async fn runners_that_are_gone_are_released_and_the_others_have_their_deadlines() {
    let store = ahead().await;
    for job in 1..=3 {
        store.apply(&queued(job, "acme")).await;
    }
    let made = store.admit().await;
    store.make(&made[0].0, &made[0].1, 5).await;
    store.create(&made[1].0, &made[1].1, 6).await;
    set_back(&store).await;
    store.pass(1);
    let reconciled = store.ledger.reconcile(store.time(), &[]).await.unwrap();
    assert_eq!(reconciled.released, 2, "{reconciled:?}");
    let due = store.due_after(11 * MINUTE).await;
    assert!(
        store.runner_state(&made[2].0).await == "gone" && due.removals.is_empty(),
        "a reservation that nobody took up"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn jobs_are_asked_about_and_doubts_looked_up() {
    let store = ahead().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 5).await;
    store
        .ledger
        .observe(Observation::Release, &name, "exit code 1")
        .await
        .unwrap();
    assert_eq!(store.state(1).await, "in_question");
    set_back(&store).await;
    assert_eq!(store.due_after(2 * MINUTE).await.questions.len(), 1);
    assert_eq!(store.due_after(15 * MINUTE).await.registrations.len(), 1);
}

#[tokio::test]
async fn dead_workers_are_dead() {
    let store = ahead().await;
    store.ledger.heartbeat("dead").await.unwrap();
    set_back(&store).await;
    store.pass(21 * SECOND);
    store.ledger.heartbeat("w").await.unwrap();
    assert_eq!(
        store.ledger.living_workers(Duration::from_secs(20)).await.unwrap(),
        ["w".to_owned()].into()
    );
}

#[tokio::test]
async fn surplus_is_reaped_after_its_grace() {
    let store = ahead().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 5).await;
    store.apply(&completed(1, "acme", None)).await;
    set_back(&store).await;
    store.pass(3 * MINUTE);
    store.admit().await;
    assert_eq!(store.runner_state(&name).await, "removing");
}

#[tokio::test]
async fn githubs_limits_hold_for_an_hour_at_most() {
    let store = ahead().await;
    let budget = Budget {
        registrations: 1,
        points_per_minute: 0,
        spare_calls_per_hour: 0,
    };
    let spend = async |runner: &str| {
        store
            .ledger
            .spend_registration("default", "orgs/acme", runner, &budget)
            .await
            .unwrap()
    };
    assert_eq!(spend("a").await, Spending::Allowed);
    let used_up = RateWord {
        limit: 5000,
        remaining: 0,
        reset_in: Duration::from_secs(3600),
    };
    store.ledger.note_rate("default", &used_up).await.unwrap();
    assert_ne!(spend("b").await, Spending::Allowed);
    set_back(&store).await;
    assert_ne!(
        spend("c").await,
        Spending::Allowed,
        "the window of five minutes begins now"
    );
    store.pass(6 * MINUTE);
    assert_eq!(
        spend("c").await,
        Spending::Allowed,
        "it is over, and so is the word of an hour that ends in two"
    );
}

#[tokio::test]
async fn a_thousand_of_a_kind_are_put_right_in_slices() {
    let store = Store::with_limits(|limits| (limits.max_per_org, limits.max_total) = (300, 300)).await;
    store.ledger.heartbeat("w").await.unwrap();
    store.pass(HOUR);
    store.ledger.heartbeat("w").await.unwrap();
    for job in 1..=300 {
        store
            .ledger
            .apply(&queued(job, "acme"), Some(store.time()))
            .await
            .unwrap();
    }
    assert_eq!(store.admit().await.len(), 300);
    set_back(&store).await;
    store.pass(11 * MINUTE);
    for _ in 0..5 {
        store.ledger.due(64, Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(
        store.ledger.overview().await.unwrap().total_running,
        0,
        "no reservation was taken up"
    );
}

#[tokio::test]
async fn ticks_go_on() {
    let store = Store::open().await;
    let mut publisher = store::publisher(&store.redis);
    let mut redis = store.ledger.pool().get().await.unwrap();
    let second = Duration::from_secs(1);
    for key in ["tick:sync", "tick:sync:work"] {
        redis::cmd("SET")
            .arg(key)
            .arg("dead")
            .arg("PX")
            .arg(HOUR)
            .exec_async(&mut redis)
            .await
            .unwrap();
    }
    assert!(stream::emit_tick(&mut publisher, "sync", second).await.unwrap());
    assert!(!stream::emit_tick(&mut publisher, "sync", second).await.unwrap());
    assert!(store.ledger.take_tick("sync", "w", second).await.unwrap());
    assert!(!store.ledger.take_tick("sync", "v", second).await.unwrap());
}
