//! What nobody should send: each has its status, a sentence, and leaves nothing in Redis.

use std::time::Duration;

use axum::http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

mod support;
use support::{Receiver, SECRET, WELL_FORMED, changed, fixture, request, signature, signed};

#[tokio::test]
async fn signatures_that_are_none() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let body = fixture("queued").to_string();
    let good = signature(SECRET, body.as_bytes());
    let (other_secret, other_body) = (signature("other", body.as_bytes()), signature(SECRET, b"{}"));
    let (huge, sha1) = (
        format!("sha256={}", "a".repeat(20_000)),
        format!("sha1={}", &good[7..47]),
    );
    let wrong: [&[u8]; 14] = [
        other_secret.as_bytes(),
        other_body.as_bytes(),
        b"",
        b"sha256=",
        b"sha256",
        &good.as_bytes()[7..],
        &good.as_bytes()[..70],
        &[good.as_bytes(), b"0"].concat(),
        &[b"SHA256=", &good.as_bytes()[7..]].concat(),
        b"sha256=gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg",
        "sha256=ключ-ключ-ключ-ключ-ключ-ключ-кл".as_bytes(),
        b"sha256=\xff\xfe",
        sha1.as_bytes(),
        huge.as_bytes(),
    ];
    for signature in wrong {
        let mut request = signed("workflow_job", body.as_bytes());
        request.headers_mut().insert(
            "x-hub-signature-256",
            HeaderValue::from_bytes(signature).expect("bytes that a header may have"),
        );
        receiver.send(request).await.refused(401);
    }
    let mut without = signed("workflow_job", body.as_bytes());
    without.headers_mut().remove("x-hub-signature-256");
    assert!(receiver.send(without).await.refused(401).contains("missing"));
    let mut twice = signed("workflow_job", body.as_bytes());
    twice
        .headers_mut()
        .append("x-hub-signature-256", good.parse().expect("a header"));
    receiver.send(twice).await.refused(401);
    // Also what would be ignored, or could not be read, is told nothing before it is believed.
    for body in ["{", "", &"[".repeat(100_000)] {
        receiver
            .send(request(
                Method::POST,
                "/webhook",
                &[("x-github-event", "ping")],
                body.to_owned(),
            ))
            .await
            .refused(401);
        receiver
            .send(request(Method::POST, "/webhook", &[], body.to_owned()))
            .await
            .refused(401);
    }
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn headers_that_are_none() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let mut without = signed("workflow_job", b"{}");
    without.headers_mut().remove("x-github-event");
    assert!(receiver.send(without).await.refused(400).contains("X-GitHub-Event"));
    for event in [&b"\xff"[..], "событие".as_bytes()] {
        let mut request = signed("workflow_job", b"{}");
        request.headers_mut().insert(
            "x-github-event",
            HeaderValue::from_bytes(event).expect("bytes that a header may have"),
        );
        receiver.send(request).await.refused(400);
    }
    let long = "e".repeat(5000);
    let answer = receiver.send(signed(&long, b"{}")).await.ok();
    assert!(
        answer["event"]
            .as_str()
            .is_some_and(|event| event.chars().count() == 65),
        "{answer}"
    );
    assert_eq!(receiver.store().await, empty);
    // A delivery id that is none is no reason to lose a job.
    let mut request = signed("workflow_job", fixture("queued").to_string().as_bytes());
    request.headers_mut().insert(
        "x-github-delivery",
        HeaderValue::from_bytes(b"\xff\xfe").expect("bytes that a header may have"),
    );
    receiver.send(request).await.ok();
    let mut request = signed("workflow_job", fixture("queued").to_string().as_bytes());
    request
        .headers_mut()
        .insert("x-github-delivery", "a{b}:c ".repeat(500).parse().expect("a header"));
    receiver.send(request).await.ok();
    let events = receiver.events().await;
    assert_eq!((events[0].1.as_str(), events[1].1.len()), ("", 64));
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_large() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let large = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n",
        "a".repeat(200_000)
    );
    assert!(receiver.raw(large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\n{}content-length: 0\r\n\r\n",
        "x: y\r\n".repeat(1000)
    );
    assert!(receiver.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let long = format!("GET /{} HTTP/1.1\r\nhost: r\r\n\r\n", "a".repeat(200_000));
    assert!(receiver.raw(long.as_bytes()).await.starts_with("HTTP/1.1 4"));
    for nonsense in [
        "\u{16}\u{3}\u{1}TLS\r\n\r\n",
        "GET\r\n\r\n",
        "POST /webhook HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /webhook HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    ] {
        let answer = receiver.raw(nonsense.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{nonsense}: {answer}"
        );
    }
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let receiver = Receiver::with(&["--max-body-bytes", "100000"], |_| {}).await;
    let empty = receiver.store().await;
    let body = vec![b' '; 100_001];
    assert!(
        receiver
            .send(signed("workflow_job", &body))
            .await
            .refused(413)
            .contains("100000")
    );
    receiver
        .send(request(Method::POST, "/webhook", &[], body))
        .await
        .refused(413);
    // Announced only: answered before a byte of it was sent.
    let mut stream = TcpStream::connect(receiver.address).await.expect("a connection");
    stream
        .write_all(b"POST /webhook HTTP/1.1\r\nhost: r\r\nexpect: 100-continue\r\ncontent-length: 60000000\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("closed by the receiver");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Not announced: in chunks without an end, and the answer still arrives.
    let stream = TcpStream::connect(receiver.address).await.expect("a connection");
    let (mut from, mut to) = stream.into_split();
    to.write_all(format!("POST /webhook HTTP/1.1\r\n{WELL_FORMED}transfer-encoding: chunked\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, " ".repeat(10_000));
    let sending = tokio::spawn(async move { while to.write_all(chunk.as_bytes()).await.is_ok() {} });
    let mut answer = Vec::new();
    let _ = from.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    drop(from);
    sending.await.expect("noticed that nobody reads it");
    // Sent whole before anything is read, as simple clients do.
    let mut whole = b"POST /webhook HTTP/1.1\r\nhost: r\r\ncontent-length: 5000000\r\n\r\n".to_vec();
    whole.resize(whole.len() + 5_000_000, b' ');
    assert!(receiver.raw(&whole).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(receiver.store().await, empty);
    // What is just not too large is taken.
    let mut padded = fixture("queued").to_string();
    padded.push_str(&" ".repeat(100_000 - padded.len()));
    receiver.webhook(padded).await.ok();
}

#[tokio::test]
async fn bodies_that_end_early() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let body = fixture("queued").to_string();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: r\r\nx-github-event: workflow_job\r\nx-hub-signature-256: {}\r\n",
        signature(SECRET, body.as_bytes())
    );
    let half = &body[..body.len() / 2];
    for broken in [
        format!("{head}content-length: {}\r\n\r\n{half}", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{half}", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(receiver.address).await.expect("a connection");
        stream.write_all(broken.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // Truncated, and signed as it is.
    for cut in [0, 1, half.len(), body.len() - 1] {
        receiver.webhook(&body[..cut]).await.refused(400);
    }
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn json_that_is_none_or_too_deep() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let deep = |depth: usize| ("[".repeat(depth), "]".repeat(depth));
    let (open, close) = deep(1_000_000);
    let nested = "{\"a\":".repeat(1_000_000);
    for body in [
        "",
        " ",
        "null",
        "5",
        "\"text\"",
        "[]",
        "{",
        "{}{}",
        "{} trailing",
        "{'action': 1}",
        "{\"action\": \"queued\",}",
        "NaN",
        "\u{feff}{}",
        &open,
        &nested,
        &format!("{{\"action\": {open}{close}}}"),
        &format!("{{\"workflow_job\": {{\"labels\": {open}{close}}}}}"),
    ] {
        receiver.webhook(body).await.refused(400);
    }
    for body in [&b"{\"action\": \"\xff\"}"[..], b"\xff\xfe{\0}\0", b"\0"] {
        receiver.webhook(body).await.refused(400);
    }
    assert_eq!(receiver.store().await, empty);
    // Depth where nothing is read is skipped: the job is not lost for it.
    let body = fixture("queued").to_string();
    receiver
        .webhook(format!("{{\"unknown\": {open}{close}, {}", &body[1..]))
        .await
        .ok();
}

#[tokio::test]
async fn fields_that_are_none() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    let long = "a".repeat(300);
    let names = [
        "",
        "a:b",
        "{a}",
        "a\nb",
        "a\r\nSET x 1",
        "a b",
        "*",
        "a\0",
        "ä",
        "../x",
        &long,
        "a}",
        "a'b",
        "a\"b",
    ];
    let mut wrong: Vec<(&str, &str, Value)> = Vec::new();
    for name in names {
        wrong.push(("queued", "/organization/login", json!(name)));
        wrong.push(("queued", "/repository/full_name", json!(format!("Acme/{name}"))));
        wrong.push((
            "queued_user_repository",
            "/repository/full_name",
            json!(format!("{name}/app")),
        ));
        wrong.push((
            "queued_old_server_without_organization",
            "/repository/owner/login",
            json!(name),
        ));
    }
    for name in ["acme", "a/b/c", "/", "a/", "/b", "a/..", "a/."] {
        wrong.push(("queued", "/repository/full_name", json!(name)));
    }
    for id in [
        json!(0),
        json!(-1),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
        json!(1e300),
        json!(1.5),
        json!("1"),
        json!(true),
        json!([1]),
        json!({}),
        Value::Null,
    ] {
        wrong.push(("queued", "/workflow_job/id", id.clone()));
        wrong.push(("completed", "/workflow_job/id", id));
    }
    for labels in [
        json!("code-linux"),
        json!({}),
        json!([["code-linux"]]),
        json!([5]),
        json!([null]),
        json!(["code-linux", ""]),
        json!(["code-linux", "a\nb"]),
        json!(["code-linux", "a".repeat(257)]),
        json!(vec!["code-linux"; 101]),
    ] {
        wrong.push(("queued", "/workflow_job/labels", labels));
    }
    for (pointer, value) in [
        ("/action", json!(5)),
        ("/action", Value::Null),
        ("/action", json!(["queued"])),
        ("/workflow_job", Value::Null),
        ("/workflow_job", json!([1])),
        ("/workflow_job", json!("x")),
        ("/workflow_job/runner_id", json!("4711")),
        ("/workflow_job/runner_name", json!(5)),
        ("/workflow_job/run_attempt", json!("1")),
        ("/workflow_job/status", json!(1)),
        ("/workflow_job/conclusion", json!([])),
        ("/organization", json!("acme")),
        ("/organization", json!(["acme"])),
        ("/organization/login", json!(5)),
        ("/organization/login", Value::Null),
        ("/repository", Value::Null),
        ("/repository", json!([])),
        ("/repository/full_name", Value::Null),
        ("/repository/full_name", json!(1)),
        ("/repository/private", json!("false")),
        ("/repository/owner", json!("acme")),
        ("/repository/owner/type", json!(1)),
    ] {
        wrong.push(("in_progress", pointer, value));
    }
    for (name, pointer, value) in wrong {
        let detail = receiver
            .webhook(changed(name, pointer, value.clone()))
            .await
            .refused(400);
        let field = pointer.trim_start_matches('/').replace('/', ".");
        assert!(detail.starts_with(&field), "{pointer} {value}: {detail}");
        assert!(
            detail.chars().count() <= 301 && !detail.chars().any(char::is_control),
            "{detail}"
        );
    }
    assert_eq!(receiver.store().await, empty);
    // What is odd, but no reason to lose a job, goes.
    for (pointer, value) in [
        ("/workflow_job/runner_name", json!("a".repeat(65))),
        ("/workflow_job/runner_name", json!("a\nb")),
        ("/workflow_job/conclusion", json!("a:{}\n")),
        ("/workflow_job/run_attempt", json!(-1)),
        ("/workflow_job/run_attempt", json!(1_i64 << 40)),
        ("/workflow_job/runner_id", json!(-5)),
        ("/workflow_job/status", json!("on_fire")),
        ("/workflow_job/labels", json!(vec!["code-linux"; 100])),
        ("/workflow_job/id", json!(i64::MAX)),
    ] {
        receiver.webhook(changed("queued", pointer, value)).await.ok();
    }
    for (event, _) in receiver.events().await {
        assert_eq!((event.runner, event.runner_id, event.conclusion), (None, None, None));
    }
}

#[tokio::test]
async fn senders_that_send_nothing_lose_their_connection() {
    let receiver = Receiver::with(&[], |settings| {
        settings.timeouts.headers = Duration::from_millis(500);
        settings.timeouts.idle = Duration::from_millis(400);
        settings.timeouts.webhook = Duration::from_millis(300);
    })
    .await;
    let empty = receiver.store().await;
    for silent in ["", "POST /webhook HTTP/1.1\r\nhost: r\r\nx-slow: "] {
        let mut stream = TcpStream::connect(receiver.address).await.expect("a connection");
        stream.write_all(silent.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // Returns when the receiver closes it: otherwise never.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    // A body that stays out.
    let slow = receiver
        .raw(format!("POST /webhook HTTP/1.1\r\n{WELL_FORMED}content-length: 100\r\n\r\n{{").as_bytes())
        .await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    // A connection that is kept and not used, or only half used, a second time.
    for second in ["", "GET /webhook/test HTT"] {
        let idle = receiver
            .raw(format!("GET /webhook/test HTTP/1.1\r\nhost: r\r\n\r\n{second}").as_bytes())
            .await;
        assert!(idle.starts_with("HTTP/1.1 200 "), "{idle}");
    }
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn a_full_house_neither_refuses_for_ever_nor_keeps_the_process_from_ending() {
    let mut receiver = Receiver::with(&["--max-connections", "2"], |settings| {
        settings.timeouts.headers = Duration::from_millis(500)
    })
    .await;
    let silent = [
        TcpStream::connect(receiver.address).await.expect("one"),
        TcpStream::connect(receiver.address).await.expect("two"),
    ];
    // The silent ones give way to it.
    receiver.get("/webhook/test").await.ok();
    drop(silent);
    let _held = [
        TcpStream::connect(receiver.address).await.expect("one"),
        TcpStream::connect(receiver.address).await.expect("two"),
    ];
    receiver.drained().await;
}
