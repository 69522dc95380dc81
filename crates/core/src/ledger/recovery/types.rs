//! What recovery is configured with, and what travels between its worker and the ledger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How recovery is configured.
#[derive(Clone, Debug)]
pub struct RecoverySettings {
    /// Time between two ticks.
    pub interval: Duration,
    /// Calls of GitHub that recovery may make in an hour.
    pub calls_per_hour: u64,
    /// Time between two rebuilds of `repos:active` from GitHub.
    pub rediscover_interval: Duration,
    /// Whether failed deliveries are repeated: the webhook's address is known.
    pub redelivery: bool,
    /// Where runners register: `organization`, `repository`, or an enterprise's scope.
    pub scopes: String,
}

/// What a tick finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RecoveryTick {
    /// The epoch gate was opened once; before, nothing is looked for.
    pub open: bool,
    /// The data may have been lost: everything at once.
    pub urgent: bool,
    /// A rebuild of `repos:active` is under way: cursor of the list of organizations, `end` once all are listed.
    pub rediscovery: Option<String>,
}

/// What came of asking an owner for its repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// All are listed, or the owner refuses for good.
    Answered(&'a str),
    /// It did not answer: it is asked again, until that was so for an hour.
    Missed(&'a str),
}

/// What the sweep looks at next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sweep {
    /// Repositories, newest first.
    pub repos: Vec<String>,
    /// The pass is over.
    pub ended: bool,
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
    /// Address of its hook.
    pub hook: String,
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
}
