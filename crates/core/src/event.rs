//! Job events: what the receiver makes of a `workflow_job` webhook and the worker applies to the ledger.

use serde::{Deserialize, Serialize};

use crate::class::Class;

/// GitHub's id of a job, 1 to 2^63 − 1. It travels as a string, since neither JSON nor Lua numbers hold 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u64);

impl JobId {
    /// Takes a number that GitHub could have given.
    #[must_use]
    pub fn new(id: u64) -> Option<Self> {
        (1..=i64::MAX.unsigned_abs()).contains(&id).then_some(Self(id))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a job's id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a job's id: a whole number from 1 to 2^63 - 1")]
pub struct InvalidJobId(String);

impl std::str::FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `parse` alone would take a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| digits)
            .and_then(Self::new)
            .ok_or_else(|| InvalidJobId(text.chars().take(40).collect()))
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What happened to the job, by GitHub's name of the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It wants a runner.
    Queued,
    /// It is held for an approval.
    Waiting,
    /// A runner works on it.
    InProgress,
    /// It is over.
    Completed,
}

impl Action {
    /// GitHub's word for it, as in the webhook's `action`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// One event about one job, as it stands in `jit:events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    /// What happened.
    pub action: Action,
    /// Which job.
    pub job: JobId,
    /// Which attempt of its run, from 1; older servers do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Login of the organization, or of the user whose repository it is, as GitHub writes it.
    pub org: String,
    /// `owner/repo`.
    pub repo: String,
    /// Class of a job whose labels are ours; none for a job that is other runners' business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Name of the runner that works or worked on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// GitHub's id of that runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<u64>,
    /// How it ended: `success`, `failure`, `cancelled`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<String>,
    /// The owner by what does not change.
    #[serde(default, skip_serializing_if = "Identity::is_unknown")]
    pub identity: Identity,
}

/// The identity of a job's owner: logins change, GitHub's ids do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// GitHub's id of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<u64>,
    /// When GitHub called the owner so, in ms: the latest time that the word names. What is older than a renaming is
    /// late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// The owner is a user: its runners register at its repositories.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
}

impl Identity {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_all_63_bits_and_nothing_more() {
        let id: JobId = "9223372036854775807".parse().expect("the largest id");
        assert_eq!(serde_json::to_string(&id).expect("JSON"), "\"9223372036854775807\"");
        for wrong in ["0", "-1", "+1", "9223372036854775808", "1.5", "", "x"] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
    }
}
