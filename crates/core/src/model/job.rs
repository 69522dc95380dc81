//! The states of a job: waiting and queued, then in progress, then completed; in question while only GitHub knows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::UnknownState;

/// The state of a job, as `job:{id}:info` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// GitHub holds the job for an approval: it is no demand.
    Waiting,
    /// The job wants a runner.
    Queued,
    /// Only GitHub knows what became of the job, or the job is held back for a while.
    InQuestion,
    /// A runner works on the job.
    InProgress,
    /// The job is over.
    Completed,
}

impl JobState {
    /// All states, in the order in which a job goes through them.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Queued,
        Self::InQuestion,
        Self::InProgress,
        Self::Completed,
    ];
    /// The states that jobs are listed by: all but the one of jobs that are over.
    pub const LISTED: [Self; 4] = [Self::Waiting, Self::Queued, Self::InQuestion, Self::InProgress];

    /// The word in Redis, in answers and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::InQuestion => "in_question",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| UnknownState(text.to_owned(), "job"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_read_as_it_is_written() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
        }
        for other in ["unknown", "ignored", "Queued", ""] {
            assert!(other.parse::<JobState>().is_err(), "{other}");
        }
    }

    #[test]
    fn all_states_but_the_last_are_listed() {
        assert_eq!(JobState::LISTED, JobState::ALL[..4]);
    }
}
