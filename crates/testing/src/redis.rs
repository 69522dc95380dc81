//! Redis servers of a test's own, and one that all tests of a binary share. Each ends with the process that started it,
//! also when that is killed.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use jit_core::store::{RESPONSE_TIMEOUT, RedisSettings};
use redis::{AsyncConnectionConfig, FromRedisValue, aio::MultiplexedConnection};

/// Databases of a server, which tests may share.
const DATABASES: u32 = 512;

/// Settings of an empty store: a database of its own on a server that all tests of this binary share.
pub fn fresh_redis() -> RedisSettings {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let database = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(database < DATABASES, "more tests than databases");
    SERVER
        .get_or_init(|| RedisServer::plain(&["--databases", &DATABASES.to_string()]))
        .database(database)
}

/// One redis-server on a port of its own.
pub struct RedisServer {
    /// The port that it listens on.
    pub port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl RedisServer {
    /// Starts one with these arguments, in which `{port}` stands for its port.
    pub fn start(args: &[&str]) -> Self {
        for _ in 0..20 {
            let port = free_port();
            let own = |arg: &&str| arg.replace("{port}", &port.to_string());
            let mut server = Self::of(port, args.iter().map(own).collect());
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server did not start: run through `make test`, which installs it");
    }

    /// Starts an empty one that keeps nothing, with these further arguments.
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

    /// Not started yet.
    pub(crate) fn of(port: u16, args: Vec<String>) -> Self {
        Self {
            port,
            args,
            child: None,
        }
    }

    pub(crate) fn try_start(&mut self) -> bool {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn_for_good(command).expect("setpriv of util-linux");
        for _ in 0..400 {
            if child.try_wait().unwrap().is_some() {
                return false; // somebody else has the port
            }
            if self.answers() {
                self.child = Some(child);
                return true;
            }
            thread::sleep(Duration::from_millis(25));
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

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it on the same port, with what it was started with.
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

    /// Settings of its first database.
    pub fn settings(&self) -> RedisSettings {
        self.database(0)
    }

    fn database(&self, number: u32) -> RedisSettings {
        RedisSettings::of_url(&format!("redis://127.0.0.1:{}/{number}", self.port)).unwrap()
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

/// Starts a program that gets a signal when its parent ends. To the kernel that is the thread that started it, and a
/// test's thread ends before the tests that share a server with it. So one thread starts all, and ends with the
/// process.
fn spawn_for_good(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    orders
        .send((command, answer))
        .expect("the thread lives as long as the process");
    answered.recv().expect("each order is answered")
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}
