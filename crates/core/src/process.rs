//! The life of a binary: start logging, run until told to stop, drain, end.

use std::{future::Future, time::Duration};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError};

/// Gives a token that SIGTERM or SIGINT cancels. A second signal, or `grace` running out after the first, ends the
/// process at once.
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
        tracing::info!(
            signal = name,
            grace_seconds = grace.as_secs(),
            "stopping: what is in hand is finished, nothing new is taken"
        );
        stop.cancel();
        tokio::select! {
            name = next() => tracing::warn!(signal = name, "second signal: ending at once"),
            () = tokio::time::sleep(grace) => tracing::warn!("grace is over: ending with work in hand, which another \
             replica takes up"),
        }
        std::process::exit(1);
    });
    Ok(token)
}

/// Runs a binary: reads its configuration, and works with it until it is told to stop. `--check-config` only reads it.
pub fn main<A: Parser, S>(
    name: &str,
    resolve: impl FnOnce(A) -> Result<S, ConfigError>,
    work: impl AsyncFnOnce(S) -> anyhow::Result<()>,
) -> std::process::ExitCode {
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

/// Runs a binary's future on a small runtime and turns its error into one line and exit status 1.
fn run(name: &str, main: impl Future<Output = anyhow::Result<()>>) -> std::process::ExitCode {
    // Two threads: these processes wait for Redis and sockets, and stay small.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(main));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Exit status of a process that ended because a part of it panicked; Rust's own.
const PANICKED: i32 = 101;

/// Makes a panic of any task the end of the process. One that lost a loop would look alive and do the half of its work;
/// once it has ended, another replica takes up what it held, and Kubernetes starts it anew.
pub fn end_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::exit(PANICKED);
    }));
}

/// What names this process among its peers: host name, process id and start time, so that a restarted process is
/// another one.
#[must_use]
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| host.trim().to_owned());
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    format!("{host}-{}-{started}", std::process::id())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_of_one_task_ends_the_process() {
        const CHILD: &str = "END_ON_PANIC_CHILD";
        if std::env::var_os(CHILD).is_some() {
            super::end_on_panic();
            let task = std::thread::spawn(|| panic!("a part of it"));
            let _ = task.join();
            std::process::exit(0); // it went on without that part
        }
        let test = std::env::current_exe().expect("this program");
        let name = "process::tests::a_panic_of_one_task_ends_the_process";
        let output = std::process::Command::new(test)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("the child");
        assert_eq!(output.status.code(), Some(super::PANICKED), "{output:?}");
    }
}
