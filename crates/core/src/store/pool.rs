//! The ledger's pool: a connection is proved before it is lent out, so it survives `CLIENT KILL`, a restart and a
//! failover, at the price of a second round trip.

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, RecycleError, RecycleResult},
};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio::ConnectionLike};

use super::settings::RedisSettings;
use super::{RESPONSE_TIMEOUT, link::Link};

/// Connections that one process keeps for the ledger.
const POOL_SIZE: usize = 8;

/// The pool. Cheap to clone.
pub type Pool = managed::Pool<Manager, Connection>;
/// Why there was no connection.
pub type PoolError = managed::PoolError<RedisError>;

/// Makes the pool's connections and proves them.
#[derive(Debug)]
pub struct Manager {
    settings: RedisSettings,
}

impl managed::Manager for Manager {
    type Type = Link;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Link> {
        Link::open(&self.settings, RESPONSE_TIMEOUT).await
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<RedisError> {
        if !link.is_good() {
            return Err(RecycleError::message("its server is gone, or not the master any more"));
        }
        Ok(link.prove().await?)
    }
}

/// A connection of the pool, until it is dropped.
pub struct Connection(Object<Manager>);

impl From<Object<Manager>> for Connection {
    fn from(object: Object<Manager>) -> Self {
        Self(object)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.0.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// The ledger's pool. It connects when it is first used.
///
/// # Errors
/// Never, in effect: the settings have been checked.
pub fn pool(settings: &RedisSettings) -> anyhow::Result<Pool> {
    Ok(Pool::builder(Manager {
        settings: settings.clone(),
    })
    .max_size(POOL_SIZE)
    .wait_timeout(Some(RESPONSE_TIMEOUT))
    .create_timeout(Some(RESPONSE_TIMEOUT))
    .runtime(Runtime::Tokio1)
    .build()?)
}
