//! A blocking reader of one stream.

use std::time::Duration;

use redis::{
    RedisResult,
    streams::{StreamId, StreamReadReply},
};

use super::{
    Entry, GROUP, ensure_group,
    entry::{entries, present},
};
use crate::store::{self, Link, RedisSettings};

/// Reads one stream as one consumer, on a connection of its own.
///
/// After every connect it first reads what it holds already: an answer that was lost on the way stays in its pending
/// list. Do not drop a [`Reader::read`] that is under way and go on with the reader: what it was about to return would
/// be lost until a restart.
pub struct Reader {
    settings: RedisSettings,
    stream: &'static str,
    consumer: String,
    block: Duration,
    connection: Option<Link>,
    backlog_read: bool,
}

impl Reader {
    /// A reader that waits for new entries for at most `block` a call, and so notices a stop in that time.
    #[must_use]
    pub fn new(settings: RedisSettings, stream: &'static str, consumer: &str, block: Duration) -> Self {
        Self {
            settings,
            stream,
            consumer: consumer.to_owned(),
            block,
            connection: None,
            backlog_read: false,
        }
    }

    /// Up to `count` entries; none when none came in time.
    ///
    /// # Errors
    /// When Redis cannot be reached. The next call connects anew.
    pub async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        // Another part of this process may know that its server is gone, or not the master any more.
        if self.connection.as_ref().is_some_and(|link| !link.is_good()) {
            (self.connection, self.backlog_read) = (None, false);
        }
        let result = self.try_read(count).await;
        if result.is_err() {
            (self.connection, self.backlog_read) = (None, false);
        }
        result
    }

    async fn try_read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let mut connection = store::reader(&self.settings, self.block).await?;
                ensure_group(&mut connection, self.stream).await?;
                self.connection.insert(connection)
            }
        };
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(GROUP)
            .arg(&self.consumer)
            .arg("COUNT")
            .arg(count);
        if !self.backlog_read {
            let own = command
                .clone()
                .arg("STREAMS")
                .arg(self.stream)
                .arg("0")
                .query_async(connection)
                .await
                .map(|reply| present(ids(reply)))?;
            self.backlog_read = own.len() < count;
            if !own.is_empty() {
                return Ok(own);
            }
        }
        let block = u64::try_from(self.block.as_millis()).unwrap_or(1000);
        command
            .arg("BLOCK")
            .arg(block)
            .arg("STREAMS")
            .arg(self.stream)
            .arg(">")
            .query_async(connection)
            .await
            .map(|reply| entries(ids(reply)))
    }
}

fn ids(reply: Option<StreamReadReply>) -> impl Iterator<Item = StreamId> {
    reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids)
}
