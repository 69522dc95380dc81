//! docs/openapi.yaml and the router know the same paths and methods. That answers are as described is schemathesis's to
//! see (integration-tests/openapi).

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::Value;

mod support;
use support::{ADMIN_KEY, Receiver, request};

/// Path → methods, as described.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let path = format!("{}/../../docs/openapi.yaml", env!("CARGO_MANIFEST_DIR"));
    let document: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(path).expect("the description")).expect("YAML");
    let methods = |item: &Value| {
        item.as_object()
            .expect("a path")
            .keys()
            .map(|method| method.to_uppercase())
            .collect()
    };
    document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect()
}

/// Every path that stands in a `.route("…")`, on its line or on the next; with a slash at its end it is the same.
fn routed() -> BTreeSet<String> {
    let source = include_str!("../src/routes.rs");
    source
        .split(".route(")
        .skip(1)
        .map(|rest| rest.split('"').nth(1).expect("a path").trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn every_path_is_described_and_every_described_path_is_there() {
    assert_eq!(described().into_keys().collect::<BTreeSet<_>>(), routed());
}

#[tokio::test]
async fn every_path_takes_the_methods_that_are_described() {
    let receiver = Receiver::start().await;
    for (path, methods) in described() {
        let filled = ["{org}", "{repo}", "{name}"]
            .iter()
            .fold(path.replace("{id}", "1-1"), |path, name| path.replace(name, "x"));
        // No path takes it, so the answer says which it takes.
        let answer = receiver
            .send(request(Method::PATCH, &filled, &[("x-admin-key", ADMIN_KEY)], ""))
            .await;
        answer.refused(405);
        let allowed = answer.headers["allow"]
            .to_str()
            .expect("text")
            .split(',')
            .map(str::to_owned);
        assert_eq!(
            allowed.filter(|method| method != "HEAD").collect::<BTreeSet<_>>(),
            methods,
            "{path}"
        );
    }
}
