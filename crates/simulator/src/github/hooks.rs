//! Webhooks that are not an enterprise's: which owner has one, what became of its deliveries, and how one is delivered
//! again.
//!
//! By default every webhook comes from the enterprise's hook, whose deliveries no call shows. An owner, or one
//! repository, can be given a hook of its own (or the App's) in its place. Its deliveries are kept for three days,
//! newest last; a repeated one has the first one's guid and an id of its own, as at GitHub. Any number of hooks of
//! others may stand before it in the list, which has pages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::{Call, Page};
use super::faults::Endpoint;
use super::jobs::ControlError;
use super::model::{Action, Job, Ms, Repo, Scope};
use super::payload::Site;
use super::rights::Right;
use super::state::{Delivery, Server};
use crate::clock::iso;

/// How long GitHub keeps deliveries.
const KEPT: Ms = 3 * 24 * 3_600_000;

/// Whose hook tells of an owner's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// The enterprise's: no call shows its deliveries.
    Enterprise,
    /// The organization's own.
    Organization,
    /// The repository's own.
    Repository,
    /// The GitHub App's.
    App,
}

/// One try to deliver a webhook, as its hook's list has it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    id: u64,
    hook: u64,
    guid: Arc<str>,
    at: Ms,
    redelivery: bool,
    took_ms: Ms,
    status: u16,
    error: Option<&'static str>,
    action: Action,
    job: Job,
}

/// Hooks and their deliveries.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Where all of them point to.
    pub(super) url: Option<Arc<str>>,
    /// By owner, or `owner/repository`, in lower case; the App's hook has id 1.
    of: BTreeMap<String, (HookKind, u64)>,
    /// Hooks of others, by the same key.
    others: BTreeMap<String, Vec<u64>>,
    records: VecDeque<Record>,
    next_hook: u64,
    next_delivery: u64,
}

/// Id of the App's one hook.
const APP: u64 = 1;

impl Hooks {
    /// The hook that tells of a repository's jobs, unless it is the enterprise's.
    fn telling(&self, repo: &Repo) -> Option<u64> {
        let (owner, name) = repo.key();
        let (kind, id) = self
            .of
            .get(&format!("{owner}/{name}"))
            .or_else(|| self.of.get(&owner))?;
        (*kind != HookKind::Enterprise).then_some(*id)
    }
}

impl Server {
    /// Gives an owner, or one repository, a hook of this kind in place of the enterprise's, with so many of others
    /// before it. Returns its id.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when there is no such owner, or the kind does not fit.
    pub fn set_hook(
        &mut self,
        owner: &str,
        repo: Option<&str>,
        kind: HookKind,
        others: u64,
    ) -> Result<u64, ControlError> {
        if !self.owners.contains_key(&owner.to_lowercase()) || (kind == HookKind::Repository) != repo.is_some() {
            return Err(ControlError::Invalid(
                "a hook needs an owner that exists, and a repository if and only if it is a repository's".into(),
            ));
        }
        let key = repo.map_or_else(|| owner.to_lowercase(), |repo| format!("{owner}/{repo}").to_lowercase());
        let first = 1000 + self.hooks.next_hook + 1;
        self.hooks.others.insert(key.clone(), (first..first + others).collect());
        self.hooks.next_hook += others + 1;
        let id = if kind == HookKind::App {
            APP
        } else {
            1000 + self.hooks.next_hook
        };
        self.hooks.of.insert(key, (kind, id));
        Ok(id)
    }

    /// Keeps what became of a delivery, where a hook can be asked about it.
    pub(super) fn record(
        &mut self,
        delivery: &Delivery,
        status: u16,
        error: Option<&'static str>,
        took_ms: Ms,
        now: Ms,
    ) {
        let Some(hook) = self.hooks.telling(&delivery.job.facts.repo) else {
            return;
        };
        while self.hooks.records.front().is_some_and(|oldest| oldest.at + KEPT < now) {
            self.hooks.records.pop_front();
        }
        self.hooks.next_delivery += 1;
        self.hooks.records.push_back(Record {
            id: 70_000_000_000 + self.hooks.next_delivery,
            hook,
            guid: delivery.id.clone(),
            at: now - delivery.backdated,
            redelivery: delivery.redelivery,
            took_ms,
            status,
            error,
            action: delivery.action,
            job: delivery.job.clone(),
        });
    }

    /// Answers a call about hooks and deliveries.
    pub(super) fn about_hooks(&mut self, call: &Call, site: &Site) -> Answer {
        let asked = match &call.scope {
            None => Some((HookKind::App, String::new())),
            Some(Scope::Organization(org)) => Some((HookKind::Organization, org.clone())),
            Some(Scope::Repository(owner, repo)) => Some((HookKind::Repository, format!("{owner}/{repo}"))),
            Some(Scope::Enterprise(_)) => None,
        };
        let Some((kind, key)) = asked else {
            return Answer::not_found();
        };
        let own = match kind {
            HookKind::App => self.hooks.of.values().find(|(kind, _)| *kind == HookKind::App).copied(),
            _ => self.hooks.of.get(&key).filter(|(its, _)| *its == kind).copied(),
        };
        match (call.endpoint, own) {
            (Endpoint::ListHooks, own) => {
                let others = self
                    .hooks
                    .others
                    .get(&key)
                    .into_iter()
                    .flatten()
                    .map(|id| self.hook_json(&key, kind, *id, false, site));
                let all: Vec<Value> = others
                    .chain(own.map(|(_, id)| self.hook_json(&key, kind, id, true, site)))
                    .collect();
                let page = Page::of(call);
                page.link(Answer::json(200, page.slice(&all).into()), all.len(), call, &site.url)
            }
            (Endpoint::AppHook, Some(_)) => Answer::json(200, self.config(true)),
            (Endpoint::ListDeliveries, Some((_, id))) if hook_id(call).is_none_or(|asked| asked == id) => {
                self.list_deliveries(id, call, site)
            }
            (Endpoint::Redeliver, Some((_, id))) if hook_id(call).is_none_or(|asked| asked == id) => {
                match self
                    .hooks
                    .records
                    .iter()
                    .find(|record| Some(record.id) == call.id && record.hook == id)
                {
                    Some(record) => {
                        let (id, action, job) = (record.guid.clone(), record.action, record.job.clone());
                        self.outbox.push(Delivery {
                            id,
                            action,
                            job,
                            delay: 0,
                            backdated: 0,
                            redelivery: true,
                        });
                        Answer::json(202, json!({}))
                    }
                    None => Answer::not_found(),
                }
            }
            _ => Answer::not_found(),
        }
    }

    fn config(&self, own: bool) -> Value {
        let url = self
            .hooks
            .url
            .as_deref()
            .filter(|_| own)
            .unwrap_or("http://127.0.0.1:9/none");
        json!({ "url": url, "content_type": "json", "insecure_ssl": "0", "secret": "********" })
    }

    fn hook_json(&self, key: &str, kind: HookKind, id: u64, own: bool, site: &Site) -> Value {
        let (scope, named) = if kind == HookKind::Organization {
            ("orgs", "Organization")
        } else {
            ("repos", "Repository")
        };
        let url = format!("{}/{scope}/{key}/hooks/{id}", site.api);
        json!({
            "id": id, "type": named, "name": "web", "active": true, "events": ["workflow_job"],
            "config": self.config(own), "url": url, "test_url": format!("{url}/test"),
            "ping_url": format!("{url}/pings"), "deliveries_url": format!("{url}/deliveries"),
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "last_response": { "code": null, "status": "unused", "message": null },
        })
    }

    fn list_deliveries(&self, hook: u64, call: &Call, site: &Site) -> Answer {
        let before: Option<u64> = match call
            .query
            .get("cursor")
            .map(|cursor| cursor.strip_prefix("v1_").and_then(|id| id.parse().ok()))
        {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Answer::error(400, "Invalid cursor"),
        };
        let size = Page::of(call).size();
        let older = self
            .hooks
            .records
            .iter()
            .rev()
            .filter(|record| record.hook == hook && before.is_none_or(|before| record.id < before));
        let mut shown: Vec<&Record> = older.take(size + 1).collect();
        let more = shown.len() > size;
        shown.truncate(size);
        let answer = Answer::json(200, shown.iter().map(|record| record_json(record)).collect());
        match shown.last().filter(|_| more) {
            Some(last) => answer.header(
                "link",
                format!(
                    "<{}{}?per_page={size}&cursor=v1_{}>; rel=\"next\"",
                    site.url, call.path, last.id
                ),
            ),
            None => answer,
        }
    }

    /// The organizations of the server, by id.
    pub(super) fn list_organizations(&self, call: &Call, site: &Site) -> Answer {
        let since: u64 = call
            .query
            .get("since")
            .and_then(|since| since.parse().ok())
            .unwrap_or(0);
        let size = Page::of(call).size();
        let mut after: Vec<_> = self
            .owners
            .values()
            .filter(|owner| owner.id > since)
            .filter_map(|owner| Some((owner.id, site.organization(owner)?)))
            .collect();
        after.sort_by_key(|(id, _)| *id);
        let more = after.len() > size;
        after.truncate(size);
        let answer = Answer::json(
            200,
            after
                .iter()
                .filter_map(|(_, text)| serde_json::from_str::<Value>(text).ok())
                .collect(),
        );
        match after.last().filter(|_| more) {
            Some((last, _)) => answer.header(
                "link",
                format!("<{}{}?per_page={size}&since={last}>; rel=\"next\"", site.url, call.path),
            ),
            None => answer,
        }
    }

    /// An organization's repositories; with `sort=pushed` the one that had a run last comes first.
    pub(super) fn list_repositories(&self, org: &str, call: &Call, site: &Site) -> Answer {
        let pushed = |repo: &Repo| {
            let last = self
                .repo_runs
                .get(&repo.id)
                .and_then(|runs| runs.last())
                .and_then(|run| self.runs.get(run))
                .and_then(|jobs| jobs.first());
            last.and_then(|job| self.jobs.get(job))
                .map_or(0, |job| job.times.created)
        };
        let Some(owner) = self.owners.get(org) else {
            return Answer::not_found();
        };
        let seen = !self.lacks(&call.caller, org, Right::Repositories);
        let mut repos: Vec<_> = owner
            .repos
            .values()
            .filter(|_| seen)
            .map(|repo| (pushed(repo), repo))
            .collect();
        if call.query.get("sort").is_some_and(|sort| sort == "pushed") {
            repos.sort_by_key(|(at, _)| *at);
            if call.query.get("direction").is_none_or(|direction| direction == "desc") {
                repos.reverse();
            }
        }
        let page = Page::of(call);
        let described = |(at, repo): &(Ms, &Arc<Repo>)| {
            let mut json: Value = serde_json::from_str(&site.repository(repo)).unwrap_or_default();
            json["pushed_at"] = json!(iso(*at));
            json
        };
        page.link(
            Answer::json(200, page.slice(&repos).iter().map(described).collect()),
            repos.len(),
            call,
            &site.url,
        )
    }
}

/// The id after `/hooks/` in a call's path; the App's one hook has none there.
fn hook_id(call: &Call) -> Option<u64> {
    call.path.split_once("/hooks/")?.1.split('/').next()?.parse().ok()
}

fn record_json(record: &Record) -> Value {
    let status = match (record.status, record.error) {
        (200..300, _) => "OK",
        (0, Some(error)) => error,
        (_, _) => "Invalid HTTP Response",
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of a request")]
    let duration = record.took_ms as f64 / 1000.0;
    json!({
        "id": record.id, "guid": record.guid, "delivered_at": iso(record.at), "redelivery": record.redelivery,
        "duration": duration, "status": status,
        "status_code": record.status, "event": "workflow_job", "action": record.action, "installation_id": null,
        "repository_id": record.job.facts.repo.id,
        "throttled_at": null,
    })
}
