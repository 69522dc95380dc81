//! How long GitHub is waited for when it is asked for a JIT configuration.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The call's time-out doubles up to this when it runs out: a slow GitHub is waited for, not asked again.
const JIT_TIMEOUT_MOST: Duration = Duration::from_secs(180);

/// How long a JIT configuration is waited for, in ms.
pub(super) struct Patience {
    usual: Duration,
    now: AtomicU64,
}

impl Patience {
    pub(super) fn new(usual: Duration) -> Self {
        Self { usual, now: AtomicU64::new(millis(usual)) }
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.now.load(Ordering::Relaxed))
    }

    /// A call that was given so long has run out of it, or was answered. Calls that run out at once double it once.
    pub(super) fn learn(&self, given: Duration, timed_out: bool) {
        if timed_out {
            self.now.fetch_max(millis((given * 2).min(JIT_TIMEOUT_MOST.max(self.usual))), Ordering::Relaxed);
        } else {
            self.now.store(millis(self.usual), Ordering::Relaxed);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn patience_doubles_when_it_runs_out_and_comes_back() {
        let patience = Patience::new(secs(20));
        for expected in [40, 80, 160, 180, 180] {
            let given = patience.get();
            patience.learn(given, true);
            patience.learn(given, true); // another call that was under way at the same time
            assert_eq!(patience.get(), secs(expected));
        }
        patience.learn(secs(20), false);
        assert_eq!(patience.get(), secs(20));
    }
}
