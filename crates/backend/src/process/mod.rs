//! Runners as processes of this host: for the demo, and for a single host whose jobs are trusted.
//!
//! [`Backend::start`] writes a record into a directory that the host's workers share (`records.rs`);
//! [`Backend::deliver`] starts the runner. What holds:
//!
//! * A runner outlives its worker, however that ends. It leads a process group of its own; the worker holds nothing
//!   that it needs.
//! * No runner without a record. What is started first is a shell that waits for a word on its standard input; the word
//!   is given when the record holds the process, and a worker that dies before closes the pipe, upon which the shell
//!   ends.
//! * A runner gets none of the worker's secrets: its environment is made from nothing.
//!
//! There is no isolation: a job can do what the worker's user can.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use jit_core::{config::DEFAULT_PROFILE, ledger::places::Places};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::watch as changes;
use tokio::time::{Instant, sleep};

use self::environment::environment;
use self::ident::Ident;
use self::records::{Entry, Record, Registry, valid};
use self::watch::Watching;
use crate::{Backend, BackendError, Change, Observed, RunnerSpec, Stopped, TELLS_TOO_OLD};

mod environment;
mod ident;
mod records;
mod watch;

/// How often the directory is looked at for what other workers did, and for the end of runners whose worker is gone.
const POLL: Duration = Duration::from_millis(250);
/// Time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// How often a runner that was told to end is looked at.
const ENDING_POLL: Duration = Duration::from_millis(20);
/// Waits for its word, then becomes the command (`$1`).
const GATE: &str = r#"read -r word || exit 1; exec /bin/sh -c "$1" </dev/null"#;
/// Runners as processes of this host.
#[derive(Clone)]
pub struct Process {
    command: Arc<str>,
    environment: Arc<[(OsString, OsString)]>,
    registry: Registry,
    /// This process.
    us: Ident,
    /// So long one request may take; all of them are local.
    timeout: Duration,
    /// Told of every change that this worker makes, so that its own watch need not wait for the next look.
    changed: Arc<changes::Sender<()>>,
}

impl Process {
    /// `command` is run by `/bin/sh -c` with `ACTIONS_RUNNER_INPUT_JITCONFIG`,
    /// `ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE`, `RUNNER_NAME`, and of the worker's environment `PATH`,
    /// `HOME`, `LANG`, `TMPDIR` and `RUNNER_*` (but for what looks like a secret). Whatever else a runner needs, a
    /// proxy say, the command sets. It should `exec` the runner, whose exit code then is reported. `dir` holds the
    /// records and logs.
    ///
    /// # Errors
    /// An empty command, or a directory that cannot be made or written to.
    pub fn new(command: &str, dir: &Path, timeout: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !command.trim().is_empty(),
            "no command to start a runner with: set RUNNER_COMMAND"
        );
        let registry = Registry::open(dir).with_context(|| format!("cannot use {} for runners", dir.display()))?;
        let us = Ident::of(std::process::id()).context("cannot read /proc: processes need Linux")?;
        Ok(Self {
            command: command.into(),
            environment: environment(std::env::vars_os()).into(),
            registry,
            us,
            timeout,
            changed: Arc::new(changes::Sender::new(())),
        })
    }

    /// Works on the registry where waiting for its lock holds nobody up, and tells the watch.
    async fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let done = in_time(self.timeout, &self.registry, work).await;
        self.changed.send_replace(());
        done
    }

    /// Starts the shell that waits for its word.
    async fn spawn(&self, name: &str, jit_config: &SecretString) -> Result<(Child, Ident), BackendError> {
        let file = name.to_owned();
        let (output, errors) = self
            .on(move |registry| registry.log(&file).and_then(|log| Ok((log.try_clone()?, log))))
            .await?;
        let child = Command::new("/bin/sh")
            .args(["-c", GATE, "runner", &self.command])
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env(TELLS_TOO_OLD.0, TELLS_TOO_OLD.1)
            .env("RUNNER_NAME", name)
            .env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit_config.expose_secret())
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(unavailable)?;
        let runner = child
            .id()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
            .and_then(Ident::of)
            .map_err(unavailable)?;
        Ok((child, runner))
    }

    /// Starts a runner, unless its record is gone or another worker was there before.
    async fn hand_over(self, name: String, jit_config: SecretString) -> Result<(), BackendError> {
        let gone = || BackendError::Gone("its record was removed".into());
        let key = name.clone();
        let Some(Entry::Record(_)) = self.on(move |registry| registry.read(&key)).await? else {
            return Err(gone());
        };
        let (mut child, runner) = self.spawn(&name, &jit_config).await?;
        let word = child.stdin.take();
        let (key, us) = (name.clone(), self.us.clone());
        let claimed = self
            .on(move |registry| registry.update(&key, |record| claim(record, us, runner)))
            .await;
        if let Err(refused) = claimed.and_then(|claimed| claimed.unwrap_or_else(|| Err(gone()))) {
            drop(word); // upon which the shell ends
            match refused {
                // The record may yet come to hold it: somebody has to write down its end.
                BackendError::Unavailable(_) => drop(tokio::spawn(self.attend(name, child))),
                _ => drop(child.wait().await),
            }
            return Err(refused);
        }
        if let Some(mut word) = word
            && let Err(error) = word.write_all(b"go\n").await
        {
            tracing::warn!(
                runner.name = name,
                error = error.to_string(),
                "a runner ended before it began"
            );
        }
        tokio::spawn(self.attend(name, child));
        Ok(())
    }

    /// Waits for a runner's end and writes it down, unless its record has been removed.
    async fn attend(self, name: String, mut child: Child) {
        let how = child
            .wait()
            .await
            .map_or_else(|error| format!("nobody knows how: {error}"), how);
        // Until it is written down the runner counts as running, so a full disk must not end the attempt.
        loop {
            let (key, text) = (name.clone(), how.clone());
            match self
                .on(move |registry| registry.update(&key, |record| record.ended = Some(text)))
                .await
            {
                Ok(_) => return,
                Err(error) => tracing::warn!(
                    runner.name = name,
                    error = error.to_string(),
                    "cannot write down that a runner ended"
                ),
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends a runner that was told to, by force after [`GRACE`], then removes its record.
    async fn end(self, name: String, runner: Ident) {
        let deadline = Instant::now() + GRACE;
        while runner.alive() && Instant::now() < deadline {
            sleep(ENDING_POLL).await;
        }
        // All of the group: what a job left running ends with its runner.
        signal(&runner, Signal::KILL);
        while runner.alive() {
            sleep(ENDING_POLL).await;
        }
        let key = name.clone();
        if let Err(error) = self.on(move |registry| registry.remove(&key)).await {
            tracing::warn!(
                runner.name = name,
                error = error.to_string(),
                "cannot remove the record of a runner"
            );
        }
    }
}

#[async_trait]
impl Backend for Process {
    async fn start(&self, spec: &RunnerSpec) -> Result<(), BackendError> {
        if !valid(&spec.name) {
            return Err(BackendError::Refused(format!(
                "{:?} is not a DNS-1123 label",
                spec.name
            )));
        }
        let record = Record {
            spec: spec.clone(),
            worker: self.us.clone(),
            runner: None,
            ended: None,
            stopping: false,
        };
        if self.on(move |registry| registry.create(&record)).await? {
            Ok(())
        } else {
            Err(BackendError::Exists)
        }
    }

    async fn deliver(&self, spec: &RunnerSpec, jit_config: &SecretString) -> Result<(), BackendError> {
        // A task of its own: a caller that stops waiting must not leave a runner that nobody waits for.
        let delivery = tokio::spawn(self.clone().hand_over(spec.name.clone(), jit_config.clone()));
        delivery.await.map_err(io::Error::other).map_err(unavailable)?
    }

    async fn may_deliver(&self, _: &RunnerSpec) -> Result<(), BackendError> {
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<Stopped, BackendError> {
        if !valid(name) {
            return Ok(Stopped::Absent);
        }
        let key = name.to_owned();
        let runner = self.on(move |registry| {
            match registry.read(&key)? {
                None => return Ok(None),
                Some(Entry::Unreadable(_)) => return registry.remove(&key).map(|()| Some(None)),
                Some(Entry::Record(_)) => {}
            }
            registry.update(&key, |record| {
                record.stopping = true;
                record.runner.clone()
            })
        });
        let name = name.to_owned();
        match runner.await? {
            None => return Ok(Stopped::Absent),
            Some(None) => self.on(move |registry| registry.remove(&name)).await?,
            Some(Some(runner)) => {
                signal(&runner, Signal::TERM);
                tokio::spawn(self.clone().end(name, runner));
            }
        }
        Ok(Stopped::Ending)
    }

    async fn list(&self) -> Result<Vec<Observed>, BackendError> {
        in_time(self.timeout, &self.registry, Registry::list).await
    }

    fn places(&self) -> Places {
        [(
            DEFAULT_PROFILE.to_owned(),
            format!("process{}/{}", self.registry.dir().display(), self.registry.id()),
        )]
        .into()
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        let watching = Watching {
            process: self.clone(),
            changed: self.changed.subscribe(),
            known: BTreeMap::new(),
            told: [Change::Restarted].into(),
            first: true,
        };
        stream::unfold(watching, |mut watching| async {
            Some((watching.next().await, watching))
        })
        .boxed()
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Writes the process into its record, unless somebody was there before or wants it gone.
fn claim(record: &mut Record, us: Ident, runner: Ident) -> Result<(), BackendError> {
    if record.runner.is_some() {
        return Err(BackendError::Exists);
    }
    if record.stopping {
        return Err(BackendError::Gone("it was told to end".into()));
    }
    record.worker = us;
    record.runner = Some(runner);
    Ok(())
}

/// Signals the group that a runner leads or led; an id that has passed to another process is left alone.
fn signal(runner: &Ident, signal: Signal) {
    let group = i32::try_from(runner.pid).ok().and_then(Pid::from_raw);
    if let Some(group) = group.filter(|_| !runner.replaced()) {
        // No such group is what we want.
        let _ = kill_process_group(group, signal);
    }
}

/// Works on the registry, but not for ever: another worker could hold its lock and be stopped.
async fn in_time<T: Send + 'static>(
    timeout: Duration,
    registry: &Registry,
    work: impl FnOnce(&Registry) -> io::Result<T> + Send + 'static,
) -> Result<T, BackendError> {
    let registry = registry.clone();
    let work = tokio::task::spawn_blocking(move || work(&registry));
    let done = tokio::time::timeout(timeout, work).await.map_err(io::Error::from);
    done.and_then(|done| done.map_err(io::Error::other)?)
        .map_err(unavailable)
}

/// How a process ended.
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn unavailable(error: io::Error) -> BackendError {
    BackendError::Unavailable(crate::bounded(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the shell does when its worker dies before the record holds it.
    #[test]
    fn without_its_word_nothing_runs() {
        let run = |word: &str| {
            let mut shell = std::process::Command::new("/bin/sh");
            let shell = shell
                .args(["-c", GATE, "runner", "cat; echo ran; exit 7"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            io::Write::write_all(&mut child.stdin.take().unwrap(), word.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            (String::from_utf8(output.stdout).unwrap(), output.status.code())
        };
        assert_eq!(run(""), (String::new(), Some(1)));
        assert_eq!(
            run("go\nand what follows is not the runner's to read"),
            ("ran\n".to_owned(), Some(7))
        );
    }

    #[test]
    fn a_runner_that_is_wanted_gone_is_not_started() {
        let us = Ident::of(std::process::id()).unwrap();
        let record = records::record("r", us.clone());
        assert!(claim(&mut record.clone(), us.clone(), us.clone()).is_ok());
        let mut unwanted = Record {
            stopping: true,
            ..record.clone()
        };
        let refused = claim(&mut unwanted, us.clone(), us.clone());
        assert!(matches!(refused, Err(BackendError::Gone(_))));
        let mut running = Record {
            runner: Some(us.clone()),
            ..record
        };
        assert!(matches!(claim(&mut running, us.clone(), us), Err(BackendError::Exists)));
    }
}
