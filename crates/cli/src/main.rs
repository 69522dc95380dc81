//! `jitctl`: what the system does and why, for people and for scripts. Reads Redis; decides nothing.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use jit_core::{
    config::{Problems, RedisArgs},
    event::JobId,
    ledger::{Ledger, shown_state},
    redis as connect,
};

mod table;
mod time;

/// What the system does, and why.
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
        /// Organization, or owner/repo of a user's repository
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
        #[arg(long)]
        org: Option<String>,
    },
    /// Checks the ledger's invariants on the live store; exit status 1 when one does not hold
    Doctor,
}

fn main() -> ExitCode {
    let args = Args::parse();
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
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
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
    let ledger = Ledger::new(connect::pool(&redis)?);
    let now = ledger.now().await.with_context(|| format!("Redis at {} (REDIS_URL or --redis-url)", redis.address()))?;
    match args.command {
        Command::Status { org: None } => status(out, &ledger, args.output).await,
        Command::Status { org: Some(org) } => org_status(out, &ledger, &org, args.output).await,
        Command::Why { job } => why(out, &ledger, job, now, args.output).await,
        Command::Runners { org } => runners(out, &ledger, org.as_deref(), now, args.output).await,
        Command::Doctor => doctor(out, &ledger, args.output).await,
    }
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(value)?)?)
}

async fn status(out: &mut dyn Write, ledger: &Ledger, output: Output) -> anyhow::Result<ExitCode> {
    let overview = ledger.overview().await?;
    if output == Output::Json {
        json(out, &overview)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "runners     {} of {} live{}", overview.total_running, overview.max_total, breakdown(&overview.runners))?;
    writeln!(out, "jobs        {} queued, {} asked about or running", overview.total_pending, overview.questions)?;
    let [events, provision, ticks, dead] = overview.backlog;
    writeln!(out, "backlog     jit:events {events}, jit:provision {provision}, jit:ticks {ticks}, jit:dead {dead}")?;
    writeln!(out, "workers     {} alive", overview.workers)?;
    writeln!(out, "admission   {}", if overview.admitting { "open" } else { "closed until the running pods have been counted" })?;
    writeln!(out, "known       {} organizations; limit {} each where they have none of their own", overview.known_orgs, overview.max_per_org)?;
    if !overview.organizations.is_empty() {
        writeln!(out,)?;
        let mut rows: Vec<_> = overview.organizations.iter().collect();
        rows.sort_by_key(|(_, (running, pending))| std::cmp::Reverse((*pending, *running)));
        let shown = if std::io::stdout().is_terminal() { 20 } else { rows.len() };
        let lines = rows.iter().take(shown).map(|(org, (running, pending))| vec![(*org).clone(), running.to_string(), pending.to_string()]).collect();
        table::print(out, &["ORGANIZATION", "RUNNING", "PENDING"], lines)?;
        if rows.len() > shown {
            writeln!(out, "… and {} more (--output json shows all)", rows.len() - shown)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn breakdown(states: &std::collections::BTreeMap<String, u64>) -> String {
    if states.is_empty() {
        return String::new();
    }
    format!(" ({})", states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "))
}

async fn org_status(out: &mut dyn Write, ledger: &Ledger, org: &str, output: Output) -> anyhow::Result<ExitCode> {
    let (status, reasons) = (ledger.org_status(org).await?, ledger.org_reasons(org).await?);
    if output == Output::Json {
        let mut value = serde_json::to_value(&status)?;
        value["reasons"] = serde_json::json!(reasons);
        json(out, &value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let own = if status.is_custom_limit { "its own limit" } else { "the default limit" };
    writeln!(out, "{}: {} of {} runners ({own}), {} jobs queued", status.organization, status.running, status.max, status.pending)?;
    for reason in reasons {
        writeln!(out, "  oldest {reason}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn why(out: &mut dyn Write, ledger: &Ledger, job: JobId, now: i64, output: Output) -> anyhow::Result<ExitCode> {
    let explanation = ledger.explain(job).await?;
    if output == Output::Json {
        json(out, &explanation)?;
    } else {
        let since = explanation.since.map(|at| format!(", for {}", time::ago(now - at))).unwrap_or_default();
        let next = explanation.next.map(|at| format!("; next try in {}", time::ago(at - now))).unwrap_or_default();
        writeln!(out, "{job} is {}{since}: {}{next}", explanation.state.replace('_', " "), explanation.why)?;
    }
    Ok(if explanation.state == "unknown" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn runners(out: &mut dyn Write, ledger: &Ledger, org: Option<&str>, now: i64, output: Output) -> anyhow::Result<ExitCode> {
    let org = match org {
        Some(org) => Some(ledger.canonical(org).await?),
        None => None,
    };
    let mut runners = ledger.runners().await?;
    runners.retain(|_, info| org.is_none() || info.get("org") == org.as_ref());
    if output == Output::Json {
        json(out, &runners)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = runners.iter().map(|(name, info)| {
        let text = |field: &str| info.get(field).cloned().unwrap_or_else(|| "-".into());
        let age = info.get("reserved_at").and_then(|at| at.parse::<i64>().ok()).map_or_else(|| "-".into(), |at| time::ago(now - at));
        vec![
            name.clone(),
            text("org"),
            shown_state(info).to_owned(),
            text("running_job"),
            age,
            info.get("detail").or(info.get("why")).cloned().unwrap_or_default(),
        ]
    });
    table::print(out, &["RUNNER", "ORGANIZATION", "STATE", "JOB", "AGE", "NOTE"], rows.collect())?;
    Ok(ExitCode::SUCCESS)
}

async fn doctor(out: &mut dyn Write, ledger: &Ledger, output: Output) -> anyhow::Result<ExitCode> {
    let report = ledger.doctor_settled().await?;
    if output == Output::Json {
        json(out, &report)?;
    } else {
        writeln!(out, "looked at {} organizations, {} live runners, {} jobs that are not over", report.organizations, report.runners, report.jobs)?;
        for finding in &report.findings {
            writeln!(out, "invariant {}: {}", finding.invariant, finding.text)?;
        }
        writeln!(
            out,
            "{}",
            if report.findings.is_empty() {
                "all five invariants hold".to_owned()
            } else {
                format!("{} findings: POST /admin/reconcile, and report them if they stay", report.findings.len())
            }
        )?;
    }
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
