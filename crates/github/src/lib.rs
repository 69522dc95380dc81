//! A small typed client of GitHub's REST API: the calls that a manager of just-in-time runners makes, and no others.
//!
//! A [`Client`] knows one server and one credential (a token, or a GitHub App), sends each call once, and says what
//! came of it. It does not retry and does not wait: the ledger decides what is tried again, and when. For that,
//! [`Error`] is a closed list whose every variant answers three questions:
//!
//! * [`backs_off`](Error::backs_off): does it concern the class, the organization, the credential or the whole server?
//! * [`retry_after`](Error::retry_after): how long does GitHub want to be left alone?
//! * [`uncertain`](Error::uncertain): may GitHub have done it all the same? A registration whose answer was lost is
//!   looked up by name ([`Client::find_runner`]) and deleted.
//!
//! Once, with one exception: a call as an App that GitHub answers with 401 has done nothing, and is sent again with a
//! new token.
//!
//! Tokens, private keys and JIT configs are [`SecretString`](secrecy::SecretString)s, sent to the API's origin only,
//! and in no error, log or `Debug`.
//!
//! Absence is told apart from silence: GitHub answers 404 for what a credential may not see, and a list that changes
//! while it is read may pass an item over. [`Client::find_runner`] says whether it saw all of the list,
//! [`Client::may_read_runs`] whether a repository's jobs may be read at all.
//!
//! Several credentials, each with the owners that it serves, are [`Credentials`].
//!
//! Where to look: `credentials` whose client it is, `login` as whom it calls, `scope` names and URLs, `runners`, `jobs`
//! and `groups` the calls, `pages` lists, `deliveries`, `runs` and `repositories` what finds jobs whose webhook never
//! came, `client` and `transport` one request,
//! `tls` and `tls_words` the server's certificate, `gate` whether it may be sent, `answer`, `rate`, `words` and `error`
//! what a refusal means, `types` what is sent and received. With the feature `openapi-validation`, `openapi` holds
//! requests and answers against GitHub's own description; the tests of this crate and of the simulator use it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod app;
mod client;
mod clock;
mod credentials;
mod deliveries;
mod error;
mod gate;
mod groups;
mod installations;
mod jobs;
mod jwt;
mod known_groups;
mod login;
mod options;
mod pages;
mod rate;
mod repositories;
mod runners;
mod runs;
mod scope;
mod tls;
mod tls_words;
mod transport;
mod types;
mod words;

#[cfg(feature = "openapi-validation")]
pub mod openapi;

pub use client::Client;
pub use clock::Clock;
pub use credentials::{Credential, Credentials, EVERYBODY};
pub use deliveries::{Deliveries, Delivery, Hook, HookAddress};
pub use error::{BackOff, Error};
pub use gate::{Answering, Caller, Ending, Gate, NotNow, Outgoing};
pub use jwt::{KeyError, check_private_key};
pub use login::{AppLogin, Login, Token};
pub use options::{BuildError, ClientOptions, OnRate, OnResponse};
pub use pages::{Asked, Listed};
pub use rate::Rate;
pub use repositories::{Organization, Repository};
pub use runs::{Run, RunStatus};
pub use scope::{Scope, ScopeError, api_url_for};
pub use types::{
    Deletion, Installation, InstalledAt, JitRequest, JitRunner, Job, JobStatus, Lookup, Runner, RunnerStatus,
};
