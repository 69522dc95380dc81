//! `make bench`: latency in an idle system, memory, time to be ready. Prints what was measured, against what, on which
//! machine.

use std::time::{Duration, Instant};

use crate::stack::{Backend, Options, Stack, load, pss_kib};
use anyhow::{Context, bail};
use jit_simulator::github::summary::Percentiles;
use serde_json::{Value, json};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Organizations that the system gets to know first
    #[arg(long, default_value_t = 1000)]
    pub orgs: usize,
    /// Jobs, one after the other, in an idle system
    #[arg(long, default_value_t = 300)]
    pub jobs: usize,
    /// Workers
    #[arg(long, default_value_t = 3)]
    pub workers: usize,
    /// Where runners run: process or kubernetes (the cluster of $KUBECONFIG)
    #[arg(long, default_value = "kubernetes")]
    pub backend: String,
}

/// Figures that the project holds itself to.
const JIT_P50_MS: u64 = 12;
const JIT_P99_MS: u64 = 40;
const PSS_MIB: u64 = 80;
const READY_MS: u64 = 200;

/// Measures and prints.
///
/// # Errors
/// When a part does not come up or a job does not run.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let backend = match args.backend.as_str() {
        "process" => Backend::Process,
        "kubernetes" => Backend::Kubernetes,
        other => bail!("--backend {other:?}: use process or kubernetes"),
    };
    println!("machine      {}", machine());
    println!(
        "setting      {} organizations, {} workers, backend {}, Redis with AOF, GitHub simulated, all on this machine",
        args.orgs, args.workers, args.backend
    );
    let mut stack = Stack::start(&Options {
        orgs: args.orgs,
        workers: args.workers,
        backend,
        ..Options::default()
    })
    .await?;
    let result = measure(&mut stack, &args).await;
    stack.stop().await;
    result
}

async fn measure(stack: &mut Stack, args: &Args) -> anyhow::Result<()> {
    println!("\nstart to ready (asked: {READY_MS} ms each)");
    for part in stack
        .parts
        .iter()
        .filter(|part| !matches!(part.name(), "redis" | "github" | "kubelet"))
    {
        let ms = part.ready_after().map_or(0, |after| after.as_millis());
        println!(
            "  {:<12} {ms:>5} ms   {}",
            part.name(),
            ratio(u64::try_from(ms).unwrap_or(u64::MAX), READY_MS)
        );
    }

    let began = Instant::now();
    for first in (1..=args.orgs).step_by(50) {
        let wave: Vec<Value> = (first..(first + 50).min(args.orgs + 1))
            .map(|number| job(number, 0))
            .collect();
        stack.create_jobs(&Value::from(wave)).await?;
    }
    let total = args.orgs as u64;
    settled(stack, total).await.context("one job of each organization")?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "\nthroughput   one job of each of {} organizations: {:.1} s, {:.0} jobs/s from webhook to pod gone",
        args.orgs,
        seconds,
        total as f64 / seconds
    );

    let (mut to_request, mut to_start) = (Vec::new(), Vec::new());
    for number in 0..args.jobs {
        let id = stack.create_jobs(&json!([job(1 + number % args.orgs, 0)])).await?[0];
        settled(stack, total + number as u64 + 1).await?;
        let times = stack.get(&format!("{}/_control/jobs/{id}", stack.github_url)).await?["times"].clone();
        let span = |to: &str| Some(times[to].as_u64()?.saturating_sub(times["sent"].as_u64()?));
        to_request.extend(span("requested"));
        to_start.extend(span("started"));
    }
    let (request, start) = (Percentiles::of(to_request), Percentiles::of(to_start));
    println!(
        "\nidle system, one job at a time, {} jobs (asked: p50 {JIT_P50_MS} ms, p99 {JIT_P99_MS} ms to the JIT \
         request, a pod created on the way)",
        request.count
    );
    println!(
        "  webhook to JIT request   p50 {:>3} ms {}   p99 {:>3} ms {}   most {} ms",
        request.p50,
        ratio(request.p50, JIT_P50_MS),
        request.p99,
        ratio(request.p99, JIT_P99_MS),
        request.max
    );
    println!(
        "  webhook to job start     p50 {:>3} ms         p99 {:>3} ms         most {} ms",
        start.p50, start.p99, start.max
    );

    // Idle for a while: what was only needed under load is given back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "\nmemory, idle, {} organizations known (PSS; asked: {PSS_MIB} MiB together)",
        args.orgs
    );
    let mut sum = 0;
    for part in stack
        .parts
        .iter()
        .filter(|part| !matches!(part.name(), "redis" | "github" | "kubelet"))
    {
        let kib = part.pid().and_then(pss_kib).unwrap_or(0);
        sum += kib;
        println!("  {:<12} {:>6.1} MiB", part.name(), kib as f64 / 1024.0);
    }
    println!(
        "  {:<12} {:>6.1} MiB  {}",
        "together",
        sum as f64 / 1024.0,
        ratio(sum / 1024, PSS_MIB)
    );
    Ok(())
}

fn job(org: usize, duration_ms: u64) -> Value {
    json!({ "org": load::org(org), "repo": "app", "labels": ["code-linux"], "duration_ms": duration_ms })
}

/// Waits until so many jobs are over and nothing is left of their runners.
async fn settled(stack: &Stack, jobs: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let github = stack.summary().await?;
        let number = |pointer: &str| github.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let over = number("/jobs/success") >= jobs && number("/leftovers/runners") == 0;
        if over && stack.ledger().await?["total_running"] == 0 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(180) {
            bail!("{} of {jobs} jobs are over after 3 minutes", number("/jobs/success"));
        }
        // The receiver's answer is shared for a second, and a sender may ask for 50 in one.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn ratio(measured: u64, asked: u64) -> String {
    format!("({:.2} of what is asked)", measured as f64 / asked as f64)
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}
