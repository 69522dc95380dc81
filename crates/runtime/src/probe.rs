//! What a worker and a beat answer to a kubelet and to Prometheus: `/health`, `/ready`, `/metrics`. A process may show
//! more to people.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether a process does its work; shared between its loops and its probes.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says that the process does its work, or that it cannot at the moment.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether it does.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A page of JSON that a process shows beside its probes: its path, and what gives its text.
pub type Page = (&'static str, Arc<dyn Fn() -> String + Send + Sync>);

/// Serves the probes until `stop`. The address that it listens on is logged, since port 0 takes a free one.
///
/// # Errors
/// When the address is taken.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    registry: Arc<Registry>,
    pages: Vec<Page>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("PORT: cannot listen on {address}: {error}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving /health, /ready and /metrics");
    let ready = move || {
        let ready = readiness.get();
        async move {
            if ready {
                (StatusCode::OK, "ready\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        }
    };
    let metrics = move || {
        let mut text = String::new();
        let encoded = prometheus_client::encoding::text::encode(&mut text, &registry);
        async move {
            let status = if encoded.is_ok() {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (
                status,
                [(
                    header::CONTENT_TYPE,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                )],
                text,
            )
        }
    };
    let mut router = Router::new()
        .route("/health", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics));
    for (path, text) in pages {
        let page = move || {
            let text = text();
            async move { ([(header::CONTENT_TYPE, "application/json")], text) }
        };
        router = router.route(path, get(page));
    }
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?)
}
