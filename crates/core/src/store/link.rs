//! One connection to the server that holds the data.
//!
//! Invariant: a connection that saw its server vanish, fall silent or turn into a replica is not used again, nor is any
//! that is older than this news. So no part of a process goes on writing to a server that another part knows to be
//! replaced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::{
    CONNECT_TIMEOUT, Generation, RedisSettings, Topology,
    dial::{dial, require_master, with_credentials},
    error::wants_another_connection,
    sentinel,
};

/// A connection to the server that holds the data.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    generation: Arc<Generation>,
    of: u64,
    /// By Sentinel: its server has to be a master.
    named: bool,
    /// When its server last answered.
    answered: Instant,
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
            answered: Instant::now(),
        })
    }

    /// Whether it can be used, as far as anybody of this process knows.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.of == self.generation.current()
    }

    /// Whether its server has answered within this time, and need not be a master.
    pub(super) fn has_answered_within(&self, time: Duration) -> bool {
        !self.named && self.answered.elapsed() < time
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

    fn note<'a>(&mut self, values: impl IntoIterator<Item = &'a Value>) {
        self.answered = Instant::now();
        let answered = |value: &Value| {
            matches!(value,
            Value::ServerError(error) if wants_another_connection(&error.clone().into()))
        };
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
