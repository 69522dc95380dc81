//! As whom GitHub is called: a token, a GitHub App, or a file of several.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Problems, Secret, given};

/// Name of the credential that the environment alone describes.
pub const DEFAULT_CREDENTIAL: &str = "default";
/// Serves every owner that no other credential names.
const EVERYBODY: &str = "*";

/// Credentials.
#[derive(Clone, Debug, clap::Args)]
pub struct CredentialsArgs {
    /// File that holds the token (or GITHUB_PAT, or GITHUB_TOKEN, in the environment)
    #[arg(long, env, alias = "github-token-file")]
    pub github_pat_file: Option<PathBuf>,
    /// In place of a token: id, or client id, of a GitHub App
    #[arg(long, env, default_value = "")]
    pub github_app_id: String,
    /// File that holds the private key of the GitHub App, PEM (or GITHUB_APP_PRIVATE_KEY in the environment)
    #[arg(long, env)]
    pub github_app_private_key_file: Option<PathBuf>,
    /// In place of either: YAML file of several credentials, each with the owners that it serves
    #[arg(long, env)]
    pub github_credentials_file: Option<PathBuf>,
}

/// A credential, checked.
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    /// Its name in the ledger, in metrics and logs.
    pub name: String,
    /// Logins of organizations and users, slugs of enterprises, or `*`.
    pub owners: Vec<String>,
    /// How it proves itself.
    pub login: LoginSettings,
}

/// How a credential proves itself.
#[derive(Clone, Debug)]
pub enum LoginSettings {
    /// A token.
    Token(Secret),
    /// A GitHub App.
    App {
        /// Its id, or its client id.
        id: String,
        /// Its private key, PEM.
        private_key: Secret,
    },
}

impl LoginSettings {
    /// Whether it is the same credential at GitHub, from the same place: what is known of it may be kept.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a.is_same(b),
            (
                Self::App {
                    id: a,
                    private_key: key_a,
                },
                Self::App {
                    id: b,
                    private_key: key_b,
                },
            ) => a == b && key_a.is_same(key_b),
            _ => false,
        }
    }
}

/// All credentials.
#[derive(Clone, Debug)]
pub struct CredentialsSettings {
    /// As they were when the process started.
    pub list: Vec<CredentialSettings>,
    /// What an operator mends where an owner is served by none.
    pub source: String,
    /// The file, where there is one.
    pub file: Option<CredentialsFile>,
}

/// Says what is wrong with a private key, if anything is.
pub type CheckKey = fn(&SecretString) -> Result<(), String>;

impl CredentialsArgs {
    /// Checks all of it: exactly one of token, App and file is given.
    pub fn resolve(&self, check_key: CheckKey, problems: &mut Problems) -> CredentialsSettings {
        let set = |variable: &str| std::env::var(variable).is_ok_and(|value| !value.trim().is_empty());
        let token = set("GITHUB_PAT") || set("GITHUB_TOKEN") || given(self.github_pat_file.as_ref()).is_some();
        let key = set("GITHUB_APP_PRIVATE_KEY") || given(self.github_app_private_key_file.as_ref()).is_some();
        let app = !self.github_app_id.trim().is_empty() || key;
        let file = given(self.github_credentials_file.as_ref());
        let mut settings = CredentialsSettings {
            list: Vec::new(),
            source: "GITHUB_CREDENTIALS_FILE".into(),
            file: None,
        };
        let ways: Vec<&str> = [
            (token, "a token (GITHUB_PAT)"),
            (app, "a GitHub App (GITHUB_APP_ID)"),
            (file.is_some(), "a file (GITHUB_CREDENTIALS_FILE)"),
        ]
        .into_iter()
        .filter_map(|(given, way)| given.then_some(way))
        .collect();
        match ways.len() {
            0 => problems.add(
                "GITHUB_PAT is not set: give the token in GITHUB_PAT or the file that holds it in GITHUB_PAT_FILE, or \
                 a GitHub App in GITHUB_APP_ID and \
                 GITHUB_APP_PRIVATE_KEY_FILE, or several credentials in GITHUB_CREDENTIALS_FILE",
            ),
            1 => {}
            _ => problems.add(format!(
                "{} are given: keep one of them; a file can hold several \
             credentials",
                ways.join(" and ")
            )),
        }
        if let Some(path) = file {
            settings.source = format!("GITHUB_CREDENTIALS_FILE={}", path.display());
            match CredentialsFile::open(&path, check_key) {
                Ok((file, list)) => (settings.file, settings.list) = (Some(file), list),
                Err(wrong) => wrong
                    .into_iter()
                    .for_each(|wrong| problems.add(format!("GITHUB_CREDENTIALS_FILE={}: {wrong}", path.display()))),
            }
        }
        if app && let Some(login) = self.app(check_key, problems) {
            settings.list.push(CredentialSettings {
                name: DEFAULT_CREDENTIAL.into(),
                owners: vec![EVERYBODY.into()],
                login,
            });
        }
        if token {
            let token = Secret::resolve("GITHUB_PAT", self.github_pat_file.as_deref(), problems)
                .or_else(|| Secret::resolve("GITHUB_TOKEN", None, problems));
            let login = token.map(LoginSettings::Token);
            settings.list.extend(login.map(|login| CredentialSettings {
                name: DEFAULT_CREDENTIAL.into(),
                owners: vec![EVERYBODY.into()],
                login,
            }));
        }
        settings
    }

    fn app(&self, check_key: CheckKey, problems: &mut Problems) -> Option<LoginSettings> {
        let id = self.github_app_id.trim().to_owned();
        if id.is_empty() {
            problems
                .add("GITHUB_APP_ID is not set: give the id of the GitHub App that GITHUB_APP_PRIVATE_KEY belongs to");
        } else if let Err(wrong) = check_app_id(&id) {
            problems.add(format!("GITHUB_APP_ID={id:?}: {wrong}"));
        }
        let before = problems.len();
        let key = Secret::resolve(
            "GITHUB_APP_PRIVATE_KEY",
            self.github_app_private_key_file.as_deref(),
            problems,
        );
        let Some(private_key) = key else {
            if problems.len() == before {
                problems.add(
                    "GITHUB_APP_PRIVATE_KEY is not set: give the private key of the GitHub App in it, or the file that \
                     holds it in GITHUB_APP_PRIVATE_KEY_FILE",
                );
            }
            return None;
        };
        if let Err(wrong) = check_key(&private_key.get()) {
            problems.add(format!("GITHUB_APP_PRIVATE_KEY {wrong}"));
        }
        Some(LoginSettings::App { id, private_key })
    }
}

/// A file of credentials that is read again when it changes.
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    text: Secret,
    read: SecretString,
    /// The last version that was found wrong. It is tried again, as a file that it names may come later.
    wrong: Option<SecretString>,
    check_key: CheckKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    credentials: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    owners: Vec<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    app_id: Option<Id>,
    private_key: Option<String>,
    private_key_file: Option<PathBuf>,
}

/// An App's id is a number, its client id a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    /// A number that a template wrote as 1.23e+06.
    Decimal(f64),
    Text(String),
}

impl CredentialsFile {
    /// Opens the file and reads what it holds.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(path: &Path, check_key: CheckKey) -> Result<(Self, Vec<CredentialSettings>), Vec<String>> {
        let text = Secret::file(path).map_err(|wrong| vec![wrong])?;
        let read = text.get();
        let list = parse(read.expose_secret(), path.parent().unwrap_or(Path::new("")), check_key)?;
        Ok((
            Self {
                path: path.to_owned(),
                text,
                read,
                wrong: None,
                check_key,
            },
            list,
        ))
    }

    /// What the file holds, where it has changed since it was last asked for; what is wrong with a new version is told
    /// once.
    ///
    /// # Errors
    /// Everything that is wrong with a new version.
    pub fn changed(&mut self) -> Option<Result<Vec<CredentialSettings>, Vec<String>>> {
        let text = self.text.get();
        if text.expose_secret() == self.read.expose_secret() {
            return None;
        }
        match parse(
            text.expose_secret(),
            self.path.parent().unwrap_or(Path::new("")),
            self.check_key,
        ) {
            Ok(list) => {
                self.read = text;
                Some(Ok(list))
            }
            Err(_)
                if self
                    .wrong
                    .as_ref()
                    .is_some_and(|told| told.expose_secret() == text.expose_secret()) =>
            {
                None
            }
            Err(wrong) => {
                self.wrong = Some(text);
                Some(Err(wrong))
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a file's text. Files that it names are relative to `dir`.
fn parse(text: &str, dir: &Path, check_key: CheckKey) -> Result<Vec<CredentialSettings>, Vec<String>> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        // A message shows a piece of the text where it can; that may be a token.
        let place = error
            .location()
            .map(|at| format!(" at line {}", at.line()))
            .unwrap_or_default();
        vec![format!(
            "no list of credentials{place}: write `credentials:` and for each `name`, `owners` and either \
         `token`, `token_file` or `app_id` with `private_key` or `private_key_file`; see \
         config/github-credentials.yaml"
        )]
    })?;
    let (mut list, mut wrong) = (Vec::<CredentialSettings>::new(), Vec::new());
    if file.credentials.is_empty() {
        wrong.push("it holds no credential".to_owned());
    }
    for entry in file.credentials {
        let name = entry.name.clone();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
            wrong.push(format!(
                "the name {name:?} is none: use 1 to 40 of a-z, A-Z, 0-9, -, _ and ."
            ));
        }
        if list.iter().any(|other| other.name == name) {
            wrong.push(format!("two credentials are named {name:?}"));
        }
        let owners: Vec<String> = entry
            .owners
            .iter()
            .map(|owner| owner.trim().to_ascii_lowercase())
            .filter(|owner| !owner.is_empty())
            .collect();
        if owners.is_empty() {
            wrong.push(format!(
                "credential {name:?} serves nobody: name its owners, or \"*\" for all that no other names"
            ));
        }
        match login(entry, dir, check_key) {
            Ok(login) => list.push(CredentialSettings { name, owners, login }),
            Err(problem) => wrong.push(format!("credential {name:?}: {problem}")),
        }
    }
    if wrong.is_empty() { Ok(list) } else { Err(wrong) }
}

/// An App's id has digits alone, its client id begins with a letter. A template that takes an id for a number writes
/// 1.23e+06.
fn check_app_id(id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let number = id.bytes().all(|byte| byte.is_ascii_digit());
    let client_id = id.starts_with(|c: char| c.is_ascii_alphabetic()) && id.chars().all(fits);
    if !id.is_empty() && (number || client_id) {
        return Ok(());
    }
    Err(
        "use the App's id, a whole number such as 1234567 (in a chart in quotes, or a template writes 1.234567e+06), \
     or its client id, such as Iv23liAbCdEf"
            .into(),
    )
}

fn login(entry: Entry, dir: &Path, check_key: CheckKey) -> Result<LoginSettings, String> {
    let secret = |what: &str, value: Option<String>, file: Option<PathBuf>| match (
        value.filter(|value| !value.trim().is_empty()),
        file,
    ) {
        (Some(_), Some(_)) => Err(format!("{what} and {what}_file are both given: keep one")),
        (Some(value), None) => Ok(Some(Secret::new(value.trim()))),
        (None, Some(file)) => Secret::file(&dir.join(&file))
            .map(Some)
            .map_err(|wrong| format!("{what}_file={}: {wrong}", dir.join(&file).display())),
        (None, None) => Ok(None),
    };
    let token = secret("token", entry.token, entry.token_file)?;
    let private_key = secret("private_key", entry.private_key, entry.private_key_file)?;
    let id = entry.app_id.map(|id| match id {
        Id::Number(number) => number.to_string(),
        Id::Decimal(number) => format!("{number:e}"),
        Id::Text(text) => text,
    });
    match (token, id, private_key) {
        (Some(token), None, None) => Ok(LoginSettings::Token(token)),
        (None, Some(id), Some(private_key)) => {
            match check_app_id(&id)
                .and_then(|()| check_key(&private_key.get()).map_err(|wrong| format!("its private key {wrong}")))
            {
                Ok(()) => Ok(LoginSettings::App { id, private_key }),
                Err(wrong) => Err(wrong),
            }
        }
        (None, Some(_), None) => Err("app_id without private_key or private_key_file".into()),
        (None, None, Some(_)) => Err("a private key without app_id".into()),
        (None, None, None) => {
            Err("neither a token (token, token_file) nor an App (app_id with private_key or private_key_file)".into())
        }
        (Some(_), ..) => Err("a token and an App: keep one".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn any_key(key: &SecretString) -> Result<(), String> {
        if key.expose_secret() == "bad" {
            Err("is bad".into())
        } else {
            Ok(())
        }
    }

    fn names(list: &[CredentialSettings]) -> Vec<(&str, Vec<&str>)> {
        list.iter()
            .map(|one| (one.name.as_str(), one.owners.iter().map(String::as_str).collect()))
            .collect()
    }

    #[test]
    fn the_example_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["acme-token", "app.pem"] {
            std::fs::write(dir.path().join(file), "s3cret").expect("written");
        }
        let example = include_str!("../../../../config/github-credentials.yaml");
        let list = parse(
            &example.replace("/etc/jit-runner-manager/github/", ""),
            dir.path(),
            any_key,
        )
        .expect("a valid example");
        assert_eq!(
            names(&list),
            [("acme", vec!["acme", "acme-labs"]), ("everybody-else", vec!["*"])]
        );
        assert!(matches!(&list[1].login, LoginSettings::App { id,
                private_key } if id == "123456" && private_key.get().expose_secret() == "s3cret"));
        assert!(!format!("{list:?}").contains("s3cret"));
    }

    #[test]
    fn everything_wrong_is_told_and_nothing_secret() {
        let wrong = parse(
            "credentials:
- {name: a, owners: [x], token: s3cret}
- {name: a, owners: [X], app_id: 1, private_key: bad}
- {name: 'b c', owners: [], token: s3cret, token_file: t}
- {name: d, owners: ['*'], app_id: Iv1.x}
- {name: e, owners: ['*']}
",
            Path::new("/"),
            any_key,
        )
        .expect_err("nothing of it fits");
        let text = wrong.join("\n");
        for part in [
            "two credentials are named",
            "its private key is bad",
            "\"b c\"",
            "serves nobody",
            "both given",
            "without private_key",
            "neither a token",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for unread in [
            "credentials: [{name: a, owners: [x], token: s3cret, tokn: s3cret}]",
            "s3cret: 1",
            "credentials:\n- s3cret",
            "\"s3cret",
        ] {
            let wrong = parse(unread, Path::new("/"), any_key).expect_err("no list").join("\n");
            assert!(
                wrong.contains("no list of credentials") && !wrong.contains("s3cret"),
                "{wrong}"
            );
        }
        let several = parse(
            "credentials: [{name: a, owners: [x], token: t}, {name: b, owners: [X], token: t}]",
            Path::new("/"),
            any_key,
        );
        assert_eq!(
            names(&several.expect("an owner may have several")),
            [("a", vec!["x"]), ("b", vec!["x"])]
        );
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_broken_one_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials.yaml");
        let write = |text: &str, age: u64| {
            std::fs::write(&path, text).expect("written");
            let at = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::open(&path)
                .and_then(|file| file.set_modified(at))
                .expect("a time");
        };
        write("credentials: [{name: a, owners: ['*'], token: t}]", 100);
        let (mut file, list) = CredentialsFile::open(&path, any_key).expect("valid");
        assert_eq!(names(&list), [("a", vec!["*"])]);
        let mut changed = || {
            file.text.look_again();
            file.changed()
        };
        assert!(changed().is_none());
        write("credentials: [{name: b, owners: ['*'], token: t}]", 90);
        assert_eq!(names(&changed().expect("changed").expect("valid")), [("b", vec!["*"])]);
        write("credentials: nonsense", 80);
        assert!(changed().expect("changed").is_err());
        assert!(changed().is_none(), "told once");
        write("credentials: [{name: c, owners: ['*'], token_file: late}]", 70);
        assert!(changed().expect("changed").is_err());
        std::fs::write(dir.path().join("late"), "t").expect("written");
        assert_eq!(names(&changed().expect("complete").expect("valid")), [("c", vec!["*"])]);
        std::fs::remove_file(&path).expect("removed");
        assert!(changed().is_none(), "what was read stays");
    }

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        credentials: CredentialsArgs,
    }

    #[test]
    fn exactly_one_way_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let (token, key) = (file("token", "t"), file("key", "k"));
        let yaml = file("yaml", "credentials: [{name: a, owners: [x], token: t}]");
        let resolve = |flags: &[&str]| {
            let mut problems = Problems::default();
            let settings = Cli::parse_from([&["test"], flags].concat())
                .credentials
                .resolve(any_key, &mut problems);
            problems.finish(settings).map_err(|error| error.to_string())
        };
        assert_eq!(
            names(&resolve(&["--github-pat-file", &token]).expect("valid").list),
            [("default", vec!["*"])]
        );
        let app = ["--github-app-id", "1", "--github-app-private-key-file", &key];
        assert!(matches!(&resolve(&app).expect("valid").list[0].login, LoginSettings::App { id, .. } if id == "1"));
        let settings = resolve(&["--github-credentials-file", &yaml]).expect("valid");
        assert!(settings.file.is_some() && settings.source.ends_with(&yaml));
        let both = resolve(
            &[
                &app[..],
                &["--github-pat-file", &token, "--github-credentials-file", "/no/such"],
            ]
            .concat(),
        )
        .expect_err("three ways");
        assert!(
            both.contains("a token (GITHUB_PAT) and a GitHub App (GITHUB_APP_ID) and a file")
                && both.contains("/no/such"),
            "{both}"
        );
        assert!(resolve(&[]).expect_err("none").contains("GITHUB_PAT is not set"));
        let half = resolve(&["--github-app-private-key-file", &file("bad", "bad")]).expect_err("no id, and a bad key");
        assert!(
            half.contains("GITHUB_APP_ID is not set") && half.contains("GITHUB_APP_PRIVATE_KEY is bad"),
            "{half}"
        );
        assert!(
            resolve(&["--github-app-id", "1"])
                .expect_err("no key")
                .contains("GITHUB_APP_PRIVATE_KEY is not set")
        );
    }
}
