//! Runners as REST callers see them: registered just in time, listed, looked up, deleted; and the groups they belong
//! to.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Answer;
use super::api::{Call, Page};
use super::faults::Kind;
use super::model::{Group, Ms, OwnerKind, Runner, Scope, Work};
use super::state::Server;
use crate::jit::JitConfig;

/// GitHub's longest name of a runner.
const LONGEST_NAME: usize = 64;
/// The window of the limit on registrations.
const REGISTRATION_WINDOW: Ms = 300_000;

/// The body of `generate-jitconfig`, checked.
struct Registration {
    name: String,
    group: u64,
    labels: Vec<String>,
}

/// Checks the body as GitHub's schema does, and says what is wrong in its words.
fn check(body: &[u8]) -> Result<Registration, Answer> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Err(Answer::error(400, "Problems parsing JSON"));
    };
    let Some(object) = body.as_object() else {
        return Err(Answer::error(400, "Body should be a JSON object"));
    };
    let missing: Vec<String> = ["name", "runner_group_id", "labels"]
        .iter()
        .filter(|key| !object.contains_key(**key))
        .map(|key| format!("{key:?}"))
        .collect();
    match missing.as_slice() {
        [] => {}
        [one] => return Err(Answer::invalid(&format!("{one} wasn't supplied."))),
        several => return Err(Answer::invalid(&format!("{} weren't supplied.", several.join(", ")))),
    }
    let wrong =
        |key: &str, kind: &str| Answer::invalid(&format!("For 'properties/{key}', {} is not {kind}.", body[key]));
    let name = body["name"]
        .as_str()
        .ok_or_else(|| wrong("name", "a string"))?
        .to_owned();
    let group = body["runner_group_id"]
        .as_u64()
        .ok_or_else(|| wrong("runner_group_id", "an integer"))?;
    let labels = body["labels"].as_array().ok_or_else(|| wrong("labels", "an array"))?;
    if labels.is_empty() {
        return Err(Answer::invalid(
            "For 'properties/labels', no fewer than 1 item is required; only 0 were supplied.",
        ));
    }
    if labels.len() > 100 {
        return Err(Answer::invalid(&format!(
            "For 'properties/labels', no more than 100 items are allowed; {} were supplied.",
            labels.len()
        )));
    }
    let labels = labels
        .iter()
        .map(|label| label.as_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| wrong("labels", "an array of strings"))?;
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(Answer::error(
            422,
            format!("Validation Failed: the name of a runner has 1 to {LONGEST_NAME} characters"),
        ));
    }
    Ok(Registration { name, group, labels })
}

impl Server {
    fn groups(&self, scope: &Scope) -> &[Group] {
        match scope {
            Scope::Organization(owner) => self.owners.get(owner).map_or(&[], |owner| &owner.groups),
            Scope::Enterprise(_) => &self.enterprise_groups,
            Scope::Repository(..) => &[],
        }
    }

    /// POST …/generate-jitconfig. `url` is what the runner will connect to.
    pub(super) fn register(
        &mut self,
        scope: &Scope,
        call: &Call,
        url: &str,
        now: Ms,
    ) -> Result<(Answer, u64, Arc<str>), Answer> {
        let Registration { name, group, labels } = check(&call.body)?;
        self.spend_registration(scope, now)?;
        // A repository has the default group and no other.
        let group_name: Arc<str> = match (scope, self.groups(scope).iter().find(|g| g.id == group)) {
            (_, Some(group)) => group.name.clone(),
            (Scope::Repository(..), None) if group == 1 => "Default".into(),
            _ => return Err(Answer::not_found()),
        };
        let key = (scope.clone(), name.to_lowercase());
        if self.names.contains_key(&key) {
            return Err(Answer::error(
                409,
                format!("Already exists - A runner with the name {name} already exists."),
            ));
        }
        let id = self.next_runner();
        let secret = format!("{:032x}{:032x}", self.rng.u128(..), self.rng.u128(..));
        let runner = Runner {
            id,
            name: name.as_str().into(),
            scope: scope.clone(),
            group_id: group,
            group_name,
            folded: labels.iter().map(|label| label.to_lowercase()).collect::<BTreeSet<_>>(),
            labels,
            secret: secret.clone(),
            registered: now,
            offline_since: Some(now),
            session: None,
            work: Work::Idle,
            bell: Arc::default(),
            mute: None,
        };
        let filler: String = std::iter::repeat_with(|| self.rng.alphanumeric()).take(1200).collect();
        let encoded = JitConfig {
            server_url: url.to_owned(),
            runner_id: id,
            name,
            secret,
        }
        .encode(&filler);
        let answer = Answer::json(
            201,
            json!({ "runner": runner_json(&runner), "encoded_jit_config": encoded }),
        );
        let name = runner.name.clone();
        self.counters.jit_registered += 1;
        self.pair_request(&runner, now);
        self.names.insert(key, id);
        self.by_scope.entry(scope.clone()).or_default().insert(id);
        let of_owner = self.gauges.entry(scope.owner().to_owned()).or_default();
        of_owner.registered.up();
        of_owner.registrations += 1;
        self.totals.registered.up();
        self.runners.insert(id, runner);
        Ok((answer, id, name))
    }

    fn spend_registration(&mut self, scope: &Scope, now: Ms) -> Result<(), Answer> {
        let Some(limit) = self.settings.registration_limit else {
            return Ok(());
        };
        let (start, used) = self.registrations.entry(scope.clone()).or_insert((now, 0));
        if now >= *start + REGISTRATION_WINDOW {
            (*start, *used) = (now, 0);
        }
        *used += 1;
        if *used <= limit {
            return Ok(());
        }
        self.counters.rest_limited += 1;
        let reset = (*start + REGISTRATION_WINDOW).div_ceil(1000);
        let answer = Answer::refused(403, true)
            .header("x-ratelimit-limit", limit)
            .header("x-ratelimit-remaining", 0);
        Err(answer
            .header("x-ratelimit-reset", reset)
            .header("x-ratelimit-resource", "actions_runner_registration"))
    }

    /// Pairs the registration with the oldest job that it could serve and that has none: how long a job waited for its
    /// request.
    fn pair_request(&mut self, runner: &Runner, now: Ms) {
        let fits = |job: &&(Ms, u64)| {
            self.jobs
                .get(&job.1)
                .is_some_and(|job| self.may_run(runner, &job.facts))
        };
        let place = match &runner.scope {
            Scope::Enterprise(_) => self
                .unrequested
                .values()
                .filter_map(|jobs| jobs.iter().find(fits))
                .min()
                .copied(),
            scope => self
                .unrequested
                .get(scope.owner())
                .and_then(|jobs| jobs.iter().find(fits))
                .copied(),
        };
        let Some(job) = place.and_then(|(_, id)| self.jobs.get_mut(&id)) else {
            self.counters.jit_unneeded += 1;
            return;
        };
        job.times.requested = Some(now);
        let (owner, _) = job.facts.repo.key();
        if let (Some(jobs), Some(place)) = (self.unrequested.get_mut(&owner), place) {
            jobs.remove(&place);
        }
    }

    /// GET …/actions/runners. GHES ignores `name` before 3.11.
    pub(super) fn list_runners(&mut self, scope: &Scope, call: &Call, url: &str) -> Answer {
        let page = Page::of(call);
        let shifted = page.from() > 0 && self.faults.runner(&mut self.rng, scope, Kind::RunnersShift).is_some();
        let wanted = call
            .query
            .get("name")
            .filter(|_| !self.settings.server_version.starts_with("3.10."));
        let all: Vec<&Runner> = self
            .by_scope
            .get(scope)
            .into_iter()
            .flatten()
            .filter_map(|id| self.runners.get(id))
            .filter(|runner| wanted.is_none_or(|name| runner.name.eq_ignore_ascii_case(name)))
            .collect();
        // One of an earlier page has gone since that was read, and another has come at the end: all between have moved
        // up by one.
        let moved_up = if shifted {
            all.get(1..).unwrap_or_default()
        } else {
            &all
        };
        let shown: Vec<Value> = page.slice(moved_up).iter().map(|runner| runner_json(runner)).collect();
        page.link(
            Answer::json(200, json!({ "total_count": all.len(), "runners": shown })),
            all.len(),
            call,
            url,
        )
    }

    fn runner_in(&self, scope: &Scope, id: Option<u64>) -> Option<&Runner> {
        self.runners.get(&id?).filter(|runner| runner.scope == *scope)
    }

    /// GET …/actions/runners/{id}
    pub(super) fn get_runner(&self, scope: &Scope, id: Option<u64>) -> Answer {
        self.runner_in(scope, id)
            .map_or_else(Answer::not_found, |runner| Answer::json(200, runner_json(runner)))
    }

    /// DELETE …/actions/runners/{id}
    pub(super) fn delete_runner(&mut self, scope: &Scope, id: Option<u64>, now: Ms) -> Answer {
        let Some(runner) = self.runner_in(scope, id) else {
            return Answer::not_found();
        };
        if runner.busy() {
            return Answer::error(
                422,
                format!(
                    "Runner {:?} is currently running a job and cannot be deleted.",
                    runner.name
                ),
            );
        }
        let id = runner.id;
        self.remove_runner(id, "deleted", now);
        Answer::no_content()
    }

    /// GET …/actions/runner-groups
    pub(super) fn list_groups(&self, scope: &Scope, call: &Call, url: &str) -> Answer {
        let page = Page::of(call);
        let groups = self.groups(scope);
        let shown: Vec<Value> = page
            .slice(groups)
            .iter()
            .map(|group| group_json(group, scope, url))
            .collect();
        page.link(
            Answer::json(200, json!({ "total_count": groups.len(), "runner_groups": shown })),
            groups.len(),
            call,
            url,
        )
    }

    /// The scope that a caller named, if it is there.
    pub(super) fn find_scope(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Organization(owner) => self
                .owners
                .get(owner)
                .is_some_and(|owner| owner.kind == OwnerKind::Organization),
            Scope::Repository(owner, repo) => self
                .owners
                .get(owner)
                .is_some_and(|owner| owner.repos.contains_key(repo)),
            Scope::Enterprise(slug) => self.settings.enterprise.eq_ignore_ascii_case(slug),
        }
    }
}

/// A runner as GitHub describes it.
fn runner_json(runner: &Runner) -> Value {
    let label = |(index, name): (usize, &String)| {
        let read_only = ["self-hosted", "linux", "x64"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        json!({ "id": index + 1, "name": name, "type": if read_only { "read-only" } else { "custom" } })
    };
    json!({
        "id": runner.id,
        "name": runner.name,
        // A runner that never connected has told nobody what it runs on.
        "os": if runner.session.is_some() || runner.work != Work::Idle { "Linux" } else { "unknown" },
        "status": if runner.session.is_some() { "online" } else { "offline" },
        "busy": runner.busy(),
        "labels": runner.labels.iter().enumerate().map(label).collect::<Vec<_>>(),
        "runner_group_id": runner.group_id,
        "ephemeral": true,
    })
}

fn group_json(group: &Group, scope: &Scope, url: &str) -> Value {
    let (kind, owner) = match scope {
        Scope::Enterprise(slug) => ("enterprises", slug),
        scope => ("orgs", &scope.owner().to_owned()),
    };
    let base = format!("{url}/api/v3/{kind}/{owner}/actions/runner-groups/{}", group.id);
    let mut json = json!({
        "id": group.id,
        "name": group.name,
        "visibility": if group.selected.is_some() { "selected" } else { "all" },
        "default": group.id == 1,
        "runners_url": format!("{base}/runners"),
        "allows_public_repositories": group.public,
        "restricted_to_workflows": false,
        "selected_workflows": [],
        "workflow_restrictions_read_only": false,
    });
    let selected = if kind == "orgs" {
        "repositories"
    } else {
        "organizations"
    };
    if group.selected.is_some() {
        json[format!("selected_{selected}_url")] = json!(format!("{base}/{selected}"));
    }
    if kind == "orgs" {
        json["inherited"] = json!(false);
    }
    json
}
