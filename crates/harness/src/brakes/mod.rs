//! `make brakes`: ten organizations, one of them sick. What is refused for ever must cost little, hold back nobody
//! else, and be over soon after its cause is gone.
//!
//! The default settings, two workers, a real API server. The sick organization queues ten jobs at the start; the nine
//! others have two jobs a second together, from before the sickness until after it. `sickness` says what can be wrong,
//! `course` plays it and measures.

pub mod course;
pub mod sickness;

use std::path::PathBuf;

use anyhow::bail;

pub use course::{Outcome, Plan, play};

use crate::stack::{Backend, load};

/// Whose sickness it is.
pub(crate) struct Patient {
    number: usize,
    repo: &'static str,
}

/// The sick organization, and the repository of its ten jobs.
pub(crate) const SICK: Patient = Patient {
    number: 1,
    repo: "sick",
};

impl Patient {
    fn org(&self) -> String {
        load::org(self.number)
    }
}

/// Organizations in all.
pub const ORGS: usize = 10;
/// Jobs of the sick organization.
pub const JOBS: usize = 10;
/// Pods, and calls that register a runner, that these jobs may cost from their begin to their end; each counts when it
/// is asked for, also where it is refused.
pub const COST: u64 = 35;
/// What 99 of 100 jobs of the others may wait, ms, from their webhook to the call that registers a runner for them.
pub const WAIT_MS: u64 = 3000;

/// Which sicknesses to play.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which (comma): the usual thirteen without it, `all`, or names; an unknown one prints the list
    #[arg(long, value_delimiter = ',')]
    pub sick: Vec<String>,
    /// How long each lasts, in seconds
    #[arg(long, default_value_t = 45)]
    pub seconds: u64,
    /// Where runners run: kubernetes (the cluster of $KUBECONFIG), or process for what GitHub alone does
    #[arg(long, default_value = "kubernetes")]
    pub backend: String,
    /// Where the logs of a sickness are kept that broke a bound
    #[arg(long, default_value = "target/brakes")]
    pub keep: PathBuf,
}

/// Plays them and prints a row for each.
///
/// # Errors
/// When a bound is broken, or one cannot be played.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let backend = match args.backend.as_str() {
        "process" => Backend::Process,
        "kubernetes" => Backend::Kubernetes,
        other => bail!("--backend {other:?}: use process or kubernetes"),
    };
    let plan = Plan {
        backend,
        keep: Some(args.keep),
        ..Plan::judged(args.seconds)
    };
    println!(
        "allowed: {COST} pods, {COST} registrations, p99 {:.1} s, recovered in {} s",
        seconds(WAIT_MS),
        plan.recovery.as_secs()
    );
    println!(
        "{:<12} {:>5} {:>13} {:>11} {:>9} {:>9} {:>10}  broken",
        "sickness", "pods", "registrations", "others p50", "p99", "to start", "recovered"
    );
    let mut failed = Vec::new();
    for sickness in sickness::named(&args.sick)? {
        match play(&sickness, &plan).await {
            Ok(outcome) => {
                println!("{outcome}");
                if !outcome.broken().is_empty() {
                    failed.push(sickness.name);
                }
            }
            Err(error) => {
                println!("{:<12} could not be played to its end: {error:#}", sickness.name);
                failed.push(sickness.name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "a bound is broken: {}; `make brakes SICK={}` plays one again",
        failed.join(", "),
        failed[0]
    );
}

/// ms as seconds.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
