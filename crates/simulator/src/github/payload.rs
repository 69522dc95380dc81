//! What GitHub says about a job: the `workflow_job` webhook and the REST object, which are alike.
//!
//! Shaped after GitHub's published examples, every field of them, so that a body has the size of a real one (8 to 12
//! kB). The parts that do not change (repository, organization, enterprise, sender) are made once and kept as text.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::model::{Action, Conclusion, Job, JobState, Ms, Owner, OwnerKind, Repo};
use super::settings::{PayloadStyle, Settings};
use crate::clock::iso;

/// About what a queued webhook holds beside its repository, in bytes.
const AROUND_THE_REPOSITORY: usize = 2_500;
/// A custom property's value, and about how many bytes it takes with its name.
const PROPERTY: (&str, usize) = (
    "what an organization notes about each of its repositories, such as who is to be called at night",
    112,
);

/// The server as its own answers name it.
#[derive(Debug)]
pub struct Site {
    /// Base URL, without a slash at its end.
    pub url: String,
    /// Base URL of the REST API.
    pub api: String,
    /// Host, as the webhooks' `X-GitHub-Enterprise-Host`.
    pub host: String,
    /// Release of the server.
    pub version: String,
    style: PayloadStyle,
    bytes: usize,
    enterprise: String,
    sender: String,
}

impl Site {
    /// The site at `url`.
    pub fn new(url: &str, settings: &Settings) -> Self {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest).to_owned();
        let mut site = Self {
            url: url.to_owned(),
            api: format!("{url}/api/v3"),
            host,
            version: settings.server_version.clone(),
            style: settings.payload,
            bytes: settings.payload_bytes,
            enterprise: String::new(),
            sender: String::new(),
        };
        site.sender = site.sender_json().to_string();
        let slug = &settings.enterprise;
        site.enterprise = json!({
            "id": 1, "slug": slug, "name": slug, "node_id": "MDEwOkVudGVycHJpc2Ux",
            "avatar_url": format!("{url}/avatars/b/1?v=4"), "description": "",
            "website_url": "", "html_url": format!("{url}/enterprises/{slug}"), "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        })
        .to_string();
        site
    }

    pub(super) fn account(&self, login: &str, id: u64, kind: OwnerKind) -> Value {
        let api = format!("{}/users/{login}", self.api);
        json!({
            "login": login, "id": id, "node_id": format!("U_kgDO{id:08x}"),
            "avatar_url": format!("{}/avatars/u/{id}?v=4", self.url), "gravatar_id": "",
            "url": api, "html_url": format!("{}/{login}", self.url), "followers_url": format!("{api}/followers"),
            "following_url": format!("{api}/following{{/other_user}}"), "gists_url": format!("{api}/gists{{/gist_id}}"),
            "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{api}/subscriptions"),
            "organizations_url": format!("{api}/orgs"), "repos_url": format!("{api}/repos"),
            "events_url": format!("{api}/events{{/privacy}}"),
            "received_events_url": format!("{api}/received_events"),
            "type": match kind { OwnerKind::Organization => "Organization", OwnerKind::User => "User" },
            "site_admin": false, "user_view_type": "public",
        })
    }

    /// The enterprise.
    pub(super) fn enterprise_json(&self) -> Value {
        let mut json: Value = serde_json::from_str(&self.enterprise).unwrap_or_default();
        json["website_url"] = Value::Null;
        json
    }

    /// Who did it: always the same person.
    pub fn sender_json(&self) -> Value {
        self.account("monalisa", 2, OwnerKind::User)
    }

    /// The `repository` object.
    pub fn repository(&self, repo: &Repo) -> Arc<str> {
        repo.payload
            .get_or_init(|| self.repository_json(repo).to_string().into())
            .clone()
    }

    fn repository_json(&self, repo: &Repo) -> Value {
        let full = repo.full_name();
        let (html, api) = (format!("{}/{full}", self.url), format!("{}/repos/{full}", self.api));
        let mut json = json!({
            "id": repo.id, "node_id": format!("R_kgDO{:08x}", repo.id), "name": repo.name, "full_name": full,
            "private": repo.private,
            "owner": self.account(&repo.owner, repo.owner_id, repo.owner_kind), "html_url": html, "description": "A \
             repository of the simulator", "fork": false,
            "url": api, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "pushed_at": "2026-01-01T00:00:00Z",
            "git_url": format!("git://{}/{full}.git", self.host), "ssh_url": format!("git@{}:{full}.git", self.host),
            "clone_url": format!("{html}.git"),
            "svn_url": html, "homepage": null, "size": 39, "stargazers_count": 0, "watchers_count": 0,
            "language": "Rust", "has_issues": true,
            "has_projects": true, "has_downloads": true, "has_wiki": true, "has_pages": false, "has_discussions": false,
            "forks_count": 0,
            "mirror_url": null, "archived": false, "disabled": false, "open_issues_count": 0, "license": null,
            "allow_forking": true,
            "is_template": false, "web_commit_signoff_required": false, "topics": [],
            "visibility": if repo.private { "private" } else { "public" },
            "forks": 0, "open_issues": 0, "watchers": 0, "default_branch": "main", "custom_properties": {},
        });
        const LINKS: [(&str, &str); 37] = [
            ("forks_url", "/forks"),
            ("keys_url", "/keys{/key_id}"),
            ("collaborators_url", "/collaborators{/collaborator}"),
            ("teams_url", "/teams"),
            ("hooks_url", "/hooks"),
            ("issue_events_url", "/issues/events{/number}"),
            ("events_url", "/events"),
            ("assignees_url", "/assignees{/user}"),
            ("branches_url", "/branches{/branch}"),
            ("tags_url", "/tags"),
            ("blobs_url", "/git/blobs{/sha}"),
            ("git_tags_url", "/git/tags{/sha}"),
            ("git_refs_url", "/git/refs{/sha}"),
            ("trees_url", "/git/trees{/sha}"),
            ("statuses_url", "/statuses/{sha}"),
            ("languages_url", "/languages"),
            ("stargazers_url", "/stargazers"),
            ("contributors_url", "/contributors"),
            ("subscribers_url", "/subscribers"),
            ("subscription_url", "/subscription"),
            ("commits_url", "/commits{/sha}"),
            ("git_commits_url", "/git/commits{/sha}"),
            ("comments_url", "/comments{/number}"),
            ("issue_comment_url", "/issues/comments{/number}"),
            ("contents_url", "/contents/{+path}"),
            ("compare_url", "/compare/{base}...{head}"),
            ("merges_url", "/merges"),
            ("archive_url", "/{archive_format}{/ref}"),
            ("downloads_url", "/downloads"),
            ("issues_url", "/issues{/number}"),
            ("pulls_url", "/pulls{/number}"),
            ("milestones_url", "/milestones{/number}"),
            ("notifications_url", "/notifications{?since,all,participating}"),
            ("labels_url", "/labels{/name}"),
            ("releases_url", "/releases{/id}"),
            ("deployments_url", "/deployments"),
            ("artifacts_url", "/actions/artifacts"),
        ];
        for (key, path) in LINKS {
            json[key] = json!(format!("{api}{path}"));
        }
        let missing = self
            .bytes
            .saturating_sub(json.to_string().len() + AROUND_THE_REPOSITORY);
        for number in 0..missing / PROPERTY.1 {
            json["custom_properties"][format!("property-{number:02}")] = json!(PROPERTY.0);
        }
        json
    }

    /// The `organization` object; none for a user.
    pub fn organization(&self, owner: &Owner) -> Option<Arc<str>> {
        if owner.kind == OwnerKind::User {
            return None;
        }
        let make = || {
            let (login, id) = (&owner.login, owner.id);
            let api = format!("{}/orgs/{login}", self.api);
            let json = json!({
                "login": login, "id": id, "node_id": format!("O_kgDO{id:08x}"), "url": api,
                "repos_url": format!("{api}/repos"), "events_url": format!("{api}/events"),
                "hooks_url": format!("{api}/hooks"), "issues_url": format!("{api}/issues"),
                "members_url": format!("{api}/members{{/member}}"),
                "public_members_url": format!("{api}/public_members{{/member}}"),
                "avatar_url": format!("{}/avatars/u/{id}?v=4", self.url), "description": "",
            });
            json.to_string().into()
        };
        Some(owner.payload.get_or_init(make).clone())
    }

    /// The job, as REST answers and webhooks have it.
    pub fn job(&self, job: &Job) -> Value {
        let facts = &job.facts;
        let (full, id, run) = (facts.repo.full_name(), job.id, job.run_id);
        let base = format!("{}/repos/{full}", self.api);
        let runner = job.runner.as_ref();
        let mut json = json!({
            "id": id, "run_id": run, "workflow_name": facts.workflow, "head_branch": "main",
            "run_url": format!("{base}/actions/runs/{run}"),
            "run_attempt": job.run_attempt, "node_id": format!("CR_kwDO{id:012x}"), "head_sha": facts.head_sha,
            "url": format!("{base}/actions/jobs/{id}"),
            "html_url": format!("{}/{full}/actions/runs/{run}/job/{id}", self.url), "status": job.state,
            "conclusion": job.conclusion,
            "created_at": iso(job.times.created), "started_at": iso(job.times.started.unwrap_or(job.times.created)),
            "completed_at": job.times.completed.map(iso),
            "name": facts.name, "steps": steps(job), "check_run_url": format!("{base}/check-runs/{id}"),
            "labels": facts.labels,
            "runner_id": runner.map(|runner| runner.id), "runner_name": runner.map(|runner| &runner.name),
            "runner_group_id": runner.map(|runner| runner.group_id),
            "runner_group_name": runner.map(|runner| &runner.group_name),
        });
        if runner.is_none() && self.style == PayloadStyle::Legacy {
            (json["runner_id"], json["runner_name"]) = (json!(0), json!(""));
            (json["runner_group_id"], json["runner_group_name"]) = (json!(0), json!(""));
        }
        json
    }

    /// The body of a `workflow_job` webhook.
    pub fn webhook(&self, action: Action, job: &Job, organization: Option<&str>) -> String {
        let mut about = self.job(job);
        if let (PayloadStyle::Legacy, Some(object)) = (self.style, about.as_object_mut()) {
            for key in ["run_attempt", "workflow_name", "head_branch"] {
                object.remove(key);
            }
        }
        let mut body = String::with_capacity(13_000);
        // Writing to a String cannot fail.
        let _ = write!(body, "{{\"action\":{},\"workflow_job\":{about}", json!(action));
        if job.facts.deployment {
            let _ = write!(body, ",\"deployment\":{}", self.deployment(job));
        }
        let _ = write!(body, ",\"repository\":{}", self.repository(&job.facts.repo));
        if let Some(organization) = organization {
            let _ = write!(body, ",\"organization\":{organization}");
        }
        let _ = write!(body, ",\"enterprise\":{},\"sender\":{}}}", self.enterprise, self.sender);
        body
    }

    fn deployment(&self, job: &Job) -> Value {
        let base = format!("{}/repos/{}", self.api, job.facts.repo.full_name());
        let (id, environment) = (job.id / 7, job.facts.environment.as_deref().unwrap_or("production"));
        let created = iso(job.times.created);
        json!({
            "url": format!("{base}/deployments/{id}"), "id": id, "node_id": format!("DE_kwDO{id:012x}"),
            "task": "deploy", "original_environment": environment,
            "environment": environment, "description": null, "created_at": created, "updated_at": created,
            "statuses_url": format!("{base}/deployments/{id}/statuses"),
            "repository_url": base, "creator": self.sender_json(), "sha": job.facts.head_sha, "ref": "main",
            "payload": {}, "transient_environment": false,
            "production_environment": false, "performed_via_github_app": null,
        })
    }
}

/// The steps of a job as they stand: none before it runs, the first while it does, all of them at its end.
fn steps(job: &Job) -> Vec<Value> {
    let Some(started) = job.times.started else {
        return Vec::new();
    };
    let step = |number: usize, name: &str, conclusion: Option<Conclusion>, from: Ms, to: Option<Ms>| {
        let status = if to.is_some() { "completed" } else { "in_progress" };
        json!({ "name": name, "status": status, "conclusion": conclusion, "number": number, "started_at": iso(from),
            "completed_at": to.map(iso) })
    };
    let Some(end) = job.times.completed.filter(|_| job.state == JobState::Completed) else {
        return vec![step(1, "Set up job", None, started, None)];
    };
    const NAMES: [&str; 8] = [
        "Set up job",
        "Run actions/checkout@v4",
        "Set up toolchain",
        "Restore cache",
        "Build",
        "Test",
        "Post Run actions/checkout@v4",
        "Complete job",
    ];
    let conclusion = |name: &str| {
        if name == "Test" {
            job.conclusion
        } else {
            Some(Conclusion::Success)
        }
    };
    NAMES
        .iter()
        .enumerate()
        .map(|(index, name)| step(index + 1, name, conclusion(name), started, Some(end)))
        .collect()
}
