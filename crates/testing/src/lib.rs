//! What the tests of several crates share: Redis servers, stores, builders, properties, a proxy.
//!
//! A dev-dependency only. `jit-core` uses it in its integration tests and its benchmark, not in its unit tests: those
//! are built against another `jit-core` than this crate, and its types would not be theirs.

#![allow(clippy::unwrap_used, reason = "a test fails where a thing is not as it has to be")]

mod certificates;
mod events;
mod eventually;
mod fuzzing;
mod proxy;
mod redis;
mod runners;
mod sentinel;
mod settings;
mod store;

pub use certificates::certificates;
pub use events::{class, completed, in_progress, queued, waiting};
pub use eventually::eventually;
pub use fuzzing::fuzz;
pub use proxy::{proxy, run_alone};
pub use redis::{RedisServer, fresh_redis, run};
pub use runners::{failed, listed, maker, refused, unexplained};
pub use sentinel::SentinelGroup;
pub use settings::{default_limits, github_settings};
pub use store::{Store, still_queued, why};
