//! Whatever comes in, the answer is one of the contract's, and the receiver lives.

use axum::http::{HeaderValue, Method};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

mod support;
use support::{Receiver, fixture, request, signed};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        prop::sample::select(vec![
            "queued",
            "waiting",
            "completed",
            "a:b",
            "{x}",
            "a/b",
            "jit-runner-1",
            "\u{0}",
            "\u{202e}"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A payload with one thing changed, at any depth that is read.
fn any_payload() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "queued",
        "waiting",
        "in_progress",
        "completed",
        "queued_user_repository",
        "queued_old_server",
    ]);
    let places = prop::sample::select(vec![
        "/action",
        "/workflow_job",
        "/workflow_job/id",
        "/workflow_job/labels",
        "/workflow_job/labels/0",
        "/workflow_job/status",
        "/workflow_job/conclusion",
        "/workflow_job/runner_id",
        "/workflow_job/runner_name",
        "/repository",
        "/repository/full_name",
        "/repository/private",
        "/repository/owner",
        "/repository/owner/type",
        "/repository/owner/login",
        "/organization",
        "/organization/login",
        "/sender",
    ]);
    (names, places, any_json()).prop_map(|(name, place, value)| {
        let mut payload = fixture(name);
        if let Some(at) = payload.pointer_mut(place) {
            *at = value;
        }
        payload
    })
}

/// Runs a property whose steps are requests.
fn check<S: Strategy>(cases: u32, inputs: S, step: impl AsyncFn(&Receiver, S::Value)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let receiver = runtime.block_on(Receiver::start());
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
    .run(&inputs, |input| {
        runtime.block_on(step(&receiver, input));
        Ok(())
    })
    .expect("holds");
    // It lives, and every entry that it let in can be read.
    runtime.block_on(async {
        receiver.webhook(fixture("queued").to_string()).await.ok();
        for (event, _) in receiver.events().await {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            assert!(event.org.chars().chain(event.repo.chars()).all(allowed), "{event:?}");
        }
    });
}

#[test]
fn any_bytes() {
    check(
        200,
        (prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()),
        async |receiver, (bytes, form)| {
            let mut request = signed("workflow_job", &bytes);
            if form {
                request.headers_mut().insert(
                    "content-type",
                    "application/x-www-form-urlencoded".parse().expect("a header"),
                );
            }
            receiver.send(request).await.refused(400);
        },
    );
}

#[test]
fn any_json_at_all() {
    check(200, any_json(), async |receiver, value| {
        let status = receiver.webhook(value.to_string()).await.status;
        assert!(status == 200 || status == 400, "{status}: {value}");
    });
}

#[test]
fn any_payload_with_something_else_in_it() {
    check(400, any_payload(), async |receiver, payload| {
        let before = receiver.events().await.len();
        let answer = receiver.webhook(payload.to_string()).await;
        let entered = receiver.events().await.len() - before;
        match answer.status.as_u16() {
            200 => {
                let body = answer.json();
                assert!(entered == 1 || body["status"] != "queued", "{body}");
                assert!(entered == 0 || body["status"] != "ignored", "{body}");
            }
            400 => {
                answer.refused(400);
                assert_eq!(entered, 0);
            }
            status => panic!("{status}: {payload}"),
        }
    });
}

#[test]
fn any_headers_and_paths() {
    let header = prop::collection::vec(any::<u8>(), 0..200)
        .prop_filter_map("no header", |bytes| HeaderValue::from_bytes(&bytes).ok());
    let names = prop::sample::select(vec![
        "x-hub-signature-256",
        "x-github-event",
        "x-github-delivery",
        "content-type",
        "accept",
        "accept-language",
        "x-admin-key",
    ]);
    let path = "(/(webhook|orgs|jobs|admin|org-limits|runners|metrics|[ -~]{0,20}|%[0-9A-F]{2})){1,4}(\\?[!-~]{0,20})?";
    check(400, (names, header, path), async |receiver, (name, value, path)| {
        let mut webhook = signed("workflow_job", fixture("queued").to_string().as_bytes());
        webhook.headers_mut().insert(name, value.clone());
        let status = receiver.send(webhook).await.status.as_u16();
        assert!(matches!(status, 200 | 400 | 401), "{status}: {name}: {value:?}");
        let Ok(uri) = path.parse::<axum::http::Uri>() else {
            return;
        };
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let mut any = request(method, "/", &[], json!({ "limit": 5 }).to_string());
            *any.uri_mut() = uri.clone();
            any.headers_mut().insert(name, value.clone());
            let answer = receiver.send(any).await;
            assert!(answer.status.as_u16() < 500, "{path}: {answer:?}");
            if !answer.status.is_success() {
                answer.refused(answer.status.as_u16());
            }
        }
    });
}
