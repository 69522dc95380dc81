//! Groups that allow public repositories: where runners must not join those, GitHub's word is asked for, and nothing
//! else counts.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jit_github::{BackOff, Client, Error, Scope};
use serde_json::{Value, json};

mod common;
use common::{Mock, Reply, options};

fn acme() -> Scope {
    Scope::Organization("acme".into())
}

/// A client whose runners join no group that allows public repositories.
fn strict(mock: &Mock) -> Client {
    let mut options = options(mock.url.clone());
    options.no_public_groups = true;
    Client::new(options).unwrap()
}

async fn listing(groups: Vec<Value>) -> Mock {
    Mock::start(move |_| Reply::json(200, &json!({"total_count": groups.len(), "runner_groups": groups}))).await
}

fn group(id: u64, name: &str, public: Option<bool>) -> Value {
    let mut group = json!({"id": id, "name": name, "default": name == "Default"});
    if let Some(public) = public {
        group["allows_public_repositories"] = json!(public);
    }
    group
}

#[tokio::test]
async fn only_a_group_that_github_calls_private_is_joined() {
    let mock = listing(vec![
        group(1, "Default", Some(false)),
        group(2, "open", Some(true)),
        group(3, "silent", None),
    ])
    .await;
    let strict = strict(&mock);
    assert_eq!(strict.runner_group_id(&acme(), "default").await.unwrap(), 1);
    for name in ["open", "silent"] {
        let error = strict.runner_group_id(&acme(), name).await.unwrap_err();
        assert!(matches!(error, Error::PublicGroup { known: true, .. }), "{error:?}");
        assert_eq!((error.backs_off(), error.sent()), (BackOff::Class, false));
        let told = error.to_string();
        assert!(
            told.contains(name) && told.contains("acme") && told.contains("PUBLIC_REPOSITORIES"),
            "{told}"
        );
        assert!(
            mock.client().runner_group_id(&acme(), name).await.is_ok(),
            "where public repositories are allowed"
        );
    }
    // A repository has no groups: its runners are its own.
    let repository = Scope::Repository {
        owner: "o".into(),
        name: "r".into(),
    };
    assert_eq!(strict.runner_group_id(&repository, "open").await.unwrap(), 1);
}

#[tokio::test]
async fn a_group_that_is_not_to_be_seen_is_not_taken_for_private() {
    for status in [403, 404] {
        let mock = Mock::start(move |_| Reply::json(status, &json!({"message": "Not Found"}))).await;
        assert_eq!(mock.client().runner_group_id(&acme(), "default").await.unwrap(), 1);
        let strict = strict(&mock);
        let error = strict.runner_group_id(&acme(), "default").await.unwrap_err();
        assert!(matches!(error, Error::PublicGroup { known: false, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_group_that_is_closed_to_public_repositories_is_joined_at_the_next_try() {
    let open = Arc::new(AtomicBool::new(true));
    let now = open.clone();
    let mock = Mock::start(move |_| {
        let groups = [group(1, "Default", Some(now.load(Ordering::Relaxed)))];
        Reply::json(200, &json!({"total_count": 1, "runner_groups": groups}))
    })
    .await;
    let strict = strict(&mock);
    strict.runner_group_id(&acme(), "default").await.unwrap_err();
    open.store(false, Ordering::Relaxed);
    assert_eq!(strict.runner_group_id(&acme(), "default").await.unwrap(), 1);
}
