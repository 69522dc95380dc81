//! A way to the API server that reads what goes through: it counts what is created by organization, refuses that on
//! request in the server's place, and ends watches with 410 Gone, as a server does whose history no longer reaches
//! back.
//!
//! A real server says 410 after it was compacted, which takes five minutes. This one says it on request: it reads HTTP,
//! so the worker behind it speaks plain HTTP, and TLS begins here. Everything else goes through as it is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What the API server ends a watch with whose resource version is too old.
const GONE: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#,
    "\n"
);

/// Creations that are refused in the server's place.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// `pods` or `secrets`.
    pub resource: &'static str,
    /// Only those with this label `org`.
    pub org: Option<String>,
    /// Status of the answer; a 429 asks to come again after a second, as the server's own does.
    pub status: u16,
    /// Kubernetes' word for it, such as `InternalError`.
    pub reason: &'static str,
    /// What it says.
    pub message: String,
}

/// A running gate; it ends when this is dropped.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    gone: watch::Sender<u64>,
    refusals: Mutex<Vec<Refusal>>,
    /// By resource and organization: how many were to be created, refused ones too.
    asked: Mutex<BTreeMap<(String, String), u64>>,
}

impl Shared {
    /// Counts a creation, and says whether it is refused.
    fn creates(&self, resource: &str, body: &[u8]) -> Option<Refusal> {
        let object: Value = serde_json::from_slice(body).unwrap_or_default();
        let org = object["metadata"]["labels"]["org"].as_str().unwrap_or_default();
        *self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((resource.into(), org.into()))
            .or_default() += 1;
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals
            .iter()
            .find(|refusal| refusal.resource == resource && refusal.org.as_ref().is_none_or(|its| its == org))
            .cloned()
    }
}

impl Gate {
    /// Listens on a free port; behind it is the cluster of `$KUBECONFIG`.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn start() -> anyhow::Result<Self> {
        let mut config = kube::Config::infer().await?;
        (config.default_retry, config.read_timeout) = (false, None);
        let client = kube::Client::try_from(config)?;
        let shared = Arc::new(Shared {
            client,
            gone: watch::Sender::new(0),
            refusals: Mutex::default(),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every watch that is open with 410 Gone.
    pub fn end_watches(&self) {
        self.shared.gone.send_modify(|times| *times += 1);
    }

    /// Refuses these creations from now on.
    pub fn refuse(&self, refusal: Refusal) {
        self.shared
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(refusal);
    }

    /// Refuses nothing any more.
    pub fn allow(&self) {
        self.shared
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// How many of a resource were to be created for an organization, refused ones too.
    #[must_use]
    pub fn asked(&self, resource: &str, org: &str) -> u64 {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&(resource.to_owned(), org.to_owned())).copied().unwrap_or(0)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"));
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
    let resource = parts.uri.path().rsplit('/').next().unwrap_or_default();
    if parts.method == Method::POST
        && matches!(resource, "pods" | "secrets")
        && let Some(refusal) = shared.creates(resource, &body)
    {
        return refused(&refusal);
    }
    match shared
        .client
        .send(axum::http::Request::from_parts(parts, body.into()))
        .await
    {
        Ok(answer) if watches && answer.status().is_success() => {
            let (parts, body) = answer.into_parts();
            let told = async move { drop(gone.changed().await) };
            let events = body
                .into_data_stream()
                .map(|chunk| chunk.map_err(axum::Error::new))
                .boxed()
                .take_until(Box::pin(told));
            // A watch that ends by itself, after its time, just ends.
            let last = async move {
                Ok(Bytes::from_static(if *gone_now.borrow() == before {
                    b""
                } else {
                    GONE.as_bytes()
                }))
            };
            hop_by_hop(Response::from_parts(
                parts,
                Body::from_stream(events.chain(futures::stream::once(last))),
            ))
        }
        Ok(answer) => hop_by_hop(answer.map(Body::new)),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A refusal in the API server's words.
fn refused(refusal: &Refusal) -> Response {
    let Refusal {
        status,
        reason,
        message,
        ..
    } = refusal;
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": status });
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = (status, Json(body)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer.headers_mut().insert(RETRY_AFTER, 1.into());
    }
    answer
}

/// Takes away what was said of the other connection.
fn hop_by_hop(mut answer: Response) -> Response {
    for name in ["connection", "transfer-encoding"] {
        answer.headers_mut().remove(name);
    }
    answer
}
