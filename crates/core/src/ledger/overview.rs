//! What is read of the ledger by people and by metrics. Reads decide nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{AsyncCommands, pipe};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{JobRecord, Ledger, LedgerError, RunnerRecord, keys, records::Hash, recovery::Recovery, scripts::LOOK};
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
    /// Why it is closed, as [`Ledger::why_closed`] says.
    #[serde(skip)]
    pub closed: Option<&'static str>,
    /// What never came, and how soon it is found.
    pub recovery: Recovery,
}

impl Ledger {
    /// Repositories whose jobs GitHub did not let the credential read when it was last asked about one, within the last
    /// two days.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn unreadable_repositories(&self) -> Result<Vec<String>, LedgerError> {
        let since = self.now().await? - UNREADABLE_MS;
        let mut connection = self.pool().get().await?;
        Ok(connection.zrangebyscore(keys::REPOS_UNREADABLE, since, "+inf").await?)
    }

    /// A login as GitHub writes it, or as given where it is unknown.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn canonical(&self, org: &str) -> Result<String, LedgerError> {
        let mut connection = self.pool().get().await?;
        let known: Option<String> = connection.hget(keys::ORGS_KNOWN, org.to_lowercase()).await?;
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
            .scard(keys::org_runners(&organization))
            .zcard(keys::org_pending(&organization))
            .hget(keys::ORG_LIMITS, &organization)
            .hget(keys::META, "max_per_org")
            .query_async(&mut connection)
            .await?;
        let default_max = default_max.unwrap_or(0);
        let max = custom.unwrap_or(default_max);
        Ok(OrgStatus {
            organization,
            running,
            pending,
            max,
            default_max,
            is_custom_limit: custom.is_some(),
            available: max.saturating_sub(running),
        })
    }

    /// The default limit and every organization's own, as they are in force.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn limits(&self) -> Result<(u64, BTreeMap<String, u64>), LedgerError> {
        let mut connection = self.pool().get().await?;
        let (default, custom): (Option<u64>, BTreeMap<String, u64>) = pipe()
            .hget(keys::META, "max_per_org")
            .hgetall(keys::ORG_LIMITS)
            .query_async(&mut connection)
            .await?;
        Ok((default.unwrap_or(0), custom))
    }

    /// All that is known of a job; `None` when it was never ours or is long over.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRecord>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let hash: Hash = connection.hgetall(keys::job_info(job)).await?;
        Ok((!hash.is_empty()).then(|| JobRecord::decode(job, hash)))
    }

    /// All that is known of a runner; `None` when there was none of this name in the last day.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn runner(&self, name: &str) -> Result<Option<RunnerRecord>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let hash: Hash = connection.hgetall(keys::runner_info(name)).await?;
        Ok((!hash.is_empty()).then(|| RunnerRecord::decode(name.to_owned(), hash)))
    }

    /// Every live runner, in the order of their names.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn runners(&self) -> Result<Vec<RunnerRecord>, LedgerError> {
        let hashes = self.runner_hashes().await?;
        Ok(hashes
            .into_iter()
            .map(|(name, hash)| RunnerRecord::decode(name, hash))
            .collect())
    }

    /// The hash of every live runner as it stands, by name: `jitctl runners --output json` shows it so.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn runner_hashes(&self) -> Result<BTreeMap<String, Hash>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let names: Vec<String> = connection.smembers(keys::RUNNERS_LIVE).await?;
        let mut runners = BTreeMap::new();
        for chunk in names.chunks(500) {
            let mut batch = pipe();
            for name in chunk {
                batch.hgetall(keys::runner_info(name));
            }
            let hashes: Vec<Hash> = batch.query_async(&mut connection).await?;
            runners.extend(chunk.iter().cloned().zip(hashes));
        }
        Ok(runners)
    }

    /// Ids of all jobs that are not over, in ascending order, that is, by age; with `org` no other organization's
    /// queued ones.
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
            None => connection.hvals(keys::ORGS_KNOWN).await?,
        };
        // Jobs that wait, run or are in question are asked about from time to time; queued ones stand in their
        // organization's queue.
        let mut jobs: Vec<String> = connection.zrange(keys::JOBS_QUESTIONS, 0, -1).await?;
        for chunk in orgs.chunks(500) {
            let mut batch = pipe();
            for org in chunk {
                batch.zrange(keys::org_pending(org), 0, -1);
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
    pub async fn jobs(&self, jobs: &[JobId]) -> Result<Vec<JobRecord>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let mut records = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(500) {
            let mut batch = pipe();
            for job in chunk {
                batch.hgetall(keys::job_info(job));
            }
            let hashes: Vec<Hash> = batch.query_async(&mut connection).await?;
            let decoded = chunk
                .iter()
                .zip(hashes)
                .map(|(job, hash)| JobRecord::decode(*job, hash));
            records.extend(decoded);
        }
        Ok(records)
    }

    /// Whether runners are admitted: the real ones have been counted since the data in this Redis came up.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn gate_is_open(&self) -> Result<bool, LedgerError> {
        Ok(self.why_closed().await?.is_none())
    }

    /// Why nothing is admitted at all, as a clause that begins with "until" or "because"; `None` while the gate is
    /// open. `INFO` names the run of Redis. Without it, admission cannot tell whether data was lost.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn why_closed(&self) -> Result<Option<&'static str>, LedgerError> {
        let mut connection = self.pool().get().await?;
        let (epoch, known): (Option<String>, Option<String>) =
            connection.hmget(keys::META, &["epoch", "run_id"]).await?;
        let server: String = match redis::cmd("INFO").arg("server").query_async(&mut connection).await {
            Err(error) if error.code() == Some("NOPERM") => {
                return Ok(Some(
                    "because the user of Redis may not run INFO, without which a restart of Redis could not be \
                     noticed: allow it (ACL SETUSER … +info)",
                ));
            }
            answer => answer?,
        };
        let run_id = server.lines().find_map(|line| line.trim().strip_prefix("run_id:"));
        let open = epoch.is_some() && known.as_deref() == run_id;
        Ok((!open).then_some(
            "until the running pods have been counted, and those that were on their way (up to twice BACKEND_TIMEOUT): \
             the data in Redis is new or restored",
        ))
    }

    /// Workers heard of in the last 30 s.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn workers_alive(&self) -> Result<u64, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        Ok(connection.zcount(keys::WORKERS_ALIVE, now - 30_000, "+inf").await?)
    }

    /// How many live runners are in each state, as people are shown it.
    async fn runner_states(&self) -> Result<BTreeMap<String, u64>, LedgerError> {
        #[derive(Deserialize)]
        struct Slice {
            cursor: String,
            #[serde(default)]
            states: BTreeMap<String, u64>,
        }
        let (mut cursor, mut states) = ("0".to_owned(), BTreeMap::<String, u64>::new());
        loop {
            let slice: Slice = self.run(&LOOK, &json!({ "what": "states", "cursor": cursor })).await?;
            for (state, count) in slice.states {
                *states.entry(state).or_default() += count;
            }
            cursor = slice.cursor;
            if cursor == "0" {
                return Ok(states);
            }
        }
    }

    /// Some jobs of an organization that stand in no queue until they are demand again: of those that are due first, so
    /// few others are looked at.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub(super) async fn held_jobs(&self, org: &str, n: usize) -> Result<Vec<JobId>, LedgerError> {
        #[derive(Deserialize)]
        struct Held {
            #[serde(default)]
            jobs: Vec<JobId>,
        }
        let held: Held = self.run(&LOOK, &json!({ "what": "held", "org": org, "n": n })).await?;
        Ok(held.jobs)
    }

    /// What backs off now, until when (ms since 1970) and why: those that end first, `n` at most. Pauses are told
    /// elsewhere.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn held_subjects(&self, n: isize) -> Result<Vec<(String, i64, String)>, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let held: Vec<(String, f64)> = redis::cmd("ZRANGEBYSCORE")
            .arg(keys::BACKOFFS)
            .arg(now)
            .arg("+inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(n)
            .query_async(&mut connection)
            .await?;
        let mut batch = pipe();
        for (subject, _) in &held {
            batch.hget(keys::backoff(subject), "reason");
        }
        let reasons: Vec<Option<String>> = if held.is_empty() {
            Vec::new()
        } else {
            batch.query_async(&mut connection).await?
        };
        let told = held
            .into_iter()
            .zip(reasons)
            .filter_map(|((subject, until), why)| Some((subject, until as i64, why?)));
        Ok(told.collect())
    }

    /// The whole at a glance, in some ten commands and one more for each 500 live runners.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn overview(&self) -> Result<Overview, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let (known_orgs, running, pending): (u64, HashMap<String, u64>, HashMap<String, u64>) = pipe()
            .hlen(keys::ORGS_KNOWN)
            .hgetall(keys::ORGS_RUNNING)
            .hgetall(keys::ORGS_PENDING)
            .query_async(&mut connection)
            .await?;
        let mut overview = Overview {
            known_orgs,
            total_pending: pending.values().sum(),
            ..Overview::default()
        };
        for (org, running) in running {
            overview.organizations.entry(org).or_default().0 = running;
        }
        for (org, pending) in pending {
            overview.organizations.entry(org).or_default().1 = pending;
        }
        let meta: HashMap<String, String> = connection.hgetall(keys::META).await?;
        let number = |name: &str| meta.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        (overview.max_total, overview.max_per_org) = (number("max_total"), number("max_per_org"));
        let (live, questions, events, provision, ticks, dead, workers): (u64, u64, u64, u64, u64, u64, u64) = pipe()
            .scard(keys::RUNNERS_LIVE)
            .zcard(keys::JOBS_QUESTIONS)
            .xlen(crate::stream::EVENTS)
            .xlen(crate::stream::PROVISION)
            .xlen(crate::stream::TICKS)
            .xlen(crate::stream::DEAD)
            .zcount(keys::WORKERS_ALIVE, now - 30_000, "+inf")
            .query_async(&mut connection)
            .await?;
        overview.total_running = live;
        overview.questions = questions;
        overview.backlog = [events, provision, ticks, dead];
        overview.workers = workers;
        drop(connection);
        overview.closed = self.why_closed().await?;
        overview.admitting = overview.closed.is_none();
        overview.recovery = self.recovery().await?;
        overview.runners = self.runner_states().await?;
        Ok(overview)
    }
}
