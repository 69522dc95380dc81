//! Redis goes, comes back, is full, is silent. A webhook is answered 200 only with its entry in Redis, and otherwise
//! 503 and when to come again.

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use jit_core::store::{RESPONSE_TIMEOUT, RedisSettings};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use jit_testing::{RedisServer, eventually};

mod support;
use support::{Receiver, fixture, request, signed};

/// A connection that is nobody's business but the test's.
async fn operator(redis: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(redis.settings().url).expect("a URL");
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
    client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("connected")
}

async fn run(connection: &mut redis::aio::MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    redis::cmd(words.next().expect("a word"))
        .arg(words.collect::<Vec<_>>())
        .exec_async(connection)
        .await
        .expect(command);
}

fn queued() -> String {
    fixture("queued").to_string()
}

#[tokio::test]
async fn killed_connections_cost_no_webhook() {
    let redis = RedisServer::plain(&[]);
    let receiver = Receiver::on(&redis.settings(), &[], |_| {}).await;
    let mut operator = operator(&redis).await;
    receiver.webhook(queued()).await.ok();
    for _ in 0..20 {
        run(&mut operator, "CLIENT KILL TYPE normal SKIPME yes").await;
        receiver.webhook(queued()).await.ok();
    }
    run(&mut operator, "SCRIPT FLUSH").await;
    receiver.webhook(queued()).await.ok();
    // Each was answered 200, so each is there; one that was sent twice may be there twice.
    assert!(receiver.events().await.len() >= 22);
}

#[tokio::test]
async fn redis_goes_and_comes_back() {
    let mut redis = RedisServer::plain(&[]);
    redis.kill();
    // It starts without Redis, and says so.
    let receiver = Receiver::on(&redis.settings(), &[], |_| {}).await;
    for _ in 0..2 {
        receiver.webhook(queued()).await.refused(503);
        let health = receiver.get("/health").await.ok();
        assert_eq!(
            (&health["status"], &health["redis"], &health["kubernetes"]),
            (&json!("degraded"), &json!("disconnected"), &json!("unknown"))
        );
        let ready = receiver.get("/ready").await;
        assert_eq!(
            (ready.status.as_u16(), &ready.json()["redis"]),
            (503, &json!("disconnected"))
        );
        receiver.get("/metrics").await.refused(503);
        receiver.get("/orgs/acme/status").await.refused(503);
        receiver.get("/jobs/1").await.refused(503);
        receiver
            .admin(Method::PUT, "/admin/org-limits/acme", json!({ "limit": 5 }))
            .await
            .refused(503);
        receiver.admin(Method::POST, "/admin/reconcile", "").await.refused(503);
        // What this process counted is told all the same.
        let text = receiver
            .send(request(Method::GET, "/metrics", &[("accept", "text/plain")], ""))
            .await;
        let text = String::from_utf8_lossy(&text.body).into_owned();
        assert!(
            text.contains("webhook_requests_total{status=\"unavailable\"}") && text.contains("jit_redis_up 0"),
            "{text}"
        );
        // What needs no Redis needs no Redis.
        receiver.send(signed("ping", b"{}")).await.ok();
        receiver.webhook("{").await.refused(400);

        redis.start_again();
        eventually("ready", async || receiver.get("/ready").await.status == 200).await;
        receiver.webhook(queued()).await.ok();
        assert_eq!(receiver.events().await.len(), 1);
        assert_eq!(receiver.get("/health").await.ok()["status"], "healthy");
        redis.kill();
    }
}

#[tokio::test]
async fn a_redis_that_refuses_takes_nothing() {
    let redis = RedisServer::plain(&[]);
    let receiver = Receiver::on(&redis.settings(), &[], |_| {}).await;
    let mut operator = operator(&redis).await;
    receiver.webhook(queued()).await.ok();
    for (refuse, relent) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        run(&mut operator, refuse).await;
        receiver.webhook(queued()).await.refused(503);
        run(&mut operator, relent).await;
        let before = receiver.events().await.len();
        receiver.webhook(queued()).await.ok();
        assert_eq!(receiver.events().await.len(), before + 1, "{refuse}");
    }
    assert_eq!(receiver.events().await.len(), 3);
}

#[tokio::test]
async fn a_silent_redis_holds_a_webhook_no_longer_than_its_time() {
    let redis = RedisServer::plain(&[]);
    let receiver = Receiver::on(&redis.settings(), &[], |settings| {
        settings.timeouts.webhook = Duration::from_millis(1000)
    })
    .await;
    let mut operator = operator(&redis).await;
    receiver.webhook(queued()).await.ok();
    run(&mut operator, "CLIENT PAUSE 600000 WRITE").await;
    let detail = receiver.webhook(queued()).await.refused(503);
    assert!(detail.contains("too long"), "{detail}");
    run(&mut operator, "CLIENT UNPAUSE").await;
    eventually("taken again", async || receiver.webhook(queued()).await.status == 200).await;
}

#[tokio::test]
async fn more_webhooks_than_may_be_on_their_way_are_shed_and_nothing_else_is() {
    let redis = RedisServer::plain(&[]);
    let receiver = Receiver::on(&redis.settings(), &["--max-in-flight", "1"], |_| {}).await;
    let place = receiver.app.webhooks.enter().expect("the only one");
    let detail = receiver.webhook(queued()).await.refused(503);
    assert!(detail.contains("too many"), "{detail}");
    // Whoever is not believed is told so, however full it is; and what takes no place is answered.
    receiver
        .send(request(Method::POST, "/webhook", &[], queued()))
        .await
        .refused(401);
    receiver.send(signed("ping", b"{}")).await.ok();
    receiver.get("/orgs/acme/status").await.ok();
    drop(place);
    receiver.webhook(queued()).await.ok();
    // The readers' lane is another.
    let places: Vec<_> = std::iter::from_fn(|| receiver.app.readers.enter().ok()).collect();
    receiver.get("/orgs/acme/status").await.refused(503);
    receiver.admin(Method::GET, "/admin/org-limits", "").await.refused(503);
    receiver.get("/health").await.ok();
    receiver.get("/ready").await.ok();
    receiver.webhook(queued()).await.ok();
    drop(places);
    receiver.get("/orgs/acme/status").await.ok();
}

/// Passes bytes on, until it is told to forget the connections that it has: these stay open, and nobody reads them any
/// more, as after a node has vanished.
async fn proxy(redis: &RedisServer, forget: Arc<Notify>) -> RedisSettings {
    let (listener, to) = (TcpListener::bind("127.0.0.1:0").await.expect("a port"), redis.port);
    let url = format!("redis://{}/0", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("accepted");
            let forget = forget.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.expect("Redis");
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    () = forget.notified() => std::future::pending().await,
                }
            });
        }
    });
    RedisSettings::of_url(&url).expect("a URL")
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_replaced() {
    let (redis, forget) = (RedisServer::plain(&[]), Arc::new(Notify::new()));
    let receiver = Receiver::on(&proxy(&redis, forget.clone()).await, &[], |_| {}).await;
    assert_eq!(receiver.get("/ready").await.status, 200);
    receiver.webhook(queued()).await.ok();
    forget.notify_waiters();
    assert_eq!(receiver.get("/ready").await.status, 503, "it is silent");
    eventually("ready", async || receiver.get("/ready").await.status == 200).await;
    receiver.webhook(queued()).await.ok();
}
