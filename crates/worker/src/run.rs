//! A worker from start to end.

use std::{sync::Arc, time::Duration};

use jit_backend::{Backend, kubernetes::Kubernetes, process::Process};
use jit_core::{
    ledger::{Ledger, LedgerError},
    operator,
    store::{self, check::Checks},
};
use jit_runtime::{OnPanic, probe};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    calls::Calls,
    config::{BackendSettings, Settings},
    credentials::Keeper,
    loops::Loops,
    metrics::Metrics,
    rates::Rates,
    retry::Pause,
    step::Step,
};

/// Runs a worker until it is told to stop, and drains it.
///
/// # Errors
/// When it cannot start: also when Redis is not one to start with. What is away for a while (Redis, GitHub, Kubernetes)
/// is waited for.
pub async fn worker(settings: Settings) -> anyhow::Result<()> {
    let stop = jit_runtime::start(
        &settings.log_level,
        settings.log_format,
        settings.drain_grace,
        OnPanic::EndProcess,
    )?;
    let (metrics, registry) = Metrics::register();
    let readiness = probe::Readiness::default();
    let probes_stop = CancellationToken::new();
    let (listen, loops) = (settings.listen, metrics.loops.clone());
    let pages: Vec<probe::Page> = vec![("/loops", Arc::new(move || loops.json().to_string()))];
    let probes = tokio::spawn(probe::serve(
        listen,
        readiness.clone(),
        registry,
        pages,
        probes_stop.clone(),
    ));
    tokio::task::yield_now().await;

    let ledger = Ledger::new(store::pool(&settings.redis)?).with_classes(&settings.github);
    let (id, rates) = (jit_runtime::identity(), Rates::default());
    let calls = Calls::new(&id, &ledger, settings.budget, &metrics);
    let (keeper, github) = Keeper::new(&settings, &metrics, &rates, &calls)?;
    let Some(backend) = connect_backend(&settings.backend, settings.backend_timeout, &stop).await? else {
        return Ok(());
    };
    let worker = Arc::new(Worker::new(
        id,
        &settings,
        ledger.at(backend.places(), backend.timeout() * 2),
        github,
        rates,
        backend,
        metrics,
    ));

    let Some(checks) = prepare_redis(&worker, &settings, &stop).await? else {
        return Ok(());
    };
    tell_of_start(&worker, &settings).await;
    readiness.set(true);
    worker.bells.upkeep.notify_one();
    worker.bells.reconcile.notify_one();

    let mut loops = Loops::start(&worker, keeper, checks, &stop);
    loops.taken().await?;
    readiness.set(false);
    loops.finish().await?;
    probes_stop.cancel();
    probes.await??;
    tracing::info!(worker.id = worker.id, "worker ended: nothing is left in hand");
    Ok(())
}

/// Tells the ledger, and the log, that the worker starts.
async fn tell_of_start(worker: &Worker, settings: &Settings) {
    // Known to be alive before it holds anything, or others would take it away.
    if let Err(error) = worker.ledger.heartbeat(&worker.id).await.step("run.known_alive") {
        tracing::warn!(%error, "no heartbeat");
    }
    tracing::info!(
        worker.id = worker.id,
        redis = settings.redis.address(),
        github = %settings.github.server_url,
        concurrency = settings.concurrency,
        "worker started"
    );
}

/// Looks at Redis before anything is written, since it may be another system's, and brings the settings into it. Waits
/// while it is away. `None` when the worker was stopped before.
async fn prepare_redis(
    worker: &Worker,
    settings: &Settings,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Checks>> {
    let (ledger, gauge) = (&worker.ledger, worker.metrics.redis_findings.clone());
    let mut checks = Checks::new(ledger.pool(), &settings.redis, gauge);
    let mut pause = Pause::new();
    loop {
        let result = match checks.first().await {
            Ok(Ok(())) => configure(ledger, settings).await,
            Ok(Err(refused)) => return Err(refused.into()),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => return Ok(Some(checks)),
            Err(error) => {
                tracing::warn!(%error, redis = settings.redis.address(), "cannot work with Redis; trying again")
            }
        }
        pause.wait(stop).await;
        if stop.is_cancelled() {
            return Ok(None);
        }
    }
}

async fn configure(ledger: &Ledger, settings: &Settings) -> Result<(), LedgerError> {
    operator::configure(ledger, &settings.limits)
        .await
        .step("run.configured")?;
    ledger
        .announce_classes(&settings.github)
        .await
        .step("run.classes_announced")
}

/// `None` when the worker was stopped before Kubernetes answered.
async fn connect_backend(
    settings: &BackendSettings,
    timeout: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Arc<dyn Backend>>> {
    match settings {
        BackendSettings::Process { command, directory } => {
            Ok(Some(Arc::new(Process::new(command, directory, timeout)?)))
        }
        BackendSettings::Kubernetes { namespace, profiles } => {
            let mut pause = Pause::new();
            loop {
                match Kubernetes::connect(profiles.clone(), namespace, timeout).await {
                    Ok(backend) => return Ok(Some(Arc::new(backend))),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "cannot reach Kubernetes; trying again"),
                }
                pause.wait(stop).await;
                if stop.is_cancelled() {
                    return Ok(None);
                }
            }
        }
    }
}
