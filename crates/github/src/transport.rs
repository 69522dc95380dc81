//! One request, one answer: the token, the time-out, redirects, and a bound on what is read.
//!
//! Invariants: the token goes to the API's origin only (scheme, host and port); nothing is retried here; no more than
//! [`LARGEST`] bytes of an answer are kept. A request may still be sent twice by reqwest where HTTP/2 says that the
//! server did not look at it (REFUSED_STREAM, GOAWAY).

use std::error::Error as _;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LINK, LOCATION,
};
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::answer::Answer;
use crate::clock::GithubTime;
use crate::error::Error;
use crate::gate::{Caller, Ending, NotNow, Outgoing};
use crate::login::Who;
use crate::options::{BuildError, ClientOptions};
use crate::rate::{RateHeaders, Remaining};
use crate::words::clean;
use crate::{tls, tls_words};

/// The largest answer that is read, in bytes. A page of 100 runners with 100 labels each is about 1 MB.
const LARGEST: usize = 8 << 20;
/// How much of a refusal is read, in bytes: only its message is of use.
const LARGEST_REFUSAL: usize = 64 << 10;
/// Redirects followed in one call: GitHub answers one for a renamed repository.
const REDIRECTS: usize = 3;
/// How long an idle connection is kept: less than a load balancer's usual 60 s, so that no request meets one that is
/// just being closed.
const IDLE: Duration = Duration::from_secs(30);

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Call {
    /// Its name in metrics and logs.
    pub(crate) endpoint: &'static str,
    /// Its name and target in errors.
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether it makes a runner: then 409 means that the name is taken.
    pub(crate) makes_runner: bool,
    /// Whether a success is a secret.
    pub(crate) secret: bool,
    /// As whom it is sent, where that depends on the call.
    pub(crate) who: Who,
    /// GitHub's mark of the answer that is known: the same one is answered with 304, which counts in no hour.
    pub(crate) known: Option<String>,
}

/// What sends calls.
pub(crate) struct Transport {
    http: reqwest::Client,
    options: ClientOptions,
    remaining: Remaining,
    time: GithubTime,
}

impl Transport {
    pub(crate) fn new(options: ClientOptions) -> Result<Self, BuildError> {
        let api = &options.api_url;
        if !matches!(api.scheme(), "http" | "https") || !api.has_host() {
            return Err(BuildError::ApiUrl("must start with https:// (or http://) and a host"));
        }
        if !api.username().is_empty() || api.password().is_some() {
            return Err(BuildError::ApiUrl(
                "holds a user name or password; give the token by itself",
            ));
        }
        if api.query().is_some() || api.fragment().is_some() {
            return Err(BuildError::ApiUrl("has a ? or #"));
        }
        // An error says that one is installed already, by another client of this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .default_headers(HeaderMap::from_iter([
                (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
                (
                    HeaderName::from_static("x-github-api-version"),
                    HeaderValue::from_static("2022-11-28"),
                ),
            ]))
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(IDLE)
            // A connection that died silently fails the calls on it within 20 s instead of every call until its own
            // time-out.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &options.extra_ca_pem {
            http = http.tls_backend_preconfigured(tls::client_config(pem)?);
        } else if api.scheme() == "http" {
            // No redirect leaves http, so none are needed: a simulator's client runs in an image without certificates.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|e| BuildError::Http(chain(&e)))?;
        let time = GithubTime::new(options.clock.clone());
        Ok(Self {
            http,
            options,
            remaining: Remaining::default(),
            time,
        })
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// GitHub's time.
    pub(crate) fn time(&self) -> &GithubTime {
        &self.time
    }

    /// Notes what an answer says of the hour's calls.
    fn see(&self, headers: &RateHeaders, who: &Who) {
        if let (Some(remaining), false) = (headers.remaining, headers.of_registrations) {
            self.remaining.see(remaining);
        }
        let owner = match who {
            Who::Installation(account) if self.options.login.is_app() => Some(account.name().to_ascii_lowercase()),
            _ => None,
        };
        if let (Some(tell), Some(rate)) = (&self.options.on_rate, headers.rate(owner)) {
            tell(&rate);
        }
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        self.remaining.last()
    }

    /// Sends `call` with `token`, where the gate lets it, and reads the answer, whatever its status. An error says that
    /// there is none.
    pub(crate) async fn send(&self, call: Call, token: &SecretString) -> Result<Answer, Error> {
        let Some(gate) = &self.options.gate else {
            return self.exchange(call, token).await;
        };
        let who = self.caller(&call.who);
        let request = Outgoing {
            endpoint: call.endpoint,
            writes: call.method != Method::GET,
            timeout: call.timeout,
            who,
        };
        let number = match gate.enter(&request).await {
            Ok(number) => number,
            Err(NotNow { wait, why }) => {
                return Err(Error::Held {
                    what: call.what,
                    why,
                    retry_after: wait,
                });
            }
        };
        let result = self.exchange(call, token).await;
        gate.leave(&request, number, Ending::of(&result)).await;
        result
    }

    fn caller(&self, who: &Who) -> Caller {
        Caller::of(who, self.options.login.is_app())
    }

    /// An answer is the last word on whom it was asked as: the gate is told of a refusal.
    pub(crate) async fn last_word(&self, who: &Who, answer: &Answer) {
        if answer.status == 401 {
            self.refused(who, answer.words()).await;
        }
    }

    /// Tells the gate that GitHub refuses whom calls are made as.
    pub(crate) async fn refused(&self, who: &Who, why: String) {
        if let Some(gate) = &self.options.gate {
            gate.refused(&self.caller(who), why).await;
        }
    }

    async fn exchange(&self, call: Call, token: &SecretString) -> Result<Answer, Error> {
        let Call {
            endpoint,
            what,
            method,
            mut url,
            body,
            timeout,
            makes_runner,
            secret,
            who,
            known,
        } = call;
        let token = token.clone();
        let authorization = bearer(&token).ok_or_else(|| Error::Unauthorized {
            what: what.clone(),
            said: "(not sent) the token is empty or holds characters that no header can".into(),
        })?;
        let started = Instant::now();
        let mut hops = 0;
        loop {
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .timeout(timeout.saturating_sub(started.elapsed()))
                .header(AUTHORIZATION, authorization.clone());
            if let Some(body) = &body {
                request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
            }
            if let Some(known) = &known {
                request = request.header(IF_NONE_MATCH, known);
            }
            let sent = request.send().await;
            let status = sent.as_ref().map_or(0, |response| response.status().as_u16());
            if let Some(tell) = &self.options.on_response {
                tell(endpoint, status);
            }
            tracing::debug!(
                http.endpoint = endpoint,
                http.status = status,
                elapsed_ms = started.elapsed().as_millis(),
                "called GitHub"
            );
            let mut response = sent.map_err(|error| failed(&what, error, timeout, &token))?;
            let rate = RateHeaders::read(response.headers(), self.time.local());
            if let Some(date) = rate.date {
                self.time.learn(date);
            }
            self.see(&rate, &who);
            if response.status().is_redirection() && status != 304 {
                let to = target(&url, &response);
                match to {
                    // 303 says to fetch something else; the others, to ask for the same elsewhere.
                    Some(to)
                        if to.origin() == url.origin()
                            && hops < REDIRECTS
                            && matches!(status, 301 | 302 | 307 | 308) =>
                    {
                        url = to;
                        hops += 1;
                        continue;
                    }
                    to => {
                        let to = to.map_or_else(|| "nowhere".into(), |to| to.origin().ascii_serialization());
                        return Err(Error::Redirected { what, status, to });
                    }
                }
            }
            let etag = response
                .headers()
                .get(ETAG)
                .and_then(|etag| etag.to_str().ok())
                .map(str::to_owned);
            let next = response
                .headers()
                .get_all(LINK)
                .iter()
                .find_map(|link| link.to_str().ok().and_then(next_page));
            let body = if response.status().is_success() {
                match read(&mut response, LARGEST).await {
                    Ok((body, true)) => body,
                    Ok((_, false)) => {
                        return Err(Error::Unreadable {
                            what,
                            status,
                            why: format!("it is larger than {LARGEST} bytes"),
                        });
                    }
                    Err(error) => return Err(failed(&what, error, timeout, &token)),
                }
            } else {
                // The status says enough where the rest does not come.
                read(&mut response, LARGEST_REFUSAL)
                    .await
                    .map(|(body, _)| body)
                    .unwrap_or_default()
            };
            return Ok(Answer {
                what,
                makes_runner,
                secret,
                token,
                status,
                rate,
                next,
                etag,
                body,
            });
        }
    }
}

/// `Bearer TOKEN`, marked so that no log shows it.
fn bearer(token: &SecretString) -> Option<HeaderValue> {
    // A token file ends with a line end more often than not.
    let token = token.expose_secret().trim();
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

/// Where a redirect points to.
fn target(from: &Url, response: &Response) -> Option<Url> {
    from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

/// The address that a `Link` header names with `rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let names_it = |one: &&str| {
        one.split(';')
            .skip(1)
            .any(|parameter| matches!(parameter.trim(), r#"rel="next""# | "rel=next"))
    };
    let address = link.split(',').find(names_it)?.split(';').next()?.trim();
    Some(address.trim_start_matches('<').trim_end_matches('>').to_owned())
}

/// The body up to `limit` bytes, and whether that was all of it.
async fn read(response: &mut Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

/// The error for a request that got no whole answer.
fn failed(what: &str, error: reqwest::Error, after: Duration, token: &SecretString) -> Error {
    let what = what.to_owned();
    // Before the time-outs: one of connecting is both.
    if error.is_connect() || error.is_builder() {
        let error = error.without_url();
        let why = tls_words::advice(&error).unwrap_or_else(|| chain(&error));
        return Error::Unreachable {
            what,
            why: clean(&why, token),
        };
    }
    if error.is_timeout() {
        return Error::TimedOut { what, after };
    }
    Error::Interrupted {
        what,
        why: clean(&chain(&error.without_url()), token),
    }
}

/// An error with its causes: reqwest's own text says only that sending failed.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
