//! One connection, and what the connections of a process tell each other: which server is the master, and that it is
//! gone.
//!
//! Invariant: a connection that saw its server vanish, fall silent or turn into a replica is not used again, nor is any
//! that is older than this news. So no part of a process goes on writing to a server that another part knows to be
//! replaced.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret;

use super::{CONNECT_TIMEOUT, Topology, error::wants_another_connection, sentinel};
use crate::config::{RedisSettings, Secret, TlsFiles};

/// Counts the generations of connections. News that a server is gone ends one; its connections are thrown away at their
/// next use.
#[derive(Debug, Default)]
pub struct Generation {
    number: AtomicU64,
    master: Mutex<Option<(String, u16)>>,
}

impl Generation {
    fn current(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Ends this generation, unless somebody has done so.
    fn end(&self, number: u64) {
        let _ = self
            .number
            .compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sentinel names this master; connections to another one are of the past.
    pub(super) fn learn(&self, address: &(String, u16)) {
        let mut known = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(address)
            && let Some(old) = known.replace(address.clone())
        {
            tracing::warn!(
                from = format!("{}:{}", old.0, old.1),
                to = format!("{}:{}", address.0, address.1),
                "Sentinel names another master"
            );
            self.number.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A connection to the server that holds the data.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    generation: Arc<Generation>,
    of: u64,
    /// By Sentinel: its server has to be a master.
    named: bool,
}

impl Link {
    /// Connects, with the credentials as they are now.
    pub(super) async fn open(settings: &RedisSettings, response_timeout: Duration) -> RedisResult<Self> {
        let generation = settings.generation.clone();
        let before = generation.current();
        let (connection, of, named) = match &settings.topology {
            Topology::Server(info) => {
                let redis = with_credentials(
                    info.redis_settings().clone(),
                    settings.username.as_deref(),
                    settings.password.as_ref(),
                );
                let connection = dial(
                    info.addr().clone(),
                    redis,
                    &settings.tls,
                    CONNECT_TIMEOUT,
                    response_timeout,
                )
                .await;
                (connection?, before, false)
            }
            // Which master this is was learned on the way.
            Topology::Sentinel(sentinels) => (
                sentinel::connect(settings, sentinels, response_timeout).await?,
                generation.current(),
                true,
            ),
        };
        Ok(Self {
            connection,
            generation,
            of,
            named,
        })
    }

    /// Whether it can be used, as far as anybody of this process knows.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.of == self.generation.current()
    }

    /// Asks its server: it answers and, where Sentinel named it, is still a master.
    pub(super) async fn prove(&mut self) -> RedisResult<()> {
        let named = self.named;
        let ask = async {
            if named {
                require_master(self).await
            } else {
                redis::cmd("PING").exec_async(self).await
            }
        };
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, ask).await;
        answer
            .unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "Redis is silent"))))
            .inspect_err(|_| self.give_up())
    }

    fn give_up(&self) {
        self.generation.end(self.of);
    }

    fn note<'a>(&self, values: impl IntoIterator<Item = &'a Value>) {
        let answered = |value: &Value| matches!(value, Value::ServerError(error) if wants_another_connection(&error.clone().into()));
        if values.into_iter().any(answered) {
            self.give_up();
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let result = self.connection.req_packed_command(cmd).await;
            match &result {
                Ok(value) => self.note([value]),
                Err(error) if wants_another_connection(error) => self.give_up(),
                Err(_) => {}
            }
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let result = self.connection.req_packed_commands(pipeline, offset, count).await;
            match &result {
                Ok(values) => self.note(values),
                Err(error) if wants_another_connection(error) => self.give_up(),
                Err(_) => {}
            }
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

/// User and password of the URL, overruled by those that are given apart. A password file is looked at anew.
pub(super) fn with_credentials(
    redis: RedisConnectionInfo,
    username: Option<&str>,
    password: Option<&Secret>,
) -> RedisConnectionInfo {
    let redis = match username {
        Some(username) => redis.set_username(username),
        None => redis,
    };
    match password {
        Some(password) => redis.set_password(password.get().expose_secret()),
        None => redis,
    }
}

/// Connects to one address.
pub(super) async fn dial(
    address: ConnectionAddr,
    redis: RedisConnectionInfo,
    tls: &TlsFiles,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let encrypted = matches!(address, ConnectionAddr::TcpTls { .. });
    // Small commands share a connection: none waits for the acknowledgement of the one before.
    let info = address
        .into_connection_info()?
        .set_redis_settings(redis)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = if encrypted {
        Client::build_with_tls(info, certificates(tls)?)?
    } else {
        Client::open(info)?
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(response_timeout));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Certificates as they are now: those of a cluster are renewed while we run.
fn certificates(files: &TlsFiles) -> RedisResult<TlsCertificates> {
    let read = |variable: &'static str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            RedisError::from((
                ErrorKind::InvalidClientConfig,
                variable,
                format!("{}: {error}", path.display()),
            ))
        })
    };
    let root_cert = files
        .ca
        .as_deref()
        .map(|path| read("REDIS_CA_FILE", path))
        .transpose()?;
    let client_tls = match &files.client {
        Some((cert, key)) => Some(ClientTlsConfig {
            client_cert: read("REDIS_CLIENT_CERT_FILE", cert)?,
            client_key: read("REDIS_CLIENT_KEY_FILE", key)?,
        }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

/// Fails unless the server calls itself a master. One that does not let a user ask is believed.
pub(super) async fn require_master<C: ConnectionLike>(connection: &mut C) -> RedisResult<()> {
    match redis::cmd("ROLE").query_async::<Vec<Value>>(connection).await {
        Ok(role) => match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            _ => Err(RedisError::from((
                ErrorKind::Io,
                "the server that Sentinel names is not a master",
            ))),
        },
        Err(error) if error.code() == Some("NOPERM") => Ok(()),
        Err(error) => Err(error),
    }
}
