//! Redis servers of a test's own: plain, with TLS, in a Sentinel group. Each ends with the test, also when that is
//! killed.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use jit_core::{config::RedisSettings, store::RESPONSE_TIMEOUT};
use redis::{AsyncConnectionConfig, FromRedisValue, aio::MultiplexedConnection};

#[path = "../support/eventually.rs"]
mod waiting;
pub use waiting::eventually;

/// One redis-server on a port of its own.
pub struct Server {
    pub port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// With these further arguments, in which `{port}` stands for its port.
    pub fn start(args: &[&str]) -> Self {
        for _ in 0..20 {
            let port = free_port();
            let own = |arg: &&str| arg.replace("{port}", &port.to_string());
            let mut server = Self {
                port,
                args: args.iter().map(own).collect(),
                child: None,
            };
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server did not start: run through `make test`, which installs it");
    }

    /// An empty one that keeps nothing.
    pub fn plain(args: &[&str]) -> Self {
        Self::start(
            &[
                &[
                    "--port",
                    "{port}",
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ],
                args,
            ]
            .concat(),
        )
    }

    fn try_start(&mut self) -> bool {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]).args(&self.args);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv of util-linux");
        for _ in 0..400 {
            if child.try_wait().unwrap().is_some() {
                return false; // somebody else has the port
            }
            if self.answers() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        false
    }

    /// Listening is not enough: a Cluster's server listens, and ends when its second port is taken.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let tls =
            self.args.first().is_some_and(|arg| arg == "--port") && self.args.get(1).is_some_and(|port| port == "0");
        let mut byte = [0];
        tls || (stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
            && stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut byte).is_ok())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// On the same port, with what it was started with.
    pub fn start_again(&mut self) {
        assert!(self.try_start(), "redis-server did not come back");
    }

    /// Sends it a signal, `STOP` say.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn settings(&self) -> RedisSettings {
        RedisSettings::of_url(&format!("redis://127.0.0.1:{}/0", self.port)).unwrap()
    }

    /// A connection that is nobody's business but the test's.
    pub async fn operator(&self) -> MultiplexedConnection {
        self.connect().await.expect("connected")
    }

    /// The client's own half a second is short where two cores run everything.
    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        client.get_multiplexed_async_connection_with_config(&patient).await
    }

    /// Runs a command that may come twice: again where the connection is cut, as a Sentinel cuts all of a master that
    /// it makes a replica.
    pub async fn run<T: FromRedisValue>(&self, command: &str) -> T {
        for _ in 0..20 {
            match self.try_run(command).await {
                Err(error) if error.is_io_error() => tokio::time::sleep(Duration::from_millis(25)).await,
                answer => return answer.unwrap_or_else(|error| panic!("{command}: {error}")),
            }
        }
        panic!("{command}: the server of port {} cuts each connection", self.port);
    }

    /// Runs a command that may fail.
    pub async fn try_run<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        redis::cmd(words.next().unwrap())
            .arg(words.collect::<Vec<_>>())
            .query_async(&mut self.connect().await?)
            .await
    }
}

/// Runs a command; its words are separated by spaces.
pub async fn run<T: FromRedisValue>(connection: &mut MultiplexedConnection, command: &str) -> T {
    let mut words = command.split(' ').map(|word| if word == "''" { "" } else { word });
    redis::cmd(words.next().unwrap())
        .arg(words.collect::<Vec<_>>())
        .query_async(connection)
        .await
        .unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}

/// A master, two replicas and three Sentinels that take it for dead after half a second.
pub struct SentinelGroup {
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
    dir: tempfile::TempDir,
}

impl SentinelGroup {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Without the delay a replica is in sync at once; with it a failover in the first seconds loses what no replica
        // has.
        let fast = ["--repl-diskless-sync-delay", "0", "--dir", dir.path().to_str().unwrap()];
        let master = Server::plain(&fast);
        let port = master.port.to_string();
        let replica = || Server::plain(&[fast.as_slice(), &["--replicaof", &format!("127.0.0.1 {port}")]].concat());
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
            dir,
        }
    }

    pub fn settings(&self) -> RedisSettings {
        let nodes: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        RedisSettings::of_url(&format!("redis+sentinel://{}/mymaster/0", nodes.join(","))).unwrap()
    }

    /// The server of this port.
    pub fn server(&mut self, port: u16) -> &mut Server {
        self.servers
            .iter_mut()
            .find(|server| server.port == port)
            .expect("one of ours")
    }
}

fn sentinel(conf: &Path, master: &str) -> Server {
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
        let mut server = Server {
            port,
            args: args.into(),
            child: None,
        };
        if server.try_start() {
            return server;
        }
    }
    panic!("no Sentinel started")
}

/// A certificate authority of a company's own, a server's certificate and a client's, as PEM files.
pub fn certificates(dir: &Path) -> [PathBuf; 5] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let paths = ["ca.crt", "redis.crt", "redis.key", "client.crt", "client.key"].map(|name| dir.join(name));
    std::fs::write(&paths[0], authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    for (cert, private) in [(&paths[1], &paths[2]), (&paths[3], &paths[4])] {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        // Of the same name as its issuer it would pass for self-signed.
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
        std::fs::write(cert, leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(private, key.serialize_pem()).unwrap();
    }
    paths
}
