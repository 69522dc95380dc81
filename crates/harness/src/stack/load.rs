//! The load of a busy morning: many small organizations, a few large ones, bursts.

use serde_json::{Value, json};

/// Jobs to create at once, and how long after the start.
pub struct Wave {
    /// ms after the start.
    pub at_ms: u64,
    /// Bodies of `POST /_control/jobs`.
    pub jobs: Vec<Value>,
}

/// Name of the simulated GitHub's nth organization, from 1.
#[must_use]
pub fn org(number: usize) -> String {
    format!("org-{number:04}")
}

/// `jobs` jobs of `orgs` organizations over `seconds`: a third of them belongs to the two largest, and half of those
/// come in one burst.
#[must_use]
pub fn busy_morning(jobs: usize, orgs: usize, seconds: u64, seed: u64) -> Vec<Wave> {
    let mut random = fastrand::Rng::with_seed(seed);
    let waves = (seconds * 4).max(1);
    let mut planned: Vec<Vec<Value>> = vec![Vec::new(); usize::try_from(waves).unwrap_or(1)];
    for number in 0..jobs {
        let owner = if number % 3 == 0 {
            1 + random.usize(0..2.min(orgs))
        } else {
            1 + random.usize(0..orgs)
        };
        let wave = if number % 6 == 0 {
            planned.len() / 4
        } else {
            random.usize(0..planned.len())
        };
        planned[wave].push(
            json!({ "org": org(owner), "repo": format!("app-{}", random.u8(1..4)), "labels": ["code-linux"],
                "duration_ms": random.u64(300..1500) }),
        );
    }
    planned
        .into_iter()
        .enumerate()
        .map(|(index, jobs)| Wave {
            at_ms: index as u64 * 250,
            jobs,
        })
        .collect()
}
