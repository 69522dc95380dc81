//! A simulated GitHub Enterprise Server: REST, webhooks and runners, in memory.
//!
//! [`Server`] is the state and knows no network; this file puts the network around it. The system under test sees what
//! it would see of a real one, under `/api/v3`; tests steer it under `/_control`, simulated runners speak to
//! `/_runner`.

pub mod answer;
pub mod api;
pub mod app;
mod assign;
pub mod control;
pub mod faults;
pub mod hooks;
pub mod jobs;
mod limits;
pub mod log;
pub mod model;
pub mod payload;
mod registry;
mod rename;
mod rest;
pub mod rights;
mod runners;
pub mod sessions;
pub mod settings;
pub mod state;
pub mod summary;
#[cfg(test)]
mod tests;
mod webhook;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

pub use self::settings::Settings;
pub use self::state::Server;
pub use self::summary::{Percentiles, Summary};
use crate::clock::Clock;
use crate::serve::{self, Tasks};

/// How often time alone is given a chance to change something.
const TICK: Duration = Duration::from_millis(100);

/// Where webhooks go.
#[derive(Clone, Debug)]
pub struct Hook {
    /// URL of the receiver; until there is one, webhooks come to nothing.
    pub url: Option<String>,
    /// What they are signed with.
    pub secret: SecretString,
}

/// How to start a simulated GitHub.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes any.
    pub listen: SocketAddr,
    /// URL by which others reach it; by default made of the address.
    pub public_url: Option<String>,
    /// Where webhooks go; none are sent without it.
    pub hook: Option<Hook>,
    /// The token that REST callers must present.
    pub token: SecretString,
    /// Everything else.
    pub settings: Settings,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Options {
    /// On any port of the loopback address, with the default settings.
    pub fn local(token: &str, hook: Option<Hook>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            hook,
            token: token.to_owned().into(),
            settings: Settings::default(),
            clock: Clock::system(),
        }
    }
}

/// The state with what the network around it needs.
pub(crate) struct App {
    server: Mutex<Server>,
    clock: Clock,
    pub(crate) site: payload::Site,
    pub(crate) token: SecretString,
    pub(crate) webhooks: webhook::Outgoing,
    pub(crate) poll: Duration,
}

impl App {
    /// Runs one pure step on the state, and passes on the webhooks that it caused.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut Server, model::Ms) -> T) -> T {
        let now = self.clock.now();
        let (result, outbox) = {
            // A panic in a step is a bug of the simulator; the other requests may as well see what it left.
            let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            let result = step(&mut server, now);
            (result, server.take_outbox())
        };
        self.webhooks.send(outbox);
        result
    }
}

impl App {
    /// Points the webhooks to another URL, and the hooks that list it.
    pub(crate) fn set_webhook_url(&self, url: &str) {
        self.webhooks.set_url(url);
        self.with(|server, _| server.hooks.url = Some(url.into()));
    }
}

/// A running simulated GitHub. It ends when this is dropped or [`Running::stop`] is called.
pub struct Running {
    /// Base URL: what `GHES_URL` is to be.
    pub url: String,
    /// The address it listens on.
    pub address: SocketAddr,
    app: Arc<App>,
    tasks: Tasks,
}

impl Running {
    /// Looks at the state, or changes it, as a step of its own.
    pub fn with<T>(&self, step: impl FnOnce(&mut Server, model::Ms) -> T) -> T {
        self.app.with(step)
    }

    /// Sums up what happened so far.
    pub fn summary(&self) -> Summary {
        self.with(|server, _| server.summary())
    }

    /// Points the webhooks to another URL.
    pub fn set_webhook_url(&self, url: &str) {
        self.app.set_webhook_url(url);
    }

    /// Ends it, and waits until it has ended.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// Starts a simulated GitHub.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn start(options: Options) -> anyhow::Result<Running> {
    crate::install_tls();
    let (listener, address) = serve::listen(options.listen).await?;
    let url = options
        .public_url
        .unwrap_or_else(|| format!("http://{address}"))
        .trim_end_matches('/')
        .to_owned();
    let hook_url = options.hook.as_ref().and_then(|hook| hook.url.clone());
    let (webhooks, queue) = webhook::Outgoing::new(options.hook);
    let mut server = Server::new(options.settings.clone());
    if let Some((id, path)) = options
        .settings
        .app_id
        .as_deref()
        .zip(options.settings.app_public_key_file.as_deref())
    {
        let pem = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        server.set_app(
            id,
            app::public_key(&pem).with_context(|| format!("read {}", path.display()))?,
        );
    }
    let app = Arc::new(App {
        site: payload::Site::new(&url, &options.settings),
        poll: Duration::from_millis(options.settings.poll_ms),
        token: options.token,
        webhooks,
        clock: options.clock,
        server: Mutex::new(server),
    });
    app.with(|server, _| server.hooks.url = hook_url.map(Into::into));
    let router = Router::new()
        .nest("/api/v3", rest::routes())
        .nest("/_runner", runners::routes())
        .nest("/_control", control::routes());
    let router = router.fallback(rest::unknown).with_state(app.clone());
    let http = webhook::client(&options.settings)?;
    let mut tasks = Tasks::default();
    tasks.spawn(|shutdown| serve::serve(listener, router, shutdown));
    tasks.spawn(|shutdown| webhook::run(app.clone(), queue, http, options.settings, shutdown));
    tasks.spawn(|shutdown| ticks(app.clone(), shutdown));
    Ok(Running {
        url,
        address,
        app,
        tasks,
    })
}

async fn ticks(app: Arc<App>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        app.with(Server::tick);
    }
}
