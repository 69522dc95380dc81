//! Places: where runners run. A worker lists, and ends, what is at its own places alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use redis::AsyncCommands;
use serde::Deserialize;
use serde_json::json;

use super::{Ledger, LedgerError, conditions::Condition, keys, scripts, transitions::SLICE};
use crate::render;

/// A place that no worker has listed for so long is not looked at by any, in ms. By default workers list every minute.
const UNSEEN_MS: i64 = 600_000;

/// By profile, where its runners run: `kubernetes/{namespace}/{uid of the namespace}`, without the uid where a worker
/// may not see it, or `process/{directory}/{id of the directory}`.
pub type Places = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Freed {
    freed: u32,
}

impl Ledger {
    /// The same ledger, for a process that makes, lists and ends runners at these places, where a runner may come to be
    /// so long after its claim.
    #[must_use]
    pub fn at(mut self, places: Places, in_flight: Duration) -> Self {
        self.places = places.into();
        self.in_flight = in_flight;
        self
    }

    /// A script's argument with the places of this process, each once, where it has any.
    pub(super) fn here(&self, mut args: serde_json::Value) -> serde_json::Value {
        if !self.places.is_empty() {
            args["here"] = json!(self.places.values().collect::<BTreeSet<_>>());
        }
        args
    }

    /// Runners that count at places that no worker lists any more: what an operator has to decide.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn unseen_places(&self) -> Result<Vec<Condition>, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let (live, listed): (Vec<String>, Vec<(String, f64)>) = redis::pipe()
            .smembers(keys::RUNNERS_LIVE)
            .zrange_withscores(keys::PLACES, 0, -1)
            .query_async(&mut connection)
            .await?;
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for slice in live.chunks(SLICE) {
            let mut pipe = redis::pipe();
            for name in slice {
                pipe.hget(keys::runner_info(name), "place");
            }
            let places: Vec<Option<String>> = pipe.query_async(&mut connection).await?;
            places
                .into_iter()
                .flatten()
                .for_each(|place| *counted.entry(place).or_default() += 1);
        }
        let last = |place: &str| {
            listed
                .iter()
                .filter(|(other, _)| is_same(place, other))
                .map(|(_, at)| *at as i64)
                .max()
        };
        let unseen = counted
            .into_iter()
            .filter(|(place, _)| last(place).is_none_or(|at| now - at > UNSEEN_MS));
        Ok(unseen
            .map(|(place, runners)| {
                let since = last(&place).and_then(render::time).map_or_else(
                    || "ever".to_owned(),
                    |at| {
                        format!(
                            "since \
                 {at}"
                        )
                    },
                );
                let text = format!(
                    "{runners} runners count at {place}, which no worker has listed {since}: start a worker there, or, \
                     where that place is gone for good, jitctl give-up {place}"
                );
                Condition {
                    process: "places".to_owned(),
                    text,
                }
            })
            .collect())
    }

    /// Frees the slots of all runners at a place that is gone for good. How many.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn give_up(&self, place: &str) -> Result<u32, LedgerError> {
        let mut connection = self.pool().get().await?;
        let live: Vec<String> = connection.smembers(keys::RUNNERS_LIVE).await?;
        drop(connection);
        let mut freed = 0;
        for slice in live.chunks(SLICE) {
            freed += self
                .run::<Freed>(
                    &scripts::LIMITS,
                    &json!({ "give_up": { "place": place, "runners": slice } }),
                )
                .await?
                .freed;
        }
        Ok(freed)
    }

    /// Whether a worker has listed this place of late.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn is_listed(&self, place: &str) -> Result<bool, LedgerError> {
        let since = self.now().await? - UNSEEN_MS;
        let mut connection = self.pool().get().await?;
        let listed: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg(keys::PLACES)
            .arg(since)
            .arg("+inf")
            .query_async(&mut connection)
            .await?;
        Ok(listed.iter().any(|other| is_same(place, other)))
    }
}

/// As the scripts compare places.
fn is_same(a: &str, b: &str) -> bool {
    let within = |whole: &str, part: &str| {
        whole
            .strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(a, b) || within(b, a)
}
