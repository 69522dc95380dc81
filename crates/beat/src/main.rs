//! `jit-beat`: emits the ticks that make workers dispatch, clean up and reconcile.
//!
//! Several replicas may run: each tick is one script in Redis that lets one of them speak, so there is no leader.
//! Without any, the system still works, event by event; ticks are the safety net.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use jit_core::{
    config::{ConfigError, LogArgs, LogFormat, Problems},
    store::{self, RedisArgs, RedisSettings},
    stream,
};
use jit_runtime::{OnPanic, probe};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Emits the ticks that make workers dispatch, clean up and reconcile.
#[derive(Debug, Parser)]
#[command(name = "jit-beat", version)]
struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Admission, and the work whose time has come
    #[arg(long, env, default_value = "5s")]
    dispatch_interval: String,
    /// What dead workers held
    #[arg(long, env, default_value = "60s")]
    cleanup_interval: String,
    /// The ledger against the runners that are really there
    #[arg(long, env, default_value = "300s")]
    sync_interval: String,
    /// What never came: lost webhooks, lost data, stray registrations
    #[arg(long, env, default_value = "60s")]
    recover_interval: String,
    /// Address to serve probes and metrics on
    #[arg(long, env, default_value = "0.0.0.0")]
    listen_address: String,
    /// Port to serve probes and metrics on; 0 takes a free one
    #[arg(long, env, default_value = "9090")]
    port: String,
}

struct Settings {
    redis: RedisSettings,
    ticks: [(&'static str, Duration); 4],
    listen: SocketAddr,
    log_level: String,
    log_format: LogFormat,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Args {
    fn resolve(self) -> Result<Settings, ConfigError> {
        let mut problems = Problems::default();
        let listen = problems.listen(&self.listen_address, &self.port);
        let settings = Settings {
            redis: self.redis.resolve(&mut problems),
            ticks: [
                (
                    "dispatch",
                    problems.duration("DISPATCH_INTERVAL", &self.dispatch_interval),
                ),
                ("cleanup", problems.duration("CLEANUP_INTERVAL", &self.cleanup_interval)),
                ("sync", problems.duration("SYNC_INTERVAL", &self.sync_interval)),
                ("recover", problems.duration("RECOVER_INTERVAL", &self.recover_interval)),
            ],
            listen,
            log_format: self.log.format(&mut problems),
            log_level: self.log.log_level,
        };
        problems.finish(settings)
    }
}

fn main() -> ExitCode {
    jit_runtime::main("jit-beat", Args::resolve, run)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let grace = Duration::from_secs(5);
    let stop = jit_runtime::start(&settings.log_level, settings.log_format, grace, OnPanic::EndProcess)?;
    let (emitted, mut registry) = (Family::<Kind, Counter>::default(), Registry::default());
    registry.register("ticks_emitted", "Ticks that this replica emitted", emitted.clone());
    let readiness = probe::Readiness::default();
    let probes = tokio::spawn(probe::serve(
        settings.listen,
        readiness.clone(),
        Arc::new(registry),
        Vec::new(),
        stop.clone(),
    ));
    tracing::info!(redis = settings.redis.address(), "beat started");
    let beats = settings.ticks.map(|(kind, interval)| {
        tokio::spawn(beat(
            settings.redis.clone(),
            kind,
            interval,
            emitted.clone(),
            readiness.clone(),
            stop.clone(),
        ))
    });
    for task in beats {
        task.await??;
    }
    probes.await?
}

/// Emits one kind of tick until `stop`. While Redis is away there are no ticks, and none is made up for.
async fn beat(
    redis: RedisSettings,
    kind: &'static str,
    interval: Duration,
    emitted: Family<Kind, Counter>,
    readiness: probe::Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut connection = store::publisher(&redis);
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! { () = stop.cancelled() => return Ok(()), _ = timer.tick() => {} }
        let result = stream::emit_tick(&mut connection, kind, interval).await;
        readiness.set(result.is_ok());
        match result {
            Ok(true) => {
                emitted.get_or_create(&Kind { kind }).inc();
                tracing::debug!(tick = kind, "tick");
            }
            Ok(false) => tracing::debug!(tick = kind, "another replica has emitted this tick"),
            Err(error) => {
                tracing::warn!(
                    %error,
                    tick = kind,
                    redis = redis.address(),
                    "no tick: Redis did not take it; the next one is tried"
                )
            }
        }
    }
}
