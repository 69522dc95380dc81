//! Who sent a webhook: HMAC-SHA256 over its raw body, as GitHub signs it, under the current secret or the previous one.
//!
//! The header is read before the body: one that is missing or malformed needs no body to be refused. The HMAC is
//! computed while the body comes in. Invariant: nothing of a body is parsed before [`Verifier::verdict`] has said yes.
//! Signatures are compared in constant time.

use axum::http::HeaderMap;
use jit_core::config::Door;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

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
    #[error(
        "X-Hub-Signature-256 does not fit: the secret at GitHub and here differ, or the body was changed on its way"
    )]
    Wrong,
    /// The file of the current secret is empty or gone: nobody can be believed, whatever they sign with.
    #[error("the file of WEBHOOK_SECRET is empty or gone: no webhook is taken until it holds the secret again")]
    NoSecret,
}

/// What a sender says the HMAC of its body is.
#[derive(Clone, Copy, Debug)]
pub struct Claim([u8; 32]);

impl Claim {
    /// Reads it from the headers.
    ///
    /// # Errors
    /// When the header is not there exactly once, or is malformed.
    pub fn of(headers: &HeaderMap) -> Result<Self, Untrusted> {
        let mut given = headers.get_all(HEADER).iter();
        let signature = given.next().ok_or(Untrusted::Missing)?;
        if given.next().is_some() {
            return Err(Untrusted::Malformed);
        }
        let digits = signature
            .as_bytes()
            .strip_prefix(b"sha256=")
            .ok_or(Untrusted::Malformed)?;
        let mut tag = [0; 32];
        hex::decode_to_slice(digits, &mut tag).map_err(|_| Untrusted::Malformed)?;
        Ok(Self(tag))
    }
}

/// Checks the signature of one body that comes in pieces.
#[derive(Debug)]
pub struct Verifier {
    /// None where no secret is configured (`WEBHOOK_INSECURE`): every body is believed.
    claim: Option<Claim>,
    /// One HMAC in progress for each secret that is accepted.
    sums: Vec<(hmac::Key, hmac::Context)>,
}

impl Verifier {
    /// Begins, with no byte of the body yet.
    ///
    /// # Errors
    /// When secrets are configured and the header is missing or malformed.
    pub fn new(secrets: &[Door], headers: &HeaderMap) -> Result<Self, Untrusted> {
        if secrets.is_empty() {
            return Ok(Self {
                claim: None,
                sums: Vec::new(),
            });
        }
        let claim = Claim::of(headers)?;
        let keys = keys(secrets).ok_or(Untrusted::NoSecret)?;
        let begin = |key: hmac::Key| {
            let context = hmac::Context::with_key(&key);
            (key, context)
        };
        Ok(Self {
            claim: Some(claim),
            sums: keys.into_iter().map(begin).collect(),
        })
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        for (_, context) in &mut self.sums {
            context.update(piece);
        }
    }

    /// Decides, when the body has come whole.
    ///
    /// # Errors
    /// When it is not signed by any of the secrets.
    pub fn verdict(self) -> Result<(), Untrusted> {
        let Some(Claim(claimed)) = self.claim else {
            return Ok(());
        };
        // Ring compares in constant time, but only a tag with a message. Equal tags have equal tags of their own.
        let fits = |(key, context): (hmac::Key, hmac::Context)| {
            let computed = context.sign();
            hmac::verify(&key, computed.as_ref(), hmac::sign(&key, &claimed).as_ref()).is_ok()
        };
        if self.sums.into_iter().any(fits) {
            Ok(())
        } else {
            Err(Untrusted::Wrong)
        }
    }
}

/// The keys that are accepted now: of the current secret, and of the previous one where that is still there. None
/// without the current one.
fn keys(secrets: &[Door]) -> Option<Vec<hmac::Key>> {
    let key = |secret: SecretString| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let (current, previous) = secrets.split_first()?;
    let current = current.secret()?;
    Some(
        std::iter::once(current)
            .chain(previous.iter().filter_map(Door::secret))
            .map(key)
            .collect(),
    )
}

/// Checks the signature of a body that is there whole.
///
/// # Errors
/// When it is not signed by any of the secrets.
pub fn verify(secrets: &[Door], headers: &HeaderMap, body: &[u8]) -> Result<(), Untrusted> {
    let mut verifier = Verifier::new(secrets, headers)?;
    verifier.update(body);
    verifier.verdict()
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
        let secrets: Vec<_> = secrets.iter().map(|secret| Door::new(*secret)).collect();
        let mut headers = HeaderMap::new();
        for signature in signatures {
            headers.append(
                HeaderName::from_static(HEADER),
                HeaderValue::from_bytes(signature).expect("a header"),
            );
        }
        verify(&secrets, &headers, body)
    }

    #[test]
    fn githubs_own_example_is_believed() {
        assert_eq!(check(&[SECRET], &[SIGNATURE.as_bytes()], BODY), Ok(()));
        assert_eq!(
            check(&["new", SECRET], &[SIGNATURE.as_bytes()], BODY),
            Ok(()),
            "the previous secret"
        );
    }

    #[test]
    fn nothing_else_is() {
        let other = SIGNATURE.replace('7', "8");
        assert_eq!(check(&[SECRET], &[], BODY), Err(Untrusted::Missing));
        assert_eq!(check(&[SECRET], &[other.as_bytes()], BODY), Err(Untrusted::Wrong));
        assert_eq!(
            check(&[SECRET], &[SIGNATURE.as_bytes()], b"Hello, World?"),
            Err(Untrusted::Wrong)
        );
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
            assert_eq!(
                check(&[SECRET], &[signature], BODY),
                Err(Untrusted::Malformed),
                "{signature:?}"
            );
        }
        assert_eq!(
            check(&[SECRET], &[SIGNATURE.as_bytes(), SIGNATURE.as_bytes()], BODY),
            Err(Untrusted::Malformed),
            "twice"
        );
    }

    #[test]
    fn a_body_in_pieces_is_the_same_body() {
        let secrets = [Door::new("new"), Door::new(SECRET)];
        let headers = HeaderMap::from_iter([(HeaderName::from_static(HEADER), HeaderValue::from_static(SIGNATURE))]);
        for cut in 0..=BODY.len() {
            let mut verifier = Verifier::new(&secrets, &headers).expect("well formed");
            verifier.update(&BODY[..cut]);
            verifier.update(&BODY[cut..]);
            assert_eq!(verifier.verdict(), Ok(()), "{cut}");
        }
        assert_eq!(
            Verifier::new(&secrets, &headers).expect("well formed").verdict(),
            Err(Untrusted::Wrong),
            "nothing came"
        );
    }

    #[test]
    fn without_a_secret_everything_is_believed() {
        assert_eq!(check(&[], &[], BODY), Ok(()));
    }
}
