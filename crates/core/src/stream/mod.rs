//! The streams between the processes: job events, reservations to provision, ticks, dead letters.
//!
//! Each has one consumer group, `workers`, with one consumer a process. An entry is acknowledged and deleted only after
//! its effect is in the ledger, so `XLEN` is the backlog. What a dead worker held is claimed by another
//! ([`claim_abandoned`]) and applied again, which is harmless: every transition is idempotent. An entry that cannot be
//! read or applied goes to the [`dead_letters`] and stops nothing. Every entry has a version `v`; a release reads its
//! own and the one before.
//!
//! The rooms: `entry` is one entry, and what is read from it; `reader` waits for new ones; `claim` takes over what dead
//! workers held; [`poison`] finds the entries over which they die; [`dead_letters`] keeps those for a person. What
//! writes more than one key is a script in `lua/`.

use std::{sync::LazyLock, time::Duration};

use redis::{AsyncCommands, RedisResult, Script, aio::ConnectionLike};

use crate::{
    event::JobEvent,
    ledger::{LedgerError, keys},
    store::{Pool, rights::guarded},
};

mod claim;
pub mod dead_letters;
mod entry;
pub mod poison;
mod reader;

pub use claim::{claim, claim_abandoned, claim_from_dead, held_by_dead};
pub use entry::{Entry, Unreadable};
pub use reader::Reader;

/// Job events, from the receiver to intake.
pub const EVENTS: &str = keys::JIT_EVENTS;
/// Reservations, from admission to provision.
pub const PROVISION: &str = keys::JIT_PROVISION;
/// Ticks, from beat to maintenance.
pub const TICKS: &str = keys::JIT_TICKS;
/// Entries that could not be read or applied.
pub const DEAD: &str = keys::JIT_DEAD;
/// The consumer group of each stream.
pub const GROUP: &str = "workers";
/// Version of the entries that this release writes, and the highest that it reads.
pub const VERSION: u32 = 1;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/publish.lua")));
static EMIT_TICK: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/tick.lua")));
static ACKNOWLEDGE: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/acknowledge.lua")));

/// Appends an event in one round trip. `None` when the backlog is full, and then nothing was written.
///
/// # Errors
/// When Redis did not take it; it may still have, and the event may come twice.
pub async fn publish<C: ConnectionLike>(
    connection: &mut C,
    event: &JobEvent,
    delivery: &str,
    backlog_limit: u64,
) -> RedisResult<Option<String>> {
    let json = serde_json::to_string(event).map_err(|error| {
        redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "event", error.to_string()))
    })?;
    PUBLISH
        .arg(backlog_limit)
        .arg(VERSION)
        .arg(json)
        .arg(delivery)
        .invoke_async(connection)
        .await
}

/// Emits a tick of a kind unless somebody did within `interval`. Whether it did.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn emit_tick<C: ConnectionLike + Send>(
    connection: &mut C,
    kind: &str,
    interval: Duration,
) -> RedisResult<bool> {
    // A little less than the interval, or a beat that is a millisecond early would speak every second time only.
    let lock = (interval.as_millis() * 9 / 10).max(1);
    EMIT_TICK
        .arg(kind)
        .arg(u64::try_from(lock).unwrap_or(u64::MAX))
        .arg(VERSION)
        .invoke_async(connection)
        .await
}

/// Emits a tick whatever beat does: for what an operator wants now.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn tick_now<C: ConnectionLike + Send>(connection: &mut C, kind: &str) -> RedisResult<()> {
    redis::cmd("XADD")
        .arg(TICKS)
        .arg("*")
        .arg("v")
        .arg(VERSION)
        .arg("kind")
        .arg(kind)
        .exec_async(connection)
        .await
}

/// Acknowledges entries whose effect is in the ledger, and deletes them.
///
/// # Errors
/// When Redis cannot be reached; they are then handed out again, which is harmless.
pub async fn acknowledge(pool: &Pool, stream: &str, ids: &[String]) -> Result<(), LedgerError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut connection = pool.get().await?;
    Ok(ACKNOWLEDGE.arg(stream).arg(ids).invoke_async(&mut connection).await?)
}

async fn ensure_group<C: ConnectionLike + Send + Sync>(connection: &mut C, stream: &str) -> RedisResult<()> {
    let created: RedisResult<()> = connection.xgroup_create_mkstream(stream, GROUP, "0").await;
    match created {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        other => other,
    }
}
