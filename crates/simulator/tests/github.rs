//! The simulated GitHub over HTTP: a job's whole life, faults, and every kind of answer held against GitHub's own
//! description.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{SECRET, lab};
use jit_github::openapi::{Version, validate_response};
use jit_simulator::github::Settings;
use jit_simulator::runner::{self, Ended};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_whole_life_of_a_job() {
    let lab = lab(Settings::default()).await;
    let job = lab.job(50).await;
    lab.sink.wait(1).await;
    let jit = lab.jit("runner-1").await;
    let ended = runner::run(&jit, &CancellationToken::new()).await;
    assert_eq!(ended, Ended::Done);
    lab.sink.wait(3).await;
    assert_eq!(
        lab.sink.actions(),
        ["queued", "in_progress", "completed"].map(|action| (action.to_owned(), job))
    );

    for (headers, body) in lab.sink.received() {
        let header = |name: &str| {
            headers
                .get(name)
                .unwrap_or_else(|| panic!("no {name}"))
                .to_str()
                .unwrap()
                .to_owned()
        };
        let signature = hex::decode(header("x-hub-signature-256").strip_prefix("sha256=").unwrap()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &body, &signature).unwrap();
        assert_eq!(
            (header("x-github-event"), header("content-type")),
            ("workflow_job".into(), "application/json".into())
        );
        assert!(header("user-agent").starts_with("GitHub-Hookshot/") && header("x-github-delivery").len() == 36);
        assert_eq!(format!("http://{}", header("x-github-enterprise-host")), lab.github.url);
    }
    assert_eq!(
        lab.api(Method::GET, "/orgs/org-0001/actions/runners", None).await.body["total_count"],
        0
    );
    assert_eq!(
        runner::run(&jit, &CancellationToken::new()).await,
        Ended::Refused,
        "a JIT configuration serves once"
    );

    let summary = lab.look("summary").await;
    assert_eq!(
        (
            &summary["jobs"]["success"],
            &summary["jobs"]["run_twice"],
            &summary["runners"]["registered"]
        ),
        (&json!(1), &json!(0), &json!(1))
    );
    assert_eq!(
        (
            &summary["orgs"]["org-0001"]["max_connected"],
            &summary["leftovers"]["runners"]
        ),
        (&json!(1), &json!(0))
    );
    assert_eq!(summary["latency"]["webhook_to_start_ms"]["count"], 1);
    let log = lab.look("log").await;
    let events: Vec<&str> = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    for event in [
        "job_created",
        "webhook_sent",
        "webhook_answered",
        "jit_request",
        "runner_connected",
        "job_assigned",
        "job_started",
        "job_completed",
        "runner_removed",
    ] {
        assert!(events.contains(&event), "no {event} in {events:?}");
    }
    assert!(!log.to_string().contains(&jit));
}

#[tokio::test]
async fn a_runner_that_waits_gets_the_next_job() {
    let lab = lab(Settings::default()).await;
    let jit = lab.jit("early").await;
    let stop = CancellationToken::new();
    let runner = tokio::spawn({
        let stop = stop.clone();
        async move { runner::run(&jit, &stop).await }
    });
    while lab.look("summary").await["leftovers"]["runners_online"] == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let job = lab.job(0).await;
    assert_eq!(runner.await.unwrap(), Ended::Done);
    assert_eq!(lab.until_job(job, "completed").await["runner_name"], "early");
}

#[tokio::test]
async fn a_lost_runner_fails_its_job_and_a_stopped_one_says_so() {
    let lab = lab(Settings {
        lease_ms: 400,
        ..Settings::default()
    })
    .await;
    for (name, polite) in [("lost", false), ("stopped", true)] {
        let job = lab.job(60_000).await;
        let (jit, stop) = (lab.jit(name).await, CancellationToken::new());
        let runner = tokio::spawn({
            let stop = stop.clone();
            async move { runner::run(&jit, &stop).await }
        });
        lab.until_job(job, "in_progress").await;
        // Longer than the lease: the open request alone keeps it.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(lab.look(&format!("jobs/{job}")).await["state"], "in_progress");
        if polite {
            stop.cancel();
            assert_eq!(runner.await.unwrap(), Ended::Stopped);
        } else {
            runner.abort();
        }
        assert_eq!(lab.until_job(job, "completed").await["conclusion"], "failure");
    }
    let left = lab.api(Method::GET, "/orgs/org-0001/actions/runners", None).await.body;
    assert_eq!(
        (
            &left["total_count"],
            &left["runners"][0]["name"],
            &left["runners"][0]["status"]
        ),
        (&json!(1), &json!("lost"), &json!("offline"))
    );
}

#[tokio::test]
async fn cancelling_a_running_job_ends_its_runner() {
    let lab = lab(Settings::default()).await;
    let job = lab.job(60_000).await;
    let jit = lab.jit("a").await;
    let runner = tokio::spawn(async move { runner::run(&jit, &CancellationToken::new()).await });
    lab.until_job(job, "in_progress").await;
    lab.control(&format!("jobs/{job}/cancel"), Value::Null).await;
    assert_eq!(runner.await.unwrap(), Ended::Done);
    assert_eq!(lab.until_job(job, "completed").await["conclusion"], "cancelled");
}

#[tokio::test]
async fn a_thousand_webhooks_and_a_hundred_runners() {
    let lab = lab(Settings {
        orgs: 10,
        ..Settings::default()
    })
    .await;
    let specs: Vec<Value> = (1..=10)
        .map(|org| json!({ "org": format!("org-{org:04}"), "labels": ["self-hosted", "x"], "count": 10 }))
        .collect();
    lab.control("jobs", json!(specs)).await;
    let mut runners = Vec::new();
    for number in 0..100 {
        let body = json!({ "name": format!("r-{number}"), "runner_group_id": 1, "labels": ["self-hosted", "x"] });
        let path = format!("/orgs/org-{:04}/actions/runners/generate-jitconfig", number % 10 + 1);
        let got = lab.api(Method::POST, &path, Some(body)).await;
        let jit = got.body["encoded_jit_config"].as_str().unwrap().to_owned();
        runners.push(tokio::spawn(async move {
            runner::run(&jit, &CancellationToken::new()).await
        }));
    }
    for runner in runners {
        assert_eq!(runner.await.unwrap(), Ended::Done);
    }
    lab.sink.wait(300).await;
    let summary = lab.github.summary();
    assert_eq!(
        (
            summary.jobs.success,
            summary.jobs.run_twice,
            summary.leftovers.runners,
            summary.runners.unneeded
        ),
        (100, 0, 0, 0)
    );
}

#[tokio::test]
async fn faults_of_webhooks() {
    let lab = lab(Settings::default()).await;
    lab.control("faults", json!([{ "fault": "webhook_drop", "action": "queued", "count": 1 }, { "fault": "webhook_double", "action": "queued", "count": 1 }]))
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

/// Holds an answer against GitHub's description. That describes the calls of the project's client; what the simulator
/// answers beside them is held against the same object elsewhere, or, the last two, only once the client makes the
/// call.
fn hold(method: &str, path: &str, status: u16, body: Option<&Value>) {
    let check = |method: &str, path: &str, body: Option<&Value>| {
        validate_response(Version::Ghes314, method, path, status, body)
    };
    let (owner, last) = path.rsplit_once('/').unwrap();
    match (check(method, path, body), body) {
        (Ok(()), _) => {}
        (Err(why), Some(body)) if why.contains("is not among the calls described") => match last {
            _ if owner.ends_with("/runners") && status == 200 => {
                check(method, owner, Some(&json!({ "total_count": 1, "runners": [body] }))).unwrap()
            }
            _ if owner.ends_with("/runners") => check("DELETE", path, Some(body)).unwrap(),
            "meta" | "rate_limit" => {}
            _ => panic!("{why}"),
        },
        (Err(why), _) => panic!("{why}"),
    }
}

#[tokio::test]
async fn every_kind_of_answer_is_as_github_describes_it() {
    let lab = lab(Settings {
        rate_limit: Some(10_000),
        ..Settings::default()
    })
    .await;
    let job = lab.job(0).await;
    lab.control(
        "jobs",
        json!({ "user": "alice", "repo": "dots", "labels": ["self-hosted", "x"] }),
    )
    .await;
    lab.control(
        "groups",
        json!({ "org": "org-0001", "name": "selected", "selected": ["app"] }),
    )
    .await;
    lab.control("groups", json!({ "name": "selected", "selected": ["org-0001"] }))
        .await;
    let run = lab.look(&format!("jobs/{job}")).await["run_id"].as_u64().unwrap();
    let mut seen = 0;
    let mut check = async |method: Method, path: &str, body: Option<Value>, status: u16| {
        let got = lab.api(method.clone(), path, body).await;
        assert_eq!(got.status, status, "{method} {path}: {}", got.text);
        let json = (!got.text.is_empty()).then_some(&got.body);
        hold(method.as_str(), path.split('?').next().unwrap(), status, json);
        seen += 1;
        got.body
    };
    let runner = |name: &str| Some(json!({ "name": name, "runner_group_id": 1, "labels": ["self-hosted", "x"] }));
    for scope in [
        "/orgs/org-0001",
        "/repos/org-0001/app",
        "/repos/alice/dots",
        "/enterprises/simulated",
    ] {
        let runners = format!("{scope}/actions/runners");
        let registered = check(Method::POST, &format!("{runners}/generate-jitconfig"), runner("a"), 201).await;
        let one = format!("{runners}/{}", registered["runner"]["id"]);
        check(Method::POST, &format!("{runners}/generate-jitconfig"), runner("a"), 409).await;
        check(
            Method::POST,
            &format!("{runners}/generate-jitconfig"),
            Some(json!({ "name": "b" })),
            422,
        )
        .await;
        check(Method::GET, &format!("{runners}?per_page=1&name=a"), None, 200).await;
        check(Method::GET, &one, None, 200).await;
        check(Method::DELETE, &one, None, 204).await;
        check(Method::DELETE, &one, None, 404).await;
        check(Method::GET, &one, None, 404).await;
        if !scope.starts_with("/repos") {
            check(Method::GET, &format!("{scope}/actions/runner-groups"), None, 200).await;
        }
    }
    check(
        Method::POST,
        "/orgs/nobody/actions/runners/generate-jitconfig",
        runner("a"),
        404,
    )
    .await;

    let jit = check(
        Method::POST,
        "/orgs/org-0001/actions/runners/generate-jitconfig",
        runner("worker"),
        201,
    )
    .await;
    let long = lab
        .control(
            "jobs",
            json!({ "org": "org-0001", "repo": "app", "labels": ["x"], "duration_ms": 60_000 }),
        )
        .await["ids"][0]
        .as_u64()
        .unwrap();
    lab.control(&format!("jobs/{job}/cancel"), Value::Null).await;
    let (config, stop) = (
        jit["encoded_jit_config"].as_str().unwrap().to_owned(),
        CancellationToken::new(),
    );
    let working = tokio::spawn({
        let stop = stop.clone();
        async move { runner::run(&config, &stop).await }
    });
    lab.until_job(long, "in_progress").await;
    let busy = format!("/orgs/org-0001/actions/runners/{}", jit["runner"]["id"]);
    check(Method::GET, &busy, None, 200).await;
    check(Method::DELETE, &busy, None, 422).await;
    for id in [job, long] {
        check(
            Method::GET,
            &format!("/repos/org-0001/app/actions/jobs/{id}"),
            None,
            200,
        )
        .await;
    }
    check(
        Method::GET,
        "/repos/org-0001/app/actions/runs?status=in_progress",
        None,
        200,
    )
    .await;
    check(
        Method::GET,
        "/repos/org-0001/app/actions/runs?status=completed",
        None,
        200,
    )
    .await;
    check(
        Method::GET,
        &format!("/repos/org-0001/app/actions/runs/{run}/jobs"),
        None,
        200,
    )
    .await;
    check(Method::GET, "/meta", None, 200).await;
    check(Method::GET, "/rate_limit", None, 200).await;

    for path in ["/orgs/org-0001/hooks", "/repos/org-0001/app/hooks"] {
        assert_eq!(
            check(Method::GET, path, None, 200).await,
            json!([]),
            "the enterprise's hook is not to be seen there"
        );
    }
    check(Method::GET, "/orgs/nobody/hooks", None, 404).await;
    for (hook, kind) in [
        (json!({ "owner": "org-0001", "kind": "organization" }), "/orgs/org-0001"),
        (
            json!({ "owner": "org-0001", "repo": "app", "kind": "repository" }),
            "/repos/org-0001/app",
        ),
        (
            json!({ "owner": "alice", "repo": "dots", "kind": "repository" }),
            "/repos/alice/dots",
        ),
    ] {
        let id = lab.control("hooks", hook).await["id"].as_u64().unwrap();
        let listed = check(Method::GET, &format!("{kind}/hooks?per_page=100&page=1"), None, 200).await;
        assert_eq!(listed[0]["id"], id);
        assert!(listed[0]["config"]["url"].as_str().unwrap().ends_with("/webhook"));
        check(
            Method::GET,
            &format!("{kind}/hooks/{id}/deliveries?per_page=2"),
            None,
            200,
        )
        .await;
        check(
            Method::GET,
            &format!("{kind}/hooks/{id}/deliveries?cursor=nonsense"),
            None,
            400,
        )
        .await;
        check(
            Method::GET,
            &format!("{kind}/hooks/{id}/deliveries?cursor=v1_1"),
            None,
            200,
        )
        .await;
    }
    check(Method::GET, "/organizations?since=0&per_page=100", None, 200).await;
    check(
        Method::GET,
        "/orgs/org-0001/repos?sort=pushed&direction=desc&per_page=100&page=1",
        None,
        200,
    )
    .await;
    stop.cancel();
    working.await.unwrap();
    check(
        Method::GET,
        &format!("/repos/org-0001/app/actions/jobs/{long}"),
        None,
        200,
    )
    .await;
    assert!(seen > 40);
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
    let job = |org: &str| json!({ "org": org, "repo": "app", "labels": ["self-hosted", "x"], "age_ms": 3_600_000, "count": 3 });
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
