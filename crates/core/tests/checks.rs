//! What the checks find on real servers.

#![allow(clippy::unwrap_used, missing_docs)]

use jit_core::store::{
    self, RedisSettings,
    check::{Checks, Severity, look},
};
use jit_testing::{RedisServer, eventually, run};
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

async fn found(settings: &RedisSettings) -> Vec<(Severity, String)> {
    let pool = store::pool(settings).unwrap();
    look(&pool, settings)
        .await
        .expect("looked")
        .into_iter()
        .map(|finding| (finding.severity, finding.text))
        .collect()
}

/// Whether no process would start, for a reason with these words.
async fn refuses(settings: &RedisSettings, words: &str) -> bool {
    let refused = Checks::new(&store::pool(settings).unwrap(), settings, Gauge::default())
        .first()
        .await
        .expect("looked");
    refused.is_err_and(|refused| refused.to_string().contains(words))
}

#[tokio::test]
async fn a_redis_that_keeps_everything_is_fine_and_one_that_evicts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = RedisServer::start(&[
        "--port",
        "{port}",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--dir",
        dir.path().to_str().unwrap(),
    ]);
    let settings = server.settings();
    assert_eq!(found(&settings).await, []);
    let _: () = server.run("CONFIG SET maxmemory-policy allkeys-lru").await;
    assert!(refuses(&settings, "CONFIG SET maxmemory-policy noeviction").await);
    let trusting = RedisSettings {
        may_evict: true,
        ..settings.clone()
    };
    assert!(!refuses(&trusting, "").await);
    assert!(matches!(found(&trusting).await.as_slice(), [(Severity::Warning, text)] if text.contains("allkeys-lru")));
    let _: () = server.run("CONFIG SET maxmemory-policy noeviction").await;
    let _: () = server.run("CONFIG SET appendfsync no").await;
    assert!(matches!(found(&settings).await.as_slice(), [(Severity::Warning, text)] if text.contains("appendfsync")));
}

#[tokio::test]
async fn a_server_that_forbids_config_is_checked_and_one_that_forbids_info_is_refused() {
    let server = RedisServer::plain(&["--maxmemory-policy", "volatile-ttl"]);
    let mut operator = server.operator().await;
    let _: () = run(&mut operator, "ACL SETUSER shy on >pw ~* &* +@all -config").await;
    let _: () = run(
        &mut operator,
        "ACL SETUSER blind on >pw ~* &* +@all -config -info -type",
    )
    .await;
    let of = |user: &str| RedisSettings::of_url(&format!("redis://{user}:pw@127.0.0.1:{}/0", server.port)).unwrap();
    assert!(refuses(&of("shy"), "volatile-ttl").await);
    let found = found(&of("blind")).await;
    let [(Severity::Refusal, info), (Severity::Refusal, kind)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(
        info.contains("may not run INFO: nothing is ever admitted without it") && info.contains("+info"),
        "{info}"
    );
    assert!(kind.contains("may not run TYPE: ") && kind.contains("+type"), "{kind}");
}

#[tokio::test]
async fn a_store_of_the_python_system_is_told_apart() {
    let server = RedisServer::plain(&[]);
    let settings = server.settings();
    assert!(!refuses(&settings, "").await);
    for (write, sign) in [
        ("SADD _kombu.binding.celery a", "_kombu.binding.celery"),
        ("LPUSH celery a", "celery"),
        (
            "EVAL redis.call('HSET','org_limits','Acme','5')redis.call('LPUSH','org:Acme:pending','{}') 0",
            "org:Acme:pending is a list",
        ),
        (
            "EVAL redis.call('HSET','orgs:known','acme','Acme')redis.call('LPUSH','org:Acme:pending','{}') 0",
            "org:Acme:pending is a list",
        ),
    ] {
        let _: redis::Value = server.run(write).await;
        assert!(refuses(&settings, sign).await, "{write}");
        assert!(refuses(&settings, "FLUSHDB").await, "{write}");
        let _: () = server.run("FLUSHALL").await;
    }
    // Operators set limits with redis-cli before anything else is there.
    let _: u64 = server.run("HSET org_limits Acme 5").await;
    assert!(!refuses(&settings, "").await);
}

#[tokio::test]
async fn a_cluster_and_a_sentinel_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = RedisServer::plain(&["--cluster-enabled", "yes", "--dir", dir.path().to_str().unwrap()]);
    assert!(refuses(&cluster.settings(), "redis+sentinel://").await);
    let conf = dir.path().join("sentinel.conf");
    std::fs::write(&conf, "").unwrap();
    let sentinel = RedisServer::start(&[
        conf.to_str().unwrap(),
        "--sentinel",
        "--port",
        "{port}",
        "--bind",
        "127.0.0.1",
    ]);
    assert!(refuses(&sentinel.settings(), "it is a Sentinel").await);
}

#[tokio::test]
async fn a_policy_that_changes_while_it_runs_is_counted() {
    let server = RedisServer::plain(&[]);
    let settings = RedisSettings {
        check_interval: std::time::Duration::from_millis(20),
        ..server.settings()
    };
    let (gauge, stop) = (Gauge::default(), CancellationToken::new());
    let mut checks = Checks::new(&store::pool(&settings).unwrap(), &settings, gauge.clone());
    checks.first().await.expect("looked").expect("taken");
    assert_eq!(gauge.get(), 1, "no append-only file");
    let until = stop.clone();
    let watching = tokio::spawn(async move { checks.watch(&until).await });
    let _: () = server.run("CONFIG SET maxmemory-policy allkeys-random").await;
    eventually("it is counted", async || gauge.get() == 2).await;
    let _: () = server.run("CONFIG SET maxmemory-policy noeviction").await;
    eventually("it is over", async || gauge.get() == 1).await;
    stop.cancel();
    watching.await.expect("it went on");
}
