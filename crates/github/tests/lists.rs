//! Lists: pages, servers that ignore a filter, and the cache of runner groups.
#![allow(clippy::unwrap_used)]

use common::Request;
use jit_github::Scope;
use serde_json::{Value, json};

mod lists {
    mod others;
    mod runners;
}
mod common;

fn acme() -> Scope {
    Scope::Organization("acme".into())
}

fn runner(id: u64) -> Value {
    json!({"id": id, "name": format!("runner-{id}"), "os": "linux", "status": "online", "busy": false,
        "labels": [{"name": "x", "type": "custom"}]})
}

/// The page of 0..`count` that is asked for.
fn page(request: &Request, count: u64) -> Value {
    let ask = |name| request.query(name).unwrap().parse::<u64>().unwrap();
    let (per_page, page) = (ask("per_page").min(100), ask("page"));
    let ids = (0..count)
        .skip(((page - 1) * per_page) as usize)
        .take(per_page as usize);
    json!({"total_count": count, "runners": ids.map(|id| runner(id + 1)).collect::<Vec<_>>()})
}
