//! One process of the stack: started with a clean environment, its log in a file, ended by its process id.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// How a process shows that it is ready.
#[derive(Clone, Debug)]
enum Ready {
    /// It is as soon as it runs.
    Started,
    /// It takes connections.
    Port(u16),
    /// This URL answers with a success.
    Url(String),
    /// Its log says where its probes are, and `/ready` there answers with a success.
    Probe,
}

/// One process, which can be ended and started again.
pub struct Managed {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    out: PathBuf,
    ready: Ready,
    child: Option<Child>,
    log_from: u64,
    spawned: Instant,
    ready_after: Option<Duration>,
}

impl Managed {
    /// A process that is not started yet. Its log goes to `{dir}/{name}.log`.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub fn new(name: &str, program: &Path, dir: &Path) -> std::io::Result<Self> {
        let (log, out) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.out")));
        File::create(&log)?;
        File::create(&out)?;
        let env = ["PATH", "HOME", "LANG"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .collect();
        Ok(Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env,
            log,
            out,
            ready: Ready::Started,
            child: None,
            log_from: 0,
            spawned: Instant::now(),
            ready_after: None,
        })
    }

    pub(super) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(super) fn envs(mut self, env: &[(String, String)]) -> Self {
        self.env.extend(env.iter().cloned());
        self
    }

    pub(super) fn inherit(mut self, name: &str) -> Self {
        self.env
            .extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        self
    }

    pub(super) fn ready_on_port(mut self, port: u16) -> Self {
        self.ready = Ready::Port(port);
        self
    }

    pub(super) fn ready_on_url(mut self, url: &str) -> Self {
        self.ready = Ready::Url(url.into());
        self
    }

    pub(super) fn ready_on_probe(mut self) -> Self {
        self.ready = Ready::Probe;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Time from its start until it was ready.
    #[must_use]
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Whether it was started, and not ended by us since.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it, and does not wait until it is ready.
    ///
    /// # Errors
    /// When the program cannot be started.
    #[allow(clippy::unused_async)] // its child is bound to the runtime
    pub async fn spawn(&mut self) -> anyhow::Result<()> {
        self.log_from = fs::metadata(&self.log)?.len();
        let append = |path| OpenOptions::new().append(true).open(path);
        // It goes when this process goes, also when that is killed; and Ctrl-C is ours to pass on.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(append(&self.out)?)
            .stderr(append(&self.log)?)
            .process_group(0)
            .kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| {
            format!(
                "cannot start {} ({} by setpriv of util-linux)",
                self.name,
                self.program.display()
            )
        })?);
        (self.spawned, self.ready_after) = (Instant::now(), None);
        Ok(())
    }

    pub(super) async fn ready(&mut self, http: &reqwest::Client, within: Duration) -> anyhow::Result<()> {
        while self.ready_after.is_none() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                self.child = None;
                bail!(
                    "{} ended ({status}) before it was ready:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            let ready = match &self.ready {
                Ready::Started => true,
                Ready::Port(port) => tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_ok(),
                Ready::Url(url) => http
                    .get(url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success()),
                Ready::Probe => match self.probe_url() {
                    Some(url) => http
                        .get(url)
                        .send()
                        .await
                        .is_ok_and(|answer| answer.status().is_success()),
                    None => false,
                },
            };
            if ready {
                self.ready_after = Some(self.spawned.elapsed());
            } else if self.spawned.elapsed() > within {
                bail!(
                    "{} is not ready after {} s:\n{}",
                    self.name,
                    within.as_secs(),
                    self.log_tail()
                );
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Address that a line `"address":"127.0.0.1:1234"` of its log names.
    fn probe_url(&self) -> Option<String> {
        let log = fs::read_to_string(&self.log).ok()?;
        let (_, rest) = log
            .get(usize::try_from(self.log_from).ok()?..)?
            .split_once("\"address\":\"")?;
        Some(format!("http://{}/ready", rest.split('"').next()?))
    }

    /// The first line that it prints.
    pub(super) async fn first_line(&mut self, within: Duration) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            if let Some((line, _)) = fs::read_to_string(&self.out)?.split_once('\n') {
                return Ok(line.to_owned());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > within {
                bail!("{} printed nothing:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sets a variable of its environment, or takes it away; counts from its next start on.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.env.retain(|(other, _)| other != name);
        self.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// SIGSTOP: it stands still, and its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Its exit status, if it has ended by itself or by a signal that was not ours.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// What it has logged since it was started last.
    #[must_use]
    pub fn log_since_start(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(
            log.get(usize::try_from(self.log_from).unwrap_or(0)..)
                .unwrap_or_default(),
        )
        .into_owned()
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and waits for its end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// Waits for its end for so long, then kills it. Its exit status where it ended by itself.
    pub async fn wait_or_kill(&mut self, within: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        if let Ok(status) = tokio::time::timeout(within, child.wait()).await {
            self.child = None;
            return status.ok();
        }
        self.kill().await;
        None
    }
}

pub(super) fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Ends the process groups of runners that the process backend's records name.
pub(super) fn end_recorded_runners(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let record = fs::read(entry.path())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let pid = record
            .as_ref()
            .and_then(|record| record["runner"]["pid"].as_i64())
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
