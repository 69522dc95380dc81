//! A REST answer: status, headers, JSON, with GitHub's own words for what goes wrong.

use serde_json::{Value, json};

/// An answer to a REST call.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, or nothing for a 204.
    pub body: Option<Value>,
    /// Headers beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
}

/// Where GitHub's errors point.
const DOCS: &str = "https://docs.github.com/enterprise-server@3.14/rest";

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            headers: Vec::new(),
        }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self {
            status: 204,
            body: None,
            headers: Vec::new(),
        }
    }

    /// An error as GitHub writes it: `message`, `documentation_url`, `status`.
    pub fn error(status: u16, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self::json(
            status,
            json!({ "message": message, "documentation_url": DOCS, "status": status.to_string() }),
        )
    }

    /// 404, also for what the caller may not see.
    pub fn not_found() -> Self {
        Self::error(404, "Not Found")
    }

    /// 422 of GitHub's schema check.
    pub fn invalid(what: &str) -> Self {
        Self::error(422, format!("Invalid request.\n\n{what}"))
    }

    /// What GitHub says with this status when nothing else is known.
    pub fn refused(status: u16, rate_limit: bool) -> Self {
        Self::error(
            status,
            match (status, rate_limit) {
                (403, true) => "API rate limit exceeded for user ID 1.",
                (429, _) | (_, true) => {
                    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
                }
                (401, _) => "Bad credentials",
                (403, _) => "Resource not accessible by personal access token",
                (404, _) => "Not Found",
                (409, _) => "Already exists - A runner with the name *** already exists.",
                (422, _) => "Validation Failed",
                (502, _) => "Server Error",
                (503, _) => "Service unavailable",
                _ => "Internal Server Error",
            },
        )
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}
