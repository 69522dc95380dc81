//! A way to the API server that ends watches with 410 Gone, as a server does whose history no longer reaches back.
//!
//! A real one says so after it was compacted, which takes five minutes. This one says it on request: it reads HTTP, so the worker behind it
//! speaks plain HTTP, and TLS begins here. Everything else goes through as it is.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What the API server ends a watch with whose resource version is too old.
const GONE: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#,
    "\n"
);

/// A running gate; it ends when this is dropped.
pub struct Gate {
    address: SocketAddr,
    gone: watch::Sender<u64>,
    task: JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    gone: watch::Sender<u64>,
}

impl Gate {
    /// Listens on a free port; behind it is the cluster of `$KUBECONFIG`.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn start() -> anyhow::Result<Self> {
        let mut config = kube::Config::infer().await?;
        (config.default_retry, config.read_timeout) = (false, None);
        let gone = watch::Sender::new(0);
        let shared = Arc::new(Shared { client: kube::Client::try_from(config)?, gone: gone.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(forward).with_state(shared);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, gone, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every watch that is open with 410 Gone.
    pub fn end_watches(&self) {
        self.gone.send_modify(|times| *times += 1);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"));
    let (mut gone, gone_now) = (shared.gone.subscribe(), shared.gone.clone());
    let before = *gone.borrow_and_update();
    let (mut parts, body) = request.into_parts();
    // Those of this connection, not of the next one.
    parts.headers.remove("host");
    parts.headers.remove("authorization");
    let body = match body.collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match shared.client.send(axum::http::Request::from_parts(parts, body.into())).await {
        Ok(answer) if watches && answer.status().is_success() => {
            let (parts, body) = answer.into_parts();
            let told = async move { drop(gone.changed().await) };
            let events = body.into_data_stream().map(|chunk| chunk.map_err(axum::Error::new)).boxed().take_until(Box::pin(told));
            // A watch that ends by itself, after its time, just ends.
            let last = async move { Ok(Bytes::from_static(if *gone_now.borrow() == before { b"" } else { GONE.as_bytes() })) };
            hop_by_hop(Response::from_parts(parts, Body::from_stream(events.chain(futures::stream::once(last)))))
        }
        Ok(answer) => hop_by_hop(answer.map(Body::new)),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Takes away what was said of the other connection.
fn hop_by_hop(mut answer: Response) -> Response {
    for name in ["connection", "transfer-encoding"] {
        answer.headers_mut().remove(name);
    }
    answer
}
