//! `make demo` as a newcomer meets it: it ends with a summary, two of them do not mind each other, and Ctrl-C leaves
//! nothing behind.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

fn demo(temporary: &Path) -> Child {
    let harness = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("jit-harness");
    Command::new(harness)
        .args(["demo", "--orgs", "8", "--jobs", "40", "--seconds", "3"])
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Processes whose command line or environment names the directory.
fn processes_of(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.display().to_string();
    let names = |path: &Path| {
        ["cmdline", "environ"].iter().any(|file| {
            std::fs::read(path.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&dir))
        })
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| names(path))
        .collect()
}

async fn assert_nothing_is_left(dir: &Path) {
    let began = Instant::now();
    while !processes_of(dir).is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "left: {:?}",
            processes_of(dir)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().collect();
    assert!(files.is_empty(), "left: {files:?}");
}

#[tokio::test]
async fn two_demos_at_once_end_with_a_summary_and_leave_nothing() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = tokio::join!(
        demo(first.path()).wait_with_output(),
        demo(second.path()).wait_with_output()
    );
    for output in [a.unwrap(), b.unwrap()] {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for part in [
            "40 sent, 40 run, 0 lost, 0 twice",
            "invariants   all hold",
            "Every job ran exactly once",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    assert_nothing_is_left(first.path()).await;
    assert_nothing_is_left(second.path()).await;
}

#[tokio::test]
async fn ctrl_c_ends_a_demo_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = demo(dir.path());
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    // In the midst of it: the first line of the live view is there.
    while !lines
        .next_line()
        .await
        .unwrap()
        .expect("a live view")
        .contains("runners of")
    {}
    let id = demo.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert!(!demo.wait().await.unwrap().success(), "it says that it was interrupted");
    assert_nothing_is_left(dir.path()).await;
}
