//! Admission, what operators decide, and the comparison with what really runs.

use jit_core::{config::LimitsSettings, ledger::Listed};

use super::{ClassId, Held, IN_FLIGHT, JobNumber, Model, Name, Org, Runner, RunnerState, fold};

/// What an admission should have done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The job that asked for each runner, in order.
    pub reserved: Vec<JobNumber>,
    pub reaped: u32,
    pub gate_closed: bool,
}

/// What a reconcile should have done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    pub released: u32,
    pub adopted: u32,
    pub opened: bool,
    pub stop: Vec<Name>,
}

impl Model {
    /// Ends the back-offs and pauses whose time has come.
    fn wake(&mut self) {
        let now = self.now;
        self.backoffs.retain(|_, until| *until > now);
        self.paused.retain(|_, until| until.is_none_or(|until| until > now));
    }

    /// Serves the neediest until there is no room; `names` gives the ledger's names and fences, since they are
    /// arbitrary.
    pub fn admit(&mut self, most: usize, names: impl IntoIterator<Item = (Name, String)>) -> Admitted {
        self.wake();
        let mut admitted = Admitted {
            gate_closed: !self.open,
            ..Admitted::default()
        };
        if admitted.gate_closed {
            self.lost_at.get_or_insert(self.now);
            return admitted;
        }
        let mut names = names.into_iter();
        let maximum = self.maximum();
        self.ceiling = self
            .ceiling
            .filter(|_| maximum < self.settings.max_total || self.backoffs.contains_key(&Held::Global));
        let mut full = false;
        while admitted.reserved.len() < most && !self.backoffs.contains_key(&Held::Global) {
            let Some((_, org)) = self.ready().into_iter().find(|(_, org)| self.is_servable(org)) else {
                break;
            };
            full = self.live().len() as u64 >= maximum;
            if full {
                break;
            }
            let class = self.servable(&org).remove(0);
            let (_, job) = self.first_unmet(&class).unwrap();
            let (name, fence) = names.next().unwrap_or_else(|| (format!("nobody-{job}"), String::new()));
            self.admissions += 1;
            self.sequence += 1;
            self.served.insert(org, self.admissions);
            let deadline = self.after("reserve_timeout");
            self.runners.insert(
                name.clone(),
                Runner {
                    fence: Some(fence),
                    deadline: Some(deadline),
                    ..self.new_runner(RunnerState::Reserved, class, job)
                },
            );
            self.take_probes(&name);
            self.settle();
            admitted.reserved.push(job);
        }
        admitted.reaped = self.reap(full);
        admitted
    }

    fn new_runner(&self, state: RunnerState, class: ClassId, asked_by: JobNumber) -> Runner {
        Runner {
            state,
            class,
            asked_by,
            runs: None,
            fence: None,
            claimed_at: None,
            probes: Vec::new(),
            claim: None,
            github_id: None,
            uncertain: false,
            deregistered: false,
            forced: false,
            unused: false,
            job_left: false,
            removal_tries: 0,
            credential: None,
            without_image: false,
            create_timeout: 0,
            reserved_at: self.now,
            created_at: None,
            started_at: None,
            busy_at: None,
            gone_at: None,
            hold_until: None,
            deadline: None,
            look_up_at: None,
            looked_up: 0,
        }
    }

    /// Surplus goes after a grace time, and at once where its organization or the whole is full and others wait.
    fn reap(&mut self, full: bool) -> u32 {
        let mut reaped = 0;
        let mut surplus: Vec<(i64, ClassId)> = self
            .surplus_since
            .iter()
            .map(|(class, since)| (*since, class.clone()))
            .collect();
        surplus.sort();
        for (since, class) in surplus {
            let org = fold(&self.classes[&class].org);
            let org_full = self.running(&org) >= self.limit(&org) && !self.servable(&org).is_empty();
            if since + self.time("surplus_grace") > self.now && !full && !org_full {
                continue;
            }
            let mut idle: Vec<_> = self
                .idle(&class)
                .iter()
                .map(|(name, runner)| {
                    (
                        runner.state == RunnerState::Reserved,
                        runner.reserved_at,
                        (*name).clone(),
                    )
                })
                .collect();
            idle.sort();
            let excess = idle.len() - self.wanted(&class);
            // Reserved ones first, then the youngest.
            for (.., name) in idle.into_iter().rev().take(excess) {
                self.begin_removal(&name);
                reaped += 1;
            }
        }
        reaped
    }

    /// Sets limits; what each was before.
    pub fn set_limits(&mut self, limits: &[(String, Option<u64>)], replace: bool) -> Vec<u64> {
        let previous = limits.iter().map(|(org, _)| self.limit(&fold(org))).collect();
        if replace {
            self.limits.clear();
        }
        for (org, limit) in limits {
            match limit {
                Some(limit) => self.limits.insert(fold(org), *limit),
                None => self.limits.remove(&fold(org)),
            };
        }
        previous
    }

    pub fn pause(&mut self, org: &str, until: Option<i64>) {
        self.paused.insert(fold(org), until);
    }

    pub fn resume(&mut self, org: &str) {
        self.paused.remove(&fold(org));
    }

    pub fn configure(&mut self, settings: &LimitsSettings) {
        self.settings = settings.clone();
    }

    /// Compares with a list that began at `began`, and opens the gate when nothing can be on its way that this list has
    /// not.
    pub fn reconcile(&mut self, began: i64, listed: &[Listed]) -> Reconciled {
        let mut result = Reconciled::default();
        for seen in listed {
            let state = self.runners.get(&seen.name).map(|runner| runner.state);
            match state {
                // Released already: what is left of it ends, but not what may have been listed before its release.
                Some(RunnerState::Gone) => {
                    let before = self.runners[&seen.name].gone_at.unwrap() < began;
                    if (seen.ended || before) && !seen.terminating {
                        result.stop.push(seen.name.clone());
                    }
                }
                Some(_) if seen.ended => {
                    self.ended(&seen.name, seen.rejected);
                    result.released += 1;
                    result.stop.push(seen.name.clone());
                }
                Some(RunnerState::Created) if seen.running => {
                    self.started(&seen.name);
                }
                Some(RunnerState::Reserved) => {
                    let now = self.now;
                    self.runners.get_mut(&seen.name).unwrap().claimed_at.get_or_insert(now);
                }
                Some(_) => {}
                None if seen.ended || seen.spec.is_none() => {
                    result.stop.extend((!seen.terminating).then(|| seen.name.clone()))
                }
                None => {
                    self.adopt(seen);
                    result.adopted += 1;
                }
            }
        }
        // What was recorded as created (or busy, where that was never recorded) before the list began, and is not in
        // it, is gone.
        for name in self.live() {
            let runner = &self.runners[&name];
            let known_to_exist = runner
                .created_at
                .or(runner.busy_at.filter(|_| runner.state == RunnerState::Busy));
            let absent = !listed.iter().any(|seen| seen.name == name);
            if absent && runner.state != RunnerState::Reserved && known_to_exist.is_some_and(|at| at < began) {
                self.ended(&name, false);
                result.released += 1;
            } else if absent && !self.open && runner.state == RunnerState::Reserved && runner.claimed_at.is_none() {
                // It may stand beside runners that the data did not know.
                if began >= *self.lost_at.get_or_insert(self.now) + i64::try_from(IN_FLIGHT.as_millis()).unwrap() {
                    self.free(&name, false);
                    result.released += 1;
                }
            }
        }
        if !self.open {
            let nothing = self.epoch_lost && self.live().is_empty();
            let settled = *self.lost_at.get_or_insert(self.now)
                + if nothing {
                    0
                } else {
                    i64::try_from(IN_FLIGHT.as_millis()).unwrap()
                };
            result.opened = began >= settled;
        }
        if result.opened {
            (self.open, self.lost_at, self.epoch_lost) = (true, None, false);
            self.epoch += 1;
        }
        result
    }

    fn adopt(&mut self, seen: &Listed) {
        let (spec, class) = (seen.spec.as_ref().unwrap(), seen.class.clone().unwrap());
        self.known.entry(fold(&spec.org)).or_insert_with(|| spec.org.clone());
        self.sequence += 1;
        let now = self.now;
        // One whose deletion is under way counts until it is gone, and serves nobody.
        let (state, deadline) = if seen.terminating {
            (RunnerState::Removing, now)
        } else {
            (RunnerState::Created, self.after("idle_check"))
        };
        let runner = Runner {
            created_at: Some(now),
            started_at: Some(now),
            uncertain: true,
            deadline: Some(deadline),
            ..self.new_runner(state, class, spec.job.get())
        };
        self.runners.insert(seen.name.clone(), runner);
        self.settle();
    }

    /// The design's promises about one admission, held against the states before and after it.
    pub fn check_admission(&self, after: &Self, done: &Admitted, more: bool) -> Result<(), String> {
        let orgs = after.known.keys();
        let new = |org: &Org| after.running(org) > self.running(org);
        let fair = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        let (live, reserved) = (after.live().len() as u64, done.reserved.len());
        fair(
            reserved == 0 || live <= after.maximum(),
            format!("{live} runners in all"),
        )?;
        fair(reserved == 0 || after.open, "admitted with the gate closed".into())?;
        for org in orgs {
            let (running, limit) = (after.running(org), after.limit(org));
            fair(
                !new(org) || running <= limit,
                format!("{org} has {running} runners of {limit}"),
            )?;
            fair(!new(org) || !after.paused.contains_key(org), format!("{org} is paused"))?;
            let starves = after.is_servable(org)
                && live < after.maximum()
                && after.open
                && !after.backoffs.contains_key(&Held::Global);
            fair(
                more || done.reaped > 0 || !starves,
                format!("{org} could be served and is not"),
            )?;
        }
        for class in after.present() {
            let (idle, queued, before) = (
                after.idle(&class).len(),
                after.queued(&class).len(),
                self.idle(&class).len(),
            );
            fair(
                idle <= before || idle <= queued,
                format!("class {class} has {idle} idle runners for {queued} jobs"),
            )?;
        }
        // What was held is held still, and nothing of it was admitted; what has failed got one runner at most, its
        // probe.
        for (held, until) in self
            .backoffs
            .iter()
            .filter(|(_, until)| **until > after.now && done.reaped == 0)
        {
            let row = after.rows.get(held);
            fair(
                after.backoffs.get(held) == Some(until),
                format!("{held:?} is free before its time"),
            )?;
            let tried = after
                .runners
                .keys()
                .any(|name| !self.runners.contains_key(name) && after.subjects(name).contains(held));
            fair(!tried, format!("{held:?} was tried although it is held: {row:?}"))?;
        }
        for held in self.rows.keys() {
            let tries = after
                .runners
                .keys()
                .filter(|name| !self.runners.contains_key(*name) && after.subjects(name).contains(held))
                .count();
            fair(tries <= 1, format!("{tries} try {held:?} at once"))?;
        }
        Ok(())
    }
}
