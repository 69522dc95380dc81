//! Lists of jobs and runners, in pages, and the spelling that an organization stands under.
//!
//! A page is ordered by what does not change, the job's id or the runner's name, and the cursor is the last one shown;
//! so what comes and goes between two pages neither hides nor repeats anything else.

use std::{collections::HashMap, ops::Bound};

use redis::pipe;

use super::{JobInfo, Ledger, LedgerError, RunnerInfo, shown_state};
use crate::event::JobId;

/// States that jobs are listed by. Those that are over are not listed; [`Ledger::job`] still tells of them.
pub const JOB_STATES: [&str; 4] = ["waiting", "queued", "in_question", "in_progress"];
/// States that runners are listed by.
pub const RUNNER_STATES: [&str; 5] = ["reserved", "created", "idle", "busy", "removing"];

/// What a list is asked for.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only of this organization, in the ledger's spelling.
    pub org: Option<String>,
    /// Only in one of these states; in any, where none is named.
    pub states: Vec<String>,
    /// Entries at most.
    pub limit: usize,
}

impl Listing {
    fn takes(&self, org: Option<&String>, state: &str) -> bool {
        self.org.as_ref().is_none_or(|wanted| org == Some(wanted))
            && (self.states.is_empty() || self.states.iter().any(|wanted| wanted == state))
    }
}

impl Ledger {
    /// Jobs that are not over, oldest first, after `cursor`; and whether there are more.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn list_jobs(
        &self,
        wanted: &Listing,
        cursor: Option<JobId>,
    ) -> Result<(Vec<(JobId, JobInfo)>, bool), LedgerError> {
        let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open_jobs(wanted.org.as_deref()).await?;
        let ids: Vec<JobId> = open.range((after, Bound::Unbounded)).copied().collect();
        let mut page = Vec::new();
        for chunk in ids.chunks(500) {
            for (id, info) in chunk.iter().zip(self.jobs(chunk).await?) {
                let state = info.get("state").map_or("", String::as_str);
                if JOB_STATES.contains(&state) && wanted.takes(info.get("org"), state) {
                    // One more than a page tells whether there is a next one.
                    if page.len() == wanted.limit {
                        return Ok((page, true));
                    }
                    page.push((*id, info));
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
        wanted: &Listing,
        cursor: Option<&str>,
    ) -> Result<(Vec<(String, RunnerInfo)>, bool), LedgerError> {
        let live = self.runners().await?;
        let after = live
            .into_iter()
            .filter(|(name, _)| cursor.is_none_or(|cursor| name.as_str() > cursor));
        let mut page: Vec<_> = after
            .filter(|(_, info)| wanted.takes(info.get("org"), shown_state(info)))
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
            .arg("orgs:known")
            .arg(&folded)
            .hkeys("org_limits")
            .hkeys("orgs:paused")
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
