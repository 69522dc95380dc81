//! The program itself against a real Redis, and a ledger to set the scene with. Each test has a store of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use jit_core::{ledger::Ledger, store};
use jit_testing::{default_limits, fresh_redis, queued};
use serde_json::Value;

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
        let redis = fresh_redis();
        let ledger = Ledger::new(store::pool(&redis).unwrap());
        ledger.configure(&default_limits()).await.unwrap();
        while ledger
            .reconcile(ledger.now().await.unwrap(), &[])
            .await
            .unwrap()
            .opens_in
            .is_some()
        {}
        Self { ledger, url: redis.url }
    }

    pub fn ctl(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_jitctl"))
            .args(arguments)
            .env_clear()
            .env("REDIS_URL", &self.url)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
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
        redis::cmd(command[0])
            .arg(&command[1..])
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    /// The kinds of the ticks that were asked for, which are taken away.
    pub async fn ticks(&self) -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> = self.redis(&["XRANGE", "jit:ticks", "-", "+"]).await;
        let _: u64 = self.redis(&["DEL", "jit:ticks"]).await;
        entries.into_iter().map(|(_, fields)| fields[3].clone()).collect()
    }
}
