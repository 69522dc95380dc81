//! `make chaos`: random schedules of faults on the whole system, each drawn from a number, each to end with nothing
//! lost and nothing left.
//!
//! Redis with its append-only file, the API server, receiver, workers and beat are real processes; GitHub, runners and
//! the kubelet are simulated. A `schedule` is a load and its faults; `faults` brings them about; `judge` says what is
//! wrong once they are over. A seed that fails keeps its logs, and is played again by its number.

pub mod faults;
pub mod judge;
pub mod schedule;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use jit_simulator::github::summary::Percentiles;
use serde_json::{Value, json};

use crate::stack::{Backend, Options, PodCount, Stack, load};
use faults::Faults;
use judge::{Verdict, judge};
use schedule::{LIMIT, LIMIT_OF_FIRST, MAXIMUM, Schedule};

/// A system that has not settled so long after the last fault has not settled.
pub const BOUND: Duration = Duration::from_secs(120);

/// Which seeds to play.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many
    #[arg(long, default_value_t = 10)]
    pub seeds: u64,
    /// From which number on
    #[arg(long, default_value_t = 1)]
    pub first_seed: u64,
    /// Where the logs of a seed that fails are kept
    #[arg(long, default_value = "target/chaos")]
    pub keep: PathBuf,
    /// Keep the logs of every seed
    #[arg(long)]
    pub keep_all: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its schedule.
    pub schedule: Schedule,
    /// Time from the end of the faults until all was well, or until it was given up.
    pub settled: Duration,
    /// What was found then.
    pub verdict: Verdict,
    /// Where its logs are, if they were kept.
    pub kept: Option<PathBuf>,
}

/// Plays the seeds and prints a row for each.
///
/// # Errors
/// When one fails, or cannot be played.
pub async fn run(args: Args) -> anyhow::Result<()> {
    println!(
        "{:>6} {:>5} {:>8} {:>5} {:>5} {:>5} {:>5} {:>6}  faults",
        "seed", "jobs", "settled", "lost", "twice", "over", "left", "broken"
    );
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for seed in args.first_seed..args.first_seed + args.seeds {
        let outcome = match play(seed, &args.keep, args.keep_all).await {
            Ok(outcome) => outcome,
            Err(error) => {
                println!("{seed:>6} could not be played to its end: {error:#}");
                failed.push(seed);
                continue;
            }
        };
        let Verdict {
            lost,
            twice,
            over,
            left,
            broken,
            words,
        } = &outcome.verdict;
        println!(
            "{seed:>6} {:>5} {:>6.1} s {lost:>5} {twice:>5} {over:>5} {left:>5} {broken:>6}  {}",
            outcome.schedule.jobs(),
            outcome.settled.as_secs_f64(),
            outcome.schedule.in_short()
        );
        for word in words {
            println!("       {word}");
        }
        if let Some(kept) = &outcome.kept {
            println!("       logs and schedule: {}", kept.display());
        }
        if !outcome.verdict.clean() {
            failed.push(seed);
        }
        outcomes.push(outcome);
    }
    println!("{}", totals(&outcomes));
    if let Some(first) = failed.first() {
        let failed: Vec<_> = failed.iter().map(u64::to_string).collect();
        bail!(
            "seeds that failed: {}; `make chaos SEEDS=1 FIRST_SEED={first}` plays one again",
            failed.join(", ")
        );
    }
    Ok(())
}

/// The one line that it comes to.
#[must_use]
pub fn totals(outcomes: &[Outcome]) -> String {
    let sum = |of: fn(&Verdict) -> u64| outcomes.iter().map(|outcome| of(&outcome.verdict)).sum::<u64>();
    let settled = Percentiles::of(
        outcomes
            .iter()
            .map(|outcome| u64::try_from(outcome.settled.as_millis()).unwrap_or(u64::MAX))
            .collect(),
    );
    format!(
        "chaos: {} seeds, {} jobs, {} lost, {} twice, {} over a limit, {} left over, {} invariants broken; settled in \
         p50 {:.1} s, max {:.1} s, {} s are allowed",
        outcomes.len(),
        outcomes.iter().map(|outcome| outcome.schedule.jobs()).sum::<usize>(),
        sum(|verdict| verdict.lost),
        sum(|verdict| verdict.twice),
        sum(|verdict| verdict.over),
        sum(|verdict| verdict.left),
        sum(|verdict| verdict.broken),
        settled.p50 as f64 / 1000.0,
        settled.max as f64 / 1000.0,
        BOUND.as_secs(),
    )
}

/// Deadlines of minutes made seconds, so that a seed takes half a minute. Each of them can be set by an operator, too.
fn environment() -> Vec<(String, String)> {
    [
        ("MAX_RUNNERS_PER_ORG", "3"),
        ("MAX_TOTAL_RUNNERS", "10"),
        ("DISPATCH_INTERVAL", "500ms"),
        ("CLEANUP_INTERVAL", "2s"),
        ("SYNC_INTERVAL", "3s"),
        ("RECOVER_INTERVAL", "1s"),
        ("STRAY_INTERVAL", "2s"),
        ("STRAY_CONFIRM", "3s"),
        ("REDISCOVER_INTERVAL", "20s"),
        ("RECOVERY_CALLS_PER_HOUR", "1000000"),
        ("WORKER_HEARTBEAT", "500ms"),
        ("WORKER_DEAD_AFTER", "3s"),
        ("UPKEEP_LEASE", "6s"),
        ("EVENTS_HELD", "5s"),
        ("RESERVATIONS_HELD", "20s"),
        ("RESERVE_TIMEOUT", "10s"),
        ("START_TIMEOUT", "6s"),
        ("START_BACKOFF", "1s"),
        ("IDLE_CHECK", "2s"),
        ("IDLE_TIMEOUT", "8s"),
        ("MISFIT_HOLD", "2s"),
        ("SURPLUS_GRACE", "2s"),
        ("END_TIMEOUT", "6s"),
        ("BUSY_RECHECK", "4s"),
        ("QUESTION_DELAY", "500ms"),
        ("QUESTION_INTERVAL", "10s"),
        ("UNCERTAIN_INTERVAL", "1s"),
        ("GITHUB_TIMEOUT", "2s"),
        ("BACKEND_TIMEOUT", "3s"),
        ("LOG_LEVEL", "DEBUG"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Plays one seed.
///
/// # Errors
/// When the stack does not come up, or a part does not come up again.
pub async fn play(seed: u64, keep: &Path, keep_all: bool) -> anyhow::Result<Outcome> {
    let schedule = Schedule::draw(seed);
    let options = Options {
        orgs: schedule.orgs,
        workers: schedule.workers,
        backend: Backend::Kubernetes,
        seed,
        env: environment(),
        org_limits: vec![(load::org(1), LIMIT_OF_FIRST)],
        // GitHub waits for a runner's pickup and for a lost runner's sign of life, too.
        github_args: ["--pickup-ms", "6000", "--lease-ms", "4000"].map(str::to_owned).into(),
        proxies: true,
        clocks: schedule.clocks.clone(),
        ..Options::default()
    };
    let first = load::org(1);
    let limit = move |org: &str| if org == first { LIMIT_OF_FIRST } else { LIMIT };
    let mut stack = Stack::start(&options).await?;
    let pods = PodCount::watch(stack.namespace.as_deref().context("a namespace")?, limit, MAXIMUM).await?;
    let result = strike_and_settle(&mut stack, &pods, &schedule).await;
    let clean = result.as_ref().is_ok_and(|(_, verdict)| verdict.clean());
    let kept = if clean && !keep_all {
        None
    } else {
        Some(keep_logs(&stack, keep, &schedule, &result).await?)
    };
    stack.stop().await;
    let (settled, verdict) = result?;
    Ok(Outcome {
        schedule,
        settled,
        verdict,
        kept,
    })
}

/// What happens at a moment.
enum Act<'a> {
    Jobs(&'a [Value]),
    Begin(usize),
    End(usize),
}

async fn strike_and_settle(
    stack: &mut Stack,
    pods: &PodCount,
    schedule: &Schedule,
) -> anyhow::Result<(Duration, Verdict)> {
    let mut acts: Vec<(u64, Act<'_>)> = schedule.waves.iter().map(|(at, jobs)| (*at, Act::Jobs(jobs))).collect();
    for (place, planned) in schedule.faults.iter().enumerate() {
        acts.push((planned.from_ms, Act::Begin(place)));
        acts.push((planned.to_ms, Act::End(place)));
    }
    acts.sort_by_key(|(at, _)| *at);
    for number in (1..=schedule.orgs).filter(|_| schedule.hooks) {
        let hook = json!({ "owner": load::org(number), "kind": "organization" });
        stack
            .post(&format!("{}/_control/hooks", stack.github_url), &hook)
            .await?;
    }
    let (mut faults, began) = (Faults::default(), tokio::time::Instant::now());
    for (at, act) in acts {
        tokio::time::sleep_until(began + Duration::from_millis(at)).await;
        match act {
            Act::Jobs([]) => {}
            Act::Jobs(jobs) => drop(stack.create_jobs(&Value::from(jobs)).await?),
            Act::Begin(place) => faults.begin(stack, place, &schedule.faults[place].fault).await?,
            Act::End(place) => faults.end(stack, place, &schedule.faults[place].fault).await?,
        }
    }
    Faults::end_all(stack, schedule).await?;
    let (began, jobs) = (Instant::now(), schedule.jobs() as u64);
    loop {
        let verdict = judge(stack, pods, jobs).await;
        let settled = began.elapsed();
        match verdict {
            // What was exceeded once stays so.
            Ok(verdict)
                if verdict.clean() || (settled > BOUND) || verdict.over > 0 && verdict.left + verdict.lost == 0 =>
            {
                return Ok((settled, verdict));
            }
            Err(error) if settled > BOUND => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Copies the logs of a seed's parts, and writes down what was planned and found.
async fn keep_logs(
    stack: &Stack,
    keep: &Path,
    schedule: &Schedule,
    result: &anyhow::Result<(Duration, Verdict)>,
) -> anyhow::Result<PathBuf> {
    let dir = keep.join(format!("seed-{}", schedule.seed));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for part in &stack.parts {
        if let Some(name) = part.log().file_name() {
            std::fs::copy(part.log(), dir.join(name))?;
        }
    }
    let found = match result {
        Ok((settled, verdict)) => format!("after {:.1} s: {verdict:#?}", settled.as_secs_f64()),
        Err(error) => format!("{error:#}"),
    };
    std::fs::write(
        dir.join("schedule.txt"),
        format!("{}\n\n{found}\n\n{schedule:#?}\n", schedule.in_short()),
    )?;
    for (name, url) in [
        ("github-log", "log"),
        ("github-jobs", "jobs"),
        ("github-runners", "runners"),
        ("github-summary", "summary"),
    ] {
        if let Ok(answer) = stack.get(&format!("{}/_control/{url}", stack.github_url)).await {
            std::fs::write(dir.join(format!("{name}.json")), serde_json::to_string_pretty(&answer)?)?;
        }
    }
    for (name, args) in [("doctor", &["doctor"][..]), ("ledger-runners", &["runners"])] {
        if let Ok(answer) = stack.jitctl(args).await {
            std::fs::write(dir.join(format!("{name}.json")), serde_json::to_string_pretty(&answer)?)?;
        }
    }
    Ok(dir)
}
