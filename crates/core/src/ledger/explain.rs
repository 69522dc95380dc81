//! Why a job waits: one sentence that names the limit, pause, back-off or step, and since when.

use redis::{AsyncCommands, pipe};
use serde::Serialize;

use super::{JobRecord, Known, Ledger, LedgerError, RunnerRecord, keys, records};
use crate::{
    event::JobId,
    model::{JobState, RunnerState},
    render,
};

/// Where a job stands, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its state.
    pub state: Known<JobState>,
    /// One sentence.
    pub why: String,
    /// Since when, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// When it is tried or asked about next, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// Sentences of an organization's status at most, and queued jobs that are looked at for them.
const REASONS: usize = 5;
const REASONS_LOOK: isize = 100;

/// Fields of a runner that tell of its removal.
const REMOVAL: [&str; 4] = ["removing_at", "state", "why", "deregistered"];

/// How many runners the namespace's quota lets in, and why.
struct Ceiling {
    runners: u64,
    since: i64,
    /// When one more is tried.
    next: i64,
    reason: String,
}

/// Its reason, since when, and the runner that tries it now.
type Backoff = (Option<String>, Option<i64>, Option<String>);

impl Ledger {
    /// Explains where a job stands.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn explain(&self, job: JobId) -> Result<Explanation, LedgerError> {
        let Some(record) = self.job(job).await? else {
            let why =
                "not known here: its webhook never came, its labels are not ours, or it has long been over".to_owned();
            return Ok(Explanation {
                state: Known::Unknown,
                why,
                since: None,
                next: None,
            });
        };
        let mut explanation = self.explain_known(&record).await?;
        if let Some(words) = &record.words {
            explanation.why = format!("{}; {words}", explanation.why); // when GitHub was last asked about it
        }
        Ok(explanation)
    }

    async fn explain_known(&self, job: &JobRecord) -> Result<Explanation, LedgerError> {
        let Some(state) = job.state else {
            return self.explain_queued(job).await;
        };
        let (runner, reason) = (said(&job.runner), said(&job.reason));
        let conclusion = said(&job.conclusion);
        let mut connection = self.pool().get().await?;
        let asked: Option<i64> = connection
            .zscore::<_, _, Option<f64>>(keys::JOBS_QUESTIONS, job.id.to_string())
            .await?
            .map(|at| at as i64);
        drop(connection);
        let (why, since, next) = match state {
            JobState::Completed if job.runner.is_some() => (
                format!("it is over ({conclusion}); runner {runner} ran it"),
                job.completed_at,
                None,
            ),
            JobState::Completed => (
                format!("it is over ({conclusion}) without having run"),
                job.completed_at,
                None,
            ),
            JobState::InProgress => (format!("it runs on runner {runner}"), job.started_at, None),
            JobState::Waiting => (format!("{reason}; it is no demand until it is approved"), None, asked),
            JobState::InQuestion if job.held_until.is_some() => (
                format!("{reason}, so GitHub gives it to no runner of its labels and group; it is tried again"),
                None,
                asked,
            ),
            JobState::InQuestion => (format!("{reason}; GitHub is asked what became of it"), None, asked),
            JobState::Queued => return self.explain_queued(job).await,
        };
        Ok(Explanation {
            state: Known::State(state),
            why,
            since,
            next,
        })
    }

    /// Why a queued job has no runner yet: the first of the reasons in the order in which admission meets them.
    async fn explain_queued(&self, job: &JobRecord) -> Result<Explanation, LedgerError> {
        let (org, class) = (said(&job.org), said(&job.class));
        let (profile, scope) = (said(&job.profile), said(&job.scope));
        let labels = job.labels.as_ref().map(|labels| serde_json::json!(labels).to_string());
        let labels = said(&labels);
        let explained = |why: String, since: Option<i64>, next: Option<i64>| Explanation {
            state: Known::State(JobState::Queued),
            why,
            since: since.or(job.queued_at),
            next,
        };

        let mut connection = self.pool().get().await?;
        let credential: Option<String> = connection.hget(keys::ORGS_CREDENTIAL, org).await?;
        drop(connection);
        let credential = credential.unwrap_or_default();
        let subjects = [
            (keys::GLOBAL.to_owned(), "everything".to_owned()),
            (keys::of_credential(&credential), format!("credential {credential}")),
            (keys::of_org(org), format!("organization {org}")),
            (keys::of_scope(scope), format!("what registers at {scope}")),
            (keys::of_profile(profile), format!("profile {profile}")),
            (keys::of_class(class), format!("its class (labels {labels})")),
        ];
        let closed = self.why_closed().await?;
        let mut connection = self.pool().get().await?;
        let (paused, maximum, rank, idle, live, misfit): (
            Option<String>,
            Option<u64>,
            Option<u64>,
            Vec<String>,
            u64,
            bool,
        ) = pipe()
            .hget(keys::ORGS_PAUSED, org)
            .hget(keys::META, "max_total")
            .zrank(keys::class_queued(class), job.id.to_string())
            .smembers(keys::class_idle(class))
            .scard(keys::RUNNERS_LIVE)
            .hexists(keys::class_info(class), "misfit")
            .query_async(&mut connection)
            .await?;
        if let Some(why) = closed {
            return Ok(explained(format!("nothing is admitted {why}"), None, None));
        }
        // A runner of its class that is on its way comes before everything that holds back the next one.
        let rank = rank.unwrap_or(0);
        if (rank as usize) < idle.len() {
            let mut names = idle.clone();
            names.sort();
            drop(connection);
            if let Some(name) = names.get(rank as usize) {
                let runner = self.runner(name).await?.unwrap_or_default();
                let (step, since) = step_of(&runner);
                let detail = runner.detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
                return Ok(explained(format!("runner {name} {step}{detail}"), since, None));
            }
            return Ok(explained("a runner of its class is on its way".into(), None, None));
        }
        if let Some(pause) = paused {
            let (why, since, until) = told_of_pause(org, &pause);
            return Ok(explained(why, since, until));
        }
        for (subject, name) in subjects {
            let (until, (reason, since, probe)): (Option<f64>, Backoff) = pipe()
                .zscore(keys::BACKOFFS, &subject)
                .hmget(keys::backoff(subject), &["reason", "since", "probe"])
                .query_async(&mut connection)
                .await?;
            if let Some(until) = until {
                let reason = reason.unwrap_or_else(|| "no reason noted".into());
                return Ok(match probe {
                    Some(probe) => explained(
                        format!("{name} backs off: {reason}; runner {probe} tries it now"),
                        since,
                        None,
                    ),
                    None => explained(format!("{name} backs off: {reason}"), since, Some(until as i64)),
                });
            }
        }
        if misfit && !idle.is_empty() {
            let deadlines: Vec<Option<f64>> = connection.zscore_multiple(keys::RUNNERS_DEADLINES, &idle).await?;
            let next = deadlines.into_iter().flatten().map(|at| at as i64).min();
            let why = format!(
                "its class (labels {labels}) gets one runner at a time, since its last one stayed idle: GitHub gave it \
                 none of these jobs"
            );
            return Ok(explained(why, None, next));
        }
        drop(connection);
        let status = self.org_status(org).await?;
        if status.running >= status.max {
            let removals = self.removals_under_way(org).await?;
            return Ok(explained(
                format!(
                    "organization {org} has {} of {} runners: it waits for one of them to end{removals}",
                    status.running, status.max
                ),
                None,
                None,
            ));
        }
        if let Some(ceiling) = self.ceiling().await?.filter(|ceiling| live >= ceiling.runners) {
            let why = format!(
                "{} runners fit into their namespace, one more is tried each minute: {}",
                ceiling.runners, ceiling.reason
            );
            return Ok(explained(why, Some(ceiling.since), Some(ceiling.next)));
        }
        if maximum.is_some_and(|maximum| live >= maximum) {
            return Ok(explained(
                format!("all {live} runners of the whole are in use: it waits for its organization's turn"),
                None,
                None,
            ));
        }
        Ok(explained("it is about to be admitted".into(), None, None))
    }

    /// A clause on the organization's runners that are being removed: their number, and the one that takes longest.
    /// Empty where there are none.
    async fn removals_under_way(&self, org: &str) -> Result<String, LedgerError> {
        let mut connection = self.pool().get().await?;
        let names: Vec<String> = connection.smembers(keys::org_runners(org)).await?;
        let mut batch = pipe();
        for name in &names {
            batch.hmget(keys::runner_info(name), &REMOVAL);
        }
        let known: Vec<Vec<Option<String>>> = batch.query_async(&mut connection).await?;
        let known = names.into_iter().zip(known);
        let mut going: Vec<_> = known
            .map(|(name, values)| RunnerRecord::decode(name, records::part(&REMOVAL, values)))
            .filter(|runner| runner.state == Some(RunnerState::Removing))
            .collect();
        going.sort_by(|a, b| (a.removing_at, &a.name).cmp(&(b.removing_at, &b.name)));
        Ok(going.first().map_or_else(String::new, |runner| {
            let since = runner.removing_at.and_then(render::time);
            let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
            let why = runner.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let step = if runner.deregistered {
                "GitHub has it no more, and its pod is not gone"
            } else {
                "GitHub has not said yet that it has it no more"
            };
            format!("; {} being removed, {}{since}{why}: {step}", going.len(), runner.name)
        }))
    }

    /// The ceiling that the namespace's quota sets, if it does.
    async fn ceiling(&self) -> Result<Option<Ceiling>, LedgerError> {
        let now = self.now().await?;
        let mut connection = self.pool().get().await?;
        let ((runners, since, reason), interval): ((Option<u64>, Option<i64>, Option<String>), Option<i64>) = pipe()
            .hmget(keys::QUOTA_CEILING, &["runners", "since", "reason"])
            .hget(keys::META, "quota_interval")
            .query_async(&mut connection)
            .await?;
        let (Some(runners), Some(since), interval) = (runners, since, interval.unwrap_or(0).max(1)) else {
            return Ok(None);
        };
        let passed = ((now - since) / interval).max(0);
        let (runners, next) = (runners + passed.unsigned_abs(), since + (passed + 1) * interval);
        Ok(Some(Ceiling {
            runners,
            since,
            next,
            reason: reason.unwrap_or_default(),
        }))
    }

    /// Why an organization's jobs have no runner: a sentence if it is paused, then one for the oldest queued job of
    /// each of its classes that wait longest, oldest first, then one for each job that is held back; with the time of
    /// the next try where there is one.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn org_reasons(&self, org: &str) -> Result<Vec<String>, LedgerError> {
        let org = self.canonical(org).await?;
        let mut connection = self.pool().get().await?;
        let (oldest, paused): (Vec<String>, Option<String>) = pipe()
            .zrange(keys::org_pending(&org), 0, REASONS_LOOK - 1)
            .hget(keys::ORGS_PAUSED, &org)
            .query_async(&mut connection)
            .await?;
        drop(connection);
        let jobs: Vec<JobId> = oldest.iter().filter_map(|job| job.parse().ok()).collect();
        let mut classes = Vec::new();
        let mut first = Vec::new();
        for job in self.jobs(&jobs).await? {
            if !classes.contains(&job.class) {
                classes.push(job.class);
                first.push(job.id);
            }
        }
        let mut reasons = Vec::new();
        if let Some(pause) = paused.filter(|_| first.is_empty()) {
            let (why, _, until) = told_of_pause(&org, &pause); // else its queued jobs tell of it
            reasons.push(format!("{why}{}", tried_again(until)));
        }
        // These stand in no queue until they are demand again.
        first.extend(self.held_jobs(&org, REASONS).await?);
        for job in first.into_iter().take(REASONS) {
            let explanation = self.explain(job).await?;
            reasons.push(format!(
                "job {job}: {}{}",
                explanation.why,
                tried_again(explanation.next)
            ));
        }
        Ok(reasons)
    }
}

/// The text of a field, empty where it lacks.
fn said(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// How far a runner has come that has no work yet, and since when.
fn step_of(runner: &RunnerRecord) -> (&'static str, Option<i64>) {
    let steps = [
        ("has started and waits for GitHub to give it work", runner.started_at),
        ("is starting", runner.created_at),
        ("is registered and gets its configuration", runner.registered_at),
        ("is being made", runner.claimed_at),
    ];
    let furthest = steps.into_iter().find(|(_, at)| at.is_some());
    furthest.unwrap_or(("is reserved and waits for a free worker", runner.reserved_at))
}

/// A pause in words, when it began, and when it ends by itself.
fn told_of_pause(org: &str, pause: &str) -> (String, Option<i64>, Option<i64>) {
    let pause: serde_json::Value = serde_json::from_str(pause).unwrap_or_default();
    let reason = pause["reason"].as_str().unwrap_or("no reason given");
    (
        format!("organization {org} is paused: {reason}"),
        pause["since"].as_i64(),
        pause["until_ms"].as_i64(),
    )
}

fn tried_again(next: Option<i64>) -> String {
    let next = next.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    next.map(|at| format!("; tried again at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")))
        .unwrap_or_default()
}
