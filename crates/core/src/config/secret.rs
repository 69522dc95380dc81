//! Secrets: from the environment, or from a file that is read again when it changes.
//!
//! A secret that we show to others (a token, a password) is used as it was last known when its file is gone: a mount
//! that fails for a moment must not stop the work. One that others have to show us (a webhook's secret, an admin key)
//! is a [`Door`]: whoever empties or removes its file wants it accepted no more, so it is not.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};

use super::Problems;

/// A file is looked at for changes at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that is empty or gone for so long is so on purpose: one that is being written anew is so for a moment.
const GONE_AFTER: Duration = Duration::from_secs(2);

/// A secret that can be rotated while the process runs. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Value(SecretString),
    File { path: PathBuf, read: Mutex<Read> },
}

struct Read {
    value: SecretString,
    /// Since when there is nothing to be read, and why.
    gone: Option<(Instant, String)>,
    looked: Instant,
}

/// All files of secrets of this process, to tell of those that are gone.
static FILES: Mutex<Vec<Weak<Source>>> = Mutex::new(Vec::new());

/// The files of secrets of this process that cannot be read any more, each with what is wrong.
#[must_use]
pub fn gone_files() -> Vec<String> {
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    files.retain(|file| file.strong_count() > 0);
    let secrets = files.iter().filter_map(Weak::upgrade).map(Secret);
    let told: std::collections::BTreeSet<String> = secrets.filter_map(|secret| secret.gone()).collect();
    told.into_iter().collect()
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self.0 {
            Source::Value(_) => "Secret(from the environment)",
            Source::File { .. } => "Secret(from a file)",
        })
    }
}

impl Secret {
    /// A fixed secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Arc::new(Source::Value(SecretString::from(value.into()))))
    }

    /// The content of a file, which is read again when it changes.
    ///
    /// # Errors
    /// When it cannot be read or is empty, in a sentence.
    pub fn file(path: &Path) -> Result<Self, String> {
        let read = Mutex::new(Read {
            value: read(path)?,
            gone: None,
            looked: Instant::now(),
        });
        let source = Arc::new(Source::File {
            path: path.to_owned(),
            read,
        });
        FILES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(&source));
        Ok(Self(source))
    }

    /// Whether both are taken from the same file, or are the same value.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Source::File { path: a, .. }, Source::File { path: b, .. }) => a == b,
            (Source::Value(a), Source::Value(b)) => a.expose_secret() == b.expose_secret(),
            _ => false,
        }
    }

    /// The secret called `variable`: its value in the environment, or the content of the file at `file`. An empty value
    /// counts as none. Both at once, an unreadable and an empty file are noted as problems.
    pub fn resolve(variable: &str, file: Option<&Path>, problems: &mut Problems) -> Option<Self> {
        let value = std::env::var(variable)
            .ok()
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty());
        match (value, file.filter(|path| !path.as_os_str().is_empty())) {
            (Some(_), Some(_)) => {
                problems.add(format!("{variable} and {variable}_FILE are both set: keep one"));
                None
            }
            (Some(value), None) => Some(Self::new(value)),
            (None, Some(path)) => match Self::file(path) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    problems.add(format!("{variable}_FILE={}: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// The secret as it was last known: what we show to others.
    #[must_use]
    pub fn get(&self) -> SecretString {
        match &*self.0 {
            Source::Value(value) => value.clone(),
            Source::File { path, read } => look(path, read).0,
        }
    }

    /// The secret as it stands: none where its file is empty or gone.
    fn standing(&self) -> Option<SecretString> {
        match &*self.0 {
            Source::Value(value) => Some(value.clone()),
            Source::File { path, read } => {
                let (value, gone) = look(path, read);
                gone.is_none().then_some(value)
            }
        }
    }

    /// A sentence about the secret's file if that is gone.
    fn gone(&self) -> Option<String> {
        let Source::File { path, read } = &*self.0 else {
            return None;
        };
        look(path, read)
            .1
            .map(|why| format!("a secret's file is gone: {} {why}", path.display()))
    }

    /// The next [`Self::get`] looks at the file again, however soon it comes.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        if let (Source::File { read, .. }, Some(long_ago)) = (&*self.0, Instant::now().checked_sub(LOOK_EVERY)) {
            read.lock().unwrap_or_else(PoisonError::into_inner).looked = long_ago;
        }
    }

    /// As much time goes by as makes a file that is gone one that is gone on purpose.
    #[cfg(test)]
    fn wait(&self) {
        let _ = self.get();
        if let (Source::File { read, .. }, Some(long_ago)) = (&*self.0, Instant::now().checked_sub(GONE_AFTER)) {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            read.gone = read.gone.take().map(|(_, why)| (long_ago, why));
        }
        self.look_again();
    }
}

/// A secret that others have to show us. What its file does not hold any more is accepted no more.
#[derive(Clone, Debug)]
pub struct Door(Secret);

impl Door {
    /// A door that this opens, always.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Secret::new(value))
    }

    /// The secret as it stands; none where its file is empty or gone: nothing is accepted then.
    #[must_use]
    pub fn secret(&self) -> Option<SecretString> {
        self.0.standing()
    }

    /// Whether `given` is the secret as it stands. The time it takes does not depend on where they differ.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        // Equal lengths are what the comparison leaks otherwise: compare fixed-size digests.
        let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
        let Some(own) = self.secret() else { return false };
        let (own, given) = (digest(own.expose_secret().as_bytes()), digest(given));
        own.as_ref()
            .iter()
            .zip(given.as_ref())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
    }
}

impl From<Secret> for Door {
    fn from(secret: Secret) -> Self {
        Self(secret)
    }
}

/// The last content of a file, read again where the last look is a while ago; and why there is none now, where it has
/// been gone for a while.
fn look(path: &Path, state: &Mutex<Read>) -> (SecretString, Option<String>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.looked.elapsed() >= LOOK_EVERY {
        state.looked = Instant::now();
        match read(path) {
            Ok(value) => {
                // Its content decides: a file can be replaced within the granularity of its time.
                if value.expose_secret() != state.value.expose_secret() || state.gone.is_some() {
                    tracing::info!(path = %path.display(), "a secret's file was read again");
                }
                (state.value, state.gone) = (value, None);
            }
            Err(why) if state.gone.is_none() => {
                tracing::warn!(path = %path.display(), error = why, "a secret's file is gone; it is looked for again");
                state.gone = Some((Instant::now(), why));
            }
            Err(_) => {}
        }
    }
    let gone = state
        .gone
        .as_ref()
        .filter(|(since, _)| since.elapsed() >= GONE_AFTER)
        .map(|(_, why)| why.clone());
    (state.value.clone(), gone)
}

fn read(path: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".into());
    }
    Ok(SecretString::from(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a file, and what is known of the secret afterwards: as it is shown, and as it stands.
    struct Case {
        dir: tempfile::TempDir,
        secret: Secret,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("secret"), "first\n").expect("written");
            Self {
                secret: Secret::file(&dir.path().join("secret")).expect("a secret"),
                dir,
            }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.dir.path().join("secret"), text).expect("written");
        }

        /// The next look, as it is after some seconds.
        fn later(&self) -> (String, Option<String>) {
            self.secret.look_again();
            self.secret.wait();
            let text = |secret: SecretString| secret.expose_secret().to_owned();
            (text(self.secret.get()), self.secret.standing().map(text))
        }
    }

    fn both(text: &str) -> (String, Option<String>) {
        (text.into(), Some(text.into()))
    }

    #[test]
    fn a_secret_shows_nothing_and_compares_whole() {
        let secret = Secret::new("s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        let door = Door::from(secret);
        assert!(!format!("{door:?}").contains("s3cret"));
        assert!(door.is(b"s3cret") && !door.is(b"s3cre") && !door.is(b""));
    }

    #[test]
    fn a_missing_file_is_a_problem() {
        let mut problems = Problems::default();
        assert!(Secret::resolve("NO_SUCH_VARIABLE", Some(Path::new("/no/such/file")), &mut problems).is_none());
        assert!(
            problems
                .finish(())
                .expect_err("a problem")
                .to_string()
                .contains("NO_SUCH_VARIABLE_FILE")
        );
    }

    #[test]
    fn what_is_taken_away_opens_no_door_and_comes_back() {
        for blank in ["", " \n"] {
            let case = Case::new();
            case.write(blank);
            assert_eq!(case.later(), ("first".into(), None), "{blank:?}");
            assert!(!Door::from(case.secret.clone()).is(b"first"));
            assert!(
                gone_files()
                    .iter()
                    .any(|told| told.contains("is empty") && told.contains(&case.dir.path().display().to_string()))
            );
            case.write("second");
            assert_eq!(case.later(), both("second"));
            std::fs::remove_file(case.dir.path().join("secret")).expect("removed");
            assert_eq!(case.later(), ("second".into(), None));
        }
    }

    #[test]
    fn a_file_that_is_being_written_is_not_gone() {
        let case = Case::new();
        case.write("");
        case.secret.look_again();
        assert!(
            Door::from(case.secret.clone()).is(b"first"),
            "as empty as `>` makes it for a moment"
        );
        case.write("second");
        case.secret.look_again();
        assert!(Door::from(case.secret.clone()).is(b"second"));
    }

    #[test]
    fn content_decides_not_the_time_nor_the_path() {
        let case = Case::new();
        let path = case.dir.path().join("secret");
        let modified = std::fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .expect("a time");
        case.write("other");
        std::fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(modified))
            .expect("the same time");
        assert_eq!(case.later(), both("other"));
        // As Kubernetes does: the file is a link into a directory that another takes the place of.
        for (number, text) in ["third", "fourth"].into_iter().enumerate() {
            let version = case.dir.path().join(number.to_string());
            std::fs::create_dir(&version).expect("a directory");
            std::fs::write(version.join("secret"), text).expect("written");
            std::os::unix::fs::symlink(version.join("secret"), case.dir.path().join("link")).expect("a link");
            std::fs::rename(case.dir.path().join("link"), &path).expect("in its place");
            assert_eq!(case.later(), both(text));
        }
    }
}
