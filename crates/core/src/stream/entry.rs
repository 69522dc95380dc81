//! One entry of a stream, and what is read from it.

use std::collections::HashMap;

use redis::{FromRedisValue, Value, streams::StreamId};

use super::VERSION;
use crate::event::JobEvent;

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

/// Entries as Redis hands them out.
pub(super) fn entries(ids: impl IntoIterator<Item = StreamId>) -> Vec<Entry> {
    let text = |value: Value| String::from_redis_value(value).unwrap_or_default();
    let entry = |id: StreamId| Entry {
        id: id.id,
        fields: id.map.into_iter().map(|(name, value)| (name, text(value))).collect(),
    };
    ids.into_iter().map(entry).collect()
}

/// The same without those that somebody else has deleted: they come back without fields, and there is nothing left to
/// do for them.
pub(super) fn present(ids: impl IntoIterator<Item = StreamId>) -> Vec<Entry> {
    let mut present = entries(ids);
    present.retain(|entry| !entry.fields.is_empty());
    present
}
