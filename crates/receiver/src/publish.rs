//! The way into `jit:events`: one shared connection, replaced when it can no longer be trusted.
//!
//! The first failure is tried again once, on a new connection, if it came fast and another connection may fare better:
//! a restart or a failover of Redis that is over by then costs no webhook. The event may so be published twice, which
//! is harmless.

use std::time::Duration;

use jit_core::{
    event::JobEvent,
    store::{self, RedisSettings, SharedConnection, error::wants_another_connection},
    stream,
};
use redis::RedisResult;
use tokio::time::{Instant, timeout};

/// A failure that took no longer is tried again.
const FAST: Duration = Duration::from_secs(1);

/// A connection of this age is up, or will never be.
const SETTLED: Duration = Duration::from_secs(3);

/// Publishes job events and ticks.
pub struct Publisher(SharedConnection);

impl Publisher {
    /// Connects when it is first used.
    #[must_use]
    pub fn new(settings: &RedisSettings) -> Self {
        Self(store::publisher(settings))
    }

    /// Appends an event, and says whether there was room for it. `true` only when Redis has it.
    ///
    /// # Errors
    /// When Redis did not take it, also not the second time.
    pub async fn publish(&self, event: &JobEvent, delivery: &str, backlog_limit: u64) -> RedisResult<bool> {
        let started = Instant::now();
        let publish = async || {
            stream::publish(&mut self.0.clone(), event, delivery, backlog_limit)
                .await
                .map(|id| id.is_some())
        };
        match publish().await {
            Err(error) if started.elapsed() < FAST && wants_another_connection(&error) => {
                tracing::debug!(%error, "publishing failed fast: once more on a new connection");
                publish().await
            }
            result => result,
        }
    }

    /// Appends a tick, whatever beat does: for what an operator wants now.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn tick(&self, kind: &str) -> RedisResult<()> {
        stream::tick_now(&mut self.0.clone(), kind).await
    }

    /// Whether Redis answers on this connection within `limit`.
    pub async fn is_reachable(&self, limit: Duration) -> bool {
        match timeout(limit, redis::cmd("PING").exec_async(&mut self.0.clone())).await {
            Ok(answer) => answer.is_ok(),
            // Silence: it may still be connecting. Only one that had the time for that is given up.
            Err(_) => {
                self.0.replace_older_than(SETTLED);
                false
            }
        }
    }
}
