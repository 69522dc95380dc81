//! Signals that stop a process.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Gives a token that SIGTERM or SIGINT cancels. A second signal, or `grace` running out after the first, ends the
/// process at once.
///
/// # Errors
/// When signal handlers cannot be installed.
pub(crate) fn stop_token(grace: Duration) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
        };
        let name = next().await;
        tracing::info!(
            signal = name,
            grace_seconds = grace.as_secs(),
            "stopping: what is in hand is finished, nothing new is taken"
        );
        stop.cancel();
        tokio::select! {
            name = next() => tracing::warn!(signal = name, "second signal: ending at once"),
            () = tokio::time::sleep(grace) => {
                tracing::warn!("grace is over: ending with work in hand, which another replica takes up");
            }
        }
        std::process::exit(1);
    });
    Ok(token)
}
