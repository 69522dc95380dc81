//! Runner groups that were found, by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::scope::Scope;

/// How long it is believed that a group does not allow public repositories.
const PRIVATE_FOR: Duration = Duration::from_secs(3600);

/// The ids found so far, and when; small: one entry an organization, mostly.
#[derive(Default)]
pub(crate) struct KnownGroups(Mutex<HashMap<(Scope, String), (u64, Instant)>>);

impl KnownGroups {
    pub(crate) fn get(&self, key: &(Scope, String), for_ever: bool) -> Option<u64> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        cached
            .filter(|(_, found)| for_ever || found.elapsed() < PRIVATE_FOR)
            .map(|(id, _)| id)
    }

    pub(crate) fn put(&self, key: (Scope, String), id: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, (id, Instant::now()));
    }

    /// GitHub refused `id` at `scope`: the next one asks again.
    pub(crate) fn forget(&self, scope: &Scope, id: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(at, _), (cached, _)| at != scope || *cached != id);
    }
}
