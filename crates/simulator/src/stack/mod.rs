//! The whole system on one machine: a Redis of its own, the simulated GitHub, receiver, workers and beat, each a separate process.
//!
//! The demo, the benchmark and the integration tests stand on it. Everything lies in one temporary directory, listens on free loopback
//! ports, gets a clean environment, and ends with the [`Stack`], however that ends.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

mod cluster;
pub mod load;
mod managed;
mod memory;

pub use managed::Managed;
pub use memory::pss_kib;

/// So long a part may take to come up; a machine that builds something else at the same time is slow.
const START: Duration = Duration::from_secs(30);

/// Where runners run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// As processes of this machine.
    Process,
    /// As pods of the cluster that `$KUBECONFIG` names, run by a simulated kubelet.
    Kubernetes,
}

/// So often a part is looked at before its silence is an error.
const LOOKS: u32 = 5;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Organizations of the simulated GitHub: org-0001, org-0002, …
    pub orgs: usize,
    /// Workers.
    pub workers: usize,
    /// Where runners run.
    pub backend: Backend,
    /// Seed of everything random.
    pub seed: u64,
    /// Further environment of receiver, workers and beat: limits, intervals.
    pub env: Vec<(String, String)>,
    /// Further arguments of the simulated GitHub.
    pub github_args: Vec<String>,
    /// Runs a program of ours by name in place of those beside this one.
    pub bin: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { orgs: 20, workers: 2, backend: Backend::Process, seed: 1, env: Vec::new(), github_args: Vec::new(), bin: None }
    }
}

/// A running system.
pub struct Stack {
    /// Redis's URL.
    pub redis_url: String,
    /// The receiver's URL.
    pub receiver_url: String,
    /// The simulated GitHub's URL.
    pub github_url: String,
    /// Key of the admin API.
    pub admin_key: String,
    /// The parts by name: redis, github, receiver, worker-1 …, beat, kubelet.
    pub parts: Vec<Managed>,
    /// Namespace of the runners, with the Kubernetes backend.
    pub namespace: Option<String>,
    /// Where the simulated kubelet is steered, with the Kubernetes backend.
    pub kubelet_url: Option<String>,
    http: reqwest::Client,
    bin: PathBuf,
    dir: tempfile::TempDir,
}

impl Stack {
    /// Starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// With the part that did not come up and the end of its log.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let bin = options.bin.clone().map_or_else(bin_dir, Ok)?;
        let dir = tempfile::Builder::new().prefix("jit-runner-manager-").tempdir()?;
        let secret = |bytes: usize| -> anyhow::Result<String> {
            let mut buffer = vec![0; bytes];
            ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut buffer).map_err(|_| anyhow::anyhow!("no randomness"))?;
            Ok(hex::encode(buffer))
        };
        let (webhook_secret, token, admin_key) = (secret(24)?, secret(20)?, secret(16)?);
        let mut stack = Self {
            redis_url: String::new(),
            receiver_url: String::new(),
            github_url: String::new(),
            admin_key,
            parts: Vec::new(),
            namespace: None,
            kubelet_url: None,
            http,
            bin,
            dir,
        };
        stack.start_redis().await?;
        stack.start_github(options, &webhook_secret, &token).await?;
        if options.backend == Backend::Kubernetes {
            let namespace = cluster::create_namespace().await?;
            let control = format!("127.0.0.1:{}", free_port()?);
            let args = ["kubelet", "--namespace", &namespace, "--control", &control];
            let kubelet = stack.program("kubelet", "jit-simulator", &args)?.inherit("KUBECONFIG").ready_on_url(&format!("http://{control}/counts"));
            stack.kubelet_url = Some(format!("http://{control}"));
            stack.namespace = Some(namespace);
            stack.parts.push(kubelet);
            stack.part("kubelet")?.spawn().await?;
        }
        let env = stack.environment(options, &token);
        stack.start_receiver(&env, &webhook_secret).await?;
        stack.post(&format!("{}/_control/webhook", stack.github_url), &serde_json::json!({ "url": format!("{}/webhook", stack.receiver_url) })).await?;
        for number in 1..=options.workers {
            let mut worker = stack.program(&format!("worker-{number}"), "jit-worker", &[])?.envs(&env).ready_on_probe();
            if options.backend == Backend::Kubernetes {
                worker = worker.inherit("KUBECONFIG");
            }
            stack.parts.push(worker);
        }
        let beat = stack.program("beat", "jit-beat", &[])?.envs(&env).ready_on_probe();
        stack.parts.push(beat);
        for part in stack.parts.iter_mut().filter(|part| !part.is_running()) {
            part.spawn().await?;
        }
        for index in 0..stack.parts.len() {
            stack.parts[index].ready(&stack.http, START).await?;
        }
        Ok(stack)
    }

    fn environment(&self, options: &Options, token: &str) -> Vec<(String, String)> {
        let no_limits = self.dir.path().join("org-limits.yaml").display().to_string();
        let mut env: Vec<(String, String)> = [
            ("GHES_URL", self.github_url.as_str()),
            ("GITHUB_PAT", token),
            ("REDIS_URL", &self.redis_url),
            ("LISTEN_ADDRESS", "127.0.0.1"),
            ("PORT", "0"),
            ("ORG_LIMITS_FILE", &no_limits),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        match &self.namespace {
            Some(namespace) => env.extend([("RUNNER_NAMESPACE".to_owned(), namespace.clone())]),
            None => env.extend([
                ("RUNNER_BACKEND".to_owned(), "process".to_owned()),
                ("RUNNER_COMMAND".to_owned(), format!("exec '{}' runner", self.bin.join("jit-simulator").display())),
                ("RUNNER_DIRECTORY".to_owned(), self.dir.path().join("runners").display().to_string()),
            ]),
        }
        env.extend(options.env.iter().cloned());
        env
    }

    async fn start_redis(&mut self) -> anyhow::Result<()> {
        for _ in 0..20 {
            let port = free_port()?;
            let data = self.dir.path().join("redis");
            std::fs::create_dir_all(&data)?;
            let args = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"];
            let redis = Managed::new("redis", Path::new("redis-server"), self.dir.path())?
                .args(&args)
                .args(&["--dir", &data.display().to_string()])
                .ready_on_port(port);
            self.parts.push(redis);
            self.redis_url = format!("redis://127.0.0.1:{port}/0");
            let (http, part) = (self.http.clone(), self.part("redis")?);
            part.spawn().await.context("redis-server: `make demo` and `make test` install it")?;
            if part.ready(&http, START).await.is_ok() {
                return Ok(());
            }
            self.parts.clear(); // the port was taken meanwhile
        }
        bail!("no free port for Redis")
    }

    async fn start_github(&mut self, options: &Options, webhook_secret: &str, token: &str) -> anyhow::Result<()> {
        let (secret_file, token_file, port_file) = (self.dir.path().join("webhook-secret"), self.dir.path().join("token"), self.dir.path().join("github-url"));
        managed::write_secret(&secret_file, webhook_secret)?;
        managed::write_secret(&token_file, token)?;
        let (orgs, seed) = (options.orgs.to_string(), options.seed.to_string());
        let paths = [&secret_file, &token_file, &port_file].map(|path| path.display().to_string());
        let args = [
            "github",
            "--listen",
            "127.0.0.1:0",
            "--webhook-url",
            "http://127.0.0.1:9/webhook",
            "--webhook-secret-file",
            &paths[0],
            "--token-file",
            &paths[1],
            "--orgs",
            &orgs,
            "--seed",
            &seed,
        ];
        let github = self.program("github", "jit-simulator", &args)?.args(&options.github_args.iter().map(String::as_str).collect::<Vec<_>>());
        self.parts.push(github);
        let part = self.part("github")?;
        part.spawn().await?;
        let line = part.first_line(START).await?;
        let url = serde_json::from_str::<Value>(&line).ok().and_then(|value| value["url"].as_str().map(str::to_owned));
        self.github_url = url.with_context(|| format!("the simulated GitHub did not say where it listens: {line:?}"))?;
        Ok(())
    }

    async fn start_receiver(&mut self, env: &[(String, String)], webhook_secret: &str) -> anyhow::Result<()> {
        for _ in 0..20 {
            let port = free_port()?;
            let secrets = [("PORT", port.to_string()), ("WEBHOOK_SECRET", webhook_secret.to_owned()), ("ADMIN_API_KEY", self.admin_key.clone())];
            let secrets: Vec<_> = secrets.map(|(name, value)| (name.to_owned(), value)).into();
            let receiver = self.program("receiver", "jit-receiver", &[])?.envs(env).envs(&secrets).ready_on_url(&format!("http://127.0.0.1:{port}/ready"));
            self.parts.push(receiver);
            self.receiver_url = format!("http://127.0.0.1:{port}");
            let (http, part) = (self.http.clone(), self.part("receiver")?);
            part.spawn().await?;
            match part.ready(&http, START).await {
                Ok(()) => return Ok(()),
                // Somebody took the port between our look and its bind: another one.
                Err(error) if format!("{error:#}").contains("in use") => drop(self.parts.pop()),
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for the receiver")
    }

    fn program(&self, name: &str, program: &str, args: &[&str]) -> anyhow::Result<Managed> {
        Ok(Managed::new(name, &self.bin.join(program), self.dir.path())?.args(args))
    }

    /// A part by name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn part(&mut self, name: &str) -> anyhow::Result<&mut Managed> {
        self.parts.iter_mut().find(|part| part.name() == name).with_context(|| format!("no part is named {name}"))
    }

    /// Starts a part that was ended, with what it was started with before, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let http = self.http.clone();
        let part = self.part(name)?;
        part.spawn().await?;
        part.ready(&http, START).await
    }

    /// Directory of logs, records and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A `jitctl` command's JSON answer.
    ///
    /// # Errors
    /// When it cannot be run or answers no JSON.
    pub async fn jitctl(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output =
            tokio::process::Command::new(self.bin.join("jitctl")).args(["--redis-url", &self.redis_url, "--output", "json"]).args(args).output().await?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("jitctl {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// GET, JSON.
    ///
    /// # Errors
    /// When there is no answer, or none of a success.
    pub async fn get(&self, url: &str) -> anyhow::Result<Value> {
        let mut tries = 1;
        let answer = loop {
            match self.http.get(url).send().await {
                // A kept connection that the other side has just closed, or a machine with too much to do: looking again harms nothing.
                Err(error) if tries < LOOKS => tracing::debug!(%error, url, tries, "no answer; looking again"),
                answer => break answer?,
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Ok(answer.error_for_status()?.json().await?)
    }

    /// POST, JSON both ways.
    ///
    /// # Errors
    /// When there is no answer, or none of a success.
    pub async fn post(&self, url: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.http.post(url).json(body).send().await?.error_for_status()?.json().await?)
    }

    /// The receiver's `/metrics`: what the ledger counts.
    ///
    /// # Errors
    /// When the receiver does not answer.
    pub async fn ledger(&self) -> anyhow::Result<Value> {
        self.get(&format!("{}/metrics", self.receiver_url)).await
    }

    /// Sets an organization's limit through the admin API.
    ///
    /// # Errors
    /// When the receiver refuses.
    pub async fn set_limit(&self, org: &str, limit: u64) -> anyhow::Result<()> {
        let url = format!("{}/admin/org-limits/{org}", self.receiver_url);
        self.http.put(url).header("X-Admin-Key", &self.admin_key).json(&serde_json::json!({ "limit": limit })).send().await?.error_for_status()?;
        Ok(())
    }

    /// Where our programs are.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// What happened at GitHub.
    ///
    /// # Errors
    /// When the simulated GitHub does not answer.
    pub async fn summary(&self) -> anyhow::Result<Value> {
        self.get(&format!("{}/_control/summary", self.github_url)).await
    }

    /// Creates jobs at GitHub, which sends their webhooks. Their ids.
    ///
    /// # Errors
    /// When GitHub refuses.
    pub async fn create_jobs(&self, jobs: &Value) -> anyhow::Result<Vec<u64>> {
        let answer = self.post(&format!("{}/_control/jobs", self.github_url), jobs).await?;
        serde_json::from_value(answer["ids"].clone()).context("ids of jobs")
    }

    /// Has things go wrong at GitHub: bodies of `POST /_control/faults`.
    ///
    /// # Errors
    /// When GitHub refuses.
    pub async fn github_faults(&self, faults: &Value) -> anyhow::Result<()> {
        self.post(&format!("{}/_control/faults", self.github_url), faults).await.map(drop)
    }

    /// Has things go wrong with pods: the body of the kubelet's `POST /faults`.
    ///
    /// # Errors
    /// When there is no kubelet, or it refuses.
    pub async fn kubelet_fault(&self, fault: &Value) -> anyhow::Result<()> {
        let url = self.kubelet_url.as_ref().context("runners are processes here: there is no kubelet")?;
        self.post(&format!("{url}/faults"), fault).await.map(drop)
    }

    /// Orders a runner's removal through the admin API.
    ///
    /// # Errors
    /// When the receiver refuses.
    pub async fn remove_runner(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("{}/admin/runners/{name}", self.receiver_url);
        self.http.delete(url).header("X-Admin-Key", &self.admin_key).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends everything: the system first and gracefully, then what it stands on.
    pub async fn stop(mut self) {
        for part in self.parts.iter_mut().filter(|part| !matches!(part.name(), "redis" | "github" | "kubelet")) {
            part.terminate();
        }
        for part in self.parts.iter_mut().rev() {
            part.terminate();
            part.wait_or_kill(Duration::from_secs(10)).await;
        }
        self.end_runners();
        if let Some(namespace) = self.namespace.take() {
            cluster::delete_namespace(&namespace).await;
        }
    }

    /// Runners of the process backend outlive their workers by design.
    fn end_runners(&self) {
        managed::end_recorded_runners(&self.dir.path().join("runners"));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.end_runners();
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where our programs are: beside this one, or one folder up from a test.
fn bin_dir() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let mut dir = here.parent().context("a program lies in a directory")?;
    if dir.file_name().is_some_and(|name| name == "deps") {
        dir = dir.parent().context("deps lies in a directory")?;
    }
    for program in ["jit-receiver", "jit-worker", "jit-beat", "jitctl", "jit-simulator"] {
        if !dir.join(program).exists() {
            bail!("{} is missing: build all programs first (`cargo build --workspace --bins`, as the Makefile does)", dir.join(program).display());
        }
    }
    Ok(dir.to_owned())
}
