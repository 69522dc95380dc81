//! A GitHub App at the simulated GitHub, with the project's own client: what is installed, what a token is good for,
//! and until when.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Lab, lab};
use jiff::{SignedDuration, Timestamp};
use jit_github::{AppLogin, Client, ClientOptions, Deletion, Error, Login};
use jit_simulator::github::Settings;
use serde_json::{Value, json};

fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../github/tests/common")
        .join(name)
}

fn settings() -> Settings {
    Settings {
        orgs: 2,
        app_id: Some("4711".into()),
        app_public_key_file: Some(key_file("app-public.pem")),
        ..Settings::default()
    }
}

fn app(lab: &Lab, id: &str, off: SignedDuration) -> Client {
    let key = std::fs::read_to_string(key_file("app-pkcs1.pem")).unwrap();
    let login = AppLogin {
        id: id.to_owned(),
        private_key: Arc::new(move || key.clone().into()),
    };
    let mut options = ClientOptions::with(format!("{}/api/v3", lab.github.url).parse().unwrap(), Login::App(login));
    options.clock = Arc::new(move || Timestamp::now().checked_add(off).unwrap());
    Client::new(options).unwrap()
}

async fn call(client: &Client, at: &str) -> Result<Deletion, Error> {
    client.delete_runner(&at.parse().unwrap(), 1).await
}

async fn set(lab: &Lab, account: &str, state: &str) {
    lab.control("app", json!({ "account": account, "state": state })).await;
}

async fn tokens(lab: &Lab) -> Value {
    lab.look("summary").await["runners"]["app_tokens"].clone()
}

#[tokio::test]
async fn it_is_good_where_it_is_installed_and_nowhere_else() {
    let lab = lab(settings()).await;
    lab.control(
        "jobs",
        json!({ "user": "alice", "repo": "dots", "labels": ["self-hosted", "x"] }),
    )
    .await;
    let client = app(&lab, "4711", SignedDuration::ZERO);
    for at in [
        "orgs/org-0001",
        "repos/alice/dots",
        "enterprises/simulated",
        "orgs/nobody",
    ] {
        assert!(
            matches!(call(&client, at).await, Err(Error::NotInstalled { .. })),
            "{at}"
        );
    }
    for (account, at) in [
        ("org-0001", "orgs/org-0001"),
        ("Alice", "repos/alice/dots"),
        ("simulated", "enterprises/simulated"),
    ] {
        set(&lab, account, "installed").await;
        assert_eq!(call(&client, at).await.unwrap(), Deletion::NotFound, "{at}");
    }
    assert_eq!(client.installations(1).await.unwrap().items.len(), 3);
    assert_eq!(
        client.installation_repositories("alice", 1).await.unwrap().items[0].full_name,
        "alice/dots"
    );
    set(&lab, "org-0001", "suspended").await;
    assert!(matches!(
        call(&client, "orgs/org-0001").await,
        Err(Error::Suspended { .. })
    ));
    assert!(matches!(
        call(&client, "orgs/org-0001").await,
        Err(Error::Suspended { .. })
    ));
    set(&lab, "org-0001", "uninstalled").await;
    assert!(matches!(
        call(&client, "orgs/org-0001").await,
        Err(Error::NotInstalled { .. })
    ));
    assert_eq!(
        call(&client, "repos/alice/dots").await.unwrap(),
        Deletion::NotFound,
        "another's does not matter"
    );
    assert!(
        matches!(
            call(&app(&lab, "4712", SignedDuration::ZERO), "orgs/org-0001").await,
            Err(Error::NoToken { .. })
        ),
        "another App"
    );
}

#[tokio::test]
async fn tokens_expire_and_clocks_differ() {
    for minutes in [-20, 0, 5] {
        let lab = lab(Settings {
            app_installed: true,
            app_token_ms: 1,
            ..settings()
        })
        .await;
        let client = app(&lab, "4711", SignedDuration::from_mins(minutes));
        for _ in 0..3 {
            // Expired before it is used: it is dropped, and the next one is not good either.
            let result = call(&client, "orgs/org-0001").await;
            assert!(
                matches!(result, Err(Error::Unauthorized { .. }) | Ok(Deletion::NotFound)),
                "{result:?}"
            );
        }
        assert!(tokens(&lab).await.as_u64().unwrap() >= 3);
    }
    let lab = lab(Settings {
        app_installed: true,
        ..settings()
    })
    .await;
    let client = app(&lab, "4711", SignedDuration::from_mins(5));
    for _ in 0..3 {
        call(&client, "orgs/org-0001").await.unwrap();
        call(&client, "orgs/org-0002").await.unwrap();
    }
    assert_eq!(tokens(&lab).await, 2);
}

#[tokio::test]
async fn each_caller_has_an_hour_of_its_own() {
    let lab = lab(Settings {
        app_installed: true,
        rate_limit: Some(3),
        ..settings()
    })
    .await;
    let client = app(&lab, "4711", SignedDuration::ZERO);
    for _ in 0..3 {
        call(&client, "orgs/org-0001").await.unwrap();
    }
    assert!(matches!(
        call(&client, "orgs/org-0001").await,
        Err(Error::PrimaryLimit { .. })
    ));
    lab.control("tokens", json!({ "token": "another", "rate_limit": 1 }))
        .await;
    let mut options = ClientOptions::new(
        format!("{}/api/v3", lab.github.url).parse().unwrap(),
        Arc::new(|| "another".into()),
    );
    options.user_agent = "test".into();
    let other = Client::new(options).unwrap();
    assert_eq!(call(&other, "orgs/org-0002").await.unwrap(), Deletion::NotFound);
    assert!(matches!(
        call(&other, "orgs/org-0002").await,
        Err(Error::PrimaryLimit { .. })
    ));
    assert_eq!(lab.look("summary").await["runners"]["rest_limited"], 2);
}

#[tokio::test]
async fn a_minute_has_its_points() {
    let lab = lab(Settings {
        points_per_minute: Some(10),
        ..settings()
    })
    .await;
    for (name, status) in [("a", 201), ("b", 201), ("c", 429)] {
        let got = lab.register(name).await;
        assert_eq!(got.status, status, "{}", got.text);
        assert_eq!(got.headers.contains_key("retry-after"), status == 429);
    }
}
