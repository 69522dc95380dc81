//! The whole system on a Redis that fails over, refuses, changes its password, or is not one to start with. No part of
//! ours is restarted.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fmt::Write, path::Path, process::Output};

use integration_tests::{assert_all_ran_once, assert_sound, brisk, number, send, settle, until};
use jit_harness::stack::{Backend, Options, Stack};
use jit_testing::{RedisServer, SentinelGroup, certificates, run};
use redis::AsyncCommands;
use serde_json::{Value, json};

const LIMIT: u64 = 3;
const MAXIMUM: u64 = 8;

/// The system, with runners as processes, on another Redis than the stack's own.
async fn on(url: &str, env: &[(&str, &str)]) -> Stack {
    let (limit, maximum) = (LIMIT.to_string(), MAXIMUM.to_string());
    let own = [
        ("REDIS_URL", url),
        ("MAX_RUNNERS_PER_ORG", &limit),
        ("MAX_TOTAL_RUNNERS", &maximum),
        ("QUESTION_INTERVAL", "3s"),
        ("RESERVE_TIMEOUT", "10s"),
    ];
    let env = brisk()
        .into_iter()
        .chain(
            own.iter()
                .chain(env)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .collect();
    let mut stack = Stack::start(&Options {
        orgs: 4,
        workers: 2,
        backend: Backend::Process,
        env,
        ..Options::default()
    })
    .await
    .unwrap();
    stack.redis_url = url.to_owned();
    stack
}

/// As GitHub counted its registered runners, whatever the ledger believed.
fn assert_within_limits(summary: &Value) {
    let organizations = summary["orgs"].as_object().expect("organizations");
    for (org, peaks) in organizations {
        assert!(number(peaks, "/max_registered") <= LIMIT, "{org}: {peaks}");
    }
    assert!(number(summary, "/total/max_registered") <= MAXIMUM, "{summary:#}");
}

async fn jobs_run(stack: &Stack) -> u64 {
    number(&stack.summary().await.unwrap(), "/jobs/run")
}

async fn epoch(url: &str) -> Option<String> {
    let client = redis::Client::open(url).unwrap();
    client
        .get_multiplexed_async_connection()
        .await
        .ok()?
        .hget("ledger:meta", "epoch")
        .await
        .ok()?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_is_survived_within_the_limits() {
    let mut group = SentinelGroup::start().await;
    let stack = on(&group.settings().url, &[]).await;
    let first = group.servers[0].port;
    let url = |port: u16| format!("redis://127.0.0.1:{port}/0");
    send(&stack, 40, 4, |_| vec!["code-linux"]).await;
    until("some have run", async || jobs_run(&stack).await >= 5).await;
    // What both replicas have is what has to run; what they have not is lost with the master, and for the sweep to
    // find.
    let mut operator = group.servers[0].operator().await;
    let before = epoch(&url(first)).await.expect("an epoch");
    let _: () = run(&mut operator, "SET test:fence 1").await;
    // Less than the client waits for an answer; a busy machine takes more than one.
    until("both replicas have it", async || {
        run::<u64>(&mut operator.clone(), "WAIT 2 400").await == 2
    })
    .await;
    group.server(first).kill();

    let second = async || {
        let named: Result<(String, u16), _> = group.sentinels[0]
            .try_run("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster")
            .await;
        named.ok().map(|(_, port)| port).filter(|port| *port != first)
    };
    until("another master", async || second().await.is_some()).await;
    let second = second().await.unwrap();
    // The gate was closed by the new server's run_id, and a reconcile has opened it with a new epoch.
    until("another epoch", async || {
        epoch(&url(second)).await.is_some_and(|epoch| epoch != before)
    })
    .await;
    until("webhooks are taken", async || {
        stack.get(&format!("{}/ready", stack.receiver_url)).await.is_ok()
    })
    .await;
    send(&stack, 10, 4, |_| vec!["code-linux"]).await;

    let summary = settle(&stack, 50).await;
    assert_all_ran_once(&summary, 50);
    assert_within_limits(&summary);
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_or_drops_its_clients_loses_no_accepted_job() {
    let dir = tempfile::tempdir().unwrap();
    let tolerant = [
        "--stop-writes-on-bgsave-error",
        "no",
        "--appendonly",
        "yes",
        "--dir",
        dir.path().to_str().unwrap(),
    ];
    let server = RedisServer::start(
        &[
            &["--port", "{port}", "--bind", "127.0.0.1", "--save", "3600 1000000"],
            &tolerant[..],
        ]
        .concat(),
    );
    let mut operator = server.operator().await;
    // It cannot write its snapshot, which it minds when it is told to.
    std::fs::create_dir(dir.path().join("dump.rdb")).unwrap();
    let _: String = run(&mut operator, "BGSAVE").await;
    until("the snapshot has failed", async || {
        run::<String>(&mut operator.clone(), "INFO persistence")
            .await
            .contains("rdb_last_bgsave_status:err")
    })
    .await;
    let stack = on(&server.settings().url, &[]).await;
    let refused = async || number(&stack.summary().await.unwrap(), "/webhooks/refused");
    let mut jobs = 0;
    let write = "SET test:write 1";
    for (answer, command, blows, relent) in [
        ("OOM", write, vec!["CONFIG SET maxmemory 1"], "CONFIG SET maxmemory 0"),
        ("READONLY", write, vec!["REPLICAOF 127.0.0.1 1"], "REPLICAOF NO ONE"),
        (
            "NOREPLICAS",
            write,
            vec!["CONFIG SET min-replicas-to-write 1"],
            "CONFIG SET min-replicas-to-write 0",
        ),
        (
            "MISCONF",
            write,
            vec!["CONFIG SET stop-writes-on-bgsave-error yes"],
            "CONFIG SET stop-writes-on-bgsave-error no",
        ),
        (
            "MASTERDOWN",
            "GET test:write",
            vec!["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
            "REPLICAOF NO ONE",
        ),
    ] {
        // One of them runs on until the blow has fallen.
        stack
            .create_jobs(&json!({ "org": "org-0001", "labels": ["code-linux"], "duration_ms": 2500 }))
            .await
            .unwrap();
        send(&stack, 14, 4, |_| vec!["code-linux"]).await;
        jobs += 15;
        until("some have run", async || jobs_run(&stack).await >= jobs - 12).await;
        let before = refused().await;
        for blow in blows {
            let _: redis::Value = run(&mut operator, blow).await;
        }
        let said = server.try_run::<redis::Value>(command).await.unwrap_err();
        assert_eq!(said.code(), Some(answer), "{said}");
        // Runners that end tell GitHub, whose webhooks are now answered 503.
        until(answer, async || refused().await > before).await;
        let _: redis::Value = run(&mut operator, relent).await;
    }
    send(&stack, 15, 4, |_| vec!["code-linux"]).await;
    jobs += 15;
    for number in 1..=5 {
        until("it goes on", async || jobs_run(&stack).await >= jobs - 15 + number).await;
        let _: redis::Value = run(&mut operator, "CLIENT KILL TYPE normal SKIPME yes").await;
    }
    let summary = settle(&stack, jobs).await;
    assert_all_ran_once(&summary, jobs);
    assert_within_limits(&summary);
    assert_sound(&stack).await;
    let dead: u64 = run(&mut operator, "XLEN jit:dead").await;
    assert_eq!(dead, 0, "a refusal is nobody's fault");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_password_is_changed_and_no_process_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let paths = certificates(dir.path());
    let [ca, cert, key, client_cert, client_key] = paths.each_ref().map(|path| path.to_str().unwrap());
    let tls = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
        .to_string();
    let server = RedisServer::plain(&[
        "--tls-port",
        &tls,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        "yes",
    ]);
    let mut operator = server.operator().await;
    let _: () = run(
        &mut operator,
        "ACL SETUSER jit on >old ~* +@all -@dangerous +info +role",
    )
    .await;
    let password = dir.path().join("password");
    std::fs::write(&password, "old").unwrap();
    let env = [
        ("REDIS_USERNAME", "jit"),
        ("REDIS_PASSWORD_FILE", password.to_str().unwrap()),
        ("REDIS_CA_FILE", ca),
        ("REDIS_CLIENT_CERT_FILE", client_cert),
        ("REDIS_CLIENT_KEY_FILE", client_key),
    ];
    let mut stack = on(&format!("rediss://127.0.0.1:{tls}/0"), &env).await;
    stack.redis_url = server.settings().url; // for jitctl, which has none of these variables
    send(&stack, 10, 4, |_| vec!["code-linux"]).await;
    until("some have run", async || jobs_run(&stack).await >= 2).await;

    let _: () = run(&mut operator, "ACL SETUSER jit resetpass >new").await;
    let killed: u64 = run(&mut operator, "CLIENT KILL USER jit").await;
    assert!(killed > 3, "{killed}");
    std::fs::write(&password, "new").unwrap();
    let ready = format!("{}/ready", stack.receiver_url);
    until("webhooks are taken", async || stack.get(&ready).await.is_ok()).await;
    send(&stack, 10, 4, |_| vec!["code-linux"]).await;
    let summary = settle(&stack, 20).await;
    assert_all_ran_once(&summary, 20);
    assert_sound(&stack).await;
    for part in &stack.parts {
        let log = std::fs::read_to_string(part.log()).unwrap();
        assert!(
            !log.contains(">old") && !log.contains("\"old\"") && !log.contains("\"new\""),
            "{} logs a password",
            part.name()
        );
    }
    stack.stop().await;
}

/// Runs a program of ours to its end.
fn ran(program: &str, server: &RedisServer, env: &[(&str, &str)]) -> Output {
    let test = std::env::current_exe().unwrap();
    let dir = test.parent().and_then(Path::parent).unwrap();
    let mut command = std::process::Command::new(dir.join(program));
    command.env_clear().envs([
        ("GHES_URL", "https://github.example.com"),
        ("WEBHOOK_SECRET", "s"),
        ("GITHUB_PAT", "t"),
        ("RUNNER_BACKEND", "process"),
    ]);
    command.envs([
        ("RUNNER_COMMAND", "true"),
        ("RUNNER_DIRECTORY", "/tmp"),
        ("PORT", "0"),
        ("LISTEN_ADDRESS", "127.0.0.1"),
        ("LOG_FORMAT", "text"),
    ]);
    command
        .env("REDIS_URL", server.settings().url)
        .envs(env.iter().copied())
        .output()
        .expect("built: run through `make test`")
}

#[test]
fn a_redis_that_loses_jobs_is_refused_with_what_to_set() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let evicting = RedisServer::plain(&["--maxmemory-policy", "allkeys-lru"]);
    let python = RedisServer::plain(&[]);
    let _: u64 = runtime.block_on(python.run("SADD _kombu.binding.celery a"));
    for (server, words) in [
        (&evicting, "CONFIG SET maxmemory-policy noeviction"),
        (&python, "FLUSHDB"),
    ] {
        for program in ["jit-receiver", "jit-worker"] {
            let output = ran(program, server, &[]);
            let mut told = String::from_utf8(output.stderr).unwrap();
            let _ = write!(told, "{}", output.status);
            assert!(
                output.status.code() == Some(1) && told.contains(words),
                "{program}: {told}"
            );
        }
        let keys: u64 = runtime.block_on(server.run("DBSIZE"));
        assert!(keys <= 1, "something was written to it");
    }
    let doctor = std::process::Command::new(
        std::env::current_exe()
            .unwrap()
            .parent()
            .and_then(Path::parent)
            .unwrap()
            .join("jitctl"),
    )
    .args(["--redis-url", &evicting.settings().url, "--output", "json", "doctor"])
    .output()
    .unwrap();
    let told: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(
        (doctor.status.code(), &told["redis"][0]["severity"]),
        (Some(1), &json!("refusal")),
        "{told:#}"
    );
}
