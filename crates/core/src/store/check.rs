//! Whether this Redis keeps what it is given: its version, eviction, append-only file, memory, and what else lies in
//! it.
//!
//! Looked at when a process starts, every few minutes while it runs, and by `jitctl doctor`. What would lose jobs, or
//! cannot work, refuses a start; what happens to a running process is logged and counted, and ends nothing. `INFO`
//! tells most, so a server that forbids `CONFIG` is checked too. The commands and keys that the user of Redis needs and
//! may not use are told in one list. Nothing runs `KEYS` or `SCAN`.

use std::collections::{BTreeSet, HashMap};

use prometheus_client::metrics::gauge::Gauge;
use redis::{AsyncCommands, RedisResult, pipe};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Connection, Pool,
    rights::{self, Lacks},
};
use crate::{
    ledger::{LedgerError, keys},
    store::RedisSettings,
};

/// The oldest Redis that has all that is used (`XAUTOCLAIM`).
const OLDEST: (u32, u32) = (6, 2);
/// Above so many hundredths of `maxmemory` the memory is short.
const SHORT: u64 = 90;
/// Organizations whose queues are looked at for what the Python system left.
const SAMPLE: usize = 1000;
/// What Celery writes under names that are always the same.
const CELERY: [&str; 5] = [
    "_kombu.binding.celery",
    "_kombu.binding.celeryev",
    "_kombu.binding.celery.pidbox",
    "celery",
    "unacked",
];

/// A user that may do all that is needed.
const ENOUGH: &str = "~* +@all -@dangerous +info +role";
/// Examples of keys that one finding names.
const KEYS_NAMED: usize = 5;

/// Help of the metric that counts findings.
pub const REDIS_FINDINGS: &str = "What the checks of Redis's settings find wrong, as the log and jitctl doctor tell";

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No process starts with it.
    Refusal,
    /// It works, and is not safe.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what to do.
    pub text: String,
}

/// This Redis is not one to start with.
#[derive(Debug, thiserror::Error)]
#[error("Redis at {address} cannot be used:{}", .reasons.iter().map(|reason| format!("\n  - \
 {reason}")).collect::<String>())]
pub struct Refused {
    address: String,
    reasons: Vec<String>,
}

/// Looks at this Redis.
///
/// # Errors
/// When it cannot be reached, or cannot answer yet.
pub async fn look(pool: &Pool, settings: &RedisSettings) -> Result<Vec<Finding>, LedgerError> {
    let mut connection = pool.get().await?;
    let mut findings = Findings(Vec::new());
    match redis::cmd("INFO").query_async::<String>(&mut connection).await {
        Ok(info) => {
            if !findings.of_info(&info, settings) {
                return Ok(findings.0); // it would not answer the rest
            }
        }
        Err(error) if error.code() == Some("NOPERM") => findings.refuse(
            "its user may not run INFO: nothing is ever admitted without it, since a restart of Redis could not be \
             noticed, and nothing of its settings can \
             be checked; allow it (ACL SETUSER … +info)",
        ),
        Err(error) => return Err(error.into()),
    }
    findings.of_rights(rights::lacking(&mut connection).await?);
    if findings.0.iter().any(|finding| finding.severity == Severity::Refusal) {
        return Ok(findings.0);
    }
    let fsync: RedisResult<HashMap<String, String>> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("appendfsync")
        .query_async(&mut connection)
        .await;
    if fsync.is_ok_and(|settings| settings.get("appendfsync").is_some_and(|when| when == "no")) {
        findings.warn(
            "appendfsync is no: a power failure loses half a minute of accepted jobs; set it to everysec, or to always",
        );
    }
    if let Some(sign) = other_system(&mut connection).await? {
        findings.refuse(format!(
            "it holds data of the Python system, or of another Celery ({sign}): give JIT Runner Manager a Redis or a \
             database number of its own \
             (REDIS_URL=…/1); or, when the old system has been stopped for good, save what you need (HGETALL \
             org_limits) and empty this one (FLUSHDB)"
        ));
    }
    Ok(findings.0)
}

/// A key that only another system writes.
async fn other_system(connection: &mut Connection) -> Result<Option<String>, LedgerError> {
    for key in CELERY {
        if passing(connection.exists::<_, bool>(key).await)?.unwrap_or(false) {
            return Ok(Some(key.to_owned()));
        }
    }
    let mut orgs: BTreeSet<String> = passing(connection.hkeys::<_, Vec<String>>(keys::ORG_LIMITS).await)?
        .unwrap_or_default()
        .into_iter()
        .collect();
    orgs.extend(passing(connection.hvals::<_, Vec<String>>(keys::ORGS_KNOWN).await)?.unwrap_or_default());
    let keys: Vec<String> = orgs.iter().take(SAMPLE).map(keys::org_pending).collect();
    let mut batch = pipe();
    for key in &keys {
        batch.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = if keys.is_empty() {
        Vec::new()
    } else {
        passing(batch.query_async(connection).await)?.unwrap_or_default()
    };
    Ok(keys
        .into_iter()
        .zip(types)
        .find(|(_, kind)| kind == "list")
        .map(|(key, _)| format!("{key} is a list")))
}

/// What a user may not ask is not known; so is a key of another type than ours.
fn passing<T>(result: RedisResult<T>) -> Result<Option<T>, LedgerError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.code(), Some("NOPERM" | "WRONGTYPE" | "ERR")) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, text: impl Into<String>) {
        self.0.push(Finding {
            severity: Severity::Refusal,
            text: text.into(),
        });
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.0.push(Finding {
            severity: Severity::Warning,
            text: text.into(),
        });
    }

    /// `INFO` has a finding of its own.
    fn of_rights(&mut self, lacks: Lacks) {
        let commands: Vec<String> = lacks.commands.into_iter().filter(|command| command != "INFO").collect();
        if !commands.is_empty() {
            let names = commands.join(", ").replace('|', " ");
            let rules: String = commands
                .iter()
                .map(|command| format!(" +{}", command.to_lowercase()))
                .collect();
            let rest = if lacks.blind {
                "; what else it lacks can be told only then"
            } else {
                ""
            };
            self.refuse(format!(
                "its user may not run {names}: allow what is needed (ACL SETUSER …{rules}), or as much \
             as this: {ENOUGH}{rest}"
            ));
        }
        if lacks.keys.len() == rights::KEYS.len() {
            self.refuse("its user may use no key that is needed: allow all (ACL SETUSER … ~*)");
        } else if !lacks.keys.is_empty() {
            let more = if lacks.keys.len() > KEYS_NAMED {
                " and others"
            } else {
                ""
            };
            let names: Vec<String> = lacks.keys.into_iter().take(KEYS_NAMED).collect();
            self.refuse(format!(
                "its user may not read and write keys like {}{more}: allow all (ACL SETUSER … ~*)",
                names.join(", ")
            ));
        }
    }

    /// Whether it is a Redis of which more can be asked.
    fn of_info(&mut self, info: &str, settings: &RedisSettings) -> bool {
        let fields: HashMap<&str, &str> = info
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .collect();
        let field = |name: &str| fields.get(name).copied();
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);

        // Valkey calls it `server_mode`.
        if [field("redis_mode"), field("server_mode")].contains(&Some("sentinel")) {
            self.refuse(
                "it is a Sentinel, which holds no data: write \
             REDIS_URL=redis+sentinel://host:26379,host:26379/mymaster/0",
            );
            return false;
        }
        if field("cluster_enabled") == Some("1") {
            self.refuse(
                "it is a Redis Cluster, and the ledger's scripts change keys of several slots at once: use one Redis \
                 (a managed one: with cluster mode \
                 disabled) or a Sentinel group (redis+sentinel://…)",
            );
            return false;
        }
        let version = field("redis_version").unwrap_or_default();
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        if let (Some(major), Some(minor)) = (parts.next(), parts.next())
            && (major, minor) < OLDEST
        {
            self.refuse(format!(
                "it is version {version}, and {}.{} or later is needed (for XAUTOCLAIM): upgrade it",
                OLDEST.0, OLDEST.1
            ));
        }
        if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            let text = format!(
                "maxmemory-policy is {policy}: when it is full it throws away jobs, runners and limits; set it to \
                 noeviction"
            );
            if settings.may_evict {
                self.warn(text);
            } else {
                self.refuse(format!(
                    "{text} (CONFIG SET maxmemory-policy noeviction, and the same in its \
                 configuration), or start with REDIS_MAY_EVICT=true"
                ));
            }
        }
        if field("aof_enabled") == Some("0") {
            self.warn("appendonly is off: a restart of Redis loses accepted jobs; set appendonly to yes");
        }
        if field("role") == Some("slave") {
            self.warn("it is a replica and takes no writes: point REDIS_URL at its master, or at the Sentinels");
        }
        for (name, what) in [
            ("aof_last_write_status", "the append-only file"),
            ("rdb_last_bgsave_status", "a snapshot"),
        ] {
            if field(name) == Some("err") {
                self.warn(format!(
                    "it could not write {what} the last time ({name}), and may refuse writes (MISCONF): \
                 look at its disk and its log"
                ));
            }
        }
        let (used, maximum) = (number("used_memory"), number("maxmemory"));
        if maximum > 0 && used.saturating_mul(100) > maximum.saturating_mul(SHORT) {
            let mib = |bytes: u64| bytes / (1024 * 1024);
            self.warn(format!(
                "it uses {} of {} MiB: when it is full, webhooks are answered 503 and everything waits; raise \
                 maxmemory, or see why jobs do not drain",
                mib(used),
                mib(maximum)
            ));
        }
        true
    }
}

/// The checks of one process.
pub struct Checks {
    pool: Pool,
    settings: RedisSettings,
    gauge: Gauge,
    told: Vec<Finding>,
}

impl Checks {
    /// `gauge` gets the number of findings.
    #[must_use]
    pub fn new(pool: &Pool, settings: &RedisSettings, gauge: Gauge) -> Self {
        Self {
            pool: pool.clone(),
            settings: settings.clone(),
            gauge,
            told: Vec::new(),
        }
    }

    /// The first look. Warnings are logged.
    ///
    /// # Errors
    /// Outside when Redis could not be looked at: try again. Inside when this is not a Redis to start with.
    pub async fn first(&mut self) -> Result<Result<(), Refused>, LedgerError> {
        let findings = look(&self.pool, &self.settings).await?;
        let reasons: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refusal)
            .map(|finding| finding.text.clone())
            .collect();
        if !reasons.is_empty() {
            return Ok(Err(Refused {
                address: self.settings.address(),
                reasons,
            }));
        }
        self.tell(findings);
        Ok(Ok(()))
    }

    /// Looks again and again, until `stop`.
    pub async fn watch(mut self, stop: &CancellationToken) {
        loop {
            tokio::select! { () = stop.cancelled() => return,
            () = tokio::time::sleep(self.settings.check_interval) => {} }
            match look(&self.pool, &self.settings).await {
                Ok(findings) => self.tell(findings),
                Err(error) => tracing::debug!(%error, "Redis's settings could not be looked at"),
            }
        }
    }

    /// Logs what is new and what is over.
    fn tell(&mut self, findings: Vec<Finding>) {
        let redis = self.settings.address();
        for finding in findings.iter().filter(|finding| !self.told.contains(finding)) {
            match finding.severity {
                Severity::Refusal => tracing::error!(
                    redis,
                    finding = finding.text,
                    "Redis is not fit for this any more; no process would start with it"
                ),
                Severity::Warning => tracing::warn!(
                    redis,
                    finding = finding.text,
                    "Redis is not set up to keep what it is given"
                ),
            }
        }
        for finding in self.told.iter().filter(|finding| !findings.contains(finding)) {
            tracing::info!(redis, finding = finding.text, "this is over");
        }
        self.gauge.set(i64::try_from(findings.len()).unwrap_or(i64::MAX));
        self.told = findings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(info: &str, may_evict: bool) -> Vec<(Severity, String)> {
        let settings = RedisSettings {
            may_evict,
            ..RedisSettings::of_url("redis://r").expect("a URL")
        };
        let mut findings = Findings(Vec::new());
        findings.of_info(info, &settings);
        findings
            .0
            .into_iter()
            .map(|finding| (finding.severity, finding.text))
            .collect()
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_do() {
        for (info, word) in [
            ("redis_version:6.0.16\r\nredis_mode:standalone\r\n", "6.2"),
            (
                "redis_version:7.0.15\r\nmaxmemory_policy:volatile-lru\r\n",
                "REDIS_MAY_EVICT",
            ),
            (
                "redis_version:7.0.15\r\nredis_mode:cluster\r\ncluster_enabled:1\r\n",
                "redis+sentinel://",
            ),
            ("redis_version:7.0.15\r\nredis_mode:sentinel\r\n", "redis+sentinel://"),
            ("redis_version:7.2.4\r\nserver_mode:sentinel\r\n", "redis+sentinel://"),
        ] {
            let found = of(info, false);
            assert!(
                matches!(found.as_slice(), [(Severity::Refusal, text)] if text.contains(word)),
                "{info}: {found:?}"
            );
        }
        assert_eq!(
            of(
                "redis_version:6.2.0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\nmaxmemory:0\r\n\
                 used_memory:9\r\n",
                false
            ),
            []
        );
        assert_eq!(of("redis_version:10.0.0\r\n", false), [], "numbers, not text");
    }

    #[test]
    fn what_is_not_safe_is_told() {
        for (info, word) in [
            ("maxmemory_policy:allkeys-lru\r\n", "noeviction"),
            ("aof_enabled:0\r\n", "appendonly"),
            ("role:slave\r\n", "replica"),
            ("aof_last_write_status:err\r\n", "MISCONF"),
            ("maxmemory:104857600\r\nused_memory:99614720\r\n", "95 of 100 MiB"),
        ] {
            let found = of(info, true);
            assert!(
                matches!(found.as_slice(), [(Severity::Warning, text)] if text.contains(word)),
                "{info}: {found:?}"
            );
        }
    }
}
