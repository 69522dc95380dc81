//! TLS with certificates of the operator's own: those of `extra_ca_pem`, which the worker reads from GITHUB_CA_FILE.
//!
//! Each of them is an authority to trust besides the system's. A server that presents one of them, byte for byte, is
//! trusted too: the operator has named it. webpki, which verifies all other certificates, would refuse what
//! `openssl req -x509` makes (a certificate that is its own authority), one without subjectAltName, and one of X.509
//! version 1.
//!
//! Invariants: any other certificate goes to the usual verifier, the one that reqwest makes for the same file. A server
//! that presents a certificate of the file proves by the signature of its handshake that it holds the key.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};
use rustls_platform_verifier::Verifier;
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::options::BuildError;

/// TLS that trusts the system's authorities and the certificates of `pem`.
pub(crate) fn client_config(pem: &[u8]) -> Result<ClientConfig, BuildError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| BuildError::CaBundle(format!("cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(BuildError::CaBundle("holds no certificate".into()));
    }
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()));
    // One that cannot be read as a server's may be an authority's all the same: the usual verifier says so.
    let named = certificates.iter().filter_map(Named::read).collect();
    let usual = Verifier::new_with_extra_roots(certificates, provider.clone());
    let usual =
        usual.map_err(|error| BuildError::CaBundle(format!("holds a certificate that cannot be read: {error}")))?;
    let trust = Trust {
        usual,
        named,
        algorithms: provider.signature_verification_algorithms,
    };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| BuildError::Http(error.to_string()))?;
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    // As reqwest sets it where it makes the configuration.
    config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
    Ok(config)
}

/// Verifies a server's certificate: the usual way, or by a certificate that the operator has named.
#[derive(Debug)]
struct Trust {
    /// The system's authorities and those of the file.
    usual: Verifier,
    named: Vec<Named>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn named(&self, certificate: &CertificateDer<'_>) -> Option<&Named> {
        self.named.iter().find(|named| named.der == *certificate)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.named(end_entity) {
            Some(named) => named
                .check(server_name, now)
                .map(|()| ServerCertVerified::assertion())
                .map_err(Error::from),
            None => self
                .usual
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.named(certificate) {
            Some(named) => verify_tls12_signature_with_raw_key(message, &named.key, signature, &self.algorithms),
            None => self.usual.verify_tls12_signature(message, certificate, signature),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.named(certificate) {
            Some(named) => verify_tls13_signature_with_raw_key(message, &named.key, signature, &self.algorithms),
            None => self.usual.verify_tls13_signature(message, certificate, signature),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// A certificate of the file, and what is checked of it where a server presents it.
#[derive(Debug)]
struct Named {
    der: CertificateDer<'static>,
    key: SubjectPublicKeyInfoDer<'static>,
    /// From when to when it is valid, in seconds since 1970.
    valid: std::ops::RangeInclusive<i64>,
    /// Host names and IP addresses of subjectAltName; where there are none, the common names of the subject.
    names: Vec<String>,
}

impl Named {
    fn read(der: &CertificateDer<'static>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            der: der.clone(),
            key: SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()),
            valid: validity.not_before.timestamp()..=validity.not_after.timestamp(),
            names: names(&certificate),
        })
    }

    /// Checks dates and name, as curl does with the same file: an old certificate, or one for another server, says that
    /// something is set up wrongly. Purposes (extendedKeyUsage) and critical extensions are the operator's affair, who
    /// named this certificate for this server. So is the name where the certificate holds none.
    fn check(&self, server: &ServerName<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at = |seconds: &i64| {
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(*seconds).unwrap_or(0)))
        };
        if seconds < *self.valid.start() {
            return Err(CertificateError::NotValidYetContext {
                time: now,
                not_before: at(self.valid.start()),
            });
        }
        if seconds > *self.valid.end() {
            return Err(CertificateError::ExpiredContext {
                time: now,
                not_after: at(self.valid.end()),
            });
        }
        if self.names.is_empty() || self.names.iter().any(|name| fits(name, server)) {
            return Ok(());
        }
        Err(CertificateError::NotValidForNameContext {
            expected: server.to_owned(),
            presented: self.names.clone(),
        })
    }
}

/// The names of a certificate's server.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let alternative: Vec<_> = alternative
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    if !alternative.is_empty() {
        return alternative;
    }
    certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether a certificate's `name`, whose first label may be `*`, is that of `server`.
fn fits(name: &str, server: &ServerName<'_>) -> bool {
    match server {
        ServerName::DnsName(host) => {
            let host = host.as_ref().trim_end_matches('.');
            let under_it = |domain: &str| {
                host.split_once('.')
                    .is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(domain))
            };
            name.eq_ignore_ascii_case(host) || name.strip_prefix("*.").is_some_and(under_it)
        }
        ServerName::IpAddress(address) => name.parse() == Ok(IpAddr::from(*address)),
        _ => false,
    }
}

/// As rustls's own for TLS 1.3. TLS 1.2 names no curve beside the scheme, so each algorithm of the scheme is tried.
fn verify_tls12_signature_with_raw_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let of_the_scheme = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signature.scheme);
    let (_, of_the_scheme) = of_the_scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| CertificateError::BadEncoding)?;
    let verified = of_the_scheme
        .iter()
        .any(|algorithm| key.verify_signature(*algorithm, message, signature.signature()).is_ok());
    verified
        .then(HandshakeSignatureValid::assertion)
        .ok_or_else(|| CertificateError::BadSignature.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_as_browsers_do() {
        let fits = |name: &str, server: &'static str| fits(name, &ServerName::try_from(server).unwrap());
        for (name, server) in [
            ("github.example.com", "github.example.com"),
            ("GitHub.Example.com", "github.example.com"),
            ("*.example.com", "github.example.com"),
            ("localhost", "localhost"),
            ("10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:0db8:0:0::1"),
        ] {
            assert!(fits(name, server), "{name} {server}");
        }
        for (name, server) in [
            ("example.com", "github.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "a.github.example.com"),
            ("*", "localhost"),
            ("github.*.com", "github.example.com"),
            ("*.0.0.1", "10.0.0.1"),
            ("10.0.0.2", "10.0.0.1"),
            ("", "localhost"),
        ] {
            assert!(!fits(name, server), "{name} {server}");
        }
    }
}
