//! Jobs and their runners.

use crate::common::{SECRET, lab};
use jit_simulator::github::Settings;
use jit_simulator::runner::{self, Ended};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use std::time::Duration;
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
