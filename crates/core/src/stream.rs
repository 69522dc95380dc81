//! The streams between the processes: job events, reservations to provision, ticks, dead letters.
//!
//! Each has one consumer group, `workers`, with one consumer a process. An entry is acknowledged and deleted only after
//! its effect is in the ledger, so `XLEN` is the backlog. What a dead worker held is claimed by another
//! ([`claim_abandoned`]) and applied again, which is harmless: every transition is idempotent. An entry that cannot be
//! read or applied goes to the [`crate::dead_letters`] and stops nothing. Every entry has a version `v`; a release
//! reads its own and the one before.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
    time::Duration,
};

use redis::{
    AsyncCommands, FromRedisValue, RedisResult, Script, Value,
    aio::ConnectionLike,
    streams::{
        StreamAutoClaimReply, StreamClaimReply, StreamInfoConsumersReply, StreamPendingCountReply, StreamReadReply,
    },
};

use crate::{
    config::RedisSettings,
    event::JobEvent,
    ledger::LedgerError,
    store::{self, Link, Pool, rights::guarded},
};

/// Job events, from the receiver to intake.
pub const EVENTS: &str = "jit:events";
/// Reservations, from admission to provision.
pub const PROVISION: &str = "jit:provision";
/// Ticks, from beat to maintenance.
pub const TICKS: &str = "jit:ticks";
/// Entries that could not be read or applied.
pub const DEAD: &str = "jit:dead";
/// The consumer group of each stream.
pub const GROUP: &str = "workers";
/// Version of the entries that this release writes, and the highest that it reads.
pub const VERSION: u32 = 1;

/// One entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Stream id, `{ms}-{n}`; its first half is the time of acceptance by Redis's clock.
    pub id: String,
    /// Fields.
    pub fields: HashMap<String, String>,
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A release that is newer wrote it, or something else altogether.
    #[error("version {0:?} is not known to this release, which reads up to {VERSION}")]
    Version(Option<String>),
    /// A field is missing.
    #[error("field {0:?} is missing")]
    Missing(&'static str),
    /// A field does not hold what it should.
    #[error("field {0:?} cannot be read: {1}")]
    Invalid(&'static str, String),
}

impl Entry {
    /// A field of an entry of a known version.
    ///
    /// # Errors
    /// When the version is unknown or the field is missing.
    pub fn field(&self, name: &'static str) -> Result<&str, Unreadable> {
        let version = self.fields.get("v");
        if !version
            .and_then(|v| v.parse().ok())
            .is_some_and(|v: u32| (1..=VERSION).contains(&v))
        {
            return Err(Unreadable::Version(version.cloned()));
        }
        self.fields
            .get(name)
            .map(String::as_str)
            .ok_or(Unreadable::Missing(name))
    }

    /// The job event that it holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn job_event(&self) -> Result<JobEvent, Unreadable> {
        serde_json::from_str(self.field("event")?).map_err(|error| Unreadable::Invalid("event", error.to_string()))
    }

    /// When Redis first took it, in ms since 1970: one that was among the dead letters says so itself.
    #[must_use]
    pub fn accepted_at(&self) -> Option<i64> {
        let said = self.fields.get("accepted").and_then(|ms| ms.parse().ok());
        said.or_else(|| self.id.split('-').next().and_then(|ms| ms.parse().ok()))
    }
}

static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    guarded(
        "if redis.call('XLEN', 'jit:events') >= tonumber(ARGV[1]) then return false end return redis.call('XADD', \
         'jit:events', '*', 'v', ARGV[2], 'event', ARGV[3], 'delivery', ARGV[4])",
    )
});

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

static EMIT_TICK: LazyLock<Script> = LazyLock::new(|| {
    guarded(
        // A mark that lasts for longer than it can is from when Redis's clock was ahead.
        "local mark = 'tick:' .. ARGV[1] if redis.call('PTTL', mark) > tonumber(ARGV[2]) then redis.call('DEL', mark) \
         end if redis.call('SET', mark, '1', 'NX', 'PX', ARGV[2]) then redis.call('XADD', 'jit:ticks', '*', 'v', \
         ARGV[3], 'kind', ARGV[1]) return 1 end return 0",
    )
});

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

/// Acknowledges and deletes entries in one step, and forgets who died over them.
static ACK: LazyLock<Script> = LazyLock::new(|| {
    guarded(
        "for i = 2, #ARGV do redis.call('XACK', ARGV[1], 'workers', ARGV[i]) redis.call('XDEL', ARGV[1], ARGV[i]) \
         redis.call('HDEL', ARGV[1] .. ':deaths', ARGV[i]) end return 1",
    )
});

/// Acknowledges entries whose effect is in the ledger, and deletes them.
///
/// # Errors
/// When Redis cannot be reached; they are then handed out again, which is harmless.
pub async fn acknowledge(pool: &Pool, stream: &str, ids: &[String]) -> Result<(), LedgerError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut connection = pool.get().await?;
    Ok(ACK.arg(stream).arg(ids).invoke_async(&mut connection).await?)
}

async fn ensure_group<C: ConnectionLike + Send + Sync>(connection: &mut C, stream: &str) -> RedisResult<()> {
    let created: RedisResult<()> = connection.xgroup_create_mkstream(stream, GROUP, "0").await;
    match created {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        other => other,
    }
}

fn entries(reply: Option<StreamReadReply>) -> Vec<Entry> {
    let text = |value: Value| String::from_redis_value(value).unwrap_or_default();
    let ids = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
    ids.map(|id| Entry {
        id: id.id,
        fields: id.map.into_iter().map(|(name, value)| (name, text(value))).collect(),
    })
    .collect()
}

/// Reads one stream as one consumer, on a connection of its own.
///
/// After every connect it first reads what it holds already: an answer that was lost on the way stays in its pending
/// list. Do not drop a [`Reader::read`] that is under way and go on with the reader: what it was about to return would
/// be lost until a restart.
pub struct Reader {
    settings: RedisSettings,
    stream: &'static str,
    consumer: String,
    block: Duration,
    connection: Option<Link>,
    backlog_read: bool,
}

impl Reader {
    /// A reader that waits for new entries for at most `block` a call, and so notices a stop in that time.
    #[must_use]
    pub fn new(settings: RedisSettings, stream: &'static str, consumer: &str, block: Duration) -> Self {
        Self {
            settings,
            stream,
            consumer: consumer.to_owned(),
            block,
            connection: None,
            backlog_read: false,
        }
    }

    /// Up to `count` entries; none when none came in time.
    ///
    /// # Errors
    /// When Redis cannot be reached. The next call connects anew.
    pub async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        // Another part of this process may know that its server is gone, or not the master any more.
        if self.connection.as_ref().is_some_and(|link| !link.is_good()) {
            (self.connection, self.backlog_read) = (None, false);
        }
        let result = self.try_read(count).await;
        if result.is_err() {
            (self.connection, self.backlog_read) = (None, false);
        }
        result
    }

    async fn try_read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let mut connection = store::reader(&self.settings, self.block).await?;
                ensure_group(&mut connection, self.stream).await?;
                self.connection.insert(connection)
            }
        };
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(GROUP)
            .arg(&self.consumer)
            .arg("COUNT")
            .arg(count);
        if !self.backlog_read {
            let own = command
                .clone()
                .arg("STREAMS")
                .arg(self.stream)
                .arg("0")
                .query_async(connection)
                .await
                .map(entries)?;
            // An entry deleted by somebody else comes back without fields: there is nothing left to do for it.
            let own: Vec<Entry> = own.into_iter().filter(|entry| !entry.fields.is_empty()).collect();
            self.backlog_read = own.len() < count;
            if !own.is_empty() {
                return Ok(own);
            }
        }
        let block = u64::try_from(self.block.as_millis()).unwrap_or(1000);
        command
            .arg("BLOCK")
            .arg(block)
            .arg("STREAMS")
            .arg(self.stream)
            .arg(">")
            .query_async(connection)
            .await
            .map(entries)
    }
}

fn claimed(ids: Vec<redis::streams::StreamId>) -> Vec<Entry> {
    let text = |value: Value| String::from_redis_value(value).unwrap_or_default();
    let entries = ids.into_iter().map(|id| Entry {
        id: id.id,
        fields: id.map.into_iter().map(|(name, value)| (name, text(value))).collect(),
    });
    entries.filter(|entry| !entry.fields.is_empty()).collect()
}

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
    Ok(claimed(reply.claimed))
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
    Ok(claimed(reply.ids))
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

static FORGET: LazyLock<Script> = LazyLock::new(|| {
    guarded(
        "if #redis.call('XPENDING', ARGV[1], 'workers', '-', '+', 1, ARGV[2]) > 0 then return 0 end return \
         redis.call('XGROUP', 'DELCONSUMER', ARGV[1], 'workers', ARGV[2])",
    )
});
