//! A simulated GitHub with a sink for its webhooks: what the tests of it share.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use jit_simulator::github::{self, Hook, Options, Running, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// The token that the simulated GitHub wants.
pub const TOKEN: &str = "a-token";
/// What it signs webhooks with.
pub const SECRET: &str = "a-secret";

/// What came in at the sink.
#[derive(Clone, Default)]
pub struct Sink {
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    arrived: Arc<Notify>,
}

impl Sink {
    /// All webhooks so far.
    pub fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.received.lock().unwrap().clone()
    }

    /// Actions and jobs of all webhooks so far.
    pub fn actions(&self) -> Vec<(String, u64)> {
        let parse = |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap();
        self.received()
            .iter()
            .map(|(_, body)| parse(body))
            .map(|body| {
                (
                    body["action"].as_str().unwrap().into(),
                    body["workflow_job"]["id"].as_u64().unwrap(),
                )
            })
            .collect()
    }

    /// Waits until there are so many of them.
    pub async fn wait(&self, count: usize) {
        let enough = async {
            while self.received.lock().unwrap().len() < count {
                let arrived = self.arrived.notified();
                if self.received.lock().unwrap().len() < count {
                    arrived.await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), enough)
            .await
            .unwrap_or_else(|_| panic!("fewer than {count} webhooks: {:?}", self.actions()));
    }
}

/// The harness.
pub struct Lab {
    pub github: Running,
    pub sink: Sink,
    client: reqwest::Client,
}

/// An answer: status, headers, JSON.
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

/// Starts both, on any ports.
pub async fn lab(settings: Settings) -> Lab {
    let sink = Sink::default();
    let receive = |State(sink): State<Sink>, headers: HeaderMap, body: Bytes| async move {
        sink.received.lock().unwrap().push((headers, body));
        sink.arrived.notify_waiters();
        StatusCode::OK
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhook", listener.local_addr().unwrap());
    let router = Router::new().route("/webhook", post(receive)).with_state(sink.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let hook = Hook {
        url: Some(url),
        secret: SECRET.into(),
    };
    let github = github::start(Options {
        settings,
        ..Options::local(TOKEN, Some(hook))
    })
    .await
    .unwrap();
    Lab {
        github,
        sink,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
    }
}

impl Lab {
    /// A call with the token.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<Got> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.github.url))
            .bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Got {
            status,
            headers,
            text,
            body,
        })
    }

    /// A REST call of the API.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Got {
        self.call(method, &format!("/api/v3{path}"), body).await.unwrap()
    }

    /// A POST to the control API, which must succeed.
    pub async fn control(&self, path: &str, body: Value) -> Value {
        let got = self
            .call(Method::POST, &format!("/_control/{path}"), Some(body))
            .await
            .unwrap();
        assert!(got.status < 300, "{path}: {} {}", got.status, got.text);
        got.body
    }

    /// A GET of the control API.
    pub async fn look(&self, path: &str) -> Value {
        let got = self
            .call(Method::GET, &format!("/_control/{path}"), None)
            .await
            .unwrap();
        assert_eq!(got.status, 200, "{path}: {}", got.text);
        got.body
    }

    /// Creates one job in org-0001/app with the label `x`.
    pub async fn job(&self, duration_ms: u64) -> u64 {
        self.control(
            "jobs",
            json!({ "org": "org-0001", "repo": "app", "labels": ["self-hosted", "x"], "duration_ms": duration_ms }),
        )
        .await["ids"][0]
            .as_u64()
            .unwrap()
    }

    /// Registers a runner in org-0001.
    pub async fn register(&self, name: &str) -> Got {
        let body =
            json!({ "name": name, "runner_group_id": 1, "labels": ["self-hosted", "x"], "work_folder": "_work" });
        self.api(
            Method::POST,
            "/orgs/org-0001/actions/runners/generate-jitconfig",
            Some(body),
        )
        .await
    }

    /// The JIT configuration of a new runner.
    pub async fn jit(&self, name: &str) -> String {
        let got = self.register(name).await;
        assert_eq!(got.status, 201, "{}", got.text);
        got.body["encoded_jit_config"].as_str().unwrap().to_owned()
    }

    /// Waits until the control API says that a job is in this state.
    pub async fn until_job(&self, id: u64, state: &str) -> Value {
        for _ in 0..3000 {
            let job = self.look(&format!("jobs/{id}")).await;
            if job["state"] == state {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("job {id} is not {state}: {}", self.look(&format!("jobs/{id}")).await);
    }
}
