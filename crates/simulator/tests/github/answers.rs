//! Answers, against GitHub's description.

use crate::common::lab;
use jit_github::openapi::{Version, validate_response};
use jit_simulator::github::Settings;
use jit_simulator::runner::{self};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Holds an answer against GitHub's description. That describes the calls of the project's client; what the simulator
/// answers beside them is held against the same object elsewhere, or, the last two, only once the client makes the
/// call.
pub fn hold(method: &str, path: &str, status: u16, body: Option<&Value>) {
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
