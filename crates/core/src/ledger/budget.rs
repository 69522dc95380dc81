//! The budget of GitHub's limits, shared by all workers through Redis, so that GitHub need not refuse.
//!
//! Three limits, and what they hold back (numbers are GitHub's, "Rate limits for the REST API" and "Self-hosted runners
//! reference"):
//!
//! * 1500 **registrations** in 5 minutes and scope (repository, organization or enterprise). A sliding window, exact: a
//!   registration counts from the moment at which GitHub has answered it, and one that was never sent does not count.
//! * 900 **points** a minute for an endpoint and credential; a POST costs 5, so 180 registrations. Off on most GHES.
//! * the **hour's calls** of a credential, as GitHub last told. A share of [`RESERVE`] is left for removals and
//!   questions.
//!
//! `credential` is whatever GitHub counts calls of: a token, or one installation of an App.
//!
//! Invariants, each a test: no window of 5 minutes holds more registrations of a scope than its limit; a refusal
//! changes nothing and names the time at which the same request is allowed, unless others are faster; optional calls
//! never take more than their number an hour, nor any of the second half of the hour's calls. Keys expire by
//! themselves; a Redis that lost them costs at most one refusal of GitHub's, which backs off.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ledger, LedgerError, keys, millis, scripts, transitions::SLICE};

/// GitHub's window for registrations.
const REGISTRATION_WINDOW: Duration = Duration::from_secs(300);
/// GitHub's window for points.
const POINTS_WINDOW: Duration = Duration::from_secs(60);
/// Points of a POST.
const POINTS_OF_POST: u64 = 5;
/// Optional calls of one account in a minute at most, counted by GitHub or not, where [`Budget::spare_calls_per_hour`]
/// does not ask for more: two thirds of what GitHub allows at one endpoint.
const SPARE_CALLS_PER_MINUTE: u64 = 600;
/// Share of the hour's calls that registrations leave to removals and questions.
pub const RESERVE: f64 = 0.02;

/// How much of GitHub's limits is used. 0 turns a limit off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Registrations in 5 minutes and scope.
    pub registrations: u64,
    /// Points a minute of a credential at one endpoint.
    pub points_per_minute: u64,
    /// Optional calls an hour and credential: redelivery and sweeps. 0 allows none.
    pub spare_calls_per_hour: u64,
}

/// What GitHub said of a credential's hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWord {
    /// Calls an hour.
    pub limit: u64,
    /// Calls left.
    pub remaining: u64,
    /// Until they are all there again.
    pub reset_in: Duration,
}

/// Whether a runner may be registered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spending {
    /// It may, and is counted.
    Allowed,
    /// It may not, and is not counted.
    Wait {
        /// Whom this concerns.
        whose: Whose,
        /// Until when, from now.
        wait: Duration,
        /// A sentence for people.
        why: String,
    },
}

/// Whom a limit concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All that registers at this scope.
    Scope,
    /// All that this credential serves.
    Credential,
}

/// Whether optional calls may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// They may, and are counted.
    Allowed,
    /// They may not, and are not counted; ask again after this time.
    Wait(Duration),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    over: Over,
    #[serde(default)]
    limit: u64,
    #[serde(default)]
    left: u64,
    #[serde(default)]
    why: String,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Over {
    #[default]
    Registrations,
    Points,
    Hour,
    Spare,
    /// GitHub has told of a limit, or refuses the credential.
    Held,
}

/// The windows of a registration, and what it is counted as in them.
fn windows(what: &str, credential: &str, scope: &str, runner: &str, budget: &Budget) -> Value {
    // Below 5 points there is no registration at all; one a minute is the least that is of use.
    let posts = if budget.points_per_minute == 0 {
        0
    } else {
        (budget.points_per_minute / POINTS_OF_POST).max(1)
    };
    json!({
        "what": what, "credential": credential, "scope": scope.to_ascii_lowercase(), "runner": runner,
        "registrations": budget.registrations, "registrations_ms": millis(REGISTRATION_WINDOW), "posts": posts,
        "posts_ms": millis(POINTS_WINDOW),
    })
}

impl Budget {
    /// Optional calls of one account in a minute at most, also of those that GitHub does not count.
    #[must_use]
    pub fn spare_calls_per_minute(&self) -> u64 {
        SPARE_CALLS_PER_MINUTE.max(self.spare_calls_per_hour / 60)
    }
}

impl Ledger {
    /// Notes what GitHub said of a credential's hour.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn note_rate(&self, credential: &str, word: &RateWord) -> Result<(), LedgerError> {
        let args = json!({
            "what": "said", "credential": credential, "limit": word.limit, "remaining": word.remaining,
            "reset_in": millis(word.reset_in),
        });
        self.run::<Value>(&scripts::BUDGET, &args).await.map(|_| ())
    }

    /// Asks for the registration of a runner at a scope, and counts it where it is allowed. Tell the end of it with
    /// [`Self::settle_registration`].
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn spend_registration(
        &self,
        credential: &str,
        scope: &str,
        runner: &str,
        budget: &Budget,
    ) -> Result<Spending, LedgerError> {
        let mut args = windows("registration", credential, scope, runner, budget);
        args["reserve"] = RESERVE.into();
        let Answer {
            wait,
            over,
            limit,
            left,
            why: said,
        } = self.run(&scripts::BUDGET, &args).await?;
        if wait == 0 {
            return Ok(Spending::Allowed);
        }
        let (whose, why) = match over {
            Over::Held => (Whose::Credential, said),
            Over::Registrations => (
                Whose::Scope,
                format!(
                    "{scope} has had its {} registrations of 5 minutes, and GitHub allows no more \
                     (GITHUB_REGISTRATION_LIMIT)",
                    budget.registrations
                ),
            ),
            Over::Points => (
                Whose::Credential,
                format!(
                    "credential {credential} has used its {} points of this minute for registrations, and GitHub \
                     allows no more (GITHUB_POINTS_PER_MINUTE)",
                    budget.points_per_minute
                ),
            ),
            Over::Hour | Over::Spare => (
                Whose::Credential,
                format!(
                    "credential {credential} has {left} of the {limit} calls left that GitHub allows it an hour; they \
                     are kept for removing runners"
                ),
            ),
        };
        Ok(Spending::Wait {
            whose,
            wait: Duration::from_millis(wait),
            why,
        })
    }

    /// A registration that was allowed has been answered (`sent`), or was never sent and does not count.
    ///
    /// # Errors
    /// When Redis is unavailable; then it counts from the time at which it was allowed.
    pub async fn settle_registration(
        &self,
        credential: &str,
        scope: &str,
        runner: &str,
        sent: bool,
        budget: &Budget,
    ) -> Result<(), LedgerError> {
        let mut args = windows("settle", credential, scope, runner, budget);
        args["sent"] = sent.into();
        self.run::<Value>(&scripts::BUDGET, &args).await.map(|_| ())
    }

    /// The credential of this name is another at GitHub from now on, or is gone: it does not back off any more, nor
    /// does what it serves, and what GitHub said of the one before is forgotten.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn renew_credential(&self, credential: &str) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        let orgs: Vec<String> =
            redis::AsyncCommands::smembers(&mut connection, keys::credential_orgs(credential)).await?;
        drop(connection);
        for slice in orgs.chunks(SLICE).chain([[].as_slice()]) {
            self.run::<Value>(
                &scripts::BUDGET,
                &json!({ "what": "renew", "credential": credential, "orgs": slice }),
            )
            .await?;
        }
        Ok(())
    }

    /// Asks for `calls` optional calls: allowed while more than half of the hour's calls remain after them, where
    /// GitHub tells, within [`Budget::spare_calls_per_hour`], and within [`Budget::spare_calls_per_minute`]. More at
    /// once than the first number count as that number. A server that has no limits ([`Self::note_unlimited`]) has
    /// those of the minute alone.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn spend_spare(&self, credential: &str, calls: u64, budget: &Budget) -> Result<Spare, LedgerError> {
        let args = json!({ "what": "spare", "credential": credential, "calls": calls,
            "calls_per_hour": budget.spare_calls_per_hour,
            "calls_per_minute": budget.spare_calls_per_minute() });
        let answer: Answer = self.run(&scripts::BUDGET, &args).await?;
        Ok(if answer.wait == 0 {
            Spare::Allowed
        } else {
            Spare::Wait(Duration::from_millis(answer.wait))
        })
    }

    /// An optional call was answered with 304, which GitHub does not count: neither is it here, but in its minute.
    ///
    /// # Errors
    /// When Redis is unavailable; then it stays counted.
    pub async fn uncount_spare(&self, credential: &str) -> Result<(), LedgerError> {
        self.run::<Value>(
            &scripts::BUDGET,
            &json!({ "what": "uncounted", "credential": credential }),
        )
        .await
        .map(|_| ())
    }

    /// The server has no limits, as most GHES: an answer told of none. Holds for an hour.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn note_unlimited(&self, credential: &str) -> Result<(), LedgerError> {
        self.run::<Value>(
            &scripts::BUDGET,
            &json!({ "what": "unlimited", "credential": credential }),
        )
        .await
        .map(|_| ())
    }
}
