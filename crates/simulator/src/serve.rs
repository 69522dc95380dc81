//! What a running simulator stands on: its tasks, which end together, and its HTTP server.
//!
//! The server is plain HTTP/1 on hyper, so that an answer can be withheld and the connection cut instead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// A connection that sends no request for so long is closed.
const SILENCE: Duration = Duration::from_secs(90);

/// The tasks of a running simulator. They end when this is dropped or [`Tasks::stop`] is called.
#[derive(Default)]
pub(crate) struct Tasks {
    shutdown: CancellationToken,
    handles: Vec<JoinHandle<()>>,
}

impl Tasks {
    /// Starts a task, which is to end when the token that it is given is cancelled.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(CancellationToken) -> F) {
        self.handles.push(tokio::spawn(task(self.shutdown.clone())));
    }

    /// Ends them, and waits until they have ended.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        for handle in std::mem::take(&mut self.handles) {
            // A task that panicked has said so already.
            let _ = handle.await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Listens on an address; port 0 takes any, so the address that it came to is returned as well.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Marks a response that is never to be written: the connection is cut in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut;

/// Serves until `shutdown`; open connections are cut then, as by a server that goes away.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move { shutdown.run_until_cancelled(connection(stream, router)).await });
            }
            Err(error) => {
                // Out of file descriptors, most likely: it passes.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let response: Response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<Cut>().is_some() {
                Err(io::Error::other("cut by a fault"))
            } else {
                Ok(response)
            }
        }
    });
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
