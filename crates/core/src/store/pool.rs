//! The ledger's pool. A connection is proved before it is lent out: its server answered a moment ago, or is asked. One
//! that was cut since then is replaced at its first use, so a `CLIENT KILL`, a restart or a failover costs no
//! transition.

use std::time::Duration;

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, RecycleError, RecycleResult},
};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio::ConnectionLike};

use super::settings::RedisSettings;
use super::{RESPONSE_TIMEOUT, link::Link};

/// Connections that one process keeps for the ledger.
const POOL_SIZE: usize = 8;
/// A connection whose server has answered within this time is lent out without a question, which would be a round trip
/// for each transition. Shorter than what a firewall takes to drop an idle connection without a word.
const TRUSTED: Duration = Duration::from_secs(5);

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
        if link.has_answered_within(TRUSTED) {
            return Ok(());
        }
        Ok(link.prove().await?)
    }
}

/// A connection of the pool, until it is dropped.
pub struct Connection {
    link: Object<Manager>,
    /// Nothing has been sent since it was lent out.
    unused: bool,
}

impl From<Object<Manager>> for Connection {
    fn from(link: Object<Manager>) -> Self {
        Self { link, unused: true }
    }
}

impl Connection {
    /// Whether its first use shows that it was cut while it lay in the pool. Then the same is sent once more, over
    /// another connection. Redis may have run it and been cut before it answered; that is as with a caller that tries
    /// again after an error: each transition is idempotent.
    fn was_cut<T>(&mut self, result: &RedisResult<T>) -> bool {
        let first = std::mem::take(&mut self.unused);
        first && matches!(result, Err(error) if error.is_connection_dropped())
    }

    async fn renew(&mut self) -> RedisResult<()> {
        if let Some(pool) = Object::pool(&self.link) {
            *self.link = managed::Manager::create(pool.manager()).await?;
        }
        Ok(())
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let result = self.link.req_packed_command(cmd).await;
            if !self.was_cut(&result) {
                return result;
            }
            self.renew().await?;
            self.link.req_packed_command(cmd).await
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let result = self.link.req_packed_commands(pipeline, offset, count).await;
            if !self.was_cut(&result) {
                return result;
            }
            self.renew().await?;
            self.link.req_packed_commands(pipeline, offset, count).await
        })
    }

    fn get_db(&self) -> i64 {
        self.link.get_db()
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
