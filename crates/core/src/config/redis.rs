//! Where Redis is.

use std::path::PathBuf;

use super::{Problems, Secret};

/// Redis.
#[derive(Clone, Debug, clap::Args)]
pub struct RedisArgs {
    /// redis:// or rediss:// URL; the password is better given as REDIS_PASSWORD
    #[arg(long, env, default_value = "redis://redis:6379/0", hide_env_values = true)]
    pub redis_url: String,
    /// File that holds Redis's password (or REDIS_PASSWORD in the environment)
    #[arg(long, env)]
    pub redis_password_file: Option<PathBuf>,
}

/// Where Redis is, checked.
#[derive(Clone)]
pub struct RedisSettings {
    /// Scheme, host, port, database; may hold a password, so it has no `Debug` of its own.
    pub url: String,
    /// Password, where it is given apart from the URL.
    pub password: Option<Secret>,
}

impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// Host and port, for people: nothing secret.
    #[must_use]
    pub fn address(&self) -> String {
        url::Url::parse(&self.url).ok().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or(6379)))).unwrap_or_default()
    }
}

impl RedisArgs {
    /// Checks the URL.
    pub fn resolve(&self, problems: &mut Problems) -> RedisSettings {
        match url::Url::parse(&self.redis_url) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss" | "unix" | "redis+unix") => {}
            Ok(url) => problems.add(format!("REDIS_URL: scheme {:?} is not known; use redis:// or rediss://", url.scheme())),
            Err(error) => problems.add(format!("REDIS_URL: {error}; write for example redis://redis:6379/0")),
        }
        RedisSettings { url: self.redis_url.clone(), password: Secret::resolve("REDIS_PASSWORD", self.redis_password_file.as_deref(), problems) }
    }
}
