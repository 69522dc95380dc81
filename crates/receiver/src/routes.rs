//! Which request goes where, and what stands before it.
//!
//! Webhooks, probes, readers and operators do not share what could run out: a webhook takes its place only once it is
//! verified, probes take none, and status, metrics and admin requests share the readers' lane. What no route answers is
//! JSON too.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Method, Request, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use tokio::time::{Instant, timeout};

use crate::{
    admin::{dead_letters, key, limits, lists, orders},
    app::App,
    connections::Connection,
    errors::ApiError,
    names::shown,
    status, webhook,
};

/// The routes of the listener for probes alone.
pub fn probes(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .fallback(async || ApiError::not_found("only /health and /ready are served here"))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        .with_state(app)
}

/// All of the receiver's routes.
pub fn router(app: Arc<App>) -> Router {
    let limits_of_one = get(limits::one).put(limits::set_one).delete(limits::drop_one);
    let admin = Router::new()
        .route("/admin/org-limits", get(limits::all).put(limits::set_many))
        .route("/admin/org-limits/reload", post(limits::reload))
        // An organization named reload cannot be reached here; under /admin/orgs no name can collide with a route.
        .route("/admin/org-limits/{org}", limits_of_one.clone())
        .route("/admin/org-limits/{org}/{repo}", limits_of_one.clone())
        .route("/admin/orgs/{org}/limit", limits_of_one.clone())
        .route("/admin/orgs/{org}/{repo}/limit", limits_of_one)
        .route("/admin/orgs/{org}/pause", post(orders::pause))
        .route("/admin/orgs/{org}/{repo}/pause", post(orders::pause))
        .route("/admin/orgs/{org}/resume", post(orders::resume))
        .route("/admin/orgs/{org}/{repo}/resume", post(orders::resume))
        .route("/admin/jobs", get(lists::jobs))
        .route("/admin/jobs/{id}/retry", post(orders::retry))
        .route("/admin/runners", get(lists::runners))
        .route("/admin/runners/{name}", delete(orders::remove_runner))
        .route("/admin/dead-letters", get(dead_letters::list))
        .route(
            "/admin/dead-letters/{id}",
            get(dead_letters::one).delete(dead_letters::remove),
        )
        .route("/admin/dead-letters/{id}/requeue", post(dead_letters::requeue))
        .route("/admin/reconcile", post(orders::reconcile))
        .route_layer(middleware::from_fn_with_state(app.clone(), in_lane))
        .route_layer(middleware::from_fn_with_state(app.clone(), key::require));
    let readers = Router::new()
        .route("/metrics", get(status::metrics))
        .route("/orgs/{org}/status", get(status::org))
        .route("/orgs/{org}/{repo}/status", get(status::org))
        .route("/jobs/{id}", get(status::job))
        .route_layer(middleware::from_fn_with_state(app.clone(), in_lane))
        .route_layer(middleware::from_fn_with_state(app.clone(), may_read));
    // Some set the address at GitHub with a slash at its end.
    let webhooks = Router::new()
        .route("/webhook", post(webhook::receive))
        .route("/webhook/", post(webhook::receive));
    Router::new()
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/webhook/test", get(status::webhook_test))
        .merge(readers)
        .merge(admin)
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        // Keeps its own time and log.
        .merge(webhooks.method_not_allowed_fallback(wrong_method))
        .with_state(app)
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path takes other methods: see Allow",
    )
}

/// Whoever may read: not too often, and with the key where the configuration asks for it.
async fn may_read(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    if app.settings.reads_need_key {
        return key::require(State(app), request, next).await;
    }
    let peer = request
        .extensions()
        .get::<Arc<Connection>>()
        .map(|connection| connection.peer());
    if peer.is_some_and(|peer| !app.settings.connections.trusts(peer) && !app.reads.allows(peer)) {
        return ApiError::too_often().into_response();
    }
    next.run(request).await
}

/// Turns away what comes on top of the readers at work.
async fn in_lane(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    match app.readers.enter() {
        Ok(_place) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Bounds a request's time, and logs it in one line.
async fn in_time(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = timeout(app.settings.timeouts.request, next.run(request))
        .await
        .unwrap_or_else(|_| ApiError::timed_out().into_response());
    log(&method, &path, response.status(), started);
    response
}

fn log(method: &Method, path: &str, status: StatusCode, started: Instant) {
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (method, path, status) = (shown(method.as_str(), 16), shown(path, 120), status.as_u16());
    if status >= 400 {
        tracing::warn!(
            http.method = method,
            http.path = path,
            http.status = status,
            duration_ms,
            "request refused"
        );
    } else if matches!(path.as_str(), "/health" | "/ready" | "/metrics") {
        // Kubelets and Prometheus ask every few seconds.
        tracing::debug!(
            http.method = method,
            http.path = path,
            http.status = status,
            duration_ms,
            "request"
        );
    } else {
        tracing::info!(
            http.method = method,
            http.path = path,
            http.status = status,
            duration_ms,
            "request"
        );
    }
}
