//! Runners as processes, with a shell as the runner. A worker that dies is this test program, started again.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in the tests, but not in what they share"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jit_backend::process::Process;
use jit_backend::{Backend, BackendError, Change, Observed, Phase, RunnerSpec, Stopped};
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};
use secrecy::SecretString;

/// Time after which a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// In the environment of this program as a worker: the directory, and what to run.
const TIMEOUT: Duration = Duration::from_secs(10);
const DIR: &str = "JIT_TEST_DIR";
const COMMAND: &str = "JIT_TEST_COMMAND";

fn spec(name: &str) -> RunnerSpec {
    RunnerSpec {
        name: name.into(),
        org: "acme".into(),
        scope: "orgs/acme".into(),
        group: "Default".into(),
        profile: "default".into(),
        labels: vec!["x64".into()],
        job: 4711,
    }
}

fn config() -> SecretString {
    SecretString::from("ENCODED-CONFIG")
}

async fn change(watch: &mut BoxStream<'static, Change>) -> Change {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("a change in time")
        .expect("a watch never ends")
}

async fn seen(watch: &mut BoxStream<'static, Change>, phase: Phase) -> Observed {
    loop {
        match change(watch).await {
            Change::Seen(seen) if seen.phase == phase => return seen,
            _ => {}
        }
    }
}

async fn gone(watch: &mut BoxStream<'static, Change>, name: &str) {
    while change(watch).await != Change::Gone(name.into()) {}
}

async fn until<T>(mut test: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            match test() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it happens in time")
}

/// What a runner has printed, once it contains `text`.
async fn log(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(format!("{name}.log"));
    until(|| std::fs::read_to_string(&path).ok().filter(|log| log.contains(text))).await
}

fn alive(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let zombie = state.is_some_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, fields)| fields.starts_with('Z'))
    });
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !zombie
}

/// Runs one of the workers below as a process of its own until it ends, with these variables besides.
fn run_worker(worker: &str, dir: &Path, command: &str, environment: &[(&str, &str)]) {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", worker, "--ignored"])
        .env(DIR, dir)
        .env(COMMAND, command)
        .envs(environment.iter().copied());
    let status = program.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "the worker killed itself"
    );
}

/// The worker that this program was started as; `None` if it was not.
fn this_worker() -> Option<Process> {
    let dir = std::env::var_os(DIR)?;
    Some(Process::new(&std::env::var(COMMAND).ok()?, Path::new(&dir), TIMEOUT).unwrap())
}

#[tokio::test]
#[ignore = "a worker that others run"]
async fn worker_that_dies_after_deliver() {
    let Some(backend) = this_worker() else { return };
    backend.start(&spec("r-1")).await.unwrap();
    backend.deliver(&spec("r-1"), &config()).await.unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[tokio::test]
#[ignore = "a worker that others run"]
async fn worker_that_dies_after_start() {
    let Some(backend) = this_worker() else { return };
    backend.start(&spec("r-1")).await.unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_runner_ends_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Process::new(
        r#"echo "$RUNNER_NAME has $ACTIONS_RUNNER_INPUT_JITCONFIG"; exit 7"#,
        dir.path(),
        TIMEOUT,
    )
    .unwrap();
    let mut watch = backend.watch();
    assert_eq!(change(&mut watch).await, Change::Restarted);
    assert!(backend.list().await.unwrap().is_empty());

    backend.start(&spec("r-1")).await.unwrap();
    let starting = Observed {
        name: "r-1".into(),
        phase: Phase::Starting,
        rejected: false,
        terminating: false,
        stuck: false,
        spec: Some(spec("r-1")),
        detail: None,
    };
    assert_eq!(change(&mut watch).await, Change::Seen(starting.clone()));
    assert_eq!(backend.list().await.unwrap(), [starting]);

    backend.deliver(&spec("r-1"), &config()).await.unwrap();
    let ended = seen(&mut watch, Phase::Ended).await;
    assert_eq!(
        (ended.detail.as_deref(), ended.spec),
        (Some("exit code 7"), Some(spec("r-1")))
    );
    assert_eq!(log(dir.path(), "r-1", "\n").await, "r-1 has ENCODED-CONFIG\n");
    assert!(
        !std::fs::read_to_string(dir.path().join("r-1.json"))
            .unwrap()
            .contains("ENCODED-CONFIG"),
        "the configuration is on no disk"
    );

    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    gone(&mut watch, "r-1").await;
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Absent);
    assert!(backend.list().await.unwrap().is_empty() && dir.path().join("r-1.log").exists());
}

#[tokio::test]
async fn a_runner_outlives_its_worker() {
    let dir = tempfile::tempdir().unwrap();
    run_worker(
        "worker_that_dies_after_deliver",
        dir.path(),
        "echo $$; exec sleep 1000",
        &[],
    );
    let pid: i32 = log(dir.path(), "r-1", "\n").await.trim().parse().unwrap();

    let backend = Process::new("unused", dir.path(), TIMEOUT).unwrap();
    let mut watch = backend.watch();
    let running = seen(&mut watch, Phase::Running).await;
    assert_eq!((running.name.as_str(), running.spec), ("r-1", Some(spec("r-1"))));
    assert!(alive(pid));
    assert!(matches!(
        backend.deliver(&spec("r-1"), &config()).await,
        Err(BackendError::Exists)
    ));

    // It ends by itself, and nobody is there to write down how.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let ended = seen(&mut watch, Phase::Ended).await;
    assert!(ended.detail.unwrap().contains("nobody knows how"));
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    gone(&mut watch, "r-1").await;
}

#[tokio::test]
async fn a_record_whose_maker_died_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    run_worker("worker_that_dies_after_start", dir.path(), "echo never", &[]);
    let backend = Process::new("unused", dir.path(), TIMEOUT).unwrap();
    let mut watch = backend.watch();
    let ended = seen(&mut watch, Phase::Ended).await;
    assert_eq!((ended.name.as_str(), ended.spec), ("r-1", Some(spec("r-1"))));
    assert!(matches!(backend.start(&spec("r-1")).await, Err(BackendError::Exists)));
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    gone(&mut watch, "r-1").await;
    assert!(matches!(
        backend.deliver(&spec("r-1"), &config()).await,
        Err(BackendError::Gone(_))
    ));
}

#[tokio::test]
async fn a_runner_that_ignores_term_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Process::new("trap '' TERM; sleep 1000 & echo $$ $!; wait; wait", dir.path(), TIMEOUT).unwrap();
    backend.start(&spec("r-1")).await.unwrap();
    backend.deliver(&spec("r-1"), &config()).await.unwrap();
    let pids: Vec<i32> = log(dir.path(), "r-1", "\n")
        .await
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let mut watch = backend.watch();
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    assert!(seen(&mut watch, Phase::Running).await.terminating);
    assert_eq!(
        backend.stop("r-1").await.unwrap(),
        Stopped::Ending,
        "it may be asked for again"
    );
    gone(&mut watch, "r-1").await;
    until(|| pids.iter().all(|pid| !alive(*pid)).then_some(())).await;
}

#[tokio::test]
async fn what_a_job_left_running_ends_with_its_runner() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Process::new("sleep 1000 & echo $!", dir.path(), TIMEOUT).unwrap();
    backend.start(&spec("r-1")).await.unwrap();
    backend.deliver(&spec("r-1"), &config()).await.unwrap();
    let mut watch = backend.watch();
    assert_eq!(
        seen(&mut watch, Phase::Ended).await.detail.as_deref(),
        Some("exit code 0")
    );
    let pid: i32 = log(dir.path(), "r-1", "\n").await.trim().parse().unwrap();
    assert!(alive(pid));
    backend.stop("r-1").await.unwrap();
    gone(&mut watch, "r-1").await;
    until(|| (!alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn two_workers_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let one = Process::new("echo here; exec sleep 1000", dir.path(), TIMEOUT).unwrap();
    let two = Process::new("echo here; exec sleep 1000", dir.path(), TIMEOUT).unwrap();
    let mut watch = two.watch();
    assert_eq!(change(&mut watch).await, Change::Restarted);
    let (config_one, config_two, spec) = (config(), config(), spec("r-1"));
    let made = tokio::join!(one.start(&spec), two.start(&spec));
    assert!(
        matches!(
            made,
            (Ok(()), Err(BackendError::Exists)) | (Err(BackendError::Exists), Ok(()))
        ),
        "{made:?}"
    );
    // Either may deliver, but one alone.
    let delivered = tokio::join!(one.deliver(&spec, &config_one), two.deliver(&spec, &config_two));
    assert!(
        matches!(
            delivered,
            (Ok(()), Err(BackendError::Exists)) | (Err(BackendError::Exists), Ok(()))
        ),
        "{delivered:?}"
    );
    seen(&mut watch, Phase::Running).await;
    assert_eq!(log(dir.path(), "r-1", "here\n").await, "here\n", "it ran once");
    one.stop("r-1").await.unwrap();
    gone(&mut watch, "r-1").await;
}

#[tokio::test]
async fn a_runner_that_is_stopped_before_its_configuration_came_never_runs() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Process::new("echo never", dir.path(), TIMEOUT).unwrap();
    backend.start(&spec("r-1")).await.unwrap();
    assert_eq!(backend.stop("r-1").await.unwrap(), Stopped::Ending);
    assert!(matches!(
        backend.deliver(&spec("r-1"), &config()).await,
        Err(BackendError::Gone(_))
    ));
    assert!(backend.list().await.unwrap().is_empty() && !dir.path().join("r-1.log").exists());
}

#[tokio::test]
async fn no_secret_of_the_worker_reaches_a_runner() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = [
        "GITHUB_PAT",
        "GITHUB_TOKEN",
        "GITHUB_PAT_FILE",
        "GITHUB_APP_PRIVATE_KEY",
        "GITHUB_APP_PRIVATE_KEY_FILE",
        "GITHUB_CREDENTIALS_FILE",
        "WEBHOOK_SECRET",
        "WEBHOOK_SECRET_PREVIOUS",
        "WEBHOOK_SECRET_FILE",
        "ADMIN_API_KEY",
        "ADMIN_API_KEY_FILE",
        "REDIS_PASSWORD",
        "REDIS_PASSWORD_FILE",
        "REDIS_URL",
        "RUNNER_TOKEN",
    ];
    let mut environment: Vec<_> = secrets.iter().map(|name| (*name, "SECRET-OF-THE-WORKER")).collect();
    environment.extend([("RUNNER_LABELS", "x64"), ("LANG", "C.UTF-8")]);
    run_worker(
        "worker_that_dies_after_deliver",
        dir.path(),
        "env; echo done; exec sleep 1000",
        &environment,
    );
    let log = log(dir.path(), "r-1", "done\n").await;
    assert!(
        !log.contains("SECRET-OF-THE-WORKER") && secrets.iter().all(|name| !log.contains(name)),
        "{log}"
    );
    let mut names: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD", "HOME", "TMPDIR"].contains(name));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "ACTIONS_RUNNER_INPUT_JITCONFIG",
            "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE",
            "LANG",
            "PATH",
            "RUNNER_LABELS",
            "RUNNER_NAME"
        ]
    );

    let backend = Process::new("unused", dir.path(), TIMEOUT).unwrap();
    let mut watch = backend.watch();
    seen(&mut watch, Phase::Running).await;
    backend.stop("r-1").await.unwrap();
    gone(&mut watch, "r-1").await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Process::new(" ", dir.path(), TIMEOUT).is_err());
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(Process::new("true", &dir.path().join("file"), TIMEOUT).is_err());
    let backend = Process::new("true", dir.path(), TIMEOUT).unwrap();
    for name in ["../outside", "a/b", ""] {
        assert!(matches!(
            backend.start(&spec(name)).await,
            Err(BackendError::Refused(_))
        ));
        assert_eq!(backend.stop(name).await.unwrap(), Stopped::Absent);
    }
}
