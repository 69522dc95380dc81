//! Connections to Redis, of three kinds: a pool for the ledger, one shared connection for publishing, one of its own
//! for each blocking reader.
//!
//! All three are made by `Link::open`, for a plain server, for TLS and for a Sentinel group alike: with our time-outs,
//! with the password as its file has it now, and, by Sentinel, only to a server that calls itself a master. A failover,
//! a rotation of the password or a restart therefore costs a few failed calls, and no restart of ours.
//!
//! The rooms: `address` reads `REDIS_URL`; `settings` who we are to it; `dial` makes one connection, `link` watches
//! over it, `generation` is the news that all of a process share; `sentinel` finds the master; `pool` and `shared` keep
//! connections; `error` says what an error means; `check` looks whether this Redis keeps what it is given; `rights`
//! says what its user has to be allowed, and keeps a script from ending in its middle.

use std::time::Duration;

use redis::RedisResult;

pub mod address;
pub mod check;
mod dial;
pub mod error;
mod generation;
pub mod link;
pub mod pool;
pub mod rights;
mod sentinel;
mod settings;
pub mod shared;

pub use address::{Sentinels, Topology};
pub use generation::Generation;
pub use link::Link;
pub use pool::{Connection, Pool, PoolError, pool};
pub use settings::{RedisArgs, RedisSettings, TlsFiles};
pub use shared::SharedConnection;

/// A connection has to come up within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A command or script has to answer within this time. The longest script, a reconcile of 10,000 runners, takes tenths
/// of a second.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The publishing connection: shared by all requests, replaced when it fails, made when it is first used.
#[must_use]
pub fn publisher(settings: &RedisSettings) -> SharedConnection {
    SharedConnection::new(settings)
}

/// A connection for one blocking reader, whose answers may take `block` longer than others.
///
/// # Errors
/// When Redis cannot be reached.
pub async fn reader(settings: &RedisSettings, block: Duration) -> RedisResult<Link> {
    Link::open(settings, block + CONNECT_TIMEOUT).await
}
