//! A TCP proxy on loopback that can be told to fail: what a network does to a worker and its Redis, or its API server.
//!
//! What it is told counts at once, for open connections too. Bytes that were held back go on when it passes again, as
//! TCP would send them again; only a reset loses any.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Nobody listens, and what was open is reset.
    Refuse,
    /// Takes connections and resets them; what was open, too.
    Reset,
    /// Takes connections and passes nothing on, in either direction, and says nothing.
    Blackhole,
    /// Passes on what the client says, and no answer.
    Half,
    /// Passes everything on so much later.
    Latency(Duration),
    /// Resets each connection after so many bytes, both directions together.
    CutAfter(u64),
}

/// A running proxy; it ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, and passes on to `upstream`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(upstream: SocketAddr) -> std::io::Result<Self> {
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", super::start::free_port()?)).await {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                bound => break bound?,
            }
        };
        let address = listener.local_addr()?;
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let task = tokio::spawn(accept(listener, address, upstream, mode.subscribe(), cuts.subscribe()));
        Ok(Self {
            address,
            mode,
            cuts,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets what is open, once.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
) {
    let mut listener = Some(listener);
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            drop(listener.take());
            if mode.wait_for(|mode| *mode != Mode::Refuse).await.is_err() {
                return;
            }
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await; // somebody has the port for a moment
            }
            continue;
        };
        let client = tokio::select! {
            accepted = open.accept() => accepted,
            changed = mode.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if let Ok((client, _)) = client {
            tokio::spawn(connection(client, upstream, mode.clone(), cuts.clone()));
        }
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    mut cuts: watch::Receiver<u64>,
) {
    let resets = |mode: &Mode| matches!(mode, Mode::Refuse | Mode::Reset);
    // what ends here ends with a reset, unless it was shut down
    let _ = (client.set_zero_linger(), client.set_nodelay(true));
    cuts.mark_unchanged();
    if resets(&mode.borrow()) {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (server.set_zero_linger(), server.set_nodelay(true));
    let passed = Arc::new(AtomicU64::new(0));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = pass(from_client, to_server, mode.clone(), passed.clone(), false);
    let back = pass(from_server, to_client, mode.clone(), passed, true);
    tokio::pin!(there, back);
    // One direction may end before the other; an error ends both.
    let both = async move { drop(tokio::try_join!(there, back)) };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {}
        _ = mode.wait_for(resets) => {}
    }
}

/// An error ends the other direction too.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    passed: Arc<AtomicU64>,
    answer: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let holds = |mode: &Mode| *mode == Mode::Blackhole || (answer && *mode == Mode::Half);
        let now = match mode.wait_for(|mode| !holds(mode)).await {
            Ok(mode) => *mode,
            Err(_) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        };
        let mut length = length;
        match now {
            Mode::Latency(time) => tokio::time::sleep(time).await,
            Mode::CutAfter(most) => {
                let before = passed.fetch_add(length as u64, Ordering::Relaxed);
                let left = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX);
                if left <= length {
                    length = left;
                    to.write_all(&buffer[..length]).await?;
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
            }
            _ => {}
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything twice.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        stream.write_all(&buffer[..length]).await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut buffer = [0; 64];
        match stream.read(&mut buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
        }
    }

    #[tokio::test]
    async fn it_does_what_it_is_told() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let connect = || TcpStream::connect(proxy.address());
        let mut open = connect().await.unwrap();
        assert_eq!(ask(&mut open, "a").await.unwrap(), "a");

        for mode in [Mode::Blackhole, Mode::Half] {
            proxy.set(mode);
            let silent = tokio::time::timeout(Duration::from_millis(50), ask(&mut open, "b")).await;
            assert!(silent.is_err(), "{mode:?}");
            proxy.set(Mode::Pass);
            let mut buffer = [0; 8];
            assert_eq!(
                open.read(&mut buffer).await.unwrap(),
                1,
                "{mode:?}: what was held back comes"
            );
        }

        proxy.cut();
        assert!(ask(&mut open, "c").await.is_err());
        let mut open = connect().await.unwrap();
        assert_eq!(ask(&mut open, "d").await.unwrap(), "d", "a cut happens once");

        proxy.set(Mode::Refuse);
        assert!(ask(&mut open, "e").await.is_err());
        while connect().await.is_ok() {
            tokio::task::yield_now().await;
        }
        proxy.set(Mode::CutAfter(5));
        let mut open = loop {
            match connect().await {
                Ok(open) => break open,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(ask(&mut open, "fg").await.unwrap(), "fg");
        assert!(
            matches!(ask(&mut open, "hi").await.as_deref(), Ok("h") | Err(_)),
            "the fifth byte is the last"
        );
        assert!(ask(&mut open, "j").await.is_err());
    }
}
