//! Which GitHub, which jobs, and where runners register.

use std::path::PathBuf;

use url::Url;

use super::{Owners, Problems, given};
use crate::{
    class::Class,
    event::JobEvent,
    labels::LabelMatcher,
    names::{is_login, owner_of},
};

/// GitHub and the jobs that are ours.
#[derive(Clone, Debug, clap::Args)]
pub struct GithubArgs {
    /// GitHub server, for example https://github.example.com; https://github.com and *.ghe.com too
    #[arg(long, env, default_value = "")]
    pub ghes_url: String,
    /// A job is taken when it asks for any of these labels
    #[arg(long, env, default_value = "code-linux")]
    pub runner_labels: String,
    /// Wins over RUNNER_LABELS: `linux,x64` any, `linux+x64` all, `;` between matchers; set and empty: every job with
    /// `self-hosted`
    #[arg(long, env)]
    pub label_matchers: Option<String>,
    /// Runner group that runners join
    #[arg(long, env, default_value = "default")]
    pub runner_group: String,
    /// Where runners register: organization, repository or enterprise; a user's repository always registers at the
    /// repository
    #[arg(long, env, default_value = "organization")]
    pub runner_scope: String,
    /// Slug of the enterprise, for RUNNER_SCOPE=enterprise
    #[arg(long, env, default_value = "")]
    pub github_enterprise: String,
    /// Whom runners are made for: logins and patterns such as team-*, separated by commas; empty: everybody
    #[arg(long, env, default_value = "")]
    pub allowed_owners: String,
    /// In place of that: file that holds them, separated by commas or lines
    #[arg(long, env)]
    pub allowed_owners_file: Option<PathBuf>,
    /// Whether jobs of users' repositories are taken
    #[arg(long, env, default_value = "true")]
    pub repository_scope: String,
    /// allow or refuse jobs of public repositories; default: refuse on github.com, else allow
    #[arg(long, env, default_value = "")]
    pub public_repositories: String,
}

/// Where runners register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// At the job's organization.
    #[default]
    Organization,
    /// At the job's repository.
    Repository,
    /// At the enterprise of this slug.
    Enterprise(String),
}

/// Which GitHub and which jobs, checked.
#[derive(Clone, Debug)]
pub struct GithubSettings {
    /// The server as people open it.
    pub server_url: Url,
    /// Which jobs are ours.
    pub matcher: LabelMatcher,
    /// Runner group's name.
    pub group: String,
    /// Where runners register.
    pub scope: Scope,
    /// Whom runners are made for.
    pub owners: Owners,
    /// Whether jobs of users' repositories are taken.
    pub user_repositories: bool,
    /// Whether jobs of public repositories are taken.
    pub public_repositories: bool,
}

/// The one profile that the environment describes.
pub const DEFAULT_PROFILE: &str = "default";

impl GithubArgs {
    /// Checks all of it.
    pub fn resolve(&self, problems: &mut Problems) -> GithubSettings {
        let server_url = Url::parse(&self.ghes_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .unwrap_or_else(|| {
                problems.add(format!(
                    "GHES_URL={:?}: set it to the GitHub server's address, for example https://github.example.com",
                    self.ghes_url
                ));
                // Not seen by anybody: a problem is noted.
                Url::from_file_path("/").unwrap_or_else(|()| unreachable!("an absolute path is a file URL"))
            });
        let matcher = match &self.label_matchers {
            Some(text) => LabelMatcher::parse(text).map_err(|error| problems.add(format!("LABEL_MATCHERS: {error}"))),
            None if self.runner_labels.trim().is_empty() => {
                problems.add("RUNNER_LABELS is empty: name the labels of your jobs, or set LABEL_MATCHERS");
                Err(())
            }
            None => LabelMatcher::any_of(&self.runner_labels)
                .map_err(|error| problems.add(format!("RUNNER_LABELS: {error}"))),
        };
        let scope = match self.runner_scope.as_str() {
            "organization" => Scope::Organization,
            "repository" => Scope::Repository,
            "enterprise" if !self.github_enterprise.is_empty() => Scope::Enterprise(self.enterprise(problems)),
            "enterprise" => {
                problems.add("GITHUB_ENTERPRISE: set it to the enterprise's slug, for RUNNER_SCOPE=enterprise");
                Scope::Organization
            }
            other => {
                problems.add(format!(
                    "RUNNER_SCOPE={other:?}: use organization, repository or enterprise"
                ));
                Scope::Organization
            }
        };
        let public_repositories = match self.public_repositories.as_str() {
            "" => server_url.host_str() != Some("github.com"),
            "allow" => true,
            "refuse" => false,
            other => {
                problems.add(format!("PUBLIC_REPOSITORIES={other:?}: use allow or refuse"));
                false
            }
        };
        if self.runner_group.trim().is_empty() {
            problems.add("RUNNER_GROUP is empty: name a runner group, or leave it at default");
        }
        GithubSettings {
            server_url,
            matcher: matcher.unwrap_or_else(|()| {
                LabelMatcher::parse("").unwrap_or_else(|_| unreachable!("the empty matcher is valid"))
            }),
            group: self.runner_group.trim().to_owned(),
            scope,
            owners: self.owners(problems),
            user_repositories: problems.flag("REPOSITORY_SCOPE", &self.repository_scope),
            public_repositories,
        }
    }
}

impl GithubArgs {
    fn owners(&self, problems: &mut Problems) -> Owners {
        let (text, variable) = match (self.allowed_owners.as_str(), given(self.allowed_owners_file.as_ref())) {
            (text, None) => (Ok(text.to_owned()), "ALLOWED_OWNERS".to_owned()),
            ("", Some(path)) => (
                std::fs::read_to_string(&path),
                format!("ALLOWED_OWNERS_FILE={}", path.display()),
            ),
            _ => {
                problems.add("ALLOWED_OWNERS and ALLOWED_OWNERS_FILE are both set: keep one");
                return Owners::default();
            }
        };
        problems.check(
            &variable,
            text.map_err(|error| format!("cannot be read: {error}"))
                .and_then(|text| Owners::parse(&text)),
        )
    }

    fn enterprise(&self, problems: &mut Problems) -> String {
        if !is_login(&self.github_enterprise) {
            problems.add(format!(
                "GITHUB_ENTERPRISE={:?}: use the enterprise's slug, as in /enterprises/SLUG",
                self.github_enterprise
            ));
        }
        self.github_enterprise.clone()
    }
}

impl GithubSettings {
    /// The settings that classes are derived by, as one text: two processes with equal texts derive alike.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:?} {} {}", self.scope, self.group, self.matcher)
    }

    /// Derives anew the class of an event's job: another process, with other settings, may have written it. Where its
    /// labels are not ours by these settings, the class stays, since GitHub was told that the job gets a runner.
    pub fn derive(&self, event: &mut JobEvent) {
        if event.org.contains('/') {
            event.org = owner_of(&event.org).to_owned(); // so a release before wrote a user's repository
            event.identity.user = true;
        }
        let organization = (!event.identity.user).then_some(event.org.as_str());
        if let Some(class) = event
            .class
            .as_ref()
            .and_then(|class| self.classify(organization, &event.repo, &class.labels))
        {
            event.class = Some(class);
        }
    }

    /// The class of a job, or none when its labels are not ours. `organization` is none for a user's repository.
    #[must_use]
    pub fn classify(&self, organization: Option<&str>, repo: &str, labels: &[String]) -> Option<Class> {
        let labels = Class::normalize_labels(labels);
        if !self.matcher.matches(&labels) {
            return None;
        }
        let scope = match (&self.scope, organization) {
            (Scope::Enterprise(slug), Some(_)) => format!("enterprises/{slug}"),
            (Scope::Organization, Some(org)) => format!("orgs/{org}"),
            (Scope::Repository, _) | (_, None) => format!("repos/{repo}"),
        };
        let owner = organization.unwrap_or_else(|| owner_of(repo));
        Some(Class {
            org: owner.to_owned(),
            scope,
            group: self.group.clone(),
            profile: DEFAULT_PROFILE.to_owned(),
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        github: GithubArgs,
    }

    fn settings(flags: &[&str]) -> GithubSettings {
        let mut problems = Problems::default();
        let settings = Cli::parse_from([&["test", "--ghes-url", "https://github.example.com"], flags].concat())
            .github
            .resolve(&mut problems);
        problems.finish(settings).expect("a valid configuration")
    }

    #[test]
    fn a_users_repository_registers_at_the_repository() {
        let labels = ["code-linux".to_owned()];
        let settings = settings(&[]);
        assert_eq!(
            settings
                .classify(Some("Acme"), "Acme/app", &labels)
                .expect("ours")
                .scope,
            "orgs/Acme"
        );
        let class = settings.classify(None, "octocat/app", &labels).expect("ours");
        assert_eq!(
            (class.org.as_str(), class.scope.as_str()),
            ("octocat", "repos/octocat/app")
        );
        assert_eq!(
            settings.classify(Some("Acme"), "Acme/app", &["ubuntu-latest".into()]),
            None
        );
        let enterprise = self::settings(&["--runner-scope", "enterprise", "--github-enterprise", "big"]);
        assert_eq!(
            enterprise
                .classify(Some("Acme"), "Acme/app", &labels)
                .expect("ours")
                .scope,
            "enterprises/big"
        );
        assert_eq!(
            enterprise.classify(None, "octocat/app", &labels).expect("ours").scope,
            "repos/octocat/app",
            "an enterprise's runners serve organizations alone"
        );
    }

    #[test]
    fn everything_wrong_is_told() {
        let mut problems = Problems::default();
        Cli::parse_from([
            "test",
            "--ghes-url",
            "nonsense",
            "--runner-scope",
            "enterprise",
            "--label-matchers",
            "a,,b",
        ])
        .github
        .resolve(&mut problems);
        let text = problems.finish(()).expect_err("problems").to_string();
        for part in ["GHES_URL", "GITHUB_ENTERPRISE", "LABEL_MATCHERS"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
