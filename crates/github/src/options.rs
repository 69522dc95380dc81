//! What a client is made of, and what can be wrong with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use crate::clock::Clock;
use crate::gate::Gate;
use crate::login::{Login, Token};
use crate::rate::Rate;

/// Told of every answer: the call's name (`generate-jitconfig`, `runner-groups`, `runners`, `delete-runner`, `job`) and
/// the HTTP status, or 0 where none came. A call of several pages, and one that is redirected, speaks several times.
pub type OnResponse = Arc<dyn Fn(&'static str, u16) + Send + Sync>;

/// Told of what GitHub says of the hour's calls, with every answer that says it.
pub type OnRate = Arc<dyn Fn(&Rate) + Send + Sync>;

/// How to reach GitHub, and as whom. Start from [`ClientOptions::new`].
#[derive(Clone)]
pub struct ClientOptions {
    /// Root of the REST API, as [`api_url_for`](crate::api_url_for) gives it. `http` is for simulators and tests.
    pub api_url: Url,
    /// `User-Agent`, which GitHub requires. Default `jit-runner-manager/VERSION`.
    pub user_agent: String,
    /// As whom.
    pub login: Login,
    /// Certificates to trust besides the system's, PEM: of authorities, as a company's own, or of the very server.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// Whether runners join only groups that GitHub says do not allow public repositories. Default `false`.
    pub no_public_groups: bool,
    /// For each request, from its start to the end of its answer. Default 20 s; `generate_jit_config` is given its own.
    pub timeout: Duration,
    /// For connecting, proxy and TLS included. Default 5 s: shorter than `timeout`, so that a server that is not there
    /// is told apart from one that may have done the work.
    pub connect_timeout: Duration,
    /// A hook for metrics.
    pub on_response: Option<OnResponse>,
    /// A hook for whoever keeps GitHub's limits.
    pub on_rate: Option<OnRate>,
    /// Asked before each request; without one, each is sent at once.
    pub gate: Option<Arc<dyn Gate>>,
    /// The local clock; tests have their own.
    pub clock: Clock,
}

impl ClientOptions {
    /// Options with their defaults, for a token.
    #[must_use]
    pub fn new(api_url: Url, token: Token) -> Self {
        Self::with(api_url, Login::Token(token))
    }

    /// Options with their defaults.
    #[must_use]
    pub fn with(api_url: Url, login: Login) -> Self {
        Self {
            api_url,
            user_agent: concat!("jit-runner-manager/", env!("CARGO_PKG_VERSION")).into(),
            login,
            extra_ca_pem: None,
            no_public_groups: false,
            timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            on_response: None,
            on_rate: None,
            gate: None,
            clock: Arc::new(Timestamp::now),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the origin: an address that is refused may hold a password.
        f.debug_struct("ClientOptions")
            .field("api_url", &self.api_url.origin().ascii_serialization())
            .field("user_agent", &self.user_agent)
            .field(
                "app",
                &if let Login::App(app) = &self.login {
                    Some(&app.id)
                } else {
                    None
                },
            )
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
