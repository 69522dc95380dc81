//! A TLS server for tests, with any certificate and key, fitting or not.

use std::sync::{Arc, Mutex};

use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::Reply;

/// What a server presents, and the key that it signs with.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    /// Signed by itself.
    pub fn own(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }

    /// Signed by an authority of its own; with that authority's certificate, PEM.
    pub fn signed(params: &CertificateParams) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let (authority, pem) = authority();
        (Self::new(&params.signed_by(&key, &authority).unwrap(), &key), pem)
    }

    /// X.509 version 1, as `openssl x509 -req` makes it: for `/CN=localhost`, valid from 2000 to 2099.
    pub fn version_1() -> Self {
        let pem = include_str!("v1.pem");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("v1-key.pem")).unwrap();
        Self {
            certificate: CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(),
            pem: pem.into(),
            key,
        }
    }
}

/// An authority, and its certificate, PEM.
pub fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A certificate for these names, with this common name.
pub fn params(names: &[&str], common_name: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

/// The same, as `openssl req -x509` makes it: its own authority.
pub fn own_authority(names: &[&str], common_name: Option<&str>) -> CertificateParams {
    let mut params = params(names, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A server at localhost; the root of its API. It answers each request with 204, over HTTP/2 where `protocol` is `h2`.
pub async fn server(identity: Identity, protocol: &'static str, versions: &[&'static SupportedProtocolVersion]) -> Url {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(identity.key).unwrap();
    // Not `with_single_cert`: it refuses a certificate of version 1, and a key that does not fit.
    let certified = CertifiedKey::new(vec![identity.certificate], key);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth();
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![protocol.into()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/api/v3", listener.local_addr().unwrap().port())
        .parse()
        .unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(async move {
                    if protocol == "h2" {
                        let answer = service_fn(async |request: Request<Incoming>| {
                            let status = if request.version() == Version::HTTP_2 { 204 } else { 505 };
                            Response::builder().status(status).body(Empty::<&[u8]>::new())
                        });
                        let _ = http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), answer)
                            .await;
                    } else {
                        let reply = Arc::new(|_: &super::Request| Reply::empty(204));
                        super::serve(stream, reply, Arc::new(Mutex::default())).await;
                    }
                });
            }
        }
    });
    url
}
