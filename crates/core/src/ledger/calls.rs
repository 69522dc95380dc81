//! Every call of GitHub, by all workers together: who may call now, and what GitHub wants to be left alone.
//!
//! * A **hold**: a limit that GitHub has told of, or a refusal of the credential. Nobody calls for that account until
//!   it is over, admission reserves nothing for what it serves, and [`Ledger::due`] hands out no work of its owners.
//!   After it one call goes first.
//! * **At once**: GitHub's [`AT_ONCE`] requests under way, each leased, so that a dead worker's end by themselves.
//! * **Points** of a minute, by endpoint: GET 1, what writes 5. Registrations are counted by
//!   [`Ledger::spend_registration`], before their pod.
//! * The **hour's calls**: each call is counted, and a credential that has none left is held until it has.
//!
//! Numbers are GitHub's, "Rate limits for the REST API".

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Budget, Ledger, LedgerError, millis, scripts};

/// Requests that GitHub allows one credential at once.
pub const AT_ONCE: u64 = 100;
/// Points of GET, and of what writes.
const POINTS: (u64, u64) = (1, 5);
/// A call is over at the latest so long after its time-out: a worker that lives has said so by then.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// The call that [`Ledger::spend_registration`] has counted already.
const REGISTRATION: &str = "generate-jitconfig";

/// As whom a call is made.
#[derive(Clone, Copy, Debug)]
pub struct CallOf<'a> {
    /// The credential, by its name.
    pub credential: &'a str,
    /// A GitHub App, not a token.
    pub app: bool,
    /// Of an App's installation, the owner that it is installed at, in lower case.
    pub owner: Option<&'a str>,
    /// The owner is an enterprise.
    pub enterprise: bool,
}

/// A call that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Entering<'a> {
    /// Unique among the calls of all workers.
    pub call: &'a str,
    /// Name of its endpoint, as the client and the metrics have it.
    pub endpoint: &'a str,
    /// The method is POST, PATCH, PUT or DELETE, which cost more points.
    pub writes: bool,
    /// The longest that it may be under way.
    pub timeout: Duration,
}

/// The ledger's answer to a call that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The call may be made now. Its end is to be told.
    Now,
    /// A limit or a refusal holds it back for this time from now.
    Held(Duration, String),
    /// Others come first: ask again after this time.
    Soon(Duration, String),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// GitHub answered, and limits nothing.
    Answered,
    /// No answer came.
    Unanswered,
    /// It was not accepted, and is tried once more with another token.
    Unauthorized,
    /// GitHub wants to be left alone: for so long, by everything that the credential serves or by this account, and
    /// why.
    Limited(Duration, bool, String),
    /// The credential is not accepted, or the App is not installed or suspended at its owner.
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    wait: Option<u64>,
    #[serde(default)]
    soon: bool,
    #[serde(default)]
    why: String,
}

fn of(who: &CallOf<'_>, what: &str) -> Value {
    let mut args = json!({ "what": what, "credential": who.credential, "app": who.app, "enterprise": who.enterprise });
    if let Some(owner) = who.owner {
        args["owner"] = owner.into();
    }
    args
}

impl Ledger {
    /// Asks for one call of GitHub.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn enter_call(
        &self,
        who: &CallOf<'_>,
        call: &Entering<'_>,
        budget: &Budget,
    ) -> Result<Turn, LedgerError> {
        let registers = call.endpoint == REGISTRATION;
        let mut args = of(who, "enter");
        args["call"] = call.call.into();
        args["endpoint"] = call.endpoint.into();
        args["lease"] = millis(call.timeout.saturating_add(LEASE_MARGIN)).into();
        args["at_once"] = AT_ONCE.into();
        args["points"] = if registers {
            0
        } else if call.writes {
            POINTS.1
        } else {
            POINTS.0
        }
        .into();
        args["points_per_minute"] = budget.points_per_minute.into();
        args["in_hour"] = (!registers).into();
        let Answer { wait, soon, why } = self.run(&scripts::CALLS, &args).await?;
        Ok(match wait.map(Duration::from_millis) {
            None => Turn::Now,
            Some(wait) if soon => Turn::Soon(wait, why),
            Some(wait) => Turn::Held(wait, why),
        })
    }

    /// A call that was let through is over. Without a call: what came of it concerns whom it was made as.
    ///
    /// # Errors
    /// When Redis is unavailable; then the call counts as under way until its time is over.
    pub async fn leave_call(&self, who: &CallOf<'_>, call: Option<&str>, ended: &Ended) -> Result<(), LedgerError> {
        let mut args = of(who, if call.is_some() { "leave" } else { "refused" });
        if let Some(call) = call {
            args["call"] = call.into();
        }
        let (word, why) = match ended {
            Ended::Answered => ("answered", None),
            Ended::Unanswered => ("unanswered", None),
            Ended::Unauthorized => ("unauthorized", None),
            Ended::Limited(wait, whole, why) => {
                args["wait"] = millis(*wait).into();
                args["whole"] = (*whole).into();
                ("limited", Some(why))
            }
            Ended::Refused(why) => ("refused", Some(why)),
        };
        args["ending"] = word.into();
        if let Some(why) = why {
            args["why"] = why.as_str().into();
        }
        self.run::<Value>(&scripts::CALLS, &args).await.map(|_| ())
    }
}
