//! Lists of jobs and runners, in pages, and the spelling that an organization stands under.
//!
//! A page is ordered by what does not change, the job's id or the runner's name, and the cursor is the last one shown;
//! so what comes and goes between two pages neither hides nor repeats anything else.

use std::{collections::HashMap, ops::Bound};

use redis::pipe;

use super::{JobRecord, Ledger, LedgerError, RunnerRecord, keys};
use crate::{
    event::JobId,
    model::{JobState, RunnerState},
};

/// What a list of jobs or runners is asked for.
#[derive(Clone, Debug, Default)]
pub struct Listing<S> {
    /// Only of this organization, in the ledger's spelling.
    pub org: Option<String>,
    /// Only in one of these states; in any, where none is named.
    pub states: Vec<S>,
    /// Entries at most.
    pub limit: usize,
}

impl<S: PartialEq> Listing<S> {
    fn takes(&self, org: Option<&String>, state: Option<S>) -> bool {
        self.org.as_ref().is_none_or(|wanted| org == Some(wanted))
            && (self.states.is_empty() || state.is_some_and(|state| self.states.contains(&state)))
    }
}

impl Ledger {
    /// Jobs that are not over ([`Ledger::job`] still tells of the others), oldest first, after `cursor`; and whether
    /// there are more.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn list_jobs(
        &self,
        wanted: &Listing<JobState>,
        cursor: Option<JobId>,
    ) -> Result<(Vec<JobRecord>, bool), LedgerError> {
        let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open_jobs(wanted.org.as_deref()).await?;
        let ids: Vec<JobId> = open.range((after, Bound::Unbounded)).copied().collect();
        let mut page = Vec::new();
        for chunk in ids.chunks(500) {
            for job in self.jobs(chunk).await? {
                let is_open = job.state.is_some_and(|state| JobState::LISTED.contains(&state));
                if is_open && wanted.takes(job.org.as_ref(), job.state) {
                    // One more than a page tells whether there is a next one.
                    if page.len() == wanted.limit {
                        return Ok((page, true));
                    }
                    page.push(job);
                }
            }
        }
        Ok((page, false))
    }

    /// Live runners, by name, after `cursor`; and whether there are more.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn list_runners(
        &self,
        wanted: &Listing<RunnerState>,
        cursor: Option<&str>,
    ) -> Result<(Vec<RunnerRecord>, bool), LedgerError> {
        let live = self.runners().await?;
        let after = live
            .into_iter()
            .filter(|runner| cursor.is_none_or(|cursor| runner.name.as_str() > cursor));
        let mut page: Vec<_> = after
            .filter(|runner| wanted.takes(runner.org.as_ref(), runner.shown_state()))
            .take(wanted.limit.saturating_add(1))
            .collect();
        let more = page.len() > wanted.limit;
        page.truncate(wanted.limit);
        Ok((page, more))
    }

    /// The spelling that an organization stands under: GitHub's, or else the one under which an operator first named
    /// it. With it, whether it is known at all: by a job, a limit or a pause.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn spelling(&self, org: &str) -> Result<(String, bool), LedgerError> {
        Ok(self
            .spellings(&[org.to_owned()])
            .await?
            .pop()
            .unwrap_or_else(|| (org.to_owned(), false)))
    }

    /// The same for several, in their order.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn spellings(&self, orgs: &[String]) -> Result<Vec<(String, bool)>, LedgerError> {
        if orgs.is_empty() {
            return Ok(Vec::new());
        }
        let folded: Vec<String> = orgs.iter().map(|org| org.to_lowercase()).collect();
        let mut connection = self.pool().get().await?;
        let (known, limits, paused): (Vec<Option<String>>, Vec<String>, Vec<String>) = pipe()
            .cmd("HMGET")
            .arg(keys::ORGS_KNOWN)
            .arg(&folded)
            .hkeys(keys::ORG_LIMITS)
            .hkeys(keys::ORGS_PAUSED)
            .query_async(&mut connection)
            .await?;
        let named: HashMap<String, String> = limits
            .into_iter()
            .chain(paused)
            .map(|named| (named.to_lowercase(), named))
            .collect();
        let one = |(org, (folded, known)): (&String, (&String, Option<String>))| match known
            .or_else(|| named.get(folded).cloned())
        {
            Some(spelling) => (spelling, true),
            None => (org.clone(), false),
        };
        Ok(orgs.iter().zip(folded.iter().zip(known)).map(one).collect())
    }
}
