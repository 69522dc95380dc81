//! What every process of JIT Runner Manager shares: the ledger and its streams in Redis, the configuration, the logs.
//!
//! The rooms: [`ledger`] holds the truth about jobs and runners, and every rule that admission keeps; [`stream`] carries events,
//! reservations and ticks between the processes; [`event`] and [`class`] are what travels; [`config`] reads the environment;
//! [`process`] starts and stops a binary. Nothing here knows of Kubernetes, GitHub's API or HTTP.

pub mod class;
pub mod config;
pub mod event;
pub mod labels;
pub mod ledger;
pub mod probe;
pub mod process;
pub mod redis;
pub mod stream;
pub mod telemetry;
