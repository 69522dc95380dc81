//! Speaking as a GitHub App: against a server that checks what it gets, with clocks of the test's.
#![allow(clippy::unwrap_used)]

use app::server::Github;
use common::{Mock, Request};
use jiff::Timestamp;
use jit_github::{AppLogin, Client, ClientOptions, Deletion, Error, Login, Scope};
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;

mod app {
    mod owners;
    pub(crate) mod server;
    mod tokens;
}
mod common;

const KEY: &str = include_str!("common/app-pkcs1.pem");

const APP: &str = "4711";

/// 2026-11-22 00:00:00 UTC
const NOON: i64 = 1_795_305_600;

/// A client whose clock is `off` seconds ahead of GitHub's.
fn client(github: &Arc<Github>, mock: &Mock, off: i64) -> Client {
    client_with(github, mock, off, KEY)
}

fn client_with(github: &Arc<Github>, mock: &Mock, off: i64, key: &'static str) -> Client {
    client_of(github, mock, off, move || key)
}

fn client_of(
    github: &Arc<Github>,
    mock: &Mock,
    off: i64,
    key: impl Fn() -> &'static str + Send + Sync + 'static,
) -> Client {
    let login = AppLogin {
        id: APP.into(),
        private_key: Arc::new(move || SecretString::from(key())),
    };
    let mut options = ClientOptions::with(mock.url.clone(), Login::App(login));
    options.timeout = Duration::from_secs(10);
    let github = github.clone();
    options.clock = Arc::new(move || Timestamp::from_second(github.now() + off).unwrap());
    Client::new(options).unwrap()
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

async fn call(client: &Client, at: &str) -> Result<Deletion, Error> {
    client.delete_runner(&scope(at), 1).await
}

/// The token that each call about runners carried.
fn carried(mock: &Mock) -> Vec<String> {
    let of_runners = |request: &Request| {
        request
            .path
            .ends_with("/runners/1")
            .then(|| request.header("authorization").unwrap()["Bearer ".len()..].to_owned())
    };
    mock.seen().iter().filter_map(of_runners).collect()
}
