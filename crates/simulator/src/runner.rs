//! A simulated runner: takes the one job that its JIT configuration allows, sleeps as long as the job lasts, and is gone.
//!
//! It speaks to the simulated GitHub over one plain connection and needs neither TLS nor a thread of its own, so that a
//! thousand of them fit on a small machine, as processes (`jit-simulator runner`) or as tasks of the simulated kubelet.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::github::sessions::{Order, Welcome};
use crate::jit::JitConfig;

/// How a runner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ran its job (whatever came of that): exit code 0.
    Done,
    /// It was told to stop: exit code 0.
    Stopped,
    /// Its registration is gone, or was never right: exit code 1.
    Refused,
    /// A fault killed it in the middle of its job, without a word: exit code 137.
    Killed,
}

impl Ended {
    /// The exit code of the process or container.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done | Self::Stopped => 0,
            Self::Refused => 1,
            Self::Killed => 137,
        }
    }
}

/// How long a try to connect, and a call that is not a poll, may take.
const CALL: Duration = Duration::from_secs(10);
/// The longest that the server may hold a poll open; after that the connection is taken for dead.
const POLL: Duration = Duration::from_secs(120);
/// Between two tries when the server cannot be reached or wants to be asked later.
const RETRY: Duration = Duration::from_millis(500);
/// A server that cannot be reached for so long is taken for gone for good, so that no runner is left of a simulation that was killed.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// What a runner that is told to stop spends on saying so.
const GOODBYE: Duration = Duration::from_millis(500);

/// A call that came to nothing; asking again may help.
#[derive(Debug, Error)]
enum Lost {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("timed out")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("the server URL is not http://host:port")]
    Url,
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
}

/// One connection to the server, opened again when it is lost.
struct Server {
    authority: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Server {
    fn new(url: &str) -> Result<Self, Lost> {
        let authority = url.strip_prefix("http://").ok_or(Lost::Url)?.split('/').next().unwrap_or_default().to_owned();
        Ok(Self { authority, connection: None })
    }

    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, Lost> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let stream = timeout(CALL, TcpStream::connect(&self.authority)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn call(&mut self, method: Method, path: &str, body: String, patience: Duration) -> Result<(StatusCode, Bytes), Lost> {
        let mut connection = self.connected().await?;
        let request = Request::builder().method(method).uri(path).header(HOST, &self.authority).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = timeout(patience, async {
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        });
        let answer = answer.await??;
        // Kept only after a whole answer: dropping it midway closes the connection, which tells the server.
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Calls until there is an answer other than 5xx, or the server is gone for good, which counts as 410. No path is logged: it holds the session.
    async fn insist(&mut self, method: Method, path: &str, body: &str, patience: Duration) -> (StatusCode, Bytes) {
        let mut reached = Instant::now();
        while reached.elapsed() < GONE_AFTER {
            match self.call(method.clone(), path, body.to_owned(), patience).await {
                Ok((status, body)) if !status.is_server_error() => return (status, body),
                Ok((status, _)) => {
                    reached = Instant::now();
                    tracing::debug!(%status, "the server does not serve");
                }
                Err(Lost::TimedOut(_)) => reached = Instant::now(), // it was there, and held the poll for too long
                Err(error) => tracing::debug!(%error, "the server was not reached"),
            }
            sleep(RETRY).await;
        }
        (StatusCode::GONE, Bytes::new())
    }
}

/// Runs one job with this JIT configuration, or none if `stop` is cancelled first.
pub async fn run(encoded: &str, stop: &CancellationToken) -> Ended {
    let Ok((jit, mut server)) = JitConfig::decode(encoded).map_err(|_| Lost::Url).and_then(|jit| Server::new(&jit.server_url).map(|server| (jit, server)))
    else {
        return Ended::Refused;
    };
    let mut session = None;
    let ended = stop.run_until_cancelled(work(encoded, &mut server, &mut session)).await;
    tracing::debug!(runner = jit.name, ?ended, "runner ended");
    if let (None, Some(session)) = (ended, session) {
        let path = format!("/_runner/{session}/bye");
        // The lease would tell the server as well, later.
        let _ = timeout(GOODBYE, server.call(Method::POST, &path, String::new(), GOODBYE)).await;
    }
    ended.unwrap_or(Ended::Stopped)
}

async fn work(encoded: &str, server: &mut Server, said: &mut Option<String>) -> Ended {
    let body = json!({ "jit_config": encoded }).to_string();
    let welcome: Welcome = loop {
        let (status, body) = server.insist(Method::POST, "/_runner/connect", &body, CALL).await;
        match (status, serde_json::from_slice(&body)) {
            (StatusCode::OK, Ok(welcome)) => break welcome,
            // A session of its own that got lost: it ends with its lease.
            (StatusCode::CONFLICT, _) => sleep(RETRY).await,
            _ => return Ended::Refused,
        }
    };
    let path = |what: &str| format!("/_runner/{}/{what}", welcome.session);
    *said = Some(welcome.session.clone());
    let order: Order = loop {
        let (status, body) = server.insist(Method::GET, &path("job"), "", POLL).await;
        match (status, serde_json::from_slice(&body)) {
            (StatusCode::OK, Ok(order)) => break order,
            (StatusCode::NO_CONTENT, _) => {}
            _ => return Ended::Refused,
        }
    };
    if let Some(life) = order.die_after_ms {
        sleep(Duration::from_millis(life)).await;
        // The session is forgotten, so that nobody says goodbye.
        *said = None;
        return Ended::Killed;
    }
    let job = sleep(Duration::from_millis(order.duration_ms));
    if order.duration_ms < welcome.lease_ms / 2 {
        job.await;
    } else {
        let watch = path("watch");
        // The open request is the sign of life, and ends early when the job is cancelled.
        tokio::select! {
            () = job => {}
            () = cancelled(server, &watch) => {}
        }
    }
    server.insist(Method::POST, &path("done"), "", CALL).await;
    Ended::Done
}

/// Returns when the job is cancelled or the server knows nothing of it any more.
async fn cancelled(server: &mut Server, path: &str) {
    while server.insist(Method::GET, path, "", POLL).await.0 == StatusCode::NO_CONTENT {}
}
