//! Lists: pages, servers that ignore a filter, and the cache of runner groups.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Mock, Reply, Request};
use jit_github::{Asked, Deliveries, Error, JitRequest, Lookup, Scope};
use serde_json::{Value, json};

fn acme() -> Scope {
    Scope::Organization("acme".into())
}

fn runner(id: u64) -> Value {
    json!({"id": id, "name": format!("runner-{id}"), "os": "linux", "status": "online", "busy": false, "labels": [{"name": "x", "type": "custom"}]})
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

#[tokio::test]
async fn all_pages_are_read_and_no_more() {
    for (count, pages) in [(0, 1), (99, 1), (100, 1), (101, 2), (250, 3)] {
        let mock = Mock::start(move |request| Reply::json(200, &page(request, count))).await;
        let runners = mock.client().list_runners(&acme()).await.unwrap();
        assert_eq!(runners.len() as u64, count);
        assert_eq!(mock.seen().len(), pages, "{count}");
    }
}

#[tokio::test]
async fn a_linked_page_is_read_whatever_the_count_says() {
    let mock = Mock::start(|request| {
        let page: u64 = request.query("page").unwrap().parse().unwrap();
        // A server whose pages are smaller than what was asked for.
        let reply = Reply::json(200, &json!({"total_count": 1, "runners": [runner(page)]}));
        let link = r#"<https://x/?page=1>; rel="prev", <https://x/?page=9>; rel="next""#;
        if page < 3 {
            reply.with("link", link)
        } else {
            reply.with("link", r#"<https://x/?page=1>; rel="first""#)
        }
    })
    .await;
    let runners = mock.client().list_runners(&acme()).await.unwrap();
    assert_eq!(runners.iter().map(|runner| runner.id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_list_that_moves_counts_each_once() {
    let grown = Arc::new(AtomicU64::new(0));
    let mock = Mock::start(move |request| {
        // Each call finds one more at the front, so that the last of a page comes again.
        let shift = grown.fetch_add(1, Ordering::Relaxed);
        let first = (request.query("page").unwrap().parse::<u64>().unwrap() - 1) * 100;
        let ids = (first..(first + 100).min(150 + shift)).map(|n| runner(1000 + n - shift));
        Reply::json(
            200,
            &json!({"total_count": 150 + shift, "runners": ids.collect::<Vec<_>>()}),
        )
    })
    .await;
    assert_eq!(mock.client().list_runners(&acme()).await.unwrap().len(), 150);
}

#[tokio::test]
async fn a_runner_is_found_whether_or_not_the_server_filters() {
    let old = Mock::start(|request| Reply::json(200, &page(request, 250))).await;
    assert_eq!(found(&old, "Runner-222").await, Some(222));
    assert_eq!(old.seen().len(), 3);
    assert_eq!(old.seen()[2].query("name").as_deref(), Some("Runner-222"));
    assert_eq!(found(&old, "runner-1").await, Some(1));
    assert_eq!(old.seen().len(), 4, "it stops where it is found");
    assert_eq!(
        old.client().find_runner(&acme(), "runner").await.unwrap(),
        Lookup::Absent
    );
    assert_eq!(
        old.seen().len(),
        10,
        "a list of several pages is read twice before a runner is absent"
    );

    let new = Mock::start(|request| {
        let name = request.query("name").unwrap();
        let found: Vec<_> = (1..=250)
            .map(runner)
            .filter(|runner| runner["name"] == name.as_str())
            .collect();
        Reply::json(200, &json!({"total_count": found.len(), "runners": found}))
    })
    .await;
    assert_eq!(found(&new, "runner-222").await, Some(222));
    assert_eq!(
        new.client().find_runner(&acme(), "a&name=runner-1").await.unwrap(),
        Lookup::Absent
    );
    assert_eq!(new.seen().len(), 2);
}

async fn found(mock: &Mock, name: &str) -> Option<u64> {
    match mock.client().find_runner(&acme(), name).await.unwrap() {
        Lookup::Found(runner) => Some(runner.id),
        Lookup::Absent | Lookup::Unseen => None,
    }
}

/// A server that ignores `name`, with 250 runners. Between its first and its second page, on the readings named, the
/// runner of id 50 goes, so that no page shows the one of id 101; where `comes`, another is registered at the same
/// moment, so that the count stays as it is.
async fn shifting(readings: &'static [u64], comes: bool) -> Mock {
    let calls = AtomicU64::new(0);
    Mock::start(move |request| {
        let page: u64 = request.query("page").unwrap().parse().unwrap();
        let reading = if page == 1 {
            calls.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            calls.load(Ordering::Relaxed)
        };
        let shifted = page > 1 && readings.contains(&reading);
        let last = if shifted && comes { 251 } else { 250 };
        let all: Vec<u64> = (1..=last).filter(|id| !(shifted && *id == 50)).collect();
        let shown: Vec<_> = all
            .iter()
            .skip((page as usize - 1) * 100)
            .take(100)
            .map(|id| runner(*id))
            .collect();
        Reply::json(200, &json!({"total_count": all.len(), "runners": shown}))
    })
    .await
}

#[tokio::test]
async fn a_runner_that_pages_pass_over_is_not_absent() {
    for (readings, comes, pages) in [(&[1_u64][..], false, 3), (&[1][..], true, 5), (&[1, 2][..], false, 3)] {
        let mock = shifting(readings, comes).await;
        let lookup = mock.client().find_runner(&acme(), "runner-101").await.unwrap();
        // A count that does not fit is noticed at once. Where it fits by chance, the second reading sees the runner.
        match lookup {
            Lookup::Unseen => assert!(!comes),
            Lookup::Found(runner) => assert!(comes && runner.id == 101),
            Lookup::Absent => panic!("it is registered: {readings:?}, {comes}"),
        }
        assert_eq!(mock.seen().len(), pages, "{readings:?}, {comes}");
    }
}

#[tokio::test]
async fn a_list_that_is_shorter_than_its_count_proves_nothing() {
    let mock = Mock::always(Reply::json(
        200,
        &json!({"total_count": 3, "runners": [runner(1), runner(2)]}),
    ))
    .await;
    assert_eq!(
        mock.client().find_runner(&acme(), "runner-9").await.unwrap(),
        Lookup::Unseen
    );
    let empty = Mock::always(Reply::json(200, &json!({"total_count": 0, "runners": []}))).await;
    assert_eq!(
        empty.client().find_runner(&acme(), "runner-9").await.unwrap(),
        Lookup::Absent
    );
}

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

#[tokio::test]
async fn one_bad_page_fails_the_list() {
    let mock = Mock::start(|request| match request.query("page").as_deref() {
        Some("1") => Reply::json(200, &page(request, 150)),
        _ => Reply::json(500, &json!({"message": "Server Error"})),
    })
    .await;
    let error = mock.client().list_runners(&acme()).await.unwrap_err();
    assert!(matches!(error, Error::Server { status: 500, .. }), "{error:?}");
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
