//! The life of a binary: start logging, run until told to stop, drain, end.

use std::{future::Future, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Gives a token that SIGTERM or SIGINT cancels. A second signal, or `grace` running out after the first, ends the process at once.
///
/// # Errors
/// When signal handlers cannot be installed.
pub fn stop_token(grace: Duration) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
        };
        let name = next().await;
        tracing::info!(signal = name, grace_seconds = grace.as_secs(), "stopping: what is in hand is finished, nothing new is taken");
        stop.cancel();
        tokio::select! {
            name = next() => tracing::warn!(signal = name, "second signal: ending at once"),
            () = tokio::time::sleep(grace) => tracing::warn!("grace is over: ending with work in hand, which another replica takes up"),
        }
        std::process::exit(1);
    });
    Ok(token)
}

/// Runs a binary's future on a small runtime and turns its error into one line and exit status 1.
pub fn run(name: &str, main: impl Future<Output = anyhow::Result<()>>) -> std::process::ExitCode {
    // Two threads: these processes wait for Redis and sockets, and stay small.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(main));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// What names this process among its peers: host name, process id and start time, so that a restarted process is another one.
#[must_use]
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| host.trim().to_owned());
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{host}-{}-{started}", std::process::id())
}
