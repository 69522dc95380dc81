//! A Sentinel group of a test's own.

use std::path::Path;

use jit_core::store::RedisSettings;

use crate::{
    eventually,
    redis::{RedisServer, free_port},
};

/// A master, two replicas and three Sentinels that take it for dead after half a second.
pub struct SentinelGroup {
    /// The master, as the group is started, and two replicas.
    pub servers: Vec<RedisServer>,
    /// The Sentinels.
    pub sentinels: Vec<RedisServer>,
    _dir: tempfile::TempDir,
}

impl SentinelGroup {
    /// Starts all six, and waits until they know each other.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Without the delay a replica is in sync at once; with it a failover in the first seconds loses what no replica
        // has.
        let fast = ["--repl-diskless-sync-delay", "0", "--dir", dir.path().to_str().unwrap()];
        let master = RedisServer::plain(&fast);
        let port = master.port.to_string();
        let replica =
            || RedisServer::plain(&[fast.as_slice(), &["--replicaof", &format!("127.0.0.1 {port}")]].concat());
        let servers = vec![master, replica(), replica()];
        eventually("both replicas are in sync", async || {
            servers[0]
                .run::<String>("INFO replication")
                .await
                .matches("state=online")
                .count()
                == 2
        })
        .await;
        let sentinels: Vec<_> = (0..3)
            .map(|number| sentinel(&dir.path().join(format!("sentinel-{number}.conf")), &port))
            .collect();
        for sentinel in &sentinels {
            eventually("the Sentinels know each other and the replicas", async || {
                let state: std::collections::HashMap<String, String> = sentinel.run("SENTINEL MASTER mymaster").await;
                state["num-slaves"] == "2" && state["num-other-sentinels"] == "2" && state["flags"] == "master"
            })
            .await;
        }
        Self {
            servers,
            sentinels,
            _dir: dir,
        }
    }

    /// Settings that name the Sentinels.
    pub fn settings(&self) -> RedisSettings {
        let nodes: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        RedisSettings::of_url(&format!("redis+sentinel://{}/mymaster/0", nodes.join(","))).unwrap()
    }

    /// The server of this port.
    pub fn server(&mut self, port: u16) -> &mut RedisServer {
        self.servers
            .iter_mut()
            .find(|server| server.port == port)
            .expect("one of ours")
    }
}

fn sentinel(conf: &Path, master: &str) -> RedisServer {
    let lines = [
        format!("sentinel monitor mymaster 127.0.0.1 {master} 2"),
        "sentinel down-after-milliseconds mymaster 500".to_owned(),
        "sentinel failover-timeout mymaster 3000".to_owned(),
    ];
    for _ in 0..20 {
        std::fs::write(conf, lines.join("\n") + "\n").unwrap();
        let port = free_port();
        let args = [
            conf.to_str().unwrap(),
            "--sentinel",
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
        ]
        .map(str::to_owned);
        let mut server = RedisServer::of(port, args.into());
        if server.try_start() {
            return server;
        }
    }
    panic!("no Sentinel started")
}
