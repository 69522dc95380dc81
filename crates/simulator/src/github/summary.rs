//! What it comes to: jobs run and not run, runners at once, how long things took, and what is left.

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::{Gauges, JobState, Ms, Times};
use super::state::Server;

/// Percentiles of a set of spans, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many spans there were.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: Ms,
    /// 90 of 100 took no longer.
    pub p90: Ms,
    /// 99 of 100 took no longer.
    pub p99: Ms,
    /// The longest.
    pub max: Ms,
}

impl Percentiles {
    /// Nearest rank.
    pub fn of(mut spans: Vec<Ms>) -> Self {
        spans.sort_unstable();
        let rank = |percent: usize| {
            spans
                .get((spans.len() * percent).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or(0)
        };
        Self {
            count: spans.len(),
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: spans.last().copied().unwrap_or(0),
        }
    }
}

/// Jobs, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JobCounts {
    /// Created, reruns too.
    pub created: u64,
    /// Taken by a runner at least once.
    pub run: u64,
    /// Over without ever having been taken by a runner.
    pub never_run: u64,
    /// Taken more than once.
    pub run_twice: u64,
    /// Over: by conclusion.
    pub success: u64,
    /// See `success`.
    pub failure: u64,
    /// See `success`.
    pub cancelled: u64,
    /// Given to a runner that did not take them in time, or lost it.
    pub requeued: u64,
}

/// Webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebhookCounts {
    /// Requests sent, doubles too.
    pub sent: u64,
    /// Answered with a 2xx.
    pub accepted: u64,
    /// Answered with anything else.
    pub refused: u64,
    /// Not answered.
    pub unanswered: u64,
    /// Never sent, because of a fault.
    pub dropped: u64,
}

/// Runners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunnerCounts {
    /// Calls of `generate-jitconfig`, refused ones too.
    pub jit_requests: u64,
    /// Calls that registered a runner.
    pub registered: u64,
    /// Registrations for which no fitting job waited.
    pub unneeded: u64,
    /// Sessions opened.
    pub connected: u64,
    /// Deregistered without having run a job.
    pub removed_unused: u64,
    /// All REST calls.
    pub rest_calls: u64,
    /// Of them, refused because of a limit.
    pub rest_limited: u64,
    /// The most of them at once.
    pub rest_most_at_once: u64,
    /// Of them, answered with 304, which no hour counts.
    pub rest_unchanged: u64,
    /// Tokens given to installations of the App.
    pub app_tokens: u64,
}

/// An owner's counts, and the most at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peaks {
    /// Jobs created.
    pub jobs: u64,
    /// Calls of `generate-jitconfig`, refused ones too.
    pub jit_requests: u64,
    /// Calls that registered a runner.
    pub registrations: u64,
    /// Runners registered.
    pub max_registered: u64,
    /// Runners with a session.
    pub max_connected: u64,
    /// Jobs in progress.
    pub max_running: u64,
}

impl From<&Gauges> for Peaks {
    fn from(gauges: &Gauges) -> Self {
        Self {
            jobs: gauges.jobs,
            jit_requests: gauges.jit_requests,
            registrations: gauges.registrations,
            max_registered: gauges.registered.max,
            max_connected: gauges.connected.max,
            max_running: gauges.running.max,
        }
    }
}

/// What is not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Runners still registered.
    pub runners: usize,
    /// Of them, online.
    pub runners_online: usize,
    /// Names of the first twenty of them.
    pub runner_names: Vec<String>,
    /// Jobs that are not over, by state.
    pub waiting: u64,
    /// See `waiting`.
    pub queued: u64,
    /// See `waiting`.
    pub in_progress: u64,
    /// Ids of the first twenty of them.
    pub job_ids: Vec<u64>,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// From the first `queued` webhook being sent to the JIT request that pairs with the job, ms.
    pub webhook_to_jit_ms: Percentiles,
    /// From the first `queued` webhook being sent to a runner taking the job, ms.
    pub webhook_to_start_ms: Percentiles,
    /// From the job being queued, webhook or not, to a runner taking it, ms.
    pub queued_to_start_ms: Percentiles,
}

/// The summary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Jobs.
    pub jobs: JobCounts,
    /// Webhooks.
    pub webhooks: WebhookCounts,
    /// Runners.
    pub runners: RunnerCounts,
    /// Latencies.
    pub latency: Latencies,
    /// Over all.
    pub total: Peaks,
    /// By owner; those that had a job or a runner.
    pub orgs: BTreeMap<String, Peaks>,
    /// What is left.
    pub leftovers: Leftovers,
}

impl Server {
    /// Sums up what happened so far.
    pub fn summary(&self) -> Summary {
        let mut jobs = JobCounts {
            created: self.totals.jobs,
            requeued: self.counters.jobs_requeued,
            ..JobCounts::default()
        };
        let mut left = Leftovers {
            runners: self.runners.len(),
            runners_online: self.sessions.len(),
            ..Leftovers::default()
        };
        for job in self.jobs.values() {
            jobs.run += u64::from(job.starts > 0);
            jobs.run_twice += u64::from(job.starts > 1);
            jobs.never_run += u64::from(job.starts == 0 && job.state == JobState::Completed);
            match job.conclusion {
                Some(super::model::Conclusion::Success) => jobs.success += 1,
                Some(super::model::Conclusion::Failure) => jobs.failure += 1,
                Some(super::model::Conclusion::Cancelled) => jobs.cancelled += 1,
                None => {}
            }
            match job.state {
                JobState::Waiting => left.waiting += 1,
                JobState::Queued => left.queued += 1,
                JobState::InProgress => left.in_progress += 1,
                JobState::Completed => continue,
            }
            if left.job_ids.len() < 20 {
                left.job_ids.push(job.id);
            }
        }
        left.runner_names = self
            .runners
            .values()
            .take(20)
            .map(|runner| runner.name.to_string())
            .collect();
        let spans = |from: fn(&Times) -> Option<Ms>, to: fn(&Times) -> Option<Ms>| {
            let span = |times: &Times| Some(to(times)?.saturating_sub(from(times)?));
            Percentiles::of(self.jobs.values().filter_map(|job| span(&job.times)).collect())
        };
        let counters = &self.counters;
        Summary {
            jobs,
            webhooks: WebhookCounts {
                sent: counters.webhooks_sent,
                accepted: counters.webhooks_accepted,
                refused: counters.webhooks_refused,
                unanswered: counters.webhooks_unanswered,
                dropped: counters.webhooks_dropped,
            },
            runners: RunnerCounts {
                jit_requests: counters.jit_requests,
                registered: counters.jit_registered,
                unneeded: counters.jit_unneeded,
                connected: counters.runners_connected,
                removed_unused: counters.runners_removed_unused,
                rest_calls: counters.rest_calls,
                rest_limited: counters.rest_limited,
                rest_most_at_once: counters.rest_most_at_once,
                rest_unchanged: counters.rest_unchanged,
                app_tokens: counters.app_tokens,
            },
            latency: Latencies {
                webhook_to_jit_ms: spans(|times| times.sent, |times| times.requested),
                webhook_to_start_ms: spans(|times| times.sent, |times| times.started),
                queued_to_start_ms: spans(|times| times.queued, |times| times.started),
            },
            total: Peaks {
                jit_requests: counters.jit_requests,
                registrations: counters.jit_registered,
                ..(&self.totals).into()
            },
            orgs: self
                .gauges
                .iter()
                .map(|(key, gauges)| {
                    (
                        self.owners
                            .get(key)
                            .map_or(key.clone(), |owner| owner.login.to_string()),
                        gauges.into(),
                    )
                })
                .collect(),
            leftovers: left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Percentiles;

    #[test]
    fn nearest_rank() {
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
        assert_eq!(
            Percentiles::of((1..=100).rev().collect()),
            Percentiles {
                count: 100,
                p50: 50,
                p90: 90,
                p99: 99,
                max: 100
            }
        );
        assert_eq!(
            Percentiles::of(vec![7]),
            Percentiles {
                count: 1,
                p50: 7,
                p90: 7,
                p99: 7,
                max: 7
            }
        );
    }
}
