//! What GitHub sends, and what it is answered.

use axum::http::Method;
use jit_core::{
    config::{Door, Problems, Secret},
    event::Action,
};
use jit_receiver::config::Settings;
use jit_testing::eventually;
use serde_json::{Value, json};

mod support;
use support::{Receiver, SECRET, changed, fixture, request, signature, signed};

#[tokio::test]
async fn a_queued_job_is_in_the_stream_when_it_is_answered() {
    let receiver = Receiver::start().await;
    let answer = receiver.webhook(fixture("queued").to_string()).await.ok();
    assert_eq!(answer["message"].as_str().map(str::is_empty), Some(false));
    assert_eq!(
        answer,
        json!({ "status": "queued", "action": "queued", "org": "Acme-Corp", "job_id": 31_415_926_535_u64,
            "message": answer["message"] })
    );
    let events = receiver.events().await;
    let [(event, delivery)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(delivery, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(
        (event.action, event.job.get(), event.attempt),
        (Action::Queued, 31_415_926_535, Some(1))
    );
    assert_eq!(
        (event.org.as_str(), event.repo.as_str()),
        ("Acme-Corp", "Acme-Corp/app")
    );
    let class = event.class.clone().expect("ours");
    assert_eq!(
        (class.scope.as_str(), class.group.as_str(), class.profile.as_str()),
        ("orgs/Acme-Corp", "default", "default")
    );
    assert_eq!(class.labels, ["code-linux", "self-hosted"]);
    assert_eq!((event.runner.as_deref(), event.runner_id), (None, None));
}

#[tokio::test]
async fn every_action_of_a_jobs_life_is_taken() {
    let receiver = Receiver::start().await;
    for (name, expected) in [
        (
            "waiting",
            json!({ "status": "acknowledged", "action": "waiting", "org": "Acme-Corp", "job_id": 31_415_926_536_u64 }),
        ),
        (
            "in_progress",
            json!({ "status": "acknowledged", "action": "in_progress", "org": "Acme-Corp",
                "job_id": 31_415_926_535_u64 }),
        ),
        (
            "completed",
            json!({ "status": "acknowledged", "action": "completed", "org": "Acme-Corp", "job_id": 31_415_926_535_u64,
                "conclusion": "success" }),
        ),
        (
            "cancelled_before_start",
            json!({ "status": "acknowledged", "action": "completed", "org": "Acme-Corp", "job_id": 31_415_926_537_u64,
                "conclusion": "cancelled" }),
        ),
    ] {
        assert_eq!(receiver.webhook(fixture(name).to_string()).await.ok(), expected);
    }
    let events: Vec<_> = receiver.events().await.into_iter().map(|(event, _)| event).collect();
    assert_eq!(
        events.iter().map(|event| event.action).collect::<Vec<_>>(),
        [
            Action::Waiting,
            Action::InProgress,
            Action::Completed,
            Action::Completed
        ]
    );
    assert_eq!(
        (events[1].runner.as_deref(), events[1].runner_id),
        (Some("jit-runner-31415926535-t5k2a1"), Some(4711))
    );
    assert_eq!(events[2].conclusion.as_deref(), Some("success"));
    assert_eq!(
        (events[3].runner.as_deref(), events[3].runner_id),
        (None, None),
        "it never had one"
    );
}

#[tokio::test]
async fn payloads_of_older_servers_and_of_users_are_taken() {
    let receiver = Receiver::start().await;
    for (name, org, job) in [
        ("queued_with_status_waiting", "Acme-Corp", 31_415_926_538_u64),
        ("queued_user_repository", "Octo-cat_emu", 2_832_853_555),
        ("queued_old_server", "Acme-Corp", 512),
        ("queued_old_server_without_organization", "Acme-Corp", 513),
    ] {
        let answer = receiver.webhook(fixture(name).to_string()).await.ok();
        assert_eq!(
            (&answer["status"], &answer["org"], &answer["job_id"]),
            (&json!("queued"), &json!(org), &json!(job)),
            "{name}"
        );
    }
    let events: Vec<_> = receiver.events().await.into_iter().map(|(event, _)| event).collect();
    assert_eq!(
        events.iter().map(|event| event.attempt).collect::<Vec<_>>(),
        [Some(1), Some(1), None, None]
    );
    assert_eq!(
        events[1].class.clone().expect("ours").scope,
        "repos/Octo-cat_emu/Hello.World"
    );
}

#[tokio::test]
async fn what_is_nobodys_business_here_is_ignored_and_leaves_nothing() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    for event in ["ping", "push", "workflow_run", "check_run"] {
        let answer = receiver
            .send(signed(event, b"{\"zen\": \"Keep it logically awesome.\"}"))
            .await
            .ok();
        assert_eq!(answer, json!({ "status": "ignored", "event": event }));
    }
    for action in ["requeued", "", "QUEUED", "deleted"] {
        let answer = receiver.webhook(changed("queued", "/action", json!(action))).await.ok();
        assert_eq!(answer, json!({ "status": "ignored", "action": action }));
    }
    for name in ["queued", "waiting"] {
        for (labels, reason) in [
            (json!(["ubuntu-latest"]), "label_mismatch"),
            (json!([]), "no_labels"),
            (Value::Null, "no_labels"),
        ] {
            let answer = receiver
                .webhook(changed(name, "/workflow_job/labels", labels))
                .await
                .ok();
            assert_eq!(answer, json!({ "status": "ignored", "reason": reason }));
        }
    }
    // An enterprise's webhook tells of GitHub's own runners too.
    let answer = receiver
        .webhook(fixture("completed_on_githubs_runner").to_string())
        .await
        .ok();
    assert_eq!(
        (&answer["status"], &answer["conclusion"]),
        (&json!("acknowledged"), &json!("failure"))
    );
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn a_runner_of_ours_on_a_job_of_other_labels_is_told_of() {
    let receiver = Receiver::start().await;
    receiver
        .webhook(changed(
            "in_progress",
            "/workflow_job/labels",
            json!(["self-hosted", "gpu"]),
        ))
        .await
        .ok();
    let events = receiver.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0.class, None);
}

#[tokio::test]
async fn scope_and_visibility_are_settings() {
    let receiver = Receiver::with(
        &["--repository-scope", "false", "--public-repositories", "refuse"],
        |_| {},
    )
    .await;
    let empty = receiver.store().await;
    let answer = receiver
        .webhook(fixture("queued_user_repository").to_string())
        .await
        .ok();
    assert_eq!(answer, json!({ "status": "ignored", "reason": "no_organization" }));
    let answer = receiver
        .webhook(changed("queued", "/repository/visibility", json!("public")))
        .await
        .ok();
    assert_eq!(answer, json!({ "status": "ignored", "reason": "public_repository" }));
    assert_eq!(receiver.store().await, empty);
    receiver
        .webhook(changed("queued", "/repository/visibility", json!("internal")))
        .await
        .ok();
    assert_eq!(receiver.events().await.len(), 1);
}

#[tokio::test]
async fn a_form_is_taken_as_github_sends_it() {
    let receiver = Receiver::start().await;
    let form: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &fixture("queued").to_string())
        .finish();
    for kind in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
    ] {
        let mut request = signed("workflow_job", form.as_bytes());
        request
            .headers_mut()
            .insert("content-type", kind.parse().expect("a header"));
        assert_eq!(receiver.send(request).await.ok()["status"], "queued");
    }
    assert_eq!(receiver.events().await.len(), 2);
    let mut without = signed("workflow_job", b"other=%7B%7D");
    without.headers_mut().insert(
        "content-type",
        "application/x-www-form-urlencoded".parse().expect("a header"),
    );
    assert!(receiver.send(without).await.refused(400).contains("payload"));
}

#[tokio::test]
async fn both_secrets_are_good_while_one_is_rotated() {
    let secrets = |settings: &mut Settings| settings.webhook_secrets.insert(0, Door::new("the new one"));
    let receiver = Receiver::with(&[], secrets).await;
    let body = fixture("queued").to_string();
    for secret in ["the new one", SECRET] {
        let mut request = signed("workflow_job", body.as_bytes());
        request.headers_mut().insert(
            "x-hub-signature-256",
            signature(secret, body.as_bytes()).parse().expect("a header"),
        );
        receiver.send(request).await.ok();
    }
    let mut request = signed("workflow_job", body.as_bytes());
    request.headers_mut().insert(
        "x-hub-signature-256",
        signature("the oldest", body.as_bytes()).parse().expect("a header"),
    );
    receiver.send(request).await.refused(401);
}

#[tokio::test]
async fn a_secret_in_a_file_is_rotated_without_a_restart() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "old\n").expect("written");
    let secret = Secret::resolve("NO_SUCH_VARIABLE", Some(file.path()), &mut Problems::default()).expect("a secret");
    let receiver = Receiver::with(&[], |settings| settings.webhook_secrets = vec![secret.into()]).await;
    let body = fixture("queued").to_string();
    let sent = async |secret: &str| {
        let mut request = signed("workflow_job", body.as_bytes());
        request.headers_mut().insert(
            "x-hub-signature-256",
            signature(secret, body.as_bytes()).parse().expect("a header"),
        );
        receiver.send(request).await
    };
    sent("old").await.ok();
    std::fs::write(file.path(), "new\n").expect("written");
    eventually("the new secret", async || sent("new").await.status == 200).await;
    sent("old").await.refused(401);
}

#[tokio::test]
async fn without_a_secret_on_purpose_everything_is_believed() {
    let receiver = Receiver::with(&[], |settings| settings.webhook_secrets.clear()).await;
    let headers = [("x-github-event", "workflow_job")];
    receiver
        .send(request(
            Method::POST,
            "/webhook",
            &headers,
            fixture("queued").to_string(),
        ))
        .await
        .ok();
    assert_eq!(receiver.events().await.len(), 1);
}

#[tokio::test]
async fn korean_is_answered_to_whoever_prefers_it() {
    let receiver = Receiver::start().await;
    let mut request = signed("workflow_job", fixture("queued").to_string().as_bytes());
    request
        .headers_mut()
        .insert("accept-language", "ko-KR,ko;q=0.9,en;q=0.8".parse().expect("a header"));
    let message = receiver.send(request).await.ok()["message"].to_string();
    assert!(message.contains("접수되었습니다"), "{message}");
}

#[tokio::test]
async fn a_full_backlog_is_no_place_for_more() {
    let receiver = Receiver::with(&["--backlog-limit", "2"], |_| {}).await;
    let body = fixture("queued").to_string();
    receiver.webhook(&body).await.ok();
    receiver.webhook(&body).await.ok();
    let refused = receiver.webhook(&body).await;
    assert!(refused.refused(503).contains("wait for a worker"));
    assert_eq!(receiver.events().await.len(), 2);
    // What would publish nothing is still answered.
    receiver.send(signed("ping", b"{}")).await.ok();
}

#[tokio::test]
async fn the_test_page_and_methods_and_paths() {
    let receiver = Receiver::start().await;
    let test = receiver.get("/webhook/test").await.ok();
    assert_eq!(test["status"], "ok");
    assert!(test["message"].is_string());
    for (method, path, allow) in [
        (Method::GET, "/webhook", "POST"),
        (Method::PUT, "/webhook", "POST"),
        (Method::GET, "/webhook/", "POST"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::DELETE, "/metrics", "GET,HEAD"),
        (Method::POST, "/jobs/1", "GET,HEAD"),
        (Method::PATCH, "/webhook/test", "GET,HEAD"),
    ] {
        let answer = receiver.send(request(method, path, &[], "")).await;
        answer.refused(405);
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    for path in [
        "/",
        "/webhooks",
        "/admin",
        "/admin/org-limit",
        "/orgs/acme",
        "/favicon.ico",
        "/%00",
        "/../etc/passwd",
    ] {
        receiver.get(path).await.refused(404);
    }
    for path in ["/health", "/ready", "/metrics", "/webhook/test", "/orgs/acme/status"] {
        let head = receiver.send(request(Method::HEAD, path, &[], "")).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
    }
}
