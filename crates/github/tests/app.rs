//! Speaking as a GitHub App: against a server that checks what it gets, with clocks of the test's.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Mock, Reply, Request};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jit_github::openapi::{Version, examples, validate_request, validate_response};
use jit_github::{AppLogin, BackOff, Client, ClientOptions, Deletion, Error, Login, Scope};
use secrecy::SecretString;
use serde_json::{Value, json};

const KEY: &str = include_str!("common/app-pkcs1.pem");
const APP: &str = "4711";
/// 2026-11-22 00:00:00 UTC
const NOON: i64 = 1_795_305_600;

/// A GitHub with one App: what is installed, and what its clock says.
struct Github {
    /// Seconds since 1970, at GitHub.
    time: AtomicI64,
    /// How long a token holds, in seconds.
    life: AtomicI64,
    /// Installations by path (`orgs/acme`) with their ids; a suspended one has a negative id.
    installed: Mutex<HashMap<String, i64>>,
    /// Tokens that are accepted, and of which installation.
    tokens: Mutex<HashMap<String, i64>>,
    issued: AtomicUsize,
    /// No token is given out.
    broken: AtomicBool,
}

impl Github {
    fn new() -> Arc<Self> {
        let installed = [
            ("orgs/acme", 1),
            ("orgs/other", 2),
            ("users/octocat", 3),
            ("orgs/asleep", -4),
        ]
        .map(|(path, id)| (path.to_owned(), id))
        .into();
        Arc::new(Self {
            time: NOON.into(),
            life: 3600.into(),
            installed: Mutex::new(installed),
            tokens: Mutex::default(),
            issued: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        })
    }

    async fn serve(self: &Arc<Self>) -> Mock {
        let github = self.clone();
        Mock::start(move |request| {
            let now = Timestamp::from_second(github.now()).unwrap();
            github.answer(request).with(
                "date",
                DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap(),
            )
        })
        .await
    }

    fn now(&self) -> i64 {
        self.time.load(Ordering::SeqCst)
    }

    fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Why a JWT is refused. Its signature is a test of `jwt`'s.
    fn refuses(&self, jwt: &str) -> Option<&'static str> {
        let claims = jwt
            .split('.')
            .nth(1)
            .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
            .unwrap_or_default();
        let Ok(claims) = serde_json::from_slice::<Value>(&claims) else {
            return Some("A JSON web token could not be decoded");
        };
        let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        match self.now() {
            _ if claims["iss"] != APP => Some("Integration not found"),
            now if iat > now + 60 => {
                Some("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
            }
            now if exp > now + 600 => Some("'Expiration time' claim ('exp') is too far in the future"),
            now if exp <= now => Some(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
                 assertion expires",
            ),
            _ => None,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let error = |status, message: &str| {
            Reply::json(
                status,
                &json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }),
            )
        };
        let token = request
            .header("authorization")
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap()
            .to_owned();
        let path = request.path.trim_start_matches('/');
        let segments: Vec<&str> = path.split('/').collect();
        if (segments[0] == "app" || segments.last() == Some(&"installation"))
            && let Some(why) = self.refuses(&token)
        {
            return error(401, why);
        }
        match segments[..] {
            [kind, owner, "installation"] => match self
                .installed
                .lock()
                .unwrap()
                .get(&format!("{kind}/{}", owner.to_lowercase()))
            {
                Some(id) => Reply::json(
                    200,
                    &json!({ "id": id.abs(), "suspended_at": (*id < 0).then_some("2026-11-01T00:00:00Z") }),
                ),
                None => error(404, "Not Found"),
            },
            ["app", "installations"] => {
                let page: i64 = request.query("page").unwrap().parse().unwrap();
                let others = (0..100).map(|n| json!({ "id": page * 1000 + n, "target_type": "Organization", "account": { "login": format!("org-{n}") } }));
                let all: Vec<Value> = match page {
                    1 => others.collect(),
                    _ => vec![json!({ "id": 9, "target_type": "Enterprise", "account": { "slug": "big-co" } })],
                };
                Reply::json(200, &json!(all))
            }
            ["app", "installations", id, "access_tokens"] => {
                let id: i64 = id.parse().unwrap();
                if self.broken.load(Ordering::SeqCst) {
                    return error(503, "no tokens today");
                }
                if id != 9 && !self.installed.lock().unwrap().values().any(|known| *known == id) {
                    return error(404, "Not Found");
                }
                let token = format!("ghs_{}_{id}", self.issued.fetch_add(1, Ordering::SeqCst) + 1);
                self.tokens.lock().unwrap().insert(token.clone(), id);
                let expires = Timestamp::from_second(self.now() + self.life.load(Ordering::SeqCst)).unwrap();
                Reply::json(
                    201,
                    &json!({ "token": token, "expires_at": expires, "permissions": {} }),
                )
            }
            [_, owner, ..] => match self.tokens.lock().unwrap().get(&token) {
                Some(-1) => error(403, "This installation has been suspended"),
                Some(_) if request.method == "DELETE" => Reply::empty(204).with("x-owner", owner),
                _ => error(401, "Bad credentials"),
            },
            _ => error(404, "Not Found"),
        }
    }

    fn revoke(&self) {
        self.tokens.lock().unwrap().clear();
    }

    fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}

/// A client whose clock is `off` seconds ahead of GitHub's.
fn client(github: &Arc<Github>, mock: &Mock, off: i64) -> Client {
    client_with(github, mock, off, KEY)
}

fn client_with(github: &Arc<Github>, mock: &Mock, off: i64, key: &'static str) -> Client {
    client_of(github, mock, off, move || key)
}

fn client_of(
    github: &Arc<Github>,
    mock: &Mock,
    off: i64,
    key: impl Fn() -> &'static str + Send + Sync + 'static,
) -> Client {
    let login = AppLogin {
        id: APP.into(),
        private_key: Arc::new(move || SecretString::from(key())),
    };
    let mut options = ClientOptions::with(mock.url.clone(), Login::App(login));
    options.timeout = Duration::from_secs(10);
    let github = github.clone();
    options.clock = Arc::new(move || Timestamp::from_second(github.now() + off).unwrap());
    Client::new(options).unwrap()
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

async fn call(client: &Client, at: &str) -> Result<Deletion, Error> {
    client.delete_runner(&scope(at), 1).await
}

fn calls_of(mock: &Mock, end: &str) -> usize {
    mock.seen().iter().filter(|request| request.path.ends_with(end)).count()
}

/// The token that each call about runners carried.
fn carried(mock: &Mock) -> Vec<String> {
    let of_runners = |request: &Request| {
        request
            .path
            .ends_with("/runners/1")
            .then(|| request.header("authorization").unwrap()["Bearer ".len()..].to_owned())
    };
    mock.seen().iter().filter_map(of_runners).collect()
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
