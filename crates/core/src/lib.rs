//! What every process of JIT Runner Manager shares: the ledger and its streams in Redis, the configuration, the logs.
//!
//! The rooms: [`ledger`] holds the truth about jobs and runners, and every rule that admission keeps; [`stream`]
//! carries events, reservations and ticks between the processes, and [`dead_letters`] keeps what cannot be applied;
//! [`event`] and [`class`] are what travels; [`config`] reads the environment; [`operator`] is what people may order
//! and [`render`] how they are answered; [`process`] starts and stops a binary. Nothing here knows of Kubernetes,
//! GitHub's API or HTTP.

pub mod class;
pub mod config;
pub mod dead_letters;
pub mod event;
pub mod labels;
pub mod ledger;
pub mod names;
pub mod operator;
pub mod poison;
pub mod probe;
pub mod process;
pub mod render;
pub mod store;
pub mod stream;
pub mod telemetry;
