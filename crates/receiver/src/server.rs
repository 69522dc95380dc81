//! Connections: accepted within bounds, timed while they are silent, drained when the process is to end.
//!
//! Written on hyper itself, since what is served here is open to whoever reaches the port: a sender that sends nothing,
//! half a header or half a body loses its connection soon, and holds nothing but that connection meanwhile. Where all
//! connections are taken, such a sender gives way to a newcomer at once: see [`crate::connections`].
//!
//! Probes may have a listener of their own, with few connections that nothing else can take.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    net::IpAddr,
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
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    config::Timeouts,
    connections::{Asked, Bounds, Connections, Full, Slot},
    routes,
    turns::Turns,
};

/// Request line and headers together at most. GitHub's take about 1 KiB, proxies add to them.
const MAX_HEADERS: usize = 32 * 1024;
/// What one connection buffers at most; bodies come in pieces of this size.
const BUFFER: usize = 64 * 1024;
/// A connection is closed after the answer that is due at this age, so that long-lived ones spread over new replicas.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What a sender still sends after its answer is read and thrown away for so long. Without that a reset would take the
/// answer from it.
const LINGER: Duration = Duration::from_secs(1);
/// A pause after an `accept` that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Newcomers that wait for a slot at once, half of them of peers at their bound. Further ones of such a peer are
/// closed; all others wait to be accepted.
const NEWCOMERS: usize = 256;
/// Connections of the listener for probes: kubelets hold one each, for a moment.
const PROBES: usize = 16;

/// One listener's connections, and what they share.
struct Server {
    service: TowerToHyperService<Router>,
    connections: Arc<Connections>,
    newcomers: Arc<Semaphore>,
    timeouts: Timeouts,
    turns: Turns,
    /// Cancelled when connections are to end after the answer that is due.
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until `app.stop`; then for the drain delay still accepts, and ends when no request is in hand or the drain
/// grace is over.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let server = Server::new(&app, routes::router(app.clone()), app.settings.connections.clone());
    let closed = async {
        app.stop.cancelled().await;
        sleep(app.settings.drain_delay).await;
    };
    tokio::select! {
        biased;
        () = closed => {}
        never = server.accept(&listener) => match never {},
    }
    drop(listener);
    server.closing.cancel();
    server.tasks.close();
    let open = server.tasks.len();
    if timeout(app.settings.drain_grace, server.tasks.wait()).await.is_ok() {
        tracing::info!(connections = open, "drained");
    } else {
        tracing::warn!(
            connections = server.tasks.len(),
            "the drain grace is over: connections are dropped"
        );
    }
}

/// Serves probes for as long as it is polled: they are answered, as draining, until the process ends.
pub async fn serve_probes(listener: TcpListener, app: Arc<App>) -> Infallible {
    let bounds = Bounds {
        total: PROBES,
        per_peer: PROBES,
        trusted: Vec::new(),
    };
    Server::new(&app, routes::probes(app.clone()), bounds)
        .accept(&listener)
        .await
}

impl Server {
    fn new(app: &App, router: Router, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            service: TowerToHyperService::new(router),
            connections: Connections::new(bounds),
            newcomers: Arc::new(Semaphore::new(NEWCOMERS)),
            timeouts: app.settings.timeouts,
            turns: app.turns.clone(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Accepts connections for as long as it is polled.
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.admit(stream, address.ip().to_canonical()).await,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a newcomer, at once or when another connection has given way to it.
    async fn admit(self: &Arc<Self>, stream: TcpStream, peer: IpAddr) {
        let (server, mut asked) = (self.clone(), None);
        let place = match self.connections.try_enter(peer, &mut asked) {
            Ok(slot) => {
                self.tasks.spawn(async move { server.connection(stream, slot).await });
                return;
            }
            // One peer must neither keep all others from being accepted, nor take all places of those that wait.
            Err(Full::Peer) if self.newcomers.available_permits() > NEWCOMERS / 2 => {
                self.newcomers.clone().try_acquire_owned().ok()
            }
            Err(Full::Peer) => None,
            Err(Full::All) => self.newcomers.clone().acquire_owned().await.ok(),
        };
        let Some(place) = place else {
            tracing::debug!(%peer, "a connection is closed: its peer has as many as it may have");
            return;
        };
        self.tasks.spawn(async move {
            let slot = server.slot(peer, asked).await;
            drop(place);
            if let Some(slot) = slot {
                server.connection(stream, slot).await;
            }
        });
    }

    /// A slot, as soon as there is one. None when that takes too long.
    async fn slot(&self, peer: IpAddr, asked: Asked) -> Option<Slot> {
        tokio::select! {
            biased;
            slot = self.connections.enter(peer, asked) => Some(slot),
            () = self.closing.cancelled() => None,
            () = sleep(self.timeouts.headers) => {
                tracing::debug!(%peer, "a connection is closed: no other gave way to it");
                None
            }
        }
    }

    async fn connection(&self, stream: TcpStream, slot: Slot) {
        // Answers are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        tokio::select! {
            // What has come is seen before the connection gives way.
            biased;
            stream = self.requests(stream, &slot) => {
                slot.waits();
                if let Some(stream) = stream {
                    tokio::select! {
                        biased;
                        () = slot.gives_way() => {}
                        _ = timeout(LINGER, self.linger(stream)) => {}
                    }
                }
            }
            () = slot.gives_way() => {}
        }
    }

    /// Answers the requests of a connection. Returns it when no more will come, or none when it is no use any more.
    async fn requests(&self, stream: TcpStream, slot: &Slot) -> Option<TcpStream> {
        let spoken = CancellationToken::new();
        let (first, state) = (spoken.clone(), slot.connection().clone());
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            first.cancel();
            let state = state.clone();
            state.serving();
            request.extensions_mut().insert(state.clone());
            let answer = self.service.call(request);
            Box::pin(async move {
                let answer = answer.await;
                state.answered();
                answer
            })
        });
        let mut connection = builder(self.timeouts.idle).serve_connection(TokioIo::new(stream), service);
        let mut silence = Box::pin(async {
            if timeout(self.timeouts.headers, spoken.cancelled()).await.is_ok() {
                pending::<()>().await;
            }
        });
        let mut last_answer = Box::pin(async {
            tokio::select! { () = self.closing.cancelled() => (), () = sleep(MAX_AGE) => () }
        });
        let mut leaving = false;
        let result = loop {
            let polled = poll_fn(|cx| {
                let polled = connection.poll_without_shutdown(cx);
                slot.polled();
                polled
            });
            tokio::select! {
                // What has come is seen before its time is over.
                biased;
                result = polled => break result,
                () = &mut last_answer, if !leaving => {
                    leaving = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                () = &mut silence => return None,
                // A receiver of an answer that does not read it.
                () = sleep(MAX_AGE), if leaving => return None,
            }
        };
        if let Err(error) = &result {
            tracing::debug!(%error, "a connection ended badly");
        }
        Some(connection.into_parts().io.into_inner())
    }

    /// Closes our half, and reads what is still on its way until the other half closes too.
    async fn linger(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.shutdown().await?;
        let mut waste = vec![0; BUFFER];
        loop {
            stream.readable().await?;
            match self.turns.work(|| stream.try_read(&mut waste)).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn builder(idle: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Hyper counts the time between two requests as time of the second one's headers.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_header_size(MAX_HEADERS)
        .max_buf_size(BUFFER);
    builder
}

/// The connection went before it was accepted: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
