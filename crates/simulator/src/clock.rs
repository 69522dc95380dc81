//! Time, injected: the state never asks what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the present moment comes from, in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The host's clock at the start, carried on by the monotonic one, so that it never jumps.
    System {
        /// The host's clock at `started`.
        epoch: u64,
        /// The monotonic clock at the start.
        started: Instant,
    },
    /// Whatever a test has set.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The host's clock.
    pub fn system() -> Self {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |past| u64::try_from(past.as_millis()).unwrap_or(0));
        Self::System {
            epoch,
            started: Instant::now(),
        }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        match self {
            Self::System { epoch, started } => epoch + u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
            Self::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// `ms` as GitHub writes a time: `2026-11-22T09:43:00Z`.
pub fn iso(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(0);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn iso_has_no_fraction() {
        assert_eq!(super::iso(1_795_340_580_123), "2026-11-22T09:43:00Z");
    }
}
