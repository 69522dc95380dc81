//! The gate: asked before each request, told how it ended, and believed.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Mock, Reply, options};
use jit_github::{
    Answering, AppLogin, Caller, Client, ClientOptions, Ending, Error, Gate, Login, NotNow, Outgoing, Scope,
};
use serde_json::json;

/// Lets all requests pass, or none, and notes what it is told.
#[derive(Default)]
struct Noted {
    closed: Mutex<bool>,
    told: Mutex<Vec<String>>,
}

impl Noted {
    fn note(&self, text: String) {
        self.told.lock().unwrap().push(text);
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

fn name(who: &Caller) -> String {
    format!(
        "{}{}",
        if who.app { "app" } else { "token" },
        who.owner
            .as_ref()
            .map_or_else(String::new, |owner| format!(" at {owner}"))
    )
}

impl Gate for Noted {
    fn enter<'a>(&'a self, request: &'a Outgoing) -> Answering<'a, Result<u64, NotNow>> {
        self.note(format!(
            "{} {}{}",
            name(&request.who),
            request.endpoint,
            if request.writes { " writes" } else { "" }
        ));
        let closed = *self.closed.lock().unwrap();
        Box::pin(ready(if closed {
            Err(NotNow {
                wait: Duration::from_secs(7),
                why: "said before".into(),
            })
        } else {
            Ok(5)
        }))
    }

    fn leave<'a>(&'a self, _: &'a Outgoing, number: u64, ending: Ending) -> Answering<'a, ()> {
        assert_eq!(number, 5, "its own number");
        self.note(match ending {
            Ending::Limited { wait, whole, .. } => {
                format!("limited {} s{}", wait.as_secs(), if whole { ", whole" } else { "" })
            }
            Ending::Refused { .. } => "refused".into(),
            other => format!("{other:?}"),
        });
        Box::pin(ready(()))
    }

    fn refused<'a>(&'a self, who: &'a Caller, why: String) -> Answering<'a, ()> {
        self.note(format!("{} is not accepted: {why}", name(who)));
        Box::pin(ready(()))
    }
}

fn acme() -> Scope {
    Scope::Organization("Acme".into())
}

fn gated(mut options: ClientOptions) -> (Client, Arc<Noted>) {
    let gate = Arc::new(Noted::default());
    options.gate = Some(gate.clone());
    (Client::new(options).unwrap(), gate)
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({ "message": text }))
}

#[tokio::test]
async fn each_ending_is_told() {
    let secondary = "You have exceeded a secondary rate limit.";
    for (reply, told) in [
        (Reply::empty(204), "Answered"),
        (message(404, "Not Found"), "Answered"),
        (message(403, "Resource not accessible by integration"), "Answered"),
        (message(500, "Server Error"), "Answered"),
        (message(503, "Busy").with("retry-after", "9"), "limited 9 s"),
        (message(429, "").with("retry-after", "30"), "limited 30 s, whole"),
        (message(403, secondary), "limited 60 s, whole"),
        (
            message(403, "API rate limit exceeded")
                .with("x-ratelimit-remaining", "0")
                .with("retry-after", "40"),
            "limited 40 s",
        ),
        (message(403, "Maximum number of login attempts exceeded."), "refused"),
        (Reply::Cut, "Unanswered"),
    ] {
        let (client, gate) = gated(options(Mock::always(reply).await.url));
        let _ = client.delete_runner(&acme(), 1).await;
        assert_eq!(gate.told(), ["token delete-runner writes", told]);
    }
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_told_of() {
    let (client, gate) = gated(options(Mock::always(message(401, "Bad credentials")).await.url));
    client.job("acme", "app", 1).await.unwrap_err();
    let refused = "token is not accepted: job 1 of repos/acme/app: GitHub answered 401: Bad credentials";
    assert_eq!(gate.told(), ["token job", "Unauthorized", refused]);
}

#[tokio::test]
async fn what_is_held_is_not_sent() {
    let mock = Mock::always(Reply::empty(204)).await;
    let (client, gate) = gated(options(mock.url.clone()));
    *gate.closed.lock().unwrap() = true;
    let error = client.delete_runner(&acme(), 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "deletion of runner 1 of orgs/Acme: not sent: said before"
    );
    assert_eq!(
        (error.retry_after(), error.sent(), error.uncertain()),
        (Some(Duration::from_secs(7)), false, false)
    );
    assert!(mock.seen().is_empty());
}

#[tokio::test]
async fn an_app_is_refused_where_a_new_token_does_not_help() {
    let mock = Mock::start(|request| match request.path.as_str() {
        "/orgs/Acme/installation" => Reply::json(
            200,
            &json!({ "id": 7, "account": { "login": "Acme" }, "target_type": "Organization", "suspended_at": null }),
        ),
        "/app/installations/7/access_tokens" => {
            Reply::json(201, &json!({ "token": "ghs_1", "expires_at": "2099-01-01T00:00:00Z" }))
        }
        _ => message(401, "Bad credentials"),
    })
    .await;
    let key = include_str!("common/app-pkcs8.pem");
    let login = Login::App(AppLogin {
        id: "4711".into(),
        private_key: Arc::new(move || key.into()),
    });
    let (client, gate) = gated(ClientOptions::with(mock.url.clone(), login));
    let error = client.delete_runner(&acme(), 1).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let token = ["app access-tokens writes", "Answered"];
    let call = ["app at acme delete-runner writes", "Unauthorized"];
    let refused =
        "app at acme is not accepted: deletion of runner 1 of orgs/Acme: GitHub answered 401: Bad credentials";
    assert_eq!(
        gate.told(),
        [
            &["app installation", "Answered"][..],
            &token,
            &call,
            &token,
            &call,
            &[refused]
        ]
        .concat()
    );
}

#[tokio::test]
async fn an_app_that_is_not_installed_is_told_of_where_it_is_not() {
    let mock = Mock::always(message(404, "Not Found")).await;
    let key = include_str!("common/app-pkcs8.pem");
    let login = Login::App(AppLogin {
        id: "4711".into(),
        private_key: Arc::new(move || key.into()),
    });
    let (client, gate) = gated(ClientOptions::with(mock.url.clone(), login));
    client.delete_runner(&acme(), 1).await.unwrap_err();
    let told = gate.told();
    assert_eq!(told[..2], ["app installation", "Answered"]);
    assert!(
        told[2].starts_with(
            "app at acme is not accepted: deletion of runner 1 of orgs/Acme: the GitHub App is not installed"
        ),
        "{told:?}"
    );
}
