//! A REST call, from its parts to its answer, without any HTTP.
//!
//! [`Server::fate`] draws what the faults do to it and [`Server::rest`] carries it out; the shell in `rest` waits, cuts
//! and writes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::answer::Answer;
use super::app::Caller;
use super::faults::{Endpoint, RestFate};
use super::log::Event;
use super::model::{Job, JobState, Ms, Repo, Scope};
use super::payload::Site;
use super::state::Server;
use crate::clock::iso;

/// A REST call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which one.
    pub endpoint: Endpoint,
    /// Who calls.
    pub caller: Caller,
    /// Whose; none for /meta and /rate_limit.
    pub scope: Option<Scope>,
    /// Id of the runner, job or run.
    pub id: Option<u64>,
    /// Path, for the links to other pages.
    pub path: String,
    /// Query parameters.
    pub query: HashMap<String, String>,
    /// Body.
    pub body: Bytes,
}

/// A page of a list.
pub(super) struct Page {
    number: usize,
    size: usize,
}

impl Page {
    /// The page that a call asks for: the first 30, at most 100 at once.
    pub(super) fn of(call: &Call) -> Self {
        let ask = |key: &str| call.query.get(key).and_then(|value| value.parse::<usize>().ok());
        Self {
            number: ask("page").unwrap_or(1).max(1),
            size: ask("per_page").unwrap_or(30).clamp(1, 100),
        }
    }

    /// Items at once.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How many items the pages before it hold.
    pub(super) fn from(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    /// The part of a list that it shows.
    pub(super) fn slice<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let from = self.from().min(all.len());
        &all[from..(from + self.size).min(all.len())]
    }

    /// Adds the `Link` header that leads to the pages after it.
    pub(super) fn link(&self, answer: Answer, total: usize, call: &Call, url: &str) -> Answer {
        let last = total.div_ceil(self.size).max(1);
        if self.number >= last {
            return answer;
        }
        let others: String = call
            .query
            .iter()
            .filter(|(key, _)| *key != "page")
            .map(|(key, value)| format!("&{key}={value}"))
            .collect();
        let to = |page: usize, rel: &str| format!("<{url}{}?page={page}{others}>; rel=\"{rel}\"", call.path);
        answer.header("link", format!("{}, {}", to(self.number + 1, "next"), to(last, "last")))
    }
}

impl Server {
    /// Draws what the faults do to a call.
    pub fn fate(&mut self, call: &Call) -> RestFate {
        self.faults.rest(&mut self.rng, call.scope.as_ref(), call.endpoint)
    }

    /// Answers a call with what a fault says, and does nothing else.
    pub fn refuse(&mut self, call: &Call, fault: &super::faults::Fault, now: Ms) -> Answer {
        let status = fault.status.unwrap_or(500);
        let mut answer = match &fault.message {
            Some(message) => Answer::error(status, message),
            None => Answer::refused(status, fault.rate_limit),
        };
        if let Some(seconds) = fault.retry_after {
            answer = answer.header("retry-after", seconds);
        }
        if fault.rate_limit {
            let reset = now / 1000 + fault.retry_after.unwrap_or(60);
            answer = answer
                .header("x-ratelimit-limit", 5000)
                .header("x-ratelimit-remaining", 0)
                .header("x-ratelimit-used", 5000);
            answer = answer
                .header("x-ratelimit-reset", reset)
                .header("x-ratelimit-resource", "core");
        }
        self.note(call, answer.status, None, Some("rest_status"), now);
        answer
    }

    /// A call has come, or its answer is about to go.
    pub fn under_way(&mut self, begins: bool) {
        let counters = &mut self.counters;
        counters.rest_under_way = if begins {
            counters.rest_under_way + 1
        } else {
            counters.rest_under_way.saturating_sub(1)
        };
        counters.rest_most_at_once = counters.rest_most_at_once.max(counters.rest_under_way);
    }

    /// Carries a call out. `fault` is what will be done to its answer, for the log.
    pub fn rest(&mut self, call: &Call, site: &Site, fault: Option<&'static str>, now: Ms) -> Answer {
        if let Some(answer) = self.refuses(call).or_else(|| self.forbids(call)) {
            self.note(call, answer.status, None, fault, now);
            return answer;
        }
        let spent = match self.spend(call, now) {
            Ok(headers) => headers,
            Err(answer) => {
                self.counters.rest_limited += 1;
                self.note(call, answer.status, None, fault, now);
                return answer;
            }
        };
        let mut registered = None;
        let mut answer = match (&call.scope, call.endpoint) {
            (_, Endpoint::Meta) => Answer::json(
                200,
                json!({ "verifiable_password_authentication": true, "installed_version": self.settings.server_version,
                    "packages": [] }),
            ),
            (_, Endpoint::RateLimit) => self.rate_limit(call, now),
            (_, Endpoint::ListOrganizations) => self.list_organizations(call, site),
            (None, Endpoint::AppHook | Endpoint::ListDeliveries | Endpoint::Redeliver) => self.about_hooks(call, site),
            (
                _,
                Endpoint::Installations
                | Endpoint::OrgInstallation
                | Endpoint::UserInstallation
                | Endpoint::AccessTokens,
            ) => self.about_app(call, site, now),
            (_, Endpoint::InstallationRepositories) => self.list_installation_repositories(call, site),
            (Some(scope), _) if !self.find_scope(scope) => self.redirect(call, site).unwrap_or_else(Answer::not_found),
            (Some(scope), Endpoint::GenerateJitconfig) => match self.register(scope, call, &site.url, now) {
                Ok((answer, id, name)) => {
                    registered = Some((id, name));
                    answer
                }
                Err(answer) => answer,
            },
            (Some(scope), Endpoint::ListRunners) => self.list_runners(scope, call, &site.url),
            (Some(scope), Endpoint::GetRunner) => self.get_runner(scope, call.id),
            (Some(scope), Endpoint::DeleteRunner) => self.delete_runner(scope, call.id, now),
            (Some(_), Endpoint::ListHooks | Endpoint::ListDeliveries | Endpoint::Redeliver) => {
                self.about_hooks(call, site)
            }
            (Some(Scope::Organization(org)), Endpoint::ListRepositories) => self.list_repositories(org, call, site),
            (Some(scope), Endpoint::ListGroups) => self.list_groups(scope, call, &site.url),
            (Some(Scope::Repository(owner, repo)), endpoint) => {
                match self.owners.get(owner).and_then(|owner| owner.repos.get(repo)).cloned() {
                    Some(repo) => self.about_repo(&repo, endpoint, call, site),
                    None => Answer::not_found(),
                }
            }
            _ => Answer::not_found(),
        };
        answer.headers.extend(spent);
        self.note(call, answer.status, registered, fault, now);
        answer
    }

    fn note(
        &mut self,
        call: &Call,
        status: u16,
        registered: Option<(u64, Arc<str>)>,
        fault: Option<&'static str>,
        now: Ms,
    ) {
        self.counters.rest_calls += 1;
        let owner: Arc<str> = call.scope.as_ref().map_or("", |scope| scope.owner()).into();
        let event = if call.endpoint == Endpoint::GenerateJitconfig {
            self.counters.jit_requests += 1;
            let (runner, name) = registered.unzip();
            self.gauges.entry(owner.to_string()).or_default().jit_requests += 1;
            Event::JitRequest {
                owner,
                status,
                runner,
                name,
                fault,
            }
        } else {
            Event::Rest {
                endpoint: call.endpoint.name(),
                owner,
                status,
                fault,
            }
        };
        self.log.push(now, event);
    }

    fn about_repo(&self, repo: &Repo, endpoint: Endpoint, call: &Call, site: &Site) -> Answer {
        let jobs_of = |run: &u64| {
            self.runs
                .get(run)
                .into_iter()
                .flatten()
                .filter_map(|id| self.jobs.get(id))
                .collect::<Vec<&Job>>()
        };
        let page = Page::of(call);
        match endpoint {
            Endpoint::GetJob => match call
                .id
                .and_then(|id| self.jobs.get(&id))
                .filter(|job| job.facts.repo.id == repo.id)
            {
                Some(job) => Answer::json(200, site.job(job)),
                None => Answer::not_found(),
            },
            Endpoint::ListRuns => {
                let wanted = call.query.get("status").map(String::as_str);
                // Newest first, as GitHub lists them.
                let runs: Vec<(u64, Vec<&Job>)> = self
                    .repo_runs
                    .get(&repo.id)
                    .into_iter()
                    .flatten()
                    .rev()
                    .map(|run| (*run, jobs_of(run)))
                    .filter(|(_, jobs)| {
                        wanted.is_none_or(|status| run_status(jobs) == status || run_conclusion(jobs) == Some(status))
                    })
                    .collect();
                let shown: Vec<Value> = page
                    .slice(&runs)
                    .iter()
                    .map(|(run, jobs)| run_json(*run, jobs, repo, site))
                    .collect();
                page.link(
                    Answer::json(200, json!({ "total_count": runs.len(), "workflow_runs": shown })),
                    runs.len(),
                    call,
                    &site.url,
                )
            }
            Endpoint::ListRunJobs => {
                let mut jobs = call.id.map(|run| jobs_of(&run)).unwrap_or_default();
                if jobs.first().is_none_or(|job| job.facts.repo.id != repo.id) {
                    return Answer::not_found();
                }
                if call.query.get("filter").is_none_or(|filter| filter != "all") {
                    let latest = jobs.iter().map(|job| job.run_attempt).max();
                    jobs.retain(|job| Some(job.run_attempt) == latest);
                }
                let shown: Vec<Value> = page.slice(&jobs).iter().map(|job| site.job(job)).collect();
                page.link(
                    Answer::json(200, json!({ "total_count": jobs.len(), "jobs": shown })),
                    jobs.len(),
                    call,
                    &site.url,
                )
            }
            _ => Answer::not_found(),
        }
    }
}

fn run_status(jobs: &[&Job]) -> &'static str {
    let any = |state| jobs.iter().any(|job| job.state == state);
    match () {
        () if any(JobState::InProgress) => "in_progress",
        () if any(JobState::Waiting) => "waiting",
        () if any(JobState::Queued) => "queued",
        () => "completed",
    }
}

fn run_conclusion(jobs: &[&Job]) -> Option<&'static str> {
    use super::model::Conclusion::{Cancelled, Failure};
    let latest = jobs.iter().map(|job| job.run_attempt).max().unwrap_or(1);
    let any = |conclusion| {
        jobs.iter()
            .any(|job| job.run_attempt == latest && job.conclusion == Some(conclusion))
    };
    if run_status(jobs) != "completed" {
        return None;
    }
    Some(if any(Failure) {
        "failure"
    } else if any(Cancelled) {
        "cancelled"
    } else {
        "success"
    })
}

fn run_json(run: u64, jobs: &[&Job], repo: &Repo, site: &Site) -> Value {
    let base = format!("{}/repos/{}", site.api, repo.full_name());
    let url = format!("{base}/actions/runs/{run}");
    let created = jobs.iter().map(|job| job.times.created).min().unwrap_or(0);
    let updated = jobs
        .iter()
        .filter_map(|job| job.times.completed.or(job.times.started).or(job.times.queued))
        .max()
        .unwrap_or(created);
    let sha = jobs.first().map_or("", |job| &job.facts.head_sha);
    let name = jobs.first().map_or("CI", |job| &job.facts.workflow);
    let repository: Value = serde_json::from_str(&site.repository(repo)).unwrap_or_default();
    let person = json!({ "name": "Mona Lisa", "email": "mona@example.com" });
    json!({
        "id": run, "node_id": format!("WFR_{run:x}"), "name": name, "display_title": name, "head_branch": "main",
        "head_sha": sha,
        "path": ".github/workflows/ci.yml@main", "run_number": 1,
        "run_attempt": jobs.iter().map(|job| job.run_attempt).max().unwrap_or(1),
        "event": "push", "status": run_status(jobs), "conclusion": run_conclusion(jobs), "workflow_id": repo.id + 1,
        "check_suite_id": run, "check_suite_node_id": format!("CS_{run:x}"), "url": url,
        "html_url": format!("{}/{}/actions/runs/{run}", site.url, repo.full_name()),
        "pull_requests": [], "created_at": iso(created), "updated_at": iso(updated), "run_started_at": iso(created),
        "jobs_url": format!("{url}/jobs"), "logs_url": format!("{url}/logs"),
        "check_suite_url": format!("{base}/check-suites/{run}"),
        "artifacts_url": format!("{url}/artifacts"), "cancel_url": format!("{url}/cancel"),
        "rerun_url": format!("{url}/rerun"),
        "previous_attempt_url": null, "workflow_url": format!("{base}/actions/workflows/{}", repo.id + 1),
        "actor": site.sender_json(), "triggering_actor": site.sender_json(),
        "head_commit": { "id": sha, "tree_id": sha, "message": "Change", "timestamp": iso(created), "author": person,
        "committer": person },
        "repository": repository, "head_repository": repository,
    })
}
