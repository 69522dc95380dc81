//! The directory that the workers of one host share, and in which each runner process has a record.
//!
//! * `{name}.json` is the record. Whole records only: written beside it and renamed.
//! * `{name}.log` is what the runner printed. The last [`LOGS_KEPT`] outlive their runners.
//! * `.lock` holds the directory's id. It is locked for every change, and shared for every reading of the whole, so a
//!   listing is consistent. The kernel drops a lock with the process that held it, so nothing a worker's death leaves
//!   behind needs cleaning up.
//!
//! Only workers that see each
//! other's processes can share a directory: not two containers with process ids of their own.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ident::Ident;
use crate::{Observed, Phase, RunnerSpec, bounded};

/// Logs of ended runners that are kept.
const LOGS_KEPT: usize = 100;

/// What is known about one runner process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: RunnerSpec,
    /// The worker that made it and, once it runs, waits for its end.
    pub(super) worker: Ident,
    /// The runner, leader of its own process group; `None` until its configuration came.
    pub(super) runner: Option<Ident>,
    /// How it ended, written by its worker.
    pub(super) ended: Option<String>,
    /// Somebody asked for its end.
    pub(super) stopping: bool,
}

impl Record {
    fn observe(self) -> Observed {
        let orphaned = !self.worker.alive();
        let (phase, detail) = match (&self.runner, self.ended) {
            (_, Some(how)) => (Phase::Ended, Some(how)),
            (None, None) if orphaned => (
                Phase::Ended,
                Some("the worker that made it ended before the runner began".to_owned()),
            ),
            (None, None) => (Phase::Starting, None),
            (Some(runner), None) if runner.alive() => (Phase::Running, None),
            (Some(_), None) if orphaned => (
                Phase::Ended,
                Some("ended after its worker did, so nobody knows how".to_owned()),
            ),
            // Its worker is about to write down how it ended.
            (Some(_), None) => (Phase::Running, None),
        };
        Observed {
            name: self.spec.name.clone(),
            phase,
            rejected: false,
            terminating: self.stopping,
            stuck: false,
            spec: Some(self.spec),
            detail,
        }
    }
}

/// What lies under a runner's name.
pub(super) enum Entry {
    Record(Box<Record>),
    /// Something that no worker of ours wrote.
    Unreadable(String),
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    dir: PathBuf,
    /// Id of the directory, since another host may have one of this path.
    id: String,
}

impl Registry {
    /// Opens the directory, and makes it (for its owner alone) where there is none.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        let mut registry = Self {
            dir: dir.canonicalize()?,
            id: String::new(),
        };
        let mut lock = registry.lock_file()?;
        lock.lock()?;
        lock.read_to_string(&mut registry.id)?;
        if registry.id.is_empty() {
            registry.id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
            lock.write_all(registry.id.as_bytes())?;
        }
        Ok(registry)
    }

    /// Path of the directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Id of the directory, for as long as there is the directory.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Writes the record of a new runner; `false` if there is one of that name.
    pub(super) fn create(&self, record: &Record) -> io::Result<bool> {
        let lock = self.lock_file()?;
        lock.lock()?;
        let name = &record.spec.name;
        if self.path(name, "json").try_exists()? {
            return Ok(false);
        }
        self.write(name, record).map(|()| true)
    }

    /// What lies under a name.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Entry>> {
        let path = self.path(name, "json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.spec.name == name => Entry::Record(Box::new(record)),
                Ok(_) => Entry::Unreadable("its record is another runner's".to_owned()),
                Err(error) => Entry::Unreadable(format!("its record cannot be read: {error}")),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Ok(Some(Entry::Unreadable(format!("its record cannot be read: {error}")))),
        }
    }

    /// Changes a record as `change` says, which answers with what the caller is to be told. `None` if there is no
    /// (readable) record.
    pub(super) fn update<T>(&self, name: &str, change: impl FnOnce(&mut Record) -> T) -> io::Result<Option<T>> {
        let lock = self.lock_file()?;
        lock.lock()?;
        let Some(Entry::Record(mut record)) = self.read(name)? else {
            return Ok(None);
        };
        let told = change(&mut record);
        self.write(name, &record)?;
        Ok(Some(told))
    }

    /// Removes a record, and the oldest of the logs whose runners are gone.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let lock = self.lock_file()?;
        lock.lock()?;
        match fs::remove_file(self.path(name, "json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut logs = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension() == Some(OsStr::new("log")) && !path.with_extension("json").exists() {
                logs.push((entry.metadata()?.modified()?, path));
            }
        }
        logs.sort();
        for (_, log) in logs.iter().take(logs.len().saturating_sub(LOGS_KEPT)) {
            fs::remove_file(log)?;
        }
        Ok(())
    }

    /// Every runner, as it is now.
    pub(super) fn list(&self) -> io::Result<Vec<Observed>> {
        let lock = self.lock_file()?;
        lock.lock_shared()?;
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(OsStr::to_str).filter(|name| valid(name));
            let Some(name) = name.filter(|_| path.extension() == Some(OsStr::new("json"))) else {
                continue;
            };
            match self.read(name)? {
                Some(Entry::Record(record)) => all.push(record.observe()),
                // Nobody can tell what it runs, if anything: it is for whoever reconciles to remove.
                Some(Entry::Unreadable(why)) => {
                    all.push(Observed {
                        name: name.to_owned(),
                        phase: Phase::Ended,
                        rejected: false,
                        terminating: false,
                        stuck: false,
                        spec: None,
                        detail: Some(bounded(&why)),
                    });
                }
                None => {}
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The file that takes what a runner prints.
    pub(super) fn log(&self, name: &str) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path(name, "log"))
    }

    fn write(&self, name: &str, record: &Record) -> io::Result<()> {
        let beside = self.path(name, "new");
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        serde_json::to_writer_pretty(&mut file, record)?;
        fs::rename(&beside, self.path(name, "json"))
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(self.dir.join(".lock"))
    }
}

/// Whether a name is a DNS-1123 label, as runners' names are; anything else must not become a path.
pub(super) fn valid(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| plain(c) || c == '-')
        && name.starts_with(plain)
        && name.ends_with(plain)
}

/// The record of a runner that has not started.
#[cfg(test)]
pub(super) fn record(name: &str, worker: Ident) -> Record {
    let spec = RunnerSpec {
        name: name.into(),
        org: "acme".into(),
        scope: "orgs/acme".into(),
        group: "Default".into(),
        profile: "default".into(),
        labels: vec!["x64".into()],
        job: 1,
    };
    Record {
        spec,
        worker,
        runner: None,
        ended: None,
        stopping: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_the_first_who_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&dir.path().join("made/here")).unwrap();
        let us = Ident::of(std::process::id()).unwrap();
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let (registry, record) = (registry.clone(), record("r-1", us.clone()));
                std::thread::spawn(move || registry.create(&record).unwrap())
            })
            .collect();
        assert_eq!(
            takers
                .into_iter()
                .map(|taker| taker.join().unwrap())
                .filter(|taken| *taken)
                .count(),
            1
        );
    }

    #[test]
    fn what_its_worker_left_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        registry
            .create(&record("r-1", Ident::of(std::process::id()).unwrap()))
            .unwrap();
        registry.create(&record("r-2", Ident::another())).unwrap();
        registry
            .create(&Record {
                runner: Some(Ident::another()),
                ..record("r-3", Ident::another())
            })
            .unwrap();
        registry
            .create(&Record {
                runner: Some(Ident::another()),
                ..record("r-4", Ident::of(std::process::id()).unwrap())
            })
            .unwrap();
        let phases: Vec<_> = registry.list().unwrap().into_iter().map(|seen| seen.phase).collect();
        assert_eq!(phases, [Phase::Starting, Phase::Ended, Phase::Ended, Phase::Running]);
    }

    #[test]
    fn files_of_others_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let us = Ident::of(std::process::id()).unwrap();
        registry.create(&record("r-1", us.clone())).unwrap();
        let half = fs::read(dir.path().join("r-1.json")).unwrap();
        fs::write(dir.path().join("r-2.json"), &half[..half.len() / 2]).unwrap();
        fs::write(dir.path().join("r-3.json"), "").unwrap();
        fs::write(dir.path().join("r-4.json"), &half).unwrap();
        fs::create_dir(dir.path().join("r-5.json")).unwrap();
        fs::write(dir.path().join("r-6.new"), &half).unwrap();
        fs::write(dir.path().join("README.json"), "hello").unwrap();
        fs::write(dir.path().join("notes.txt"), "hello").unwrap();
        let seen: Vec<_> = registry
            .list()
            .unwrap()
            .into_iter()
            .map(|seen| (seen.name, seen.spec.is_some()))
            .collect();
        let expected = [
            ("r-1", true),
            ("r-2", false),
            ("r-3", false),
            ("r-4", false),
            ("r-5", false),
        ];
        assert_eq!(seen, expected.map(|(name, whole)| (name.to_owned(), whole)));
        assert!(registry.update("r-2", |_| ()).unwrap().is_none() && registry.update("r-9", |_| ()).unwrap().is_none());
        assert!(!registry.create(&record("r-3", us)).unwrap(), "nobody knows what it is");
        registry.remove("r-3").unwrap();
        registry.remove("r-3").unwrap();
    }

    #[test]
    fn the_last_logs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        registry
            .create(&record("r-0", Ident::of(std::process::id()).unwrap()))
            .unwrap();
        for n in 0..=LOGS_KEPT + 2 {
            let modified = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            registry.log(&format!("r-{n}")).unwrap().set_modified(modified).unwrap();
        }
        registry.remove("r-102").unwrap();
        let kept = |n: usize| dir.path().join(format!("r-{n}.log")).exists();
        assert_eq!(
            (kept(0), kept(1), kept(2), kept(3), kept(102)),
            (true, false, false, true, true)
        );
    }

    #[test]
    fn names_that_are_no_names() {
        assert!(valid("jit-runner-4711-1") && valid("a"));
        for name in ["", ".", "..", "a/b", "A", "a.b", "-a", "a-", "é", &"a".repeat(64)] {
            assert!(!valid(name), "{name}");
        }
    }
}
