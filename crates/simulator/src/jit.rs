//! The JIT configuration: what `generate-jitconfig` hands out and a runner is started with.
//!
//! As on GitHub it is base64 of a JSON object whose values are base64 of the files that a runner keeps
//! (`.runner`, `.credentials`, `.credentials_rsaparams`); it names the server and holds a secret, so whoever has it can
//! run one job. Nothing but the simulator looks inside.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use thiserror::Error;

/// What a runner learns from its JIT configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct JitConfig {
    /// Base URL of the server, without a slash at its end.
    pub server_url: String,
    /// Id of the registration.
    pub runner_id: u64,
    /// Name of the runner.
    pub name: String,
    /// What proves to the server that this is the runner it registered.
    pub secret: String,
}

impl fmt::Debug for JitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitConfig")
            .field("runner_id", &self.runner_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A JIT configuration that cannot be read; the text itself is never repeated.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a JIT configuration of the simulator: {0}")]
pub struct JitError(&'static str);

impl JitConfig {
    /// The text that GitHub calls `encoded_jit_config`. `filler` stands for the RSA key of a real one, which gives it
    /// its size.
    pub fn encode(&self, filler: &str) -> String {
        let file = |value: Value| STANDARD.encode(value.to_string());
        let runner = json!({
            "AgentId": self.runner_id.to_string(), "AgentName": self.name, "PoolId": "1", "PoolName": "Default",
            "Ephemeral": "True",
            "DisableUpdate": "True", "ServerUrl": self.server_url, "GitHubUrl": self.server_url, "WorkFolder": "_work",
        });
        let credentials = json!({
            "Scheme": "OAuth",
            "Data": { "ClientId": self.runner_id.to_string(),
            "AuthorizationUrl": format!("{}/_services/vstoken", self.server_url), "Secret": self.secret },
        });
        let files = json!({ ".runner": file(runner), ".credentials": file(credentials),
            ".credentials_rsaparams": file(json!({ "d": filler })) });
        STANDARD.encode(files.to_string())
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`JitError`] names the part that is missing or not base64 of JSON.
    pub fn decode(encoded: &str) -> Result<Self, JitError> {
        let files = object(encoded.trim(), "the whole")?;
        let part = |name: &str| object(files.get(name).and_then(Value::as_str).unwrap_or_default(), "a file");
        let (runner, credentials) = (part(".runner")?, part(".credentials")?);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            server_url: text(&runner["ServerUrl"]).ok_or(JitError("ServerUrl"))?,
            runner_id: runner["AgentId"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .ok_or(JitError("AgentId"))?,
            name: text(&runner["AgentName"]).ok_or(JitError("AgentName"))?,
            secret: text(&credentials["Data"]["Secret"]).ok_or(JitError("Secret"))?,
        })
    }
}

fn object(encoded: &str, what: &'static str) -> Result<Value, JitError> {
    let bytes = STANDARD.decode(encoded).map_err(|_| JitError(what))?;
    serde_json::from_slice(&bytes).map_err(|_| JitError(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_no_secret_in_debug() {
        let config = JitConfig {
            server_url: "http://127.0.0.1:1".into(),
            runner_id: 7,
            name: "a-7".into(),
            secret: "s3cret".into(),
        };
        let encoded = config.encode("filler");
        assert_eq!(JitConfig::decode(&encoded).unwrap(), config);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(JitConfig::decode("e30=").is_err());
        assert!(JitConfig::decode("not base64!").is_err());
    }
}
