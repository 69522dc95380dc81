//! A job's class is derived from what the job asked for, and derived anew where other settings hold.

use serde_json::json;

use super::{JobRecord, Ledger, LedgerError, keys, records, scripts, transitions::SLICE};
use crate::{class::Class, config::GithubSettings, event::JobId};

/// Fields of a job that say what it asked for, and of which class it is.
const ASKED: [&str; 5] = ["org", "repo", "labels", "user", "class"];

impl Ledger {
    /// Makes these settings the ones that derive classes from now on: the worker that starts last wins, as with the
    /// limits.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn announce_classes(&self, github: &GithubSettings) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        Ok(redis::AsyncCommands::hset(&mut connection, keys::META, "classes", github.fingerprint()).await?)
    }

    /// Derives the classes of all jobs that have not begun, where these settings are the ones announced, and jobs came
    /// by others. How many moved.
    ///
    /// # Errors
    /// When Redis is unavailable; a next call finishes it.
    pub async fn derive_classes(&self, github: &GithubSettings) -> Result<usize, LedgerError> {
        let mut connection = self.pool().get().await?;
        let [announced, derived]: [Option<String>; 2] = redis::cmd("HMGET")
            .arg(keys::META)
            .arg("classes")
            .arg("derived")
            .query_async(&mut connection)
            .await?;
        let ours = github.fingerprint();
        if announced.is_none() {
            // The data is gone, and so are the jobs.
            let both = [("classes", &ours), ("derived", &ours)];
            let _: () = redis::AsyncCommands::hset_multiple(&mut connection, keys::META, &both).await?;
            return Ok(0);
        }
        if announced.as_deref() != Some(&ours) || derived.as_deref() == Some(&ours) {
            return Ok(0);
        }
        // Noted first: what comes by other settings meanwhile takes the note away, and is looked at by the next call.
        let _: () = redis::AsyncCommands::hset(&mut connection, keys::META, "derived", &ours).await?;
        let orgs: Vec<String> = redis::AsyncCommands::hkeys(&mut connection, keys::ORGS_PENDING).await?;
        drop(connection);
        let mut moved = 0;
        for queue in orgs
            .iter()
            .map(keys::org_pending)
            .chain([keys::JOBS_QUESTIONS.to_owned()])
        {
            moved += match self.derive_queue(github, &queue).await {
                Ok(moved) => moved,
                Err(error) => {
                    self.forget_derived().await;
                    return Err(error);
                }
            };
        }
        Ok(moved)
    }

    /// Best effort: where it does not work either, the next worker that starts derives them.
    async fn forget_derived(&self) {
        if let Ok(mut connection) = self.pool().get().await {
            let _: redis::RedisResult<i64> = redis::AsyncCommands::hdel(&mut connection, keys::META, "derived").await;
        }
    }

    async fn derive_queue(&self, github: &GithubSettings, queue: &str) -> Result<usize, LedgerError> {
        let (mut cursor, mut moved) = ("0".to_owned(), 0);
        loop {
            let mut connection = self.pool().get().await?;
            let (next, jobs): (String, Vec<String>) = redis::cmd("ZSCAN")
                .arg(queue)
                .arg(&cursor)
                .arg("COUNT")
                .arg(SLICE)
                .query_async(&mut connection)
                .await?;
            let jobs: Vec<JobId> = jobs.iter().step_by(2).filter_map(|job| job.parse().ok()).collect();
            let mut pipe = redis::pipe();
            for job in &jobs {
                pipe.hmget(keys::job_info(job), &ASKED);
            }
            let asked: Vec<Vec<Option<String>>> = if jobs.is_empty() {
                Vec::new()
            } else {
                pipe.query_async(&mut connection).await?
            };
            drop(connection);
            let others: Vec<_> = jobs
                .into_iter()
                .zip(asked)
                .map(|(job, values)| JobRecord::decode(job, records::part(&ASKED, values)))
                .filter_map(|job| derive(github, job))
                .collect();
            for slice in others.chunks(SLICE) {
                self.run::<serde_json::Value>(&scripts::CONFIGURE, &json!({ "jobs": slice }))
                    .await?;
            }
            moved += others.len();
            cursor = next;
            if cursor == "0" {
                return Ok(moved);
            }
        }
    }
}

/// The class that a job has by these settings, where it is another than the one that it has.
fn derive(github: &GithubSettings, job: JobRecord) -> Option<serde_json::Value> {
    let (org, repo, labels, before) = (job.org?, job.repo?, job.labels?, job.class?);
    // A release before wrote a user's repository where the owner stands.
    let organization = (!job.user && !org.contains('/')).then_some(org.as_str());
    let class = github
        .classify(organization, &repo, &labels)
        .filter(|class| class.id() != before)?;
    let mut described = described(&class);
    described.insert("job".into(), json!(job.id));
    described.insert("org".into(), json!(class.org));
    Some(described.into())
}

/// A class as the scripts take it.
pub(super) fn described(class: &Class) -> serde_json::Map<String, serde_json::Value> {
    let parts = [
        ("class", class.id()),
        ("scope", class.scope.clone()),
        ("group", class.group.clone()),
        ("profile", class.profile.clone()),
        ("labels", json!(class.labels).to_string()),
    ];
    parts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}
