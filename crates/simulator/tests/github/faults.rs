//! Faults, strangers, deliveries.

use crate::common::lab;
use jit_github::openapi::{Version, validate_response};
use jit_simulator::github::Settings;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

use crate::github::answers::hold;

#[tokio::test]
async fn faults_of_webhooks() {
    let lab = lab(Settings::default()).await;
    lab.control(
        "faults",
        json!([{ "fault": "webhook_drop", "action": "queued", "count": 1 },
        { "fault": "webhook_double", "action": "queued", "count": 1 }]),
    )
    .await;
    lab.job(0).await;
    let doubled = lab.job(0).await;
    lab.sink.wait(2).await;
    let received = lab.sink.received();
    assert_eq!(received[0].0["x-github-delivery"], received[1].0["x-github-delivery"]);
    assert_eq!(
        lab.sink.actions(),
        [("queued".to_owned(), doubled), ("queued".to_owned(), doubled)]
    );
    let faults = lab.look("faults").await;
    assert_eq!(
        (&faults["faults"][0]["struck"], &faults["faults"][0]["count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        lab.call(Method::DELETE, "/_control/faults", None).await.unwrap().status,
        204
    );
    let late = lab
        .control("faults", json!({ "fault": "webhook_delay", "delay_ms": 300 }))
        .await;
    assert_eq!(late["ids"][0], 3);
    let started = std::time::Instant::now();
    lab.job(0).await;
    lab.sink.wait(3).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let summary = lab.github.summary().webhooks;
    assert_eq!((summary.dropped, summary.sent), (1, 3));
}

#[tokio::test]
async fn faults_of_rest() {
    let lab = lab(Settings::default()).await;
    let fault = async |fault: Value| lab.control("faults", fault).await;
    let registered = async || lab.look("runners").await["total_count"].as_u64().unwrap();

    fault(json!({ "fault": "rest_status", "endpoint": "generate_jitconfig", "status": 503, "count": 1 })).await;
    assert_eq!((lab.register("a").await.status, registered().await), (503, 0));
    fault(json!({ "fault": "rest_status", "status": 502, "performed": true, "count": 1 })).await;
    assert_eq!((lab.register("a").await.status, registered().await), (502, 1));
    fault(json!({ "fault": "rest_cut", "endpoint": "generate_jitconfig", "count": 1 })).await;
    let body = json!({ "name": "b", "runner_group_id": 1, "labels": ["x"] });
    let cut = lab
        .call(
            Method::POST,
            "/api/v3/orgs/org-0001/actions/runners/generate-jitconfig",
            Some(body),
        )
        .await;
    assert!(cut.is_err() && registered().await == 2);
    fault(json!({ "fault": "rest_garbage", "count": 1 })).await;
    let garbage = lab.register("c").await;
    assert!(garbage.status == 201 && serde_json::from_str::<Value>(&garbage.text).is_err() && registered().await == 3);
    fault(json!({ "fault": "rest_status", "status": 429, "retry_after": 7, "count": 1 })).await;
    let limited = lab.register("d").await;
    assert_eq!(
        (limited.status, limited.headers["retry-after"].to_str().unwrap()),
        (429, "7")
    );
    fault(json!({ "fault": "rest_status", "status": 403, "rate_limit": true, "org": "org-0001", "count": 1 })).await;
    let limited = lab.register("d").await;
    assert_eq!(
        (
            limited.status,
            limited.headers["x-ratelimit-remaining"].to_str().unwrap()
        ),
        (403, "0")
    );
    assert!(limited.body["message"].as_str().unwrap().contains("rate limit"));
    fault(json!({ "fault": "rest_slow", "delay_ms": 200, "count": 1 })).await;
    let started = std::time::Instant::now();
    assert_eq!(lab.register("d").await.status, 201);
    assert!(started.elapsed() >= Duration::from_millis(200));
    let nonsense = lab
        .call(
            Method::POST,
            "/_control/faults",
            Some(json!({ "fault": "rest_status" })),
        )
        .await
        .unwrap();
    assert_eq!(
        (nonsense.status, &nonsense.body["error"]),
        (422, &json!("status must be from 400 to 599"))
    );
}

#[tokio::test]
async fn strangers_are_refused() {
    let lab = lab(Settings::default()).await;
    let url = format!("{}/api/v3/orgs/org-0001/actions/runners", lab.github.url);
    let client = reqwest::Client::new();
    for (header, message) in [
        (None, "Requires authentication"),
        (Some("Bearer wrong"), "Bad credentials"),
        (Some("Basic a-token"), "Bad credentials"),
    ] {
        let request = header.into_iter().fold(client.get(&url), |request, header| {
            request.header("authorization", header)
        });
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["message"], &body["status"]), (&json!(message), &json!("401")));
        validate_response(Version::Ghes314, "GET", "/orgs/x/actions/runners", 401, Some(&body)).unwrap();
    }
    assert_eq!(
        client
            .get(&url)
            .header("authorization", "token a-token")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn deliveries_are_kept_and_repeated() {
    let lab = lab(Settings::default()).await;
    lab.control("orgs", json!({ "login": "org-0002" })).await;
    lab.control("hooks", json!({ "owner": "org-0002", "kind": "app" }))
        .await;
    let id = lab
        .control("hooks", json!({ "owner": "org-0001", "kind": "organization" }))
        .await["id"]
        .as_u64()
        .unwrap();
    let job = |org: &str| {
        json!({ "org": org, "repo": "app", "labels": ["self-hosted", "x"], "age_ms": 3_600_000,
        "count": 3 })
    };
    lab.control("jobs", job("org-0001")).await;
    lab.control("jobs", job("org-0002")).await;
    lab.sink.wait(6).await;
    let hook = format!("/orgs/org-0001/hooks/{id}/deliveries");
    let deliveries = async |path: &str| lab.api(Method::GET, path, None).await;
    // An answer is noted a moment after it was given.
    let mut page = deliveries(&format!("{hook}?per_page=2")).await;
    while page.headers.get("link").is_none() {
        page = deliveries(&format!("{hook}?per_page=2")).await;
    }
    let link = page.headers["link"].to_str().unwrap();
    let cursor = link.split("cursor=").nth(1).unwrap().split('>').next().unwrap();
    let last = deliveries(&format!("{hook}?per_page=2&cursor={cursor}")).await;
    assert_eq!(
        (page.body.as_array().unwrap().len(), last.body.as_array().unwrap().len()),
        (2, 1)
    );
    let first = &last.body[0];
    assert_eq!(
        (&first["action"], &first["status_code"], &first["redelivery"]),
        (&json!("queued"), &json!(200), &json!(false))
    );
    let now: jiff::Timestamp = lab.look("jobs").await["jobs"][0]["times"]["sent"]
        .as_i64()
        .map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap())
        .unwrap();
    let at: jiff::Timestamp = first["delivered_at"].as_str().unwrap().parse().unwrap();
    assert!(
        (3595..=3605).contains(&now.duration_since(at).as_secs()),
        "an hour ago: {first}"
    );

    let again = lab
        .api(Method::POST, &format!("{hook}/{}/attempts", first["id"]), None)
        .await;
    assert_eq!((again.status, &again.body), (202, &json!({})));
    hold(
        "POST",
        &format!("{hook}/{}/attempts", first["id"]),
        202,
        Some(&again.body),
    );
    lab.sink.wait(7).await;
    let received = lab.sink.received();
    assert_eq!(
        received[6].0["x-github-delivery"].to_str().unwrap(),
        first["guid"].as_str().unwrap()
    );
    assert_eq!(
        lab.api(Method::POST, &format!("{hook}/1/attempts"), None).await.status,
        404
    );

    let app = lab.api(Method::GET, "/app/hook/config", None).await;
    hold("GET", "/app/hook/config", 200, Some(&app.body));
    assert!(app.body["url"].as_str().unwrap().ends_with("/webhook"));
    let of_app = deliveries("/app/hook/deliveries").await;
    hold("GET", "/app/hook/deliveries", 200, Some(&of_app.body));
    assert_eq!(
        of_app.body.as_array().unwrap().len(),
        3,
        "the App's hook tells of the second organization alone"
    );
}
