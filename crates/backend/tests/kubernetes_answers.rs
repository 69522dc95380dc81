//! Answers that a healthy, current API server does not give on demand: an old version, an expired page, an overload, a
//! watch that was cut off. From a small server of our own, so no $KUBECONFIG is needed here.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in the tests, but not in what they share"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use jit_backend::kubernetes::Kubernetes;
use jit_backend::kubernetes::profile::{Mode, Profile};
use jit_backend::{Backend, BackendError, Change, RunnerSpec};
use serde_json::{Value, json};

mod support;

/// Time after which a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the server was asked (method, path and query, body), and what it answers in turn.
#[derive(Clone, Default)]
struct Script {
    asked: Arc<Mutex<Vec<(Method, String, Value)>>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
}

impl Script {
    /// Lets the server answer so; when it has no answer left, it never answers.
    fn answer(&self, code: u16, body: Value) {
        self.answers.lock().unwrap().push_back((code, body));
    }

    fn asked(&self) -> Vec<(Method, String, Value)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// A backend that was told of this version.
    async fn backend(&self, minor: &str) -> Kubernetes {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(reply).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        self.answer(200, support::version(minor));
        self.answer(403, status(403, "Forbidden"));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let backend = Kubernetes::with_config(kube::Config::new(url), vec![Profile::default()], "runners", TIMEOUT)
            .await
            .unwrap();
        assert_eq!(
            self.asked().len(),
            2,
            "the version and the namespace are asked for once"
        );
        assert_eq!(
            backend.places()["default"],
            "kubernetes/runners",
            "a namespace that may not be looked at has no uid"
        );
        backend
    }
}

async fn reply(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    script.asked.lock().unwrap().push((
        parts.method,
        parts.uri.to_string().trim_end_matches('?').to_owned(),
        body,
    ));
    let answer = script.answers.lock().unwrap().pop_front();
    let Some((code, body)) = answer else {
        return std::future::pending().await;
    };
    let headers = [("content-type", "application/json"), ("retry-after", "1")];
    (StatusCode::from_u16(code).unwrap(), headers, format!("{body}\n")).into_response()
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "the \
     server's words"})
}

fn pod(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn page(names: &[&str], next: &str) -> Value {
    let items: Vec<_> = names.iter().map(|name| pod(name, 1)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1", "continue": next},
        "items": items})
}

fn spec() -> RunnerSpec {
    RunnerSpec {
        name: "r-1".into(),
        org: "o".into(),
        scope: "orgs/o".into(),
        group: "g".into(),
        profile: "default".into(),
        labels: vec![],
        job: 1,
    }
}

#[tokio::test]
async fn an_old_server_gets_docker_as_a_second_container() {
    for (minor, init, containers) in [("28+", None, 2), ("29", Some(1), 1)] {
        let script = Script::default();
        let backend = script.backend(minor).await;
        script.answer(201, pod("r-1", 1));
        backend.start(&spec()).await.unwrap();
        let (method, path, body) = script.asked().remove(0);
        assert_eq!(
            (method, path.as_str()),
            (Method::POST, "/api/v1/namespaces/runners/pods")
        );
        assert_eq!(body["spec"]["initContainers"].as_array().map(Vec::len), init);
        assert_eq!(body["spec"]["containers"].as_array().map(Vec::len), Some(containers));
    }
    assert_eq!(Profile::default().mode, Mode::Dind);
}

#[tokio::test]
async fn a_list_whose_pages_expired_begins_anew() {
    let script = Script::default();
    let backend = script.backend("36").await;
    for (code, body) in [
        (200, page(&["a"], "next")),
        (410, status(410, "Expired")),
        (200, page(&["a", "b"], "next")),
        (200, page(&["c"], "")),
    ] {
        script.answer(code, body);
    }
    let names: Vec<_> = backend
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|seen| seen.name)
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    let asked = script.asked();
    assert!(
        asked
            .iter()
            .all(|(_, path, _)| path.contains("labelSelector=app%3Djit-runner") && !path.contains("resourceVersion")),
        "{asked:?}"
    );
    assert_eq!(
        asked
            .iter()
            .map(|(_, path, _)| path.contains("continue=next"))
            .collect::<Vec<_>>(),
        [false, true, false, true]
    );
    // But not for ever.
    for _ in 0..3 {
        script.answer(410, status(410, "Expired"));
    }
    assert!(matches!(backend.list().await, Err(BackendError::Unavailable(_))));
}

#[tokio::test]
async fn an_overloaded_server_is_not_asked_again() {
    let script = Script::default();
    let backend = script.backend("36").await;
    for code in [429, 503, 504, 500] {
        script.answer(code, status(code, "TooMany"));
        let error = backend.start(&spec()).await.unwrap_err();
        assert!(
            matches!(&error, BackendError::Unavailable(why) if why.contains("the server's words")),
            "{error:?}"
        );
        assert_eq!(script.asked().len(), 1);
    }
}

#[tokio::test]
async fn half_a_stop_is_an_error() {
    let script = Script::default();
    let backend = script.backend("36").await;
    script.answer(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    script.answer(503, status(503, "ServiceUnavailable"));
    assert!(matches!(backend.stop("r-1").await, Err(BackendError::Unavailable(_))));
    let mut asked = script.asked();
    asked.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(
        asked
            .iter()
            .map(|(method, path, _)| (method.as_str(), path.as_str()))
            .collect::<Vec<_>>(),
        [
            ("DELETE", "/api/v1/namespaces/runners/pods/r-1"),
            ("DELETE", "/api/v1/namespaces/runners/secrets/r-1"),
        ]
    );
    assert_eq!(
        (&asked[0].2["gracePeriodSeconds"], &asked[0].2["propagationPolicy"]),
        (&json!(30), &json!("Background"))
    );
}

#[tokio::test]
async fn a_watch_that_fell_behind_says_so() {
    let script = Script::default();
    let backend = script.backend("36").await;
    script.answer(200, page(&["a"], ""));
    script.answer(200, json!({"type": "ERROR", "object": status(410, "Expired")}));
    script.answer(200, page(&["b"], ""));
    script.answer(200, json!({"type": "DELETED", "object": pod("b", 2)}));
    let told = backend.watch().take(5).map(|change| match change {
        Change::Restarted => "restarted".to_owned(),
        Change::Seen(seen) => format!("seen {}", seen.name),
        Change::Gone(name) => format!("gone {name}"),
    });
    let told: Vec<_> = tokio::time::timeout(PATIENCE, told.collect()).await.unwrap();
    assert_eq!(told, ["restarted", "seen a", "restarted", "seen b", "gone b"]);
}
