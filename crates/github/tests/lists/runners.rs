//! Runners and their pages.

use crate::common::{Mock, Reply};
use jit_github::{Error, Lookup};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{acme, page, runner};

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
async fn one_bad_page_fails_the_list() {
    let mock = Mock::start(|request| match request.query("page").as_deref() {
        Some("1") => Reply::json(200, &page(request, 150)),
        _ => Reply::json(500, &json!({"message": "Server Error"})),
    })
    .await;
    let error = mock.client().list_runners(&acme()).await.unwrap_err();
    assert!(matches!(error, Error::Server { status: 500, .. }), "{error:?}");
}
