//! Who sent a webhook: HMAC-SHA256 over its raw body, as GitHub signs it, under the current secret or the previous one.
//!
//! Invariant: nothing of a body is parsed before this has said yes. Signatures are compared in constant time.

use axum::http::HeaderMap;
use jit_core::config::Secret;
use ring::hmac;
use secrecy::ExposeSecret;

/// Where GitHub puts it.
pub const HEADER: &str = "x-hub-signature-256";

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No header.
    #[error("X-Hub-Signature-256 is missing: set the webhook's secret at GitHub")]
    Missing,
    /// Not `sha256=` and 64 hexadecimal digits, or several.
    #[error("X-Hub-Signature-256 is not sha256= and 64 hexadecimal digits")]
    Malformed,
    /// Of another body or under another secret.
    #[error("X-Hub-Signature-256 does not fit: the secret at GitHub and here differ, or the body was changed on its way")]
    Wrong,
}

/// Checks a body's signature. Without secrets every body is believed (`WEBHOOK_INSECURE`).
///
/// # Errors
/// When it is not signed by any of them.
pub fn verify(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> Result<(), Untrusted> {
    if secrets.is_empty() {
        return Ok(());
    }
    let mut given = headers.get_all(HEADER).iter();
    let (Some(signature), None) = (given.next(), given.next()) else {
        return Err(if headers.contains_key(HEADER) { Untrusted::Malformed } else { Untrusted::Missing });
    };
    let mut tag = [0; 32];
    let digits = signature.as_bytes().strip_prefix(b"sha256=").ok_or(Untrusted::Malformed)?;
    hex::decode_to_slice(digits, &mut tag).map_err(|_| Untrusted::Malformed)?;
    let signed_by = |secret: &Secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.get().expose_secret().as_bytes());
        hmac::verify(&key, body, &tag).is_ok()
    };
    if secrets.iter().any(signed_by) { Ok(()) } else { Err(Untrusted::Wrong) }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    // The example of GitHub's documentation, "Validating webhook deliveries".
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn check(secrets: &[&str], signatures: &[&[u8]], body: &[u8]) -> Result<(), Untrusted> {
        let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        let mut headers = HeaderMap::new();
        for signature in signatures {
            headers.append(HeaderName::from_static(HEADER), HeaderValue::from_bytes(signature).expect("a header"));
        }
        verify(&secrets, &headers, body)
    }

    #[test]
    fn githubs_own_example_is_believed() {
        assert_eq!(check(&[SECRET], &[SIGNATURE.as_bytes()], BODY), Ok(()));
        assert_eq!(check(&["new", SECRET], &[SIGNATURE.as_bytes()], BODY), Ok(()), "the previous secret");
    }

    #[test]
    fn nothing_else_is() {
        let other = SIGNATURE.replace('7', "8");
        assert_eq!(check(&[SECRET], &[], BODY), Err(Untrusted::Missing));
        assert_eq!(check(&[SECRET], &[other.as_bytes()], BODY), Err(Untrusted::Wrong));
        assert_eq!(check(&[SECRET], &[SIGNATURE.as_bytes()], b"Hello, World?"), Err(Untrusted::Wrong));
        assert_eq!(check(&["other"], &[SIGNATURE.as_bytes()], BODY), Err(Untrusted::Wrong));
        let (short, long) = (&SIGNATURE[..70], format!("{SIGNATURE}0"));
        let malformed: [&[u8]; 8] = [
            b"",
            b"sha256=",
            &SIGNATURE.as_bytes()[7..],
            b"sha1=757107ea0eb2509fc211221cce984b8a37570b6d",
            short.as_bytes(),
            long.as_bytes(),
            b"sha256=\xc3\xa4",
            b"sha256=zz7107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ];
        for signature in malformed {
            assert_eq!(check(&[SECRET], &[signature], BODY), Err(Untrusted::Malformed), "{signature:?}");
        }
        assert_eq!(check(&[SECRET], &[SIGNATURE.as_bytes(), SIGNATURE.as_bytes()], BODY), Err(Untrusted::Malformed), "twice");
    }

    #[test]
    fn without_a_secret_everything_is_believed() {
        assert_eq!(check(&[], &[], BODY), Ok(()));
    }
}
