//! Limits and deadlines: what the ledger's scripts are configured with.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{Problems, given};
use crate::names::shown;

/// Highest limit of one organization.
pub const MAX_LIMIT: u64 = 1000;

/// Default of `MAX_RUNNERS_PER_ORG`.
const MAX_PER_ORG: &str = "10";
/// Default of `MAX_TOTAL_RUNNERS`.
const MAX_TOTAL: &str = "200";
/// Default of `RUNNER_NAME_PREFIX`.
const PREFIX: &str = "jit-runner";

/// Declares each time once: its help, its flag and variable (the field's name), the name by which scripts read it, its
/// default, and whether the short help leaves it out.
macro_rules! limits_args {
    ($($(#[$help:meta])+ $field:ident: $script:literal = $default:literal, $hidden:literal;)+) => {
        /// Limits and the deadlines of a runner's life.
        #[derive(Clone, Debug, clap::Args)]
        pub struct LimitsArgs {
            /// Runners that one organization may have at once, 1 to 1000
            #[arg(long, env, default_value = MAX_PER_ORG)]
            pub max_runners_per_org: String,
            /// Runners at once in all
            #[arg(long, env, default_value = MAX_TOTAL)]
            pub max_total_runners: String,
            /// Starts the name of every runner, its pod and its Secret
            #[arg(long, env, default_value = PREFIX)]
            pub runner_name_prefix: String,
            /// YAML file of limits of single organizations; loaded where Redis holds none; by default
            /// config/org-limits.yaml, which may be absent
            #[arg(long, env)]
            pub org_limits_file: Option<PathBuf>,
            $($(#[$help])+ #[arg(long, env, default_value = $default, hide_short_help = $hidden)] pub $field: String,)+
        }

        impl Default for LimitsArgs {
            fn default() -> Self {
                Self {
                    max_runners_per_org: MAX_PER_ORG.into(),
                    max_total_runners: MAX_TOTAL.into(),
                    runner_name_prefix: PREFIX.into(),
                    org_limits_file: None,
                    $($field: $default.into(),)+
                }
            }
        }

        impl LimitsArgs {
            /// Each time: the name by which scripts read it, its variable, what is given.
            fn times(&self) -> impl Iterator<Item = (&'static str, String, &str)> {
                [$(($script, stringify!($field).to_ascii_uppercase(), self.$field.as_str())),+].into_iter()
            }
        }
    };
}

limits_args! {
    /// A runner has to start within this time
    start_timeout: "start_timeout" = "10m", false;
    /// A runner that had no job for so long is removed
    idle_timeout: "idle_timeout" = "10m", false;
    /// A runner has to end within this time after its job
    end_timeout: "end_timeout" = "5m", false;
    /// A runner that its class has too many is kept for so long, for the next job
    surplus_grace: "surplus_grace" = "2m", false;
    /// An idle runner whose class has queued jobs makes GitHub be asked about them after this time
    idle_check: "idle_check" = "1m", true;
    /// A reservation that no worker takes up is dropped after this time
    reserve_timeout: "reserve_timeout" = "5m", true;
    /// GitHub is asked about a job whose runner went so long after
    question_delay: "question_delay" = "5s", true;
    /// GitHub is asked about a job that waits or runs this often
    question_interval: "question_interval" = "1h", true;
    /// A registration that may be left over is looked up after this time, after three times and after fifteen times as
    /// long
    uncertain_interval: "uncertain_first" = "1m", true;
    /// A runner that GitHub calls busy without having told its job is asked about again after this time
    busy_recheck: "busy_recheck" = "5m", true;
    /// A class whose runner did not start gets no other for so long, nor a profile whose image cannot be pulled,
    /// doubling up to sixteen times
    start_backoff: "start_backoff" = "1m", true;
    /// A job whose runner stayed idle is held back for so long, doubling up to six times that
    misfit_hold: "misfit_hold" = "10m", true;
    /// After a refusal by the namespace's quota one runner more is tried each time this has passed
    quota_interval: "quota_interval" = "1m", true;
    /// A completed job is remembered for so long, so that a redelivery cannot bring it back (GitHub keeps deliveries
    /// for 3 to 7 days)
    tombstone_ttl: "tombstone_ttl" = "192h", true;
}

/// Limits and deadlines, checked.
#[derive(Clone, Debug)]
pub struct LimitsSettings {
    /// Limit of an organization that has none of its own.
    pub max_per_org: u64,
    /// Runners at once in all.
    pub max_total: u64,
    /// Starts every runner's name.
    pub prefix: String,
    /// Where limits of single organizations stand.
    pub org_limits_file: PathBuf,
    /// Times by the name that the ledger's scripts know.
    pub times: BTreeMap<&'static str, Duration>,
}

impl LimitsArgs {
    /// Checks all of it.
    pub fn resolve(&self, problems: &mut Problems) -> LimitsSettings {
        let prefix = self.runner_name_prefix.clone();
        // A runner's name adds `-{job: 19}-{epoch: 6}{sequence: 8}` at most, and has 63 characters.
        let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if prefix.is_empty()
            || prefix.len() > 28
            || !prefix.chars().all(dns)
            || !prefix.starts_with(|c: char| c.is_ascii_lowercase())
            || prefix.ends_with('-')
        {
            problems.add(format!(
                "RUNNER_NAME_PREFIX={prefix:?}: use 1 to 28 of a-z, 0-9 and -, beginning with a \
             letter and not ending with -"
            ));
        }
        let times: BTreeMap<&'static str, Duration> = self
            .times()
            .map(|(script, variable, text)| (script, problems.duration(&variable, text)))
            .collect();
        for (low, high, because) in [
            (
                "IDLE_CHECK",
                "IDLE_TIMEOUT",
                "GitHub is asked about the jobs of an idle runner's class before the runner is removed",
            ),
            (
                "QUESTION_DELAY",
                "QUESTION_INTERVAL",
                "the first question about a job comes before the next",
            ),
        ] {
            let time = |variable: &str| {
                times
                    .get(variable.to_ascii_lowercase().as_str())
                    .copied()
                    .unwrap_or_default()
            };
            problems.ordered((low, time(low)), (high, time(high)), because);
        }
        LimitsSettings {
            max_per_org: problems.number("MAX_RUNNERS_PER_ORG", &self.max_runners_per_org, 1, MAX_LIMIT),
            max_total: problems.number("MAX_TOTAL_RUNNERS", &self.max_total_runners, 1, 1_000_000),
            prefix,
            org_limits_file: self.org_limits_file(problems),
            times,
        }
    }
}

impl Default for LimitsSettings {
    fn default() -> Self {
        LimitsArgs::default().resolve(&mut Problems::default())
    }
}

impl LimitsArgs {
    /// A file that is named has to be there: everybody would get the default without a word.
    fn org_limits_file(&self, problems: &mut Problems) -> PathBuf {
        let Some(named) = given(self.org_limits_file.as_ref()) else {
            return PathBuf::from(ORG_LIMITS_FILE);
        };
        if !named.exists() {
            problems.add(format!(
                "ORG_LIMITS_FILE={}: there is no such file; leave it unset where no organization has \
             a limit of its own",
                named.display()
            ));
        }
        named
    }
}

/// Where limits of single organizations are looked for, unless another place is named.
const ORG_LIMITS_FILE: &str = "config/org-limits.yaml";

/// An entry whose limits are all commented out is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrgLimitsFile {
    #[serde(default)]
    org_limits: Option<BTreeMap<String, u64>>,
}

/// Largest file of limits, in bytes: limits of some 20,000 organizations fit.
pub const ORG_LIMITS_SIZE: usize = 1024 * 1024;
/// Longest error that a file is told, in characters.
const TOLD: usize = 300;

/// Reads a file of limits. No file is no limits; two spellings of one organization and a limit out of range are errors.
///
/// # Errors
/// With a sentence that names the file and what is wrong in it.
pub fn read_org_limits(path: &Path) -> Result<BTreeMap<String, u64>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(ORG_LIMITS_SIZE as u64 + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() > ORG_LIMITS_SIZE => Err(at(&format!("it is larger than {ORG_LIMITS_SIZE} bytes"))),
        Ok(_) => parse_org_limits(&text).map_err(|error| at(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(at(&error)),
    }
}

/// Reads the text of such a file.
///
/// # Errors
/// With a sentence that says what is wrong in it.
pub fn parse_org_limits(text: &str) -> Result<BTreeMap<String, u64>, String> {
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(BTreeMap::new());
    }
    // The parser bounds depth, nodes and aliases by itself.
    let file: OrgLimitsFile =
        serde_saphyr::from_str(text).map_err(|error| error.to_string().chars().take(TOLD).collect::<String>())?;
    let limits = file.org_limits.unwrap_or_default();
    let mut seen = HashSet::new();
    for (org, limit) in &limits {
        let shown = shown(org, 100);
        if !(1..=MAX_LIMIT).contains(limit) {
            return Err(format!("org_limits.{shown}: {limit} is not from 1 to {MAX_LIMIT}"));
        }
        if !seen.insert(org.to_lowercase()) {
            return Err(format!("org_limits.{shown}: stands twice, in two spellings"));
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_those_of_the_command_line() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            limits: LimitsArgs,
        }
        let mut problems = Problems::default();
        let given = <Cli as clap::Parser>::parse_from(["test"])
            .limits
            .resolve(&mut problems);
        let given = problems.finish(given).expect("valid");
        assert_eq!(format!("{given:?}"), format!("{:?}", LimitsSettings::default()));
    }

    #[test]
    fn the_example_file_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/org-limits.yaml");
        assert!(path.exists());
        read_org_limits(&path).expect("a valid example");
    }

    #[test]
    fn wrong_limits_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("limits.yaml");
        for (text, wrong) in [
            ("org_limits: {a: 0}", "org_limits.a"),
            ("org_limits: {a: 5, A: 6}", "twice"),
            ("limits: {}", "limits"),
            ("org_limits: [", "limits.yaml"),
        ] {
            std::fs::write(&path, text).expect("written");
            assert!(read_org_limits(&path).expect_err(text).contains(wrong), "{text}");
        }
        for none in [
            "",
            "# nothing yet\n",
            "org_limits:\n  # platform-team: 25\n",
            "org_limits: {}",
        ] {
            assert_eq!(parse_org_limits(none), Ok(BTreeMap::new()), "{none}");
        }
        std::fs::write(&path, "org_limits:\n  platform-team: 25\n").expect("written");
        assert_eq!(read_org_limits(&path).expect("limits")["platform-team"], 25);
        assert!(
            read_org_limits(&dir.path().join("none"))
                .expect("no file is no limits")
                .is_empty()
        );
    }
}
