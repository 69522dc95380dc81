//! Runners count where they run: whoever looks elsewhere frees none of them, and ends none. On a real Redis.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jit_core::ledger::{Claim, Ledger, Listed, Observation};
use jit_testing::{Store, in_progress, listed, maker, queued};

const MINUTE: i64 = 60_000;

fn at(store: &Store, place: &str) -> Ledger {
    store
        .ledger
        .clone()
        .at([("default".to_owned(), place.to_owned())].into(), Duration::ZERO)
}

/// Makes the runner of job 1 at a place, until its program runs.
async fn runner_at(store: &Store, ledger: &Ledger) -> String {
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    assert!(matches!(
        ledger.claim(&name, &fence, &maker("w", "default")).await.unwrap(),
        Claim::Ours(_)
    ));
    ledger
        .registered(&name, &fence, 5, Duration::from_secs(20))
        .await
        .unwrap();
    ledger.created(&name, &fence).await.unwrap();
    ledger.observe(Observation::Started, &name, "").await.unwrap();
    store.pass(MINUTE);
    name
}

#[tokio::test]
async fn a_worker_that_looks_elsewhere_frees_nobody() {
    let store = Store::open().await;
    let (here, elsewhere) = (at(&store, "kubernetes/runners/1"), at(&store, "kubernetes/runners/2"));
    let name = runner_at(&store, &here).await;
    assert_eq!(elsewhere.reconcile(store.time(), &[]).await.unwrap().released, 0);
    assert_eq!(store.runner_state(&name).await, "created");
    here.observe(Observation::Remove, &name, "for a test").await.unwrap();
    let lease = Duration::from_secs(90);
    assert!(
        elsewhere.due(64, lease).await.unwrap().removals.is_empty(),
        "it cannot end that pod"
    );
    assert_eq!(here.due(64, lease).await.unwrap().removals.len(), 1);
    assert_eq!(
        here.reconcile(store.time(), &[]).await.unwrap().released,
        1,
        "whoever looks where it was"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_place_is_known_with_and_without_its_uid() {
    let (named, bare, other) = ("kubernetes/runners/1", "kubernetes/runners", "kubernetes/runners-2/1");
    for (made, looks, frees) in [(named, bare, 1), (bare, named, 1), (named, other, 0), (other, bare, 0)] {
        let store = Store::open().await;
        runner_at(&store, &at(&store, made)).await;
        assert_eq!(
            at(&store, looks).reconcile(store.time(), &[]).await.unwrap().released,
            frees,
            "{made}, {looks}"
        );
    }
    let store = Store::open().await;
    runner_at(&store, &store.ledger).await;
    assert_eq!(
        at(&store, named).reconcile(store.time(), &[]).await.unwrap().released,
        1,
        "a release before did not note the place"
    );
}

#[tokio::test]
async fn removals_elsewhere_keep_nobody_from_those_here() {
    let store = Store::with_limits(|limits| limits.max_per_org = 100).await;
    let (here, elsewhere) = (at(&store, "kubernetes/a"), at(&store, "kubernetes/b"));
    for job in 1..=21 {
        store.apply(&queued(job, "acme")).await;
    }
    let made = store.admit().await;
    for (n, (name, fence)) in made.iter().enumerate() {
        let ledger = if n < 20 { &elsewhere } else { &here };
        ledger.claim(name, fence, &maker("w", "default")).await.unwrap();
        ledger.observe(Observation::Remove, name, "for a test").await.unwrap();
    }
    store.pass(MINUTE);
    assert_eq!(here.due(10, Duration::from_secs(90)).await.unwrap().removals.len(), 1);
}

#[tokio::test]
async fn a_place_that_nobody_lists_is_named_and_can_be_given_up() {
    let store = Store::open().await;
    let (here, elsewhere) = (at(&store, "kubernetes/runners/1"), at(&store, "kubernetes/runners/2"));
    let name = runner_at(&store, &here).await;
    here.reconcile(store.time(), &[listed(&name, "acme")]).await.unwrap();
    assert!(store.ledger.unseen_places().await.unwrap().is_empty());
    assert!(store.ledger.is_listed("kubernetes/runners/1").await.unwrap());
    store.pass(11 * MINUTE);
    elsewhere.reconcile(store.time(), &[]).await.unwrap();
    let told = store.ledger.unseen_places().await.unwrap();
    assert!(
        told[0]
            .text
            .contains("1 runners count at kubernetes/runners/1, which no worker has listed since")
            && told.len() == 1,
        "{told:?}"
    );
    assert_eq!(store.ledger.give_up("kubernetes/runners/3").await.unwrap(), 0);
    assert_eq!(store.ledger.give_up("kubernetes/runners/1").await.unwrap(), 1);
    assert_eq!(
        (store.runner_state(&name).await, store.state(1).await),
        ("gone".to_owned(), "in_question".to_owned()),
        "its job may have run there"
    );
    assert!(store.ledger.unseen_places().await.unwrap().is_empty());
    let due = store.due_after(2 * MINUTE).await;
    assert_eq!(
        (due.questions.len(), due.registrations.len()),
        (1, 1),
        "GitHub is asked about both"
    );
    // The place is back, and its runner is at work: it ends by GitHub's word alone.
    let leftover = here
        .reconcile(store.time(), &[listed(&name, "acme")])
        .await
        .unwrap()
        .stop;
    let removal = leftover[0].removal.as_ref().expect("GitHub is asked first");
    assert_eq!(
        (removal.scope.as_str(), removal.github_id, removal.deregistered),
        ("orgs/acme", Some(5), false)
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn what_has_ended_goes_without_a_question() {
    let store = Store::open().await;
    let here = at(&store, "kubernetes/runners/1");
    let name = runner_at(&store, &here).await;
    store.apply(&in_progress(1, "acme", &name, 5)).await;
    store
        .ledger
        .observe(Observation::Release, &name, "exit code 0")
        .await
        .unwrap();
    store.pass(MINUTE);
    let stop = here
        .reconcile(
            store.time(),
            &[Listed {
                ended: true,
                ..listed(&name, "acme")
            }],
        )
        .await
        .unwrap()
        .stop;
    assert!(stop.len() == 1 && stop[0].removal.is_none());
}

#[tokio::test]
async fn an_adopted_runner_is_where_it_was_found() {
    let store = Store::open().await;
    let here = at(&store, "kubernetes/runners/1");
    assert_eq!(
        here.reconcile(store.time(), &[listed("jit-runner-1-x", "acme")])
            .await
            .unwrap()
            .adopted,
        1
    );
    assert_eq!(
        at(&store, "kubernetes/runners/2")
            .reconcile(store.time() + 1, &[])
            .await
            .unwrap()
            .released,
        0
    );
}
