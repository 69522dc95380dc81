//! What a caller may do at an owner: rights that an operator of the simulator takes away and gives back.
//!
//! As GitHub answers: what a caller may not see is not there (404); what it sees and may not do is forbidden (403),
//! with other words for a GitHub App than for a token.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::api::Call;
use super::app::Caller;
use super::faults::Endpoint;
use super::model::Scope;
use super::state::Server;

/// A right, in words of the control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To see the owner at all: without it everything at it and its repositories is 404.
    Owner,
    /// To see the owner's repositories: without it everything at them is 404, and they are not listed.
    Repositories,
    /// To register, see and delete runners.
    Runners,
    /// To read jobs and runs.
    Actions,
    /// To see webhooks and their deliveries.
    Hooks,
}

/// Who lacks what.
#[derive(Debug)]
struct Lack {
    /// None: whoever calls.
    caller: Option<Caller>,
    /// In lower case; none: at every owner.
    owner: Option<String>,
    without: BTreeSet<Right>,
}

/// Everything that was taken away.
#[derive(Debug, Default)]
pub(super) struct Rights(Vec<Lack>);

impl Server {
    /// Says what a caller (or, with none, every caller) may not do at an owner (or any); it replaces what was said of
    /// the two before.
    pub fn set_rights(&mut self, caller: Option<Caller>, owner: Option<&str>, without: BTreeSet<Right>) {
        let owner = owner.map(str::to_lowercase);
        self.rights
            .0
            .retain(|lack| (&lack.caller, &lack.owner) != (&caller, &owner));
        if !without.is_empty() {
            self.rights.0.push(Lack { caller, owner, without });
        }
    }

    /// Whether a caller lacks a right at an owner.
    pub(super) fn lacks(&self, caller: &Caller, owner: &str, right: Right) -> bool {
        let concerns = |lack: &&Lack| {
            lack.caller.as_ref().is_none_or(|its| its == caller) && lack.owner.as_ref().is_none_or(|its| its == owner)
        };
        self.rights
            .0
            .iter()
            .filter(concerns)
            .any(|lack| lack.without.contains(&right))
    }

    /// What a caller is told that lacks a right which its call needs.
    pub(super) fn forbids(&self, call: &Call) -> Option<Answer> {
        let scope = call.scope.as_ref()?;
        let lacks = |right| self.lacks(&call.caller, scope.owner(), right);
        if lacks(Right::Owner) || (matches!(scope, Scope::Repository(..)) && lacks(Right::Repositories)) {
            return Some(Answer::not_found());
        }
        let right = match call.endpoint {
            Endpoint::GenerateJitconfig
            | Endpoint::ListRunners
            | Endpoint::GetRunner
            | Endpoint::DeleteRunner
            | Endpoint::ListGroups => Right::Runners,
            Endpoint::GetJob | Endpoint::ListRuns | Endpoint::ListRunJobs => Right::Actions,
            Endpoint::ListHooks | Endpoint::ListDeliveries | Endpoint::Redeliver => Right::Hooks,
            _ => return None,
        };
        let whose = if matches!(call.caller, Caller::Installation(_)) {
            "integration"
        } else {
            "personal access token"
        };
        lacks(right).then(|| Answer::error(403, format!("Resource not accessible by {whose}")))
    }
}
