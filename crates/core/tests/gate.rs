//! The gate: nothing is admitted from data that may be lost or rolled back until the runners that are really there were
//! counted.

use std::{collections::BTreeMap, time::Duration};

use jit_core::{
    config::LimitsSettings,
    ledger::{Claim, Ledger, Observation},
    store,
};
use jit_testing::{Store, default_limits, listed, maker, queued};

const MINUTE: i64 = 60_000;

#[tokio::test]
async fn nothing_is_admitted_until_a_reconcile_has_run() {
    let store = Store::empty().await;
    store.apply(&queued(1, "acme")).await;
    assert!(store.ledger.admit().await.expect("admit").gate_closed);
    assert!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconcile")
            .opened
    );
    assert_eq!(store.admit().await.len(), 1);
}

/// A pod that was claimed before the data was lost is in no list until it has come.
#[tokio::test]
async fn after_lost_data_the_gate_waits_for_what_is_on_its_way() {
    let mut store = Store::with_limits(|limits| limits.max_per_org = 1).await;
    store.ledger = store.ledger.at(BTreeMap::new(), Duration::from_secs(20));
    store.apply(&queued(1, "acme")).await;
    let (claimed, fence) = store.admit().await.remove(0);
    assert!(matches!(
        store
            .ledger
            .claim(&claimed, &fence, &maker("w", "default"))
            .await
            .expect("claimed"),
        Claim::Ours(_)
    ));
    let began = store.time();
    store.pass(5);
    redis::cmd("FLUSHDB")
        .exec_async(&mut store.ledger.pool().get().await.expect("a connection"))
        .await
        .expect("emptied");
    store
        .ledger
        .configure(&LimitsSettings {
            max_per_org: 1,
            ..default_limits()
        })
        .await
        .expect("configured");
    store.apply(&queued(1, "acme")).await;
    // Another runner of the organization is there, or this would be a first start.
    let there = listed("jit-runner-2-t", "acme");
    let first = store
        .ledger
        .reconcile(began, std::slice::from_ref(&there))
        .await
        .expect("reconciled");
    assert_eq!(
        (first.opened, first.adopted, first.opens_in),
        (false, 1, Some(20_000)),
        "the list may be from before the loss"
    );
    store.pass(19_999);
    let second = store
        .ledger
        .reconcile(store.time(), std::slice::from_ref(&there))
        .await
        .expect("reconciled");
    assert_eq!((second.opened, second.opens_in), (false, Some(1)));
    assert!(store.ledger.admit().await.expect("admit").gate_closed);
    store.pass(1);
    let both = [there, listed(&claimed, "acme")];
    let third = store.ledger.reconcile(store.time(), &both).await.expect("reconciled");
    assert_eq!((third.opened, third.adopted, third.opens_in), (true, 1, None));
    assert!(store.admit().await.is_empty(), "two runners count, and one is allowed");
    store.assert_sound().await;
}

/// The list that opens the gate of an empty store begins after it is known to be empty.
#[tokio::test]
async fn a_list_from_before_the_loss_opens_no_gate() {
    let store = Store::empty().await;
    let began = store.time();
    store.pass(5);
    assert!(!store.ledger.reconcile(began, &[]).await.expect("reconciled").opened);
    assert!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconciled")
            .opened,
        "a first start waits for nothing"
    );
}

#[tokio::test]
async fn each_loss_has_its_own_wait_and_no_clock_makes_it_longer() {
    let mut store = Store::empty().await;
    store.ledger = store.ledger.at(BTreeMap::new(), Duration::from_secs(20));
    let there = [listed("jit-runner-2-t", "acme")];
    // Noted an hour ago, in data that another run of Redis has saved.
    let mut redis = store.ledger.pool().get().await.expect("a connection");
    redis::cmd("HSET")
        .arg("ledger:meta")
        .arg(&[
            ("lost_at", (store.time() - 60 * MINUTE).to_string()),
            ("lost_run_id", "another".into()),
        ])
        .exec_async(&mut redis)
        .await
        .expect("written");
    assert_eq!(
        store
            .ledger
            .reconcile(store.time(), &there)
            .await
            .expect("reconciled")
            .opens_in,
        Some(20_000)
    );
    // Noted while the clock was an hour ahead.
    store.pass(-60 * MINUTE);
    assert_eq!(
        store
            .ledger
            .reconcile(store.time(), &there)
            .await
            .expect("reconciled")
            .opens_in,
        Some(20_000)
    );
    store.pass(20_000);
    assert!(
        store
            .ledger
            .reconcile(store.time(), &there)
            .await
            .expect("reconciled")
            .opened
    );
}

/// Old data knows a reservation, and not the runner that came since.
#[tokio::test]
async fn a_reservation_of_old_data_is_not_claimed_beside_runners_that_it_does_not_know() {
    let mut store = Store::with_limits(|limits| limits.max_per_org = 1).await;
    store.ledger = store.ledger.at(BTreeMap::new(), Duration::from_secs(20));
    store.apply(&queued(1, "acme")).await;
    let (reserved, fence) = store.admit().await.remove(0);
    let mut redis = store.ledger.pool().get().await.expect("a connection");
    redis::cmd("HSET")
        .arg("ledger:meta")
        .arg("run_id")
        .arg("another")
        .exec_async(&mut redis)
        .await
        .expect("rolled back");
    assert_eq!(
        store
            .ledger
            .claim(&reserved, &fence, &maker("w", "default"))
            .await
            .expect("asked"),
        Claim::Stale
    );
    let there = [listed("jit-runner-2-t", "acme")];
    let first = store.ledger.reconcile(store.time(), &there).await.expect("reconciled");
    assert_eq!(
        (first.opened, first.adopted, first.released),
        (false, 1, 0),
        "its pod may be on its way"
    );
    store.pass(20_000);
    let second = store.ledger.reconcile(store.time(), &there).await.expect("reconciled");
    assert_eq!((second.opened, second.released), (true, 1));
    assert_eq!(
        store
            .ledger
            .claim(&reserved, &fence, &maker("w", "default"))
            .await
            .expect("asked"),
        Claim::Stale
    );
    assert!(store.admit().await.is_empty(), "one is allowed, and one is there");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_reservation_whose_pod_is_there_is_not_simply_dropped() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    // Redis was rolled back to before the claim; its maker died.
    store
        .ledger
        .reconcile(store.time(), &[listed(&name, "acme")])
        .await
        .expect("reconciled");
    assert_eq!(
        store
            .ledger
            .claim(&name, &fence, &maker("another", "default"))
            .await
            .expect("asked"),
        Claim::Stale
    );
    let removals = store
        .due_after(default_limits().times["reserve_timeout"].as_millis() as i64)
        .await
        .removals;
    assert_eq!(
        removals.iter().map(|removal| removal.name.as_str()).collect::<Vec<_>>(),
        [name.as_str()],
        "it counts until it is gone"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn data_restored_in_place_closes_the_gate_and_no_name_is_used_again() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let mut redis = store.ledger.pool().get().await.expect("a connection");
    let old: std::collections::HashMap<String, String> = redis::cmd("HGETALL")
        .arg("ledger:meta")
        .query_async(&mut redis)
        .await
        .expect("read");
    let first = store.admit().await;
    store
        .ledger
        .observe(Observation::Remove, &first[0].0, "lost")
        .await
        .expect("dropped");
    // The same Redis, the same run: only the names are behind.
    redis::cmd("HSET")
        .arg("ledger:meta")
        .arg("sequence")
        .arg(old.get("sequence").map_or("0", String::as_str))
        .exec_async(&mut redis)
        .await
        .expect("written");
    assert!(store.ledger.admit().await.expect("admit").gate_closed);
    assert!(
        !store.ledger.gate_is_open().await.expect("asked"),
        "for every other worker too"
    );
    assert!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconciled")
            .opened
    );
    let second = store.admit().await;
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].0, second[0].0);
    store.assert_sound().await;
}

#[tokio::test]
async fn an_epoch_is_later_than_the_one_before_it_though_the_clock_was_set_back() {
    let store = Store::open().await;
    let epoch = async || {
        let mut redis = store.ledger.pool().get().await.expect("a connection");
        let text: String = redis::cmd("HGET")
            .arg("ledger:meta")
            .arg("epoch")
            .query_async(&mut redis)
            .await
            .expect("read");
        u64::from_str_radix(&text, 36).expect("base 36")
    };
    let first = epoch().await;
    store.pass(-60 * MINUTE);
    let mut redis = store.ledger.pool().get().await.expect("a connection");
    redis::cmd("HSET")
        .arg("ledger:meta")
        .arg("run_id")
        .arg("another")
        .exec_async(&mut redis)
        .await
        .expect("written");
    // A worker that has just started has seen no epoch itself.
    let another = Ledger::new(store::pool(&store.redis).expect("a pool")).with_clock(store.clock.clone());
    assert!(another.reconcile(store.time(), &[]).await.expect("reconciled").opened);
    assert_eq!(epoch().await, first + 1);
}
