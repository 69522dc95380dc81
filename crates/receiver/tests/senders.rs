//! Senders that take much and give nothing, beside webhooks that are what they should be: the latter are not refused.

#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use axum::http::Method;
use futures::future::join_all;
use jit_receiver::server;
use jit_testing::{RedisServer, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
};
use tokio_util::sync::CancellationToken;

mod support;
use support::{Receiver, SECRET, WELL_FORMED, fixture, request, send, signature, signed, try_send};

/// GitHub's largest body.
const LARGE: usize = 25_000_000;
/// The largest body of the small share, about.
const USUAL: usize = 255_000;

/// A connection from this address of the loopback network, `127.0.0.N`.
async fn from(peer: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, peer], 0)))?;
    socket.connect(to).await
}

/// An idle connection that was used once. None when it was closed meanwhile.
async fn used(peer: u8, to: SocketAddr) -> Option<TcpStream> {
    let mut stream = from(peer, to).await.ok()?;
    ask(&mut stream).await.then_some(stream)
}

/// Whether a request on it is answered.
async fn ask(stream: &mut TcpStream) -> bool {
    let mut start = [0; 15];
    stream
        .write_all(b"GET /webhook/test HTTP/1.1\r\nhost: r\r\n\r\n")
        .await
        .is_ok()
        && stream.read_exact(&mut start).await.is_ok()
}

/// Whether the receiver has closed it, with all that it had to say before that.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut waste = [0; 4096];
    loop {
        match stream.try_read(&mut waste) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// What a hostile sender does, over and over: half a webhook, and then nothing until its connection is gone.
async fn hostile(kind: usize, peer: u8, to: SocketAddr) -> std::io::Result<()> {
    let unsigned = "host: r\r\nx-github-event: workflow_job\r\n";
    let (headers, size, piece) = match kind {
        0 => (unsigned, LARGE, 64 * 1024),
        1 => (WELL_FORMED, LARGE, 64 * 1024),
        2 => (WELL_FORMED, USUAL, USUAL),
        _ => (WELL_FORMED, USUAL, 1),
    };
    let stream = from(peer, to).await?;
    let (mut from, mut to) = stream.into_split();
    let sending = async {
        to.write_all(format!("POST /webhook HTTP/1.1\r\n{headers}content-length: {size}\r\n\r\n").as_bytes())
            .await?;
        let piece = vec![b' '; piece];
        let mut left = size - 1;
        while left > 0 {
            to.write_all(&piece[..piece.len().min(left)]).await?;
            left -= piece.len().min(left);
            if piece.len() == 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut answer = Vec::new();
    tokio::select! { result = sending => result, _ = from.read_to_end(&mut answer) => Ok(()) }
}

/// 200 hostile senders on a thread of their own, until the token is cancelled.
fn hostile_senders(peer: fn(usize) -> u8, to: SocketAddr, stop: CancellationToken) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let senders = join_all((0..200).map(|number| async move {
            loop {
                let _ = hostile(number % 4, peer(number), to).await;
                // Whoever was refused comes again.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
        runtime.block_on(async {
            tokio::select! { _ = senders => {}, () = stop.cancelled() => {} }
        });
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hostile_senders_cost_no_webhook() {
    let (strangers, neighbours): (fn(usize) -> u8, fn(usize) -> u8) =
        (|number| u8::try_from(2 + number).unwrap(), |_| 1);
    for (who, peer) in [("of other addresses", strangers), ("behind the same proxy", neighbours)] {
        let receiver = Receiver::start().await;
        let stop = CancellationToken::new();
        let senders = hostile_senders(peer, receiver.address, stop.clone());
        eventually("the hostile ones are served", async || {
            receiver.app.bodies.in_use().1 > 0
        })
        .await;
        let body = fixture("queued").to_string();
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut sent = Vec::new();
        for _ in 0..300 {
            ticks.tick().await;
            let (to, webhook) = (receiver.address, signed("workflow_job", body.as_bytes()));
            sent.push(tokio::spawn(async move {
                let began = Instant::now();
                let answer = try_send(to, webhook).await;
                (answer, began.elapsed())
            }));
        }
        let mut took = Vec::new();
        for answer in join_all(sent).await {
            let (answer, time) = answer.unwrap();
            answer.expect("an answer").ok();
            took.push(time);
        }
        stop.cancel();
        senders.join().unwrap();
        took.sort();
        // Printed only: what else runs on the machine is not this test's business.
        println!(
            "200 hostile senders {who}: p50 {:?}, p99 {:?}, longest {:?}",
            took[150], took[297], took[299]
        );
    }
}

#[tokio::test]
async fn idle_connections_of_a_proxy_give_way() {
    for flags in [&[][..], &["--trusted-proxies", "127.0.0.0/8"]] {
        let receiver = Receiver::with(flags, |_| {}).await;
        let mut idle = Vec::new();
        for _ in 0..600 {
            idle.push(used(1, receiver.address).await.expect("answered"));
        }
        receiver.webhook(fixture("queued").to_string()).await.ok();
        receiver.get("/health").await.ok();
        // The newest are still there, and of use.
        assert!(ask(&mut idle[599]).await);
        let mut open = 0;
        for stream in &mut idle {
            open += usize::from(!is_closed(stream).await);
        }
        assert!(open <= if flags.is_empty() { 256 } else { 512 }, "{open}");
    }
}

#[tokio::test]
async fn a_peer_at_its_bound_costs_its_own_connections_only() {
    let receiver = Receiver::with(&["--max-connections-per-peer", "2"], |_| {}).await;
    let to = receiver.address;
    let mut other = used(2, to).await.expect("answered");
    let mut idle = [
        used(3, to).await.expect("answered"),
        used(3, to).await.expect("answered"),
        used(3, to).await.expect("answered"),
    ];
    eventually("the oldest is closed", async || is_closed(&mut idle[0]).await).await;
    assert!(ask(&mut idle[1]).await && ask(&mut idle[2]).await && ask(&mut other).await);
    // Bodies that stay out: they are in hand, and give way only when they have been so for a while.
    let slow = format!("POST /webhook HTTP/1.1\r\n{WELL_FORMED}content-length: 100\r\n\r\n");
    for stream in &mut idle[1..] {
        stream.write_all(slow.as_bytes()).await.unwrap();
    }
    let (own, others) = tokio::join!(used(3, to), async { join_all((0..50).map(|_| used(4, to))).await });
    assert!(own.is_some(), "a slow one gave way to it");
    assert!(others.iter().any(Option::is_some) && ask(&mut other).await);
}

#[tokio::test]
async fn probes_are_answered_when_every_connection_is_taken() {
    let flags = ["--max-connections", "2", "--max-connections-per-peer", "2"];
    let mut receiver = Receiver::with(&flags, |settings| {
        settings.timeouts.wrong_key = Duration::from_secs(3600)
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probes = listener.local_addr().unwrap();
    let served = tokio::spawn(server::serve_probes(listener, receiver.app.clone()));
    let mut guesses = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(receiver.address).await.unwrap();
        stream
            .write_all(b"GET /admin/org-limits HTTP/1.1\r\nhost: r\r\nx-admin-key: guess\r\n\r\n")
            .await
            .unwrap();
        guesses.push(stream);
    }
    eventually("both are in hand", async || {
        receiver.app.wrong_keys.available_permits() == 2
    })
    .await;
    let get = |path: &str| request(Method::GET, path, &[], "");
    // Who only connects here gives way too.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(probes).await.unwrap());
        send(probes, get("/health")).await.ok();
        send(probes, get("/ready")).await.ok();
    }
    for path in ["/", "/webhook", "/metrics", "/admin/jobs", "/webhook/test"] {
        send(probes, get(path)).await.refused(404);
    }
    send(probes, request(Method::POST, "/ready", &[], ""))
        .await
        .refused(405);
    // A guess that has been in hand for a while gives way to a webhook.
    receiver.webhook(fixture("queued").to_string()).await.ok();
    drop(guesses);
    // To the end of the draining, and after it.
    receiver.drained().await;
    assert_eq!(send(probes, get("/ready")).await.json()["redis"], "draining");
    served.abort();
}

#[tokio::test]
async fn headers_are_refused_before_the_body_is_read() {
    let receiver = Receiver::start().await;
    let no_event = WELL_FORMED.replace("x-github-event", "x-other");
    let malformed = WELL_FORMED.replace("sha256=00", "sha256=zz");
    let nothing_signed = "host: r\r\nx-github-event: workflow_job\r\n";
    for (headers, status) in [
        (nothing_signed, 401),
        (malformed.as_str(), 401),
        (no_event.as_str(), 400),
    ] {
        for length in [
            format!("content-length: {LARGE}"),
            "content-length: 100".to_owned(),
            "transfer-encoding: chunked".to_owned(),
        ] {
            // The body never comes. An answer that waited for it would be 408.
            let answer = receiver
                .raw(format!("POST /webhook HTTP/1.1\r\n{headers}{length}\r\n\r\n").as_bytes())
                .await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{headers}{length}: {answer}"
            );
        }
    }
    assert_eq!(receiver.app.bodies.in_use(), (0, 0));
}

#[tokio::test]
async fn large_webhooks_that_are_signed_are_taken() {
    let receiver = Receiver::start().await;
    let mut body = fixture("queued").to_string();
    body.push_str(&" ".repeat(3_000_000));
    receiver.webhook(&body).await.ok();
    // Without its size: it begins among the small ones.
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\nx-github-event: workflow_job\r\nx-hub-signature-256: {}\r\nconnection: \
         close\r\ntransfer-encoding: chunked\r\n\r\n",
        signature(SECRET, body.as_bytes())
    );
    let chunks = body
        .as_bytes()
        .chunks(50_000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let whole: Vec<u8> = head
        .into_bytes()
        .into_iter()
        .chain(chunks)
        .chain(*b"0\r\n\r\n")
        .collect();
    assert!(receiver.raw(&whole).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(
        (receiver.events().await.len(), receiver.app.bodies.in_use()),
        (2, (0, 0))
    );
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_webhooks_address_is_no_harm() {
    let receiver = Receiver::start().await;
    let mut request = signed("workflow_job", fixture("queued").to_string().as_bytes());
    *request.uri_mut() = "/webhook/".parse().unwrap();
    receiver.send(request).await.ok();
    assert_eq!(receiver.events().await.len(), 1);
}

#[tokio::test]
async fn the_process_answers_probes_until_it_has_drained() {
    let redis = RedisServer::plain(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_jit-receiver"))
        .env_clear()
        .envs([
            ("GHES_URL", "https://github.example.com"),
            ("WEBHOOK_SECRET", SECRET),
            ("LISTEN_ADDRESS", "127.0.0.1"),
        ])
        .envs([
            ("PORT", "0"),
            ("PROBE_PORT", "0"),
            ("DRAIN_DELAY", "0"),
            ("REDIS_URL", &redis.settings().url),
        ])
        .kill_on_drop(true)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut listening = async |message: &str| -> SocketAddr {
        loop {
            let line: serde_json::Value =
                serde_json::from_str(&log.next_line().await.unwrap().expect("it runs")).unwrap();
            if line["message"] == message {
                return line["address"].as_str().unwrap().parse().unwrap();
            }
        }
    };
    let (address, probes) = (listening("listening").await, listening("listening for probes").await);
    let ready = || request(Method::GET, "/ready", &[], "");
    eventually("ready", async || {
        try_send(probes, ready())
            .await
            .is_some_and(|answer| answer.status == 200)
    })
    .await;
    // A webhook that is half here when the signal comes.
    let body = fixture("queued").to_string();
    let mut half = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\nx-github-event: workflow_job\r\nx-hub-signature-256: \
         {}\r\ncontent-length: {}\r\n\r\n{{",
        signature(SECRET, body.as_bytes()),
        body.len()
    );
    half.write_all(head.as_bytes()).await.unwrap();
    // The connection was taken before one that is answered.
    send(address, ready()).await.ok();
    let pid = child.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    eventually("no more connections are taken", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    let answer = send(probes, ready()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["redis"]),
        (503, &"draining".into())
    );
    half.write_all(&body.as_bytes()[1..]).await.unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
