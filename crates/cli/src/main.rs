//! `jitctl`: what the system does and why, and what an operator wants changed; for people and for scripts.
//!
//! It talks to Redis and to nothing else. What it changes goes through the same checks and the same transitions of the
//! ledger as the admin API, with the same tick behind it, so that workers act on it at once. A command is a file of
//! [`commands`].

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use jit_core::{
    config::{Problems, RedisArgs, RedisSettings, parse_tool},
    event::JobId,
    ledger::Ledger,
    names, store, stream,
};

mod commands;
mod table;
mod time;

use commands::{dead, doctor, limits, lists, orders, status, why};

/// What the system does, and why; and what an operator wants changed.
///
/// Exit status: 0 done, 1 it is not so or cannot be done, 2 the command line is wrong.
#[derive(Parser)]
#[command(name = "jitctl", version)]
struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    /// How to print: a table for people, JSON for scripts
    #[arg(long, short, global = true, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// The whole at a glance, or one organization
    Status {
        /// Organization or user
        #[arg(value_parser = org)]
        org: Option<String>,
    },
    /// Why a job waits: which limit, pause, back-off or step, since when
    Why {
        /// GitHub's id of the job
        job: JobId,
    },
    /// Live runners: where each stands and since when
    Runners {
        /// Only of this organization
        #[arg(long, value_parser = org)]
        org: Option<String>,
    },
    /// Jobs that are not over, oldest first
    Jobs(lists::JobsArgs),
    /// Limits of organizations: shows them all, or sees and changes one
    Limits {
        #[command(subcommand)]
        command: Option<limits::Command>,
    },
    /// Makes no runner more for an organization until it is resumed; those that run go on
    Pause(orders::PauseArgs),
    /// Makes runners for an organization again
    Resume {
        /// Organization or user
        #[arg(value_parser = org)]
        org: String,
    },
    /// Has what holds a queued job back tried again now, by one runner; but for a time that GitHub has named
    Retry {
        /// GitHub's id of the job
        job: JobId,
    },
    /// Removes a runner, at GitHub first, then its pod; one that GitHub calls busy lives on
    Remove {
        /// Its name, as `jitctl runners` shows it
        #[arg(value_parser = runner)]
        runner: String,
        /// Ends its pod whatever GitHub says, also under a job: where nobody serves its owner any more, say
        #[arg(long)]
        force: bool,
    },
    /// Frees the slots of all runners at a place that is gone for good (a cluster, a namespace, a host); jitctl doctor
    /// names such places
    GiveUp {
        /// As doctor writes it
        place: String,
    },
    /// Makes a worker compare the ledger with the real runners now
    Reconcile,
    /// Dead letters: entries that could not be applied
    Dead {
        #[command(subcommand)]
        command: dead::Command,
    },
    /// Checks the ledger's invariants on the live store, and Redis's settings; exit status 1 when one does not hold, or
    /// no process would start
    Doctor,
}

/// What every command works with.
struct Ctl<'a> {
    out: &'a mut dyn Write,
    ledger: Ledger,
    redis: RedisSettings,
    output: Output,
    /// Redis's time, ms since 1970.
    now: i64,
}

impl Ctl<'_> {
    fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{}", serde_json::to_string_pretty(value)?)?)
    }

    /// JSON for scripts, a sentence for people.
    fn say(&mut self, json: &impl serde::Serialize, sentence: &str) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(json);
        }
        Ok(writeln!(self.out, "{sentence}")?)
    }

    /// Makes the workers act on what was changed, at once. Beat does so anyway in a while, so it stands also when this
    /// fails.
    async fn tick(&self, kind: &str) -> anyhow::Result<()> {
        let mut connection = self.ledger.pool().get().await?;
        Ok(stream::tick_now(&mut connection, kind).await?)
    }

    async fn act_at_once(&self) {
        if let Err(error) = self.tick("dispatch").await {
            note(&format!(
                "it is done, and workers act on it at beat's next tick, not at once: {error}"
            ));
        }
    }

    /// The spelling of an organization that is known here.
    async fn known(&self, org: &str) -> anyhow::Result<String> {
        let (org, known) = self.ledger.spelling(org).await?;
        anyhow::ensure!(
            known,
            "{org} is not known here: no job of it came yet, and it has neither a limit of its own nor a pause (jitctl \
             status shows who has)"
        );
        Ok(org)
    }

    /// The spelling of an organization, which may be one that is still to come.
    async fn named(&self, org: &str) -> anyhow::Result<String> {
        let (org, known) = self.ledger.spelling(org).await?;
        if !known {
            note(&format!(
                "{org} is not known here yet: no job of it came. It is done all the same; is the name right?"
            ));
        }
        Ok(org)
    }
}

/// A word beside the answer, which scripts read from standard output.
fn note(text: &str) {
    eprintln!("jitctl: {text}");
}

fn org(text: &str) -> Result<String, String> {
    names::owner(text)
        .map(str::to_owned)
        .ok_or_else(|| "not an organization's name (letters, digits, - and _), nor an owner/repository".into())
}

fn runner(text: &str) -> Result<String, String> {
    if names::is_runner(text) {
        Ok(text.to_owned())
    } else {
        Err("not a runner's name: 1 to 63 of a-z, 0-9 and -".into())
    }
}

fn main() -> ExitCode {
    let args: Args = parse_tool();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("jitctl: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args, &mut std::io::stdout().lock())) {
        Ok(code) => code,
        // Whoever read along (`jitctl status | head`) has seen enough.
        Err(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("jitctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut problems = Problems::default();
    let redis = args.redis.resolve(&mut problems);
    let redis = problems.finish(redis)?;
    let ledger = Ledger::new(store::pool(&redis)?);
    let now = ledger
        .now()
        .await
        .with_context(|| format!("Redis at {} (REDIS_URL or --redis-url)", redis.address()))?;
    let mut ctl = Ctl {
        out,
        ledger,
        redis,
        output: args.output,
        now,
    };
    match args.command {
        Command::Status { org: None } => status::whole(&mut ctl, std::io::stdout().is_terminal()).await,
        Command::Status { org: Some(org) } => status::of_org(&mut ctl, &org).await,
        Command::Why { job } => why::why(&mut ctl, job).await,
        Command::Runners { org } => lists::runners(&mut ctl, org.as_deref()).await,
        Command::Jobs(wanted) => lists::jobs(&mut ctl, &wanted).await,
        Command::Limits { command: None } => limits::all(&mut ctl).await,
        Command::Limits { command: Some(command) } => limits::one(&mut ctl, command).await,
        Command::Pause(wanted) => orders::pause(&mut ctl, &wanted).await,
        Command::Resume { org } => orders::resume(&mut ctl, &org).await,
        Command::Retry { job } => orders::retry(&mut ctl, job).await,
        Command::Remove { runner, force } => orders::remove(&mut ctl, &runner, force).await,
        Command::GiveUp { place } => orders::give_up(&mut ctl, &place).await,
        Command::Reconcile => orders::reconcile(&mut ctl).await,
        Command::Dead { command } => dead::run(&mut ctl, command).await,
        Command::Doctor => doctor::doctor(&mut ctl).await,
    }
}
