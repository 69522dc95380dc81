//! The worker: makes just-in-time runners, watches them and removes them.
//!
//! Every replica runs the same loops, and any of them may die at any line; the ledger's deadlines and the streams'
//! pending lists hand on what it held. [`loops`] draws the way of a job through them, and says in which order they
//! start and stop. [`context`] holds what they share.

pub mod budget;
pub mod calls;
pub mod choice;
pub mod config;
pub mod context;
pub mod credentials;
pub mod loops;
pub mod metrics;
mod permits;
pub mod provision;
pub mod rates;
pub mod retry;
pub mod run;
pub mod search;
pub mod step;

pub use context::Worker;
