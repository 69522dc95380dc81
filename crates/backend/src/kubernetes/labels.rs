//! Labels and annotations of a runner's pod and Secret.

use std::collections::BTreeMap;

use crate::RunnerSpec;

/// Label that every runner's pod and Secret carries, as a selector.
pub const SELECTOR: &str = "app=jit-runner,app.kubernetes.io/managed-by=jit-runner-manager";
/// Prefix of our annotations' names.
pub const ANNOTATION: &str = "jit-runner-manager/";

/// A text as a label value: as it is where Kubernetes takes it, else shortened, with the first eight hex digits of its
/// SHA-256 (what `printf %s owner/repo | sha256sum | cut -c1-8` prints) so that two texts do not become one.
pub fn label_value(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| fits(c) || "._-".contains(c);
    if text.len() <= 63 && text.chars().all(inner) && text.starts_with(fits) && text.ends_with(fits) {
        return text.to_owned();
    }
    let hash = hex::encode(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..4]);
    let start: String = text
        .chars()
        .map(|c| if inner(c) { c } else { '-' })
        .take(63 - 1 - hash.len())
        .collect();
    match start.trim_matches(|c| !fits(c)) {
        "" => hash,
        start => format!("{start}-{hash}"),
    }
}

/// Labels of a runner's pod and Secret.
pub(super) fn labels(spec: &RunnerSpec) -> BTreeMap<String, String> {
    let pairs = [
        ("app", "jit-runner".to_owned()),
        ("app.kubernetes.io/name", "jit-runner".to_owned()),
        ("app.kubernetes.io/component", "runner".to_owned()),
        ("app.kubernetes.io/part-of", "jit-runner-manager".to_owned()),
        ("app.kubernetes.io/managed-by", "jit-runner-manager".to_owned()),
        ("org", label_value(&spec.org)),
        ("job-id", spec.job.to_string()),
        ("runner-name", label_value(&spec.name)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Annotations of a runner's pod: the whole specification, and what keeps the tools that empty nodes away from a job.
pub(super) fn annotations(spec: &RunnerSpec) -> BTreeMap<String, String> {
    let labels = serde_json::Value::from(spec.labels.clone()).to_string();
    let ours = [
        ("org", spec.org.clone()),
        ("scope", spec.scope.clone()),
        ("group", spec.group.clone()),
        ("profile", spec.profile.clone()),
    ];
    let ours = ours
        .into_iter()
        .chain([("labels", labels), ("job", spec.job.to_string())]);
    let mut annotations: BTreeMap<_, _> = ours.map(|(key, value)| (format!("{ANNOTATION}{key}"), value)).collect();
    annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict".into(), "false".into());
    annotations.insert("karpenter.sh/do-not-disrupt".into(), "true".into());
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_what_kubernetes_takes() {
        assert_eq!(label_value("Acme-Corp"), "Acme-Corp");
        assert_eq!(label_value(&"a".repeat(63)), "a".repeat(63));
        assert_eq!(label_value("acme/site"), "acme-site-caa854d4");
        assert_ne!(label_value("acme/site"), label_value("acme-site"));
        assert_ne!(label_value(&"a".repeat(64)), label_value(&"a".repeat(65)));
        for odd in [
            "",
            "-",
            "_x",
            "x.",
            "é",
            "조직/저장소",
            "a b",
            &"ü/".repeat(60),
            &format!("{}/b", "a".repeat(53)),
            &format!("-{}/", "a".repeat(90)),
        ] {
            let value = label_value(odd);
            assert!((1..=63).contains(&value.len()), "{value}");
            assert!(
                value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
                "{value}"
            );
            assert!(
                value.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && value.ends_with(|c: char| c.is_ascii_alphanumeric()),
                "{value}"
            );
        }
    }
}
