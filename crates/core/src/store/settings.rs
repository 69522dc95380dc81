//! Where Redis is, who we are to it, and how much of it is taken on trust.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Generation, Topology};
use crate::config::{Problems, Secret, given};

/// Redis.
#[derive(Clone, Debug, clap::Args)]
pub struct RedisArgs {
    /// redis://host:6379/0, rediss:// for TLS, redis+sentinel://host1:26379,host2:26379/mymaster/0 or
    /// rediss+sentinel:// for a Sentinel group; the password is better given as REDIS_PASSWORD
    #[arg(long, env, default_value = "redis://redis:6379/0", hide_env_values = true)]
    pub redis_url: String,
    /// Redis's user (ACL), where it is not in the URL
    #[arg(long, env)]
    pub redis_username: Option<String>,
    /// File that holds Redis's password (or REDIS_PASSWORD in the environment); read for each new connection
    #[arg(long, env)]
    pub redis_password_file: Option<PathBuf>,
    /// The Sentinels' user (ACL), where they ask for one
    #[arg(long, env)]
    pub redis_sentinel_username: Option<String>,
    /// File that holds the Sentinels' password (or REDIS_SENTINEL_PASSWORD in the environment), where they ask for one
    #[arg(long, env)]
    pub redis_sentinel_password_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust for TLS, in place of the system's
    #[arg(long, env)]
    pub redis_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to a Redis that asks for one
    #[arg(long, env)]
    pub redis_client_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(long, env)]
    pub redis_client_key_file: Option<PathBuf>,
    /// true starts on a Redis whose maxmemory-policy is not noeviction: it may then throw away jobs
    #[arg(long, env, default_value = "false")]
    pub redis_may_evict: String,
    /// How often Redis's settings are looked at again
    #[arg(long, env, default_value = "5m")]
    pub redis_check_interval: String,
}

/// Files of TLS, read for each new connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificate authorities; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where Redis is, checked.
#[derive(Clone)]
pub struct RedisSettings {
    /// As it was given; may hold a password, so it has no `Debug` of its own.
    pub url: String,
    /// What the URL says.
    pub topology: Topology,
    /// User, where it is given apart from the URL.
    pub username: Option<String>,
    /// Password, where it is given apart from the URL.
    pub password: Option<Secret>,
    /// User at the Sentinels.
    pub sentinel_username: Option<String>,
    /// Password at the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Whether a Redis that evicts is taken.
    pub may_evict: bool,
    /// How often Redis's settings are looked at.
    pub check_interval: Duration,
    /// What the connections of this process know of the server.
    pub generation: Arc<Generation>,
}

impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// What a URL alone says, with the defaults for all else.
    ///
    /// # Errors
    /// A sentence that quotes nothing secret.
    pub fn of_url(url: &str) -> Result<Self, String> {
        Ok(Self {
            url: url.to_owned(),
            topology: Topology::parse(url)?,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            tls: TlsFiles::default(),
            may_evict: false,
            check_interval: Duration::from_secs(300),
            generation: Arc::default(),
        })
    }

    /// Host and port, or those of the Sentinels, for people: nothing secret.
    #[must_use]
    pub fn address(&self) -> String {
        self.topology.address()
    }
}

impl RedisArgs {
    /// Checks the URL, and that every file that is named is there.
    pub fn resolve(&self, problems: &mut Problems) -> RedisSettings {
        let settings = RedisSettings::of_url(&self.redis_url).or_else(|error| {
            problems.add(format!("REDIS_URL: {error}"));
            RedisSettings::of_url("redis://redis:6379/0")
        });
        let settings = settings.unwrap_or_else(|_| unreachable!("the default URL can be read"));
        let text = |given: &Option<String>| given.clone().filter(|text| !text.is_empty());
        let settings = RedisSettings {
            username: text(&self.redis_username),
            password: Secret::resolve("REDIS_PASSWORD", self.redis_password_file.as_deref(), problems),
            sentinel_username: text(&self.redis_sentinel_username),
            sentinel_password: Secret::resolve(
                "REDIS_SENTINEL_PASSWORD",
                self.redis_sentinel_password_file.as_deref(),
                problems,
            ),
            tls: self.tls(problems),
            may_evict: problems.flag("REDIS_MAY_EVICT", &self.redis_may_evict),
            check_interval: problems.duration("REDIS_CHECK_INTERVAL", &self.redis_check_interval),
            ..settings
        };
        if !settings.topology.tls() && (settings.tls.ca.is_some() || settings.tls.client.is_some()) {
            problems.add(
                "REDIS_CA_FILE and REDIS_CLIENT_CERT_FILE are of use with TLS only: write rediss:// or \
             rediss+sentinel:// in REDIS_URL",
            );
        }
        settings
    }

    fn tls(&self, problems: &mut Problems) -> TlsFiles {
        let ca = given(self.redis_ca_file.as_ref());
        if let Some(path) = &ca {
            check_certificates(problems, "REDIS_CA_FILE", path);
        }
        let client = match (
            given(self.redis_client_cert_file.as_ref()),
            given(self.redis_client_key_file.as_ref()),
        ) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                check_certificates(problems, "REDIS_CLIENT_CERT_FILE", &cert);
                if let Err(error) = PrivateKeyDer::from_pem_file(&key) {
                    problems.add(format!(
                        "REDIS_CLIENT_KEY_FILE={}: no PEM private key can be read from it ({error})",
                        key.display()
                    ));
                }
                Some((cert, key))
            }
            _ => {
                problems.add("REDIS_CLIENT_CERT_FILE and REDIS_CLIENT_KEY_FILE go together: set both or none");
                None
            }
        };
        TlsFiles { ca, client }
    }
}

fn check_certificates(problems: &mut Problems, variable: &str, path: &Path) {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {}
        Ok(_) => problems.add(format!(
            "{variable}={}: there is no PEM certificate in it",
            path.display()
        )),
        Err(error) => problems.add(format!(
            "{variable}={}: no PEM certificates can be read from it ({error})",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        redis: RedisArgs,
    }

    #[test]
    fn everything_that_is_wrong_is_told_and_nothing_secret() {
        let flags = [
            "t",
            "--redis-url",
            "redis://:pw@h:1/0",
            "--redis-ca-file",
            "/none",
            "--redis-client-cert-file",
            "/none",
            "--redis-may-evict",
            "perhaps",
        ];
        let mut problems = Problems::default();
        let settings = Cli::parse_from(flags).redis.resolve(&mut problems);
        let told = problems.finish(()).expect_err("problems").to_string();
        for part in ["REDIS_CA_FILE", "REDIS_CLIENT_KEY_FILE", "rediss://", "REDIS_MAY_EVICT"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(!told.contains("pw") && !format!("{settings:?}").contains("pw"));
        assert_eq!(settings.address(), "h:1");
    }
}
