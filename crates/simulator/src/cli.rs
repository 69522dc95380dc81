//! The command line. Each command makes the smallest runtime that it needs: a runner is started a thousand times.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use jit_simulator::clock::Clock;
use jit_simulator::github::{self, Hook, Settings};
use jit_simulator::{kubelet, runner};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Simulates a GitHub Enterprise Server, its runners and a kubelet
#[derive(Parser)]
#[command(name = "jit-simulator", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, once")]
enum Command {
    /// Serves a GitHub: REST under /api/v3, webhooks, runners; steered under /_control. Prints {"url": …} when it
    /// listens
    Github(Github),
    /// Runs one job with the JIT configuration in $ACTIONS_RUNNER_INPUT_JITCONFIG
    Runner,
    /// Runs the runner pods of an API server without nodes ($KUBECONFIG). Prints {"node": …} when its node is ready
    Kubelet(Kubelet),
}

#[derive(Args)]
struct Github {
    /// Address to listen on; port 0 takes any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// URL by which runners and callers reach it; made of the address by default
    #[arg(long)]
    public_url: Option<String>,
    /// Where workflow_job webhooks go; can be set later under /_control/webhook
    #[arg(long)]
    webhook_url: Option<String>,
    /// File that holds the secret that webhooks are signed with
    #[arg(long)]
    webhook_secret_file: Option<PathBuf>,
    /// Token that REST callers must present
    #[arg(
        long,
        env = "SIMULATOR_TOKEN",
        hide_env_values = true,
        required_unless_present = "token_file"
    )]
    token: Option<SecretString>,
    /// File that holds the token
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// File to write the port to, once it listens
    #[arg(long)]
    port_file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Kubelet {
    /// Namespace whose runner pods it takes
    #[arg(long, env = "RUNNER_NAMESPACE", default_value = "jit-runners")]
    namespace: String,
    /// Label selector of the pods that it takes
    #[arg(long, default_value = "app=jit-runner")]
    selector: String,
    /// Name of its node
    #[arg(long, default_value = "simulated-node")]
    node: String,
    /// What pulling images takes
    #[arg(long, default_value_t = 0)]
    start_delay_ms: u64,
    /// Requests to the API server at once
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seed of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of the control port (GET, POST, DELETE /faults; GET /counts); port 0 takes any
    #[arg(long)]
    control: Option<SocketAddr>,
}

impl Cli {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
        match self.command {
            Command::Github(github) => many_threads()?.block_on(github.run()),
            Command::Runner => Builder::new_current_thread().enable_all().build()?.block_on(run_job()),
            Command::Kubelet(kubelet) => many_threads()?.block_on(kubelet.run()),
        }
    }
}

fn many_threads() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// Cancelled by SIGTERM and SIGINT.
fn stop_token() -> anyhow::Result<CancellationToken> {
    let (token, mut term, mut int) = (
        CancellationToken::new(),
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(token)
}

/// Prints one line for whoever started the process; the line is flushed, for it may be a pipe.
fn announce(line: &serde_json::Value) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("write to stdout")
}

fn secret(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    if text.trim().is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(text.trim().into())
}

impl Github {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let token = match (self.token, &self.token_file) {
            (Some(token), _) => token,
            (None, Some(path)) => secret(path)?,
            (None, None) => bail!("a token is needed"),
        };
        if token.expose_secret().is_empty() {
            bail!("the token is empty");
        }
        let hook = match (self.webhook_url, &self.webhook_secret_file) {
            (None, None) => None,
            (url, Some(path)) => Some(Hook {
                url,
                secret: secret(path)?,
            }),
            (Some(_), None) => bail!("--webhook-url needs --webhook-secret-file"),
        };
        let stop = stop_token()?;
        let options = github::Options {
            listen: self.listen,
            public_url: self.public_url,
            hook,
            token,
            settings: self.settings,
            clock: Clock::system(),
        };
        let running = github::start(options).await?;
        if let Some(path) = &self.port_file {
            std::fs::write(path, running.address.port().to_string())
                .with_context(|| format!("write {}", path.display()))?;
        }
        announce(&json!({ "url": running.url }))?;
        stop.cancelled().await;
        running.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}

async fn run_job() -> anyhow::Result<ExitCode> {
    const VARIABLE: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
    let jit = std::env::var(VARIABLE).with_context(|| format!("{VARIABLE} is not set"))?;
    let stop = stop_token()?;
    let ended = runner::run(&jit, &stop).await;
    if !ended.words().is_empty() {
        println!("{}", ended.words());
    }
    Ok(ExitCode::from(ended.exit_code(
        std::env::var(runner::TELLS_TOO_OLD).is_ok_and(|value| value == "1"),
    )))
}

impl Kubelet {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let stop = stop_token()?;
        let options = kubelet::Options {
            client: kubelet::client().await?,
            namespace: self.namespace,
            selector: self.selector,
            node: self.node,
            start_delay: Duration::from_millis(self.start_delay_ms),
            connections: self.connections,
            seed: self.seed,
            control: self.control,
        };
        let node = options.node.clone();
        let running = kubelet::start(options).await?;
        announce(&json!({ "node": node, "control": running.control.map(|address| format!("http://{address}")) }))?;
        stop.cancelled().await;
        running.stop().await;
        Ok(ExitCode::SUCCESS)
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
