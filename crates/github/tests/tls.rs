//! TLS with a certificate authority of a company's own, and HTTP/2, which github.com speaks.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use common::{Reply, client, options};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jit_github::{Client, Deletion, Error, Scope};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use url::Url;

/// A TLS server at localhost that speaks `protocol`, whose certificate an authority of its own signed; with that authority's certificate, PEM.
async fn server(protocol: &'static str) -> (Url, Vec<u8>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/api/v3", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(async move {
                    if protocol == "h2" {
                        let answer = service_fn(async |request: Request<Incoming>| {
                            let status = if request.version() == Version::HTTP_2 { 204 } else { 505 };
                            Response::builder().status(status).body(Empty::<&[u8]>::new())
                        });
                        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
                    } else {
                        let reply = Arc::new(|_: &common::Request| Reply::empty(204));
                        common::serve(stream, reply, Arc::new(Mutex::default())).await;
                    }
                });
            }
        }
    });
    (url, authority_pem.into_bytes())
}

#[tokio::test]
async fn an_extra_authority_is_trusted_and_an_unknown_one_is_not() {
    let (url, authority) = server("http/1.1").await;
    let scope = Scope::Organization("acme".into());
    let error = client(url.clone()).delete_runner(&scope, 1).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let mut with = options(url);
    with.extra_ca_pem = Some(authority);
    assert_eq!(Client::new(with).unwrap().delete_runner(&scope, 1).await.unwrap(), Deletion::Deleted);
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_does() {
    let (url, authority) = server("h2").await;
    let mut with = options(url);
    with.extra_ca_pem = Some(authority);
    let client = Client::new(with).unwrap();
    let scope = Scope::Organization("acme".into());
    for _ in 0..3 {
        assert_eq!(client.delete_runner(&scope, 1).await.unwrap(), Deletion::Deleted);
    }
}
