//! The watch on runner processes: a listing now and then, and what changed since the last.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::watch;
use tokio::time::sleep;

use super::{POLL, Process};
use crate::{Backend as _, Change, Observed};

/// A watch: what it has told of last, and what it has yet to tell.
pub(super) struct Watching {
    pub(super) process: Process,
    pub(super) changed: watch::Receiver<()>,
    pub(super) known: BTreeMap<String, Observed>,
    pub(super) told: VecDeque<Change>,
    pub(super) first: bool,
}

impl Watching {
    pub(super) async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.told.pop_front() {
                return change;
            }
            if !std::mem::take(&mut self.first) {
                // The sender lives in `process`, so this waits for a change or for the time.
                let _ = tokio::time::timeout(POLL, self.changed.changed()).await;
            }
            match self.process.list().await {
                Ok(list) => self.compare(list),
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "cannot look at the runners");
                    sleep(POLL).await;
                }
            }
        }
    }

    fn compare(&mut self, list: Vec<Observed>) {
        let now: BTreeMap<_, _> = list.into_iter().map(|seen| (seen.name.clone(), seen)).collect();
        let gone = self
            .known
            .keys()
            .filter(|name| !now.contains_key(*name))
            .cloned()
            .map(Change::Gone);
        let seen = now
            .values()
            .filter(|seen| self.known.get(&seen.name) != Some(seen))
            .cloned()
            .map(Change::Seen);
        self.told.extend(gone.chain(seen));
        self.known = now;
    }
}
