//! What the design defines in terms of jobs and runners: queues, idle sets, unmet demand, room, who is ready, and in
//! which order.

use super::{ClassId, JobNumber, JobState, Model, Name, Org, Runner, RunnerState, fold};

impl Model {
    /// A class's queued jobs with their times, oldest first; equal times by their ids as text, as Redis has it.
    pub fn queued(&self, class: &str) -> Vec<(i64, String)> {
        let mut queued: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.state == JobState::Queued && job.class.as_deref() == Some(class))
            .map(|(id, job)| (job.queued_at.unwrap(), id.to_string()))
            .collect();
        queued.sort();
        queued
    }

    /// A class's runners that are reserved, starting or idle.
    pub fn idle(&self, class: &str) -> Vec<(&Name, &Runner)> {
        self.runners
            .iter()
            .filter(|(_, runner)| {
                runner.class == class && matches!(runner.state, RunnerState::Reserved | RunnerState::Created)
            })
            .collect()
    }

    /// How many idle runners a class should have.
    pub fn wanted(&self, class: &str) -> usize {
        let queued = self.queued(class).len();
        if self.misfits.contains(class) {
            queued.min(1)
        } else {
            queued
        }
    }

    /// How many runners may live at once: the maximum, or what the quota lets in.
    pub fn maximum(&self) -> u64 {
        let fits = self
            .ceiling
            .map(|(runners, since)| runners + u64::try_from((self.now - since) / self.time("quota_interval")).unwrap());
        fits.map_or(self.settings.max_total, |fits| fits.min(self.settings.max_total))
    }

    /// Classes that have a job or an idle runner.
    pub fn present(&self) -> Vec<ClassId> {
        self.classes
            .keys()
            .filter(|class| !self.queued(class).is_empty() || !self.idle(class).is_empty())
            .cloned()
            .collect()
    }

    /// A class's oldest job without a runner, where the class lacks any.
    pub fn first_unmet(&self, class: &str) -> Option<(i64, JobNumber)> {
        let idle = self.idle(class).len();
        self.queued(class)
            .get(idle)
            .filter(|_| idle < self.wanted(class))
            .map(|(at, job)| (*at, job.parse().unwrap()))
    }

    /// An organization's classes in need, the one that waits longest first.
    pub fn in_need(&self, org: &str) -> Vec<(i64, ClassId)> {
        let of_org = self.classes.iter().filter(|(_, class)| fold(&class.org) == org);
        let mut classes: Vec<_> = of_org
            .filter_map(|(id, _)| Some((self.first_unmet(id)?.0, id.clone())))
            .collect();
        classes.sort();
        classes
    }

    /// Those that nothing holds back.
    pub fn servable(&self, org: &str) -> Vec<ClassId> {
        self.in_need(org)
            .into_iter()
            .map(|(_, class)| class)
            .filter(|class| !self.is_held(class))
            .collect()
    }

    pub fn running(&self, org: &str) -> u64 {
        self.runners
            .values()
            .filter(|runner| runner.state != RunnerState::Gone && fold(&self.classes[&runner.class].org) == org)
            .count() as u64
    }

    pub fn pending(&self, org: &str) -> usize {
        let classes = self.classes.iter().filter(|(_, class)| fold(&class.org) == org);
        classes.map(|(id, _)| self.queued(id).len()).sum()
    }

    pub fn limit(&self, org: &str) -> u64 {
        self.limits.get(org).copied().unwrap_or(self.settings.max_per_org)
    }

    /// Ready: unmet demand, room, no pause.
    pub fn is_ready(&self, org: &str) -> bool {
        self.running(org) < self.limit(org) && !self.paused.contains_key(org) && !self.in_need(org).is_empty()
    }

    /// Whether it may be served now.
    pub fn is_servable(&self, org: &str) -> bool {
        self.is_ready(org) && !self.is_org_held(org) && !self.servable(org).is_empty()
    }

    /// Organizations that are ready, lowest score first.
    pub fn ready(&self) -> Vec<(f64, Org)> {
        let mut ready: Vec<_> = self
            .known
            .keys()
            .filter(|org| self.is_ready(org))
            .map(|org| (self.score(org), org.clone()))
            .collect();
        ready.sort_by(|a, b| {
            a.0.total_cmp(&b.0)
                .then_with(|| self.known[&a.1].cmp(&self.known[&b.1]))
        });
        ready
    }

    fn score(&self, org: &str) -> f64 {
        let (maximum, running) = (self.settings.max_total, self.running(org));
        self.served.get(org).copied().unwrap_or(0) as f64
            + (maximum * running) as f64 / self.limit(org).min(maximum) as f64
    }

    /// After every change: notes since when classes have had too many runners.
    pub fn settle(&mut self) {
        let surplus: Vec<ClassId> = self
            .classes
            .keys()
            .filter(|class| self.idle(class).len() > self.wanted(class))
            .cloned()
            .collect();
        self.surplus_since.retain(|class, _| surplus.contains(class));
        for class in surplus {
            self.surplus_since.entry(class).or_insert(self.now);
        }
        let present = self.present();
        self.misfits.retain(|class| present.contains(class));
    }
}
