//! Job events as webhooks tell them.

use jit_core::{
    class::Class,
    event::{Action, Identity, JobEvent, JobId},
};

/// The class of the jobs that the builders here make.
pub fn class(org: &str) -> Class {
    Class {
        org: org.into(),
        scope: format!("orgs/{org}"),
        group: "default".into(),
        profile: "default".into(),
        labels: vec!["code-linux".into()],
    }
}

fn event(action: Action, job: u64, org: &str) -> JobEvent {
    JobEvent {
        action,
        job: JobId::new(job).expect("a job id"),
        attempt: Some(1),
        org: org.into(),
        repo: format!("{org}/app"),
        class: Some(class(org)),
        runner: None,
        runner_id: None,
        conclusion: None,
        identity: Identity::default(),
    }
}

/// A job that is queued.
pub fn queued(job: u64, org: &str) -> JobEvent {
    event(Action::Queued, job, org)
}

/// A job that waits for an approval.
pub fn waiting(job: u64, org: &str) -> JobEvent {
    event(Action::Waiting, job, org)
}

/// A job that this runner has taken.
pub fn in_progress(job: u64, org: &str, runner: &str, runner_id: u64) -> JobEvent {
    JobEvent {
        runner: Some(runner.into()),
        runner_id: Some(runner_id),
        ..event(Action::InProgress, job, org)
    }
}

/// A job that is over: a success of this runner, or cancelled where there is none.
pub fn completed(job: u64, org: &str, runner: Option<(&str, u64)>) -> JobEvent {
    JobEvent {
        runner: runner.map(|(name, _)| name.into()),
        runner_id: runner.map(|(_, id)| id),
        conclusion: Some(if runner.is_some() { "success" } else { "cancelled" }.into()),
        ..event(Action::Completed, job, org)
    }
}
