//! What is read of the ledger by people and by metrics. Reads decide nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{AsyncCommands, pipe};
use serde::Serialize;

use super::{Ledger, LedgerError, recovery::Recovery};
use crate::event::JobId;

/// A job that may not be read is asked about once a day at least.
const UNREADABLE_MS: i64 = 2 * 24 * 3_600_000;

/// One organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrgStatus {
    /// As GitHub writes it.
    pub organization: String,
    /// Live runners, from their reservation until their pod is gone.
    pub running: u64,
    /// Queued jobs.
    pub pending: u64,
    /// Limit.
    pub max: u64,
    /// Limit of an organization that has none of its own.
    pub default_max: u64,
    /// Whether the limit is its own.
    pub is_custom_limit: bool,
    /// Runners that it may have more.
    pub available: u64,
}

/// The whole at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Live runners.
    pub total_running: u64,
    /// Queued jobs.
    pub total_pending: u64,
    /// Limit of the whole.
    pub max_total: u64,
    /// Limit of an organization that has none of its own.
    pub max_per_org: u64,
    /// Organizations that have either: running, pending.
    pub organizations: BTreeMap<String, (u64, u64)>,
    /// Organizations that were ever seen.
    pub known_orgs: u64,
    /// Jobs about which GitHub is to be asked, and jobs waiting or in progress, which it is asked about now and then.
    pub questions: u64,
    /// Entries of `jit:events`, `jit:provision`, `jit:ticks`, `jit:dead`.
    pub backlog: [u64; 4],
    /// Workers heard of in the last 30 s.
    pub workers: u64,
    /// Runners by state.
    pub runners: BTreeMap<String, u64>,
    /// Whether admission is open (a reconcile has run since the data came up).
    pub admitting: bool,
    /// What never came, and how soon it is found.
    pub recovery: Recovery,
}

/// All that is known of a job: the fields of `job:{id}:info`.
pub type JobInfo = BTreeMap<String, String>;
/// All that is known of a runner: the fields of `runner:{name}:info`.
pub type RunnerInfo = BTreeMap<String, String>;

/// A runner's state as people are shown it: one that is created and has started is `idle`.
#[must_use]
pub fn shown_state(info: &RunnerInfo) -> &str {
    match info.get("state").map_or("", String::as_str) {
        "created" if info.contains_key("started_at") => "idle",
        state => state,
    }
}

impl Ledger {
    /// Repositories whose jobs GitHub did not let the credential read when it was last asked about one, within the last two days.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn unreadable_repositories(&self) -> Result<Vec<String>, LedgerError> {
        let since = self.now().await? - UNREADABLE_MS;
        let mut connection = self.pool().get().await?;
        Ok(connection.zrangebyscore("repos:unreadable", since, "+inf").await?)
    }

    /// A login as GitHub writes it, or as given where it is unknown.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn canonical(&self, org: &str) -> Result<String, LedgerError> {
        let mut connection = self.pool().get().await?;
        let known: Option<String> = connection.hget("orgs:known", org.to_lowercase()).await?;
        Ok(known.unwrap_or_else(|| org.to_owned()))
    }

    /// One organization's numbers.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn org_status(&self, org: &str) -> Result<OrgStatus, LedgerError> {
        let organization = self.canonical(org).await?;
        let mut connection = self.pool().get().await?;
        let (running, pending, custom, default_max): (u64, u64, Option<u64>, Option<u64>) = pipe()
            .scard(format!("org:{organization}:runners"))
            .zcard(format!("org:{organization}:pending"))
            .hget("org_limits", &organization)
            .hget("ledger:meta", "max_per_org")
            .query_async(&mut connection)
            .await?;
        let default_max = default_max.unwrap_or(0);
        let max = custom.unwrap_or(default_max);
        Ok(OrgStatus { organization, running, pending, max, default_max, is_custom_limit: custom.is_some(), available: max.saturating_sub(running) })
    }

    /// The default limit and every organization's own, as they are in force.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn limits(&self) -> Result<(u64, BTreeMap<String, u64>), LedgerError> {
        let mut connection = self.pool().get().await?;
        let (default, custom): (Option<u64>, BTreeMap<String, u64>) =
            pipe().hget("ledger:meta", "max_per_org").hgetall("org_limits").query_async(&mut connection).await?;
        Ok((default.unwrap_or(0), custom))
    }

    /// All that is known of a job; `None` when it was never ours or is long over.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn job(&self, job: JobId) -> Result<Option<JobInfo>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let info: JobInfo = connection.hgetall(format!("job:{job}:info")).await?;
        Ok((!info.is_empty()).then_some(info))
    }

    /// All that is known of a runner; `None` when there was none of this name in the last day.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn runner(&self, name: &str) -> Result<Option<RunnerInfo>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let info: RunnerInfo = connection.hgetall(format!("runner:{name}:info")).await?;
        Ok((!info.is_empty()).then_some(info))
    }

    /// Every live runner with all that is known of it, by name.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn runners(&self) -> Result<BTreeMap<String, RunnerInfo>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let names: Vec<String> = connection.smembers("runners:live").await?;
        let mut runners = BTreeMap::new();
        for chunk in names.chunks(500) {
            let mut batch = pipe();
            for name in chunk {
                batch.hgetall(format!("runner:{name}:info"));
            }
            let infos: Vec<RunnerInfo> = batch.query_async(&mut connection).await?;
            runners.extend(chunk.iter().cloned().zip(infos));
        }
        Ok(runners)
    }

    /// Ids of all jobs that are not over, in ascending order, that is, by age; with `org` no other organization's queued ones.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn open_jobs(&self, org: Option<&str>) -> Result<BTreeSet<JobId>, LedgerError> {
        let canonical = match org {
            Some(org) => Some(self.canonical(org).await?),
            None => None,
        };
        let mut connection = self.pool().get().await?;
        let orgs: Vec<String> = match canonical {
            Some(org) => vec![org],
            None => connection.hvals("orgs:known").await?,
        };
        // Jobs that wait, run or are in question are asked about from time to time; queued ones stand in their organization's queue.
        let mut jobs: Vec<String> = connection.zrange("jobs:questions", 0, -1).await?;
        for chunk in orgs.chunks(500) {
            let mut batch = pipe();
            for org in chunk {
                batch.zrange(format!("org:{org}:pending"), 0, -1);
            }
            let queued: Vec<Vec<String>> = batch.query_async(&mut connection).await?;
            jobs.extend(queued.into_iter().flatten());
        }
        Ok(jobs.iter().filter_map(|job| job.parse().ok()).collect())
    }

    /// All that is known of each of these jobs, in their order.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn jobs(&self, jobs: &[JobId]) -> Result<Vec<JobInfo>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let mut infos = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(500) {
            let mut batch = pipe();
            for job in chunk {
                batch.hgetall(format!("job:{job}:info"));
            }
            infos.extend(batch.query_async::<Vec<JobInfo>>(&mut connection).await?);
        }
        Ok(infos)
    }

    /// Whether runners are admitted: the real ones have been counted since the data in this Redis came up.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn gate_is_open(&self) -> Result<bool, LedgerError> {
        let mut connection = self.pool().get().await?;
        let ((epoch, known), server): ((Option<String>, Option<String>), String) =
            pipe().hmget("ledger:meta", &["epoch", "run_id"]).cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run_id = server.lines().find_map(|line| line.trim().strip_prefix("run_id:"));
        Ok(epoch.is_some() && known.as_deref() == run_id)
    }

    /// Workers heard of in the last 30 s.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn workers_alive(&self) -> Result<u64, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        Ok(connection.zcount("workers:alive", now - 30_000, "+inf").await?)
    }

    /// The whole at a glance. Costs two reads an organization and one a live runner.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn overview(&self) -> Result<Overview, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let orgs: Vec<String> = connection.hvals("orgs:known").await?;
        let mut overview = Overview { known_orgs: orgs.len() as u64, ..Overview::default() };
        for chunk in orgs.chunks(500) {
            let mut batch = pipe();
            for org in chunk {
                batch.scard(format!("org:{org}:runners")).zcard(format!("org:{org}:pending"));
            }
            let counts: Vec<u64> = batch.query_async(&mut connection).await?;
            for (org, count) in chunk.iter().zip(counts.chunks(2)) {
                if let &[running, pending] = count {
                    overview.total_pending += pending;
                    if running + pending > 0 {
                        overview.organizations.insert(org.clone(), (running, pending));
                    }
                }
            }
        }
        let meta: HashMap<String, String> = connection.hgetall("ledger:meta").await?;
        let number = |name: &str| meta.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        (overview.max_total, overview.max_per_org) = (number("max_total"), number("max_per_org"));
        let (live, questions, events, provision, ticks, dead, workers): (u64, u64, u64, u64, u64, u64, u64) = pipe()
            .scard("runners:live")
            .zcard("jobs:questions")
            .xlen(crate::stream::EVENTS)
            .xlen(crate::stream::PROVISION)
            .xlen(crate::stream::TICKS)
            .xlen(crate::stream::DEAD)
            .zcount("workers:alive", now - 30_000, "+inf")
            .query_async(&mut connection)
            .await?;
        overview.total_running = live;
        overview.questions = questions;
        overview.backlog = [events, provision, ticks, dead];
        overview.workers = workers;
        drop(connection);
        overview.admitting = self.gate_is_open().await?;
        overview.recovery = self.recovery().await?;
        for info in self.runners().await?.into_values() {
            *overview.runners.entry(shown_state(&info).to_owned()).or_default() += 1;
        }
        Ok(overview)
    }
}
