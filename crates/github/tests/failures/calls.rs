//! How a call fails, and what it may not do.

use crate::common::{Mock, Reply, TOKEN, client, options};
use jit_github::{BackOff, Client, Deletion, Error, Login, Scope};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{LONG, acme, error_of, generate, message};

#[tokio::test]
async fn a_slow_answer_times_out_and_is_uncertain() {
    for sent in ["", "HTTP/1.1 201 X\r\ncontent-length: 99\r\n\r\n{"] {
        let mock = Mock::always(Reply::Hang(sent.into())).await;
        let limit = Duration::from_millis(300);
        let error = generate(&mock.client(), limit).await.unwrap_err();
        assert!(
            matches!(&error, Error::TimedOut { after, .. } if *after == limit),
            "{error:?}"
        );
        assert!(error.uncertain());
        assert_eq!(error.backs_off(), BackOff::All);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_certain() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap()).parse().unwrap();
    drop(free);
    let error = generate(&client(url), LONG).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(!error.uncertain());
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_huge_answer_is_not_read_whole() {
    let started = Instant::now();
    let error = error_of(Reply::Endless).await;
    assert!(
        matches!(&error, Error::Unreadable { why, .. } if why.contains("larger than 8388608")),
        "{error:?}"
    );
    let declared = Reply::Raw(
        format!(
            "HTTP/1.1 500 X\r\ncontent-length: {}\r\n\r\n{}",
            1u64 << 40,
            "y".repeat(1 << 20)
        )
        .into(),
    );
    let error = error_of(declared).await;
    assert!(
        matches!(&error, Error::Server { said, .. } if said.chars().count() < 310),
        "{error:?}"
    );
    assert!(started.elapsed() < LONG);
}

#[tokio::test]
async fn the_token_goes_to_no_other_origin() {
    let other = Mock::always(Reply::json(201, &json!({}))).await;
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::empty(status).with("location", other.url.join("/orgs/acme").unwrap());
        let error = error_of(reply).await;
        let Error::Redirected { to, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*to, other.url.origin().ascii_serialization());
    }
    assert!(other.seen().is_empty(), "{:?}", other.seen());
}

#[tokio::test]
async fn a_redirect_on_the_server_is_followed_as_the_same_request() {
    for status in [301, 302, 307, 308] {
        let mock = Mock::start(move |request| match request.path.as_str() {
            "/moved" => Reply::json(201, &json!({"runner": {"id": 5}, "encoded_jit_config": "x"})),
            _ => Reply::empty(status).with("location", "/moved"),
        })
        .await;
        assert_eq!(generate(&mock.client(), LONG).await.unwrap().id, 5);
        let seen = mock.seen();
        assert_eq!((seen[1].method.as_str(), &seen[1].body), ("POST", &seen[0].body));
        assert_eq!(
            seen[1].header("authorization"),
            Some(format!("Bearer {TOKEN}").as_str())
        );
    }
    let mock = Mock::always(Reply::empty(307).with("location", "/again")).await;
    let error = generate(&mock.client(), LONG).await.unwrap_err();
    assert!(matches!(error, Error::Redirected { .. }), "{error:?}");
    assert_eq!(mock.seen().len(), 4);
}

#[tokio::test]
async fn nothing_is_retried() {
    for reply in [message(500, "no"), message(429, "no"), Reply::Cut] {
        let mock = Mock::always(reply).await;
        generate(&mock.client(), LONG).await.unwrap_err();
        assert_eq!(mock.seen().len(), 1);
    }
}

#[tokio::test]
async fn the_token_is_asked_for_each_call_and_an_unusable_one_is_not_sent() {
    let mock = Mock::always(Reply::empty(204)).await;
    let turn = Arc::new(AtomicUsize::new(0));
    let mut with = options(mock.url.clone());
    with.login = Login::Token(Arc::new(move || {
        ["first", "second\n", "", "bad\u{0}", "bad\nmiddle"][turn.fetch_add(1, Ordering::Relaxed)].into()
    }));
    let client = Client::new(with).unwrap();
    assert_eq!(client.delete_runner(&acme(), 1).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.delete_runner(&acme(), 1).await.unwrap(), Deletion::Deleted);
    for _ in 0..3 {
        let error = client.delete_runner(&acme(), 1).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    }
    let sent: Vec<_> = mock
        .seen()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn the_hook_and_the_gauge_are_told() {
    let told = Arc::<Mutex<Vec<(&str, u16)>>>::default();
    let mock = Mock::start(|request| match request.method.as_str() {
        "DELETE" => message(422, "Runner is currently running a job").with("x-ratelimit-remaining", "4711"),
        "GET" => message(404, "Not Found"),
        _ => Reply::Cut,
    })
    .await;
    let mut with = options(mock.url.clone());
    let log = told.clone();
    with.on_response = Some(Arc::new(move |endpoint, status| {
        log.lock().unwrap().push((endpoint, status))
    }));
    let client = Client::new(with).unwrap();
    assert_eq!(client.rate_limit_remaining(), None);
    assert_eq!(client.delete_runner(&acme(), 1).await.unwrap(), Deletion::Busy);
    assert_eq!(client.rate_limit_remaining(), Some(4711));
    assert_eq!(client.job("o", "r", 1).await.unwrap(), None);
    generate(&client, LONG).await.unwrap_err();
    assert_eq!(client.rate_limit_remaining(), Some(4711));
    assert_eq!(
        *told.lock().unwrap(),
        [("delete-runner", 422), ("job", 404), ("generate-jitconfig", 0)]
    );
    assert_eq!(
        mock.seen()[0].header("user-agent"),
        Some(concat!("jit-runner-manager/", env!("CARGO_PKG_VERSION")))
    );
    assert!(!format!("{client:?}").contains(TOKEN));
}

#[tokio::test]
async fn names_that_no_url_holds_are_refused_unsent() {
    let mock = Mock::always(Reply::empty(204)).await;
    let client = mock.client();
    for name in ["..", "", "a\nb"] {
        let error = client
            .delete_runner(&Scope::Organization(name.into()), 1)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert!(!error.to_string().contains('\n'));
    }
    assert!(mock.seen().is_empty());
    client
        .delete_runner(&Scope::Organization("a/../b".into()), 1)
        .await
        .unwrap();
    assert_eq!(mock.seen()[0].path, "/orgs/a%2F..%2Fb/actions/runners/1");
}

#[test]
fn options_that_cannot_work_are_told_at_once() {
    for url in [
        "ftp://github.example.com",
        "https://user:pw@github.example.com",
        "https://token@github.example.com",
        "https://x?a=1",
        "unix:/run",
    ] {
        let error = Client::new(options(url.parse().unwrap())).unwrap_err();
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let mut with = options("https://github.example.com".parse().unwrap());
        with.extra_ca_pem = Some(pem.into());
        assert!(Client::new(with).is_err(), "{pem:?}");
    }
}
