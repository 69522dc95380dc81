//! The transitions, typed. Each is one round trip of one script.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::{
    Admission, Answer, Applied, BackOff, Deregistration, Doubt, Due, Failure, Growth, Hold, Ledger, LedgerError,
    Listed, Maker, Observation, Observed, Question, Reconciliation, Registration, Reservation, Retried, Silence,
    classes::described, keys, millis, scripts,
};
use crate::{
    config::LimitsSettings,
    event::{JobEvent, JobId},
};

/// Runners reserved in one admission at most: a call stays below a few ms, and others get their turn.
pub const ADMIT_BATCH: u32 = 12;

/// Runners or organizations that one call looks at, at most, where a transition takes any number: others get their turn
/// between.
pub(super) const SLICE: usize = 48;

/// Result of taking up a reservation or finishing a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<T> {
    /// It is ours.
    Ours(T),
    /// Somebody else, or the deadline, has taken it away: remove what was made.
    Stale,
}

#[derive(Deserialize)]
struct Fenced {
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    woken: bool,
}

/// What one slice of a reconcile did.
#[derive(Deserialize)]
struct Slice {
    #[serde(flatten)]
    done: Reconciliation,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Claimed {
    Reservation(Reservation),
    Stale {
        #[serde(rename = "stale")]
        _stale: bool,
    },
}

#[derive(Deserialize)]
struct State {
    state: Applied,
}

#[derive(Deserialize)]
struct Previous {
    #[serde(default)]
    previous: Vec<u64>,
}

impl Ledger {
    /// Applies a job event. The job's state afterwards. `accepted_at` is the job's place in the queue, ms.
    ///
    /// # Errors
    /// When Redis is unavailable, or the event cannot be applied.
    pub async fn apply(&self, event: &JobEvent, accepted_at: Option<i64>) -> Result<Applied, LedgerError> {
        let mut args = json!({
            "kind": event.action.as_str(), "job": event.job, "org": event.org, "repo": event.repo,
            "ours": event.class.is_some(),
        });
        let map = args
            .as_object_mut()
            .unwrap_or_else(|| unreachable!("an object literal"));
        if let Some(class) = &event.class {
            map.extend(described(class));
        }
        let optional = [
            ("attempt", event.attempt.map(|attempt| attempt.to_string().into())),
            (
                "runner",
                event.runner.clone().filter(|name| !name.is_empty()).map(Into::into),
            ),
            (
                "runner_id",
                event.runner_id.filter(|id| *id > 0).map(|id| id.to_string().into()),
            ),
            ("conclusion", event.conclusion.clone().map(Into::into)),
            ("accepted_at", accepted_at.map(Into::into)),
            ("owner_id", event.identity.owner_id.map(|id| id.to_string().into())),
            ("at", event.identity.at.map(Into::into)),
            ("classes", self.classes.as_deref().map(Into::into)),
            ("user", event.identity.user.then(|| "1".into())),
        ];
        map.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?))),
        );
        Ok(self.run::<State>(&scripts::EVENT, &args).await?.state)
    }

    /// Reserves up to [`ADMIT_BATCH`] runners where demand is unmet, within every limit.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn admit(&self) -> Result<Admission, LedgerError> {
        let mut args = json!({ "n": ADMIT_BATCH });
        if let (Some(seen), Some(map)) = (self.seen(), args.as_object_mut()) {
            map.insert("seen".into(), json!(seen));
        }
        let admission: Admission = self.run(&scripts::ADMIT, &args).await?;
        self.see(admission.seen);
        Ok(admission)
    }

    /// Takes up a reservation. [`Claim::Stale`] also where something that it needs has begun to back off: then it is
    /// given back, and others may have its room. A claim that comes again with its number, since its answer was lost,
    /// is answered as it was.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn claim(&self, runner: &str, fence: &str, maker: &Maker<'_>) -> Result<Claim<Reservation>, LedgerError> {
        let args = json!({
            "step": "claim", "runner": runner, "fence": fence, "worker": maker.worker, "credential": maker.credential,
            "alone": maker.alone,
            "claim": maker.claim.to_string(), "timeout": millis(maker.timeout),
            "create_timeout": millis(maker.create_timeout), "places": *self.places,
        });
        Ok(match self.run(&scripts::PROVISION, &args).await? {
            Claimed::Reservation(reservation) => Claim::Ours(reservation),
            Claimed::Stale { .. } => Claim::Stale,
        })
    }

    /// GitHub has registered the runner.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn registered(
        &self,
        runner: &str,
        fence: &str,
        github_id: u64,
        timeout: Duration,
    ) -> Result<Claim<()>, LedgerError> {
        let args = json!({ "step": "registered", "runner": runner, "fence": fence, "github_id": github_id.to_string(),
            "timeout": millis(timeout) });
        self.fenced(&args).await
    }

    /// The runner has all that it needs to start. Whether what had been held back may be admitted now.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn created(&self, runner: &str, fence: &str) -> Result<Claim<bool>, LedgerError> {
        let fenced: Fenced = self
            .run(
                &scripts::PROVISION,
                &json!({ "step": "created", "runner": runner, "fence": fence }),
            )
            .await?;
        Ok(if fenced.stale {
            Claim::Stale
        } else {
            Claim::Ours(fenced.woken)
        })
    }

    async fn fenced(&self, args: &serde_json::Value) -> Result<Claim<()>, LedgerError> {
        let fenced: Fenced = self.run(&scripts::PROVISION, args).await?;
        Ok(if fenced.stale { Claim::Stale } else { Claim::Ours(()) })
    }

    /// A step of making the runner did not work: demand is unmet again, and what made it fail backs off.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn fail(&self, runner: &str, fence: &str, failure: &Failure) -> Result<Claim<()>, LedgerError> {
        let mut args = json!({
            "runner": runner, "fence": fence, "made": failure.made, "why": failure.why,
            "uncertain": failure.registration == Registration::Uncertain,
            "unregistered": failure.registration == Registration::None,
        });
        match failure.back_off {
            None => {}
            Some(BackOff::Quota) => args["quota"] = true.into(),
            Some(BackOff::Hold(Hold {
                chain,
                needs,
                first,
                most,
                growth,
            })) => {
                (args["chain"], args["needs"]) = (json!(chain), json!(needs));
                (args["first"], args["most"]) = (millis(first).into(), millis(most).into());
                args["timed"] = (growth == Growth::Named).into();
                args["patient"] = matches!(growth, Growth::Patient | Growth::Again).into();
                args["again"] = (growth == Growth::Again).into();
            }
        }
        let fenced: Fenced = self.run(&scripts::FAIL, &args).await?;
        Ok(if fenced.stale { Claim::Stale } else { Claim::Ours(()) })
    }

    /// Something was seen of a runner, or is wanted of it; `why` is for people.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn observe(&self, what: Observation, runner: &str, why: &str) -> Result<Observed, LedgerError> {
        self.run(
            &scripts::OBSERVED,
            &json!({ "what": what, "runner": runner, "why": why }),
        )
        .await
    }

    /// GitHub has confirmed that the runner's registration is gone, and this was seen of its pod.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn observe_deregistered(
        &self,
        what: Observation,
        runner: &str,
        why: &str,
        gone: Deregistration,
    ) -> Result<Observed, LedgerError> {
        self.run(
            &scripts::OBSERVED,
            &json!({ "what": what, "runner": runner, "why": why, "deregistered": gone }),
        )
        .await
    }

    /// A removal has to wait: GitHub does not say, its pod cannot be ended, or (`unserved`) nobody may ask GitHub for
    /// its owner any more, which is waited for only for a while.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn postpone(&self, runner: &str, why: &str, unserved: bool) -> Result<Observed, LedgerError> {
        self.run(
            &scripts::OBSERVED,
            &json!({ "what": Observation::Postpone, "runner": runner, "why": why, "unserved": unserved }),
        )
        .await
    }

    /// GitHub refuses to delete the runner since it is at work; a look-up by its name may have told its id.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn observe_busy(&self, runner: &str, github_id: Option<u64>) -> Result<Observed, LedgerError> {
        let mut args = json!({ "what": Observation::Busy, "runner": runner, "why": "" });
        if let (Some(id), Some(map)) = (github_id, args.as_object_mut()) {
            map.insert("github_id".into(), id.to_string().into());
        }
        self.run(&scripts::OBSERVED, &args).await
    }

    /// Up to `n` of each kind of work whose time has come, leased for `lease`.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn due(&self, n: u32, lease: Duration) -> Result<Due, LedgerError> {
        self.run(&scripts::DUE, &self.here(json!({ "n": n, "lease": millis(lease) })))
            .await
    }

    /// Settles a question with GitHub's answer. The job's state afterwards.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn answer(&self, question: &Question, answer: &Answer) -> Result<Applied, LedgerError> {
        let mut args = json!(answer);
        if let Some(map) = args.as_object_mut() {
            map.insert("job".into(), json!(question.job));
            map.insert("rev".into(), json!(question.rev));
        }
        Ok(self.run::<State>(&scripts::ANSWER, &args).await?.state)
    }

    /// GitHub did not answer a question, and why, in words for people. The job's state afterwards.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn no_answer(&self, question: &Question, silence: Silence, words: &str) -> Result<Applied, LedgerError> {
        let args = json!({ "job": question.job, "rev": question.rev, "status": silence, "words": words });
        Ok(self.run::<State>(&scripts::ANSWER, &args).await?.state)
    }

    /// A registration was looked up and is gone, for good.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn settle_doubt(&self, doubt: &Doubt) -> Result<(), LedgerError> {
        let mut connection = self.pool().get().await?;
        Ok(redis::AsyncCommands::zrem(&mut connection, keys::REGISTRATIONS_UNCERTAIN, &doubt.name).await?)
    }

    /// Makes this the effective configuration.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn configure(&self, limits: &LimitsSettings) -> Result<(), LedgerError> {
        let mut settings: BTreeMap<&str, serde_json::Value> = limits
            .times
            .iter()
            .map(|(name, time)| (*name, millis(*time).into()))
            .collect();
        settings.insert("max_total", limits.max_total.into());
        settings.insert("max_per_org", limits.max_per_org.into());
        settings.insert("prefix", limits.prefix.clone().into());
        settings.insert("schema", 1.into());
        self.run::<serde_json::Value>(&scripts::CONFIGURE, &json!({ "settings": settings }))
            .await
            .map(|_| ())
    }

    /// Whether there is a configuration. There is none in a new Redis, and where its data is gone and no worker has
    /// noticed yet.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn is_configured(&self) -> Result<bool, LedgerError> {
        let mut connection = self.pool().get().await?;
        Ok(redis::AsyncCommands::hexists(&mut connection, keys::META, "max_total").await?)
    }

    /// Sets limits of organizations (`None`: back to the default), and says what each was before. With `replace`,
    /// limits not named are dropped.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn set_limits(&self, limits: &[(String, Option<u64>)], replace: bool) -> Result<Vec<u64>, LedgerError> {
        let mut previous = Vec::with_capacity(limits.len());
        for slice in limits.chunks(SLICE) {
            previous.extend(self.set_slice(slice).await?);
        }
        if replace {
            let named: HashSet<String> = limits.iter().map(|(org, _)| org.to_lowercase()).collect();
            let mut connection = self.pool().get().await?;
            let own: Vec<String> = redis::AsyncCommands::hkeys(&mut connection, keys::ORG_LIMITS).await?;
            drop(connection);
            let others: Vec<_> = own
                .into_iter()
                .filter(|org| !named.contains(&org.to_lowercase()))
                .map(|org| (org, None))
                .collect();
            for slice in others.chunks(SLICE) {
                self.set_slice(slice).await?;
            }
        }
        Ok(previous)
    }

    async fn set_slice(&self, limits: &[(String, Option<u64>)]) -> Result<Vec<u64>, LedgerError> {
        let pairs: Vec<_> = limits
            .iter()
            .map(|(org, limit)| json!([org, limit.map_or(json!(false), Into::into)]))
            .collect();
        Ok(self
            .run::<Previous>(&scripts::LIMITS, &json!({ "limits": pairs }))
            .await?
            .previous)
    }

    /// Admits nothing more for an organization until `until_ms`, or until it is resumed.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn pause(&self, org: &str, reason: &str, until_ms: Option<i64>) -> Result<(), LedgerError> {
        let mut pause = json!({ "org": org, "reason": reason });
        if let (Some(until), Some(map)) = (until_ms, pause.as_object_mut()) {
            map.insert("until_ms".into(), until.into());
        }
        self.run::<serde_json::Value>(&scripts::LIMITS, &json!({ "pause": pause }))
            .await
            .map(|_| ())
    }

    /// Ends an organization's pause.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn resume(&self, org: &str) -> Result<(), LedgerError> {
        self.run::<serde_json::Value>(&scripts::LIMITS, &json!({ "resume": org }))
            .await
            .map(|_| ())
    }

    /// Ends the waits that hold a queued job back, so that the next admission has one runner try it. A time that
    /// GitHub named stays, and so does a try that is under way.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn retry(&self, job: JobId) -> Result<Retried, LedgerError> {
        self.run(&scripts::LIMITS, &json!({ "retry": job.to_string() })).await
    }

    /// Compares the ledger with a consistent list of the runners that began at `began` ([`Ledger::now`]), and opens the
    /// epoch gate, unless pods may be on their way that were claimed before the data was lost.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn reconcile(&self, began: i64, runners: &[Listed]) -> Result<Reconciliation, LedgerError> {
        let mut done = Reconciliation::default();
        for slice in runners.chunks(SLICE) {
            self.reconcile_slice(
                &mut done,
                json!({ "began": began, "runners": slice, "places": *self.places }),
            )
            .await?;
        }
        let mut connection = self.pool().get().await?;
        let live: HashSet<String> = redis::AsyncCommands::smembers(&mut connection, keys::RUNNERS_LIVE).await?;
        drop(connection);
        let listed: HashSet<&str> = runners.iter().map(|runner| runner.name.as_str()).collect();
        let mut missing: Vec<&String> = live.iter().filter(|name| !listed.contains(name.as_str())).collect();
        missing.sort();
        let in_flight = i64::try_from(self.in_flight.as_millis()).unwrap_or(i64::MAX);
        for slice in missing.chunks(SLICE) {
            self.reconcile_slice(
                &mut done,
                self.here(json!({ "began": began, "missing": slice, "in_flight": in_flight })),
            )
            .await?;
        }
        let mut recount = "begin";
        while self
            .reconcile_slice(&mut done, json!({ "began": began, "recount": recount }))
            .await?
        {
            recount = "go on";
        }
        let mut last = self.here(json!({ "began": began, "open": true, "in_flight": in_flight }));
        if let Some(seen) = self.seen() {
            last["seen"] = seen.epoch.into();
        }
        self.reconcile_slice(&mut done, last).await?;
        if done.opened {
            self.look_at_clock(&json!({ "anew": true })).await?; // the data may be from under another clock
        }
        Ok(done)
    }

    /// Whether there is more of what this slice began.
    async fn reconcile_slice(&self, done: &mut Reconciliation, args: serde_json::Value) -> Result<bool, LedgerError> {
        let Slice { done: slice, more } = self.run(&scripts::RECONCILE, &args).await?;
        done.released += slice.released;
        done.adopted += slice.adopted;
        done.corrected += slice.corrected;
        done.opened |= slice.opened;
        done.opens_in = slice.opens_in;
        done.stop.extend(slice.stop);
        Ok(more)
    }
}
