//! Conditions: what is wrong around a process, told by the process itself for as long as it lasts, for `jitctl doctor`.

use std::{collections::BTreeSet, time::Duration};

use redis::pipe;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Ledger, LedgerError, keys, millis};
use crate::config::gone_files;

/// How often a process looks around.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A condition that was not told again for so long is over, or its process is.
const TOLD_FOR: Duration = Duration::from_secs(30);

/// One thing that is wrong around a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// Which process says so.
    pub process: String,
    /// What is wrong.
    pub text: String,
}

impl Ledger {
    /// Conditions that a person has to do something about: those that processes tell, places that no worker lists,
    /// owners whose login is not known.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn conditions(&self) -> Result<Vec<Condition>, LedgerError> {
        let since = self.now().await? - i64::try_from(millis(TOLD_FOR)).unwrap_or_default();
        let mut connection = self.pool().get().await?;
        let told: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg(keys::CONDITIONS)
            .arg(since)
            .arg("+inf")
            .query_async(&mut connection)
            .await?;
        drop(connection);
        let mut conditions: Vec<Condition> = told.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
        conditions.extend(self.unseen_places().await?);
        conditions.extend(self.nameless_owners().await?);
        Ok(conditions)
    }

    async fn tell_conditions(&self, now: &BTreeSet<String>, over: &[String]) -> Result<(), LedgerError> {
        let at = self.now().await?;
        let mut connection = self.pool().get().await?;
        let mut batch = pipe();
        for json in now {
            batch.zadd(keys::CONDITIONS, json, at);
        }
        for json in over {
            batch.zrem(keys::CONDITIONS, json);
        }
        batch
            .cmd("ZREMRANGEBYSCORE")
            .arg(keys::CONDITIONS)
            .arg("-inf")
            .arg(at - i64::try_from(millis(TOLD_FOR)).unwrap_or_default());
        Ok(batch.exec_async(&mut connection).await?)
    }
}

/// Looks around, and tells what is wrong, until `stop`. While all is well it does not talk to Redis.
pub async fn watch(ledger: &Ledger, process: &str, stop: &CancellationToken) {
    let mut told = BTreeSet::new();
    loop {
        let json = |text| {
            serde_json::to_string(&Condition {
                process: process.to_owned(),
                text,
            })
            .unwrap_or_default()
        };
        let now: BTreeSet<String> = gone_files().into_iter().map(json).collect();
        let over: Vec<String> = told.difference(&now).cloned().collect();
        if !now.is_empty() || !over.is_empty() {
            match ledger.tell_conditions(&now, &over).await {
                Ok(()) => told = now,
                Err(error) => tracing::debug!(%error, "conditions could not be told"),
            }
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(LOOK_EVERY) => {} }
    }
}
