//! What comes from outside into core, made up at random: label matchers, files of limits, entries of streams, job ids.
//! Nothing panics, and what is taken is what it says. `make fuzz MINUTES=10` runs more of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use jit_core::{
    class::Class,
    config::{MAX_LIMIT, ORG_LIMITS_SIZE, parse_org_limits, read_org_limits},
    event::{Action, Identity, JobEvent, JobId},
    labels::LabelMatcher,
    names, render,
    stream::{
        Entry,
        dead_letters::{self, DeadLetter},
    },
};
use jit_testing::fuzz;
use proptest::prelude::*;

// ---- label matchers

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["linux", "x64", "gpu", "self-hosted", "a", "code \
         linux"]).prop_map(str::to_owned),
        1 => "[^,;+]{1,12}".prop_map(|text| text.trim().to_owned()).prop_filter("empty", |text| !text.is_empty()),
    ]
}

/// Written in some way, with what it means.
fn matcher() -> impl Strategy<Value = (String, Vec<Vec<String>>)> {
    let blank = prop::sample::select(vec!["", " ", "\t "]);
    let written = (label(), blank, any::<bool>()).prop_map(|(label, blank, upper)| {
        format!("{blank}{}{blank}", if upper { label.to_uppercase() } else { label })
    });
    let all = prop::collection::vec(written, 1..4);
    prop::collection::vec((all, prop::sample::select(vec![",", ";"])), 1..5).prop_map(|alternatives| {
        let mut text = String::new();
        for (at, (labels, separator)) in alternatives.iter().enumerate() {
            text.push_str(if at > 0 { separator } else { "" });
            text.push_str(&labels.join("+"));
        }
        let means = alternatives
            .into_iter()
            .map(|(labels, _)| labels.into_iter().map(|label| label.trim().to_lowercase()).collect());
        (text, means.collect())
    })
}

#[test]
fn a_matcher_means_what_a_naive_one_does_and_can_be_written_down() {
    fuzz(
        (
            matcher(),
            prop::collection::vec(label().prop_map(|label| label.to_lowercase()), 0..5),
        ),
        |((text, means), labels)| {
            let matcher = LabelMatcher::parse(&text).expect("a matcher");
            let naive = means
                .iter()
                .any(|all| all.iter().all(|wanted| labels.iter().any(|label| label == wanted)));
            assert_eq!(matcher.matches(&labels), naive, "{text:?} {labels:?}");
            assert_eq!(LabelMatcher::parse(&matcher.to_string()), Ok(matcher), "{text:?}");
        },
    );
}

#[test]
fn any_text_is_a_matcher_or_an_error() {
    fuzz(
        prop_oneof!["\\PC{0,40}", "[a-zA-Z ,;+]{0,20}", any::<String>()],
        |text| match LabelMatcher::parse(&text) {
            Ok(matcher) => assert_eq!(LabelMatcher::parse(&matcher.to_string()), Ok(matcher), "{text:?}"),
            Err(error) => assert!(error.to_string().contains("empty label"), "{text:?}: {error}"),
        },
    );
}

// ---- files of limits

fn yaml() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0u64..1200).prop_map(|n| n.to_string()),
        prop::sample::select(vec![
            "~", "1e3", "0x10", "0o17", "1_000", ".inf", "25.0", "\"25\"", "!!int 5", "[5]", "{a: 5}", "&x 5", "*x",
            "yes", "<<", "|\n    5"
        ])
        .prop_map(str::to_owned),
    ];
    let line = ("[ \t]{0,4}", "[A-Za-z0-9_/.:*&!-]{0,8}", scalar)
        .prop_map(|(indent, key, value)| format!("{indent}{key}: {value}\n"));
    let head = prop::sample::select(vec![
        "org_limits:\n",
        "org_limits: \n",
        "limits:\n",
        "",
        "---\norg_limits:\n",
        "%YAML 1.2\n---\n",
        "\u{feff}org_limits:\n",
    ]);
    prop_oneof![
        3 => (head, prop::collection::vec(line, 0..8)).prop_map(|(head, lines)| format!("{head}{}", lines.concat())),
        1 => "[\\[\\]{}:,&*!|>'\"%@`#\\-? \\n\\ta-z0-9]{0,60}",
        1 => any::<String>(),
    ]
}

/// Limits in their range, each organization once; or an error in few words.
fn sound(text: &str, read: Result<BTreeMap<String, u64>, String>) {
    match read {
        Ok(limits) => {
            assert!(
                limits.values().all(|limit| (1..=MAX_LIMIT).contains(limit)),
                "{text:?}: {limits:?}"
            );
            assert_eq!(
                limits
                    .keys()
                    .map(|org| org.to_lowercase())
                    .collect::<HashSet<_>>()
                    .len(),
                limits.len(),
                "{text:?}"
            );
        }
        Err(error) => assert!((1..2000).contains(&error.len()), "{text:?}: {error}"),
    }
}

#[test]
fn any_file_of_limits_is_limits_or_a_clear_error() {
    fuzz(yaml(), |text| sound(&text, parse_org_limits(&text)));
}

#[test]
fn bombs_depth_and_size_are_errors_and_cost_little() {
    let mut bomb = "org_limits:\n  a: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        bomb.push_str(&format!(
            "  a{n}: &a{n} [{}]\n",
            vec![format!("*a{}", n - 1); 10].join(",")
        ));
    }
    for (name, text) in [
        ("a bomb of aliases", bomb),
        ("depth", "[".repeat(200_000)),
        ("depth of mappings", "{a: ".repeat(100_000)),
        (
            "depth of blocks",
            (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        ),
        ("an alias of itself", "org_limits: &a\n  b: *a\n".to_owned()),
        ("an alias of nothing", "org_limits: *a\n".to_owned()),
        ("merged", "org_limits: {<<: {a: 0}}\n".to_owned()),
        ("tags", "org_limits: !!binary aGk=\n".to_owned()),
    ] {
        let read = parse_org_limits(&text);
        assert!(read.is_err(), "{name}: {read:?}");
        sound(name, read);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("limits.yaml");
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).expect("written");
    let most: String = "org_limits:\n"
        .chars()
        .chain(
            (0..10_000)
                .flat_map(|n| format!("  organization-of-some-length-{n}: 25\n").into_bytes())
                .map(char::from),
        )
        .collect();
    write(most.as_bytes());
    assert_eq!(
        read_org_limits(&path).map(|limits| limits.len()),
        Ok(10_000),
        "which is more than any server has"
    );
    write(&vec![b'#'; ORG_LIMITS_SIZE + 1]);
    assert!(read_org_limits(&path).is_err_and(|error| error.contains("larger than")));
    write(b"org_limits: {\xff: 5}");
    assert!(read_org_limits(&path).is_err_and(|error| error.contains("limits.yaml")));
    assert!(read_org_limits(dir.path()).is_err(), "a directory");
}

// ---- entries of streams

fn event() -> impl Strategy<Value = JobEvent> {
    let class =
        ("\\PC{0,9}", "\\PC{0,9}", prop::collection::vec("\\PC{0,6}", 0..4)).prop_map(|(org, group, labels)| Class {
            scope: format!("orgs/{org}"),
            org,
            group,
            profile: "default".into(),
            labels: Class::normalize_labels(&labels),
        });
    let action = prop::sample::select(vec![
        Action::Queued,
        Action::Waiting,
        Action::InProgress,
        Action::Completed,
    ]);
    let job = (1..=i64::MAX.unsigned_abs()).prop_filter_map("an id", JobId::new);
    let text = || prop::option::of(any::<String>());
    let identity = (any::<Option<u64>>(), any::<Option<i64>>(), any::<bool>())
        .prop_map(|(owner_id, at, user)| Identity { owner_id, at, user });
    (
        action,
        job,
        any::<Option<u32>>(),
        ("\\PC{0,9}", "\\PC{0,9}"),
        prop::option::of(class),
        text(),
        any::<Option<u64>>(),
        (text(), identity),
    )
        .prop_map(
            |(action, job, attempt, (org, repo), class, runner, runner_id, (conclusion, identity))| JobEvent {
                action,
                job,
                attempt,
                org,
                repo,
                class,
                runner,
                runner_id,
                conclusion,
                identity,
            },
        )
}

fn fields() -> impl Strategy<Value = HashMap<String, String>> {
    let name = prop_oneof![4 => prop::sample::select(vec!["v", "event", "accepted", "runner", "fence", "kind", "stream",
        "id", "reason", "entry.event"]).prop_map(str::to_owned), 1 => any::<String>()];
    let value = prop_oneof![
        Just("1".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>(),
        "[{}\\[\\]\",:a-z0-9]{0,30}",
        event().prop_map(|event| serde_json::to_string(&event).expect("JSON")),
        (event(), any::<prop::sample::Index>()).prop_map(|(event, at)| {
            let json = serde_json::to_string(&event).expect("JSON");
            json.chars().take(at.index(json.chars().count())).collect()
        }),
    ];
    prop::collection::hash_map(name, value, 0..8)
}

#[test]
fn any_entry_is_read_or_unreadable() {
    fuzz((any::<String>(), fields()), |(id, fields)| {
        let entry = Entry {
            id: id.clone(),
            fields: fields.clone(),
        };
        let _ = entry.accepted_at();
        match entry.job_event() {
            Ok(event) => {
                assert_eq!(fields["v"].parse(), Ok(1));
                assert_eq!(
                    serde_json::from_str::<JobEvent>(&serde_json::to_string(&event).expect("JSON")).expect("readable"),
                    event
                );
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        for name in ["runner", "fence", "kind"] {
            assert!(entry.field(name).is_err() || entry.fields.contains_key(name));
        }
        let letter = DeadLetter {
            id: id.clone(),
            stream: id.clone(),
            entry_id: id.clone(),
            reason: id.clone(),
            fields: fields.into_iter().collect(),
        };
        let shown = render::letter(&letter);
        assert_eq!(
            shown["entry"].as_object().map(serde_json::Map::len),
            Some(letter.fields.len())
        );
        assert_eq!(
            dead_letters::is_id(&id),
            id.split_once('-').is_some_and(|(ms, n)| [ms, n]
                .iter()
                .all(|part| part.parse::<u64>().is_ok() && !part.starts_with('+') && part.len() <= 20))
        );
    });
}

#[test]
fn an_event_comes_out_as_it_went_in() {
    fuzz(event(), |event| {
        let json = serde_json::to_string(&event).expect("JSON");
        let fields = [("v", "1"), ("event", json.as_str()), ("later", "unknown")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            Entry {
                id: "1-1".into(),
                fields: fields.into()
            }
            .job_event()
            .expect("readable"),
            event
        );
    });
}

// ---- job ids and names

#[test]
fn a_text_is_a_job_id_exactly_when_it_is_a_number_in_range() {
    let near = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i128>().prop_map(|n| n.to_string()),
        "[+-]?0{0,3}[0-9]{0,21}",
        "[0-9]{1,3}[.e_ ][0-9]{0,3}",
        any::<String>()
    ];
    fuzz(near, |text| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let expected = digits
            .then(|| text.parse::<u64>().ok())
            .flatten()
            .filter(|n| (1..=i64::MAX.unsigned_abs()).contains(n));
        let id = text.parse::<JobId>();
        assert_eq!(id.as_ref().ok().map(|id| id.get()), expected, "{text:?}");
        match id {
            Ok(id) => {
                assert_eq!(id.to_string().parse::<JobId>().expect("its own text"), id);
                let json = serde_json::to_string(&id).expect("JSON");
                assert_eq!(serde_json::from_str::<JobId>(&json).expect("its own JSON"), id);
            }
            Err(error) => assert!(error.to_string().chars().count() < 600, "{error}"),
        }
    });
}

#[test]
fn a_name_that_is_taken_can_leave_no_key() {
    fuzz(prop_oneof!["[A-Za-z0-9._/-]{0,12}", any::<String>()], |text| {
        if let Some(owner) = names::owner(&text) {
            assert!(
                owner.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
                    && text.matches('/').count() <= 1
                    && !text.ends_with("/.."),
                "{text:?}"
            );
        }
        let shown = names::shown(&text, 10);
        assert!(shown.chars().count() <= 11 && !shown.chars().any(char::is_control));
    });
}
