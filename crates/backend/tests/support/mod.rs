//! What an API server of a test says of itself.

use serde_json::{Map, Value, json};

/// The answer to `GET /version` of Kubernetes 1.`minor`.
pub fn version(minor: &str) -> Value {
    let empty = [
        "buildDate",
        "compiler",
        "gitCommit",
        "gitTreeState",
        "goVersion",
        "platform",
    ];
    let mut version: Map<_, _> = empty.map(|key| (key.to_owned(), json!(""))).into_iter().collect();
    version.extend([
        ("major".into(), json!("1")),
        ("minor".into(), json!(minor)),
        ("gitVersion".into(), json!(format!("v1.{minor}.0"))),
    ]);
    version.into()
}
