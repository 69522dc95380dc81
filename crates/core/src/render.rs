//! Jobs, runners and dead letters as the admin API and `jitctl --output json` show them: the ledger's records, with
//! times as people write them and numbers as numbers.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    event::JobId,
    ledger::{JobRecord, RunnerRecord},
    model::{JobState, RunnerState},
    stream::dead_letters::DeadLetter,
};

/// A time of the ledger's, ms since 1970, in RFC 3339.
#[must_use]
pub fn time(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|time| time.to_string())
}

/// A job as people are shown it.
#[derive(Debug, Serialize)]
pub struct JobView<'a> {
    job_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<JobState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
}

impl<'a> From<&'a JobRecord> for JobView<'a> {
    fn from(job: &'a JobRecord) -> Self {
        Self {
            job_id: job.id.get(),
            organization: job.org.as_deref(),
            repository: job.repo.as_deref(),
            state: job.state,
            reason: job.reason.as_deref(),
            class: job.class.as_deref(),
            group: job.group.as_deref(),
            profile: job.profile.as_deref(),
            labels: job.labels.as_deref(),
            runner: job.runner.as_deref(),
            conclusion: job.conclusion.as_deref(),
            attempt: job.attempt,
            queued_at: job.queued_at.and_then(time),
            started_at: job.started_at.and_then(time),
            completed_at: job.completed_at.and_then(time),
        }
    }
}

/// A runner as people are shown it.
#[derive(Debug, Serialize)]
pub struct RunnerView<'a> {
    name: &'a str,
    /// Empty where the record holds none.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
    // Ids are numbers here and text in the ledger, where no number holds 63 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_for_by_job: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_job: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    github_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removing_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_at: Option<String>,
}

impl<'a> From<&'a RunnerRecord> for RunnerView<'a> {
    fn from(runner: &'a RunnerRecord) -> Self {
        Self {
            name: &runner.name,
            state: runner.shown_state().map_or("", RunnerState::as_str),
            organization: runner.org.as_deref(),
            detail: runner.detail.as_deref(),
            reason: runner.why.as_deref(),
            class: runner.class.as_deref(),
            group: runner.group.as_deref(),
            profile: runner.profile.as_deref(),
            labels: runner.labels.as_deref(),
            asked_for_by_job: runner.job.map(JobId::get),
            runs_job: runner.running_job.map(JobId::get),
            github_id: runner.github_id,
            reserved_at: runner.reserved_at.and_then(time),
            claimed_at: runner.claimed_at.and_then(time),
            registered_at: runner.registered_at.and_then(time),
            created_at: runner.created_at.and_then(time),
            started_at: runner.started_at.and_then(time),
            busy_at: runner.busy_at.and_then(time),
            removing_at: runner.removing_at.and_then(time),
            gone_at: runner.gone_at.and_then(time),
        }
    }
}

/// A dead letter: where it came from, why it died, what it holds and, where that can be read, which job it is about.
#[must_use]
pub fn letter(letter: &DeadLetter) -> Map<String, Value> {
    let mut shown = Map::new();
    for (field, text) in [
        ("id", &letter.id),
        ("stream", &letter.stream),
        ("entry_id", &letter.entry_id),
        ("reason", &letter.reason),
    ] {
        shown.insert(field.into(), json!(text));
    }
    for (field, ms) in [("died_at", letter.died_at()), ("accepted_at", letter.accepted_at())] {
        if let Some(time) = ms.and_then(time) {
            shown.insert(field.into(), json!(time));
        }
    }
    if let Some(event) = letter.event() {
        shown.insert("job_id".into(), json!(event.job.get()));
        shown.insert("action".into(), json!(event.action.as_str()));
        shown.insert("organization".into(), json!(event.org));
    }
    shown.insert("entry".into(), json!(letter.fields));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_people_write_them_and_ids_are_numbers() {
        let info = [
            ("job", "9223372036854775807"),
            ("state", "created"),
            ("started_at", "1800000000000"),
            ("labels", "[\"linux\"]"),
            ("fence", "3"),
        ];
        let hash = info.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let runner = RunnerRecord::decode("r".into(), hash);
        assert_eq!(
            json!(RunnerView::from(&runner)),
            json!({ "name": "r", "state": "idle", "asked_for_by_job": 9_223_372_036_854_775_807_u64,
                "started_at": "2027-01-15T08:00:00Z", "labels": ["linux"] })
        );
    }
}
