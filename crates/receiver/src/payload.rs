//! What is read of a `workflow_job` payload: a dozen of its hundreds of fields.
//!
//! Modelled on GitHub's own examples and on older servers: anything but the action may be missing or null here; what an
//! event cannot do without, [`crate::job`] asks for. A field that is there has to have its type, or the error names it.
//! What is not read is skipped without recursion, so depth costs nothing; lists and numbers are bounded while they are
//! read.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::names::shown;

/// Labels of one job at most. GitHub's own editor stops far earlier.
const LABELS: usize = 100;
/// Characters of one label at most, which is GitHub's own limit.
const LABEL: usize = 256;
/// Longest text that is read as a time, in bytes.
const TIME: usize = 64;
/// Longest error that is told, in characters.
const TOLD: usize = 200;

/// A payload, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Payload {
    /// What happened.
    pub action: Option<String>,
    /// The job.
    #[serde(default, deserialize_with = "object")]
    pub workflow_job: Option<WorkflowJob>,
    /// The organization; none for a user's repository, and in some old payloads.
    #[serde(default, deserialize_with = "object")]
    pub organization: Option<Organization>,
    /// The repository.
    #[serde(default, deserialize_with = "object")]
    pub repository: Option<Repository>,
}

/// The job.
#[derive(Debug, Deserialize)]
pub struct WorkflowJob {
    /// GitHub's id.
    #[serde(default, deserialize_with = "job_id")]
    pub id: Option<u64>,
    /// Which attempt of its run; older servers do not tell.
    pub run_attempt: Option<i64>,
    /// Its state when the webhook was made.
    pub status: Option<String>,
    /// How it ended.
    pub conclusion: Option<String>,
    /// Labels that it asks for.
    pub labels: Option<Labels>,
    /// Runner that works on it: null or 0 before there is one.
    pub runner_id: Option<i64>,
    /// Name of that runner: null or empty before there is one.
    pub runner_name: Option<String>,
    /// When it was created.
    #[serde(default, deserialize_with = "time")]
    pub created_at: Option<i64>,
    /// When it began; while it is queued, the time of its creation.
    #[serde(default, deserialize_with = "time")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(default, deserialize_with = "time")]
    pub completed_at: Option<i64>,
}

/// The organization.
#[derive(Debug, Deserialize)]
pub struct Organization {
    /// Its login.
    pub login: Option<String>,
    /// GitHub's id of it.
    #[serde(default, deserialize_with = "owner_id")]
    pub id: Option<u64>,
}

/// The repository.
#[derive(Debug, Deserialize)]
pub struct Repository {
    /// `owner/name`.
    pub full_name: Option<String>,
    /// Not public: private or internal.
    pub private: Option<bool>,
    /// `public`, `private` or `internal`; older servers do not tell.
    pub visibility: Option<String>,
    /// Whose it is.
    #[serde(default, deserialize_with = "object")]
    pub owner: Option<Owner>,
}

/// A repository's owner.
#[derive(Debug, Deserialize)]
pub struct Owner {
    /// Login.
    pub login: Option<String>,
    /// GitHub's id of it.
    #[serde(default, deserialize_with = "owner_id")]
    pub id: Option<u64>,
    /// `User` or `Organization`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A job's labels, bounded.
#[derive(Debug, Default)]
pub struct Labels(pub Vec<String>);

impl Payload {
    /// Reads a payload.
    ///
    /// # Errors
    /// With a sentence that names the field, where there is one.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let payload = object(&mut reader).and_then(|payload| reader.end().map(|()| payload));
        match payload {
            Ok(Some(payload)) => Ok(payload),
            Ok(None) => Err("the body is null, and no webhook".into()),
            Err(error) if error.is_data() => Err(told(json, &error)),
            Err(error) => Err(shown(&format!("the body is no JSON: {error}"), TOLD)),
        }
    }
}

/// Reads once more, more slowly, for the field that has the wrong type.
fn told(json: &[u8], error: &serde_json::Error) -> String {
    let mut track = serde_path_to_error::Track::new();
    let again: Result<Option<Payload>, _> = object(serde_path_to_error::Deserializer::new(
        &mut serde_json::Deserializer::from_slice(json),
        &mut track,
    ));
    match (again, track.path().to_string().as_str()) {
        (Err(error), path) if path != "." => shown(&format!("{path}: {error}"), TOLD),
        _ => shown(&format!("the body is no webhook: {error}"), TOLD),
    }
}

/// An object, or nothing for null. Lists, which serde would take for objects without names, are refused.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Object(PhantomData))
}

fn job_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Id;
    impl Visitor<'_> for Id {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 1 to 2^63 - 1")
        }

        fn visit_u64<E: Error>(self, id: u64) -> Result<Self::Value, E> {
            match id {
                1..=0x7fff_ffff_ffff_ffff => Ok(Some(id)),
                _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(id), &self)),
            }
        }

        fn visit_i64<E: Error>(self, id: i64) -> Result<Self::Value, E> {
            Err(E::invalid_value(serde::de::Unexpected::Signed(id), &self))
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Id)
}

/// A text or a whole number; anything else is nothing. What does not decide whether a job gets its runner refuses no
/// webhook.
#[derive(Default)]
struct Lenient {
    text: Option<String>,
    number: Option<u64>,
}

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Lenient;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Lenient, E> {
                Ok(Lenient {
                    text: (text.len() <= TIME).then(|| text.to_owned()),
                    number: None,
                })
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Lenient, E> {
                Ok(Lenient {
                    text: None,
                    number: Some(number),
                })
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_unit<E: Error>(self) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lenient, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Lenient::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lenient, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Lenient::default())
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A time, in ms since 1970.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let time = Lenient::deserialize(deserializer)?
        .text
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(time.map(jiff::Timestamp::as_millisecond))
}

/// An id, from 1 on.
fn owner_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Lenient::deserialize(deserializer)?.number.filter(|id| *id > 0))
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {LABELS} labels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Labels, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = list.next_element::<String>()? {
                    if labels.len() == LABELS {
                        return Err(A::Error::custom(format!("more than {LABELS} labels")));
                    }
                    if label.is_empty() || label.chars().count() > LABEL || label.chars().any(char::is_control) {
                        return Err(A::Error::custom(format!(
                            "a label has 1 to {LABEL} characters and no control characters"
                        )));
                    }
                    labels.push(label);
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        Payload::read(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_wrong_type_is_told_by_its_field() {
        for (json, field) in [
            (r#"{"action": 5}"#, "action"),
            (r#"{"workflow_job": []}"#, "workflow_job"),
            (r#"{"organization": ["acme"]}"#, "organization"),
            (r#"{"workflow_job": {"id": "1"}}"#, "workflow_job.id"),
            (r#"{"workflow_job": {"id": 1.5}}"#, "workflow_job.id"),
            (r#"{"workflow_job": {"id": true}}"#, "workflow_job.id"),
            (r#"{"workflow_job": {"labels": "linux"}}"#, "workflow_job.labels"),
            (
                r#"{"workflow_job": {"labels": ["linux", 5]}}"#,
                "workflow_job.labels[1]",
            ),
            (r#"{"workflow_job": {"labels": ["a\nb"]}}"#, "workflow_job.labels"),
            (r#"{"workflow_job": {"runner_name": 5}}"#, "workflow_job.runner_name"),
            (r#"{"organization": {"login": 5}}"#, "organization.login"),
            (r#"{"repository": {"private": "no"}}"#, "repository.private"),
            (r#"{"repository": {"owner": {"type": {}}}}"#, "repository.owner.type"),
        ] {
            assert!(
                error(json).starts_with(&format!("{field}: ")),
                "{json}: {}",
                error(json)
            );
        }
    }

    #[test]
    fn ids_are_from_1_to_2_to_the_63() {
        for id in [
            "0",
            "-1",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "1e3",
            "-9223372036854775809",
        ] {
            assert!(
                error(&format!(r#"{{"workflow_job": {{"id": {id}}}}}"#)).starts_with("workflow_job.id: "),
                "{id}"
            );
        }
        let payload = Payload::read(br#"{"workflow_job": {"id": 9223372036854775807}}"#).expect("the largest id");
        assert_eq!(payload.workflow_job.and_then(|job| job.id), Some(u64::MAX >> 1));
    }

    #[test]
    fn depth_neither_overflows_nor_costs() {
        let deep = "[".repeat(1_000_000);
        assert!(error(&deep).contains("expected an object"));
        assert!(error(&format!(r#"{{"workflow_job": {{"steps": {deep}"#)).contains("EOF"));
        assert!(error(&format!(r#"{{"action": {deep}"#)).starts_with("action: "));
    }

    #[test]
    fn what_decides_nothing_may_be_anything() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for odd in [
            "null",
            "5",
            "-5",
            "0.5",
            "true",
            "{\"a\": {}}",
            "\"yesterday\"",
            deep.as_str(),
        ] {
            let payload = Payload::read(
                format!(
                    r#"{{"workflow_job": {{"created_at": {odd}}}, "organization": {{"id": "{}"}}}}"#,
                    "x"
                )
                .as_bytes(),
            )
            .expect(odd);
            assert_eq!(payload.workflow_job.and_then(|job| job.created_at), None, "{odd}");
            assert_eq!(payload.organization.and_then(|organization| organization.id), None);
        }
    }

    #[test]
    fn too_many_and_too_long_labels_are_refused_while_they_are_read() {
        let many = vec!["\"a\""; 1_000_000].join(",");
        assert!(error(&format!(r#"{{"workflow_job": {{"labels": [{many}]}}}}"#)).contains("more than 100 labels"));
        assert!(
            error(&format!(r#"{{"workflow_job": {{"labels": ["{}"]}}}}"#, "x".repeat(257))).contains("256 characters")
        );
    }

    #[test]
    fn what_follows_or_lacks_is_an_error() {
        for json in [
            "",
            "{",
            "{}x",
            "null",
            "[]",
            "5",
            "\"text\"",
            "{\"action\": \"queued\"",
            "{'a': 1}",
            "{\"action\":\"a\",\"action\":\"b\"}",
        ] {
            assert!(!error(json).is_empty(), "{json}");
        }
        assert!(Payload::read(b"{\"action\": \"\xff\"}").is_err(), "no UTF-8");
    }
}
