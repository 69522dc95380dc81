//! Which crate of ours may know which, and which libraries some of them must not know: by `cargo metadata`.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::root;

/// A crate, those of ours that it depends on (tests aside), and why it knows these and no other.
const ARROWS: &[(&str, &[&str], &str)] = &[
    (
        "jit-core",
        &[],
        "the ledger is the ground: nothing below it, nothing beside it",
    ),
    (
        "jit-runtime",
        &["jit-core"],
        "start-up and probes of a process need its settings, and no work of its",
    ),
    (
        "jit-github",
        &[],
        "a client of GitHub's API: it knows nothing of jobs, runners and limits",
    ),
    (
        "jit-backend",
        &["jit-core"],
        "where runners run: it knows neither GitHub nor who makes the runner",
    ),
    (
        "jit-receiver",
        &["jit-core", "jit-runtime"],
        "one round trip to Redis a webhook: it calls neither GitHub nor Kubernetes, and makes nothing",
    ),
    (
        "jit-worker",
        &["jit-backend", "jit-core", "jit-github", "jit-runtime"],
        "the only one that sees ledger, GitHub and backends together",
    ),
    (
        "jit-beat",
        &["jit-core", "jit-runtime"],
        "it sends ticks, and knows nothing of what they make workers do",
    ),
    ("jitctl", &["jit-core"], "it needs Redis and nothing else"),
    (
        "jit-simulator",
        &[],
        "it plays GitHub, runners and a kubelet by their documents, and not by our code",
    ),
    ("jit-testing", &["jit-core"], "what the tests of several crates share"),
    (
        "jit-harness",
        &["jit-simulator"],
        "the whole system on one machine: it starts the programs as processes",
    ),
    (
        "integration-tests",
        &["jit-harness"],
        "the tests of whole processes, on what the harness starts",
    ),
];

/// Crates that only tests may depend on.
const TESTS_ALONE: [&str; 4] = ["jit-testing", "jit-harness", "jit-simulator", "integration-tests"];

/// A crate, libraries that it must not depend on, and why.
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "jit-core",
        &["kube", "k8s-openapi", "reqwest", "hyper", "hyper-util", "axum"],
        "limits and counters know no HTTP and no Kubernetes",
    ),
    (
        "jit-receiver",
        &["kube", "k8s-openapi", "reqwest"],
        "a webhook is taken without a call of GitHub or Kubernetes",
    ),
    (
        "jitctl",
        &["kube", "k8s-openapi", "reqwest", "hyper"],
        "it talks to Redis alone",
    ),
];

/// One crate of the workspace: its name, and what it depends on beside its tests.
struct Package {
    name: String,
    needs: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        let built = all.iter().filter(|dependency| dependency["kind"] != "dev");
        built
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| Package {
            name: package["name"].as_str().unwrap().to_owned(),
            needs: needs(package),
        })
        .collect()
}

#[test]
fn a_crate_knows_those_of_ours_that_the_table_names() {
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|package| package.name.clone()).collect();
    for Package { name, needs } in &packages {
        let row = ARROWS.iter().find(|(of, ..)| of == name);
        let (_, may, why) = row.unwrap_or_else(|| panic!("{name} has no row in the table of arrows"));
        let knows: BTreeSet<&str> = needs.intersection(&ours).map(String::as_str).collect();
        let may: BTreeSet<&str> = may.iter().copied().collect();
        assert_eq!(knows, may, "{name} knows the left, the table says the right ({why})");
    }
    for (name, ..) in ARROWS {
        assert!(
            ours.contains(*name),
            "{name} stands in the table of arrows, and is no crate"
        );
    }
}

#[test]
fn product_code_knows_nothing_of_tests() {
    for Package { name, needs } in packages() {
        let is_test = TESTS_ALONE.contains(&name.as_str());
        let known: Vec<_> = TESTS_ALONE.iter().filter(|crate_| needs.contains(**crate_)).collect();
        assert!(
            is_test || known.is_empty(),
            "{name} depends on {known:?} beside its tests"
        );
    }
}

#[test]
fn some_libraries_are_for_others() {
    let packages = packages();
    for (name, never, why) in NEVER {
        let package = packages.iter().find(|package| package.name == *name).unwrap();
        let known: Vec<_> = never
            .iter()
            .filter(|library| package.needs.contains(**library))
            .collect();
        assert!(known.is_empty(), "{name} depends on {known:?}: {why}");
    }
}
