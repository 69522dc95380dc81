//! The binary itself: what it says when its configuration is wrong, and how it ends.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
};

use jit_testing::{RedisServer, eventually};

mod support;
use support::{SECRET, fixture, send, signature, signed, try_send};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jit-receiver"));
    command.env_clear().kill_on_drop(true).stderr(Stdio::piped());
    command
}

/// The receiver, the address that it listens on, and the rest of its log.
async fn start(redis: &RedisServer) -> (Child, SocketAddr, Lines<BufReader<ChildStderr>>) {
    let variables = [
        ("GHES_URL", "https://github.example.com"),
        ("WEBHOOK_SECRET", SECRET),
        ("PORT", "0"),
        ("LISTEN_ADDRESS", "127.0.0.1"),
    ];
    let mut child = command()
        .envs(variables)
        .env("REDIS_URL", redis.settings().url)
        .env("DRAIN_DELAY", "1s")
        .spawn()
        .expect("started");
    let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
    while let Some(line) = log.next_line().await.expect("a line") {
        let line: serde_json::Value = serde_json::from_str(&line).expect("one JSON object a line");
        if line["message"] == "listening" {
            return (
                child,
                line["address"].as_str().expect("text").parse().expect("an address"),
                log,
            );
        }
    }
    panic!("it ended");
}

#[tokio::test]
async fn a_wrong_configuration_is_told_whole_and_nothing_starts() {
    let output = command()
        .envs([("PORT", "http"), ("MAX_BODY_BYTES", "much"), ("ADMIN_API_KEY", "k")])
        .output()
        .await
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).expect("text");
    for part in ["GHES_URL", "WEBHOOK_SECRET", "PORT", "MAX_BODY_BYTES"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[tokio::test]
async fn secrets_stand_neither_in_the_log_nor_in_the_help() {
    let help = command()
        .env("REDIS_URL", "redis://:p4ssword@redis")
        .arg("--help")
        .output()
        .await
        .expect("ran");
    let help = String::from_utf8(help.stdout).expect("text");
    assert!(
        help.contains("--max-body-bytes") && help.contains("--listen-address"),
        "{help}"
    );
    assert!(
        !help.contains("p4ssword") && !help.contains("--webhook-secret ") && !help.contains("--admin-api-key "),
        "{help}"
    );
    let redis = RedisServer::plain(&[]);
    let (mut child, address, mut log) = start(&redis).await;
    let body = fixture("queued").to_string();
    send(address, signed("workflow_job", body.as_bytes())).await.ok();
    send(
        address,
        support::request(
            axum::http::Method::GET,
            "/admin/org-limits",
            &[("x-admin-key", "a-key-that-was-tried")],
            "",
        ),
    )
    .await
    .refused(403);
    child.start_kill().expect("ended");
    let mut text = String::new();
    while let Ok(Some(line)) = log.next_line().await {
        text.push_str(&line);
    }
    assert!(
        text.contains("31415926535") && text.contains("/admin/org-limits"),
        "{text}"
    );
    for secret in [
        SECRET,
        "a-key-that-was-tried",
        &signature(SECRET, body.as_bytes())[7..],
        "ümlauts",
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn on_sigterm_it_finishes_what_is_in_hand_and_is_not_ready_any_more() {
    let redis = RedisServer::plain(&[]);
    let (mut child, address, _log) = start(&redis).await;
    let body = fixture("queued").to_string();
    // A webhook that is half here when the signal comes.
    let mut half = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\nx-github-event: workflow_job\r\nx-hub-signature-256: \
         {}\r\ncontent-length: {}\r\n\r\n",
        signature(SECRET, body.as_bytes()),
        body.len()
    );
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&body.as_bytes()[..100]).await.unwrap();
    let pid = child.id().expect("it runs").to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    // Connections are still accepted for the drain delay, so this is answered, or it is over and this is refused.
    let ready = || support::request(axum::http::Method::GET, "/ready", &[], "");
    eventually("not ready", async || {
        try_send(address, ready())
            .await
            .is_none_or(|answer| answer.status == 503)
    })
    .await;
    half.write_all(&body.as_bytes()[100..]).await.unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let client = redis::Client::open(redis.settings().url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let entries: u64 = redis::cmd("XLEN")
        .arg("jit:events")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(entries, 1);
}
