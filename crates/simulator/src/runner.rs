//! A simulated runner: takes the one job that its JIT configuration allows, sleeps as long as the job lasts, and is
//! gone.
//!
//! It speaks to the simulated GitHub over one plain connection and needs neither TLS nor a thread of its own, so that a
//! thousand of them fit on a small machine, as processes (`jit-simulator runner`) or as tasks of the simulated kubelet.
//!
//! It stands for `run.sh` of actions/runner with the listener inside. `run.sh` ends with 0 for nearly everything that
//! the listener ends with, starts it again after 2, 3 and 4, and passes on 7 (GitHub refuses this version) only where
//! [`TELLS_TOO_OLD`] is set (`src/Misc/layoutroot/run.sh` and `run-helper.sh.template`, release 2.333.0 and later;
//! earlier ones end with 0 there, too).

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

use crate::github::sessions::{Order, Return, Welcome};
use crate::jit::JitConfig;

/// Environment variable that has `run.sh` pass on that GitHub refuses this version, where its value is `1`.
pub const TELLS_TOO_OLD: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
/// The listener's exit code when GitHub refuses its version.
pub const TOO_OLD: u8 = 7;
/// The listener's exit codes after which `run.sh` starts it again: an error that may pass, an update (two of them).
const AGAIN: std::ops::RangeInclusive<u8> = 2..=4;
/// What the listener prints when there is no such registration.
const NOT_REGISTERED: &str =
    "Failed to create a session. The runner registration has been deleted from the server, please re-configure.";

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ran its job (whatever came of that).
    Done,
    /// It was told to stop.
    Stopped,
    /// Its registration is gone, or was never right: the listener ends with 1.
    Refused,
    /// A fault ended the listener with this code.
    Returned {
        /// Exit code of the listener.
        code: u8,
        /// What it printed.
        words: String,
    },
    /// A fault killed it in the middle of its job, without a word.
    Killed,
}

impl Ended {
    /// The exit code of `run.sh`, and so of the process or container. `tells_too_old`: [`TELLS_TOO_OLD`] is `1`.
    pub fn exit_code(&self, tells_too_old: bool) -> u8 {
        match self {
            Self::Returned { code: TOO_OLD, .. } if tells_too_old => TOO_OLD,
            Self::Done | Self::Refused | Self::Returned { .. } => 0,
            Self::Stopped => 143,
            Self::Killed => 137,
        }
    }

    /// The last line that it prints, if it prints one.
    pub fn words(&self) -> &str {
        match self {
            Self::Refused => NOT_REGISTERED,
            Self::Returned { words, .. } => words,
            Self::Done | Self::Stopped | Self::Killed => "",
        }
    }
}

/// How long a try to connect, and a call that is not a poll, may take.
const CALL: Duration = Duration::from_secs(10);
/// The longest that the server may hold a poll open; after that the connection is taken for dead.
const POLL: Duration = Duration::from_secs(120);
/// Between two tries when the server cannot be reached or wants to be asked later.
const RETRY: Duration = Duration::from_millis(500);
/// A server that cannot be reached for so long is taken for gone for good, so that no runner is left of a simulation
/// that was killed.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long `run.sh` waits before it starts the listener again.
const RESTART: Duration = Duration::from_secs(5);
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
        let authority = url
            .strip_prefix("http://")
            .ok_or(Lost::Url)?
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            authority,
            connection: None,
        })
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

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let mut connection = self.connected().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json");
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

    /// Calls until there is an answer other than 5xx, or the server is gone for good, which counts as 410. No path is
    /// logged: it holds the session.
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
    let Ok((jit, mut server)) = JitConfig::decode(encoded)
        .map_err(|_| Lost::Url)
        .and_then(|jit| Server::new(&jit.server_url).map(|server| (jit, server)))
    else {
        return Ended::Refused;
    };
    let mut session = None;
    let ended = stop.run_until_cancelled(work(encoded, &mut server, &mut session)).await;
    tracing::debug!(runner = jit.name, ?ended, "runner ended");
    if let (None, Some(session)) = (&ended, session) {
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
            (StatusCode::FORBIDDEN, _) => match serde_json::from_slice(&body) {
                Ok(Return { code, .. }) if AGAIN.contains(&code) => sleep(RESTART).await,
                Ok(Return { code, words }) => return Ended::Returned { code, words },
                Err(_) => return Ended::Refused,
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_sh_hides_every_code_but_one_and_that_unless_it_is_told() {
        let returned = |code| Ended::Returned {
            code,
            words: String::new(),
        };
        for code in [0, 1, 5, 6, 7, 100, 137] {
            assert_eq!(returned(code).exit_code(false), 0, "{code}");
            assert_eq!(returned(code).exit_code(true), if code == 7 { 7 } else { 0 }, "{code}");
        }
        assert_eq!(
            [Ended::Done, Ended::Refused, Ended::Stopped, Ended::Killed].map(|ended| ended.exit_code(true)),
            [0, 0, 143, 137]
        );
    }
}
