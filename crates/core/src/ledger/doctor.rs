//! The invariants, checked on a store: every one after every step of the property test, and on a live system by `jitctl
//! doctor`.
//!
//! A live store changes while it is read, so what looks wrong is looked at again before it is reported
//! ([`Ledger::doctor_settled`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{AsyncCommands, FromRedisValue, Pipeline, pipe};
use serde::Serialize;

use super::{Ledger, LedgerError, keys};
use crate::{
    model::{JobState, RunnerState},
    store::Connection,
};

/// Items that are asked about in one pipeline: a few ms of Redis's time.
const CHUNK: usize = 500;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Number of the invariant.
    pub invariant: u8,
    /// What is wrong, of what.
    pub text: String,
}

/// What was looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Organizations looked at.
    pub organizations: usize,
    /// Live runners looked at.
    pub runners: usize,
    /// Jobs that are not over.
    pub jobs: usize,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
}

/// Mirror, runners, queued jobs, classes in need, place in `orgs:ready`, place among what is put aside, paused.
type Organization = (
    Option<u64>,
    Vec<String>,
    Vec<String>,
    Vec<String>,
    Option<f64>,
    Option<f64>,
    bool,
);

#[derive(Default)]
struct Doctor {
    findings: Vec<Finding>,
}

impl Doctor {
    fn check(&mut self, invariant: u8, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.findings.push(Finding {
                invariant,
                text: text(),
            });
        }
    }
}

/// One answer for each item, a tuple of what `ask` adds for it; asked for in pipelines, so that a deep queue costs few
/// round trips.
async fn ask_all<K, T: FromRedisValue>(
    connection: &mut Connection,
    items: &[K],
    ask: impl Fn(&mut Pipeline, &K),
) -> Result<Vec<T>, LedgerError> {
    let mut answers = Vec::with_capacity(items.len());
    for chunk in items.chunks(CHUNK) {
        let mut batch = pipe();
        for item in chunk {
            ask(&mut batch, item);
        }
        let flat: Vec<redis::Value> = batch.query_async(connection).await?;
        for answer in flat.chunks(flat.len() / chunk.len()) {
            answers.push(T::from_redis_value(redis::Value::Array(answer.to_vec())).map_err(redis::RedisError::from)?);
        }
    }
    Ok(answers)
}

impl Ledger {
    /// Checks all invariants, and again what was wrong at first: what is reported was wrong twice.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn doctor_settled(&self) -> Result<Report, LedgerError> {
        let mut report = self.doctor().await?;
        for _ in 0..3 {
            if report.findings.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let again = self.doctor().await?;
            let both = report
                .findings
                .iter()
                .filter(|finding| again.findings.contains(finding))
                .cloned()
                .collect();
            report = Report {
                findings: both,
                ..again
            };
        }
        Ok(report)
    }

    /// Checks all invariants on the store as it is read, piece by piece.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn doctor(&self) -> Result<Report, LedgerError> {
        let mut doctor = Doctor::default();
        let mut connection = self.pool().get().await?;
        let orgs: Vec<String> = connection.hvals(keys::ORGS_KNOWN).await?;
        let limits: HashMap<String, u64> = connection.hgetall(keys::ORG_LIMITS).await?;
        let meta: HashMap<String, String> = connection.hgetall(keys::META).await?;
        let default_limit: u64 = meta.get("max_per_org").and_then(|text| text.parse().ok()).unwrap_or(0);
        let live: BTreeSet<String> = connection.smembers(keys::RUNNERS_LIVE).await?;
        let total: Option<u64> = connection.get(keys::TOTAL_RUNNING).await?;
        // What has been put aside comes back when these are over, or is coming back.
        let (held, waking): (Vec<String>, Vec<String>) = pipe()
            .zrange(keys::BACKOFFS, 0, -1)
            .zrange(keys::BACKOFFS_WAKING, 0, -1)
            .query_async(&mut connection)
            .await?;
        let held: BTreeSet<String> = held.into_iter().chain(waking).collect();
        let parked: HashMap<String, String> = connection.hgetall(keys::ORGS_PARKED).await?;
        doctor.check(1, total.unwrap_or(0) == live.len() as u64, || {
            format!(
                "global:total_running is {} and there are {} live runners",
                total.unwrap_or(0),
                live.len()
            )
        });

        let mut jobs: BTreeMap<String, &'static str> = BTreeMap::new();
        let questions: Vec<String> = connection.zrange(keys::JOBS_QUESTIONS, 0, -1).await?;
        let questions: BTreeSet<String> = questions.into_iter().collect();
        let (mut sum, mut members) = (0, BTreeSet::new());
        for org in &orgs {
            let aside = parked.get(org);
            let (mirror, runners, pending, classes, ready, away, paused): Organization = pipe()
                .get(keys::org_running(org))
                .smembers(keys::org_runners(org))
                .zrange(keys::org_pending(org), 0, -1)
                .zrange(keys::org_classes(org), 0, -1)
                .zscore(keys::ORGS_READY, org)
                .zscore(keys::parked(aside.map_or("", String::as_str)), org)
                .hexists(keys::ORGS_PAUSED, org)
                .query_async(&mut connection)
                .await?;
            doctor.check(1, mirror.unwrap_or(0) == runners.len() as u64, || {
                format!(
                    "org:{org}:running is {} and the organization has {} runners",
                    mirror.unwrap_or(0),
                    runners.len()
                )
            });
            sum += runners.len();
            let limit = limits.get(org).copied().unwrap_or(default_limit);
            // nothing is admitted without a configuration
            let room = (runners.len() as u64) < limit && meta.contains_key("max_total");
            let should = !classes.is_empty() && room && !paused;
            let places = [ready, away].into_iter().flatten().count();
            doctor.check(5, places == usize::from(should), || {
                format!(
                    "{org} stands in {places} places of orgs:ready and what is put aside and should in {}: {} classes \
                     in need, {} of {limit} runners, paused {paused}",
                    u8::from(should),
                    classes.len(),
                    runners.len()
                )
            });
            doctor.check(
                5,
                aside.is_none_or(|subject| away.is_some() && held.contains(subject)),
                || {
                    format!(
                        "{org} is put aside for {}, which is not held",
                        aside.map_or("", String::as_str)
                    )
                },
            );
            members.extend(runners);
            jobs.extend(pending.into_iter().map(|job| (job, "queued")));
        }
        doctor.check(1, sum == live.len() && members == live, || {
            format!(
                "the organizations have {sum} runners and runners:live has {}",
                live.len()
            )
        });

        let runners = self.runners().await?;
        let mut classes: BTreeSet<String> = BTreeSet::new();
        let names: Vec<(&String, &str)> = runners
            .iter()
            .map(|runner| (&runner.name, runner.class.as_deref().unwrap_or_default()))
            .collect();
        let places: Vec<(bool, Option<f64>)> = ask_all(&mut connection, &names, |batch, (name, class)| {
            batch
                .sismember(keys::class_idle(class), name)
                .zscore(keys::RUNNERS_DEADLINES, name);
        })
        .await?;
        for (runner, (idle, due)) in runners.iter().zip(places) {
            use RunnerState::{Busy, Created, Removing, Reserved};
            let (name, state) = (&runner.name, runner.state.map_or("", RunnerState::as_str));
            let is_live = matches!(runner.state, Some(Reserved | Created | Busy | Removing));
            doctor.check(1, is_live, || {
                format!("runner {name} is live and its state is {state:?}")
            });
            let should = matches!(runner.state, Some(Reserved | Created));
            doctor.check(1, idle == should, || {
                format!(
                    "runner {name} is {state} and {}in its class's idle set",
                    if idle { "" } else { "not " }
                )
            });
            doctor.check(1, due.is_some(), || {
                format!("runner {name} is {state} and has no deadline")
            });
            classes.extend(runner.class.clone());
        }

        let questions: Vec<String> = questions.into_iter().collect();
        let states: Vec<(Option<String>,)> = ask_all(&mut connection, &questions, |batch, job| {
            batch.hget(keys::job_info(job), "state");
        })
        .await?;
        for (job, (state,)) in questions.iter().zip(states) {
            doctor.check(4, state.is_some(), || {
                format!("job {job} is in question and nothing is known of it")
            });
            let state = state.map(|word| (word.parse::<JobState>().ok(), word));
            if let Some((state, word)) = state.filter(|(state, _)| *state != Some(JobState::Queued)) {
                use JobState::{InProgress, InQuestion, Waiting};
                let twice = jobs.insert(job.clone(), "in question");
                doctor.check(
                    4,
                    twice.is_none() && matches!(state, Some(Waiting | InQuestion | InProgress)),
                    || format!("job {job} is {word}, in question, and {twice:?} as well"),
                );
            }
        }

        let queued: Vec<&String> = jobs
            .iter()
            .filter(|(_, place)| **place == "queued")
            .map(|(job, _)| job)
            .collect();
        let known: Vec<((Option<String>, Option<String>),)> = ask_all(&mut connection, &queued, |batch, job| {
            batch.hmget(keys::job_info(job), &["state", "class"]);
        })
        .await?;
        let known: Vec<(&String, Option<String>, String)> = queued
            .iter()
            .zip(known)
            .map(|(job, ((state, class),))| (*job, state, class.unwrap_or_default()))
            .collect();
        let places: Vec<(Option<f64>,)> = ask_all(&mut connection, &known, |batch, (job, _, class)| {
            batch.zscore(keys::class_queued(class), job);
        })
        .await?;
        for ((job, state, class), (place,)) in known.into_iter().zip(places) {
            doctor.check(
                4,
                state.as_deref() == Some(JobState::Queued.as_str()) && place.is_some(),
                || {
                    format!(
                        "job {job} is queued in its organization, its state is {state:?}, in its class's queue: {}",
                        place.is_some()
                    )
                },
            );
            classes.insert(class);
        }
        for class in &classes {
            self.check_class(&mut doctor, &mut connection, class, &held, &live)
                .await?;
        }
        let mut report = Report {
            organizations: orgs.len(),
            runners: runners.len(),
            jobs: jobs.len(),
            findings: doctor.findings,
        };
        report.findings.sort();
        Ok(report)
    }

    async fn check_class(
        &self,
        doctor: &mut Doctor,
        connection: &mut Connection,
        class: &str,
        held: &BTreeSet<String>,
        live: &BTreeSet<String>,
    ) -> Result<(), LedgerError> {
        let ((org, aside, misfit), queued, idle): (
            (Option<String>, Option<String>, Option<String>),
            Vec<(String, f64)>,
            Vec<String>,
        ) = pipe()
            .hmget(keys::class_info(class), &["org", "parked", "misfit"])
            .zrange_withscores(keys::class_queued(class), 0, -1)
            .smembers(keys::class_idle(class))
            .query_async(connection)
            .await?;
        let Some(org) = org else {
            doctor.check(5, queued.is_empty() && idle.is_empty(), || {
                format!(
                    "class {class} has {} jobs and {} idle runners and no description",
                    queued.len(),
                    idle.len()
                )
            });
            return Ok(());
        };
        doctor.check(1, idle.iter().all(|name| live.contains(name)), || {
            format!("class {class} counts idle runners that are not live")
        });
        let (needs, away, surplus): (Option<f64>, Option<f64>, Option<f64>) = pipe()
            .zscore(keys::org_classes(&org), class)
            .zscore(keys::parked(aside.as_deref().unwrap_or_default()), class)
            .zscore(keys::CLASSES_SURPLUS, class)
            .query_async(connection)
            .await?;
        doctor.check(
            5,
            aside
                .as_ref()
                .is_none_or(|subject| needs.is_none() && away.is_some() && held.contains(subject)),
            || {
                format!(
                    "class {class} of {org} is put aside for {}, which is not held",
                    aside.as_deref().unwrap_or_default()
                )
            },
        );
        let needs = needs.or(away);
        // One runner at a time where the last one did not fit.
        let wanted = if misfit.is_some() {
            queued.len().min(1)
        } else {
            queued.len()
        };
        let expected = (wanted > idle.len()).then(|| queued[idle.len()].1);
        doctor.check(5, needs == expected, || {
            format!(
                "class {class} of {org}: {} jobs, {} idle runners; in need since {needs:?}, should be {expected:?}",
                queued.len(),
                idle.len()
            )
        });
        doctor.check(5, surplus.is_some() == (idle.len() > wanted), || {
            format!(
                "class {class} of {org}: {} jobs, {} idle runners; in surplus: {}",
                queued.len(),
                idle.len(),
                surplus.is_some()
            )
        });
        Ok(())
    }
}
