//! The command line.

use clap::{Parser, Subcommand};
use jit_core::{event::JobId, store::RedisArgs};

use crate::{
    commands::{dead, limits, lists, orders},
    ctl::Output,
    names::{org, runner},
};

/// What the system does, and why; and what an operator wants changed.
///
/// Exit status: 0 done, 1 it is not so or cannot be done, 2 the command line is wrong.
#[derive(Parser)]
#[command(name = "jitctl", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    /// How to print: a table for people, JSON for scripts
    #[arg(long, short, global = true, default_value = "table")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The whole at a glance, or one organization
    Status {
        /// Organization or user
        #[arg(value_parser = org)]
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
        #[arg(long, value_parser = org)]
        org: Option<String>,
    },
    /// Jobs that are not over, oldest first
    Jobs(lists::JobsArgs),
    /// Limits of organizations: shows them all, or sees and changes one
    Limits {
        #[command(subcommand)]
        command: Option<limits::Command>,
    },
    /// Makes no runner more for an organization until it is resumed; those that run go on
    Pause(orders::PauseArgs),
    /// Makes runners for an organization again
    Resume {
        /// Organization or user
        #[arg(value_parser = org)]
        org: String,
    },
    /// Has what holds a queued job back tried again now, by one runner; but for a time that GitHub has named
    Retry {
        /// GitHub's id of the job
        job: JobId,
    },
    /// Removes a runner, at GitHub first, then its pod; one that GitHub calls busy lives on
    Remove {
        /// Its name, as `jitctl runners` shows it
        #[arg(value_parser = runner)]
        runner: String,
        /// Ends its pod whatever GitHub says, also under a job: where nobody serves its owner any more, say
        #[arg(long)]
        force: bool,
    },
    /// Frees the slots of all runners at a place that is gone for good (a cluster, a namespace, a host); jitctl doctor
    /// names such places
    GiveUp {
        /// As doctor writes it
        place: String,
    },
    /// Makes a worker compare the ledger with the real runners now
    Reconcile,
    /// Dead letters: entries that could not be applied
    Dead {
        #[command(subcommand)]
        command: dead::Command,
    },
    /// Checks the ledger's invariants on the live store, and Redis's settings; exit status 1 when one does not hold, or
    /// no process would start
    Doctor,
}
