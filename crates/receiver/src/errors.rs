//! What a refused request is told: a status, `{"error", "detail"}`, and when to come again. Never an internal text.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jit_core::{ledger::LedgerError, names::shown};
use serde_json::json;

/// Longest detail, in characters: it may quote what came from outside.
const DETAIL: usize = 300;
/// Redis is expected back after so many seconds.
const REDIS_RETRY: u16 = 5;
/// Workers have made room in a full backlog after so many seconds.
const BACKLOG_RETRY: u16 = 30;

/// A refusal.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// One word for machines.
    pub error: &'static str,
    /// One sentence for people.
    pub detail: Cow<'static, str>,
    retry_after: Option<u16>,
}

impl ApiError {
    /// A refusal with this status.
    #[must_use]
    pub fn new(status: StatusCode, error: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            error,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 422.
    #[must_use]
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {limit} bytes"),
        )
    }

    /// 503: Redis is away.
    #[must_use]
    pub fn redis_away() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Redis cannot be reached; try again",
        )
        .again_after(REDIS_RETRY)
    }

    /// 503: too many job events wait already.
    #[must_use]
    pub fn backlog_full() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "backlog_full",
            "too many job events wait for a worker; nothing was taken",
        )
        .again_after(BACKLOG_RETRY)
    }

    /// 503: too many requests are in hand already.
    #[must_use]
    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many requests at once; nothing was taken",
        )
        .again_after(1)
    }

    /// 503: what others have to prove themselves by is not there to compare with.
    #[must_use]
    pub fn no_secret(error: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, detail).again_after(BACKLOG_RETRY)
    }

    /// 429: the same sender has asked too often within a second.
    #[must_use]
    pub fn too_often() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_often",
            "too many reads within a second; an answer changes once a second at most",
        )
        .again_after(1)
    }

    /// 503: it took too long.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            "it took too long; it may have been done",
        )
        .again_after(REDIS_RETRY)
    }

    fn again_after(mut self, seconds: u16) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

/// The ledger's own words are for the log: they quote commands and addresses.
impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        tracing::warn!(%error, "the ledger did not answer");
        if error.is_transient() {
            return Self::redis_away();
        }
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger",
            "what stands in Redis cannot be worked with; the log says why",
        )
        .again_after(BACKLOG_RETRY)
    }
}

impl From<redis::RedisError> for ApiError {
    fn from(error: redis::RedisError) -> Self {
        LedgerError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "detail": shown(&self.detail, DETAIL) });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
