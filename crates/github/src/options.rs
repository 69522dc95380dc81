//! What a client is made of, and what can be wrong with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// Gives the token for the next call; asked once a call, so a token file that was read again takes effect at once.
pub type Token = Arc<dyn Fn() -> SecretString + Send + Sync>;

/// Told of every answer: the call's name (`generate-jitconfig`, `runner-groups`, `runners`, `delete-runner`, `job`) and the
/// HTTP status, or 0 where none came. A call of several pages, and one that is redirected, speaks several times.
pub type OnResponse = Arc<dyn Fn(&'static str, u16) + Send + Sync>;

/// How to reach GitHub, and as whom. Start from [`ClientOptions::new`].
#[derive(Clone)]
pub struct ClientOptions {
    /// Root of the REST API, as [`api_url_for`](crate::api_url_for) gives it. `http` is for simulators and tests.
    pub api_url: Url,
    /// `User-Agent`, which GitHub requires. Default `jit-runner-manager/VERSION`.
    pub user_agent: String,
    /// Where the token comes from.
    pub token: Token,
    /// Certificates to trust besides the system's, PEM: a GHES often has a company's own.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// For each request, from its start to the end of its answer. Default 20 s; `generate_jit_config` is given its own.
    pub timeout: Duration,
    /// For connecting, proxy and TLS included. Default 5 s: shorter than `timeout`, so that a server that is not there is
    /// told apart from one that may have done the work.
    pub connect_timeout: Duration,
    /// A hook for metrics.
    pub on_response: Option<OnResponse>,
}

impl ClientOptions {
    /// Options with their defaults.
    #[must_use]
    pub fn new(api_url: Url, token: Token) -> Self {
        Self {
            api_url,
            user_agent: concat!("jit-runner-manager/", env!("CARGO_PKG_VERSION")).into(),
            token,
            extra_ca_pem: None,
            timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            on_response: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the origin: an address that is refused may hold a password.
        f.debug_struct("ClientOptions")
            .field("api_url", &self.api_url.origin().ascii_serialization())
            .field("user_agent", &self.user_agent)
            .field("extra_ca_pem", &self.extra_ca_pem.is_some())
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Why no client can be made of its options. All of it is for the operator to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The API's address cannot be one.
    #[error("the URL of GitHub's API {0}")]
    ApiUrl(&'static str),
    /// `extra_ca_pem` holds no certificate, or one that cannot be read.
    #[error("the extra CA bundle {0}")]
    CaBundle(String),
    /// The HTTP client cannot be made; without `ca-certificates` in the image and without a bundle, for one.
    #[error("no HTTP client: {0}")]
    Http(String),
}
