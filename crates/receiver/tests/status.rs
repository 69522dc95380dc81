//! What anybody may ask.

use axum::http::Method;
use serde_json::{Value, json};

use jit_testing::{RedisServer, eventually};

mod support;
use support::{Receiver, fixture, request, signed};

#[tokio::test]
async fn health_tells_of_redis_and_of_workers() {
    let receiver = Receiver::start().await;
    assert_eq!(
        receiver.get("/health").await.ok(),
        json!({
            "status": "healthy", "redis": "connected", "kubernetes": "unknown",
            "config": { "ghes_url": "https://github.example.com", "max_per_org": 10, "max_total": 200 },
        })
    );
    receiver.ledger().heartbeat("worker-1").await.expect("alive");
    assert_eq!(receiver.get("/health").await.ok()["kubernetes"], "connected");
    assert_eq!(
        receiver.get("/ready").await.ok(),
        json!({ "status": "ready", "redis": "connected" })
    );
}

#[tokio::test]
async fn an_organization_that_nobody_has_heard_of_has_the_default() {
    let receiver = Receiver::start().await;
    for (path, org) in [
        ("/orgs/org-alpha/status", "org-alpha"),
        ("/orgs/octocat/Hello.World/status", "octocat"),
    ] {
        assert_eq!(
            receiver.get(path).await.ok(),
            json!({
                "organization": org, "running": 0, "pending": 0, "max": 10, "default_max": 10, "is_custom_limit": false,
                "available": 10, "reasons": [],
            })
        );
    }
    assert_eq!(receiver.store().await[0], 0, "asking leaves nothing");
}

#[tokio::test]
async fn an_organization_at_its_limit_says_so() {
    let receiver = Receiver::start().await;
    receiver
        .admin(Method::PUT, "/admin/org-limits/Org-Alpha", json!({ "limit": 2 }))
        .await
        .ok();
    for job in 1..=5 {
        receiver.queue(job, "Org-Alpha", &["code-linux"]).await;
    }
    receiver.work().await;
    let status = receiver.get("/orgs/org-alpha/status").await.ok();
    assert_eq!(
        status,
        json!({
            "organization": "Org-Alpha", "running": 2, "pending": 5, "max": 2, "default_max": 10,
            "is_custom_limit": true, "available": 0,
            "reasons": status["reasons"],
        })
    );
    assert!(
        status["reasons"][0]
            .as_str()
            .is_some_and(|reason| reason.starts_with("job 1: ")),
        "{status}"
    );
    let job = receiver.get("/jobs/5").await.ok();
    assert_eq!(
        (&job["job_id"], &job["state"], &job["organization"], &job["repository"]),
        (
            &json!(5),
            &json!("queued"),
            &json!("Org-Alpha"),
            &json!("Org-Alpha/app")
        )
    );
    assert!(
        job["why"].as_str().is_some_and(|why| why.contains("2 of 2 runners")),
        "{job}"
    );
    assert!(
        job["queued_at"]
            .as_str()
            .is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
        "{job}"
    );
    assert_eq!(job["labels"], json!(["code-linux"]));
}

#[tokio::test]
async fn jobs_that_are_none_are_told_apart() {
    let receiver = Receiver::start().await;
    assert!(
        receiver
            .get("/jobs/9223372036854775807")
            .await
            .refused(404)
            .contains("not known here")
    );
    for id in ["0", "-1", "1.5", "x", "9223372036854775808", "%31%3A2", "%FF", "1%0A"] {
        receiver.get(&format!("/jobs/{id}")).await.refused(400);
    }
}

#[tokio::test]
async fn metrics_are_json_for_people_and_text_for_prometheus() {
    let receiver = Receiver::start().await;
    let empty = receiver.get("/metrics").await.ok();
    assert_eq!(
        empty,
        json!({ "status": "healthy", "total_running": 0, "total_pending": 0, "max_total": 200, "max_per_org": 10,
            "organizations": {} })
    );
    for job in 1..=12 {
        receiver.queue(job, "org-alpha", &["code-linux"]).await;
    }
    receiver.send(signed("ping", b"{}")).await.ok();
    receiver.webhook("{").await.refused(400);
    receiver
        .send(request(Method::POST, "/webhook", &[], "{}"))
        .await
        .refused(401);
    receiver.work().await;
    // The whole is read again after a second.
    eventually("the whole as it is", async || {
        receiver.get("/metrics").await.ok()["organizations"] == json!({ "org-alpha": { "running": 10, "pending": 12 } })
    })
    .await;
    let text = async |accept: &str| {
        let answer = receiver
            .send(request(Method::GET, "/metrics", &[("accept", accept)], ""))
            .await;
        (
            answer.headers["content-type"].to_str().expect("text").to_owned(),
            String::from_utf8(answer.body.to_vec()).expect("text"),
        )
    };
    let (kind, old) = text("text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE webhook_requests_total counter",
        "webhook_requests_total{status=\"queued\"} 12",
        "webhook_requests_total{status=\"ignored\"} 1",
        "webhook_requests_total{status=\"bad_request\"} 1",
        "webhook_requests_total{status=\"invalid_signature\"} 1",
        "webhook_latency_seconds_count 15",
        "runner_jobs_active 10",
        "gha_assigned_jobs 12",
        "gha_running_jobs 0",
        "gha_registered_runners 0",
        "gha_busy_runners 0",
        "gha_idle_runners 0",
        "gha_max_runners 200",
        "gha_desired_runners 12",
    ] {
        assert!(old.lines().any(|have| have == line), "{line} in\n{old}");
    }
    assert!(
        !old.contains("owner="),
        "no series by repository unless they are asked for"
    );
    let (kind, open) = text("application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(
        open.ends_with("# EOF\n") && open.contains("# TYPE webhook_requests counter"),
        "{open}"
    );
}

#[tokio::test]
async fn series_by_repository_are_there_for_whoever_asks_for_them() {
    let receiver = Receiver::with(&["--metrics-repository-labels", "true"], |_| {}).await;
    receiver.webhook(fixture("queued").to_string()).await.ok();
    receiver.webhook("{").await.refused(400);
    let answer = receiver
        .send(request(Method::GET, "/metrics", &[("accept", "text/plain")], ""))
        .await;
    let text = String::from_utf8(answer.body.to_vec()).expect("text");
    assert!(
        text.contains("webhook_requests_total{status=\"queued\",owner=\"Acme-Corp\",repo=\"app\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("webhook_requests_total{status=\"bad_request\",owner=\"\",repo=\"\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn metrics_of_many_organizations_are_whole() {
    let receiver = Receiver::start().await;
    receiver.work().await;
    let mut event = None;
    for n in 0..1200_u64 {
        let name = format!("org-{n}");
        if event.is_none() {
            receiver.queue(n + 1, &name, &["code-linux"]).await;
            event = receiver.events().await.pop().map(|(event, _)| event);
        }
        let mut event = event.clone().expect("an event");
        event.job = jit_core::event::JobId::new(n + 1).expect("an id");
        event.org.clone_from(&name);
        event.class.as_mut().expect("ours").org = name;
        receiver.ledger().apply(&event, None).await.expect("applied");
    }
    eventually("all of them", async || {
        receiver.get("/metrics").await.ok()["organizations"]
            .as_object()
            .map(serde_json::Map::len)
            == Some(1200)
    })
    .await;
    assert_eq!(receiver.get("/metrics").await.ok()["total_pending"], Value::from(1200));
}

/// Commands that Redis has run so far, those in scripts counted.
async fn commands(receiver: &Receiver) -> u64 {
    let stats: String = receiver.redis(&["INFO", "commandstats"]).await;
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter_map(calls).sum()
}

#[tokio::test]
async fn what_anybody_may_read_costs_little_whatever_the_size() {
    let redis = RedisServer::plain(&[]);
    let receiver = Receiver::on(&redis.settings(), &[], |_| {}).await;
    for job in 1..=900 {
        receiver
            .queue(job, &format!("org-{}", job % 300), &["code-linux"])
            .await;
        receiver.queue(1000 + job, "crowd", &["code-linux"]).await;
    }
    receiver.work().await;
    for (path, most) in [("/metrics", 250), ("/orgs/crowd/status", 500), ("/jobs/1900", 80)] {
        let before = commands(&receiver).await;
        receiver.get(path).await.ok();
        let cost = commands(&receiver).await - before;
        assert!(cost < most, "{path}: {cost} commands");
    }
    // All who ask within a second get one answer.
    receiver.get("/orgs/org-1/status").await.ok();
    let before = commands(&receiver).await;
    for _ in 0..10 {
        receiver.get("/orgs/ORG-1/status").await.ok();
    }
    assert!(commands(&receiver).await - before < 10 * 5, "each was read anew");
}

#[tokio::test]
async fn a_sender_that_asks_too_often_is_told_so_and_others_are_not() {
    let receiver = Receiver::start().await;
    // One after the other without a pause, and in as many rounds as a slow machine needs to be quick once.
    eventually("it is too often", async || {
        let burst = futures::future::join_all((0..100).map(|_| receiver.get("/jobs/1"))).await;
        burst.iter().any(|answer| answer.status == 429)
    })
    .await;
    receiver.get("/health").await.ok();
    assert_ne!(receiver.admin(Method::GET, "/admin/org-limits", "").await.status, 429);
    eventually("a second is over", async || receiver.get("/jobs/1").await.status == 404).await;
}

#[tokio::test]
async fn reads_ask_for_the_key_where_they_are_told_to() {
    let receiver = Receiver::with(&["--admin-insecure", "true", "--reads-need-key", "true"], |_| {}).await;
    for path in ["/metrics", "/orgs/acme/status", "/jobs/1"] {
        receiver.get(path).await.refused(401);
        assert_ne!(receiver.admin(Method::GET, path, "").await.status, 401, "{path}");
    }
    receiver.get("/health").await.ok();
    receiver.get("/ready").await.ok();
}
