//! Where runners run.
//!
//! A [`Backend`] makes, ends, lists and watches runners; it knows nothing of Redis or GitHub. Everything that the
//! ledger would need to adopt a runner it does not know ([`RunnerSpec`]) travels with the runner itself: as labels and
//! annotations of a pod, as a file beside a process. A further kind of backend is one more folder here.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jit_core::ledger::places::Places;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub mod kubernetes;
pub mod process;

/// Environment variable that has the runner's program (2.333.0 and later) end with 7 where GitHub refuses its version;
/// without it the end is 0.
const TELLS_TOO_OLD: (&str, &str) = ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1");

/// Everything that a backend is told about a runner, and everything that reconcile needs to adopt one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerSpec {
    /// Unique name `{prefix}-{job}-{sequence}`, a DNS-1123 label; also the pod's and its Secret's name.
    pub name: String,
    /// Organization (or `owner/repo`) whose limit the runner counts against, as GitHub writes it.
    pub org: String,
    /// Where the runner registers: `orgs/{org}`, `repos/{owner}/{repo}` or `enterprises/{slug}`.
    pub scope: String,
    /// Runner group's name.
    pub group: String,
    /// Name of the profile that describes the pod.
    pub profile: String,
    /// Labels that the runner registers with (sorted, lower case).
    pub labels: Vec<String>,
    /// Job that asked for the runner; it may run another one.
    pub job: u64,
}

/// Where a runner stands, as its backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, and its runner program has not started yet.
    Starting,
    /// The runner program runs (it may be idle or busy: only GitHub knows).
    Running,
    /// The runner program has ended; what is left of it can be removed.
    Ended,
}

/// One runner as its backend sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Unique name.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// It has ended, and its program never ran: its node did not take it.
    pub rejected: bool,
    /// Deletion was asked for and is under way.
    pub terminating: bool,
    /// Its deletion should have been over for minutes: its node is lost, or does not obey.
    pub stuck: bool,
    /// What is needed to adopt it; `None` where its labels and annotations have been tampered with.
    pub spec: Option<RunnerSpec>,
    /// Why it does not start, or how it ended, in the backend's words (`ImagePullBackOff: …`, `exit code 7`).
    pub detail: Option<String>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The runner is there, and this is how it looks now.
    Seen(Observed),
    /// The runner is gone: its name can be taken from its organization's count.
    Gone(String),
    /// The watch began anew, and what ended meanwhile was not told: time to reconcile.
    Restarted,
}

/// What happened to a request to end a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It is being ended; a [`Change::Gone`] follows.
    Ending,
    /// It should have ended minutes ago, and has not: whatever runs it (a node) is lost, or does not obey.
    Stuck,
    /// There is no such runner (a consistent read said so).
    Absent,
}

/// Why a backend could not do what it was asked for, by what is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The namespace's quota is used up; the text is the API server's.
    #[error("quota: {0}")]
    Quota(String),
    /// This profile's runners are refused (policy, a bad image name, no right): every runner of it would be.
    #[error("refused: {0}")]
    Refused(String),
    /// A runner of this name is there already: somebody else made it.
    #[error("a runner of this name exists already")]
    Exists,
    /// The runner's place went away (or ended) before its configuration came: nothing is to be handed to it any more.
    #[error("the runner is gone: {0}")]
    Gone(String),
    /// The backend could not be reached: nothing was asked of it.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The backend did not answer, or not in time; what was asked may or may not have happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// A place where runners run.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Makes the runner's place (its pod), which then waits for [`Backend::deliver`]. Quota and policy refuse here,
    /// before GitHub is asked.
    async fn start(&self, spec: &RunnerSpec) -> Result<(), BackendError>;

    /// Hands the runner its just-in-time configuration, upon which it starts.
    async fn deliver(&self, spec: &RunnerSpec, jit_config: &SecretString) -> Result<(), BackendError>;

    /// Whether [`Backend::deliver`] would be refused, as far as that can be told beforehand. It changes nothing.
    async fn may_deliver(&self, spec: &RunnerSpec) -> Result<(), BackendError>;

    /// Ends the runner and removes what belongs to it. Safe to call twice and for a runner that never was.
    async fn stop(&self, name: &str) -> Result<Stopped, BackendError>;

    /// Every runner of ours, by a consistent read: what is not listed was not there when the call began.
    async fn list(&self) -> Result<Vec<Observed>, BackendError>;

    /// Where the runners of each profile run: what this backend lists and ends, and no other.
    fn places(&self) -> Places;

    /// Changes from now on, for ever; it reconnects by itself. The first item is [`Change::Restarted`].
    fn watch(&self) -> BoxStream<'static, Change>;

    /// How long one request may take before it is given up as [`BackendError::Unavailable`]. Of the calls above,
    /// `start` makes one, `stop` two at once (for each namespace), `deliver` two in a row, and `list` one for each
    /// page.
    fn timeout(&self) -> Duration;
}

/// The longest text that is kept of what a server or a kubelet says, in characters: it ends up in the ledger and in
/// logs.
const TEXT_MAX: usize = 300;

/// One line of at most [`TEXT_MAX`] characters.
fn bounded(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line
        .char_indices()
        .nth(TEXT_MAX - 1)
        .filter(|_| line.chars().count() > TEXT_MAX)
    {
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(bounded("one\n  line\t"), "one line");
        assert_eq!(bounded(&"é".repeat(300)), "é".repeat(300));
        let long = bounded(&"é".repeat(301));
        assert_eq!((long.chars().count(), long.ends_with('…')), (300, true));
    }
}
