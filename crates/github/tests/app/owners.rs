//! Owners without the App, keys, what is told.

use crate::common::{Mock, Reply};
use jiff::Timestamp;
use jit_github::openapi::{Version, examples, validate_request, validate_response};
use jit_github::{AppLogin, BackOff, Client, ClientOptions, Deletion, Error, Login};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::app::server::Github;
use crate::{APP, KEY, NOON, call, carried, client, client_of, client_with};

#[tokio::test]
async fn an_owner_without_the_app_costs_the_others_nothing() {
    let github = Github::new();
    let mock = github.serve().await;
    let client = client(&github, &mock, 0);
    let error = call(&client, "orgs/stranger").await.unwrap_err();
    assert!(
        matches!(&error, Error::NotInstalled { owner, .. } if owner == "stranger"),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("the GitHub App is not installed at stranger: install it there"),
        "{error}"
    );
    assert_eq!(
        (error.backs_off(), error.uncertain(), error.retry_after()),
        (BackOff::Organization, false, None)
    );
    let error = call(&client, "orgs/asleep").await.unwrap_err();
    assert!(
        matches!(&error, Error::Suspended { .. }) && error.to_string().contains("is suspended at asleep"),
        "{error:?}"
    );
    call(&client, "orgs/acme").await.unwrap();

    github.installed.lock().unwrap().insert("orgs/stranger".into(), 7);
    call(&client, "orgs/stranger").await.unwrap();
    // Removed and installed anew: the installation has another id.
    github.installed.lock().unwrap().insert("orgs/stranger".into(), 8);
    github.revoke();
    call(&client, "orgs/stranger").await.unwrap();
    assert!(carried(&mock).last().unwrap().ends_with("_8"));
    github.installed.lock().unwrap().remove("orgs/stranger");
    github.revoke();
    assert!(matches!(
        call(&client, "orgs/stranger").await,
        Err(Error::NotInstalled { .. })
    ));
    // Suspended while its token is in use.
    for id in github.tokens.lock().unwrap().values_mut() {
        *id = -1;
    }
    call(&client, "orgs/acme").await.unwrap();
    for id in github.tokens.lock().unwrap().values_mut() {
        *id = -1;
    }
    assert!(matches!(call(&client, "orgs/acme").await, Err(Error::Suspended { .. })));
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_told_and_nothing_is_sent() {
    let github = Github::new();
    let mock = github.serve().await;
    let error = call(&client_with(&github, &mock, 0, "not a key"), "orgs/acme")
        .await
        .unwrap_err();
    let Error::NoToken { cause, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(**cause, Error::Unauthorized { .. }) && error.to_string().contains("no private key in PEM"),
        "{error}"
    );
    assert_eq!(error.backs_off(), BackOff::Credential);
    assert!(mock.seen().is_empty() && !error.to_string().contains("not a key"));
}

#[tokio::test]
async fn a_key_that_is_another_now_signs_from_then_on() {
    let github = Github::new();
    let mock = github.serve().await;
    let rotated = Arc::<AtomicBool>::default();
    let told = rotated.clone();
    let client = client_of(&github, &mock, 0, move || {
        if told.load(Ordering::SeqCst) { "no key" } else { KEY }
    });
    call(&client, "orgs/acme").await.unwrap();
    rotated.store(true, Ordering::SeqCst);
    call(&client, "orgs/acme").await.unwrap(); // its token is good still
    let error = call(&client, "orgs/other").await.unwrap_err().to_string();
    assert!(error.contains("private key"), "signed with the key of before: {error}");
    rotated.store(false, Ordering::SeqCst);
    call(&client, "orgs/other").await.unwrap();
}

#[tokio::test]
async fn what_is_left_of_the_hour_is_told_for_each_installation() {
    let github = Github::new();
    let told = Arc::<Mutex<Vec<(Option<String>, u64)>>>::default();
    let answers = github.clone();
    let mock = Mock::start(move |request| {
        answers
            .answer(request)
            .with("x-ratelimit-limit", "5000")
            .with("x-ratelimit-remaining", "4711")
            .with("x-ratelimit-reset", (NOON + 60).to_string())
    })
    .await;
    let login = AppLogin {
        id: APP.into(),
        private_key: Arc::new(|| KEY.into()),
    };
    let mut options = ClientOptions::with(mock.url.clone(), Login::App(login));
    options.clock = Arc::new(|| Timestamp::from_second(NOON).unwrap());
    let log = told.clone();
    options.on_rate = Some(Arc::new(move |rate| {
        log.lock().unwrap().push((rate.owner.clone(), rate.remaining))
    }));
    call(&Client::new(options).unwrap(), "orgs/Acme").await.unwrap();
    assert_eq!(
        *told.lock().unwrap(),
        [(None, 4711), (None, 4711), (Some("acme".into()), 4711)]
    );
}

#[tokio::test]
async fn every_call_of_the_app_is_described_and_every_example_is_read() {
    for version in Version::ALL {
        let wrong = Arc::<Mutex<Vec<String>>>::default();
        let notes = wrong.clone();
        let mock = Mock::start(move |request| {
            let (method, path) = (request.method.as_str(), request.path.as_str());
            let status = match method {
                "POST" => 201,
                "DELETE" => 204,
                // A user's: GitHub knows no such organization.
                _ if path == "/orgs/octo-user/installation" => 404,
                _ => 200,
            };
            let example = examples(version, method, path, status)
                .unwrap_or_default()
                .into_iter()
                .next();
            let body = if status == 404 {
                Some(json!({ "message": "Not Found", "documentation_url": "https://docs.github.com/rest" }))
            } else {
                example
            };
            let mut notes = notes.lock().unwrap();
            notes
                .extend(validate_request(version, method, path, request.query.as_deref(), request.body.as_ref()).err());
            // GitHub describes no refusal of these.
            notes.extend(if status == 404 {
                None
            } else {
                validate_response(version, method, path, status, body.as_ref()).err()
            });
            body.map_or_else(|| Reply::empty(status), |body| Reply::json(status, &body))
        })
        .await;
        let client = client(&Github::new(), &mock, 0);
        for at in ["orgs/acme", "repos/octo-user/hello.world"] {
            assert_eq!(call(&client, at).await.unwrap(), Deletion::Deleted, "{at}");
        }
        assert!(
            carried(&mock)
                .iter()
                .all(|token| token == "ghs_16C7e42F292c6912E7710c838347Ae178B4a")
        );
        assert!(
            matches!(
                call(&client, "enterprises/big-co").await,
                Err(Error::NotInstalled { .. })
            ),
            "the example has none of an enterprise"
        );
        let installations = client.installations(1).await.unwrap();
        let at = installations.items[0].account.as_ref().unwrap();
        assert_eq!(
            (
                installations.items[0].id,
                at.login.as_deref(),
                installations.items[0].suspended_at
            ),
            (1, Some("octocat"), None)
        );
        assert_eq!(
            client.installation_repositories("acme", 1).await.unwrap().items.len(),
            1
        );
        assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    }
}
