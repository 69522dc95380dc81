//! Connections to Redis, of three kinds: a pool for the ledger, one multiplexed connection for publishing, one of its own for each blocking reader.
//!
//! The pool checks a connection before it lends it out, so it survives `CLIENT KILL` and a restart, at the price of a second round trip;
//! the publishing connection has no such check, so a webhook costs one round trip.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::{Manager, Pool, Runtime};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult, aio::ConnectionManager, aio::ConnectionManagerConfig, aio::MultiplexedConnection};

use crate::{config::RedisSettings, ledger::LedgerError};

/// A connection has to come up within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A command or script has to answer within this time. The longest script, a reconcile of 10,000 runners, takes tenths of a second.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that one process keeps for the ledger.
const POOL_SIZE: usize = 8;

fn info(settings: &RedisSettings) -> RedisResult<redis::ConnectionInfo> {
    let info = settings.url.as_str().into_connection_info()?;
    Ok(match &settings.password {
        Some(password) => {
            let redis = info.redis_settings().clone().set_password(secrecy::ExposeSecret::expose_secret(&password.get()));
            info.set_redis_settings(redis)
        }
        None => info,
    })
}

/// The ledger's pool. It connects when it is first used.
///
/// # Errors
/// When the URL cannot be read.
pub fn pool(settings: &RedisSettings) -> anyhow::Result<Pool> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(RESPONSE_TIMEOUT));
    let manager = Manager::new_with_config(info(settings)?, config)?;
    Ok(Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(RESPONSE_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()?)
}

/// The publishing connection: shared by all requests, reconnects by itself, connects when it is first used.
///
/// # Errors
/// When the URL cannot be read.
pub fn publisher(settings: &RedisSettings) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_lazy_with_config(Client::open(info(settings)?)?, config)
}

/// What about this Redis endangers the data, a sentence each: an eviction policy, no append-only file, what the Python system left.
/// A server that does not let its configuration be read is not asked further.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn dangers(pool: &Pool) -> Result<Vec<String>, LedgerError> {
    let mut connection = pool.get().await?;
    let mut dangers = Vec::new();
    let celery: bool = redis::AsyncCommands::exists(&mut connection, &["_kombu.binding.celery"]).await?;
    if celery {
        dangers.push("this Redis holds the queues of a Celery system: give this one a Redis or a database of its own".to_owned());
    }
    let setting: RedisResult<HashMap<String, String>> = redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut connection).await;
    let Ok(mut settings) = setting else { return Ok(dangers) };
    settings.extend(redis::cmd("CONFIG").arg("GET").arg("appendonly").query_async::<HashMap<String, String>>(&mut connection).await?);
    if let Some(policy) = settings.get("maxmemory-policy").filter(|policy| *policy != "noeviction") {
        dangers.push(format!("maxmemory-policy is {policy}: Redis may throw away jobs when it is full; set it to noeviction"));
    }
    if settings.get("appendonly").is_some_and(|on| on != "yes") {
        dangers.push("appendonly is off: a restart of Redis loses accepted jobs; set it to yes".to_owned());
    }
    Ok(dangers)
}

/// A connection for one blocking reader, whose answers may take `block` longer than others.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn reader(settings: &RedisSettings, block: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(block + CONNECT_TIMEOUT));
    Client::open(info(settings)?)?.get_multiplexed_async_connection_with_config(&config).await
}
