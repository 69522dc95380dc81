//! What fails is held back: rows of failures, probes, and wider subjects of which several members fail.

use std::time::Duration;

use jit_core::ledger::{BackOff, Growth, Hold, Needs, Subject};

use super::{ClassId, Held, JobNumber, JobState, Model, Name, fold};

/// Failures of one subject in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub failures: u32,
    /// When the last of them was, and the first.
    pub since: i64,
    pub first: i64,
    pub needs: Needs,
    pub timed: bool,
    /// The runner that tries it.
    pub probe: Option<Name>,
}

/// One failure, and how it is waited for.
#[derive(Clone, Debug)]
pub struct FailedStep {
    pub needs: Needs,
    pub first: i64,
    pub most: i64,
    pub growth: Growth,
    pub runner: Name,
    pub begun: Option<i64>,
}

pub fn word(needs: Needs) -> &'static str {
    match needs {
        Needs::Made => "made",
        Needs::Started => "started",
        Needs::Work => "work",
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

impl Model {
    /// All that a runner's success or failure speaks for.
    pub fn subjects(&self, name: &str) -> Vec<Held> {
        let runner = &self.runners[name];
        let class = &self.classes[&runner.class];
        let narrow = [
            Held::Class(runner.class.clone()),
            Held::Scope(fold(&class.scope)),
            Held::Org(fold(&class.org)),
            Held::Profile(class.profile.clone()),
        ];
        narrow
            .into_iter()
            .chain([Held::Global])
            .chain(runner.credential.clone().map(Held::Credential))
            .collect()
    }

    fn subject(&self, name: &str, subject: Subject) -> Held {
        let runner = &self.runners[name];
        let class = &self.classes[&runner.class];
        match subject {
            Subject::Class => Held::Class(runner.class.clone()),
            Subject::Scope => Held::Scope(fold(&class.scope)),
            Subject::Org => Held::Org(fold(&class.org)),
            Subject::Profile => Held::Profile(class.profile.clone()),
            Subject::Credential => runner.credential.clone().map_or(Held::Global, Held::Credential),
            Subject::Global => Held::Global,
        }
    }

    /// Whether something holds a class of it, apart from what holds its whole organization.
    pub fn is_held(&self, class: &ClassId) -> bool {
        let of = &self.classes[class];
        let held = [
            Held::Class(class.clone()),
            Held::Scope(fold(&of.scope)),
            Held::Profile(of.profile.clone()),
        ];
        held.iter().any(|held| self.backoffs.contains_key(held))
    }

    pub fn is_org_held(&self, org: &str) -> bool {
        let credential = self.credentials.get(org).cloned().map(Held::Credential);
        [Some(Held::Org(org.to_owned())), credential]
            .iter()
            .flatten()
            .any(|held| self.backoffs.contains_key(held))
    }

    fn lift(&mut self, held: &Held) {
        self.rows.remove(held);
        self.backoffs.remove(held);
    }

    /// The runner that has just been reserved tries what has failed.
    pub fn take_probes(&mut self, name: &str) {
        let class = self.classes[&self.runners[name].class].clone();
        let org = fold(&class.org);
        let credential = self.credentials.get(&org).cloned().map(Held::Credential);
        let subjects = [
            Held::Global,
            Held::Profile(class.profile.clone()),
            Held::Scope(fold(&class.scope)),
            Held::Class(class.id()),
            Held::Org(org),
        ];
        for held in subjects.into_iter().chain(credential) {
            let Some(row) = self.rows.get_mut(&held) else { continue };
            row.probe = Some(name.to_owned());
            let patience = if matches!(held, Held::Global | Held::Credential(_)) {
                5000
            } else {
                600_000
            };
            self.backoffs.insert(held.clone(), self.now + patience);
            self.runner(name).probes.push(held);
        }
    }

    /// An operator wants what holds this job back to be tried now.
    pub fn retry(&mut self, id: JobNumber) -> Vec<Held> {
        let Some(class) = self
            .jobs
            .get(&id)
            .filter(|job| job.state == JobState::Queued)
            .and_then(|job| job.class.clone())
        else {
            return Vec::new();
        };
        let class = self.classes[&class].clone();
        let org = fold(&class.org);
        let credential = self.credentials.get(&org).cloned().map(Held::Credential);
        let narrow = [
            Held::Profile(class.profile.clone()),
            Held::Scope(fold(&class.scope)),
            Held::Class(class.id()),
        ];
        let subjects = [Held::Global, Held::Org(org)]
            .into_iter()
            .chain(credential)
            .chain(narrow);
        let may = |held: &Held| {
            self.backoffs.contains_key(held) && self.rows.get(held).is_some_and(|row| !row.timed && row.probe.is_none())
        };
        let retried: Vec<Held> = subjects.filter(may).collect();
        for held in &retried {
            self.backoffs.remove(held);
        }
        retried
    }

    /// It will not tell any more whether what it tried works.
    pub fn drop_probes(&mut self, name: &str) {
        for held in std::mem::take(&mut self.runner(name).probes) {
            if let Some(row) = self
                .rows
                .get_mut(&held)
                .filter(|row| row.probe.as_deref() == Some(name))
            {
                row.probe = None;
                self.backoffs.remove(&held);
            }
        }
    }

    pub fn succeeded(&mut self, name: &str, reached: Needs) {
        for held in self.subjects(name) {
            let ends = self.rows.get(&held).is_some_and(|row| {
                let waits = row.timed && self.backoffs.contains_key(&held) && row.probe.as_deref() != Some(name);
                row.needs <= reached && !waits
            });
            if ends {
                self.lift(&held);
            }
            self.failing.retain(|(of, needs), _| *of != held || *needs > reached);
        }
    }

    /// A step did not work.
    pub fn failed_step(&mut self, name: &str, back_off: BackOff) {
        let BackOff::Hold(Hold {
            chain,
            needs,
            first,
            most,
            growth,
        }) = back_off
        else {
            return;
        };
        let chain: Vec<Held> = chain.iter().map(|subject| self.subject(name, *subject)).collect();
        let begun = self.runners[name].claimed_at;
        self.fails(
            &chain,
            FailedStep {
                needs,
                first: millis(first),
                most: millis(most),
                growth,
                runner: name.to_owned(),
                begun,
            },
        );
    }

    pub fn fails(&mut self, chain: &[Held], mut failed: FailedStep) {
        let at = (1..chain.len())
            .rev()
            .find(|at| self.rows.contains_key(&chain[*at]))
            .unwrap_or(0);
        if !self.count_failure(&chain[at], &failed) {
            return;
        }
        for at in at + 1..chain.len() {
            let key = (chain[at].clone(), failed.needs);
            let now = self.now;
            let members = self.failing.entry(key.clone()).or_default();
            members.insert(chain[at - 1].clone(), now);
            members.retain(|_, since| *since > now - 600_000);
            if members.len() >= 3 {
                for member in self.failing.remove(&key).unwrap().into_keys() {
                    self.lift(&member);
                }
                if failed.needs == Needs::Made {
                    failed.most = failed.most.min(25_000);
                }
                if failed.growth == Growth::Again {
                    failed.growth = Growth::Patient;
                }
                self.count_failure(&chain[at], &failed);
            }
        }
    }

    /// Whether it counts as a further failure.
    fn count_failure(&mut self, held: &Held, failed: &FailedStep) -> bool {
        if matches!(held, Held::Runner(_)) {
            return true;
        }
        let (now, until) = (self.now, self.backoffs.get(held).copied());
        let before = self.rows.get(held).cloned();
        if let Some(until) =
            until.filter(|_| before.as_ref().and_then(|row| row.probe.as_ref()) != Some(&failed.runner))
        {
            if failed.growth == Growth::Named && now + failed.first > until {
                self.backoffs.insert(held.clone(), now + failed.first);
                self.rows.get_mut(held).unwrap().timed = true;
            }
            return false;
        }
        if until.is_none()
            && before
                .as_ref()
                .is_some_and(|row| failed.begun.is_some_and(|begun| begun <= row.since))
        {
            return false;
        }
        let failures = before.as_ref().map_or(0, |row| row.failures) + 1;
        let first = before.as_ref().map_or(now, |row| row.first);
        let mut wait = failed.first;
        if failed.growth != Growth::Named {
            let doublings = i64::from(failures) - if failed.growth == Growth::Again { 2 } else { 1 };
            wait = if doublings < 0 {
                0
            } else {
                (0..doublings.min(20))
                    .fold(failed.first, |wait, _| wait * 2)
                    .min(failed.most)
                    .max(failed.first)
            };
            if failed.growth != Growth::Doubles && now - first < 900_000 {
                wait = wait.min(25_000);
            }
            if *held == Held::Global {
                wait = wait.min(4000);
            }
        }
        let needs = before.map_or(failed.needs, |row| row.needs.max(failed.needs));
        self.rows.insert(
            held.clone(),
            Row {
                failures,
                since: now,
                first,
                needs,
                timed: failed.growth == Growth::Named,
                probe: None,
            },
        );
        if wait > 0 {
            self.backoffs.insert(held.clone(), now + wait);
        } else {
            self.backoffs.remove(held);
        }
        true
    }

    /// What became of the runner that may have run this job: it had work, or none where the job is queued still.
    pub fn judge(&mut self, id: JobNumber, runner: Option<&Name>, queued: bool) {
        let Some(suspect) = self.job(id).suspect.take() else {
            return;
        };
        if runner == Some(&suspect) {
            self.succeeded(&suspect, Needs::Work);
        } else if queued {
            let first = self.time("start_backoff");
            let chain = self.ends_of(&suspect);
            let begun = self.runners[&suspect].claimed_at;
            let chain: Vec<Held> = [Held::Runner(suspect.clone())].into_iter().chain(chain).collect();
            self.fails(
                &chain,
                FailedStep {
                    needs: Needs::Work,
                    first,
                    most: 16 * first,
                    growth: Growth::Doubles,
                    runner: suspect.clone(),
                    begun,
                },
            );
        }
        self.drop_probes(&suspect);
    }

    /// What a runner that ends early holds back.
    pub fn ends_of(&self, name: &str) -> [Held; 3] {
        [Subject::Class, Subject::Org, Subject::Profile].map(|subject| self.subject(name, subject))
    }
}
