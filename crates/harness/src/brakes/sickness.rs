//! The sicknesses: what one organization suffers from, how it begins and how it ends.

use anyhow::Context;
use serde_json::{Value, json};

use super::SICK;
use crate::stack::{Refusal, Stack};

/// A kind of refusal that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sickness {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, for people.
    pub what: &'static str,
    /// Played when none is named.
    pub usual: bool,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// `generate-jitconfig` is answered with this status, whatever the name.
    Status(u16),
    /// The same at one repository, where runners register at repositories.
    Repository(u16),
    /// `generate-jitconfig` is answered late, cut, or with what is no JSON.
    Answer(&'static str),
    /// The listener ends as one does that GitHub refuses as too old.
    TooOld,
    /// The token registers runners and does not see the repositories; ten runners end before they had a job.
    Unreadable,
    /// A fault of the kubelet: its kind, an exit code and last words.
    Pods(&'static str, u8, &'static str),
    /// A policy of the cluster refuses this resource.
    Policy(&'static str),
    /// The API server answers creations of this resource with this status.
    Server(&'static str, u16),
}

const fn sickness(name: &'static str, usual: bool, cause: Cause, what: &'static str) -> Sickness {
    Sickness {
        name,
        what,
        usual,
        cause,
    }
}

/// All of them.
pub const ALL: [Sickness; 23] = [
    sickness(
        "409",
        true,
        Cause::Status(409),
        "GitHub answers each registration with 409",
    ),
    sickness("403", true, Cause::Status(403), "with 403"),
    sickness("404", false, Cause::Status(404), "with 404"),
    sickness("422", false, Cause::Status(422), "with 422"),
    sickness("500", false, Cause::Status(500), "with 500"),
    sickness("502", true, Cause::Status(502), "with 502"),
    sickness("slow", true, Cause::Answer("rest_slow"), "after 25 s"),
    sickness(
        "cut",
        false,
        Cause::Answer("rest_cut"),
        "carries it out and cuts the connection",
    ),
    sickness(
        "garbage",
        false,
        Cause::Answer("rest_garbage"),
        "carries it out and answers what is no JSON",
    ),
    sickness(
        "repository",
        false,
        Cause::Repository(403),
        "runners register at repositories, and one answers with 403",
    ),
    sickness(
        "unreadable",
        true,
        Cause::Unreadable,
        "the token registers runners and does not see the repositories; ten runners end without a job",
    ),
    sickness(
        "too-old",
        true,
        Cause::TooOld,
        "GitHub refuses the runner's version (exit code 7)",
    ),
    sickness(
        "exit-0",
        true,
        Cause::Pods("exit", 0, ""),
        "the runner's program ends at once with 0",
    ),
    sickness(
        "exit-1",
        true,
        Cause::Pods("exit", 1, "Must not run interactively with sudo"),
        "the runner's program ends at once with 1",
    ),
    sickness(
        "reject",
        true,
        Cause::Pods("reject", 0, ""),
        "the node does not admit the pods (OutOfcpu)",
    ),
    sickness(
        "image",
        true,
        Cause::Pods("image_pull_error", 0, ""),
        "the image cannot be pulled",
    ),
    sickness(
        "evict",
        false,
        Cause::Pods("evict", 0, ""),
        "each pod is evicted half a second after its start",
    ),
    sickness(
        "policy",
        true,
        Cause::Policy("pods"),
        "a policy of the cluster refuses the pods",
    ),
    sickness(
        "secret",
        true,
        Cause::Policy("secrets"),
        "a policy of the cluster refuses the Secrets",
    ),
    sickness(
        "api-500",
        true,
        Cause::Server("pods", 500),
        "the API server answers 500 to the creation of pods",
    ),
    sickness("api-429", false, Cause::Server("pods", 429), "429"),
    sickness(
        "secret-500",
        false,
        Cause::Server("secrets", 500),
        "500 to the creation of Secrets",
    ),
    sickness("secret-429", false, Cause::Server("secrets", 429), "429"),
];

/// The sicknesses of these names; without a name the usual ones.
///
/// # Errors
/// When there is none of a name.
pub fn named(names: &[String]) -> anyhow::Result<Vec<Sickness>> {
    if names.is_empty() {
        return Ok(ALL.into_iter().filter(|sickness| sickness.usual).collect());
    }
    if names == ["all"] {
        return Ok(ALL.into());
    }
    let find = |name: &String| {
        let known = || ALL.map(|sickness| sickness.name).join(", ");
        ALL.into_iter()
            .find(|sickness| sickness.name == name)
            .with_context(|| format!("no sickness is named {name:?}; there are: {}, all", known()))
    };
    names.iter().map(find).collect()
}

impl Sickness {
    /// What the stack needs besides the default settings.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let scope = ("RUNNER_SCOPE".to_owned(), "repository".to_owned());
        if self.by_repository() { vec![scope] } else { Vec::new() }
    }

    /// Whether one repository is sick, and its neighbour is not.
    #[must_use]
    pub fn by_repository(&self) -> bool {
        matches!(self.cause, Cause::Repository(_))
    }

    /// Has it begin.
    ///
    /// # Errors
    /// When a part does not do as it is told.
    pub async fn begin(&self, stack: &Stack) -> anyhow::Result<()> {
        let (org, repo) = (SICK.org(), SICK.repo);
        let jit = "generate_jitconfig";
        let github = async |fault: Value| stack.github_faults(&fault).await.map(drop);
        let words = |status: u16| (status == 409).then_some("Self-hosted runners are disabled for this organization.");
        match self.cause {
            Cause::Status(status) => {
                github(json!({ "fault": "rest_status", "endpoint": jit, "org": org,
                "status": status, "message": words(status) }))
                .await
            }
            Cause::Repository(status) => {
                github(json!({ "fault": "rest_status", "endpoint": jit, "org": org,
                "repo": repo, "status": status }))
                .await
            }
            Cause::Answer(fault) => {
                github(json!({ "fault": fault, "endpoint": jit, "org": org,
                "delay_ms": 25_000 }))
                .await
            }
            Cause::TooOld => github(json!({ "fault": "runner_ends", "org": org })).await,
            Cause::Unreadable => {
                let rights = json!({ "owner": org, "without": ["repositories"] });
                stack
                    .post(&format!("{}/_control/rights", stack.github_url), &rights)
                    .await?;
                stack
                    .kubelet_fault(&json!({ "fault": "exit", "org": org, "count": 10 }))
                    .await
            }
            Cause::Pods(fault, exit_code, words) => {
                stack
                    .kubelet_fault(&json!({ "fault": fault, "org": org, "exit_code": exit_code,
                    "message": (!words.is_empty()).then_some(words) }))
                    .await
            }
            Cause::Policy(resource) => stack.refuse_in_cluster(resource, &org).await,
            Cause::Server(resource, status) => {
                let (reason, message) = if status == 429 {
                    ("TooManyRequests", "too many requests, please try again later")
                } else {
                    (
                        "InternalError",
                        "Internal error occurred: failed calling webhook \"pods.example.com\": no \
                     endpoints available",
                    )
                };
                stack.network.refuse(Refusal {
                    resource,
                    org: Some(org),
                    status,
                    reason,
                    message: message.into(),
                });
                Ok(())
            }
        }
    }

    /// Takes its cause away. When this returns, it is gone.
    ///
    /// # Errors
    /// When a part does not do as it is told.
    pub async fn end(&self, stack: &Stack) -> anyhow::Result<()> {
        stack.end_github_faults(None).await?;
        stack.end_kubelet_faults().await;
        stack.network.heal();
        match self.cause {
            Cause::Unreadable => stack
                .post(
                    &format!("{}/_control/rights", stack.github_url),
                    &json!({ "owner": SICK.org(), "without": [] }),
                )
                .await
                .map(drop),
            Cause::Policy(_) => stack.allow_in_cluster(&SICK.org()).await,
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<_> = ALL.iter().map(|sickness| sickness.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(
            named(&["502".into(), "409".into()])
                .unwrap()
                .iter()
                .map(|sickness| sickness.name)
                .collect::<Vec<_>>(),
            ["502", "409"]
        );
        assert_eq!(named(&["all".into()]).unwrap().len(), ALL.len());
        assert_eq!(named(&[]).unwrap().len(), 13);
        assert!(named(&["flu".into()]).unwrap_err().to_string().contains("secret-500, "));
    }
}
