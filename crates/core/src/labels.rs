//! Which jobs are ours: `RUNNER_LABELS` and `LABEL_MATCHERS`.

/// A job is ours when any of the alternatives is contained in its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMatcher {
    alternatives: Vec<Vec<String>>,
}

/// The text is no label matcher.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidMatcher {
    /// A label between `,`, `+` or `;` is empty.
    #[error("{0:?} holds an empty label; write for example `linux,x64` (any), `linux+x64` (all), `;` between matchers")]
    EmptyLabel(String),
}

impl LabelMatcher {
    /// `RUNNER_LABELS`: a job is taken when it asks for any of them, separated by commas.
    ///
    /// # Errors
    /// When a label is empty.
    pub fn any_of(labels: &str) -> Result<Self, InvalidMatcher> {
        Self::parse(labels)
    }

    /// `LABEL_MATCHERS`: `linux,x64` any of them, `linux+x64` all of them, `;` between matchers; empty: every job with
    /// `self-hosted`.
    ///
    /// # Errors
    /// When a label is empty.
    pub fn parse(text: &str) -> Result<Self, InvalidMatcher> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self {
                alternatives: vec![vec!["self-hosted".into()]],
            });
        }
        let mut alternatives = Vec::new();
        for alternative in text.split([';', ',']) {
            let labels: Vec<String> = alternative
                .split('+')
                .map(|label| label.trim().to_lowercase())
                .collect();
            if labels.iter().any(String::is_empty) {
                return Err(InvalidMatcher::EmptyLabel(text.into()));
            }
            alternatives.push(labels);
        }
        Ok(Self { alternatives })
    }

    /// Whether a job that asks for these labels (lower case) is ours.
    #[must_use]
    pub fn matches(&self, labels: &[String]) -> bool {
        self.alternatives
            .iter()
            .any(|all| all.iter().all(|label| labels.contains(label)))
    }
}

/// As `LABEL_MATCHERS` takes it.
impl std::fmt::Display for LabelMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            &self
                .alternatives
                .iter()
                .map(|all| all.join("+"))
                .collect::<Vec<_>>()
                .join(","),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(matcher: &str, labels: &[&str]) -> bool {
        LabelMatcher::parse(matcher)
            .expect("a matcher")
            .matches(&labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn comma_is_any_plus_is_all_semicolon_is_or() {
        assert!(matches("linux,x64", &["x64"]));
        assert!(!matches("linux+x64", &["x64"]));
        assert!(matches("linux+x64", &["gpu", "x64", "linux"]));
        assert!(matches("linux+x64;arm64", &["arm64"]));
        assert!(matches("Code-Linux", &["code-linux"]));
    }

    #[test]
    fn empty_means_self_hosted() {
        assert!(matches("", &["self-hosted", "linux"]));
        assert!(!matches("", &["ubuntu-latest"]));
    }

    #[test]
    fn empty_labels_are_refused() {
        assert!(LabelMatcher::parse("linux,,x64").is_err());
        assert!(LabelMatcher::parse("linux+").is_err());
    }
}
