//! Making one connection to one address.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret;

use super::settings::TlsFiles;
use crate::config::Secret;

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
