//! Workers: which of them are alive, and which of them works on a tick.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use serde_json::json;

use super::{Ledger, LedgerError, keys, millis, scripts};

/// What a look at Redis's clock found.
#[derive(Deserialize)]
struct Clock {
    /// How far it was set back, in ms.
    #[serde(default)]
    by: Option<i64>,
    #[serde(default)]
    more: bool,
}

impl Ledger {
    /// Says that a worker is alive, and looks at Redis's clock: where it was ahead, what was written meanwhile is put
    /// right.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn heartbeat(&self, worker: &str) -> Result<(), LedgerError> {
        self.look_at_clock(&json!({ "worker": worker })).await
    }

    pub(super) async fn look_at_clock(&self, args: &serde_json::Value) -> Result<(), LedgerError> {
        let mut look: Clock = self.run(&scripts::CLOCK, args).await?;
        if let Some(by) = look.by {
            tracing::warn!(
                seconds = by / 1000,
                "Redis's clock was ahead, and has been set back: what was written meanwhile is put right"
            );
        }
        while look.more {
            look = self.run(&scripts::CLOCK, &json!({})).await?;
        }
        Ok(())
    }

    /// Workers heard of within `within`.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn living_workers(&self, within: Duration) -> Result<HashSet<String>, LedgerError> {
        let since = self.now().await? - i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let mut connection = self.pool().get().await?;
        Ok(redis::AsyncCommands::zrangebyscore(&mut connection, keys::WORKERS_ALIVE, since, "+inf").await?)
    }

    /// A worker that ends by itself is no longer alive.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn retire(&self, worker: &str) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        Ok(redis::AsyncCommands::zrem(&mut connection, keys::WORKERS_ALIVE, worker).await?)
    }

    /// Takes the right to work on a tick of this kind for `for_at_most`; false when somebody is at it.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn take_tick(&self, kind: &str, worker: &str, for_at_most: Duration) -> Result<bool, LedgerError> {
        let mut connection = self.pool().get().await?;
        let taken: i64 = scripts::TAKE_TICK
            .key(keys::tick_work(kind))
            .arg(worker)
            .arg(millis(for_at_most))
            .invoke_async(&mut connection)
            .await?;
        Ok(taken == 1)
    }

    /// Gives that right back.
    ///
    /// # Errors
    /// When Redis is unavailable; it then ends by itself.
    pub async fn end_tick(&self, kind: &str, worker: &str) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        let _: i64 = scripts::END_TICK
            .key(keys::tick_work(kind))
            .arg(worker)
            .invoke_async(&mut connection)
            .await?;
        Ok(())
    }
}
