//! Jobs, runners and dead letters as the admin API and `jitctl --output json` show them: the ledger's fields, with
//! times as people write them and numbers as numbers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{event::JobId, ledger::shown_state, stream::dead_letters::DeadLetter};

/// A time of the ledger's, ms since 1970, in RFC 3339.
#[must_use]
pub fn time(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|time| time.to_string())
}

/// A job.
#[must_use]
pub fn job(id: JobId, info: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("job_id".into(), json!(id.get()));
    text(
        &mut shown,
        info,
        &[
            ("organization", "org"),
            ("repository", "repo"),
            ("state", "state"),
            ("reason", "reason"),
            ("class", "class"),
        ],
    );
    text(
        &mut shown,
        info,
        &[
            ("group", "group"),
            ("profile", "profile"),
            ("runner", "runner"),
            ("conclusion", "conclusion"),
        ],
    );
    labels(&mut shown, info);
    number(&mut shown, info, "attempt");
    times(&mut shown, info, &["queued_at", "started_at", "completed_at"]);
    shown
}

/// A runner.
#[must_use]
pub fn runner(name: &str, info: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("name".into(), json!(name));
    text(
        &mut shown,
        info,
        &[
            ("organization", "org"),
            ("detail", "detail"),
            ("reason", "why"),
            ("class", "class"),
            ("group", "group"),
            ("profile", "profile"),
        ],
    );
    shown.insert("state".into(), json!(shown_state(info)));
    labels(&mut shown, info);
    // Ids stand as text in the ledger, where no number holds 63 bits.
    for (field, key) in [
        ("asked_for_by_job", "job"),
        ("runs_job", "running_job"),
        ("github_id", "github_id"),
    ] {
        if let Some(id) = info.get(key).and_then(|text| text.parse::<u64>().ok()) {
            shown.insert(field.into(), json!(id));
        }
    }
    times(
        &mut shown,
        info,
        &[
            "reserved_at",
            "claimed_at",
            "registered_at",
            "created_at",
            "started_at",
            "busy_at",
            "removing_at",
            "gone_at",
        ],
    );
    shown
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

fn text(shown: &mut Map<String, Value>, info: &BTreeMap<String, String>, fields: &[(&str, &str)]) {
    for (field, key) in fields {
        if let Some(text) = info.get(*key) {
            shown.insert((*field).into(), json!(text));
        }
    }
}

fn number(shown: &mut Map<String, Value>, info: &BTreeMap<String, String>, field: &str) {
    if let Some(number) = info.get(field).and_then(|text| text.parse::<u64>().ok()) {
        shown.insert(field.into(), json!(number));
    }
}

fn labels(shown: &mut Map<String, Value>, info: &BTreeMap<String, String>) {
    if let Some(labels) = info
        .get("labels")
        .and_then(|text| serde_json::from_str::<Vec<String>>(text).ok())
    {
        shown.insert("labels".into(), json!(labels));
    }
}

fn times(shown: &mut Map<String, Value>, info: &BTreeMap<String, String>, fields: &[&str]) {
    for field in fields {
        // Lua writes large numbers as it likes, so also with a fraction.
        if let Some(time) = info
            .get(*field)
            .and_then(|text| text.parse::<f64>().ok())
            .and_then(|ms| time(ms as i64))
        {
            shown.insert((*field).into(), json!(time));
        }
    }
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
        let info: BTreeMap<String, String> = info.map(|(name, value)| (name.into(), value.into())).into();
        let shown = Value::Object(runner("r", &info));
        assert_eq!(
            shown,
            json!({ "name": "r", "state": "idle", "asked_for_by_job": 9_223_372_036_854_775_807_u64, "started_at": "2027-01-15T08:00:00Z", "labels": ["linux"] })
        );
    }
}
