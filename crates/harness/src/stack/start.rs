//! How a stack is started: its parts, in this order, and the environment of each.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{Backend, Managed, Network, Options, START, Stack, cluster, managed};

/// Name of the file of limits, in the stack's directory.
const ORG_LIMITS: &str = "org-limits.yaml";

impl Stack {
    /// Starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// With the part that did not come up and the end of its log.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        jit_simulator::install_tls();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()?;
        let bin = options.bin.clone().map_or_else(bin_dir, Ok)?;
        let dir = tempfile::Builder::new().prefix("jit-runner-manager-").tempdir()?;
        let (webhook_secret, token, admin_key) = (secret(24)?, secret(20)?, secret(16)?);
        let mut stack = Self {
            redis_url: String::new(),
            receiver_url: String::new(),
            github_url: String::new(),
            admin_key,
            parts: Vec::new(),
            namespace: None,
            kubelet_url: None,
            network: Network::new(),
            http,
            bin,
            dir,
        };
        stack.start_redis().await?;
        stack.start_github(options, &webhook_secret, &token).await?;
        if options.backend == Backend::Kubernetes {
            stack.start_kubelet().await?;
        }
        stack.write_limits(options)?;
        let mut env = stack.environment(options);
        let receiver_env = stack.environment_of("receiver", &env, options).await?;
        stack.start_receiver(&receiver_env, &webhook_secret).await?;
        env.insert(0, ("WEBHOOK_URL".to_owned(), format!("{}/webhook", stack.receiver_url)));
        stack
            .post(
                &format!("{}/_control/webhook", stack.github_url),
                &serde_json::json!({ "url": format!("{}/webhook", stack.receiver_url) }),
            )
            .await?;
        stack.add_workers(&env, options).await?;
        let beat_env = stack.environment_of("beat", &env, options).await?;
        let beat = stack.program("beat", "jit-beat", &[])?.envs(&beat_env).ready_on_probe();
        stack.parts.push(beat);
        for part in stack.parts.iter_mut().filter(|part| !part.is_running()) {
            part.spawn().await?;
        }
        for index in 0..stack.parts.len() {
            stack.parts[index].ready(&stack.http, START).await?;
        }
        Ok(stack)
    }

    async fn start_kubelet(&mut self) -> anyhow::Result<()> {
        let namespace = cluster::create_namespace().await?;
        let control = format!("127.0.0.1:{}", free_port()?);
        let args = [
            "kubelet",
            "--namespace",
            &namespace,
            "--node",
            &namespace,
            "--control",
            &control,
        ];
        let kubelet = self
            .program("kubelet", "jit-simulator", &args)?
            .inherit("KUBECONFIG")
            .ready_on_url(&format!("http://{control}/counts"));
        self.kubelet_url = Some(format!("http://{control}"));
        self.namespace = Some(namespace);
        self.parts.push(kubelet);
        self.part("kubelet")?.spawn().await?;
        Ok(())
    }

    fn write_limits(&self, options: &Options) -> std::io::Result<()> {
        let limits: Vec<String> = options
            .org_limits
            .iter()
            .map(|(org, limit)| format!("  {org}: {limit}\n"))
            .collect();
        std::fs::write(
            self.dir.path().join(ORG_LIMITS),
            format!("org_limits:\n{}", limits.concat()),
        )
    }

    async fn add_workers(&mut self, common: &[(String, String)], options: &Options) -> anyhow::Result<()> {
        for number in 1..=options.workers {
            let name = format!("worker-{number}");
            let mut env = self.environment_of(&name, common, options).await?;
            env.extend(
                options
                    .clocks
                    .get(number - 1)
                    .filter(|ahead| **ahead != 0)
                    .map(|ahead| clock(*ahead))
                    .transpose()?
                    .into_iter()
                    .flatten(),
            );
            let mut worker = self.program(&name, "jit-worker", &[])?.envs(&env).ready_on_probe();
            if options.backend == Backend::Kubernetes && !options.proxies && !options.gate {
                worker = worker.inherit("KUBECONFIG");
            }
            self.parts.push(worker);
        }
        Ok(())
    }

    fn environment(&self, options: &Options) -> Vec<(String, String)> {
        let token_file = self.dir.path().join("token").display().to_string();
        let org_limits = self.dir.path().join(ORG_LIMITS).display().to_string();
        let mut env: Vec<(String, String)> = [
            ("GHES_URL", self.github_url.as_str()),
            ("GITHUB_PAT_FILE", &token_file),
            ("REDIS_URL", &self.redis_url),
            ("LISTEN_ADDRESS", "127.0.0.1"),
            ("PORT", "0"),
            ("ORG_LIMITS_FILE", &org_limits),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        match &self.namespace {
            Some(namespace) => env.extend([("RUNNER_NAMESPACE".to_owned(), namespace.clone())]),
            None => env.extend([
                ("RUNNER_BACKEND".to_owned(), "process".to_owned()),
                (
                    "RUNNER_COMMAND".to_owned(),
                    format!("exec '{}' runner", self.bin.join("jit-simulator").display()),
                ),
                (
                    "RUNNER_DIRECTORY".to_owned(),
                    self.dir.path().join("runners").display().to_string(),
                ),
            ]),
        }
        // Whoever brings credentials of its own needs no token.
        if options
            .env
            .iter()
            .any(|(name, _)| matches!(name.as_str(), "GITHUB_APP_ID" | "GITHUB_CREDENTIALS_FILE"))
        {
            env.retain(|(name, _)| name != "GITHUB_PAT_FILE");
        }
        env.extend(options.env.iter().cloned());
        env
    }

    /// The common environment, with this part's own ways to Redis and the API server.
    async fn environment_of(
        &mut self,
        part: &str,
        common: &[(String, String)],
        options: &Options,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let mut env = common.to_vec();
        if options.proxies {
            env.retain(|(name, _)| name != "REDIS_URL");
            env.push((
                "REDIS_URL".to_owned(),
                self.network.redis_for(part, &self.redis_url).await?,
            ));
            if options.backend == Backend::Kubernetes && part.starts_with("worker") {
                let path = self.dir.path().join(format!("{part}.kubeconfig"));
                self.network.kubernetes_for(part, &path).await?;
                env.push(("KUBECONFIG".to_owned(), path.display().to_string()));
            }
        } else if options.gate && options.backend == Backend::Kubernetes && part.starts_with("worker") {
            let path = self.dir.path().join(format!("{part}.kubeconfig"));
            self.network.gated(&path).await?;
            env.push(("KUBECONFIG".to_owned(), path.display().to_string()));
        }
        Ok(env)
    }

    async fn start_redis(&mut self) -> anyhow::Result<()> {
        for _ in 0..20 {
            let port = free_port()?;
            let data = self.dir.path().join("redis");
            std::fs::create_dir_all(&data)?;
            let args = [
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--maxmemory-policy",
                "noeviction",
            ];
            let redis = Managed::new("redis", Path::new("redis-server"), self.dir.path())?
                .args(&args)
                .args(&["--dir", &data.display().to_string()])
                .ready_on_port(port);
            self.parts.push(redis);
            self.redis_url = format!("redis://127.0.0.1:{port}/0");
            let (http, part) = (self.http.clone(), self.part("redis")?);
            part.spawn()
                .await
                .context("redis-server: `make demo` and `make test` install it")?;
            if part.ready(&http, START).await.is_ok() {
                return Ok(());
            }
            self.parts.clear(); // the port was taken meanwhile
        }
        bail!("no free port for Redis")
    }

    async fn start_github(&mut self, options: &Options, webhook_secret: &str, token: &str) -> anyhow::Result<()> {
        let (secret_file, token_file, port_file) = (
            self.dir.path().join("webhook-secret"),
            self.dir.path().join("token"),
            self.dir.path().join("github-url"),
        );
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
        let github = self
            .program("github", "jit-simulator", &args)?
            .args(&options.github_args.iter().map(String::as_str).collect::<Vec<_>>());
        self.parts.push(github);
        let part = self.part("github")?;
        part.spawn().await?;
        let line = part.first_line(START).await?;
        let url = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|value| value["url"].as_str().map(str::to_owned));
        self.github_url =
            url.with_context(|| format!("the simulated GitHub did not say where it listens: {line:?}"))?;
        Ok(())
    }

    async fn start_receiver(&mut self, env: &[(String, String)], webhook_secret: &str) -> anyhow::Result<()> {
        for _ in 0..20 {
            let port = free_port()?;
            let secrets = [
                ("PORT", port.to_string()),
                ("WEBHOOK_SECRET", webhook_secret.to_owned()),
                ("ADMIN_API_KEY", self.admin_key.clone()),
            ];
            let secrets: Vec<_> = secrets.map(|(name, value)| (name.to_owned(), value)).into();
            let receiver = self
                .program("receiver", "jit-receiver", &[])?
                .envs(env)
                .envs(&secrets)
                .ready_on_url(&format!("http://127.0.0.1:{port}/ready"));
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
}

/// So many random bytes, in hex.
fn secret(bytes: usize) -> anyhow::Result<String> {
    let mut buffer = vec![0; bytes];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut buffer)
        .map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(hex::encode(buffer))
}

/// Has a program's wall clock be `ahead` seconds fast; what it waits by goes on as it is.
fn clock(ahead: i64) -> anyhow::Result<[(String, String); 3]> {
    const PLACES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    let library = PLACES
        .iter()
        .find(|path| Path::new(path).exists())
        .context("libfaketime is missing: `make libfaketime` installs it")?;
    Ok([
        ("LD_PRELOAD", (*library).to_owned()),
        ("FAKETIME", format!("{ahead:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value)))
}

/// A port that was free a moment ago. It lies below those from which the kernel serves outgoing connections, so that a
/// part that is killed and started again finds it free, and below those that the test's API server takes.
pub(super) fn free_port() -> std::io::Result<u16> {
    let mut tries = 100;
    loop {
        match TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..20_000))) {
            Ok(listener) => return Ok(listener.local_addr()?.port()),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
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
            bail!(
                "{} is missing: build all programs first (`cargo build --workspace --bins`, as the Makefile does)",
                dir.join(program).display()
            );
        }
    }
    Ok(dir.to_owned())
}
