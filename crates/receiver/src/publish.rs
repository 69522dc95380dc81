//! The way into `jit:events`: one shared connection, replaced when it can no longer be trusted.
//!
//! The connection reconnects by itself when it breaks. It does not notice a Redis that vanished without a word, nor one that became a replica:
//! after a time-out or a refusal it is replaced, which hurts nobody else, since whoever waits on the old one keeps it.
//! The first failure is tried again once, on the new connection, if it came fast: a restart of Redis then costs no webhook. The event may so be
//! published twice, which is harmless.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jit_core::{config::RedisSettings, event::JobEvent, redis as connect, stream};
use redis::{RedisError, RedisResult, aio::ConnectionManager};
use tokio::time::{Instant, timeout};

/// A failure that took no longer is tried again.
const FAST: Duration = Duration::from_secs(1);

/// A connection of this age is up, or will never be.
const SETTLED: Duration = Duration::from_secs(3);

/// Publishes job events and ticks.
pub struct Publisher {
    settings: RedisSettings,
    current: Mutex<Current>,
}

struct Current {
    generation: u64,
    since: Instant,
    connection: ConnectionManager,
}

impl Publisher {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let connection = connect::publisher(settings)?;
        Ok(Self { settings: settings.clone(), current: Mutex::new(Current { generation: 0, since: Instant::now(), connection }) })
    }

    /// Appends an event, and says whether there was room for it. `true` only when Redis has it.
    ///
    /// # Errors
    /// When Redis did not take it, also not the second time.
    pub async fn publish(&self, event: &JobEvent, delivery: &str, backlog_limit: u64) -> RedisResult<bool> {
        let started = Instant::now();
        let publish = async |mut connection| stream::publish(&mut connection, event, delivery, backlog_limit).await;
        let (generation, connection) = self.current();
        let error = match publish(connection).await {
            Ok(id) => return Ok(id.is_some()),
            Err(error) => error,
        };
        self.give_up(generation, &error);
        if started.elapsed() >= FAST || is_final(&error) {
            return Err(error);
        }
        tracing::debug!(%error, "publishing failed fast: once more on a new connection");
        let (generation, connection) = self.current();
        publish(connection).await.map(|id| id.is_some()).inspect_err(|error| self.give_up(generation, error))
    }

    /// Appends a tick, whatever beat does: for what an operator wants now.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn tick(&self, kind: &str) -> RedisResult<()> {
        let (generation, mut connection) = self.current();
        stream::tick_now(&mut connection, kind).await.inspect_err(|error| self.give_up(generation, error))
    }

    /// Whether Redis answers on this connection within `limit`.
    pub async fn is_reachable(&self, limit: Duration) -> bool {
        let (generation, mut connection) = self.current();
        match timeout(limit, redis::cmd("PING").exec_async(&mut connection)).await {
            Ok(answer) => answer.inspect_err(|error| self.give_up(generation, error)).is_ok(),
            // Silence: it may still be connecting. Only one that had the time for that is given up.
            Err(_) => {
                if self.age() > SETTLED {
                    self.replace(generation);
                }
                false
            }
        }
    }

    fn age(&self) -> Duration {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).since.elapsed()
    }

    fn current(&self) -> (u64, ConnectionManager) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.generation, current.connection.clone())
    }

    fn give_up(&self, generation: u64, error: &RedisError) {
        if !is_final(error) {
            self.replace(generation);
        }
    }

    /// Puts a fresh connection in the place of this generation's, unless somebody has done so.
    fn replace(&self, generation: u64) {
        let Ok(connection) = connect::publisher(&self.settings) else { return };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            *current = Current { generation: generation + 1, since: Instant::now(), connection };
        }
    }
}

/// Redis answered, and another connection would get the same answer: it is full, say. Not so one that has become a replica, or wants another password.
fn is_final(error: &RedisError) -> bool {
    const ANOTHER: [&str; 5] = ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS"];
    // Redis 6 wraps the error of a command in a script into one of the script.
    error.code().is_some_and(|code| !ANOTHER.contains(&code) && !error.to_string().contains("READONLY"))
}
