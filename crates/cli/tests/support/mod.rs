//! The program itself against a real Redis, and a ledger to set the scene with. Each test has a store of its own.

#![allow(clippy::unwrap_used, clippy::zombie_processes, reason = "the shell lives as long as this process")]

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use jit_core::{
    class::Class,
    config::{LimitsArgs, Problems, RedisSettings},
    event::{Action, JobEvent, JobId},
    ledger::Ledger,
    redis as connect,
};
use serde_json::Value;

struct Server {
    port: u16,
    _child: Mutex<Child>,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
            // The shell ends the server as soon as its standard input closes, that is, with this process.
            let script = format!(
                "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --databases 64 >/dev/null 2>&1 & pid=$!; cat >/dev/null; kill $pid"
            );
            let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
            for _ in 0..200 {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Server { port, _child: Mutex::new(child) };
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        panic!("redis-server did not start: run through `make test`, which installs it");
    })
}

/// A store, and jitctl on it.
pub struct Store {
    pub ledger: Ledger,
    url: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("JSON")
    }

    /// It ended with this status, said nothing on standard output, and why on standard error.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        assert!(!self.err.trim().is_empty(), "{self:?}");
        self.err
    }
}

impl Store {
    /// Configured with the defaults, and open for admission.
    pub async fn open() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = format!("redis://127.0.0.1:{}/{}", server().port, NEXT.fetch_add(1, Ordering::Relaxed));
        let ledger = Ledger::new(connect::pool(&RedisSettings::of_url(&url).unwrap()).unwrap());
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            limits: LimitsArgs,
        }
        let mut problems = Problems::default();
        let limits = Cli::parse_from(["test"]).limits.resolve(&mut problems);
        ledger.configure(&problems.finish(limits).unwrap()).await.unwrap();
        ledger.reconcile(ledger.now().await.unwrap(), &[]).await.unwrap();
        Self { ledger, url }
    }

    pub fn ctl(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_jitctl")).args(arguments).env_clear().env("REDIS_URL", &self.url).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        self.ctl(&[arguments, &["--output", "json"]].concat()).json()
    }

    pub async fn queue(&self, job: u64, org: &str) {
        self.ledger.apply(&queued(job, org), None).await.unwrap();
        while self.ledger.admit().await.unwrap().more {}
    }

    pub async fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.ledger.pool().get().await.unwrap();
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.unwrap()
    }

    /// The kinds of the ticks that were asked for, which are taken away.
    pub async fn ticks(&self) -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> = self.redis(&["XRANGE", "jit:ticks", "-", "+"]).await;
        let _: u64 = self.redis(&["DEL", "jit:ticks"]).await;
        entries.into_iter().map(|(_, fields)| fields[3].clone()).collect()
    }
}

pub fn queued(job: u64, org: &str) -> JobEvent {
    let class = Class { org: org.into(), scope: format!("orgs/{org}"), group: "default".into(), profile: "default".into(), labels: vec!["code-linux".into()] };
    JobEvent {
        action: Action::Queued,
        job: JobId::new(job).unwrap(),
        attempt: Some(1),
        org: org.into(),
        repo: format!("{org}/app"),
        class: Some(class),
        runner: None,
        runner_id: None,
        conclusion: None,
    }
}
