//! Who may use the admin API: whoever knows `ADMIN_API_KEY`.
//!
//! A wrong key is answered late, and few of them at once, so that guessing is slow; right ones do not wait for that.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{app::App, config::AdminAccess, errors::ApiError};

/// Lets a request with the right key pass.
pub async fn require(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let key = match &app.settings.admin {
        AdminAccess::Open => return next.run(request).await,
        AdminAccess::Disabled => {
            let detail = "the admin API is off: set ADMIN_API_KEY (or ADMIN_API_KEY_FILE) and send it as X-Admin-Key";
            return ApiError::new(StatusCode::FORBIDDEN, "admin_disabled", detail).into_response();
        }
        AdminAccess::Key(key) => key,
    };
    if key.secret().is_none() {
        let detail = "the file of ADMIN_API_KEY is empty or gone: nobody is let in until it holds the key again";
        return ApiError::no_secret("no_key", detail).into_response();
    }
    let mut given = request.headers().get_all("x-admin-key").iter();
    match (given.next(), given.next()) {
        (Some(given), None) if key.is(given.as_bytes()) => next.run(request).await,
        (None, _) => ApiError::new(StatusCode::UNAUTHORIZED, "missing_key", "X-Admin-Key is missing").into_response(),
        _ => {
            let _turn = app.wrong_keys.acquire().await;
            tokio::time::sleep(app.settings.timeouts.wrong_key).await;
            ApiError::new(StatusCode::FORBIDDEN, "wrong_key", "X-Admin-Key is wrong").into_response()
        }
    }
}
