//! The states of a runner: reserved, created, busy, removing, gone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::UnknownState;

/// The state of a runner, as `runner:{name}:info` holds it; and `idle`, which stands in no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerState {
    /// The runner has a slot, and may be in the making.
    Reserved,
    /// All that the runner needs to start is there.
    Created,
    /// People are shown a created runner so once it has started: see [`RunnerState::shown`].
    Idle,
    /// GitHub says that the runner works.
    Busy,
    /// The runner is being removed. It keeps its slot.
    Removing,
    /// The runner's slot is free.
    Gone,
}

impl RunnerState {
    /// All states, in the order in which a runner goes through them.
    pub const ALL: [Self; 6] = [
        Self::Reserved,
        Self::Created,
        Self::Idle,
        Self::Busy,
        Self::Removing,
        Self::Gone,
    ];
    /// The states that runners are listed by: all but the one of runners that are gone.
    pub const LISTED: [Self; 5] = [Self::Reserved, Self::Created, Self::Idle, Self::Busy, Self::Removing];

    /// The word in Redis, in answers and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Created => "created",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Removing => "removing",
            Self::Gone => "gone",
        }
    }

    /// The state that people are shown: a created runner that has started is `idle`.
    #[must_use]
    pub fn shown(self, started: bool) -> Self {
        match self {
            Self::Created if started => Self::Idle,
            state => state,
        }
    }
}

impl fmt::Display for RunnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunnerState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| UnknownState(text.to_owned(), "runner"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_read_as_it_is_written() {
        for state in RunnerState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
        }
        for other in ["unknown", "starting", "Busy", ""] {
            assert!(other.parse::<RunnerState>().is_err(), "{other}");
        }
    }

    #[test]
    fn all_states_but_the_last_are_listed() {
        assert_eq!(RunnerState::LISTED, RunnerState::ALL[..5]);
    }

    #[test]
    fn a_created_runner_that_has_started_is_shown_as_idle() {
        assert_eq!(RunnerState::Created.shown(true), RunnerState::Idle);
        assert_eq!(RunnerState::Created.shown(false), RunnerState::Created);
        assert_eq!(RunnerState::Busy.shown(true), RunnerState::Busy);
    }
}
