//! A GitHub with an App and its installations.

use crate::common::{Mock, Reply, Request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::{APP, NOON};

/// A GitHub with one App: what is installed, and what its clock says.
pub struct Github {
    /// Seconds since 1970, at GitHub.
    pub time: AtomicI64,
    /// How long a token holds, in seconds.
    pub life: AtomicI64,
    /// Installations by path (`orgs/acme`) with their ids; a suspended one has a negative id.
    pub installed: Mutex<HashMap<String, i64>>,
    /// Tokens that are accepted, and of which installation.
    pub tokens: Mutex<HashMap<String, i64>>,
    pub issued: AtomicUsize,
    /// No token is given out.
    pub broken: AtomicBool,
}

impl Github {
    pub fn new() -> Arc<Self> {
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

    pub async fn serve(self: &Arc<Self>) -> Mock {
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

    pub fn now(&self) -> i64 {
        self.time.load(Ordering::SeqCst)
    }

    pub fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Why a JWT is refused. Its signature is a test of `jwt`'s.
    pub fn refuses(&self, jwt: &str) -> Option<&'static str> {
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

    pub fn answer(&self, request: &Request) -> Reply {
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
                let others = (0..100).map(|n| {
                    json!({ "id": page * 1000 + n, "target_type": "Organization",
                    "account": { "login": format!("org-{n}") } })
                });
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

    pub fn revoke(&self) {
        self.tokens.lock().unwrap().clear();
    }

    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}
