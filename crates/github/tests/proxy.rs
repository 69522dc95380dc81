//! The usual variables name the proxy. They belong to the whole process, so each case is a process of its own: this
//! program, told to run [`calls`] alone.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use common::tls::{Identity, params, server};
use common::{Mock, Reply, options};
use jit_github::{Client, Scope};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// A proxy that makes tunnels; its URL, and the first line of each request.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
                let first = head.lines().next().unwrap_or_default().to_owned();
                let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(first);
                let mut upstream = TcpStream::connect(target).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
            });
        }
    });
    (url, asked)
}

/// Runs [`calls`] with these variables, and no other of a proxy.
async fn run(url: &str, pem: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "calls", "--ignored", "--nocapture"]).env("TEST_API_URL", url).env("TEST_CA", pem);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "it is what the other tests run, with variables of their own"]
async fn calls() {
    let mut with = options(std::env::var("TEST_API_URL").unwrap().parse().unwrap());
    with.extra_ca_pem = std::env::var("TEST_CA").ok().filter(|pem| !pem.is_empty()).map(String::into_bytes);
    Client::new(with).unwrap().delete_runner(&Scope::Organization("acme".into()), 1).await.unwrap();
}

#[tokio::test]
async fn the_variables_are_heeded() {
    let (identity, authority) = Identity::signed(&params(&["localhost"], None));
    let own = Identity::own(&params(&[], Some("localhost")));
    let own_pem = own.pem.clone();
    let (proxy, asked) = proxy().await;
    for (identity, pem) in [(identity, authority), (own, own_pem)] {
        let url = server(identity, "http/1.1", rustls::ALL_VERSIONS).await;
        let tunnel = format!("CONNECT localhost:{} HTTP/1.1", url.port().unwrap());
        for variables in [&[("HTTPS_PROXY", proxy.as_str())][..], &[("https_proxy", &proxy), ("NO_PROXY", "example.com")], &[("ALL_PROXY", &proxy)]] {
            run(url.as_str(), &pem, variables).await;
            assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), [tunnel.as_str()], "{variables:?}");
        }
        for no_proxy in ["localhost", "*", "example.com, localhost"] {
            run(url.as_str(), &pem, &[("HTTPS_PROXY", &proxy), ("NO_PROXY", no_proxy)]).await;
            assert_eq!(*asked.lock().unwrap(), [""; 0], "{no_proxy}");
        }
    }
    // HTTPS_PROXY is for https alone.
    let mock = Mock::always(Reply::empty(204)).await;
    run(mock.url.as_str(), "", &[("HTTPS_PROXY", &proxy)]).await;
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
}
