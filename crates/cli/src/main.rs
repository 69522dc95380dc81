//! `jitctl`: what the system does and why, for people and for scripts. Reads Redis; decides nothing.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use jit_core::{
    config::{Problems, RedisArgs},
    event::JobId,
    ledger::Ledger,
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
    match runtime.block_on(run(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("jitctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut problems = Problems::default();
    let redis = args.redis.resolve(&mut problems);
    let redis = problems.finish(redis)?;
    let ledger = Ledger::new(connect::pool(&redis)?);
    let now = ledger.now().await.with_context(|| format!("Redis at {} (REDIS_URL or --redis-url)", redis.address()))?;
    match args.command {
        Command::Status { org: None } => status(&ledger, args.output).await,
        Command::Status { org: Some(org) } => org_status(&ledger, &org, args.output).await,
        Command::Why { job } => why(&ledger, job, now, args.output).await,
        Command::Runners { org } => runners(&ledger, org.as_deref(), now, args.output).await,
        Command::Doctor => doctor(&ledger, args.output).await,
    }
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

async fn status(ledger: &Ledger, output: Output) -> anyhow::Result<ExitCode> {
    let overview = ledger.overview().await?;
    if output == Output::Json {
        json(&overview)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("runners     {} of {} live{}", overview.total_running, overview.max_total, breakdown(&overview.runners));
    println!("jobs        {} queued, {} asked about or running", overview.total_pending, overview.questions);
    let [events, provision, ticks, dead] = overview.backlog;
    println!("backlog     jit:events {events}, jit:provision {provision}, jit:ticks {ticks}, jit:dead {dead}");
    println!("workers     {} alive", overview.workers);
    println!("admission   {}", if overview.admitting { "open" } else { "closed until the running pods have been counted" });
    println!("known       {} organizations; limit {} each where they have none of their own", overview.known_orgs, overview.max_per_org);
    if !overview.organizations.is_empty() {
        println!();
        let mut rows: Vec<_> = overview.organizations.iter().collect();
        rows.sort_by_key(|(_, (running, pending))| std::cmp::Reverse((*pending, *running)));
        let shown = if std::io::stdout().is_terminal() { 20 } else { rows.len() };
        let lines = rows.iter().take(shown).map(|(org, (running, pending))| vec![(*org).clone(), running.to_string(), pending.to_string()]).collect();
        table::print(&["ORGANIZATION", "RUNNING", "PENDING"], lines);
        if rows.len() > shown {
            println!("… and {} more (--output json shows all)", rows.len() - shown);
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

async fn org_status(ledger: &Ledger, org: &str, output: Output) -> anyhow::Result<ExitCode> {
    let (status, reasons) = (ledger.org_status(org).await?, ledger.org_reasons(org).await?);
    if output == Output::Json {
        let mut value = serde_json::to_value(&status)?;
        value["reasons"] = serde_json::json!(reasons);
        json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let own = if status.is_custom_limit { "its own limit" } else { "the default limit" };
    println!("{}: {} of {} runners ({own}), {} jobs queued", status.organization, status.running, status.max, status.pending);
    for reason in reasons {
        println!("  oldest {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn why(ledger: &Ledger, job: JobId, now: i64, output: Output) -> anyhow::Result<ExitCode> {
    let explanation = ledger.explain(job).await?;
    if output == Output::Json {
        json(&explanation)?;
    } else {
        let since = explanation.since.map(|at| format!(", for {}", time::ago(now - at))).unwrap_or_default();
        let next = explanation.next.map(|at| format!("; next try in {}", time::ago(at - now))).unwrap_or_default();
        println!("{job} is {}{since}: {}{next}", explanation.state.replace('_', " "), explanation.why);
    }
    Ok(if explanation.state == "unknown" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn runners(ledger: &Ledger, org: Option<&str>, now: i64, output: Output) -> anyhow::Result<ExitCode> {
    let org = match org {
        Some(org) => Some(ledger.canonical(org).await?),
        None => None,
    };
    let mut runners = ledger.runners().await?;
    runners.retain(|_, info| org.is_none() || info.get("org") == org.as_ref());
    if output == Output::Json {
        json(&runners)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = runners.iter().map(|(name, info)| {
        let text = |field: &str| info.get(field).cloned().unwrap_or_else(|| "-".into());
        let age = info.get("reserved_at").and_then(|at| at.parse::<i64>().ok()).map_or_else(|| "-".into(), |at| time::ago(now - at));
        vec![name.clone(), text("org"), text("state"), text("running_job"), age, info.get("detail").or(info.get("why")).cloned().unwrap_or_default()]
    });
    table::print(&["RUNNER", "ORGANIZATION", "STATE", "JOB", "AGE", "NOTE"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn doctor(ledger: &Ledger, output: Output) -> anyhow::Result<ExitCode> {
    let report = ledger.doctor_settled().await?;
    if output == Output::Json {
        json(&report)?;
    } else {
        println!("looked at {} organizations, {} live runners, {} jobs that are not over", report.organizations, report.runners, report.jobs);
        for finding in &report.findings {
            println!("invariant {}: {}", finding.invariant, finding.text);
        }
        println!(
            "{}",
            if report.findings.is_empty() {
                "all five invariants hold".to_owned()
            } else {
                format!("{} findings: POST /admin/reconcile, and report them if they stay", report.findings.len())
            }
        );
    }
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
