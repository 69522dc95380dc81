//! Tokens of installations.

use crate::common::{Mock, Reply};
use jit_github::{BackOff, Deletion, Error};
use serde_json::json;
use std::sync::atomic::Ordering;

use crate::app::server::Github;
use crate::{KEY, call, carried, client, client_with};

fn calls_of(mock: &Mock, end: &str) -> usize {
    mock.seen().iter().filter(|request| request.path.ends_with(end)).count()
}

#[tokio::test]
async fn each_owner_has_a_token_of_its_own_which_is_kept() {
    let github = Github::new();
    let mock = github.serve().await;
    let client = client(&github, &mock, 0);
    for at in [
        "orgs/acme",
        "orgs/other",
        "orgs/ACME",
        "repos/acme/app",
        "repos/octocat/app",
        "orgs/other",
    ] {
        assert_eq!(call(&client, at).await.unwrap(), Deletion::Deleted, "{at}");
    }
    assert_eq!(
        carried(&mock),
        ["ghs_1_1", "ghs_2_2", "ghs_1_1", "ghs_1_1", "ghs_3_3", "ghs_2_2"]
    );
    assert_eq!(github.issued(), 3);
    assert_eq!(
        call(&client, "enterprises/Big-Co").await.unwrap(),
        Deletion::Deleted,
        "on the second page"
    );
    assert_eq!(carried(&mock).last().unwrap(), "ghs_4_9");
    assert!(
        client.is_app() && !format!("{client:?}").contains("ghs_") && !format!("{client:?}").contains("PRIVATE KEY")
    );
}

#[tokio::test]
async fn a_token_is_fetched_once_however_many_wait_for_it() {
    let github = Github::new();
    let mock = github.serve().await;
    let client = client(&github, &mock, 0);
    let all = futures_all((0..20).map(|_| call(&client, "orgs/acme"))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!((github.issued(), calls_of(&mock, "/orgs/acme/installation")), (1, 1));

    github.broken.store(true, Ordering::SeqCst);
    let failed = futures_all((0..20).map(|_| call(&client, "orgs/other"))).await;
    assert!(
        failed.iter().all(|result| matches!(result, Err(Error::NoToken { .. }))),
        "{failed:?}"
    );
    assert_eq!(
        calls_of(&mock, "/app/installations/2/access_tokens"),
        1,
        "who waited gets the same answer"
    );
    let error = failed[0].clone().unwrap_err();
    assert_eq!(
        (error.backs_off(), error.uncertain()),
        (BackOff::All, false),
        "the call itself was not sent: {error}"
    );
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_a_renewal_that_fails_is_no_failure() {
    let github = Github::new();
    let mock = github.serve().await;
    let client = client(&github, &mock, 0);
    call(&client, "orgs/acme").await.unwrap();
    github.pass(3299);
    call(&client, "orgs/acme").await.unwrap();
    assert_eq!(github.issued(), 1);
    github.broken.store(true, Ordering::SeqCst);
    github.pass(1); // five minutes before its end
    for _ in 0..3 {
        call(&client, "orgs/acme").await.unwrap();
    }
    assert_eq!(calls_of(&mock, "access_tokens"), 2, "one try, and not again at once");
    github.pass(10);
    github.broken.store(false, Ordering::SeqCst);
    call(&client, "orgs/acme").await.unwrap();
    call(&client, "orgs/acme").await.unwrap();
    assert_eq!(
        carried(&mock),
        [
            "ghs_1_1", "ghs_1_1", "ghs_1_1", "ghs_1_1", "ghs_1_1", "ghs_2_1", "ghs_2_1"
        ]
    );
    github.broken.store(true, Ordering::SeqCst);
    github.pass(3600);
    assert!(
        matches!(call(&client, "orgs/acme").await, Err(Error::NoToken { .. })),
        "nothing holds any more"
    );
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_replaced_and_the_call_sent_once_more() {
    let github = Github::new();
    let mock = github.serve().await;
    let client = client(&github, &mock, 0);
    call(&client, "orgs/acme").await.unwrap();
    github.revoke();
    call(&client, "orgs/acme").await.unwrap();
    assert_eq!(carried(&mock), ["ghs_1_1", "ghs_1_1", "ghs_2_1"]);

    let stubborn = Mock::start(|request| match request.path.rsplit('/').next().unwrap() {
        "installation" => Reply::json(200, &json!({ "id": 1 })),
        "access_tokens" => Reply::json(201, &json!({ "token": "ghs_x", "expires_at": "2099-01-01T00:00:00Z" })),
        _ => Reply::json(401, &json!({ "message": "Bad credentials" })),
    })
    .await;
    let error = call(&client_with(&github, &stubborn, 0, KEY), "orgs/acme")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert_eq!(
        (calls_of(&stubborn, "/runners/1"), calls_of(&stubborn, "access_tokens")),
        (2, 2),
        "once more, and no more than that"
    );
}

#[tokio::test]
async fn clocks_that_differ_by_minutes_do_not_matter() {
    for off in [-3600, -300, -65, 0, 65, 300, 3600] {
        let github = Github::new();
        let mock = github.serve().await;
        let client = client(&github, &mock, off);
        call(&client, "orgs/acme").await.unwrap();
        let refused = calls_of(&mock, "/orgs/acme/installation") - 1;
        assert_eq!(
            refused,
            usize::from(!(-540..=60).contains(&off)),
            "off by {off} s: signed again with GitHub's time"
        );
        github.pass(3000);
        call(&client, "orgs/acme").await.unwrap();
        assert_eq!(github.issued(), 1, "off by {off} s: it still holds");
        github.pass(400);
        call(&client, "orgs/acme").await.unwrap();
        assert_eq!(github.issued(), 2, "off by {off} s: renewed ahead of its end");
        call(&client, "orgs/other").await.unwrap();
        assert_eq!(
            calls_of(&mock, "/orgs/other/installation"),
            1,
            "what was learned is kept"
        );
    }
}

async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut all {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if all.iter().all(|(_, result)| result.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().map(|(_, result)| result.unwrap()).collect()
}
