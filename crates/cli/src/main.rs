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
use jit_core::{
    config::{Problems, parse_tool},
    ledger::Ledger,
    store,
};

mod args;
mod commands;
mod ctl;
mod names;
mod table;
mod time;

use args::{Args, Command};
use commands::{dead, doctor, limits, lists, orders, status, why};
use ctl::Ctl;

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
