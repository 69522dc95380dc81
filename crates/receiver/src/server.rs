//! Connections: accepted within a bound, timed while they are silent, drained when the process is to end.
//!
//! Written on hyper itself, since what is served here is open to whoever reaches the port: a sender that sends nothing, half a header or half a body
//! loses its connection soon, and holds nothing but that connection meanwhile.

use std::{
    future::{pending, poll_fn},
    io,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{app::App, config::Timeouts, routes};

/// Request line and headers together at most. GitHub's take about 1 KiB, proxies add to them.
const MAX_HEADERS: usize = 32 * 1024;
/// What one connection buffers at most; bodies come in pieces of this size.
const BUFFER: usize = 64 * 1024;
/// A connection is closed after the answer that is due at this age, so that long-lived ones spread over new replicas.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What a sender still sends after its answer is read and thrown away for so long, or it would lose the answer to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// A pause after an `accept` that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `app.stop`; then for the drain delay still accepts, and ends when no request is in hand or the drain grace is over.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let service = TowerToHyperService::new(routes::router(app.clone()));
    let slots = Arc::new(Semaphore::new(app.settings.max_connections));
    let (closing, connections) = (CancellationToken::new(), TaskTracker::new());
    let mut closed = Box::pin(async {
        app.stop.cancelled().await;
        sleep(app.settings.drain_delay).await;
    });
    loop {
        // The slot is waited for together with the stop: a full house must not keep the process from ending.
        let slot = tokio::select! {
            biased;
            () = &mut closed => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            biased;
            () = &mut closed => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (service, closing, timeouts) = (service.clone(), closing.clone(), app.settings.timeouts);
        connections.spawn(async move {
            let _slot = slot;
            connection(stream, service, timeouts, closing).await;
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    let open = connections.len();
    if timeout(app.settings.drain_grace, connections.wait()).await.is_ok() {
        tracing::info!(connections = open, "drained");
    } else {
        tracing::warn!(connections = connections.len(), "the drain grace is over: connections are dropped");
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<Router>, timeouts: Timeouts, closing: CancellationToken) {
    // Answers are small and whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let spoken = CancellationToken::new();
    let first = spoken.clone();
    let service = service_fn(move |request| {
        first.cancel();
        service.call(request)
    });
    let mut connection = builder(timeouts.idle).serve_connection(TokioIo::new(stream), service);
    let result = {
        let mut silence = Box::pin(async {
            if timeout(timeouts.headers, spoken.cancelled()).await.is_ok() {
                pending::<()>().await;
            }
        });
        let mut last_answer = Box::pin(async {
            tokio::select! { () = closing.cancelled() => (), () = sleep(MAX_AGE) => () }
        });
        let mut leaving = false;
        loop {
            tokio::select! {
                // What has come is seen before its time is over.
                biased;
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
                () = &mut last_answer, if !leaving => {
                    leaving = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                () = &mut silence => return,
                // A receiver of an answer that does not read it.
                () = sleep(MAX_AGE), if leaving => return,
            }
        }
    };
    if let Err(error) = &result {
        tracing::debug!(%error, "a connection ended badly");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

fn builder(idle: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Hyper counts the time between two requests as time of the second one's headers.
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_header_size(MAX_HEADERS).max_buf_size(BUFFER);
    builder
}

/// Closes our half, and reads what is still on its way until the other half closes too.
async fn linger(mut stream: TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut waste = vec![0; 16 * 1024];
        while stream.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, drain).await;
}

/// The connection went before it was accepted: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
