//! GitHub's time, whatever the local clock says.
//!
//! Each answer's `Date` tells how far the local clock is off. What depends on GitHub's idea of now (the claims of a
//! JWT, the end of a token) goes by that. `Date` holds whole seconds and was written before the answer arrived; a
//! second or two do not matter here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// Tells the local time. For tests, which have it at their will.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The local clock, and how far it is off.
pub(crate) struct GithubTime {
    local: Clock,
    /// GitHub's time minus ours, ms; 0 until the first answer.
    offset: AtomicI64,
}

impl GithubTime {
    pub(crate) fn new(local: Clock) -> Self {
        Self {
            local,
            offset: AtomicI64::new(0),
        }
    }

    /// The local time.
    pub(crate) fn local(&self) -> Timestamp {
        (self.local)()
    }

    /// GitHub's time, as far as it is known.
    pub(crate) fn now(&self) -> Timestamp {
        let local = self.local();
        local.checked_add(self.offset()).unwrap_or(local)
    }

    /// GitHub's time minus ours.
    pub(crate) fn offset(&self) -> SignedDuration {
        SignedDuration::from_millis(self.offset.load(Ordering::Relaxed))
    }

    /// Learns from the `Date` of an answer that has just come.
    pub(crate) fn learn(&self, date: Timestamp) {
        let offset = date.duration_since(self.local()).as_millis();
        let before = self.offset.swap(i64::try_from(offset).unwrap_or(0), Ordering::Relaxed);
        if (i128::from(before) - offset).abs() >= 60_000 {
            tracing::warn!(
                offset_seconds = offset / 1000,
                "this machine's clock differs from GitHub's; GitHub's is used"
            );
        }
    }
}
