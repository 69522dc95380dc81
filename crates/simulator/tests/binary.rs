//! The binary as others use it: one line of JSON on stdout, runners as processes, an end by signal.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jit_simulator::runner::TELLS_TOO_OLD;
use reqwest::Method;
use serde_json::{Value, json};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jit-simulator"));
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn text_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.text_line()).unwrap()
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &self.0.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

struct Http {
    client: reqwest::Client,
    url: String,
}

impl Http {
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let response = self
            .client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth("from-a-file")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap_or_default()
    }

    async fn jit(&self, name: &str) -> String {
        let body = json!({ "name": name, "runner_group_id": 1, "labels": ["x"] });
        self.call(
            Method::POST,
            "/api/v3/orgs/org-0002/actions/runners/generate-jitconfig",
            body,
        )
        .await["encoded_jit_config"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn job(&self, duration_ms: u64) -> u64 {
        self.call(
            Method::POST,
            "/_control/jobs",
            json!({ "org": "org-0002", "labels": ["x"], "duration_ms": duration_ms }),
        )
        .await["ids"][0]
            .as_u64()
            .unwrap()
    }

    async fn until(&self, job: u64, state: &str) -> Value {
        for _ in 0..3000 {
            let now = self
                .call(Method::GET, &format!("/_control/jobs/{job}"), Value::Null)
                .await;
            if now["state"] == state {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("job {job} is not {state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_runners_as_processes() {
    jit_simulator::install_tls();
    let (mut token, port) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    writeln!(token, "from-a-file").unwrap();
    let (token, port_file) = (token.path().to_str().unwrap(), port.path().to_str().unwrap());
    let mut server = Process::start(
        &[
            "github",
            "--orgs",
            "2",
            "--lease-ms",
            "300",
            "--token-file",
            token,
            "--port-file",
            port_file,
        ],
        &[],
    );
    let url = server.line()["url"].as_str().unwrap().to_owned();
    assert!(url.ends_with(&format!(":{}", std::fs::read_to_string(port_file).unwrap())));
    let http = Http {
        client: reqwest::Client::new(),
        url,
    };
    let runner = |jit: &str| Process::start(&["runner"], &[("ACTIONS_RUNNER_INPUT_JITCONFIG", jit)]);

    let job = http.job(100).await;
    assert_eq!(runner(&http.jit("works").await).exit_code(), Some(0));
    assert_eq!(http.until(job, "completed").await["conclusion"], "success");

    let job = http.job(60_000).await;
    let killed = runner(&http.jit("killed").await);
    http.until(job, "in_progress").await;
    killed.signal("-KILL");
    assert_eq!(http.until(job, "completed").await["conclusion"], "failure");

    let mut idle = runner(&http.jit("idle").await);
    while http.call(Method::GET, "/_control/summary", Value::Null).await["leftovers"]["runners_online"] == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let memory = std::fs::read_to_string(format!("/proc/{}/status", idle.0.id())).unwrap();
    println!(
        "an idle runner: {:?}",
        memory
            .lines()
            .filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"))
            .collect::<Vec<_>>()
    );
    idle.signal("-TERM");
    assert_eq!(idle.exit_code(), Some(143));

    let spare = http.jit("spare").await;
    assert_eq!(
        runner("nonsense").exit_code(),
        Some(0),
        "as run.sh, which hides what its listener ends with"
    );
    for (tells, code) in [("", 0), ("1", 7)] {
        http.call(
            Method::POST,
            "/_control/faults",
            json!({ "fault": "runner_ends", "org": "org-0002", "count": 1 }),
        )
        .await;
        let jit = http.jit(&format!("too-old-{code}")).await;
        let mut refused = Process::start(
            &["runner"],
            &[("ACTIONS_RUNNER_INPUT_JITCONFIG", &jit), (TELLS_TOO_OLD, tells)],
        );
        assert!(
            refused
                .text_line()
                .contains("is deprecated and cannot receive messages")
        );
        assert_eq!(refused.exit_code(), Some(code));
    }
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
    let mut orphan = runner(&spare);
    std::thread::sleep(Duration::from_millis(300));
    orphan.signal("-TERM");
    assert_eq!(
        orphan.exit_code(),
        Some(143),
        "a runner that looks for its server can be stopped"
    );
}
