//! `jit-harness`: the whole system under load and under faults. See the crate's README.

use clap::{Parser, Subcommand};
use jit_harness::{bench, brakes, chaos, demo};
use tracing_subscriber::EnvFilter;

/// Runs the whole system on this machine, under load and under faults
#[derive(Parser)]
#[command(name = "jit-harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the whole system under the load of a busy morning
    Demo(demo::Args),
    /// Measures latency, memory and start-up of the whole system
    Bench(bench::Args),
    /// Has one of ten organizations be refused for ever, in one way after the other, and holds what that costs against
    /// bounds ($KUBECONFIG)
    Brakes(brakes::Args),
    /// Plays random schedules of faults on the whole system, each by its number ($KUBECONFIG)
    Chaos(chaos::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Brakes(args) => brakes::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Cli::command().debug_assert();
    }
}
