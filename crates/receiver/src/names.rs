//! Organizations and jobs as they stand in a path. What a name may be is [`jit_core::names`]'s to say.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use jit_core::event::JobId;
use jit_core::names::owner;
pub use jit_core::names::{is_full_name, is_login, is_runner, shown};

use crate::errors::ApiError;

/// What limits are kept by: the login of an organization or a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgKey(pub String);

impl OrgKey {
    /// Takes a login, or `owner/repository`, which means its owner.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        owner(text).map(|login| Self(login.to_owned()))
    }
}

/// From the path: `{org}`, or `{org}/{repo}`.
impl<S: Send + Sync> FromRequestParts<S> for OrgKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("the path cannot be read"))?;
        // Each part is held against its own rule: `a%2Fb` in one place is not `a/b` in two.
        let part = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        let key = match (part("org"), part("repo")) {
            (Some(org), None) if is_login(org) => Self::parse(org),
            (Some(org), Some(repo)) if !repo.contains('/') => Self::parse(&format!("{org}/{repo}")),
            _ => None,
        };
        key.ok_or_else(|| {
            ApiError::bad_request("the path names no organization: letters, digits, - and _ only, or owner/repository")
        })
    }
}

/// A job's id, `{id}` of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobKey(pub JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let id = params
            .iter()
            .flatten()
            .find(|(key, _)| *key == "id")
            .and_then(|(_, value)| value.parse().ok());
        id.map(Self)
            .ok_or_else(|| ApiError::bad_request("the path names no job: a whole number from 1 to 2^63 - 1"))
    }
}
