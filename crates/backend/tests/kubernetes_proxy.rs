//! Which proxy leads to Kubernetes. The variables belong to the whole process, so each case is a process of its own:
//! this program, told to run [`connects`] alone.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{Json, Router};
use jit_backend::kubernetes::Kubernetes;
use jit_backend::kubernetes::profile::Profile;
use jit_testing::{proxy, run_alone};
use tokio::net::TcpListener;

mod support;

/// An API server that tells its version; its address.
async fn api_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(async move || Json(support::version("36")));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Runs [`connects`] with a kubeconfig for `server` that has `more`, and with these variables.
async fn run(server: &str, more: &str, variables: &[(&str, &str)]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let kubeconfig = format!(
        "current-context: a\n\
         contexts: [{{name: a, context: {{cluster: one}}}}]\n\
         clusters: [{{name: one, cluster: {{server: 'http://{server}'{more}}}}}]\n"
    );
    std::fs::write(&file, kubeconfig).unwrap();
    let kubeconfig = file.path().to_str().unwrap();
    run_alone(
        "connects",
        [("KUBECONFIG", kubeconfig)]
            .into_iter()
            .chain(variables.iter().copied()),
    )
    .await;
}

#[tokio::test]
#[ignore = "it is what the other tests run, with variables of their own"]
async fn connects() {
    Kubernetes::connect(vec![Profile::default()], "runners", Duration::from_secs(10))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_proxy_variables_are_not_for_kubernetes() {
    let server = api_server().await;
    let (proxy, asked) = proxy().await;
    run(&server, "", &[]).await;
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        run(&server, "", &[(name, &proxy)]).await;
    }
    run(&server, "", &[("HTTPS_PROXY", &proxy), ("NO_PROXY", "*")]).await;
    run(
        &server,
        "",
        &[
            ("HTTPS_PROXY", "https://user:password@proxy.example.com:3129"),
            ("NO_PROXY", ".svc,10.0.0.0/8"),
        ],
    )
    .await;
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_the_kubeconfig_names_is_used() {
    let server = api_server().await;
    let (proxy, asked) = proxy().await;
    let more = format!(", proxy-url: '{proxy}'");
    for variables in [&[][..], &[("HTTPS_PROXY", "http://127.0.0.1:1")], &[("NO_PROXY", "*")]] {
        run(&server, &more, variables).await;
        assert_eq!(
            std::mem::take(&mut *asked.lock().unwrap()),
            [format!("CONNECT {server} HTTP/1.1")]
        );
    }
}
