//! The receiver: GitHub's `workflow_job` webhooks in, entries of `jit:events` out, and the HTTP API of status, metrics
//! and operators.
//!
//! Thin on purpose. A webhook costs one round trip to Redis and no call to anybody else, and is answered 200 only after
//! Redis has it; what it means is the ledger's business. Everything that comes in is bounded: connections, headers,
//! bodies and their memory, time, names, texts. Nothing that comes in can make the receiver fail: what it cannot take
//! it refuses, with a status and a sentence.
//!
//! The rooms, in the order of a request: [`server`] accepts and [`connections`] decides who gives way, [`routes`]
//! directs; [`webhook`] goes through [`body`], [`turns`], [`signature`], [`payload`], [`job`] and [`publish`];
//! [`status`], [`metrics`] and [`admin`] answer people.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use jit_core::{
    ledger::conditions,
    store::check::{Checks, Refused},
};
use jit_runtime::OnPanic;
use tokio::net::TcpListener;

pub mod admin;
pub mod app;
pub mod body;
pub mod config;
pub mod connections;
pub mod errors;
pub mod job;
pub mod limits_file;
pub mod messages;
pub mod metrics;
pub mod names;
pub mod payload;
pub mod publish;
pub mod reads;
pub mod routes;
pub mod server;
pub mod signature;
pub mod status;
pub mod turns;
pub mod webhook;

/// A Redis that could not be looked at is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs the receiver until SIGTERM or SIGINT. It starts without Redis, and says so in `/health` and `/ready`.
///
/// # Errors
/// When the port is taken, or Redis is not one to start with.
pub async fn run(settings: config::Settings) -> anyhow::Result<()> {
    let stop = jit_runtime::start(
        &settings.log_level,
        settings.log_format,
        settings.drain_grace,
        OnPanic::EndTask,
    )?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("PORT: cannot listen on {}", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, redis = settings.redis.address(), "listening");
    let probes = match settings.probes {
        None => None,
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("PROBE_PORT: cannot listen on {address}"))?,
        ),
    };
    if let Some(probes) = &probes {
        tracing::info!(address = %probes.local_addr()?, "listening for probes");
    }
    if settings.webhook_secrets.is_empty() {
        tracing::warn!("WEBHOOK_INSECURE=true: unsigned webhooks are taken from whoever reaches the port");
    }
    match &settings.admin {
        config::AdminAccess::Open => {
            tracing::warn!("ADMIN_INSECURE=true: the admin API is open to whoever reaches the port")
        }
        config::AdminAccess::Disabled => tracing::info!("ADMIN_API_KEY is not set: the admin API is off"),
        config::AdminAccess::Key(_) => {}
    }
    let app = Arc::new(app::App::new(settings, stop)?);
    let loading = tokio::spawn(limits_file::load_at_start(app.clone()));
    let around = app.clone();
    tokio::spawn(async move {
        conditions::watch(
            &around.ledger,
            &format!("receiver {}", jit_runtime::identity()),
            &around.stop,
        )
        .await
    });
    let probes = async {
        match probes {
            Some(probes) => server::serve_probes(probes, app.clone()).await,
            None => std::future::pending().await,
        }
    };
    let refused = tokio::select! {
        refused = check_redis(&app) => Some(refused),
        () = server::serve(listener, app.clone()) => None,
        never = probes => match never {},
    };
    loading.abort();
    refused.map_or(Ok(()), |refused| Err(refused.into()))
}

/// Ends only when the first look at Redis, which may come late, shows one that no process should start with.
async fn check_redis(app: &app::App) -> Refused {
    let mut checks = Checks::new(
        app.ledger.pool(),
        &app.settings.redis,
        app.metrics.redis_findings.clone(),
    );
    loop {
        match checks.first().await {
            Ok(Ok(())) => break checks.watch(&app.stop).await,
            Ok(Err(refused)) => return refused,
            Err(error) => tracing::debug!(%error, "Redis's settings could not be looked at"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    std::future::pending().await
}
