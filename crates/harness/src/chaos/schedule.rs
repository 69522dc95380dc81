//! A schedule: a load of jobs and the faults that strike it, all drawn from one seed. The same seed is the same
//! schedule.

use std::fmt;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::stack::{load, proxy::Mode};

/// The load and most faults come within so many ms.
pub const LOAD_MS: u64 = 10_000;
/// Runners that an organization may have.
pub const LIMIT: usize = 3;
/// Runners that the first organization may have: a limit of its own, which has to hold after lost data too.
pub const LIMIT_OF_FIRST: usize = 2;
/// Runners in all.
pub const MAXIMUM: usize = 10;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A part is killed with -9, and started again at the end.
    Kill(String),
    /// A part stands still.
    Pause(String),
    /// Redis loses all that it holds.
    RedisEmptied,
    /// The way of a part to Redis.
    RedisWay(String, Mode),
    /// Connections of a part to Redis are reset, once.
    RedisCut(String),
    /// The ways of all workers to the API server.
    ApiServer(Mode),
    /// All watches are cut, once.
    WatchCut,
    /// The first worker's watch ends with 410 Gone.
    WatchGone,
    /// A fault of the simulated GitHub, in its own words.
    Github(&'static str, Value),
    /// A fault of the simulated kubelet, in its own words.
    Pods(Value),
    /// The node goes, with all that runs on it.
    NodeGone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(part) => write!(f, "kill {part}"),
            Self::Pause(part) => write!(f, "pause {part}"),
            Self::RedisEmptied => write!(f, "redis emptied"),
            Self::RedisWay(part, mode) => write!(f, "{part}-redis {}", word(*mode)),
            Self::RedisCut(part) => write!(f, "{part}-redis cut"),
            Self::ApiServer(mode) => write!(f, "api server {}", word(*mode)),
            Self::WatchCut => write!(f, "watch cut"),
            Self::WatchGone => write!(f, "watch 410"),
            Self::Github(name, _) => write!(f, "{name}"),
            Self::Pods(fault) => write!(f, "pods {}", fault["fault"].as_str().unwrap_or_default()),
            Self::NodeGone => write!(f, "node gone"),
        }
    }
}

fn word(mode: Mode) -> String {
    match mode {
        Mode::Pass => "pass".into(),
        Mode::Refuse => "away".into(),
        Mode::Reset => "resets".into(),
        Mode::Blackhole => "silent".into(),
        Mode::Half => "without answers".into(),
        Mode::Latency(time) => format!("{} ms late", time.as_millis()),
        Mode::CutAfter(bytes) => format!("cut after {bytes} B"),
    }
}

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// Its begin, ms after the load's.
    pub from_ms: u64,
    /// Its end; the same for what happens once.
    pub to_ms: u64,
}

/// Everything that is drawn from a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The seed.
    pub seed: u64,
    /// Organizations.
    pub orgs: usize,
    /// Workers.
    pub workers: usize,
    /// The webhooks are those of organizations, whose deliveries GitHub repeats when it is asked; else one for all, and
    /// the sweep finds what it lost.
    pub hooks: bool,
    /// How many seconds each worker's clock is ahead.
    pub clocks: Vec<i64>,
    /// Jobs by the time at which they are created, ms.
    pub waves: Vec<(u64, Vec<Value>)>,
    /// Faults by their begin.
    pub faults: Vec<Planned>,
}

impl Schedule {
    /// Draws a schedule.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (orgs, workers) = (rng.usize(4..=8), rng.usize(2..=3));
        let hooks = rng.bool();
        let waves = waves(&mut rng, orgs);
        let clocks = if rng.u8(0..3) == 0 {
            let ahead = if rng.bool() { 150 } else { -150 };
            (0..workers).map(|n| if n % 2 == 0 { ahead } else { -ahead }).collect()
        } else {
            Vec::new()
        };
        let mut faults: Vec<Planned> = (0..rng.usize(3..=6)).map(|_| plan(&mut rng, workers, orgs)).collect();
        faults.sort_by_key(|planned| planned.from_ms);
        Self {
            seed,
            orgs,
            workers,
            hooks,
            clocks,
            waves,
            faults,
        }
    }

    /// Jobs in all.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.waves.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    /// Its faults, in short.
    #[must_use]
    pub fn in_short(&self) -> String {
        let mut words: Vec<_> = self.faults.iter().map(|planned| planned.fault.to_string()).collect();
        if !self.clocks.is_empty() {
            words.push("clocks 5 min apart".into());
        }
        words.join(", ")
    }
}

/// 60 to 100 jobs, a fifth of them in one burst, a quarter with a label more.
fn waves(rng: &mut Rng, orgs: usize) -> Vec<(u64, Vec<Value>)> {
    let count = usize::try_from(LOAD_MS / 250).unwrap_or(1);
    let mut waves: Vec<(u64, Vec<Value>)> = (0..count as u64).map(|wave| (wave * 250, Vec::new())).collect();
    let burst = rng.usize(0..count);
    for _ in 0..rng.usize(60..=100) {
        let wave = if rng.u8(0..5) == 0 { burst } else { rng.usize(0..count) };
        let labels: &[&str] = if rng.u8(0..4) == 0 {
            &["code-linux", "gpu"]
        } else {
            &["code-linux"]
        };
        let job = json!({ "org": load::org(rng.usize(1..=orgs)), "repo": format!("app-{}", rng.u8(1..4)),
            "labels": labels, "duration_ms": rng.u64(50..1500) });
        waves[wave].1.push(job);
    }
    waves
}

fn plan(rng: &mut Rng, workers: usize, orgs: usize) -> Planned {
    let from_ms = rng.u64(0..LOAD_MS * 9 / 10);
    let fault = fault(rng, workers, orgs);
    let lasts = match fault {
        Fault::RedisEmptied | Fault::RedisCut(_) | Fault::WatchCut | Fault::WatchGone => 0,
        // Longer than a worker is waited for, now and then.
        Fault::Pause(_) => rng.u64(500..6000),
        Fault::NodeGone => rng.u64(1000..3000),
        _ => rng.u64(200..4000),
    };
    Planned {
        fault,
        from_ms,
        to_ms: from_ms + lasts,
    }
}

fn fault(rng: &mut Rng, workers: usize, orgs: usize) -> Fault {
    let worker = format!("worker-{}", rng.usize(1..=workers));
    match rng.u8(0..24) {
        0..=3 => Fault::Kill(worker),
        4 => Fault::Kill("beat".into()),
        5 => Fault::Kill("receiver".into()),
        6 | 7 => Fault::Kill("redis".into()),
        8 => Fault::Kill("kubelet".into()),
        9 | 10 => Fault::Pause(worker),
        11 => Fault::Pause("redis".into()),
        12 => Fault::RedisEmptied,
        13 => Fault::RedisWay(worker, way(rng)),
        14 => Fault::RedisCut(worker),
        15 => Fault::ApiServer(way(rng)),
        16 => [Fault::WatchCut, Fault::WatchGone][rng.usize(0..2)].clone(),
        17 => Fault::NodeGone,
        18 | 19 => pods(rng),
        20 => webhooks(rng),
        _ => github(rng, orgs),
    }
}

fn way(rng: &mut Rng) -> Mode {
    match rng.u8(0..6) {
        0 => Mode::Refuse,
        1 => Mode::Reset,
        2 => Mode::Blackhole,
        3 => Mode::Half,
        4 => Mode::Latency(std::time::Duration::from_millis(rng.u64(20..400))),
        _ => Mode::CutAfter(rng.u64(100..20_000)),
    }
}

fn pods(rng: &mut Rng) -> Fault {
    let kind = ["never_start", "unschedulable", "image_pull_error", "evict", "die"][rng.usize(0..5)];
    Fault::Pods(json!({ "fault": kind, "probability": 0.3, "count": rng.u64(1..4), "after_ms": rng.u64(0..800) }))
}

fn webhooks(rng: &mut Rng) -> Fault {
    let delay = rng.u64(500..6000);
    match rng.u8(0..6) {
        0 => Fault::Github(
            "webhooks doubled",
            json!({ "fault": "webhook_double", "probability": 0.7 }),
        ),
        1 => Fault::Github(
            "webhooks late",
            json!({ "fault": "webhook_delay", "delay_ms": delay, "probability": 0.5 }),
        ),
        2 => Fault::Github(
            "webhooks dropped",
            json!({ "fault": "webhook_drop", "probability": 0.3 }),
        ),
        3 => Fault::Github(
            "in_progress dropped",
            json!({ "fault": "webhook_drop", "action": "in_progress", "probability": 0.4 }),
        ),
        4 => Fault::Github(
            "completed dropped",
            json!({ "fault": "webhook_drop", "action": "completed", "probability": 0.4 }),
        ),
        _ => Fault::Github(
            "webhooks shuffled",
            json!({ "fault": "webhook_shuffle", "delay_ms": 2000 }),
        ),
    }
}

fn github(rng: &mut Rng, orgs: usize) -> Fault {
    let probability = [0.3, 0.7, 1.0][rng.usize(0..3)];
    let (name, mut fault) = match rng.u8(0..9) {
        0 => ("github 503", json!({ "fault": "rest_status", "status": 503 })),
        1 => (
            "github 500 performed",
            json!({ "fault": "rest_status", "status": 500, "performed": true }),
        ),
        2 => ("github 429", json!({ "fault": "rest_status", "status": 429 })),
        3 => (
            "github 429 retry-after",
            json!({ "fault": "rest_status", "status": 429, "retry_after": 2 }),
        ),
        4 => (
            "github 403 rate limit",
            json!({ "fault": "rest_status", "status": 403, "rate_limit": true, "retry_after": 3 }),
        ),
        5 => (
            "github 403",
            json!({ "fault": "rest_status", "status": 403, "org": load::org(rng.usize(1..=orgs)) }),
        ),
        6 => (
            "github slow",
            json!({ "fault": "rest_slow", "delay_ms": rng.u64(300..4000) }),
        ),
        7 => ("github garbage", json!({ "fault": "rest_garbage" })),
        _ => ("github cut", json!({ "fault": "rest_cut" })),
    };
    fault["probability"] = json!(probability);
    Fault::Github(name, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_schedule_and_every_fault_is_drawn() {
        assert_eq!(Schedule::draw(7), Schedule::draw(7));
        assert_ne!(Schedule::draw(7), Schedule::draw(8));
        let drawn: String = (0..400).map(|seed| Schedule::draw(seed).in_short() + ", ").collect();
        for word in [
            "kill worker-3",
            "kill beat",
            "kill receiver",
            "kill redis",
            "kill kubelet",
            "pause worker-1",
            "pause redis",
            "redis emptied",
            "-redis away",
            "-redis silent",
            "-redis without answers",
            "-redis resets",
            "ms late",
            "-redis cut after",
            "api server away",
            "watch cut",
            "watch 410",
            "node gone",
            "never_start",
            "unschedulable",
            "image_pull_error",
            "evict",
            "pods die",
            "doubled",
            "webhooks late",
            "webhooks dropped",
            "shuffled",
            "github 503",
            "performed",
            "github 429,",
            "429 retry-after",
            "403 rate limit",
            "github 403,",
            "github slow",
            "garbage",
            "github cut",
            "clocks 5 min apart",
        ] {
            assert!(drawn.contains(word), "{word} is never drawn");
        }
    }
}
