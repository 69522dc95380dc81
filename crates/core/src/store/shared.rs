//! One connection that many share: a command costs one round trip, and whoever comes while it is being made waits for
//! the same one.
//!
//! It does not notice by itself that its server vanished without a word; whoever gets an error or waits too long has it
//! replaced, which hurts nobody else, since whoever waits on the old one keeps it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value, aio::ConnectionLike};

use super::settings::RedisSettings;
use super::{RESPONSE_TIMEOUT, link::Link};

/// The shared connection. Cheap to clone. It connects when it is first used, and again after each failure.
#[derive(Clone)]
pub struct SharedConnection {
    settings: RedisSettings,
    current: Arc<Mutex<Current>>,
}

struct Current {
    number: u64,
    since: Instant,
    opening: Shared<BoxFuture<'static, RedisResult<Link>>>,
}

impl Current {
    fn new(number: u64, settings: &RedisSettings) -> Self {
        let settings = settings.clone();
        Self {
            number,
            since: Instant::now(),
            opening: async move { Link::open(&settings, RESPONSE_TIMEOUT).await }
                .boxed()
                .shared(),
        }
    }
}

impl SharedConnection {
    pub(super) fn new(settings: &RedisSettings) -> Self {
        Self {
            settings: settings.clone(),
            current: Arc::new(Mutex::new(Current::new(0, settings))),
        }
    }

    /// Replaces the connection if it is older than `age`: for whoever got no answer from it.
    pub fn replace_older_than(&self, age: Duration) {
        let mut current = self.lock();
        if current.since.elapsed() > age {
            *current = Current::new(current.number + 1, &self.settings);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, or a new one where it failed or its server is known to be gone.
    async fn link(&self) -> RedisResult<Link> {
        let (number, opening) = {
            let mut current = self.lock();
            if matches!(current.opening.peek(), Some(Ok(link)) if !link.is_good()) {
                *current = Current::new(current.number + 1, &self.settings);
            }
            (current.number, current.opening.clone())
        };
        opening.await.inspect_err(|_| {
            let mut current = self.lock();
            // Unless somebody has done so.
            if current.number == number {
                *current = Current::new(number + 1, &self.settings);
            }
        })
    }
}

impl ConnectionLike for SharedConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move { self.link().await?.req_packed_command(cmd).await })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move { self.link().await?.req_packed_commands(pipeline, offset, count).await })
    }

    fn get_db(&self) -> i64 {
        self.settings.topology.database()
    }
}
