//! Entries over which workers die. What a dead worker held is applied again by another; if it was an entry that killed
//! it, that would go on for ever.
//!
//! `{stream}:deaths` counts, by entry, the workers that died while they held it. (Deliveries, which Redis counts, tell
//! less: each reconnect is one, so a bad network would make a poison of any entry.) A batch dies together, so from the
//! second death on an entry is handled alone, and claimed only when its turn comes, the one with the fewest deaths
//! first: those that were merely with the one that kills are done before it. After the fifth death it goes to the dead
//! letters, with that reason.

use std::{collections::HashSet, sync::LazyLock};

use redis::Script;

use super::{Entry, claim, dead_letters::bury, held_by_dead};
use crate::{
    ledger::{LedgerError, keys},
    store::{Pool, rights::guarded},
};

/// Workers that may die over an entry before it is buried.
pub const DEATHS: u64 = 5;
/// From so many deaths on an entry is handled alone.
pub const SUSPECT: u64 = 2;
/// Deaths are forgotten when none was counted for so long, in seconds. Those of entries that were acknowledged are
/// forgotten at once.
const KEPT: u64 = 7 * 24 * 3600;

/// What dead workers held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Entries that are the caller's now.
    pub entries: Vec<Entry>,
    /// Ids of entries to be taken one by one by [`take_suspect`], in this order.
    pub suspects: Vec<String>,
}

/// An entry that may be what kills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// It is the caller's now, who should handle it alone. So many workers died over it.
    Alone(Entry, u64),
    /// It was buried, with this reason.
    Buried(Entry, String),
    /// Somebody has handled it meanwhile.
    Gone,
}

fn deaths_of(stream: &str) -> String {
    keys::deaths(stream)
}

/// Claims up to `count` entries of each consumer that is not among the living, but for those that are suspect.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn take_over(
    pool: &Pool,
    stream: &str,
    consumer: &str,
    living: &HashSet<String>,
    count: usize,
) -> Result<TakenOver, LedgerError> {
    let held = held_by_dead(pool, stream, consumer, living, count).await?;
    if held.is_empty() {
        return Ok(TakenOver::default());
    }
    let mut connection = pool.get().await?;
    let deaths: Vec<Option<u64>> = redis::cmd("HMGET")
        .arg(deaths_of(stream))
        .arg(&held)
        .query_async(&mut connection)
        .await?;
    drop(connection);
    let (mut suspects, usual): (Vec<_>, Vec<_>) = deaths
        .into_iter()
        .map(Option::unwrap_or_default)
        .zip(held)
        .partition(|(deaths, _)| *deaths >= SUSPECT);
    suspects.sort();
    let usual: Vec<String> = usual.into_iter().map(|(_, id)| id).collect();
    count_deaths(pool, stream, &usual).await?;
    let entries = claim(pool, stream, consumer, &usual).await?;
    Ok(TakenOver {
        entries,
        suspects: suspects.into_iter().map(|(_, id)| id).collect(),
    })
}

/// Claims one suspect entry, or buries it.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn take_suspect(pool: &Pool, stream: &str, consumer: &str, id: &str) -> Result<Suspect, LedgerError> {
    let id = [id.to_owned()];
    let deaths = count_deaths(pool, stream, &id).await?;
    let Some(entry) = claim(pool, stream, consumer, &id).await?.pop() else {
        return Ok(Suspect::Gone);
    };
    if deaths < DEATHS {
        return Ok(Suspect::Alone(entry, deaths));
    }
    let reason = format!("{deaths} workers died while they held it");
    bury(pool, stream, &entry, &reason).await?;
    Ok(Suspect::Buried(entry, reason))
}

static COUNT_DEATHS: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/count_deaths.lua")));

/// Counts one more worker that died over each of these entries. How many it are now for the last one.
async fn count_deaths(pool: &Pool, stream: &str, ids: &[String]) -> Result<u64, LedgerError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let mut connection = pool.get().await?;
    Ok(COUNT_DEATHS
        .arg(stream)
        .arg(KEPT)
        .arg(ids)
        .invoke_async(&mut connection)
        .await?)
}
