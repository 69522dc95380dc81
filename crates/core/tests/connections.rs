//! Pool, publishing connection and blocking readers on real servers: failover, TLS, passwords that change, connections
//! that are killed, a Redis that is emptied.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use jit_core::{
    config::Problems,
    event::JobEvent,
    ledger::{Ledger, LedgerError},
    store::{self, Pool, RedisArgs, RedisSettings, SharedConnection},
    stream::{self, Reader},
};
use jit_testing::{RedisServer, SentinelGroup, certificates, default_limits, eventually, queued, run};
use redis::AsyncCommands;

/// The three kinds of connections, as a process has them.
struct Process {
    pool: Pool,
    publisher: SharedConnection,
    reader: Reader,
}

impl Process {
    fn new(settings: &RedisSettings) -> Self {
        let reader = Reader::new(settings.clone(), stream::EVENTS, "w", Duration::from_millis(200));
        Self {
            pool: store::pool(settings).unwrap(),
            publisher: store::publisher(settings),
            reader,
        }
    }

    async fn publish(&self, job: u64) -> redis::RedisResult<Option<String>> {
        stream::publish(&mut self.publisher.clone(), &queued(job, "Acme"), "", 1000).await
    }

    /// The event goes round: published, read, acknowledged. The port of the server that the pool leads to.
    async fn round(&mut self, job: u64) -> Result<u16, LedgerError> {
        self.publish(job).await?;
        loop {
            let entries = self.reader.read(10).await?;
            let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
            stream::acknowledge(&self.pool, stream::EVENTS, &ids).await?;
            let events: Vec<JobEvent> = entries.iter().map(|entry| entry.job_event().unwrap()).collect();
            if events.iter().any(|event| event.job.get() == job) {
                break;
            }
        }
        port(&self.pool).await
    }

    /// Until it works; the port of the server that it works with.
    async fn recovered(&mut self, what: &str, job: u64) -> u16 {
        let mut port = 0;
        eventually(what, async || match self.round(job).await {
            Ok(server) => {
                port = server;
                true
            }
            // Whatever happens on the way, nothing is the event's fault.
            Err(error) => {
                assert!(error.is_transient(), "{what}: {error}");
                false
            }
        })
        .await;
        port
    }
}

async fn port(pool: &Pool) -> Result<u16, LedgerError> {
    let mut connection = pool.get().await?;
    let port: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("port")
        .query_async(&mut connection)
        .await?;
    Ok(port[1].parse().unwrap())
}

#[tokio::test]
async fn a_failover_is_followed_and_the_old_master_is_left_alone() {
    let mut group = SentinelGroup::start().await;
    let settings = group.settings();
    let mut process = Process::new(&settings);
    let first = process.round(1).await.expect("works");
    assert_eq!(first, group.servers[0].port);
    // Another part of the same process, which has nothing to do while it happens.
    let idle = store::pool(&settings).unwrap();
    assert_eq!(port(&idle).await.expect("works"), first);
    let mut idle_reader = Reader::new(settings.clone(), stream::EVENTS, "idle", Duration::from_millis(200));
    assert!(idle_reader.read(1).await.expect("works").is_empty());

    // Silent, then awake again: it takes itself for the master until the Sentinels tell it otherwise.
    group.server(first).signal("STOP");
    let second = process.recovered("the first failover", 2).await;
    assert_ne!(second, first);
    group.server(first).signal("CONT");
    let role: Vec<redis::Value> = group.server(first).run("ROLE").await;
    assert_eq!(
        role[0],
        redis::Value::BulkString(b"master".to_vec()),
        "it would take writes"
    );
    assert_eq!(
        port(&idle).await.expect("works"),
        second,
        "a connection of the past was lent out"
    );
    process.publish(90).await.expect("works");
    assert_eq!(
        idle_reader.read(1).await.expect("works").len(),
        1,
        "it reads where nothing comes any more"
    );
    assert_eq!(process.round(3).await.expect("works"), second);

    eventually("the old master is a replica in sync", async || {
        let info: String = group.server(first).run("INFO replication").await;
        info.contains("role:slave") && info.contains("master_link_status:up")
    })
    .await;
    group.server(second).kill();
    let third = process.recovered("the second failover", 4).await;
    assert_ne!(third, second);
}

#[tokio::test]
async fn a_master_that_was_demoted_while_connections_were_idle_is_noticed() {
    let group = SentinelGroup::start().await;
    let mut process = Process::new(&group.settings());
    let first = process.round(1).await.expect("works");
    // Nothing is killed and nothing is silent: only the roles change.
    let _: String = group.sentinels[0].run("SENTINEL FAILOVER mymaster").await;
    let second = process.recovered("the failover", 2).await;
    eventually("another master", async || {
        port(&process.pool).await.is_ok_and(|port| port != first)
    })
    .await;
    assert!(second == first || port(&process.pool).await.expect("works") == second);
    process.recovered("publisher and reader on the new one", 3).await;
}

#[tokio::test]
async fn a_server_that_is_named_and_calls_itself_a_replica_is_not_used() {
    let mut group = SentinelGroup::start().await;
    let settings = group.settings();
    let (old, new) = (store::pool(&settings).unwrap(), store::pool(&settings).unwrap());
    let first = port(&old).await.expect("works");
    // One Sentinel alone elects nobody: the name stays where it was while the role goes.
    group.sentinels.truncate(1);
    let other = group.servers[1].port;
    let _: () = group.server(first).run(&format!("REPLICAOF 127.0.0.1 {other}")).await;
    for pool in [&old, &new] {
        let error = port(pool).await.expect_err("no master");
        assert!(
            error.is_transient() && error.to_string().contains("not a master"),
            "{error}"
        );
    }
    let _: () = group.server(first).run("REPLICAOF NO ONE").await;
    eventually("it is the master again", async || {
        port(&old).await.is_ok() && port(&new).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn without_a_sentinel_that_knows_the_master_it_says_so() {
    let group = SentinelGroup::start().await;
    let settings = RedisSettings::of_url(&group.settings().url.replace("mymaster", "other")).unwrap();
    let error = Ledger::new(store::pool(&settings).unwrap())
        .now()
        .await
        .expect_err("no such master");
    assert!(error.is_transient() && error.to_string().contains("other"), "{error}");
}

fn resolved(args: &[&str]) -> RedisSettings {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        redis: RedisArgs,
    }
    let mut problems = Problems::default();
    let settings = <Cli as clap::Parser>::parse_from([&["test"], args].concat())
        .redis
        .resolve(&mut problems);
    problems.finish(settings).expect("a valid configuration")
}

#[tokio::test]
async fn tls_with_a_private_authority_and_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let paths = certificates(dir.path());
    let [ca, cert, key, client_cert, client_key] = paths.each_ref().map(|path| path.to_str().unwrap());
    let mut args = vec![
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
    ];
    args.extend([
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        "yes",
    ]);
    let server = RedisServer::start(&args);
    let url = format!("rediss://127.0.0.1:{}/0", server.port);
    let full = [
        "--redis-url",
        &url,
        "--redis-ca-file",
        ca,
        "--redis-client-cert-file",
        client_cert,
        "--redis-client-key-file",
        client_key,
    ];

    let mut process = Process::new(&resolved(&full));
    let event = process.publish(1).await.expect("published");
    assert!(event.is_some());
    assert_eq!(process.reader.read(1).await.expect("read").len(), 1);
    let _: bool = process
        .pool
        .get()
        .await
        .expect("connected")
        .exists("x")
        .await
        .expect("asked");

    // Neither an unknown authority nor a client without a certificate.
    for (without, word) in [(&full[..2], "UnknownIssuer"), (&full[..4], "")] {
        let error = Process::new(&resolved(without)).publish(1).await.expect_err("refused");
        assert!(error.to_string().contains(word), "{error}");
    }
    // The files are read for each connection: what is renewed counts at the next one.
    let (settings, good) = (resolved(&full), std::fs::read(client_key).unwrap());
    std::fs::write(client_key, "gone").unwrap();
    assert!(Process::new(&settings).publish(1).await.is_err());
    std::fs::write(client_key, good).unwrap();
    assert!(Process::new(&settings).publish(1).await.is_ok());
}

#[tokio::test]
async fn a_password_that_changes_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    let server = RedisServer::plain(&[]);
    let mut operator = server.operator().await;
    let _: () = run(&mut operator, "ACL SETUSER jit on >old ~* &* +@all").await;
    let url = format!("redis://127.0.0.1:{}/0", server.port);
    let mut process = Process::new(&resolved(&[
        "--redis-url",
        &url,
        "--redis-username",
        "jit",
        "--redis-password-file",
        file.to_str().unwrap(),
    ]));
    process.round(1).await.expect("works");

    // The new one counts, and the connections that were made with the old one are gone.
    let _: () = run(&mut operator, "ACL SETUSER jit resetpass >new").await;
    let killed: u64 = run(&mut operator, "CLIENT KILL USER jit").await;
    assert!(killed >= 3, "{killed}");
    for _ in 0..3 {
        let error = process.round(2).await.expect_err("another password is wanted");
        assert!(error.is_transient(), "{error}");
    }
    std::fs::write(&file, "new\n").unwrap();
    process.recovered("the new password", 3).await;
    let users: String = run(&mut operator, "CLIENT LIST").await;
    assert!(users.matches("user=jit").count() >= 3, "{users}");
}

#[tokio::test]
async fn readers_survive_killed_connections_and_a_redis_that_is_emptied() {
    let server = RedisServer::plain(&[]);
    let mut operator = server.operator().await;
    let mut process = Process::new(&server.settings());
    process.round(1).await.expect("works");
    for (number, blow) in [
        "CLIENT KILL TYPE normal SKIPME yes",
        "FLUSHALL",
        "XGROUP DESTROY jit:events workers",
        "DEL jit:events",
        "SCRIPT FLUSH",
    ]
    .iter()
    .enumerate()
    {
        let mut blocked = process.reader;
        let reading = tokio::spawn(async move {
            let result = blocked.read(10).await;
            (blocked, result)
        });
        eventually("a reader blocks", async || {
            run::<String>(&mut operator, "CLIENT LIST")
                .await
                .contains("cmd=xreadgroup")
        })
        .await;
        let _: redis::Value = run(&mut operator, blow).await;
        let (reader, result) = reading.await.unwrap();
        assert!(
            result.is_err() || result.is_ok_and(|entries| entries.is_empty()),
            "{blow}"
        );
        process = Process { reader, ..process };
        process.recovered(blow, 10 + number as u64).await;
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_while_it_was_idle_fails_no_call_and_none_is_asked_before_each_use() {
    let server = RedisServer::plain(&[]);
    let mut operator = server.operator().await;
    let ledger = Ledger::new(store::pool(&server.settings()).unwrap());
    ledger.configure(&default_limits()).await.expect("configured");
    let _: () = run(&mut operator, "CONFIG RESETSTAT").await;
    for job in 1..=20 {
        ledger.apply(&queued(job, "Acme"), None).await.expect("applied");
    }
    let calls: String = run(&mut operator, "INFO commandstats").await;
    assert!(!calls.contains("cmdstat_ping"), "{calls}");
    for job in 21..=40 {
        let killed: u64 = run(&mut operator, "CLIENT KILL TYPE normal SKIPME yes").await;
        assert!(killed > 0);
        ledger
            .apply(&queued(job, "Acme"), None)
            .await
            .expect("applied over another connection");
        // A pipeline is the first to find out.
        let _: u64 = run(&mut operator, "CLIENT KILL TYPE normal SKIPME yes").await;
        let mut connection = ledger.pool().get().await.expect("lent");
        let (pong, again): (String, String) = redis::pipe()
            .cmd("PING")
            .cmd("PING")
            .query_async(&mut connection)
            .await
            .expect("sent again");
        assert_eq!((pong.as_str(), again.as_str()), ("PONG", "PONG"));
    }
    assert_eq!(ledger.doctor().await.expect("examined").jobs, 40);
}

/// What a Redis that cannot serve for now is told, and told when it can again.
const REFUSALS: [(&str, &str, &str); 4] = [
    ("OOM", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ("READONLY", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    (
        "NOREPLICAS",
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
    ),
    (
        "NOPERM",
        "ACL SETUSER default -evalsha -eval",
        "ACL SETUSER default +evalsha +eval",
    ),
];

#[tokio::test]
async fn a_refusal_writes_nothing_half_and_passes() {
    let server = RedisServer::plain(&[]);
    let mut operator = server.operator().await;
    let ledger = Ledger::new(store::pool(&server.settings()).unwrap());
    ledger.configure(&default_limits()).await.expect("configured");
    while ledger
        .reconcile(ledger.now().await.unwrap(), &[])
        .await
        .expect("open")
        .opens_in
        .is_some()
    {}
    let mut jobs = 0;
    for (code, refuse, relent) in REFUSALS {
        jobs += 1;
        let event = queued(jobs, "Acme");
        let _: () = run(&mut operator, refuse).await;
        for _ in 0..3 {
            let error = ledger.apply(&event, None).await.expect_err(code);
            assert!(
                matches!(error, LedgerError::Refused(_)) && error.to_string().to_ascii_uppercase().contains(code),
                "{code}: {error}"
            );
        }
        let _: () = run(&mut operator, relent).await;
        assert!(
            ledger.job(event.job).await.unwrap().is_none(),
            "{code}: something of the event is there"
        );
        ledger
            .apply(&event, None)
            .await
            .unwrap_or_else(|error| panic!("{code} is over: {error}"));
        let report = ledger.doctor().await.expect("examined");
        assert_eq!(
            (report.jobs, report.findings.len()),
            (jobs as usize, 0),
            "{code}: {report:?}"
        );
    }
    // A script that never ends.
    let _: () = run(&mut operator, "CONFIG SET busy-reply-threshold 10").await;
    let mut endless = server.operator().await;
    let endless = tokio::spawn(async move {
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .exec_async(&mut endless)
            .await
    });
    eventually("Redis is busy", async || {
        let answer = ledger.apply(&queued(99, "Acme"), None).await;
        matches!(answer, Err(LedgerError::Refused(error)) if error.contains("BUSY"))
    })
    .await;
    let _: () = run(&mut operator, "SCRIPT KILL").await;
    eventually("it is over", async || {
        ledger.apply(&queued(99, "Acme"), None).await.is_ok()
    })
    .await;
    let _ = endless.await;
}
