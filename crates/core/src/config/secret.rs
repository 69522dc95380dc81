//! Secrets: from the environment, or from a file that is read again when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};

use super::Problems;

/// A file is looked at for changes at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A secret that can be rotated while the process runs. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Value(SecretString),
    File { path: PathBuf, read: Mutex<Read> },
}

struct Read {
    value: SecretString,
    modified: Option<SystemTime>,
    looked: Instant,
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
        let (value, modified) = read(path)?;
        let read = Mutex::new(Read { value, modified, looked: Instant::now() });
        Ok(Self(Arc::new(Source::File { path: path.to_owned(), read })))
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

    /// The secret called `variable`: its value in the environment, or the content of the file at `file`. An empty value counts as none.
    /// Both at once, an unreadable and an empty file are noted as problems.
    pub fn resolve(variable: &str, file: Option<&Path>, problems: &mut Problems) -> Option<Self> {
        let value = std::env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
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

    /// The secret as it is now. A file that cannot be read any more keeps its last content, and a warning is logged.
    #[must_use]
    pub fn get(&self) -> SecretString {
        match &*self.0 {
            Source::Value(value) => value.clone(),
            Source::File { path, read: state } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.looked.elapsed() >= LOOK_EVERY {
                    state.looked = Instant::now();
                    let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
                    if modified != state.modified {
                        match read(path) {
                            Ok((value, modified)) => {
                                tracing::info!(path = %path.display(), "a secret's file has changed and was read again");
                                (state.value, state.modified) = (value, modified);
                            }
                            Err(error) => tracing::warn!(path = %path.display(), %error, "a secret's file cannot be read; its last content stays in use"),
                        }
                    }
                }
                state.value.clone()
            }
        }
    }

    /// The next [`Self::get`] looks at the file again, however soon it comes.
    #[cfg(test)]
    pub(super) fn look_again(&self) {
        if let (Source::File { read, .. }, Some(long_ago)) = (&*self.0, Instant::now().checked_sub(LOOK_EVERY)) {
            read.lock().unwrap_or_else(PoisonError::into_inner).looked = long_ago;
        }
    }

    /// Whether `given` is this secret. The time it takes does not depend on where they differ.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        // Equal lengths are what the comparison leaks otherwise: compare fixed-size digests.
        let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
        let (own, given) = (digest(self.get().expose_secret().as_bytes()), digest(given));
        own.as_ref().iter().zip(given.as_ref()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

fn read(path: &Path) -> Result<(SecretString, Option<SystemTime>), String> {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".into());
    }
    Ok((SecretString::from(text.to_owned()), modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_compares_whole() {
        let secret = Secret::new("s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        assert!(secret.is(b"s3cret"));
        assert!(!secret.is(b"s3cre"));
        assert!(!secret.is(b""));
    }

    #[test]
    fn a_missing_file_is_a_problem() {
        let mut problems = Problems::default();
        assert!(Secret::resolve("NO_SUCH_VARIABLE", Some(Path::new("/no/such/file")), &mut problems).is_none());
        assert!(problems.finish(()).expect_err("a problem").to_string().contains("NO_SUCH_VARIABLE_FILE"));
    }
}
