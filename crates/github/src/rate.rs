//! Reading GitHub's limits from an answer.
//!
//! GitHub has two kinds and says which only between the lines ("Rate limits for the REST API" and "Best practices"):
//!
//! * *primary*: 403 or 429 with `x-ratelimit-remaining: 0`; wait until `x-ratelimit-reset` (seconds since 1970, UTC).
//! * *secondary*: 403 or 429 with `retry-after`, or a message that names it (older servers: "abuse detection"); wait
//!   that long, without the header until the reset if nothing remains, else at least a minute.
//!
//! A 403 with none of these is a refusal that no wait cures. Times are measured against the answer's own `Date`, so a
//! local clock that is off does not lengthen or shorten a wait.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// The wait where GitHub limits and does not say for how long: "wait for at least one minute before retrying".
const UNSAID: Duration = Duration::from_secs(60);
/// The longest wait that is believed: GitHub's windows are an hour. After it, asking again costs one call.
const LONGEST: Duration = Duration::from_secs(3600);

/// Which of GitHub's limits refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Calls an hour, of one credential.
    Primary,
    /// Too many at once or too fast.
    Secondary,
    /// Registrations in 5 minutes, of one scope.
    Registrations,
}

/// What an answer's headers say about limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateHeaders {
    /// Calls in the window.
    pub(crate) limit: Option<u64>,
    /// Calls left in the window.
    pub(crate) remaining: Option<u64>,
    /// Whether these two are of registrations, not of all calls.
    pub(crate) of_registrations: bool,
    /// GitHub's time.
    pub(crate) date: Option<Timestamp>,
    /// `retry-after`, from now.
    pub(crate) retry_after: Option<Duration>,
    /// `x-ratelimit-reset`, from now.
    pub(crate) reset: Option<Duration>,
}

impl RateHeaders {
    /// Reads them. `clock` is the local time, used where the answer has no `Date`.
    pub(crate) fn read(headers: &HeaderMap, clock: Timestamp) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let date = text(DATE.as_str()).and_then(http_date);
        let now = date.unwrap_or(clock);
        let until = |then: Timestamp| {
            Duration::try_from(then.duration_since(now))
                .unwrap_or(Duration::ZERO)
                .min(LONGEST)
        };
        Self {
            limit: text("x-ratelimit-limit").and_then(|n| n.parse().ok()),
            remaining: text("x-ratelimit-remaining").and_then(|n| n.parse().ok()),
            of_registrations: text("x-ratelimit-resource") == Some("actions_runner_registration"),
            date,
            retry_after: text(RETRY_AFTER.as_str()).and_then(|value| match value.parse::<u64>() {
                Ok(seconds) => Some(Duration::from_secs(seconds).min(LONGEST)),
                Err(_) => http_date(value).map(until),
            }),
            reset: text("x-ratelimit-reset")
                .and_then(|n| n.parse().ok())
                .and_then(|seconds| Timestamp::from_second(seconds).ok())
                .map(until),
        }
    }

    /// Which limit refused an answer of this status and text (message and documentation address), if any did.
    pub(crate) fn limit(&self, status: u16, said: &str) -> Option<Limit> {
        if !matches!(status, 403 | 429) {
            return None;
        }
        let said = said.to_ascii_lowercase();
        let names = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if names(&[
            "secondary rate limit",
            "secondary-rate-limits",
            "abuse detection",
            "abuse-rate-limits",
        ]) {
            Some(Limit::Secondary)
        } else if self.remaining == Some(0) && self.of_registrations {
            Some(Limit::Registrations)
        } else if self.remaining == Some(0) || (self.retry_after.is_none() && names(&["api rate limit exceeded"])) {
            Some(Limit::Primary)
        } else if self.retry_after.is_some() || status == 429 {
            Some(Limit::Secondary)
        } else {
            None
        }
    }

    /// What they say of the hour's calls, of the account or of the installation at `owner`.
    pub(crate) fn rate(&self, owner: Option<String>) -> Option<Rate> {
        let (limit, remaining, reset_in) = (self.limit?, self.remaining?, self.reset?);
        (!self.of_registrations).then_some(Rate {
            owner,
            limit,
            remaining,
            reset_in,
        })
    }

    /// How long a limited caller waits: at least what GitHub says, a minute where it says nothing, an hour at most.
    pub(crate) fn wait(&self) -> Duration {
        let reset = if self.remaining == Some(0) { self.reset } else { None };
        self.retry_after.or(reset).unwrap_or(UNSAID)
    }
}

/// The date form that HTTP requires of senders (RFC 9110, 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// What GitHub said of an hour's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Where the calls of an App's installation are counted: the owner that it is installed at, in lower case.
    pub owner: Option<String>,
    /// Calls an hour.
    pub limit: u64,
    /// Calls left.
    pub remaining: u64,
    /// Until they are all there again.
    pub reset_in: Duration,
}

/// The calls left in the window, as the last answer that said so had it.
#[derive(Debug)]
pub(crate) struct Remaining(AtomicI64);

impl Default for Remaining {
    fn default() -> Self {
        Self(AtomicI64::new(-1))
    }
}

impl Remaining {
    pub(crate) fn see(&self, remaining: u64) {
        self.0
            .store(i64::try_from(remaining).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// `None` until an answer has said it: GHES has its limits off by default.
    pub(crate) fn last(&self) -> Option<u64> {
        u64::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 00:00:00 UTC
    const NOW: i64 = 1_795_305_600;

    fn read(pairs: &[(&'static str, &str)]) -> RateHeaders {
        let headers = pairs
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
            .collect();
        RateHeaders::read(&headers, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(read(&[("retry-after", "17")]).retry_after, seconds(17));
        assert_eq!(
            read(&[("retry-after", "Sun, 22 Nov 2026 00:01:30 GMT")]).retry_after,
            seconds(90)
        );
        assert_eq!(
            read(&[("retry-after", "Sat, 21 Nov 2026 00:00:00 GMT")]).retry_after,
            seconds(0),
            "past"
        );
        assert_eq!(read(&[("retry-after", "999999999")]).retry_after, Some(LONGEST));
        for nonsense in ["", "-5", "soon", "1e3"] {
            assert_eq!(read(&[("retry-after", nonsense)]).retry_after, None, "{nonsense:?}");
        }
        assert_eq!(
            read(&[("x-ratelimit-reset", &(NOW + 600).to_string())]).reset,
            seconds(600)
        );
        assert_eq!(read(&[("x-ratelimit-reset", "99999999999999999")]).reset, None);
    }

    #[test]
    fn the_answers_own_date_is_now() {
        let date = ("date", "Sun, 22 Nov 2026 01:00:00 GMT");
        let headers = read(&[date, ("x-ratelimit-reset", &(NOW + 3630).to_string())]);
        assert_eq!(headers.reset, Some(Duration::from_secs(30)));
    }

    #[test]
    fn limits_are_told_apart() {
        let none = read(&[]);
        let spent = read(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", &(NOW + 90).to_string()),
        ]);
        let told = read(&[("x-ratelimit-remaining", "4000"), ("retry-after", "30")]);
        let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
        for (headers, status, said, limit, wait) in [
            (
                spent,
                403,
                "API rate limit exceeded for user ID 1.",
                Some(Limit::Primary),
                90,
            ),
            (spent, 429, "", Some(Limit::Primary), 90),
            (told, 403, "", Some(Limit::Secondary), 30),
            (told, 429, "", Some(Limit::Secondary), 30),
            (none, 403, secondary, Some(Limit::Secondary), 60),
            (spent, 403, secondary, Some(Limit::Secondary), 90),
            (
                none,
                403,
                "You have triggered an abuse detection mechanism.",
                Some(Limit::Secondary),
                60,
            ),
            (none, 429, "", Some(Limit::Secondary), 60),
            (none, 403, "API rate limit exceeded", Some(Limit::Primary), 60),
            (none, 403, "Resource not accessible by integration", None, 60),
            (told, 404, "Not Found", None, 30),
            (spent, 200, "", None, 90),
        ] {
            assert_eq!(headers.limit(status, said), limit, "{status} {said}");
            assert_eq!(headers.wait(), Duration::from_secs(wait), "{status} {said}");
        }
    }

    #[test]
    fn remaining_is_the_last_one_said() {
        let remaining = Remaining::default();
        assert_eq!(remaining.last(), None);
        remaining.see(4998);
        remaining.see(4999);
        assert_eq!(remaining.last(), Some(4999));
    }
}
