//! An answer of GitHub's: its content, or the [`Error`] that it is.

use secrecy::SecretString;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::rate::{Limit, RateHeaders};
use crate::words::{clean, said};

/// An answer of any status, read.
pub(crate) struct Answer {
    /// The call and its target.
    pub(crate) what: String,
    /// Whether the call makes a runner: then 409 means that the name is taken.
    pub(crate) makes_runner: bool,
    /// Whether a success is a secret.
    pub(crate) secret: bool,
    /// What was sent with the request, removed should the answer repeat it.
    pub(crate) token: SecretString,
    pub(crate) status: u16,
    pub(crate) rate: RateHeaders,
    /// Address of the next page, where its `Link` header names one.
    pub(crate) next: Option<String>,
    /// GitHub's mark of this answer.
    pub(crate) etag: Option<String>,
    /// All of a success; of a refusal, what could be read.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Itself, or the error that it is.
    pub(crate) fn success(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            Ok(self)
        } else {
            Err(self.into_error())
        }
    }

    /// The content of a success.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let answer = self.success()?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            // serde_json quotes what it does not like, which must not be a piece of a JIT config.
            let why = if answer.secret {
                format!(
                    "{:?} error at line {} column {}",
                    error.classify(),
                    error.line(),
                    error.column()
                )
            } else {
                clean(&error.to_string(), &answer.token)
            };
            Error::Unreadable {
                what: answer.what,
                status: answer.status,
                why,
            }
        })
    }

    /// GitHub's message and documentation address.
    fn said(&self) -> String {
        clean(&said(&self.body), &self.token)
    }

    /// The call, its status and GitHub's words, for people.
    pub(crate) fn words(&self) -> String {
        format!("{}: GitHub answered {}: {}", self.what, self.status, self.said())
    }

    /// Which limit refused it, if any did.
    pub(crate) fn limit(&self) -> Option<Limit> {
        self.rate.limit(self.status, &self.said())
    }

    /// After several wrong logins GitHub refuses right ones too, for a while, with this text.
    pub(crate) fn is_locked_out(&self) -> bool {
        self.status == 403
            && self
                .said()
                .to_ascii_lowercase()
                .contains("maximum number of login attempts")
    }

    fn into_error(self) -> Error {
        let (said, limit, locked_out) = (self.said(), self.limit(), self.is_locked_out());
        let Self {
            what,
            makes_runner,
            status,
            rate,
            ..
        } = self;
        match limit {
            Some(Limit::Registrations) => {
                return Error::RegistrationLimit {
                    what,
                    said,
                    retry_after: rate.wait(),
                };
            }
            Some(Limit::Primary) => {
                return Error::PrimaryLimit {
                    what,
                    said,
                    retry_after: rate.wait(),
                };
            }
            Some(Limit::Secondary) => {
                return Error::SecondaryLimit {
                    what,
                    said,
                    retry_after: rate.wait(),
                };
            }
            None => {}
        }
        match status {
            400 | 422 => Error::Invalid { what, said },
            401 => Error::Unauthorized { what, said },
            403 if locked_out => Error::Unauthorized { what, said },
            403 => Error::Forbidden { what, said },
            404 => Error::NotFound { what, said },
            409 if makes_runner => Error::NameTaken { what, said },
            407 | 408 | 500.. => Error::Server {
                what,
                status,
                said,
                retry_after: rate.retry_after,
            },
            _ => Error::Refused { what, status, said },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, makes_runner: bool, body: &str) -> Error {
        let answer = Answer {
            what: "W".into(),
            makes_runner,
            secret: makes_runner,
            token: "ghp_secret".into(),
            status,
            rate: RateHeaders::default(),
            next: None,
            etag: None,
            body: body.into(),
        };
        answer.json::<u64>().unwrap_err()
    }

    #[test]
    fn a_success_that_cannot_be_read_is_not_quoted_where_it_is_secret() {
        let Error::Unreadable { why, .. } = error(201, true, r#""c2VjcmV0""#) else {
            panic!()
        };
        assert_eq!(why, "Data error at line 1 column 10");
        let Error::Unreadable { why, .. } = error(200, false, r#""ghp_secret""#) else {
            panic!()
        };
        assert_eq!(
            why,
            r#"invalid type: string "[token]", expected u64 at line 1 column 12"#
        );
    }

    #[test]
    fn each_status_has_its_variant() {
        let said = String::from("m");
        let what = String::from("W");
        for (status, expected) in [
            (
                400,
                Error::Invalid {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                401,
                Error::Unauthorized {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                403,
                Error::Forbidden {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                404,
                Error::NotFound {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                408,
                Error::Server {
                    what: what.clone(),
                    status: 408,
                    said: said.clone(),
                    retry_after: None,
                },
            ),
            (
                409,
                Error::NameTaken {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                410,
                Error::Refused {
                    what: what.clone(),
                    status: 410,
                    said: said.clone(),
                },
            ),
            (
                422,
                Error::Invalid {
                    what: what.clone(),
                    said: said.clone(),
                },
            ),
            (
                503,
                Error::Server {
                    what: what.clone(),
                    status: 503,
                    said: said.clone(),
                    retry_after: None,
                },
            ),
        ] {
            assert_eq!(error(status, true, r#"{"message":"m"}"#), expected);
        }
        assert_eq!(
            error(409, false, r#"{"message":"m"}"#),
            Error::Refused {
                what,
                status: 409,
                said
            }
        );
        assert!(matches!(
            error(
                403,
                true,
                r#"{"message":"Maximum number of login attempts exceeded. Please try again later."}"#
            ),
            Error::Unauthorized { .. }
        ));
    }
}
