//! The simulated GitHub itself: one plain struct, changed by pure methods.
//!
//! Nothing here reads a clock, draws from the system's randomness or touches the network: the moment comes in with
//! every call, the generator is seeded, and webhooks go out through [`Server::take_outbox`]. This file holds the
//! struct, owners and groups; the life of jobs is in [`super::jobs`], which runner gets which in `assign`, what runners
//! say in [`super::sessions`], what REST callers ask in [`super::api`] and `registry`.
//!
//! Kept at every moment: a job is in `queued` exactly when it is queued and assigned to nobody; a runner is in `idle`
//! exactly when it has a session and no work; `running` counts the jobs in progress.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fastrand::Rng;

use super::app::{AppState, Apps, Caller};
use super::faults::{Endpoint, Faults};
use super::hooks::Hooks;
use super::jobs::ControlError;
use super::log::Log;
use super::model::{Action, Gauges, Group, Job, Ms, Owner, OwnerKind, Repo, Runner, Scope};
use super::rights::Rights;
use super::settings::Settings;

/// A webhook to be sent; its body is made when it is sent, from the job as it was.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `X-GitHub-Delivery`.
    pub id: Arc<str>,
    /// `action`.
    pub action: Action,
    /// The job as it was.
    pub job: Job,
    /// How long to wait before it is sent.
    pub delay: Ms,
    /// So long ago it is said to have been sent: its job was created in the past.
    pub backdated: Ms,
    /// It repeats an earlier one of the same id.
    pub redelivery: bool,
}

/// The simulated GitHub.
#[derive(Debug)]
pub struct Server {
    /// What it was started with.
    pub settings: Settings,
    /// What goes wrong.
    pub faults: Faults,
    /// What happened.
    pub log: Log,
    pub(super) rng: Rng,
    pub(super) owners: BTreeMap<String, Owner>,
    /// Logins of before, in lower case, and those of now.
    pub(super) moved: BTreeMap<String, Arc<str>>,
    pub(super) enterprise_groups: Vec<Group>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) runs: BTreeMap<u64, Vec<u64>>,
    pub(super) repo_runs: HashMap<u64, Vec<u64>>,
    pub(super) runners: BTreeMap<u64, Runner>,
    pub(super) names: HashMap<(Scope, String), u64>,
    pub(super) by_scope: BTreeMap<Scope, BTreeSet<u64>>,
    pub(super) sessions: BTreeMap<String, u64>,
    pub(super) idle: HashMap<Scope, BTreeSet<u64>>,
    /// By owner: moment of queueing and job, oldest first.
    pub(super) queued: BTreeMap<String, BTreeSet<(Ms, u64)>>,
    /// By owner: queued jobs that no JIT request has been paired with yet.
    pub(super) unrequested: BTreeMap<String, BTreeSet<(Ms, u64)>>,
    /// Jobs given to a runner that has not taken them yet.
    pub(super) assigned: BTreeSet<u64>,
    pub(super) gauges: BTreeMap<String, Gauges>,
    pub(super) totals: Gauges,
    pub(super) counters: Counters,
    pub(super) registrations: HashMap<Scope, (Ms, u32)>,
    /// By caller: start of the hour, and calls since.
    pub(super) quotas: HashMap<Caller, (Ms, u64)>,
    /// By caller and endpoint: start of the minute, and points since.
    pub(super) points: HashMap<(Caller, Endpoint), (Ms, u64)>,
    pub(super) apps: Apps,
    pub(super) rights: Rights,
    pub(super) outbox: Vec<Delivery>,
    pub(super) hooks: Hooks,
    pub(super) next: NextIds,
}

/// Plain counts for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) webhooks_sent: u64,
    pub(super) webhooks_accepted: u64,
    pub(super) webhooks_refused: u64,
    pub(super) webhooks_unanswered: u64,
    pub(super) webhooks_dropped: u64,
    pub(super) jit_requests: u64,
    pub(super) jit_registered: u64,
    pub(super) jit_unneeded: u64,
    pub(super) rest_calls: u64,
    pub(super) rest_limited: u64,
    pub(super) rest_under_way: u64,
    pub(super) rest_most_at_once: u64,
    pub(super) rest_unchanged: u64,
    pub(super) app_tokens: u64,
    pub(super) runners_connected: u64,
    pub(super) runners_removed_unused: u64,
    pub(super) jobs_requeued: u64,
}

/// Ids are as large as GitHub's, so that whoever keeps them in 32 bits finds out.
#[derive(Debug)]
pub(super) struct NextIds {
    pub(super) owner: u64,
    pub(super) repo: u64,
    pub(super) run: u64,
    pub(super) job: u64,
    pub(super) runner: u64,
    pub(super) group: u64,
}

impl Server {
    /// A server with the organizations that `settings` asks for, and nothing else.
    pub fn new(settings: Settings) -> Self {
        let rng = Rng::with_seed(settings.seed);
        let mut server = Self {
            faults: Faults::default(),
            log: Log::default(),
            rng,
            owners: BTreeMap::new(),
            moved: BTreeMap::new(),
            enterprise_groups: vec![Group::default_group()],
            jobs: BTreeMap::new(),
            runs: BTreeMap::new(),
            repo_runs: HashMap::new(),
            runners: BTreeMap::new(),
            names: HashMap::new(),
            by_scope: BTreeMap::new(),
            sessions: BTreeMap::new(),
            idle: HashMap::new(),
            queued: BTreeMap::new(),
            unrequested: BTreeMap::new(),
            assigned: BTreeSet::new(),
            gauges: BTreeMap::new(),
            totals: Gauges::default(),
            counters: Counters::default(),
            registrations: HashMap::new(),
            quotas: HashMap::new(),
            points: HashMap::new(),
            apps: Apps::default(),
            rights: Rights::default(),
            outbox: Vec::new(),
            hooks: Hooks::default(),
            next: NextIds {
                owner: 1000,
                repo: 700_000_000,
                run: 9_000_000_000,
                job: 30_000_000_000,
                runner: 100,
                group: 1,
            },
            settings,
        };
        for number in 1..=server.settings.orgs {
            let login = format!("org-{number:04}");
            let _ = server.add_owner(&login, OwnerKind::Organization);
            if server.settings.app_installed {
                let _ = server.set_installation(&login, AppState::Installed, 0);
            }
        }
        server
    }

    /// The webhooks that are to be sent since this was last asked.
    pub fn take_outbox(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.outbox)
    }

    /// The job of this id.
    pub fn job(&self, id: u64) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Adds an owner, unless it is there already.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when it is there as something else, or has no name.
    pub fn add_owner(&mut self, login: &str, kind: OwnerKind) -> Result<(), ControlError> {
        let key = login.to_lowercase();
        if login.is_empty() || login.contains('/') {
            return Err(ControlError::Invalid("an owner needs a login without a slash".into()));
        }
        if let Some(owner) = self.owners.get(&key) {
            return if owner.kind == kind {
                Ok(())
            } else {
                Err(ControlError::Invalid(format!("{login} is no {kind:?}")))
            };
        }
        self.next.owner += 1;
        let groups = if kind == OwnerKind::Organization {
            vec![Group::default_group()]
        } else {
            Vec::new()
        };
        let owner = Owner {
            id: self.next.owner,
            login: login.into(),
            kind,
            groups,
            repos: BTreeMap::new(),
            payload: Default::default(),
        };
        self.owners.insert(key, owner);
        Ok(())
    }

    /// Adds a runner group to an organization (or, with none, to the enterprise), or changes the one of that name.
    /// Returns its id.
    ///
    /// # Errors
    ///
    /// [`ControlError::Invalid`] when there is no such organization.
    pub fn set_group(
        &mut self,
        org: Option<&str>,
        name: &str,
        selected: Option<Vec<String>>,
        public: bool,
    ) -> Result<u64, ControlError> {
        let groups = match org {
            None => &mut self.enterprise_groups,
            Some(org) => match self.owners.get_mut(&org.to_lowercase()) {
                Some(owner) if owner.kind == OwnerKind::Organization => &mut owner.groups,
                _ => return Err(ControlError::Invalid(format!("no organization {org}"))),
            },
        };
        let selected = selected.map(|names| names.iter().map(|name| name.to_lowercase()).collect());
        if let Some(group) = groups.iter_mut().find(|group| group.name.eq_ignore_ascii_case(name)) {
            (group.selected, group.public) = (selected, public);
            return Ok(group.id);
        }
        self.next.group += 1;
        groups.push(Group {
            id: self.next.group,
            name: name.into(),
            selected,
            public,
        });
        Ok(self.next.group)
    }

    pub(super) fn repo(&mut self, owner: &str, name: &str, private: bool) -> Option<Arc<Repo>> {
        let owner = self.owners.get_mut(&owner.to_lowercase())?;
        let repo = owner.repos.entry(name.to_lowercase()).or_insert_with(|| {
            self.next.repo += 1;
            Arc::new(Repo {
                id: self.next.repo,
                owner: owner.login.clone(),
                owner_id: owner.id,
                owner_kind: owner.kind,
                name: name.into(),
                private,
                payload: Default::default(),
            })
        });
        Some(repo.clone())
    }

    /// The next runner's id.
    /// Makes a private repository of an owner that exists, which has had no run yet. Whether there is that owner.
    pub fn add_repository(&mut self, owner: &str, name: &str) -> bool {
        self.repo(owner, name, true).is_some()
    }

    pub(super) fn next_runner(&mut self) -> u64 {
        self.next.runner += 1;
        self.next.runner
    }
}

/// A random UUID, version 4.
pub(super) fn uuid(rng: &mut Rng) -> String {
    let bits = rng.u128(..);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-4{}-{:x}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        8 + (bits >> 60 & 3),
        &hex[17..20],
        &hex[20..]
    )
}
