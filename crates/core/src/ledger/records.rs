//! The hashes `job:{id}:info` and `runner:{name}:info`, decoded: the one place that knows their fields by name.
//!
//! A field that lacks is `None`, and so is one that cannot be read: what people and metrics are told does not fail on
//! one odd record. `Ledger::doctor` names a live runner or a queued job whose state is none.

use std::collections::BTreeMap;

use crate::{
    event::JobId,
    model::{JobState, RunnerState},
};

/// A hash as Redis holds it.
pub type Hash = BTreeMap<String, String>;

/// What is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// GitHub's id of the job.
    pub id: JobId,
    /// Its state.
    pub state: Option<JobState>,
    /// Organization or user, as GitHub writes it.
    pub org: Option<String>,
    /// `owner/repo`.
    pub repo: Option<String>,
    /// Class; none for a job of other runners' labels that one of ours took.
    pub class: Option<String>,
    /// Where runners of its class register; not of a job that is over.
    pub scope: Option<String>,
    /// Runner group; not of a job that is over.
    pub group: Option<String>,
    /// Profile of its runner.
    pub profile: Option<String>,
    /// Labels; not of a job that is over.
    pub labels: Option<Vec<String>>,
    /// The owner is a user, not an organization.
    pub user: bool,
    /// Attempt of its run, from 1.
    pub attempt: Option<u64>,
    /// Runner that works or worked on it.
    pub runner: Option<String>,
    /// End of it, in GitHub's word; `gone` where it was given up.
    pub conclusion: Option<String>,
    /// Sentence on why it is in this state.
    pub reason: Option<String>,
    /// Sentence on why GitHub did not answer the last question about it.
    pub words: Option<String>,
    /// Its place in the queue, ms since 1970.
    pub queued_at: Option<i64>,
    /// Start of its run, ms since 1970.
    pub started_at: Option<i64>,
    /// End of its run, ms since 1970.
    pub completed_at: Option<i64>,
    /// End of the time for which it is held back, ms since 1970.
    pub held_until: Option<i64>,
}

/// What is known of a runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerRecord {
    /// Unique name.
    pub name: String,
    /// Its state; never `idle`, see [`RunnerRecord::shown_state`].
    pub state: Option<RunnerState>,
    /// Organization or user whose limit it counts against.
    pub org: Option<String>,
    /// Class that it serves.
    pub class: Option<String>,
    /// Where it registers.
    pub scope: Option<String>,
    /// Runner group.
    pub group: Option<String>,
    /// Profile of its pod.
    pub profile: Option<String>,
    /// Labels that it registers with.
    pub labels: Option<Vec<String>>,
    /// Where it runs.
    pub place: Option<String>,
    /// Job that asked for it.
    pub job: Option<JobId>,
    /// Job that it runs or ran.
    pub running_job: Option<JobId>,
    /// GitHub's id of it.
    pub github_id: Option<u64>,
    /// Sentence on why it does not start.
    pub detail: Option<String>,
    /// Sentence on why it is removed or gone.
    pub why: Option<String>,
    /// GitHub has confirmed that it has no such registration any more.
    pub deregistered: bool,
    /// Its reservation, ms since 1970.
    pub reserved_at: Option<i64>,
    /// The time at which a worker took it up, ms since 1970.
    pub claimed_at: Option<i64>,
    /// Its registration, ms since 1970.
    pub registered_at: Option<i64>,
    /// The time at which it had all that it needs to start, ms since 1970.
    pub created_at: Option<i64>,
    /// Start of its program, ms since 1970.
    pub started_at: Option<i64>,
    /// The time at which it got work, ms since 1970.
    pub busy_at: Option<i64>,
    /// Begin of its removal, ms since 1970.
    pub removing_at: Option<i64>,
    /// The time at which its slot was free, ms since 1970.
    pub gone_at: Option<i64>,
}

impl JobRecord {
    /// Decodes `job:{id}:info`.
    #[must_use]
    pub fn decode(id: JobId, hash: Hash) -> Self {
        let mut fields = Fields(hash);
        Self {
            id,
            state: fields.parsed("state"),
            org: fields.text("org"),
            repo: fields.text("repo"),
            class: fields.text("class"),
            scope: fields.text("scope"),
            group: fields.text("group"),
            profile: fields.text("profile"),
            labels: fields.labels(),
            user: fields.text("user").is_some(),
            attempt: fields.parsed("attempt"),
            runner: fields.text("runner"),
            conclusion: fields.text("conclusion"),
            reason: fields.text("reason"),
            words: fields.text("words"),
            queued_at: fields.time("queued_at"),
            started_at: fields.time("started_at"),
            completed_at: fields.time("completed_at"),
            held_until: fields.time("held_until"),
        }
    }
}

impl RunnerRecord {
    /// Decodes `runner:{name}:info`.
    #[must_use]
    pub fn decode(name: String, hash: Hash) -> Self {
        let mut fields = Fields(hash);
        Self {
            name,
            state: fields.parsed("state"),
            org: fields.text("org"),
            class: fields.text("class"),
            scope: fields.text("scope"),
            group: fields.text("group"),
            profile: fields.text("profile"),
            labels: fields.labels(),
            place: fields.text("place"),
            job: fields.parsed("job"),
            running_job: fields.parsed("running_job"),
            github_id: fields.parsed("github_id"),
            detail: fields.text("detail"),
            why: fields.text("why"),
            deregistered: fields.text("deregistered").is_some(),
            reserved_at: fields.time("reserved_at"),
            claimed_at: fields.time("claimed_at"),
            registered_at: fields.time("registered_at"),
            created_at: fields.time("created_at"),
            started_at: fields.time("started_at"),
            busy_at: fields.time("busy_at"),
            removing_at: fields.time("removing_at"),
            gone_at: fields.time("gone_at"),
        }
    }

    /// The state that people are shown: a created runner that has started is `idle`.
    #[must_use]
    pub fn shown_state(&self) -> Option<RunnerState> {
        self.state.map(|state| state.shown(self.started_at.is_some()))
    }
}

/// The hash that a part of its fields makes, as `HMGET` gave them.
pub(super) fn part(names: &[&str], values: Vec<Option<String>>) -> Hash {
    let known = names.iter().zip(values);
    known
        .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
        .collect()
}

struct Fields(Hash);

impl Fields {
    fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// Lua writes large numbers as it likes, so also with a fraction.
    fn time(&mut self, name: &str) -> Option<i64> {
        self.parsed::<f64>(name).filter(|ms| ms.is_finite()).map(|ms| ms as i64)
    }

    fn labels(&mut self) -> Option<Vec<String>> {
        serde_json::from_str(&self.text("labels")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[(&str, &str)]) -> Hash {
        let owned = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        owned.collect()
    }

    #[test]
    fn a_job_is_read_field_by_field() {
        let id = JobId::new(7).expect("an id");
        let fields = [
            ("state", "in_question"),
            ("org", "Acme"),
            ("labels", "[\"linux\"]"),
            ("attempt", "2"),
            ("queued_at", "1.8e12"),
            ("held_until", "soon"),
        ];
        let job = JobRecord::decode(id, hash(&fields));
        assert_eq!((job.id, job.state), (id, Some(JobState::InQuestion)));
        assert_eq!((job.org.as_deref(), job.attempt), (Some("Acme"), Some(2)));
        assert_eq!(job.labels, Some(vec!["linux".to_owned()]));
        assert_eq!((job.queued_at, job.held_until), (Some(1_800_000_000_000), None));
    }

    #[test]
    fn what_lacks_or_cannot_be_read_is_none() {
        let fields = [
            ("state", "asleep"),
            ("job", "0"),
            ("labels", "linux"),
            ("gone_at", "nan"),
        ];
        let runner = RunnerRecord::decode("r".into(), hash(&fields));
        let nothing = RunnerRecord {
            name: "r".into(),
            ..RunnerRecord::default()
        };
        assert_eq!(runner, nothing);
        let job = JobRecord::decode(JobId::new(1).expect("an id"), Hash::new());
        assert_eq!((job.state, job.org, job.user), (None, None, false));
    }

    #[test]
    fn a_part_of_the_fields_is_a_record_of_less() {
        let part = part(&["state", "why"], vec![Some("busy".into()), None]);
        assert_eq!(part, hash(&[("state", "busy")]));
    }
}
