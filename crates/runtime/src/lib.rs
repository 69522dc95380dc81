//! The life of a process: reads the configuration, starts the log, works until a signal, drains, ends.
//!
//! Receiver, worker and beat share it. Each begins with [`main`], whose `work` begins with [`start`].

use std::{future::Future, process::ExitCode, time::Duration};

use clap::Parser;
use jit_core::config::{self, ConfigError, LogFormat};
use tokio_util::sync::CancellationToken;

mod identity;
pub mod log;
mod panics;
pub mod probe;
mod signals;

pub use identity::identity;
pub use panics::OnPanic;

/// Runs a binary: reads its configuration, and works with it until it is told to stop. `--check-config` only reads it.
pub fn main<A: Parser, S>(
    name: &str,
    resolve: impl FnOnce(A) -> Result<S, ConfigError>,
    work: impl AsyncFnOnce(S) -> anyhow::Result<()>,
) -> ExitCode {
    let line = config::parse::<A>();
    run(name, async {
        let settings = resolve(line.args)?;
        if line.check {
            println!("{name}: the configuration is right");
            return Ok(());
        }
        work(settings).await
    })
}

/// Starts the log and the handling of signals and panics. The token is cancelled by SIGTERM or SIGINT; `grace` after
/// that, or with a second signal, the process ends whatever it does.
///
/// # Errors
/// When the log's filter cannot be read, or signal handlers cannot be installed.
pub fn start(
    log_level: &str,
    log_format: LogFormat,
    grace: Duration,
    on_panic: OnPanic,
) -> anyhow::Result<CancellationToken> {
    log::start(log_level, log_format)?;
    on_panic.install();
    Ok(signals::stop_token(grace)?)
}

/// Runs a binary's future on a small runtime and turns its error into one line and exit status 1.
fn run(name: &str, main: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    // Two threads: these processes wait for Redis and sockets, and stay small.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(main));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
