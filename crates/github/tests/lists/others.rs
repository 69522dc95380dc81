//! Repositories' jobs, groups, deliveries.

use crate::common::{Mock, Reply};
use jit_github::{Asked, Deliveries, Error, JitRequest, Scope};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{acme, page, runner};

#[tokio::test]
async fn whether_a_repositorys_jobs_may_be_read_is_told_apart_from_a_failure() {
    let runs = json!({"total_count": 0, "workflow_runs": []});
    let cases = [
        (200, Some(true)),
        (404, Some(false)),
        (403, Some(false)),
        (500, None),
        (401, None),
    ];
    for (status, told) in cases {
        let mock = Mock::always(Reply::json(status, if status == 200 { &runs } else { &Value::Null })).await;
        assert_eq!(mock.client().may_read_runs("acme", "app").await.ok(), told, "{status}");
        assert_eq!(
            (
                mock.seen()[0].path.as_str(),
                mock.seen()[0].query("per_page").as_deref()
            ),
            ("/repos/acme/app/actions/runs", Some("1"))
        );
    }
    let page = Mock::always(Reply::text(200, "<html>Sign in</html>")).await;
    assert_eq!(
        page.client().may_read_runs("acme", "app").await.ok(),
        None,
        "a proxy's page is no list"
    );
    let limited = Reply::json(403, &json!({"message": "API rate limit exceeded"})).with("x-ratelimit-remaining", "0");
    assert_eq!(
        Mock::always(limited)
            .await
            .client()
            .may_read_runs("acme", "app")
            .await
            .ok(),
        None,
        "a limit says nothing of rights"
    );
}

/// Groups, and a `generate-jitconfig` that takes those ids only.
async fn groups(names: Vec<(&'static str, bool)>, ids_from: Arc<AtomicU64>) -> Mock {
    Mock::start(move |request| {
        let first = ids_from.load(Ordering::Relaxed);
        let last = first + names.len() as u64;
        if let Some(body) = &request.body {
            return match body["runner_group_id"].as_u64() {
                Some(id) if (first..last).contains(&id) => {
                    Reply::json(201, &json!({"runner": runner(1), "encoded_jit_config": "x"}))
                }
                _ => Reply::json(404, &json!({"message": "Not Found"})),
            };
        }
        let all = names
            .iter()
            .zip(first..)
            .map(|((name, default), id)| json!({"id": id, "name": name, "default": default}));
        Reply::json(
            200,
            &json!({"total_count": names.len(), "runner_groups": all.collect::<Vec<_>>()}),
        )
    })
    .await
}

#[tokio::test]
async fn groups_are_found_by_name_and_default_by_its_mark() {
    let mock = groups(
        vec![("default", false), ("gpu", false), ("GPU", false), ("Standard", true)],
        Arc::new(1.into()),
    )
    .await;
    let client = mock.client();
    let enterprise = Scope::Enterprise("big-co".into());
    for scope in [acme(), enterprise] {
        assert_eq!(client.runner_group_id(&scope, "Default").await.unwrap(), 4);
        assert_eq!(client.runner_group_id(&scope, "standard").await.unwrap(), 4);
        let error = client.runner_group_id(&scope, "arm").await.unwrap_err();
        assert!(matches!(error, Error::NoSuchGroup { .. }), "{error:?}");
    }
    // The very name first.
    assert_eq!(mock.client().runner_group_id(&acme(), "GPU").await.unwrap(), 3);
    assert_eq!(mock.client().runner_group_id(&acme(), "gpu").await.unwrap(), 2);
    let before = mock.seen().len();
    let repository = Scope::Repository {
        owner: "o".into(),
        name: "r".into(),
    };
    assert_eq!(client.runner_group_id(&repository, "anything").await.unwrap(), 1);
    assert_eq!(mock.seen().len(), before);
}

#[tokio::test]
async fn ids_are_asked_once_until_github_refuses_them() {
    let ids_from = Arc::new(AtomicU64::new(10));
    let mock = groups(vec![("Default", true)], ids_from.clone()).await;
    let client = mock.client();
    let generate = async |id| {
        let request = JitRequest {
            name: "n".into(),
            runner_group_id: id,
            labels: vec!["x".into()],
            work_folder: None,
        };
        client
            .generate_jit_config(&acme(), &request, Duration::from_secs(10))
            .await
    };
    for _ in 0..3 {
        let id = client.runner_group_id(&acme(), "default").await.unwrap();
        assert_eq!(id, 10);
        generate(id).await.unwrap();
    }
    assert_eq!(mock.seen().iter().filter(|request| request.method == "GET").count(), 1);

    ids_from.store(20, Ordering::Relaxed);
    assert_eq!(client.runner_group_id(&acme(), "default").await.unwrap(), 10);
    generate(10).await.unwrap_err();
    assert_eq!(client.runner_group_id(&acme(), "default").await.unwrap(), 20);
    generate(20).await.unwrap();
}

#[tokio::test]
async fn the_default_group_is_1_where_groups_are_not_to_be_seen() {
    for hidden in [
        Reply::json(404, &json!({"message": "Not Found"})),
        Reply::json(403, &json!({"message": "Must have admin rights"})),
    ] {
        let mock = Mock::always(hidden).await;
        let client = mock.client();
        for _ in 0..2 {
            assert_eq!(client.runner_group_id(&acme(), "default").await.unwrap(), 1);
        }
        assert_eq!(mock.seen().len(), 1, "asked once");
        client.runner_group_id(&acme(), "gpu").await.unwrap_err();
    }
    let down = Mock::always(Reply::json(502, &json!({"message": "Bad gateway"}))).await;
    down.client().runner_group_id(&acme(), "default").await.unwrap_err();
}

#[tokio::test]
async fn deliveries_are_paged_by_the_cursor_of_the_link() {
    let mock = Mock::start(|request| match request.query("cursor").as_deref() {
        // The address names a host that only GitHub knows; its cursor is what counts.
        None => Reply::json(200, &json!([])).with(
            "link",
            r#"<https://internal.example/x?per_page=100&cursor=v1_17323292984%2Bx>; rel="next""#,
        ),
        Some(_) => Reply::json(200, &json!([])),
    })
    .await;
    let hook = "orgs/acme/hooks/7".parse().unwrap();
    let first = mock.client().deliveries(&hook, None, None).await.unwrap();
    let Asked::News { answer: first, .. } = first else {
        panic!("{first:?}")
    };
    assert_eq!(first.cursor.as_deref(), Some("v1_17323292984+x"));
    let last = mock
        .client()
        .deliveries(&hook, first.cursor.as_deref(), None)
        .await
        .unwrap();
    assert!(
        matches!(
            last,
            Asked::News {
                answer: Deliveries { cursor: None, .. },
                etag: None,
                counted: false
            }
        ),
        "{last:?}"
    );
    assert_eq!(mock.seen()[1].query("cursor").as_deref(), Some("v1_17323292984+x"));
    assert_eq!(mock.seen()[1].path, "/orgs/acme/hooks/7/deliveries");
}

#[tokio::test]
async fn a_page_says_whether_there_is_another() {
    let mock = Mock::start(|request| Reply::json(200, &page(request, 250))).await;
    for (number, count, more) in [(1, 100, true), (2, 100, true), (3, 50, false)] {
        let listed = mock.client().runners_page(&acme(), number).await.unwrap();
        assert_eq!((listed.items.len(), listed.more), (count, more), "{number}");
    }
}

#[tokio::test]
async fn a_delivery_that_is_forgotten_cannot_be_repeated() {
    for (status, will) in [(202, true), (404, false), (422, false)] {
        let mock = Mock::always(Reply::json(status, &json!({}))).await;
        assert_eq!(
            mock.client().redeliver(&"app/hook".parse().unwrap(), 1).await.unwrap(),
            will
        );
        assert_eq!(
            (mock.seen()[0].method.as_str(), mock.seen()[0].path.as_str()),
            ("POST", "/app/hook/deliveries/1/attempts")
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_known_is_not_read_again() {
    let mock = Mock::start(|request| match request.header("if-none-match") {
        Some("W/\"a\"") => Reply::empty(304).with("etag", "W/\"a\""),
        _ => Reply::json(200, &json!({ "total_count": 0, "workflow_runs": [] }))
            .with("etag", "W/\"a\"")
            .with("x-ratelimit-limit", "5000"),
    })
    .await;
    let first = mock.client().newest_runs("acme", "app", None).await.unwrap();
    let Asked::News {
        answer,
        etag,
        counted: true,
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        (answer.items.len(), answer.more, etag.as_deref()),
        (0, false, Some("W/\"a\""))
    );
    assert_eq!(
        mock.client().newest_runs("acme", "app", etag.as_deref()).await.unwrap(),
        Asked::Same
    );
    assert!(matches!(
        mock.client().newest_runs("acme", "app", Some("W/\"b\"")).await.unwrap(),
        Asked::News { .. }
    ));
    assert_eq!(mock.seen()[1].query("per_page").as_deref(), Some("20"));
}
