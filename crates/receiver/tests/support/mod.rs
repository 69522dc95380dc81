//! A receiver on a real Redis, over real connections. Each test has a store of its own; a test that takes Redis away
//! has a server of its own.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test file uses its part of it")]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{HeaderMap, Method, Request, StatusCode};
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jit_core::{config::Door, event::JobEvent, ledger::Ledger, store::RedisSettings};
use jit_receiver::{
    app::App,
    config::{AdminAccess, ReceiverArgs, Settings},
    server,
};
use jit_testing::fresh_redis;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const SECRET: &str = "It's a Secret to Everybody";
pub const ADMIN_KEY: &str = "k3y";
/// Headers of a webhook that are well formed, so that its body is read. The signature is of no body.
pub const WELL_FORMED: &str = "host: r\r\nx-github-event: workflow_job\r\n\
    x-hub-signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n";

/// A receiver under test.
pub struct Receiver {
    pub address: SocketAddr,
    pub app: Arc<App>,
    served: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.app.stop.cancel();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self::with(&[], |_| {}).await
    }

    /// With these flags, and settings that no flag gives.
    pub async fn with(flags: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(&fresh_redis(), flags, change).await
    }

    pub async fn on(redis: &RedisSettings, flags: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let mut arguments = vec!["jit-receiver"];
        for default in [
            ["--ghes-url", "https://github.example.com"],
            ["--webhook-insecure", "true"],
            ["--drain-delay", "0"],
            ["--redis-url", &redis.url],
        ] {
            if !flags.contains(&default[0]) {
                arguments.extend(default);
            }
        }
        let mut settings = ReceiverArgs::parse_from(arguments.iter().chain(flags))
            .resolve()
            .expect("a valid configuration");
        settings.webhook_secrets = vec![Door::new(SECRET)];
        settings.admin = AdminAccess::Key(Door::new(ADMIN_KEY));
        settings.timeouts.wrong_key = Duration::from_millis(20);
        change(&mut settings);
        let app = Arc::new(App::new(settings, CancellationToken::new()).expect("an app"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(server::serve(listener, app.clone()));
        Self { address, app, served }
    }

    /// Stops it; returns when it is drained.
    pub async fn drained(&mut self) {
        self.app.stop.cancel();
        (&mut self.served).await.expect("served to the end");
    }

    pub fn ledger(&self) -> &Ledger {
        &self.app.ledger
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        send(self.address, request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], "")).await
    }

    /// A request of an operator.
    pub async fn admin(&self, method: Method, path: &str, body: impl ToString) -> Answer {
        self.send(request(method, path, &[("x-admin-key", ADMIN_KEY)], body.to_string()))
            .await
    }

    /// A `workflow_job` webhook, signed as GitHub does.
    pub async fn webhook(&self, body: impl AsRef<[u8]>) -> Answer {
        self.send(signed("workflow_job", body.as_ref())).await
    }

    /// Writes these bytes on a connection of their own and reads all that comes back until it is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What would show that anything was written: the number of keys, and the lengths of the streams.
    pub async fn store(&self) -> [u64; 4] {
        let mut connection = self.ledger().pool().get().await.unwrap();
        let mut batch = redis::pipe();
        batch
            .cmd("DBSIZE")
            .xlen("jit:events")
            .xlen("jit:ticks")
            .hlen("org_limits");
        batch.query_async::<[u64; 4]>(&mut connection).await.unwrap()
    }

    /// The entries of `jit:events`.
    pub async fn events(&self) -> Vec<(JobEvent, String)> {
        let mut fields = self.entries("jit:events").await;
        let event = |fields: &mut BTreeMap<String, String>| {
            assert_eq!(fields["v"], "1");
            (
                serde_json::from_str(&fields["event"]).expect("a job event"),
                fields.remove("delivery").unwrap(),
            )
        };
        fields.iter_mut().map(event).collect()
    }

    /// The kinds of the ticks that were emitted.
    pub async fn ticks(&self) -> Vec<String> {
        self.entries("jit:ticks")
            .await
            .into_iter()
            .map(|mut fields| fields.remove("kind").unwrap())
            .collect()
    }

    async fn entries(&self, stream: &str) -> Vec<BTreeMap<String, String>> {
        let mut connection = self.ledger().pool().get().await.unwrap();
        let range: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XRANGE")
            .arg(stream)
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .unwrap();
        range.into_iter().map(|(_, fields)| fields).collect()
    }

    /// Does what a worker would: configures, opens admission, applies the events that wait, admits.
    pub async fn work(&self) {
        let ledger = self.ledger();
        ledger.configure(&self.app.settings.limits).await.expect("configured");
        while ledger
            .reconcile(ledger.now().await.unwrap(), &[])
            .await
            .expect("reconciled")
            .opens_in
            .is_some()
        {}
        for (event, _) in self.events().await {
            ledger.apply(&event, None).await.expect("applied");
        }
        let _: i64 = self.redis(&["XTRIM", "jit:events", "MAXLEN", "0"]).await;
        while ledger.admit().await.expect("admitted").more {}
    }

    /// Takes a queued job of this id, organization and labels.
    pub async fn queue(&self, job: u64, org: &str, labels: &[&str]) {
        let mut payload = fixture("queued");
        payload["workflow_job"]["id"] = job.into();
        payload["workflow_job"]["labels"] = labels.into();
        payload["organization"]["login"] = org.into();
        payload["repository"]["full_name"] = format!("{org}/app").into();
        self.webhook(payload.to_string()).await.ok();
    }

    /// Runs one command.
    pub async fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.ledger().pool().get().await.unwrap();
        redis::cmd(command[0])
            .arg(&command[1..])
            .query_async(&mut connection)
            .await
            .unwrap()
    }
}

/// What a request was answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is a refusal as the contract has them, and gives its detail.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        let (error, detail) = (
            body["error"].as_str().expect("error"),
            body["detail"].as_str().expect("detail"),
        );
        assert!(
            !error.is_empty() && !detail.is_empty() && body.as_object().unwrap().len() == 2,
            "{body}"
        );
        assert!(status != 503 || self.headers.contains_key("retry-after"), "{self:?}");
        detail.to_owned()
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    try_send(address, request).await.expect("an answer")
}

/// None when nobody answers there any more.
pub async fn try_send(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    Some(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.ok()?.to_bytes(),
    })
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "receiver");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(ring::hmac::sign(&key, body)))
}

/// A delivery as GitHub makes it.
pub fn signed(event: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let signature = signature(SECRET, body);
    let headers = [
        ("user-agent", "GitHub-Hookshot/044aadd"),
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", &signature),
    ];
    request(Method::POST, "/webhook", &headers, body.to_vec())
}

/// A payload of tests/fixtures.
pub fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
}

/// A fixture with one place changed, which is named by a JSON pointer; `null` where it was not there.
pub fn changed(name: &str, pointer: &str, value: Value) -> String {
    let mut payload = fixture(name);
    *payload
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{pointer} in {name}")) = value;
    payload.to_string()
}
