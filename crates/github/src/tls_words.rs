//! What is wrong with a server's certificate, and what to do about it.

use std::error::Error;
use std::io;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, OtherError};

/// The sentence for an error whose cause is the server's certificate, with the TLS library's word behind it.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let error = certificate_error(error)?;
    Some(format!("{} ({})", sentence(error), word(error)))
}

/// The cause among an error's causes that concerns the server's certificate.
fn certificate_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(found)) = error.downcast_ref() {
            return Some(found);
        }
        // The source of an io::Error is that of the error inside it.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside
            .map(|inside| inside as &(dyn Error + 'static))
            .or_else(|| error.source());
    }
    None
}

/// What webpki says where rustls has no word for it.
fn of_webpki(error: &CertificateError) -> Option<&webpki::Error> {
    match error {
        CertificateError::Other(OtherError(inside)) => inside.downcast_ref(),
        _ => None,
    }
}

/// rustls's or webpki's own word, shorter than their sentences.
fn word(error: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        i64::try_from(time.as_secs())
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .unwrap_or(Timestamp::MAX)
    };
    match error {
        CertificateError::Other(OtherError(inside)) => inside.to_string(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => "NotValidForName".into(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("NotValidForName: it is for {}", presented.join(", "))
        }
        CertificateError::ExpiredContext { not_after, .. } => format!("Expired: notAfter is {}", at(not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("NotValidYet: notBefore is {}", at(not_before))
        }
        error => error.to_string(),
    }
}

/// Short enough that the word behind it is not cut off.
fn sentence(error: &CertificateError) -> String {
    use CertificateError as Certificate;
    let one_that_is_refused = |what: &str, instead: &str| {
        format!(
            "the server's certificate {what}, and is trusted only where this very certificate is in GITHUB_CA_FILE: \
             put it there, or give the server {instead}"
        )
    };
    let text = match error {
        Certificate::UnknownIssuer => {
            "the server's certificate is signed by an authority that is not trusted here: put that authority's \
             certificate, or the server's own, into \
             GITHUB_CA_FILE"
        }
        Certificate::NotValidForName => {
            return one_that_is_refused("does not hold the server's name as subjectAltName", "one that does");
        }
        Certificate::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            return one_that_is_refused("holds no name as subjectAltName", "one that does");
        }
        Certificate::NotValidForNameContext { expected, .. } => {
            let host = expected.to_str();
            return format!(
                "the server's certificate is not for the name {host}: set GHES_URL to a name that it is for, or give \
                 the server one for this name"
            );
        }
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            "the server's certificate, or one that signed it, has expired: give the server a new one; if it is new, \
             look at the clock of this machine"
        }
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            "the server's certificate, or one that signed it, is not valid yet: look at the clock of this machine, and \
             at that of the one where it was made"
        }
        Certificate::BadSignature => {
            "a signature does not fit the server's certificate: where GITHUB_CA_FILE holds an older certificate of the \
             same name, put the present one there; \
             else look at the server's key and certificate"
        }
        Certificate::UnsupportedSignatureAlgorithmContext { .. }
        | Certificate::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate has a key or a signature of a kind that is not trusted (SHA-1, for one): give \
             the server one signed with SHA-256, by RSA \
             or ECDSA"
        }
        error => match of_webpki(error) {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                return one_that_is_refused("is an authority's (CA:TRUE)", "one that an authority has signed");
            }
            Some(webpki::Error::UnsupportedCertVersion) => {
                return one_that_is_refused(
                    "is of X.509 version 1",
                    "one of version 3 with its name as subjectAltName",
                );
            }
            _ => return one_that_is_refused("is not fit for a server", "another"),
        },
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;
    use crate::words::tidy;

    #[test]
    fn each_error_of_a_certificate_says_what_to_do() {
        let other = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expected = ServerName::try_from("github.example.com").unwrap();
        let presented = vec![r#"DnsName("old.example.com")"#.into()];
        for (error, says) in [
            (
                CertificateError::UnknownIssuer,
                "put that authority's certificate, or the server's own, into GITHUB_CA_FILE (UnknownIssuer)",
            ),
            (other(webpki::Error::CaUsedAsEndEntity), "(CaUsedAsEndEntity)"),
            (other(webpki::Error::UnsupportedCertVersion), "(UnsupportedCertVersion)"),
            (other(webpki::Error::MalformedExtensions), "(MalformedExtensions)"),
            (
                CertificateError::NotValidForNameContext {
                    expected: expected.clone(),
                    presented: Vec::new(),
                },
                "(NotValidForName)",
            ),
            (
                CertificateError::NotValidForNameContext { expected, presented },
                r#"(NotValidForName: it is for DnsName("old.example.com"))"#,
            ),
            (CertificateError::Expired, "(Expired)"),
            (
                CertificateError::ExpiredContext {
                    time: at(2),
                    not_after: at(1),
                },
                "(Expired: notAfter is 1970-01-01T00:00:01Z)",
            ),
            (
                CertificateError::NotValidYetContext {
                    time: at(1),
                    not_before: at(2),
                },
                "(NotValidYet: notBefore is 1970-01-01T00:00:02Z)",
            ),
            (CertificateError::NotValidYet, "(NotValidYet)"),
            (CertificateError::BadSignature, "(BadSignature)"),
            (
                CertificateError::UnhandledCriticalExtension,
                "(UnhandledCriticalExtension)",
            ),
        ] {
            // As it comes from the network: an error inside an io::Error inside others.
            let error = io::Error::other(io::Error::other(rustls::Error::InvalidCertificate(error)));
            let text = advice(&error).unwrap();
            assert!(text.contains(says), "{text}");
            assert_eq!(tidy(&text), text, "it is too long");
        }
        assert_eq!(advice(&io::Error::other(rustls::Error::DecryptError)), None);
        assert_eq!(advice(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
