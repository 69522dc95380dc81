//! The token that a GitHub App signs for itself: RS256 over a header and three claims, on ring.
//!
//! GitHub takes one that was issued in the past and ends within ten minutes, by its own clock. So the moment is
//! GitHub's (see `clock`), `iat` lies a minute back, and `exp` nine minutes ahead.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};

/// `iat` lies so far back, in seconds, "to protect against clock drift".
const BACK: i64 = 60;
/// From `iat` to `exp`, in seconds: GitHub's ten minutes.
const LIFE: i64 = 600;
/// A token is used for so long, in seconds, and then made anew: well within what is left of its life.
pub(crate) const USED_FOR: i64 = 300;

/// Why a private key cannot sign. Holds nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of a private key.
    #[error("is no private key in PEM (BEGIN RSA PRIVATE KEY, or BEGIN PRIVATE KEY)")]
    NoPem,
    /// A key of another kind, or a damaged one.
    #[error("is no RSA key of 2048 bits or more, as GitHub makes them for an App")]
    NoRsa,
}

/// The key of a PEM text: PKCS#1, as GitHub gives it out, or PKCS#8.
///
/// # Errors
/// When it is none that can sign.
pub fn check_private_key(pem: &SecretString) -> Result<(), KeyError> {
    key(pem).map(|_| ())
}

fn key(pem: &SecretString) -> Result<KeyPair, KeyError> {
    // In an environment variable its lines are often written as one.
    let lines = SecretString::from(pem.expose_secret().replace("\\n", "\n"));
    match PrivateKeyDer::from_pem_slice(lines.expose_secret().as_bytes()).map_err(|_| KeyError::NoPem)? {
        PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(KeyError::NoRsa),
    }
    .map_err(|_| KeyError::NoRsa)
}

/// A token for the App of this id (or client id), signed at `now` by GitHub's clock.
pub(crate) fn sign(app_id: &str, pem: &SecretString, now: Timestamp) -> Result<SecretString, KeyError> {
    let key = key(pem)?;
    let issued = now.as_second() - BACK;
    let claims = serde_json::json!({ "iat": issued, "exp": issued + LIFE, "iss": app_id });
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut signature = vec![0; key.public().modulus_len()];
    // Cannot fail: the signature is as long as the key's modulus, and the system has randomness.
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| KeyError::NoRsa)?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    const PKCS1: &str = include_str!("../tests/common/app-pkcs1.pem");
    const PKCS8: &str = include_str!("../tests/common/app-pkcs8.pem");

    fn claims(token: &SecretString, pem: &str) -> Value {
        let (text, signature) = token.expose_secret().rsplit_once('.').unwrap();
        let public = key(&pem.into()).unwrap().public().as_ref().to_vec();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        let (header, claims) = text.split_once('.').unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()["alg"],
            "RS256"
        );
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }

    #[test]
    fn both_forms_of_a_key_sign_and_others_are_refused() {
        for pem in [PKCS1, PKCS8] {
            let token = sign("4711", &pem.into(), Timestamp::from_second(1_795_305_600).unwrap()).unwrap();
            assert_eq!(
                claims(&token, pem),
                serde_json::json!({ "iat": 1_795_305_540, "exp": 1_795_306_140, "iss": "4711" })
            );
        }
        assert_eq!(check_private_key(&PKCS8.trim().into()), Ok(()));
        assert_eq!(check_private_key(&PKCS8.trim().replace('\n', "\\n").into()), Ok(()));
        assert_eq!(check_private_key(&"".into()), Err(KeyError::NoPem));
        assert_eq!(
            check_private_key(&"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into()),
            Err(KeyError::NoPem)
        );
        assert_eq!(
            check_private_key(&"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into()),
            Err(KeyError::NoRsa)
        );
        assert_eq!(
            check_private_key(&"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n".into()),
            Err(KeyError::NoRsa)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        /// Whenever and for whatever id: issued in the past, at most ten minutes ahead, and readable again.
        #[test]
        fn claims_are_what_github_takes(app_id in ".{1,30}", second in 0i64..4_000_000_000) {
            let token = sign(&app_id, &PKCS8.into(), Timestamp::from_second(second).unwrap()).unwrap();
            let claims = claims(&token, PKCS8);
            let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
            prop_assert!(iat < second && exp > second + USED_FOR && exp - iat <= 600 && exp <= second + 600);
            prop_assert_eq!(claims["iss"].as_str(), Some(app_id.as_str()));
        }
    }
}
