//! Which runner gets which job, and what happens when one of them does not come.
//!
//! A queued job goes to any online idle runner of its scope whose labels hold all of the job's and whose group allows
//! the repository: no runner belongs to a job. An assignment that is not taken in time is queued again, where it was; a
//! runner that is lost while it runs a job takes the job down with it and stays registered, offline.

use std::sync::Arc;

use super::log::Event;
use super::model::{Conclusion, JobFacts, JobState, Ms, OwnerKind, Runner, Scope, Work};
use super::settings::Pick;
use super::state::Server;

impl Server {
    /// Gives a queued job to an idle runner, if one fits.
    pub(super) fn place_job(&mut self, id: u64, now: Ms) {
        let Some(facts) = self
            .jobs
            .get(&id)
            .filter(|job| job.state == JobState::Queued)
            .map(|job| job.facts.clone())
        else {
            return;
        };
        let fitting: Vec<u64> = self
            .scopes_of(&facts)
            .iter()
            .filter_map(|scope| self.idle.get(scope))
            .flatten()
            .copied()
            .filter(|runner| {
                self.runners
                    .get(runner)
                    .is_some_and(|runner| self.may_run(runner, &facts))
            })
            .collect();
        let chosen = match self.settings.pick {
            Pick::Oldest => fitting.iter().min().copied(),
            Pick::Random | Pick::Shuffled => self.rng.choice(&fitting).copied(),
        };
        if let Some(runner) = chosen {
            self.assign(id, runner, now);
        }
    }

    /// Gives an idle runner a queued job, if one fits.
    pub(super) fn place_runner(&mut self, id: u64, now: Ms) {
        let Some(runner) = self
            .runners
            .get(&id)
            .filter(|runner| runner.session.is_some() && runner.work == Work::Idle)
        else {
            return;
        };
        let fits = |job: &&(Ms, u64)| {
            self.jobs
                .get(&job.1)
                .is_some_and(|job| self.may_run(runner, &job.facts))
        };
        let chosen = match (&runner.scope, self.settings.pick) {
            (Scope::Enterprise(_), _) => self
                .queued
                .values()
                .filter_map(|jobs| jobs.iter().find(fits))
                .min()
                .map(|job| job.1),
            (scope, Pick::Shuffled) => {
                let fitting: Vec<u64> = self
                    .queued
                    .get(scope.owner())
                    .into_iter()
                    .flatten()
                    .filter(fits)
                    .map(|job| job.1)
                    .collect();
                self.rng.choice(&fitting).copied()
            }
            (scope, _) => self
                .queued
                .get(scope.owner())
                .and_then(|jobs| jobs.iter().find(fits))
                .map(|job| job.1),
        };
        if let Some(job) = chosen {
            self.assign(job, id, now);
        }
    }

    fn scopes_of(&self, facts: &JobFacts) -> Vec<Scope> {
        let (owner, repo) = facts.repo.key();
        let mut scopes = vec![Scope::Repository(owner.clone(), repo)];
        if facts.repo.owner_kind == OwnerKind::Organization {
            scopes.push(Scope::Organization(owner));
            scopes.push(Scope::Enterprise(self.settings.enterprise.to_lowercase()));
        }
        scopes
    }

    /// Whether labels, scope and group let this runner run a job of these facts.
    pub(super) fn may_run(&self, runner: &Runner, facts: &JobFacts) -> bool {
        let (owner, repo) = facts.repo.key();
        let group = |groups: &[super::model::Group], member: &str| {
            groups
                .iter()
                .any(|group| group.id == runner.group_id && group.allows(&facts.repo, member))
        };
        runner.fits(facts)
            && match &runner.scope {
                Scope::Repository(o, r) => *o == owner && *r == repo,
                Scope::Organization(o) => {
                    *o == owner && self.owners.get(o).is_some_and(|owner| group(&owner.groups, &repo))
                }
                Scope::Enterprise(_) => {
                    facts.repo.owner_kind == OwnerKind::Organization && group(&self.enterprise_groups, &owner)
                }
            }
    }

    fn assign(&mut self, job_id: u64, runner_id: u64, now: Ms) {
        let (Some(job), Some(runner)) = (self.jobs.get_mut(&job_id), self.runners.get_mut(&runner_id)) else {
            return;
        };
        let (owner, _) = job.facts.repo.key();
        job.assigned = Some((runner_id, now));
        runner.work = Work::Assigned(job_id);
        runner.bell.notify_one();
        let place = (job.times.queued.unwrap_or(0), job_id);
        self.queued.get_mut(&owner).map(|jobs| jobs.remove(&place));
        self.idle.get_mut(&runner.scope).map(|idle| idle.remove(&runner_id));
        self.assigned.insert(job_id);
        self.log.push(
            now,
            Event::JobAssigned {
                job: job_id,
                runner: runner_id,
            },
        );
    }

    /// Takes the job from the runner that has not taken it yet; the runner is free again.
    pub(super) fn unassign(&mut self, job_id: u64, now: Ms) {
        let Some((runner, _)) = self.jobs.get_mut(&job_id).and_then(|job| job.assigned.take()) else {
            return;
        };
        self.assigned.remove(&job_id);
        if let Some(runner) = self
            .runners
            .get_mut(&runner)
            .filter(|runner| runner.work == Work::Assigned(job_id))
        {
            runner.work = Work::Idle;
            let id = runner.id;
            self.idle(id, now);
        }
    }

    /// The assigned job goes back to where it was in the queue, and to another runner if one fits.
    pub(super) fn requeue(&mut self, job_id: u64, now: Ms) {
        let Some(job) = self.jobs.get(&job_id).filter(|job| job.assigned.is_some()) else {
            return;
        };
        let (owner, _) = job.facts.repo.key();
        let place = (job.times.queued.unwrap_or(0), job_id);
        let runner = job.assigned.map_or(0, |(runner, _)| runner);
        self.counters.jobs_requeued += 1;
        self.log.push(now, Event::JobRequeued { job: job_id, runner });
        self.assigned.remove(&job_id);
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.assigned = None;
        }
        self.queued.entry(owner).or_default().insert(place);
        // The job first, so that it goes to a runner that polls rather than back to the one that did not.
        self.place_job(job_id, now);
        if let Some(runner) = self
            .runners
            .get_mut(&runner)
            .filter(|runner| runner.work == Work::Assigned(job_id))
        {
            runner.work = Work::Idle;
            let id = runner.id;
            self.idle(id, now);
        }
    }

    /// The runner, if it is online, waits for work: it gets some, or is listed as idle.
    pub(super) fn idle(&mut self, id: u64, now: Ms) {
        let Some(runner) = self
            .runners
            .get(&id)
            .filter(|runner| runner.session.is_some() && runner.work == Work::Idle)
        else {
            return;
        };
        self.idle.entry(runner.scope.clone()).or_default().insert(id);
        self.place_runner(id, now);
    }

    /// Ends a runner's session: a running job fails, an assigned one waits for its time-out, the registration stays.
    pub(super) fn go_offline(&mut self, id: u64, now: Ms) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        let Some(session) = runner.session.take() else { return };
        runner.offline_since = Some(now);
        runner.bell.notify_one();
        let (scope, work) = (runner.scope.clone(), runner.work);
        if let Work::Running(_) = work {
            runner.work = Work::Spent;
        }
        self.sessions.remove(&session.id);
        self.idle.get_mut(&scope).map(|idle| idle.remove(&id));
        self.gauges
            .entry(scope.owner().to_owned())
            .or_default()
            .connected
            .down();
        self.totals.connected.down();
        self.log.push(
            now,
            Event::RunnerOffline {
                runner: id,
                owner: scope.owner().into(),
            },
        );
        if let Work::Running(job) = work {
            self.complete(job, Conclusion::Failure, now);
        }
    }

    /// Takes a runner off the books. A job that it was assigned is queued again at once.
    pub(super) fn remove_runner(&mut self, id: u64, why: &'static str, now: Ms) {
        self.go_offline(id, now);
        let Some(runner) = self.runners.remove(&id) else { return };
        let owner = runner.scope.owner().to_owned();
        self.names.remove(&(runner.scope.clone(), runner.name.to_lowercase()));
        self.by_scope.get_mut(&runner.scope).map(|runners| runners.remove(&id));
        self.log.push(
            now,
            Event::RunnerRemoved {
                runner: id,
                owner: Arc::from(owner.as_str()),
                why,
            },
        );
        self.gauges.entry(owner).or_default().registered.down();
        self.totals.registered.down();
        match runner.work {
            Work::Assigned(job) => self.requeue(job, now),
            Work::Idle => self.counters.runners_removed_unused += 1,
            Work::Running(_) | Work::Spent => {}
        }
    }

    /// What time alone brings about. Call it several times a second.
    pub fn tick(&mut self, now: Ms) {
        let settings = &self.settings;
        let lost: Vec<u64> = self
            .sessions
            .values()
            .copied()
            .filter(|id| {
                self.runners
                    .get(id)
                    .and_then(|runner| runner.session.as_ref())
                    .is_some_and(|s| s.open == 0 && s.lease_until <= now)
            })
            .collect();
        let late = |since: Ms, patience: Ms| now.saturating_sub(since) >= patience;
        let dropped: Vec<u64> = self
            .assigned
            .iter()
            .copied()
            .filter(|id| {
                self.jobs
                    .get(id)
                    .and_then(|job| job.assigned)
                    .is_some_and(|(_, since)| late(since, settings.pickup_ms))
            })
            .collect();
        let expired: Vec<u64> = self
            .queued
            .values()
            .flat_map(|jobs| jobs.iter().take_while(|job| late(job.0, settings.queue_timeout_ms)))
            .map(|job| job.1)
            .collect();
        let forgotten: Vec<u64> = self
            .runners
            .values()
            .filter(|runner| match runner.offline_since {
                Some(since) => late(since, settings.offline_ttl_ms),
                None => {
                    runner.work == Work::Idle && settings.idle_ttl_ms.is_some_and(|ttl| late(runner.registered, ttl))
                }
            })
            .map(|runner| runner.id)
            .collect();
        lost.into_iter().for_each(|id| self.go_offline(id, now));
        dropped.into_iter().for_each(|id| self.requeue(id, now));
        for id in expired {
            // It cannot fail: what is in `queued` is queued.
            let _ = self.cancel(id, now);
        }
        forgotten
            .into_iter()
            .for_each(|id| self.remove_runner(id, "expired", now));
    }
}
