//! Every setting of every process, as charts, templates and shells hand it on: set to nothing, with a newline, as a
//! number in scientific notation, as a file that is not there, and beside another that contradicts it. The settings are
//! taken from `--help`, so a new one is tried as well.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

/// A process, and what it does not start without.
const PROGRAMS: [(&str, &[(&str, &str)]); 3] = [
    (
        "jit-receiver",
        &[("GHES_URL", "https://github.example.com"), ("WEBHOOK_SECRET", "s3cret")],
    ),
    (
        "jit-worker",
        &[("GHES_URL", "https://github.example.com"), ("GITHUB_PAT", "s3cret")],
    ),
    ("jit-beat", &[]),
];

/// Names that people choose: any text is one.
const ANY_TEXT: [&str; 11] = [
    "GITHUB_ENTERPRISE",
    "LABEL_MATCHERS",
    "LOG_LEVEL",
    "DIND_IMAGE",
    "REDIS_SENTINEL_USERNAME",
    "REDIS_USERNAME",
    "RUNNER_COMMAND",
    "RUNNER_DIRECTORY",
    "RUNNER_GROUP",
    "RUNNER_IMAGE",
    "RUNNER_LABELS",
];

struct Setting {
    variable: String,
    default: Option<String>,
}

fn run(program: &str, flag: &str, env: &[(&str, &str)]) -> Output {
    let test = std::env::current_exe().unwrap();
    let dir = test.parent().and_then(|deps| deps.parent()).unwrap();
    Command::new(dir.join(program))
        .arg(flag)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program is built: run through `make test`")
}

fn settings(program: &str) -> Vec<Setting> {
    let help = String::from_utf8(run(program, "--help", &[]).stdout).unwrap();
    let tagged = |line: &str, tag: &str| {
        Some(
            line.split_once(tag)?
                .1
                .split_once(']')?
                .0
                .trim_end_matches('=')
                .to_owned(),
        )
    };
    let mut settings = Vec::<Setting>::new();
    for line in help.lines() {
        if let Some(variable) = tagged(line, "[env: ") {
            settings.push(Setting {
                variable,
                default: None,
            });
        }
        if let (Some(default), Some(setting)) = (tagged(line, "[default: "), settings.last_mut()) {
            setting.default = Some(default.trim_matches('"').to_owned());
        }
    }
    assert!(
        settings.len() > 10,
        "the settings of {program} could not be read: {help}"
    );
    settings
}

/// What is wrong with these variables beside what the process needs, as it says itself; nothing where they are right.
fn wrong(program: &str, base: &[(&str, &str)], set: &[(&str, &str)]) -> Option<String> {
    let unset = base
        .iter()
        .filter(|(name, _)| !set.iter().any(|(other, _)| other == name));
    let env: Vec<(&str, &str)> = unset.chain(set).copied().collect();
    let output = run(program, "--check-config", &env);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(1) if text.contains("wrong in the configuration") => Some(text),
        status => panic!("{program} with {set:?} ended with {status:?}: {text}"),
    }
}

#[test]
fn every_setting_in_every_form() {
    for (program, base) in PROGRAMS {
        for Setting { variable, default } in &settings(program) {
            let with = |value: &str| wrong(program, base, &[(variable, value)]);
            let needed = base.iter().any(|(name, _)| name == variable);
            for blank in ["", " \n"] {
                let told = with(blank);
                assert_eq!(told.is_some(), needed, "{program} with {variable}={blank:?}: {told:?}");
                assert!(
                    told.is_none_or(|told| told.contains(variable)),
                    "{program} does not name {variable}"
                );
            }
            if let Some(default) = default.as_ref().filter(|_| !needed) {
                assert_eq!(
                    with(&format!("{default}\n")),
                    None,
                    "{program} with {variable}={default:?} and a newline"
                );
            }
            if variable.ends_with("_FILE") {
                let told =
                    with("/no/such/file").unwrap_or_else(|| panic!("{program} takes a {variable} that is not there"));
                assert!(told.contains(variable), "{told}");
            } else if !ANY_TEXT.contains(&variable.as_str()) {
                let told = with("1.234567e+06").unwrap_or_else(|| panic!("{program} takes {variable}=1.234567e+06"));
                assert!(told.contains(variable), "{told}");
            }
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_both_names() {
    let pairs: [(&str, &[(&str, &str)]); 12] = [
        ("jit-worker", &[("IDLE_TIMEOUT", "20s"), ("IDLE_CHECK", "1m")]),
        ("jit-worker", &[("IDLE_TIMEOUT", "1m"), ("IDLE_CHECK", "60s")]),
        ("jit-receiver", &[("IDLE_TIMEOUT", "20s"), ("IDLE_CHECK", "1m")]),
        ("jit-worker", &[("QUESTION_DELAY", "2h"), ("QUESTION_INTERVAL", "1h")]),
        ("jit-worker", &[("WORKER_DEAD_AFTER", "9s"), ("WORKER_HEARTBEAT", "5s")]),
        ("jit-worker", &[("GITHUB_PAT", "x"), ("GITHUB_PAT_FILE", "/dev/null")]),
        ("jit-worker", &[("GITHUB_PAT", "x"), ("GITHUB_APP_ID", "5")]),
        (
            "jit-worker",
            &[("RUNNER_SCOPE", "enterprise"), ("GITHUB_ENTERPRISE", "")],
        ),
        (
            "jit-worker",
            &[("REDIS_CA_FILE", "/dev/null"), ("REDIS_URL", "redis://redis:6379/0")],
        ),
        (
            "jit-worker",
            &[("REDIS_CLIENT_CERT_FILE", "/dev/null"), ("REDIS_CLIENT_KEY_FILE", "")],
        ),
        ("jit-receiver", &[("DRAIN_DELAY", "30s"), ("DRAIN_GRACE", "25s")]),
        ("jit-receiver", &[("ADMIN_API_KEY", "x"), ("ADMIN_INSECURE", "true")]),
    ];
    for (program, set) in pairs {
        let base = PROGRAMS.iter().find(|(name, _)| *name == program).unwrap().1;
        let told = wrong(program, base, set).unwrap_or_else(|| panic!("{program} takes {set:?}"));
        for (name, _) in set {
            assert!(told.contains(name), "{name} is not named: {told}");
        }
        assert!(!told.contains("s3cret"));
    }
    // By default they stand in the right order, and one that is set alone is held against the other's default.
    assert!(
        wrong("jit-worker", PROGRAMS[1].1, &[("IDLE_TIMEOUT", "20s")])
            .unwrap()
            .contains("IDLE_CHECK")
    );
}

#[test]
fn addresses_of_both_kinds_are_taken_by_all() {
    for (program, base) in PROGRAMS {
        for address in ["::", "[::1]", "0.0.0.0", "127.0.0.1"] {
            assert_eq!(wrong(program, base, &[("LISTEN_ADDRESS", address)]), None, "{program}");
        }
        assert!(
            wrong(program, base, &[("LISTEN_ADDRESS", "everywhere"), ("PORT", "http")])
                .unwrap()
                .contains("PORT")
        );
    }
}
