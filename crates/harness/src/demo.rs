//! `make demo`: the whole system, the load of a busy morning, a live view, and a summary read from GitHub's side and
//! from the ledger's.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::stack::{Backend, Options, Stack, load};

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Organizations
    #[arg(long, default_value_t = 20)]
    pub orgs: usize,
    /// Jobs
    #[arg(long, default_value_t = 300)]
    pub jobs: usize,
    /// Seconds over which their webhooks come
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Workers
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Where runners run: process or kubernetes (the cluster of $KUBECONFIG)
    #[arg(long, default_value = "process")]
    pub backend: String,
    /// Seed of the load and of the simulated GitHub
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave it up afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

const MAX_PER_ORG: u64 = 5;
const MAX_TOTAL: u64 = 40;
/// The one organization with a limit of its own.
const LARGE_LIMIT: u64 = 12;

/// Runs the demo. The error says what did not hold.
///
/// # Errors
/// When a part does not come up, or the summary shows a job lost or run twice, or a limit exceeded.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let backend = match args.backend.as_str() {
        "process" => Backend::Process,
        "kubernetes" => Backend::Kubernetes,
        other => bail!("BACKEND={other:?}: use process or kubernetes"),
    };
    println!(
        "Starting Redis, a simulated GitHub with {} organizations, the receiver, {} workers and the beat …",
        args.orgs, args.workers
    );
    let env = [("MAX_RUNNERS_PER_ORG", MAX_PER_ORG), ("MAX_TOTAL_RUNNERS", MAX_TOTAL)]
        .map(|(name, value)| (name.to_owned(), value.to_string()));
    // A morning is short here, and so is everybody's patience with a runner that GitHub gives nothing to do.
    let patience =
        [("IDLE_CHECK", "5s"), ("SURPLUS_GRACE", "5s")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options {
        orgs: args.orgs,
        workers: args.workers,
        backend,
        seed: args.seed,
        env: env.into_iter().chain(patience).collect(),
        ..Options::default()
    };
    let stack = tokio::select! { stack = Stack::start(&options) => stack?, () = stop.asked() => return Ok(()) };
    let outcome = tokio::select! { outcome = morning(&stack, &args) => outcome, () = stop.asked() => Ok(false) };
    if args.keep && !matches!(outcome, Ok(false)) {
        explain(&stack, &args);
        stop.asked().await;
    }
    println!("\nStopping …");
    tokio::select! { () = stack.stop() => {}, () = stop.asked() => {} }
    if !outcome? {
        bail!("interrupted before its end");
    }
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct Stop(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

impl Stop {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn asked(&mut self) {
        tokio::select! { _ = self.0.recv() => {}, _ = self.1.recv() => {} }
    }
}

/// Sends the load and shows it until all jobs are over. True when it was seen to its end.
async fn morning(stack: &Stack, args: &Args) -> anyhow::Result<bool> {
    let large = load::org(1);
    stack.set_limit(&large, LARGE_LIMIT).await.context("the admin API")?;
    println!(
        "{} jobs in {} s; {MAX_PER_ORG} runners an organization ({large}: {LARGE_LIMIT}), {MAX_TOTAL} in all.\n",
        args.jobs, args.seconds
    );
    let began = Instant::now();
    let (mut view, mut waves) = (
        View::new(),
        load::busy_morning(args.jobs, args.orgs, args.seconds, args.seed)
            .into_iter()
            .peekable(),
    );
    loop {
        while let Some(wave) = waves.next_if(|wave| began.elapsed() >= Duration::from_millis(wave.at_ms)) {
            if !wave.jobs.is_empty() {
                stack.create_jobs(&Value::from(wave.jobs)).await?;
            }
        }
        let (github, ledger) = (stack.summary().await?, stack.ledger().await?);
        view.show(began.elapsed(), args.jobs, &github, &ledger)?;
        let over =
            number(&github, "/jobs/success") + number(&github, "/jobs/failure") + number(&github, "/jobs/cancelled");
        let left = number(&github, "/leftovers/runners") + number(&ledger, "/total_running");
        if waves.peek().is_none() && over >= args.jobs as u64 && left == 0 {
            break;
        }
        if began.elapsed() > Duration::from_secs(args.seconds + 120) {
            view.end();
            print_summary(stack, args).await?;
            bail!("not everything had settled two minutes after the last webhook");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    view.end();
    print_summary(stack, args).await?;
    Ok(true)
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// One line that is drawn anew on a terminal, and a line every two seconds elsewhere.
struct View {
    terminal: bool,
    last: Option<Instant>,
}

impl View {
    fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            last: None,
        }
    }

    fn show(&mut self, elapsed: Duration, jobs: usize, github: &Value, ledger: &Value) -> std::io::Result<()> {
        if !self.terminal && self.last.is_some_and(|last| last.elapsed() < Duration::from_secs(2)) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let done = number(github, "/jobs/success");
        let bar: String = (0..30)
            .map(|n| {
                if n * jobs < usize::try_from(done).unwrap_or(0) * 30 {
                    '█'
                } else {
                    '·'
                }
            })
            .collect();
        let line = format!(
            "{:>5.1} s  {bar} {done:>4}/{jobs} run   {:>3} queued  {:>3} runners of {MAX_TOTAL}  {:>3} organizations \
             at work",
            elapsed.as_secs_f64(),
            number(ledger, "/total_pending"),
            number(ledger, "/total_running"),
            ledger["organizations"].as_object().map_or(0, serde_json::Map::len),
        );
        let mut out = std::io::stdout();
        if self.terminal {
            write!(out, "\r\x1b[K{line}")?
        } else {
            writeln!(out, "{line}")?
        }
        out.flush()
    }

    fn end(&self) {
        if self.terminal {
            println!();
        }
    }
}

/// Prints what happened, and fails when it is not what was promised.
async fn print_summary(stack: &Stack, args: &Args) -> anyhow::Result<()> {
    let (github, ledger) = (stack.summary().await?, stack.ledger().await?);
    let doctor = stack.jitctl(&["doctor"]).await?;
    let (sent, run, twice) = (
        number(&github, "/jobs/created"),
        number(&github, "/jobs/run"),
        number(&github, "/jobs/run_twice"),
    );
    let lost = sent - run.min(sent);
    println!("\nWhat GitHub saw");
    println!("  jobs         {sent} sent, {run} run, {lost} lost, {twice} twice");
    println!(
        "  webhooks     {} sent, {} accepted",
        number(&github, "/webhooks/sent"),
        number(&github, "/webhooks/accepted")
    );
    println!(
        "  runners      {} registered, {} of them never used, {} left",
        number(&github, "/runners/registered"),
        number(&github, "/runners/removed_unused"),
        number(&github, "/leftovers/runners")
    );
    for (name, key) in [
        ("webhook to JIT request", "webhook_to_jit_ms"),
        ("webhook to job start", "webhook_to_start_ms"),
    ] {
        println!(
            "  {name:<24} p50 {} ms, p99 {} ms (waiting for a limit included)",
            number(&github, &format!("/latency/{key}/p50")),
            number(&github, &format!("/latency/{key}/p99"))
        );
    }
    println!("What the ledger says");
    println!(
        "  runners      {} live, {} jobs queued",
        number(&ledger, "/total_running"),
        number(&ledger, "/total_pending")
    );
    println!(
        "  invariants   {}",
        if doctor["findings"].as_array().is_some_and(Vec::is_empty) {
            "all hold".to_owned()
        } else {
            format!("broken: {}", doctor["findings"])
        }
    );
    println!("Most at once, by organization (GitHub's count of registered runners)");
    let large = load::org(1);
    let orgs: BTreeMap<String, Value> = serde_json::from_value(github["orgs"].clone())?;
    let mut over = Vec::new();
    let cells: Vec<String> = orgs
        .iter()
        .map(|(org, peaks)| {
            let (most, limit) = (
                number(peaks, "/max_registered"),
                if *org == large { LARGE_LIMIT } else { MAX_PER_ORG },
            );
            if most > limit {
                over.push(format!("{org}: {most} of {limit}"));
            }
            format!("{org} {most:>2}/{limit:<2}")
        })
        .collect();
    for row in cells.chunks(5) {
        println!("  {}", row.join("   "));
    }
    println!(
        "  all          {}/{MAX_TOTAL}",
        number(&github, "/total/max_registered")
    );
    if number(&github, "/total/max_registered") > MAX_TOTAL {
        over.push("the whole".into());
    }
    if lost > 0
        || twice > 0
        || !over.is_empty()
        || sent != args.jobs as u64
        || doctor["findings"]
            .as_array()
            .is_none_or(|findings| !findings.is_empty())
    {
        bail!(
            "lost {lost}, twice {twice}, over a limit: {over:?}; logs are in {} while it is up",
            stack.dir().display()
        );
    }
    println!("\nEvery job ran exactly once, and no limit was exceeded.");
    Ok(())
}

fn explain(stack: &Stack, args: &Args) {
    let redis = stack.redis_url.trim_start_matches("redis://").trim_end_matches("/0");
    let (host, port) = redis.split_once(':').unwrap_or((redis, "6379"));
    let bin = stack.bin().display();
    println!("\nIt stays up until Ctrl-C. Try:");
    println!("  redis-cli -h {host} -p {port} GET org:org-0001:running");
    println!("  redis-cli -h {host} -p {port} HGETALL org_limits");
    println!("  redis-cli -h {host} -p {port} XLEN jit:events");
    println!("  curl {}/metrics", stack.receiver_url);
    println!("  curl {}/orgs/org-0001/status", stack.receiver_url);
    println!(
        "  curl -X PUT {}/admin/org-limits/org-0002 -H 'X-Admin-Key: {}' -H 'Content-Type: application/json' -d \
         '{{\"limit\": 3}}'",
        stack.receiver_url, stack.admin_key
    );
    println!(
        "  curl -X POST {}/_control/jobs -H 'Content-Type: application/json' -d \
         '{{\"org\":\"org-0002\",\"repo\":\"app-1\",\"labels\":[\"code-linux\"],\"duration_ms\":20000,\"count\":8}}'",
        stack.github_url
    );
    println!(
        "  export REDIS_URL={}; {bin}/jitctl status; {bin}/jitctl why JOB; {bin}/jitctl runners; {bin}/jitctl doctor",
        stack.redis_url
    );
    if let Some(namespace) = &stack.namespace {
        println!("  kubectl get pods -n {namespace} -l org=org-0001");
    }
    println!(
        "  logs of the {} workers and the others: {}/*.log",
        args.workers,
        stack.dir().display()
    );
}
