//! The usual variables name the proxy. They belong to the whole process, so each case is a process of its own: this
//! program, told to run [`calls`] alone.
#![allow(clippy::unwrap_used)]

mod common;

use common::tls::{Identity, params, server};
use common::{Mock, Reply, options};
use jit_github::{Client, Scope};
use jit_testing::{proxy, run_alone};

/// Runs [`calls`] with these variables.
async fn run(url: &str, pem: &str, variables: &[(&str, &str)]) {
    let own = [("TEST_API_URL", url), ("TEST_CA", pem)];
    run_alone("calls", own.into_iter().chain(variables.iter().copied())).await;
}

#[tokio::test]
#[ignore = "it is what the other tests run, with variables of their own"]
async fn calls() {
    let mut with = options(std::env::var("TEST_API_URL").unwrap().parse().unwrap());
    with.extra_ca_pem = std::env::var("TEST_CA")
        .ok()
        .filter(|pem| !pem.is_empty())
        .map(String::into_bytes);
    Client::new(with)
        .unwrap()
        .delete_runner(&Scope::Organization("acme".into()), 1)
        .await
        .unwrap();
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
        for variables in [
            &[("HTTPS_PROXY", proxy.as_str())][..],
            &[("https_proxy", &proxy), ("NO_PROXY", "example.com")],
            &[("ALL_PROXY", &proxy)],
        ] {
            run(url.as_str(), &pem, variables).await;
            assert_eq!(
                std::mem::take(&mut *asked.lock().unwrap()),
                [tunnel.as_str()],
                "{variables:?}"
            );
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
