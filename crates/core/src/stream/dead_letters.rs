//! Dead letters: entries of the streams that could not be read or applied, or over which workers died
//! ([`super::poison`]). They wait in `jit:dead` for a person.
//!
//! A letter holds the stream and the id that the entry had, the reason, and the entry's own fields as `entry.{name}`.
//! Moving one in either direction is one script: an entry is in its stream or among the dead letters, never in both and
//! never in neither. Each call may be repeated.
//!
//! What goes back, goes back as a new entry that remembers when the old one was accepted, so its job keeps its place in
//! the queue. A reservation does not go back: it was dropped at its deadline, and demand has made another since.

use std::{collections::BTreeMap, sync::LazyLock};

use redis::Script;

use super::{DEAD, EVENTS, Entry, PROVISION, VERSION};
use crate::{
    event::JobEvent,
    ledger::LedgerError,
    store::{Pool, rights::guarded},
};

/// Dead letters that are kept; the oldest go first.
const KEPT: usize = 10_000;
/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own stream id, `{ms}-{n}`; the first half is the time of its death by Redis's clock.
    pub id: String,
    /// Stream that the entry was in.
    pub stream: String,
    /// Id that the entry had there.
    pub entry_id: String,
    /// Why it is here, for people.
    pub reason: String,
    /// The entry's own fields.
    pub fields: BTreeMap<String, String>,
}

impl DeadLetter {
    fn new((id, mut fields): (String, BTreeMap<String, String>)) -> Self {
        let mut take = |name: &str| fields.remove(name).unwrap_or_default();
        let (stream, entry_id, reason) = (take("stream"), take("id"), take("reason"));
        let own = fields
            .into_iter()
            .filter_map(|(name, value)| name.strip_prefix("entry.").map(|name| (name.to_owned(), value)));
        Self {
            id,
            stream,
            entry_id,
            reason,
            fields: own.collect(),
        }
    }

    /// When it died, in ms since 1970.
    #[must_use]
    pub fn died_at(&self) -> Option<i64> {
        millis(&self.id)
    }

    /// When Redis had first taken the entry, in ms since 1970.
    #[must_use]
    pub fn accepted_at(&self) -> Option<i64> {
        self.fields
            .get("accepted")
            .and_then(|ms| ms.parse().ok())
            .or_else(|| millis(&self.entry_id))
    }

    /// The job event that it holds, if it can be read.
    #[must_use]
    pub fn event(&self) -> Option<JobEvent> {
        serde_json::from_str(self.fields.get("event")?).ok()
    }
}

fn millis(id: &str) -> Option<i64> {
    id.split('-').next().and_then(|ms| ms.parse().ok())
}

/// A page of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The letters, in the order that was asked for.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins: after this one. None when there is none.
    pub next: Option<String>,
}

/// In which order dead letters are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The last to die first.
    #[default]
    Newest,
    /// The first to die first.
    Oldest,
}

/// What became of a dead letter that was to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// It stands in its stream again, under this id.
    Back {
        /// The stream.
        stream: String,
        /// Its id there.
        id: String,
    },
    /// It was a reservation, which is long gone; the letter was dropped.
    Dropped,
    /// It came from no stream that an entry can go back to; it was left where it is.
    Stuck {
        /// The stream that it names.
        stream: String,
    },
    /// There is no such letter: it was requeued, dropped or pushed out before.
    Unknown,
}

/// Whether this can be the id of a dead letter.
#[must_use]
pub fn is_id(text: &str) -> bool {
    parsed(text).is_some()
}

fn parsed(id: &str) -> Option<(u64, u64)> {
    let number = |part: &str| {
        if (1..=20).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()) {
            part.parse::<u64>().ok()
        } else {
            None
        }
    };
    let (ms, n) = id.split_once('-')?;
    Some((number(ms)?, number(n)?))
}

static BURY: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/bury.lua")));

/// Moves an entry that cannot be read or applied to the dead letters, in one step. Its own fields stand there as
/// `entry.{name}`.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn bury(pool: &Pool, stream: &str, entry: &Entry, reason: &str) -> Result<(), LedgerError> {
    let mut connection = pool.get().await?;
    let mut call = BURY.prepare_invoke();
    call.arg(stream).arg(&entry.id).arg(reason).arg(VERSION).arg(KEPT);
    for (name, value) in entry.fields.iter().take(32) {
        call.arg(format!("entry.{name}")).arg(value);
    }
    call.invoke_async::<i64>(&mut connection).await?;
    Ok(())
}

/// A page of at most `limit` letters, after `cursor` in this order.
///
/// # Errors
/// When Redis cannot be reached, or the cursor is no id.
pub async fn list(pool: &Pool, order: Order, cursor: Option<&str>, limit: usize) -> Result<Page, LedgerError> {
    if let Some(cursor) = cursor.filter(|cursor| !is_id(cursor)) {
        return Err(LedgerError::Rejected(format!("{cursor:?} is no id of a dead letter")));
    }
    // Nothing lies beyond the first and the last id that there can be, and Redis takes a range that would begin there
    // for an error.
    let (nothing_before, nothing_after) = (parsed("0-0"), parsed("18446744073709551615-18446744073709551615"));
    if cursor.is_some_and(|cursor| {
        parsed(cursor)
            == if order == Order::Newest {
                nothing_before
            } else {
                nothing_after
            }
    }) {
        return Ok(Page::default());
    }
    let after = cursor.map(|cursor| format!("({cursor}"));
    let mut command = match order {
        Order::Newest => redis::cmd("XREVRANGE"),
        Order::Oldest => redis::cmd("XRANGE"),
    };
    let (first, last) = if order == Order::Newest { ("+", "-") } else { ("-", "+") };
    // One more than a page tells whether there is a next one.
    command
        .arg(DEAD)
        .arg(after.as_deref().unwrap_or(first))
        .arg(last)
        .arg("COUNT")
        .arg(limit + 1);
    let mut connection = pool.get().await?;
    let found: Vec<(String, BTreeMap<String, String>)> = command.query_async(&mut connection).await?;
    let more = found.len() > limit;
    let letters: Vec<_> = found.into_iter().take(limit).map(DeadLetter::new).collect();
    let next = letters.last().filter(|_| more).map(|letter| letter.id.clone());
    Ok(Page { letters, next })
}

/// One letter, if it is there.
///
/// # Errors
/// When Redis cannot be reached, or the id is none.
pub async fn one(pool: &Pool, id: &str) -> Result<Option<DeadLetter>, LedgerError> {
    checked(id)?;
    let mut connection = pool.get().await?;
    let found: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XRANGE")
        .arg(DEAD)
        .arg(id)
        .arg(id)
        .query_async(&mut connection)
        .await?;
    Ok(found.into_iter().next().map(DeadLetter::new))
}

static REQUEUE: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/requeue.lua")));

/// Puts a letter's entry back into its stream, and takes the letter away, in one step.
///
/// # Errors
/// When Redis cannot be reached, or the id is none.
pub async fn requeue(pool: &Pool, id: &str) -> Result<Requeued, LedgerError> {
    checked(id)?;
    let mut connection = pool.get().await?;
    let (what, stream, new): (String, String, String) = REQUEUE
        .arg(id)
        .arg(EVENTS)
        .arg(PROVISION)
        .invoke_async(&mut connection)
        .await?;
    Ok(match what.as_str() {
        "back" => Requeued::Back { stream, id: new },
        "dropped" => Requeued::Dropped,
        "stuck" => Requeued::Stuck { stream },
        _ => Requeued::Unknown,
    })
}

/// Throws a letter away. Whether it was there.
///
/// # Errors
/// When Redis cannot be reached, or the id is none.
pub async fn remove(pool: &Pool, id: &str) -> Result<bool, LedgerError> {
    checked(id)?;
    let mut connection = pool.get().await?;
    let removed: u64 = redis::cmd("XDEL")
        .arg(DEAD)
        .arg(id)
        .query_async(&mut connection)
        .await?;
    Ok(removed > 0)
}

fn checked(id: &str) -> Result<(), LedgerError> {
    if is_id(id) {
        Ok(())
    } else {
        Err(LedgerError::Rejected(format!("{id:?} is no id of a dead letter")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_two_numbers() {
        for good in ["0-1", "1700000000000-0", "18446744073709551615-18446744073709551615"] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "1-x",
            "+",
            "(1-1",
            "1 -1",
            "18446744073709551616-0",
            "0x1-1",
            "١-1",
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
