//! The receiver: GitHub's `workflow_job` webhooks in, entries of `jit:events` out, and the HTTP API of status, metrics and operators.
//!
//! Thin on purpose. A webhook costs one round trip to Redis and no call to anybody else, and is answered 200 only after Redis has it; what it means is
//! the ledger's business. Everything that comes in is bounded: connections, headers, bodies and their memory, time, names, texts. Nothing that comes in
//! can make the receiver fail: what it cannot take it refuses, with a status and a sentence.
//!
//! The rooms, in the order of a request: [`server`] accepts, [`routes`] directs; [`webhook`] goes through [`body`], [`signature`], [`payload`], [`job`]
//! and [`publish`]; [`status`], [`metrics`] and [`admin`] answer people.

use std::sync::Arc;

use anyhow::Context;
use jit_core::{process, telemetry};
use tokio::net::TcpListener;

pub mod admin;
pub mod app;
pub mod body;
pub mod config;
pub mod errors;
pub mod job;
pub mod limits_file;
pub mod messages;
pub mod metrics;
pub mod names;
pub mod payload;
pub mod publish;
pub mod routes;
pub mod server;
pub mod signature;
pub mod status;
pub mod webhook;

/// Runs the receiver until SIGTERM or SIGINT. It starts without Redis, and says so in `/health` and `/ready`.
///
/// # Errors
/// When the configuration is wrong, or the port is taken.
pub async fn run(args: config::ReceiverArgs) -> anyhow::Result<()> {
    let settings = args.resolve()?;
    telemetry::start(&settings.log_level, settings.log_format)?;
    let stop = process::stop_token(settings.drain_grace)?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("PORT: cannot listen on {}", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, redis = settings.redis.address(), "listening");
    if settings.webhook_secrets.is_empty() {
        tracing::warn!("WEBHOOK_INSECURE=true: unsigned webhooks are taken from whoever reaches the port");
    }
    match &settings.admin {
        config::AdminAccess::Open => tracing::warn!("ADMIN_INSECURE=true: the admin API is open to whoever reaches the port"),
        config::AdminAccess::Disabled => tracing::info!("ADMIN_API_KEY is not set: the admin API is off"),
        config::AdminAccess::Key(_) => {}
    }
    let app = Arc::new(app::App::new(settings, stop)?);
    let loading = tokio::spawn(limits_file::load_at_start(app.clone()));
    server::serve(listener, app).await;
    loading.abort();
    Ok(())
}
