//! What a payload means here: a job event to publish, a word to acknowledge, or nothing of ours. Pure: no Redis, no
//! HTTP.
//!
//! GitHub's `action` decides. `workflow_job.status` is the job's state when the webhook was made and may say something
//! else (`queued` with status `waiting` is seen in the wild); taken at its word it could leave a job without a runner,
//! where the action at worst makes one too early.

use jit_core::{
    config::{GithubSettings, LimitsSettings},
    event::{Action, Identity, JobEvent, JobId},
    names::owner_of,
};

use crate::{
    errors::ApiError,
    names::{is_full_name, is_login, shown},
    payload::{Payload, Repository, WorkflowJob},
};

/// Longest runner name kept; GitHub's own limit is 64.
const RUNNER_NAME: usize = 64;

/// What becomes of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Published, then answered.
    Publish(JobEvent),
    /// Answered as if it were published: nothing here would change by it.
    Acknowledge(JobEvent),
    /// An action that is none of a job's life.
    UnknownAction(String),
    /// A job that is not ours.
    NotOurs(Reason, JobEvent),
}

/// Why a job is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It asks for other labels.
    LabelMismatch,
    /// It asks for no label at all, but for a runner group alone.
    NoLabels,
    /// It is of a user's repository, and those are not served.
    NoOrganization,
    /// It is of a public repository, and those are refused.
    PublicRepository,
    /// Its owner is none that is served.
    OwnerNotAllowed,
}

impl Reason {
    /// As it stands in the answer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LabelMismatch => "label_mismatch",
            Self::NoLabels => "no_labels",
            Self::NoOrganization => "no_organization",
            Self::PublicRepository => "public_repository",
            Self::OwnerNotAllowed => "owner_not_allowed",
        }
    }
}

/// Decides.
///
/// # Errors
/// When the payload lacks what an event needs, naming the field.
pub fn decide(payload: &Payload, github: &GithubSettings, limits: &LimitsSettings) -> Result<Decision, ApiError> {
    let action = match payload.action.as_deref() {
        Some("queued") => Action::Queued,
        Some("waiting") => Action::Waiting,
        Some("in_progress") => Action::InProgress,
        Some("completed") => Action::Completed,
        Some(other) => return Ok(Decision::UnknownAction(shown(other, 64))),
        None => return Err(missing("action")),
    };
    let job = payload.workflow_job.as_ref().ok_or_else(|| missing("workflow_job"))?;
    let id = job.id.and_then(JobId::new).ok_or_else(|| missing("workflow_job.id"))?;
    let repository = payload.repository.as_ref().ok_or_else(|| missing("repository"))?;
    let full_name = repository
        .full_name
        .as_deref()
        .ok_or_else(|| missing("repository.full_name"))?;
    if !is_full_name(full_name) {
        return Err(ApiError::bad_request(
            "repository.full_name: not an owner/repository of letters, digits, -, _ and .",
        ));
    }
    let organization = organization(payload, repository)?;
    let labels = job.labels.as_ref().map_or(&[][..], |labels| &labels.0);
    let class = github.classify(organization, full_name, labels);
    let runner = runner_name(job);
    let runner_is_ours = runner.as_deref().is_some_and(|name| {
        name.strip_prefix(&limits.prefix)
            .is_some_and(|rest| rest.starts_with('-'))
    });
    let mut event = JobEvent {
        action,
        job: id,
        attempt: job
            .run_attempt
            .and_then(|attempt| u32::try_from(attempt).ok())
            .filter(|attempt| *attempt > 0),
        org: organization.unwrap_or_else(|| owner_of(full_name)).to_owned(),
        repo: full_name.to_owned(),
        class,
        runner_id: runner
            .as_ref()
            .and(job.runner_id)
            .and_then(|id| u64::try_from(id).ok())
            .filter(|id| *id > 0),
        runner,
        conclusion: job
            .conclusion
            .as_deref()
            .filter(|text| is_word(text))
            .map(str::to_owned),
        identity: identity(payload, repository, job, organization),
    };
    let asks = matches!(action, Action::Queued | Action::Waiting);
    if asks && event.class.is_none() {
        let reason = if labels.is_empty() {
            Reason::NoLabels
        } else {
            Reason::LabelMismatch
        };
        return Ok(Decision::NotOurs(reason, event));
    }
    if !github.owners.serve(&event.org) {
        if asks {
            return Ok(Decision::NotOurs(Reason::OwnerNotAllowed, event));
        }
        event.class = None;
    }
    if organization.is_none() && !github.user_repositories {
        return Ok(Decision::NotOurs(Reason::NoOrganization, event));
    }
    if !github.public_repositories && is_public(repository) {
        if asks {
            return Ok(Decision::NotOurs(Reason::PublicRepository, event));
        }
        // It was never demand here; a runner of ours may have taken it all the same.
        event.class = None;
    }
    // An enterprise's webhook tells of every job, also of GitHub's own runners: what is neither our class nor our
    // runner changes nothing.
    Ok(if event.class.is_none() && !runner_is_ours {
        Decision::Acknowledge(event)
    } else {
        Decision::Publish(event)
    })
}

/// The organization's login, or none for a user's repository.
fn organization<'p>(payload: &'p Payload, repository: &'p Repository) -> Result<Option<&'p str>, ApiError> {
    let owner = repository.owner.as_ref();
    let kind = owner.and_then(|owner| owner.kind.as_deref());
    if kind == Some("User") {
        return Ok(None);
    }
    let named = |field: &'static str, login: &'p str| {
        is_login(login)
            .then_some(Some(login))
            .ok_or_else(|| ApiError::bad_request(format!("{field}: not a login of letters, digits, - and _")))
    };
    match &payload.organization {
        Some(organization) => named(
            "organization.login",
            organization
                .login
                .as_deref()
                .ok_or_else(|| missing("organization.login"))?,
        ),
        // Some old payloads leave it out, and say whose the repository is all the same.
        None if kind == Some("Organization") => match owner.and_then(|owner| owner.login.as_deref()) {
            Some(login) => named("repository.owner.login", login),
            None => Err(missing("organization")),
        },
        None => Ok(None),
    }
}

/// Who the owner is, by GitHub's id. An id is believed only where all that the payload says of the owner agrees, and
/// says when: the jobs of an owner that seems to be renamed move, so what another system wrote after GitHub's example
/// must not seem to.
fn identity(payload: &Payload, repository: &Repository, job: &WorkflowJob, organization: Option<&str>) -> Identity {
    let at = [job.created_at, job.started_at, job.completed_at]
        .into_iter()
        .flatten()
        .max();
    let owner = repository.owner.as_ref();
    let owner_id = match (&payload.organization, organization) {
        (Some(told), Some(login)) => told
            .id
            .filter(|id| owner.is_some_and(|owner| owner.id == Some(*id) && owner.login.as_deref() == Some(login))),
        _ => owner.and_then(|owner| owner.id),
    };
    Identity {
        owner_id: owner_id.filter(|_| at.is_some()),
        at,
        user: organization.is_none(),
    }
}

/// A name that is too long or no text for people is nobody's here, and dropped.
fn runner_name(job: &WorkflowJob) -> Option<String> {
    let name = job.runner_name.as_deref()?;
    let length = name.chars().count();
    ((1..=RUNNER_NAME).contains(&length) && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// A repository that does not say is taken for public: a privileged runner is at stake.
fn is_public(repository: &Repository) -> bool {
    match repository.visibility.as_deref() {
        Some(visibility) => !matches!(visibility, "private" | "internal"),
        None => !repository.private.unwrap_or(false),
    }
}

fn missing(field: &'static str) -> ApiError {
    ApiError::bad_request(format!("{field}: missing"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::ReceiverArgs;

    fn decide_with(flags: &[&str], payload: &Value) -> Result<Decision, ApiError> {
        let defaults = [
            "jit-receiver",
            "--ghes-url",
            "https://github.com",
            "--webhook-insecure",
            "true",
        ];
        let settings = ReceiverArgs::parse_from([&defaults, flags].concat())
            .resolve()
            .expect("valid");
        let text = payload.to_string();
        decide(
            &Payload::read(text.as_bytes()).expect("a payload"),
            &settings.github,
            &settings.limits,
        )
    }

    fn payload(action: &str) -> Value {
        json!({
            "action": action,
            "workflow_job": { "id": 7, "run_attempt": 2, "labels": ["Code-Linux"], "runner_id": 5,
            "runner_name": "jit-runner-7-a", "conclusion": "success" },
            "repository": { "full_name": "Acme/app", "private": true,
            "owner": { "login": "Acme", "type": "Organization" } },
            "organization": { "login": "Acme" },
        })
    }

    fn published(decision: Result<Decision, ApiError>) -> JobEvent {
        match decision {
            Ok(Decision::Publish(event)) => event,
            other => panic!("not published: {other:?}"),
        }
    }

    fn reason(decision: Result<Decision, ApiError>) -> Option<Reason> {
        match decision.expect("valid") {
            Decision::NotOurs(reason, _) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn an_organizations_job_counts_there() {
        let event = published(decide_with(&[], &payload("completed")));
        assert_eq!(
            (event.org.as_str(), event.attempt, event.runner_id),
            ("Acme", Some(2), Some(5))
        );
        assert_eq!(event.class.expect("ours").scope, "orgs/Acme");
        let mut old = payload("queued");
        old.as_object_mut().expect("an object").remove("organization");
        assert_eq!(
            published(decide_with(&[], &old)).org,
            "Acme",
            "the repository's owner is an organization"
        );
    }

    #[test]
    fn a_users_jobs_count_at_the_user_and_register_at_the_repository() {
        let mut payload = payload("queued");
        payload["repository"] = json!({ "full_name": "octocat/Hello-World", "private": true,
            "owner": { "login": "octocat", "type": "User" } });
        payload["organization"] = Value::Null;
        let event = published(decide_with(&[], &payload));
        assert_eq!(
            (
                event.org.as_str(),
                event.identity.user,
                event.class.expect("ours").scope.as_str()
            ),
            ("octocat", true, "repos/octocat/Hello-World")
        );
        assert_eq!(
            reason(decide_with(&["--repository-scope", "false"], &payload)),
            Some(Reason::NoOrganization)
        );
        payload["repository"]["owner"] = Value::Null;
        assert_eq!(
            published(decide_with(&[], &payload)).org,
            "octocat",
            "older servers do not say whose it is"
        );
    }

    #[test]
    fn an_owner_is_known_by_its_id_and_by_when_it_was_called_so() {
        let identity = |payload: &Value| published(decide_with(&[], payload)).identity;
        let mut payload = payload("completed");
        payload["organization"]["id"] = json!(5);
        payload["repository"]["owner"]["id"] = json!(5);
        assert_eq!(identity(&payload), Identity::default(), "it does not say when");
        payload["workflow_job"]["created_at"] = json!("2026-11-22T00:00:00Z");
        payload["workflow_job"]["completed_at"] = json!("2026-11-22T00:00:01Z");
        assert_eq!(
            identity(&payload),
            Identity {
                owner_id: Some(5),
                at: Some(1_795_305_601_000),
                user: false
            }
        );
        payload["repository"]["owner"]["id"] = json!(7);
        assert_eq!(identity(&payload).owner_id, None, "it says two ids of one owner");
        payload.as_object_mut().expect("an object").remove("organization");
        payload["workflow_job"]["completed_at"] = json!("yesterday");
        assert_eq!(
            identity(&payload),
            Identity {
                owner_id: Some(7),
                at: Some(1_795_305_600_000),
                user: false
            }
        );
        payload["repository"]["owner"]["id"] = json!("seven");
        payload["workflow_job"]["created_at"] = json!(5);
        assert_eq!(
            identity(&payload).owner_id,
            None,
            "what does not decide about a runner refuses no webhook"
        );
    }

    #[test]
    fn an_owner_that_is_not_allowed_gets_no_runner() {
        let only = |owners: &'static str| ["--allowed-owners", owners];
        assert_eq!(
            reason(decide_with(&only("other,ac*x"), &payload("queued"))),
            Some(Reason::OwnerNotAllowed)
        );
        assert_eq!(reason(decide_with(&only("other, ACME"), &payload("queued"))), None);
        let event = published(decide_with(&only("other"), &payload("in_progress")));
        assert_eq!(
            (event.runner.is_some(), event.class),
            (true, None),
            "a runner of ours has it: from before the owner was taken off the list"
        );
    }

    #[test]
    fn public_repositories_are_refused_on_github_com() {
        let mut payload = payload("queued");
        payload["repository"]["private"] = json!(false);
        assert_eq!(reason(decide_with(&[], &payload)), Some(Reason::PublicRepository));
        assert_eq!(reason(decide_with(&["--public-repositories", "allow"], &payload)), None);
        payload["repository"]["private"] = Value::Null;
        assert_eq!(
            reason(decide_with(&[], &payload)),
            Some(Reason::PublicRepository),
            "it does not say"
        );
        payload["repository"]["visibility"] = json!("internal");
        assert_eq!(reason(decide_with(&[], &payload)), None);
        payload["repository"]["visibility"] = json!("public");
        payload["action"] = json!("in_progress");
        assert_eq!(
            published(decide_with(&[], &payload)).class,
            None,
            "one of our runners has it"
        );
    }

    #[test]
    fn other_labels_are_asked_about_only_while_a_job_wants_a_runner() {
        let mut payload = payload("queued");
        payload["workflow_job"]["labels"] = json!([]);
        assert_eq!(
            reason(decide_with(&[], &payload)),
            Some(Reason::NoLabels),
            "runs-on names a runner group alone"
        );
        payload["workflow_job"]["labels"] = json!(["ubuntu-latest"]);
        for action in ["queued", "waiting"] {
            payload["action"] = json!(action);
            assert_eq!(reason(decide_with(&[], &payload)), Some(Reason::LabelMismatch));
        }
        payload["action"] = json!("completed");
        assert_eq!(published(decide_with(&[], &payload)).class, None, "our runner ran it");
        for name in [
            json!("GitHub Actions 3"),
            json!("jit-runnerette-1"),
            json!(""),
            Value::Null,
        ] {
            payload["workflow_job"]["runner_name"] = name;
            assert!(matches!(decide_with(&[], &payload), Ok(Decision::Acknowledge(_))));
        }
    }

    #[test]
    fn runners_that_are_none_yet_are_none() {
        let mut payload = payload("queued");
        for (id, name) in [
            (Value::Null, Value::Null),
            (json!(0), json!("")),
            (json!(-1), json!("x".repeat(65))),
            (json!(3), json!("a\u{7}b")),
        ] {
            payload["workflow_job"]["runner_id"] = id;
            payload["workflow_job"]["runner_name"] = name;
            let event = published(decide_with(&[], &payload));
            assert_eq!((event.runner, event.runner_id), (None, None));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (pointer, field) in [
            ("/action", "action"),
            ("/workflow_job", "workflow_job"),
            ("/workflow_job/id", "workflow_job.id"),
            ("/repository", "repository"),
            ("/repository/full_name", "repository.full_name"),
            ("/organization/login", "organization.login"),
        ] {
            let mut payload = payload("queued");
            *payload.pointer_mut(pointer).expect("there") = Value::Null;
            let error = decide_with(&[], &payload).expect_err(field);
            assert_eq!(error.detail, format!("{field}: missing"));
        }
    }

    #[test]
    fn a_status_that_says_otherwise_changes_nothing() {
        let mut payload = payload("queued");
        payload["workflow_job"]["status"] = json!("waiting");
        assert_eq!(published(decide_with(&[], &payload)).action, Action::Queued);
    }
}
