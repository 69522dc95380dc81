//! Takes over what other consumers of a stream hold.

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use redis::{
    AsyncCommands, Script,
    streams::{StreamAutoClaimReply, StreamClaimReply, StreamInfoConsumersReply, StreamPendingCountReply},
};

use super::{Entry, GROUP, ensure_group, entry::present};
use crate::{
    ledger::LedgerError,
    store::{Pool, rights::guarded},
};

static FORGET: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/forget.lua")));

/// Claims up to `count` entries that another consumer has held for longer than `idle`.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn claim_abandoned(
    pool: &Pool,
    stream: &str,
    consumer: &str,
    idle: Duration,
    count: usize,
) -> Result<Vec<Entry>, LedgerError> {
    let mut connection = pool.get().await?;
    ensure_group(&mut connection, stream).await?;
    let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let mut command = redis::cmd("XAUTOCLAIM");
    command
        .arg(stream)
        .arg(GROUP)
        .arg(consumer)
        .arg(idle)
        .arg("0")
        .arg("COUNT")
        .arg(count);
    let reply: StreamAutoClaimReply = command.query_async(&mut connection).await?;
    Ok(present(reply.claimed))
}

/// Ids of up to `count` entries of each consumer that is not among the living; a dead one that holds nothing is
/// forgotten.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn held_by_dead(
    pool: &Pool,
    stream: &str,
    consumer: &str,
    living: &HashSet<String>,
    count: usize,
) -> Result<Vec<String>, LedgerError> {
    let mut connection = pool.get().await?;
    ensure_group(&mut connection, stream).await?;
    let consumers: StreamInfoConsumersReply = connection.xinfo_consumers(stream, GROUP).await?;
    let mut held = Vec::new();
    for dead in consumers
        .consumers
        .into_iter()
        .filter(|other| other.name != consumer && !living.contains(&other.name))
    {
        if dead.pending == 0 {
            // Only while it holds nothing: deleting a consumer would discard what it held.
            let _: i64 = FORGET.arg(stream).arg(&dead.name).invoke_async(&mut connection).await?;
            continue;
        }
        let pending: StreamPendingCountReply = connection
            .xpending_consumer_count(stream, GROUP, "-", "+", count, &dead.name)
            .await?;
        held.extend(pending.ids.into_iter().map(|entry| entry.id));
    }
    Ok(held)
}

/// Claims these entries, whoever holds them. Those that are not pending any more are left out.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn claim(pool: &Pool, stream: &str, consumer: &str, ids: &[String]) -> Result<Vec<Entry>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = pool.get().await?;
    let reply: StreamClaimReply = connection.xclaim(stream, GROUP, consumer, 0, ids).await?;
    Ok(present(reply.ids))
}

/// Claims up to `count` entries of each consumer that is not among the living.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn claim_from_dead(
    pool: &Pool,
    stream: &str,
    consumer: &str,
    living: &HashSet<String>,
    count: usize,
) -> Result<Vec<Entry>, LedgerError> {
    let held = held_by_dead(pool, stream, consumer, living, count).await?;
    claim(pool, stream, consumer, &held).await
}
