//! A webhook's bytes and its signature, made up at random: nothing panics, nothing unsigned is believed, and what is
//! taken is within its bounds. `make fuzz MINUTES=10` runs more of it. The same over HTTP and into Redis is
//! arbitrary.rs.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use clap::Parser;
use jit_core::config::Door;
use jit_receiver::{
    config::{ReceiverArgs, Settings},
    job::{Decision, decide},
    names::{is_full_name, is_login},
    payload::Payload,
    signature,
};
use jit_testing::fuzz;
use proptest::prelude::*;

mod support;

/// The text of each fixture.
fn fixtures() -> Vec<String> {
    let dir = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("fixtures")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect()
}

/// One thing done to a payload's bytes.
#[derive(Clone, Debug)]
enum Harm {
    Cut,
    Byte(u8),
    Insert(Vec<u8>),
    Double,
    Replace(usize, Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    let odd = prop::sample::select(vec![
        "null",
        "-1",
        "0",
        "18446744073709551616",
        "9223372036854775808",
        "1e400",
        "-0.0",
        "1.0",
        "true",
        "\"\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "[]",
        "{}",
        "[[]]",
        "{\"id\":{}}",
        "\"a:b\"",
        "NaN",
        "'x'",
        "\"../..\"",
    ]);
    let odd = prop_oneof![
        6 => odd.prop_map(|text| text.as_bytes().to_vec()),
        1 => (1usize..200_000).prop_map(|depth| b"[".repeat(depth)),
        1 => (1usize..400).prop_map(|digits| b"9".repeat(digits)),
        1 => (1usize..3000).prop_map(|length| [&b"\""[..], &b"x".repeat(length), b"\""].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
        1 => Just(vec![0xff, 0xfe]),
    ];
    prop_oneof![
        1 => Just(Harm::Cut),
        1 => any::<u8>().prop_map(Harm::Byte),
        1 => odd.clone().prop_map(Harm::Insert),
        1 => Just(Harm::Double),
        4 => (0usize..20, odd).prop_map(|(field, value)| Harm::Replace(field, value)),
    ]
}

/// The names of what is read of a payload.
const FIELDS: [&str; 16] = [
    "action",
    "workflow_job",
    "id",
    "run_attempt",
    "status",
    "conclusion",
    "labels",
    "runner_id",
    "runner_name",
    "organization",
    "login",
    "repository",
    "full_name",
    "private",
    "visibility",
    "owner",
];

/// Where the value after a field's name begins and ends, roughly: up to the next comma, brace or bracket.
fn value(text: &[u8], field: &str) -> Option<(usize, usize)> {
    let name = format!("\"{field}\"");
    let at = text.windows(name.len()).position(|window| window == name.as_bytes())? + name.len();
    let begin = at + text[at..].iter().position(|b| !matches!(b, b':' | b' '))?;
    let end = begin
        + text[begin..]
            .iter()
            .position(|b| matches!(b, b',' | b'}' | b']' | b'\n'))?;
    Some((begin, end))
}

fn harmed(mut text: Vec<u8>, harm: Harm, at: prop::sample::Index) -> Vec<u8> {
    if text.is_empty() {
        return text;
    }
    let place = at.index(text.len());
    match harm {
        Harm::Cut => text.truncate(place),
        Harm::Byte(byte) => text[place] = byte,
        Harm::Insert(bytes) => drop(text.splice(place..place, bytes)),
        // Whole lines: a field and its value stand twice.
        Harm::Double => {
            let begin = text[..place].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let end = text[place..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(text.len(), |end| place + end + 1);
            let line = text[begin..end].to_vec();
            text.splice(begin..begin, line);
        }
        Harm::Replace(field, bytes) => {
            if let Some((begin, end)) = value(&text, FIELDS[field % FIELDS.len()]) {
                text.splice(begin..end, bytes);
            }
        }
    }
    text
}

fn settings() -> Settings {
    let flags = [
        "jit-receiver",
        "--ghes-url",
        "https://github.example.com",
        "--webhook-insecure",
        "true",
    ];
    ReceiverArgs::parse_from(flags)
        .resolve()
        .expect("a valid configuration")
}

/// Reads it and decides; whatever it is, the outcome is within its bounds.
fn sound(bytes: &[u8], settings: &Settings) {
    let told = |error: &str| {
        assert!(
            (1..=210).contains(&error.chars().count()) && !error.chars().any(char::is_control),
            "{error:?}"
        );
    };
    let payload = match Payload::read(bytes) {
        Ok(payload) => payload,
        Err(error) => return told(&error),
    };
    match decide(&payload, &settings.github, &settings.limits) {
        Ok(Decision::UnknownAction(action)) => {
            assert!(action.chars().count() <= 65 && !action.chars().any(char::is_control))
        }
        Ok(Decision::Publish(event) | Decision::Acknowledge(event) | Decision::NotOurs(_, event)) => {
            assert!(is_login(&event.org) || is_full_name(&event.org), "{event:?}");
            assert!(is_full_name(&event.repo), "{event:?}");
            assert!((1..=i64::MAX.unsigned_abs()).contains(&event.job.get()));
            assert!(
                event
                    .class
                    .iter()
                    .all(|class| class.labels.len() <= 100 && class.labels.iter().all(|label| !label.is_empty())),
                "{event:?}"
            );
            assert!(event.runner.iter().all(|name| (1..=64).contains(&name.chars().count())));
            // What is published is read by the worker as it was written.
            let json = serde_json::to_string(&event).expect("JSON");
            assert_eq!(
                serde_json::from_str::<jit_core::event::JobEvent>(&json).expect("readable"),
                event
            );
        }
        Err(error) => {
            assert_eq!(error.status, 400);
            told(&error.detail);
        }
    }
}

#[test]
fn a_real_payload_with_anything_done_to_it_is_read_or_refused() {
    let (settings, fixtures) = (settings(), fixtures());
    for fixture in &fixtures {
        assert!(
            Payload::read(fixture.as_bytes())
                .is_ok_and(|payload| decide(&payload, &settings.github, &settings.limits).is_ok()),
            "{fixture}"
        );
    }
    let harms = prop::collection::vec((harm(), any::<prop::sample::Index>()), 1..5);
    fuzz((prop::sample::select(fixtures), harms), |(text, harms)| {
        let bytes = harms
            .into_iter()
            .fold(text.into_bytes(), |text, (harm, at)| harmed(text, harm, at));
        sound(&bytes, &settings);
    });
}

#[test]
fn any_bytes_and_any_json_are_read_or_refused() {
    let settings = settings();
    let json = "[{}\\[\\]\",:0-9a-z_ \\\\.eE+-]{0,120}";
    fuzz(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            json.prop_map(String::into_bytes)
        ],
        |bytes| sound(&bytes, &settings),
    );
}

fn verify(secrets: &[Door], signatures: &[Vec<u8>], body: &[u8]) -> Option<bool> {
    let mut headers = HeaderMap::new();
    for signature in signatures {
        headers.append(
            HeaderName::from_static(signature::HEADER),
            HeaderValue::from_bytes(signature).ok()?,
        );
    }
    Some(signature::verify(secrets, &headers, body).is_ok())
}

#[test]
fn no_header_is_believed_but_the_right_one() {
    // Near the right one, and far from it.
    let change = prop_oneof![
        Just(None),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Some((at, vec![byte], true))),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..70))
            .prop_map(|(at, bytes)| Some((at, bytes, false))),
    ];
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    fuzz(
        (
            "[ -~]{1,40}",
            bytes(),
            bytes(),
            change,
            prop::collection::vec(bytes(), 0..2),
        ),
        |(secret, body, other, change, more)| {
            let secrets = [Door::new("another"), Door::new(secret.as_str())];
            let right = support::signature(&secret, &body).into_bytes();
            let mut given = right.clone();
            match change {
                None => {}
                Some((at, bytes, true)) => given[at.index(right.len())] = bytes[0],
                Some((at, bytes, false)) => drop(given.splice(at.index(right.len()).., bytes)),
            }
            // The digits may be of either case; what comes before them may not.
            let is_right = given.len() == right.len() && given[..7] == right[..7] && given.eq_ignore_ascii_case(&right);
            let signatures: Vec<_> = std::iter::once(given).chain(more).collect();
            if let Some(believed) = verify(&secrets, &signatures, &body) {
                assert_eq!(believed, is_right && signatures.len() == 1, "{signatures:?}");
            }
            assert_eq!(verify(&secrets, std::slice::from_ref(&right), &body), Some(true));
            assert_eq!(
                verify(&secrets, std::slice::from_ref(&right), &other),
                Some(other == body),
                "of another body"
            );
            assert_eq!(
                verify(&[Door::new(format!("{secret}x").as_str())], &[right], &body),
                Some(false),
                "under another secret"
            );
        },
    );
}
