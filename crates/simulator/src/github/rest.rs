//! The REST API over HTTP: from a request to a [`Call`], and from an [`Answer`] to a response, with the faults in
//! between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use secrecy::ExposeSecret;

use super::App;
use super::answer::Answer;
use super::api::Call;
use super::app::Caller;
use super::faults::{Endpoint, Kind};
use super::model::Scope;
use crate::serve::Cut;

type Shared = Arc<App>;
type Params = Path<HashMap<String, String>>;
type Pairs = Query<HashMap<String, String>>;

/// What is under `/api/v3`.
pub(super) fn routes() -> Router<Shared> {
    let runners = || {
        Router::new()
            .route("/runners/generate-jitconfig", route(Endpoint::GenerateJitconfig))
            .route("/runners", route(Endpoint::ListRunners))
            .route(
                "/runners/{id}",
                route(Endpoint::GetRunner).merge(route(Endpoint::DeleteRunner)),
            )
            .route("/runner-groups", route(Endpoint::ListGroups))
    };
    let hooks = || {
        Router::new()
            .route("/hooks", route(Endpoint::ListHooks))
            .route("/hooks/{hook}/deliveries", route(Endpoint::ListDeliveries))
            .route("/hooks/{hook}/deliveries/{id}/attempts", route(Endpoint::Redeliver))
    };
    let repository = runners()
        .route("/jobs/{id}", route(Endpoint::GetJob))
        .route("/runs", route(Endpoint::ListRuns))
        .route("/runs/{id}/jobs", route(Endpoint::ListRunJobs));
    Router::new()
        .nest("/orgs/{org}/actions", runners())
        .nest("/enterprises/{enterprise}/actions", runners())
        .nest("/repos/{owner}/{repo}/actions", repository)
        .nest(
            "/orgs/{org}",
            hooks().route("/repos", route(Endpoint::ListRepositories)),
        )
        .nest("/repos/{owner}/{repo}", hooks())
        .route("/app/hook/config", route(Endpoint::AppHook))
        .route("/app/hook/deliveries", route(Endpoint::ListDeliveries))
        .route("/app/hook/deliveries/{id}/attempts", route(Endpoint::Redeliver))
        .route("/app/installations", route(Endpoint::Installations))
        .route("/app/installations/{id}/access_tokens", route(Endpoint::AccessTokens))
        .route("/orgs/{org}/installation", route(Endpoint::OrgInstallation))
        .route("/users/{user}/installation", route(Endpoint::UserInstallation))
        .route("/installation/repositories", route(Endpoint::InstallationRepositories))
        .route("/organizations", route(Endpoint::ListOrganizations))
        .route("/meta", route(Endpoint::Meta))
        .route("/rate_limit", route(Endpoint::RateLimit))
}

/// What every path answers that is no part of the simulator.
pub(super) async fn unknown() -> Response {
    respond(Answer::not_found(), "")
}

/// A route that turns its requests into calls of `endpoint`.
fn route(endpoint: Endpoint) -> MethodRouter<Shared> {
    let handler = move |State(app): State<Shared>,
                        Path(params): Params,
                        OriginalUri(uri): OriginalUri,
                        Query(query): Pairs,
                        headers: HeaderMap,
                        body: Bytes| async move {
        let caller = match authorize(&app, &headers) {
            Ok(caller) => caller,
            Err(answer) => return respond(answer, &app.site.version),
        };
        match call(endpoint, caller, &params, uri.path().to_owned(), query, body) {
            Some(call) => {
                let _under_way = UnderWay::begin(&app);
                let known = headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
                carry_out(&app, &call, known, headers.get(AUTHORIZATION)).await
            }
            None => respond(Answer::not_found(), &app.site.version),
        }
    };
    match endpoint {
        Endpoint::GenerateJitconfig | Endpoint::Redeliver | Endpoint::AccessTokens => post(handler),
        Endpoint::DeleteRunner => delete(handler),
        _ => get(handler),
    }
}

/// A call that has not been answered, and whose caller has not gone.
struct UnderWay(Shared);

impl UnderWay {
    fn begin(app: &Shared) -> Self {
        app.with(|server, _| server.under_way(true));
        Self(app.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.with(|server, _| server.under_way(false));
    }
}

/// GitHub's mark of an answer. It says of itself that its answers vary with the authorization, so another token has
/// another.
fn mark(answer: &Answer, authorization: Option<&HeaderValue>) -> Option<String> {
    let body = answer.body.as_ref().filter(|_| answer.status == 200)?.to_string();
    let vary = authorization.map_or(&[][..], HeaderValue::as_bytes);
    let digest = ring::digest::digest(&ring::digest::SHA256, &[vary, body.as_bytes()].concat());
    Some(format!("W/\"{}\"", hex::encode(digest)))
}

async fn carry_out(app: &App, call: &Call, known: Option<&str>, authorization: Option<&HeaderValue>) -> Response {
    let fate = app.with(|server, _| server.fate(call));
    let mut answer = match &fate.outcome {
        Some(fault) if fault.fault == Kind::RestStatus => app.with(|server, now| {
            if fault.performed {
                server.rest(call, &app.site, Some("rest_status"), now);
            }
            server.refuse(call, fault, now)
        }),
        outcome => {
            let name = outcome.as_ref().map(|fault| {
                if fault.fault == Kind::RestCut {
                    "rest_cut"
                } else {
                    "rest_garbage"
                }
            });
            app.with(|server, now| server.rest(call, &app.site, name.or((fate.delay > 0).then_some("rest_slow")), now))
        }
    };
    if let Some(etag) = mark(&answer, authorization) {
        if known == Some(etag.as_str()) {
            answer = app.with(|server, now| server.unchanged(call, answer, now));
        }
        answer = answer.header("etag", etag);
    }
    tokio::time::sleep(Duration::from_millis(fate.delay)).await;
    let mut response = respond(answer, &app.site.version);
    match fate.outcome.map(|fault| fault.fault) {
        Some(Kind::RestCut) => {
            response.extensions_mut().insert(Cut);
        }
        Some(Kind::RestGarbage) => *response.body_mut() = Body::from("{\"runner\":{\"id\":12,\"na"),
        _ => {}
    }
    response
}

fn authorize(app: &App, headers: &HeaderMap) -> Result<Caller, Answer> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(Answer::error(401, "Requires authentication"));
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(kind, _)| ["bearer", "token"].iter().any(|k| kind.eq_ignore_ascii_case(k)));
    match token {
        Some((_, token)) => app.with(|server, now| server.caller(token.trim(), app.token.expose_secret(), now)),
        None => Err(Answer::error(401, "Bad credentials")),
    }
}

fn call(
    endpoint: Endpoint,
    caller: Caller,
    params: &HashMap<String, String>,
    path: String,
    query: HashMap<String, String>,
    body: Bytes,
) -> Option<Call> {
    let lower = |key: &str| params.get(key).map(|value| value.to_lowercase());
    let scope = match (
        lower("org").or_else(|| lower("user")),
        lower("enterprise"),
        lower("owner"),
        lower("repo"),
    ) {
        (Some(org), ..) => Some(Scope::Organization(org)),
        (_, Some(slug), ..) => Some(Scope::Enterprise(slug)),
        (.., Some(owner), Some(repo)) => Some(Scope::Repository(owner, repo)),
        _ => None,
    };
    let id = match params.get("id") {
        Some(id) => Some(id.parse().ok()?),
        None => None,
    };
    Some(Call {
        endpoint,
        caller,
        scope,
        id,
        path,
        query,
        body,
    })
}

fn respond(answer: Answer, version: &str) -> Response {
    let mut response =
        Response::builder().status(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    response = response
        .header("x-github-enterprise-version", version)
        .header("x-github-media-type", "github.v3; format=json");
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let body = match answer.body {
        Some(body) => {
            response = response.header(CONTENT_TYPE, "application/json; charset=utf-8");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    // Refused only when a fault's message makes no header, and none does.
    response.body(body).unwrap_or_default()
}
