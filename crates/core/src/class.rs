//! A class: what GitHub matches runners on. Jobs of one class can run on any runner of it, so demand is counted by
//! class.

use serde::{Deserialize, Serialize};

/// What GitHub gives a runner its jobs by. Two jobs with equal classes compete for the same runners.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Organization or user whose limit counts, as GitHub writes it.
    pub org: String,
    /// Where runners register: `orgs/{org}`, `repos/{owner}/{repo}` or `enterprises/{slug}`.
    pub scope: String,
    /// Runner group's name.
    pub group: String,
    /// Profile that describes the runner's pod.
    pub profile: String,
    /// Labels, lower case, sorted, each once (GitHub compares without regard to case or order).
    pub labels: Vec<String>,
}

impl Class {
    /// Brings labels into the one form that classes are compared in.
    #[must_use]
    pub fn normalize_labels<S: AsRef<str>>(labels: &[S]) -> Vec<String> {
        let mut labels: Vec<String> = labels.iter().map(|label| label.as_ref().to_lowercase()).collect();
        labels.sort();
        labels.dedup();
        labels
    }

    /// Sixteen hex digits that stand for the class in keys. Organizations and scopes are compared without regard to
    /// case, as GitHub does.
    #[must_use]
    pub fn id(&self) -> String {
        let parts = (
            self.org.to_lowercase(),
            self.scope.to_lowercase(),
            self.group.to_lowercase(),
            &self.profile,
            &self.labels,
        );
        let text = serde_json::to_vec(&parts).unwrap_or_default();
        hex::encode(&ring::digest::digest(&ring::digest::SHA256, &text).as_ref()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(org: &str, labels: &[&str]) -> Class {
        Class {
            org: org.into(),
            scope: format!("orgs/{org}"),
            group: "default".into(),
            profile: "default".into(),
            labels: Class::normalize_labels(labels),
        }
    }

    #[test]
    fn order_case_and_repetition_of_labels_make_no_difference() {
        assert_eq!(
            class("acme", &["Linux", "x64", "linux"]).id(),
            class("ACME", &["x64", "linux"]).id()
        );
    }

    #[test]
    fn other_labels_make_another_class() {
        assert_ne!(class("acme", &["linux"]).id(), class("acme", &["linux", "x64"]).id());
        assert_ne!(class("acme", &["linux"]).id(), class("other", &["linux"]).id());
    }
}
