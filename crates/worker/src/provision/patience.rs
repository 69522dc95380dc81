//! How long GitHub is waited for when it is asked for a JIT configuration: each owner for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The call's time-out doubles up to this when it runs out: a slow GitHub is waited for, not asked again.
const JIT_TIMEOUT_MOST: Duration = Duration::from_secs(180);

/// How long a JIT configuration is waited for.
pub(super) struct Patience {
    usual: Duration,
    /// Of owners that were slower than that.
    slow: Mutex<HashMap<String, Duration>>,
}

impl Patience {
    pub(super) fn new(usual: Duration) -> Self {
        Self {
            usual,
            slow: Mutex::default(),
        }
    }

    fn slow(&self) -> MutexGuard<'_, HashMap<String, Duration>> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, owner: &str) -> Duration {
        self.slow().get(owner).copied().unwrap_or(self.usual)
    }

    /// A call that was given so long has run out of it, or was answered. Calls that run out at once double it once.
    pub(super) fn learn(&self, owner: &str, given: Duration, timed_out: bool) {
        let mut slow = self.slow();
        if timed_out {
            let longer = (given * 2).min(JIT_TIMEOUT_MOST.max(self.usual));
            let known = slow.entry(owner.to_owned()).or_insert(longer);
            *known = longer.max(*known);
        } else if given == self.usual {
            slow.remove(owner);
        }
    }
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
            let given = patience.get("acme");
            patience.learn("acme", given, true);
            patience.learn("acme", given, true); // another call that was under way at the same time
            assert_eq!(patience.get("acme"), secs(expected));
        }
        assert_eq!(patience.get("other"), secs(20), "each has its own");
        patience.learn("acme", secs(20), false);
        assert_eq!(patience.get("acme"), secs(20));
    }
}
