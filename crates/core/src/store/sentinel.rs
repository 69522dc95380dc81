//! Finds the master of a Sentinel group.
//!
//! All Sentinels are asked at once. Of those that answer in time, the one whose configuration is the newest is believed
//! first: one that was cut off still names the old master. And the server that is named has to call itself a master, or
//! the next answer is tried.

use std::{cmp::Reverse, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use redis::{ConnectionAddr, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, aio::MultiplexedConnection};

use super::settings::RedisSettings;
use super::{
    CONNECT_TIMEOUT, Sentinels,
    dial::{dial, require_master, with_credentials},
};

/// A Sentinel has to connect, and to answer, within this time.
const ASK: Duration = Duration::from_secs(1);
/// After the first answer the others are waited for so long.
const OTHERS: Duration = Duration::from_millis(200);

/// What one Sentinel says: the epoch of its configuration, and the master's address.
type Said = (u64, (String, u16));

/// A connection to the master.
pub(super) async fn connect(
    settings: &RedisSettings,
    sentinels: &Sentinels,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let (said, mut failures) = ask_all(settings, sentinels).await;
    for address in said {
        let redis = with_credentials(
            sentinels.redis.clone(),
            settings.username.as_deref(),
            settings.password.as_ref(),
        );
        let connected = async {
            let mut connection = dial(
                at(&address, sentinels.tls),
                redis,
                &settings.tls,
                CONNECT_TIMEOUT,
                response_timeout,
            )
            .await?;
            tokio::time::timeout(CONNECT_TIMEOUT, require_master(&mut connection))
                .await
                .map_err(|_| RedisError::from((ErrorKind::Io, "silent")))??;
            Ok::<_, RedisError>(connection)
        };
        match connected.await {
            Ok(connection) => {
                settings.generation.learn(&address);
                return Ok(connection);
            }
            Err(error) => failures.push(format!("{}:{}: {error}", address.0, address.1)),
        }
    }
    Err(RedisError::from((
        ErrorKind::Io,
        "no master is to be had",
        failures.join("; "),
    )))
}

/// The addresses that are named, newest configuration first, and what went wrong.
async fn ask_all(settings: &RedisSettings, sentinels: &Sentinels) -> (Vec<(String, u16)>, Vec<String>) {
    let (mut said, mut failures): (Vec<Said>, Vec<String>) = Default::default();
    let mut asking: FuturesUnordered<_> = sentinels
        .nodes
        .iter()
        .map(async |node| (node, ask(settings, sentinels, node).await))
        .collect();
    let mut others = None;
    loop {
        let next = match others {
            None => asking.next().await,
            Some(until) => tokio::time::timeout_at(until, asking.next()).await.ok().flatten(),
        };
        match next {
            Some((_, Ok(answer))) => {
                said.push(answer);
                others.get_or_insert_with(|| tokio::time::Instant::now() + OTHERS);
            }
            Some((node, Err(error))) => failures.push(format!("Sentinel {}:{}: {error}", node.0, node.1)),
            None => break,
        }
    }
    said.sort_by_key(|(epoch, _)| Reverse(*epoch));
    let mut addresses: Vec<_> = said.into_iter().map(|(_, address)| address).collect();
    addresses.dedup();
    (addresses, failures)
}

async fn ask(settings: &RedisSettings, sentinels: &Sentinels, node: &(String, u16)) -> RedisResult<Said> {
    let redis = with_credentials(
        RedisConnectionInfo::default(),
        settings.sentinel_username.as_deref(),
        settings.sentinel_password.as_ref(),
    );
    let mut connection = dial(at(node, sentinels.tls), redis, &settings.tls, ASK, ASK).await?;
    let address: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(&sentinels.master)
        .query_async(&mut connection)
        .await?;
    let missing = || {
        RedisError::from((
            ErrorKind::MasterNameNotFoundBySentinel,
            "it knows no master of this name",
            sentinels.master.clone(),
        ))
    };
    let address = address.ok_or_else(missing)?;
    // A Sentinel that does not let a user ask for more is believed last.
    let state: RedisResult<std::collections::HashMap<String, String>> = redis::cmd("SENTINEL")
        .arg("master")
        .arg(&sentinels.master)
        .query_async(&mut connection)
        .await;
    let epoch = state
        .ok()
        .and_then(|state| state.get("config-epoch")?.parse().ok())
        .unwrap_or(0);
    Ok((epoch, address))
}

fn at(address: &(String, u16), tls: bool) -> ConnectionAddr {
    let (host, port) = address.clone();
    if tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}
