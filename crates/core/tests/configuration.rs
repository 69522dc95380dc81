//! The configuration that went with Redis's data, and the limits of single organizations.

use std::collections::BTreeSet;

use jit_core::{config::LimitsSettings, operator};
use jit_testing::{Store, completed, default_limits, queued};

#[tokio::test]
async fn a_ledger_that_lost_its_configuration_takes_everything_and_admits_nothing() {
    let store = Store::open().await;
    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let () = redis::cmd("FLUSHDB")
        .query_async(&mut connection)
        .await
        .expect("emptied");
    store
        .ledger
        .set_limits(&[("acme".into(), Some(5))], false)
        .await
        .expect("set");
    store.apply(&queued(1, "acme")).await;
    store.apply(&completed(2, "acme", None)).await;
    store.apply(&queued(2, "acme")).await; // late
    assert_eq!(
        (store.state(1).await.as_str(), store.state(2).await.as_str()),
        ("queued", "completed")
    );
    assert!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconciled")
            .opened
    );
    assert_eq!(store.ledger.admit().await.expect("admitted").admitted, 0);
    store.assert_sound().await;
    operator::ensure_configured(&store.ledger, &default_limits())
        .await
        .expect("configured");
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn limits_of_the_file_are_there_before_anything_is_admitted_on_lost_data() {
    let store = Store::open().await;
    let dir = tempfile::tempdir().expect("a directory");
    let limits = LimitsSettings {
        org_limits_file: dir.path().join("org-limits.yaml"),
        ..default_limits()
    };
    std::fs::write(&limits.org_limits_file, "org_limits: {acme: 1}").expect("written");
    operator::configure(&store.ledger, &limits).await.expect("configured");
    assert!(
        store.ledger.limits().await.expect("limits").1.is_empty(),
        "it holds a configuration: an operator may have dropped them"
    );

    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let () = redis::cmd("FLUSHDB")
        .query_async(&mut connection)
        .await
        .expect("emptied");
    operator::ensure_configured(&store.ledger, &limits)
        .await
        .expect("configured");
    assert!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconciled")
            .opened
    );
    for job in 1..=3 {
        store.apply(&queued(job, "acme")).await;
    }
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn each_change_of_the_configuration_counts_up_and_no_change_does_not() {
    let store = Store::open().await;
    let generation = async || {
        let mut connection = store.ledger.pool().get().await.expect("a connection");
        redis::cmd("HGET")
            .arg("ledger:meta")
            .arg("generation")
            .query_async::<u64>(&mut connection)
            .await
            .expect("a number")
    };
    let first = generation().await;
    store.ledger.configure(&default_limits()).await.expect("done");
    assert_eq!(generation().await, first);
    let other = LimitsSettings {
        max_total: 7,
        ..default_limits()
    };
    store.ledger.configure(&other).await.expect("done");
    assert_eq!(generation().await, first + 1);
}

#[tokio::test]
async fn a_pause_without_an_end_outlasts_the_one_before() {
    let store = Store::open().await;
    store
        .ledger
        .pause("acme", "for an hour", Some(store.time() + 3_600_000))
        .await
        .expect("done");
    store
        .ledger
        .pause("acme", "until somebody ends it", None)
        .await
        .expect("done");
    store.apply(&queued(1, "acme")).await;
    store.pass(2 * 3_600_000);
    assert!(store.admit().await.is_empty());
}

/// A setting that nobody configures would be 0 in a script, without a word.
#[test]
fn each_setting_that_a_script_reads_is_configured_and_each_is_read() {
    let folders = ["prelude", "ops"].map(|folder| format!("{}/src/ledger/lua/{folder}", env!("CARGO_MANIFEST_DIR")));
    let files = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("scripts"));
    let text: String = files
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("read"))
        .collect();
    let calls = text.split("setting(").skip(1).filter_map(|rest| rest.split(')').next());
    let read: BTreeSet<&str> = calls.flat_map(|call| call.split('\'').skip(1).step_by(2)).collect();
    let limits = default_limits();
    let configured: BTreeSet<&str> = limits
        .times
        .keys()
        .copied()
        .chain(["max_total", "max_per_org"])
        .collect();
    assert_eq!(read, configured);
}
