//! The course of a sickness, and what is measured of it.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use jit_simulator::github::summary::Percentiles;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{COST, JOBS, ORGS, SICK, WAIT_MS, seconds, sickness::Sickness};
use crate::stack::{Backend, Options, Stack, load};

/// How a sickness is played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where runners run. With processes no pods are counted, and what needs a cluster cannot be played.
    pub backend: Backend,
    /// How long it lasts.
    pub lasts: Duration,
    /// How long the sick organization's jobs may take to run after that.
    pub recovery: Duration,
    /// Between two jobs of the others.
    pub every: Duration,
    /// Further environment.
    pub env: Vec<(String, String)>,
    /// Where logs are kept when a bound is broken.
    pub keep: Option<PathBuf>,
}

impl Plan {
    /// The plan that is judged, but for how long a sickness lasts (45 s).
    #[must_use]
    pub fn judged(seconds: u64) -> Self {
        let (recovery, every) = (Duration::from_secs(90), Duration::from_millis(500));
        Self {
            backend: Backend::Kubernetes,
            lasts: Duration::from_secs(seconds),
            recovery,
            every,
            env: Vec::new(),
            keep: None,
        }
    }
}

/// What a sickness came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Pods that the workers asked the API server for, for the sick organization's jobs.
    pub pods: u64,
    /// Calls of `generate-jitconfig` for them.
    pub registrations: u64,
    /// What the others' jobs waited for the call that pairs with them, from their webhook on, ms.
    pub wait: Percentiles,
    /// The same to their start.
    pub to_start: Percentiles,
    /// Jobs of the others that had no runner in the end.
    pub unserved: usize,
    /// From the end of the cause until the sick organization's jobs had run; none where they have not.
    pub recovered: Option<Duration>,
    /// The sick organization's jobs that have run in the end, each once.
    pub ran: usize,
    /// What `jitctl why` said of one of them just before the cause ended.
    pub why: String,
    /// Where its logs are, if they were kept.
    pub kept: Option<PathBuf>,
}

impl Outcome {
    /// The bounds that it broke, in words.
    #[must_use]
    pub fn broken(&self) -> Vec<&'static str> {
        let bounds = [
            (self.pods > COST, "pods"),
            (self.registrations > COST, "registrations"),
            (self.wait.p99 > WAIT_MS, "the others' wait"),
            (self.unserved > 0, "others' jobs without a runner"),
            (self.recovered.is_none(), "recovery"),
        ];
        bounds
            .into_iter()
            .filter_map(|(broken, word)| broken.then_some(word))
            .collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            pods,
            registrations,
            wait,
            to_start,
            ran,
            ..
        } = self;
        let recovered = self.recovered.map_or_else(
            || format!("{ran} of {JOBS}"),
            |took| format!("{:.1} s", took.as_secs_f64()),
        );
        let [p50, p99, start] = [wait.p50, wait.p99, to_start.p99].map(|ms| format!("{:.2} s", seconds(ms)));
        write!(
            f,
            "{name:<12} {pods:>5} {registrations:>13} {p50:>11} {p99:>9} {start:>9} {recovered:>10}  {}",
            self.broken().join(", ")
        )?;
        write!(f, "\n             why: {}", self.why)?;
        self.kept
            .iter()
            .try_for_each(|kept| write!(f, "\n             logs: {}", kept.display()))
    }
}

/// Plays one.
///
/// # Errors
/// When the stack does not come up, or does not do as it is told.
pub async fn play(sickness: &Sickness, plan: &Plan) -> anyhow::Result<Outcome> {
    let env = plan.env.iter().cloned().chain(sickness.env()).collect();
    let options = Options {
        orgs: ORGS,
        workers: 2,
        backend: plan.backend.clone(),
        gate: true,
        env,
        ..Options::default()
    };
    let stack = Stack::start(&options).await?;
    let outcome = match (course(&stack, sickness, plan).await, &plan.keep) {
        (Ok(outcome), Some(keep)) if !outcome.broken().is_empty() => {
            keep_logs(&stack, &keep.join(sickness.name)).map(|kept| Outcome { kept, ..outcome })
        }
        (outcome, _) => outcome,
    };
    stack.stop().await;
    outcome
}

async fn course(stack: &Stack, sickness: &Sickness, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut others = Others::new(sickness);
    // One of each first, so that nobody's first call is measured.
    for _ in 0..others.repos.len() {
        others.job(stack).await?;
    }
    let warm = std::mem::take(&mut others.jobs);
    until_over(stack, &warm, Duration::from_secs(60))
        .await
        .context("a job of each organization, before the sickness")?;

    sickness.begin(stack).await?;
    let job =
        json!({ "org": SICK.org(), "repo": SICK.repo, "labels": ["code-linux"], "duration_ms": 50, "count": JOBS });
    let sick = stack.create_jobs(&job).await?;
    let (began, mut tick) = (Instant::now(), interval(plan.every));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < plan.lasts {
        tick.tick().await;
        others.job(stack).await?;
    }
    let why = why(stack, &sick).await?;
    sickness.end(stack).await?;
    let ended = Instant::now();
    let recovered = loop {
        tick.tick().await;
        if over(stack, &sick).await? == JOBS {
            break Some(ended.elapsed()).filter(|took| *took <= plan.recovery);
        }
        if ended.elapsed() > plan.recovery {
            break None;
        }
        others.job(stack).await?;
    };
    // The last ones of the others have a while; who has no runner then has none.
    let _ = until_over(stack, &others.jobs, plan.recovery / 3).await;
    measure(stack, sickness.name, &sick, &others.jobs, recovered, why).await
}

/// The healthy: two jobs a second over nine organizations, and the sick one's other repository where one repository is
/// sick.
struct Others {
    repos: Vec<(String, &'static str)>,
    jobs: Vec<u64>,
    made: usize,
}

impl Others {
    fn new(sickness: &Sickness) -> Self {
        let mut repos: Vec<_> = (1..=ORGS)
            .filter(|number| *number != SICK.number)
            .map(|number| (load::org(number), "app"))
            .collect();
        if sickness.by_repository() {
            repos.push((SICK.org(), "app"));
        }
        Self {
            repos,
            jobs: Vec::new(),
            made: 0,
        }
    }

    async fn job(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let (org, repo) = &self.repos[self.made % self.repos.len()];
        self.made += 1;
        let job = json!({ "org": org, "repo": repo, "labels": ["code-linux"], "duration_ms": 200 });
        self.jobs.extend(stack.create_jobs(&job).await?);
        Ok(())
    }
}

async fn jobs(stack: &Stack) -> anyhow::Result<Vec<Value>> {
    let answer = stack.get(&format!("{}/_control/jobs", stack.github_url)).await?;
    Ok(answer["jobs"].as_array().cloned().unwrap_or_default())
}

/// How many of these jobs have run, each once.
async fn over(stack: &Stack, ids: &[u64]) -> anyhow::Result<usize> {
    let ran = |job: &&Value| {
        job["state"] == "completed" && job["starts"] == 1 && job["id"].as_u64().is_some_and(|id| ids.contains(&id))
    };
    Ok(jobs(stack).await?.iter().filter(ran).count())
}

async fn until_over(stack: &Stack, ids: &[u64], within: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let over = over(stack, ids).await?;
        if over == ids.len() {
            return Ok(());
        }
        anyhow::ensure!(
            began.elapsed() < within,
            "{over} of {} have run after {} s",
            ids.len(),
            within.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is told of the first of these jobs that still waits.
async fn why(stack: &Stack, ids: &[u64]) -> anyhow::Result<String> {
    let all = jobs(stack).await?;
    let waits = |job: &&Value| job["state"] == "queued" && job["id"].as_u64().is_some_and(|id| ids.contains(&id));
    let Some(id) = all.iter().find(waits).map(|job| job["id"].to_string()) else {
        return Ok("none of them waits".into());
    };
    let told = stack.jitctl(&["why", &id]).await?;
    Ok(told["why"].as_str().map_or_else(|| told.to_string(), str::to_owned))
}

async fn measure(
    stack: &Stack,
    name: &'static str,
    sick: &[u64],
    others: &[u64],
    recovered: Option<Duration>,
    why: String,
) -> anyhow::Result<Outcome> {
    let all = jobs(stack).await?;
    let theirs: Vec<&Value> = all
        .iter()
        .filter(|job| job["id"].as_u64().is_some_and(|id| others.contains(&id)))
        .collect();
    let span = |job: &&Value, to: &str| {
        Some(
            job["times"][to]
                .as_u64()?
                .saturating_sub(job["times"]["sent"].as_u64()?),
        )
    };
    let spans = |to: &str| Percentiles::of(theirs.iter().filter_map(|job| span(job, to)).collect());
    let summary = stack.summary().await?;
    // Where one repository is sick its neighbour's runners count for the same organization: one each of its jobs.
    let neighbours = theirs.iter().filter(|job| job["org"] == SICK.org().as_str()).count() as u64;
    let counted = |count: u64| count.saturating_sub(neighbours + u64::from(neighbours > 0));
    Ok(Outcome {
        name,
        pods: counted(stack.network.asked("pods", &SICK.org())),
        registrations: counted(summary["orgs"][SICK.org()]["jit_requests"].as_u64().unwrap_or(0)),
        wait: spans("requested"),
        to_start: spans("started"),
        unserved: theirs.iter().filter(|job| job["starts"] == 0).count(),
        recovered,
        ran: over(stack, sick).await?,
        why,
        kept: None,
    })
}

fn keep_logs(stack: &Stack, dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for part in &stack.parts {
        if let Some(name) = part.log().file_name() {
            std::fs::copy(part.log(), dir.join(name))?;
        }
    }
    Ok(Some(dir.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_broken_by_one_more_than_is_allowed() {
        let well = Outcome {
            name: "409",
            pods: COST,
            registrations: COST,
            wait: Percentiles {
                count: 90,
                p50: 40,
                p90: 60,
                p99: WAIT_MS,
                max: 9000,
            },
            to_start: Percentiles::default(),
            unserved: 0,
            recovered: Some(Duration::from_secs(3)),
            ran: JOBS,
            why: "GitHub refused".into(),
            kept: None,
        };
        assert!(well.broken().is_empty());
        assert_eq!(
            well.to_string(),
            "409             35            35      0.04 s    3.00 s    0.00 s      3.0 s  \n             why: GitHub \
             refused"
        );
        let wait = Percentiles {
            p99: WAIT_MS + 1,
            ..well.wait
        };
        let broken = Outcome {
            pods: COST + 1,
            registrations: COST + 1,
            wait,
            unserved: 1,
            recovered: None,
            ran: 7,
            ..well
        };
        assert_eq!(
            broken.broken(),
            [
                "pods",
                "registrations",
                "the others' wait",
                "others' jobs without a runner",
                "recovery"
            ]
        );
        assert!(broken.to_string().contains(" 7 of 10 "));
    }
}
