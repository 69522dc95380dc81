//! What recovery is configured with, and what travels between its worker and the ledger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How recovery is configured.
#[derive(Clone, Debug)]
pub struct RecoverySettings {
    /// Time between two ticks.
    pub interval: Duration,
    /// Calls of GitHub that recovery may make in an hour and account.
    pub calls_per_hour: u64,
    /// Whether failed deliveries are repeated: the webhook's address is known.
    pub redelivery: bool,
}

/// Pieces of work that an account's items are queued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// `owner/repo`, looked through for lost jobs. Its time: when it was last visited; negative where it never was.
    Repos,
    /// `owner/repo`, all of whose runs are asked for by status, once in a while. Its time: when they last were.
    Rereads,
    /// A webhook whose deliveries are read. Its time: when they last were.
    Hooks,
    /// What GitHub is asked to list: repositories, webhooks, installations. Its time: when it is due.
    Lists,
    /// A scope whose registrations are looked at. Its time: when that is due.
    Scopes,
}

/// An item to be queued, to be looked at as soon as may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// What its calls are counted for.
    pub account: String,
    /// What for.
    pub round: Round,
    /// The item.
    pub item: String,
    /// Its time in the queue, ms.
    pub at: i64,
}

impl Queued {
    /// An item whose turn has never come.
    #[must_use]
    pub fn new(account: &str, round: Round, item: impl Into<String>) -> Self {
        Self {
            account: account.to_owned(),
            round,
            item: item.into(),
            at: 0,
        }
    }
}

/// What a tick finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RecoveryTick {
    /// The epoch gate was opened once; before, nothing is looked for.
    pub open: bool,
    /// When it began, ms.
    pub now: i64,
    /// Repositories that are not queued yet.
    pub repos: Vec<String>,
    /// Where the walk through the known owners goes on.
    pub walk: String,
    /// The data may have been lost: the walk goes to its end at once.
    pub whole: bool,
}

/// Which items of a round are asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Ask {
    /// Which round.
    pub name: Round,
    /// Those whose time is before this, ms.
    pub before: i64,
    /// So many at most.
    pub n: u32,
}

/// What is due in an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AccountDue {
    /// The data may have been lost: everything at once.
    pub urgent: bool,
    /// By round.
    pub rounds: Vec<RoundDue>,
}

/// What is due in a round.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RoundDue {
    /// Which round.
    pub round: Round,
    /// Its items.
    pub items: Vec<DueItem>,
}

/// An item that is due.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DueItem {
    /// The item.
    pub item: String,
    /// What is remembered of a repository, JSON.
    #[serde(default)]
    pub known: Option<String>,
}

impl DueItem {
    /// What is remembered of a repository.
    #[must_use]
    pub fn runs(&self) -> KnownRuns {
        self.known
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default()
    }
}

/// What is remembered of a repository's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRuns {
    /// GitHub's mark of the list of the newest runs, where all of them were over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// All runs with a lower id were over when they were last looked at; 0: nobody knows.
    #[serde(default)]
    pub over_below: u64,
}

/// What was news of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// Queued jobs that the ledger did not know as such.
    pub queued: u64,
    /// Jobs whose beginning the ledger did not know of.
    pub in_progress: u64,
    /// Too many events are on their way to tell what is unknown; nothing was reported.
    pub backlog: bool,
}

/// A runner's registration at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registered {
    /// Name.
    pub name: String,
    /// GitHub's id, as text: Lua has no 64 bits.
    pub id: String,
}

/// A delivery that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedDelivery {
    /// The same for each try.
    pub guid: String,
    /// Of this try, as text.
    pub id: String,
    /// The event's action.
    pub action: String,
    /// When it was sent, ms.
    pub at: i64,
}

/// A delivery to be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Redelivery {
    /// The same for each try.
    pub guid: String,
    /// Of the last try.
    pub id: String,
    /// The event's action.
    pub action: String,
}

/// What GitHub said when it was asked to repeat a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It will.
    Accepted,
    /// It does not, this time: it is asked again, after a wait.
    Refused,
    /// It does not know the delivery any more.
    Forgotten,
}

/// Where a hook's deliveries were read to. Times are ms, by GitHub's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCursor {
    /// All deliveries until this time have been read.
    pub read_until: i64,
    /// The newest delivery of the walk that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_from: Option<i64>,
    /// Where that walk goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The newest delivery was answered with a 2xx: the receiver can be reached.
    #[serde(default)]
    pub works: bool,
    /// GitHub's mark of the newest page, where there was nothing on it but what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// GitHub did not know it so often in a row: a right may be gone for a while.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
