//! What every process of JIT Runner Manager shares: the ledger and its streams in Redis, the configuration.
//!
//! The rooms: [`ledger`] holds the truth about jobs and runners, and every rule that admission keeps; [`stream`]
//! carries events, reservations and ticks between the processes, and keeps what cannot be applied; [`model`] holds the
//! states of jobs and runners, [`event`] and [`class`] what travels; [`config`] reads the environment; [`operator`] is
//! what people may order and [`render`] how they are answered; [`store`] makes the connections to Redis. Nothing here
//! speaks HTTP, to GitHub or to Kubernetes.

pub mod class;
pub mod config;
pub mod event;
pub mod labels;
pub mod ledger;
pub mod model;
pub mod names;
pub mod operator;
pub mod render;
pub mod store;
pub mod stream;
