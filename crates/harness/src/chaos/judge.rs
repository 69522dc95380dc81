//! What has to hold once the faults are over and the system has settled.

use serde_json::Value;

use crate::stack::{PodCount, Stack};

/// Keys of the ledger that hold work which is not done, with the command that counts it.
const WORK: [(&str, &str); 9] = [
    ("XLEN", "jit:events"),
    ("XLEN", "jit:provision"),
    ("XLEN", "jit:dead"),
    ("SCARD", "runners:live"),
    ("ZCARD", "runners:deadlines"),
    ("ZCARD", "jobs:questions"),
    ("ZCARD", "registrations:uncertain"),
    ("ZCARD", "classes:surplus"),
    ("ZCARD", "orgs:ready"),
];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Jobs that never ran.
    pub lost: u64,
    /// Jobs that ran twice.
    pub twice: u64,
    /// A limit was exceeded.
    pub over: u64,
    /// Things that are left over.
    pub left: u64,
    /// Invariants that do not hold.
    pub broken: u64,
    /// Sentences on each.
    pub words: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.lost + self.twice + self.over + self.left + self.broken == 0
    }
}

/// Looks at everything, as it is now.
///
/// # Errors
/// When a part does not answer.
pub async fn judge(stack: &Stack, pods: &PodCount, jobs: u64) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let github = stack.summary().await?;
    let number = |pointer: &str| github.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    // Jobs at work are neither lost nor run; they keep the system from having settled.
    verdict.lost = jobs.saturating_sub(number("/jobs/run"));
    verdict.twice = number("/jobs/run_twice");
    let mut left = |what: &str, count: u64| {
        if count > 0 {
            verdict.left += count;
            verdict.words.push(format!("{what}: {count}"));
        }
    };
    left("runners at GitHub", number("/leftovers/runners"));
    left("jobs in progress at GitHub", number("/leftovers/in_progress"));
    let (pods_left, secrets) = stack.in_cluster().await?;
    left("pods", pods_left as u64);
    left("Secrets", secrets as u64);
    let ledger = stack.ledger().await?;
    left(
        "jobs queued in the ledger",
        ledger["total_pending"].as_u64().unwrap_or(1),
    );
    for (key, count) in work(stack).await? {
        left(key, count);
    }
    if let Some(over) = pods.over() {
        verdict.over += 1;
        verdict.words.push(format!("over a limit: {over}"));
    }
    if verdict.lost > 0 {
        verdict.words.push(format!(
            "jobs that never ran: {} of {jobs}, {}",
            verdict.lost, github["leftovers"]["job_ids"]
        ));
    }
    if verdict.twice > 0 {
        verdict.words.push(format!("jobs that ran twice: {}", verdict.twice));
    }
    // The doctor takes its time: only when all else is well.
    if verdict.clean() {
        let findings = stack.jitctl(&["doctor"]).await?["findings"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        verdict.broken = findings.len() as u64;
        verdict
            .words
            .extend(findings.iter().map(|finding| format!("doctor: {finding}")));
    }
    Ok(verdict)
}

async fn work(stack: &Stack) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut redis = stack.redis().await?;
    let mut pipe = redis::pipe();
    for (command, key) in WORK {
        pipe.cmd(command).arg(key);
    }
    let counts: Vec<u64> = pipe.query_async(&mut redis).await?;
    Ok(WORK.iter().map(|(_, key)| *key).zip(counts).collect())
}
