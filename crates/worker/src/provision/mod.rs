//! Provision: `jit:provision` → pod → JIT configuration → Secret. One runner, step by step, each step behind the
//! ledger's fence.
//!
//! | step | if the process dies after it |
//! |---|---|
//! | the reservation is taken up | its deadline drops it, demand makes another |
//! | pod created; quota and policy refuse here, before GitHub is asked | the deadline removes the pod |
//! | registered at GitHub | the deadline removes runner and pod |
//! | Secret delivered, `created` | reconcile finds it, or the deadline removes it |
//!
//! Only as many reservations are read as there are free permits, so none waits in a busy worker while another is idle.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jit_backend::{BackendError, RunnerSpec};
use jit_core::{
    ledger::{Claim, Failure, LedgerError, Maker, Observation, Registration, Reservation, Spending, Subject},
    model::RunnerState,
    stream::{self, Entry, Reader, dead_letters},
};
use jit_github::{Deletion, JitRequest, JitRunner, Scope};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    BLOCK, Worker, metrics,
    permits::{Permits, owner_of},
    retry::{Pause, persist},
    step::{self, Step},
};

mod failure;
mod patience;
mod place;

use failure::{delivery_failure, named, pod_failure, registration_failure, undeliverable};
use patience::Patience;
use place::Place;

/// What a reservation is claimed with whose owner no credential serves.
pub(crate) const NO_CREDENTIAL: &str = "none";
/// So long a step's result is offered to a ledger that does not answer; then the deadline clears up.
const PERSIST: Duration = Duration::from_secs(20);
/// Before anything is made there is nothing to clear up, so a Redis that is full or away is waited for: below the time
/// after which another worker takes the entry for forgotten.
const PERSIST_CLAIM: Duration = Duration::from_secs(240);
/// An owner that has too many slow runners waits so long for the next.
const SLOW_WAIT: Duration = Duration::from_secs(2);
/// Numbers this worker's claims, so that one whose answer was lost can be told from another of the same reservation.
static CLAIMS: AtomicU64 = AtomicU64::new(1);

/// What the runners that are made at once share.
struct Making {
    permits: Permits,
    patience: Patience,
    /// Organizations whose last Secret was refused: whether the next would be is asked of Kubernetes before GitHub is
    /// asked.
    undeliverable: Mutex<HashSet<String>>,
}

impl Making {
    fn undeliverable(&self) -> MutexGuard<'_, HashSet<String>> {
        self.undeliverable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes runners until `stop`, then finishes those in hand.
pub async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut reader = Reader::new(worker.redis.clone(), stream::PROVISION, &worker.id, BLOCK);
    let making = Arc::new(Making {
        permits: Permits::new(worker.concurrency),
        patience: Patience::new(worker.github_timeout),
        undeliverable: Mutex::default(),
    });
    let (tasks, mut pause) = (TaskTracker::new(), Pause::new());
    loop {
        // One permit at least, and then as many entries as there are permits.
        let first = tokio::select! {
            () = stop.cancelled() => break,
            permit = making.permits.permit() => permit,
        };
        let Some(first) = first else { break };
        let entries = match reader
            .read(1 + making.permits.available())
            .await
            .step_if("provision.read", step::some)
        {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, stream = stream::PROVISION, "cannot read reservations; trying again");
                pause.wait(&stop).await;
                continue;
            }
        };
        pause = Pause::new();
        let mut first = Some(first);
        for entry in entries {
            let permit = match first.take() {
                Some(permit) => permit,
                None => match making.permits.permit().await {
                    Some(permit) => permit,
                    None => break,
                },
            };
            let (worker, making) = (worker.clone(), making.clone());
            tasks.spawn(async move {
                let owner = entry.field("scope").map_or_else(|_| String::new(), owner_of);
                making
                    .permits
                    .hold(permit, &owner, process(&worker, &making, &owner, &entry))
                    .await;
            });
        }
    }
    tasks.close();
    if !tasks.is_empty() {
        tracing::info!(runners = tasks.len(), "finishing the runners in hand");
    }
    tasks.wait().await;
}

/// Drops the reservations that workers which are gone had taken: what they made of them is removed, and demand makes
/// others.
pub async fn take_over(worker: &Worker, living: &HashSet<String>) {
    match stream::claim_from_dead(worker.ledger.pool(), stream::PROVISION, &worker.id, living, 100)
        .await
        .step_if("provision.taken_over", step::some)
    {
        Ok(entries) => drop_all(worker, entries, "its worker is gone").await,
        Err(error) => tracing::warn!(%error, "cannot take over reservations"),
    }
}

/// Drops the reservations that are held for longer than `idle`, beyond any deadline: their entries were not
/// acknowledged.
pub async fn take_up(worker: &Worker, idle: Duration) {
    match stream::claim_abandoned(worker.ledger.pool(), stream::PROVISION, &worker.id, idle, 100)
        .await
        .step_if("provision.taken_up", step::some)
    {
        Ok(entries) => drop_all(worker, entries, "its worker did not finish it").await,
        Err(error) => tracing::warn!(%error, "cannot take up reservations"),
    }
}

async fn drop_all(worker: &Worker, entries: Vec<Entry>, why: &str) {
    for entry in &entries {
        if let Ok(runner) = entry.field("runner") {
            let known = match worker.ledger.runner(runner).await {
                Ok(known) => known,
                Err(error) => {
                    return tracing::warn!(%error, runner.name = runner, "cannot drop a reservation; its deadline does");
                }
            };
            // One that got as far as `created` lives on: only its entry was left.
            if known.is_some_and(|known| known.state == Some(RunnerState::Reserved)) {
                tracing::info!(runner.name = runner, why, "dropping a reservation");
                if let Err(error) = worker
                    .ledger
                    .observe(Observation::Remove, runner, why)
                    .await
                    .step("provision.dropped")
                {
                    return tracing::warn!(%error, runner.name = runner, "cannot drop a reservation; its deadline does");
                }
            }
        }
        acknowledge(worker, entry).await;
    }
    if !entries.is_empty() {
        worker.upkeep.notify_one();
        worker.admit().await;
    }
}

async fn acknowledge(worker: &Worker, entry: &Entry) {
    if let Err(error) = stream::acknowledge(worker.ledger.pool(), stream::PROVISION, std::slice::from_ref(&entry.id))
        .await
        .step("provision.acknowledged")
    {
        tracing::warn!(%error, entry = entry.id, "a reservation's entry was not acknowledged; it is dropped later");
    }
}

async fn process(worker: &Worker, making: &Making, owner: &str, entry: &Entry) {
    let (runner, fence) = match (entry.field("runner"), entry.field("fence")) {
        (Ok(runner), Ok(fence)) => (runner, fence),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(entry = entry.id, %error, "a reservation cannot be read and goes to the dead letters");
            worker.metrics.buried.inc();
            if let Err(error) = dead_letters::bury(worker.ledger.pool(), stream::PROVISION, entry, &error.to_string())
                .await
                .step("provision.buried")
            {
                tracing::warn!(%error, "it could not be moved; it will come again");
            }
            return;
        }
    };
    let timeout = worker.backend.timeout() + making.patience.get(owner);
    let scope = match scope_of(worker, entry, runner).await {
        Ok(Some(scope)) => scope,
        Ok(None) => {
            tracing::debug!(runner.name = runner, "this reservation is gone");
            return acknowledge(worker, entry).await;
        }
        Err(error) => {
            tracing::warn!(%error, runner.name = runner, "the ledger does not answer; the reservation's deadline drops \
             it");
            return acknowledge(worker, entry).await;
        }
    };
    let place = Place::of(worker, &scope);
    let credential = place.as_ref().map_or(NO_CREDENTIAL, |place| &*place.credential.name);
    let claim = CLAIMS.fetch_add(1, Ordering::Relaxed);
    let alone = place.as_ref().map_or(true, |place| place.alone);
    let maker = Maker {
        worker: &worker.id,
        claim,
        credential,
        alone,
        timeout,
        create_timeout: worker.backend.timeout(),
    };
    let claim = async || {
        let began = Instant::now(); // of the try that worked: until then there was nothing to come too late for
        let claim = worker
            .ledger
            .claim(runner, fence, &maker)
            .await
            .step("provision.claimed")?;
        Ok((claim, began))
    };
    match persist(PERSIST_CLAIM, claim).await {
        Ok((Claim::Ours(reservation), began)) => match make(worker, making, &reservation, fence, place, began).await {
            Ok(()) => {
                worker.metrics.provision_seconds.observe(began.elapsed().as_secs_f64());
            }
            Err(error) => {
                tracing::warn!(%error, runner.name = runner, "the ledger did not take a runner's step; its deadline \
                 clears up")
            }
        },
        Ok((Claim::Stale, _)) => {
            tracing::debug!(runner.name = runner, "this reservation is not ours any more");
            worker.admit().await; // it may have been given back, and its room be another's
        }
        Err(error) => {
            tracing::warn!(%error, runner.name = runner, "the ledger does not answer; the reservation's deadline drops \
             it")
        }
    }
    acknowledge(worker, entry).await;
}

/// Where a runner registers: in its entry, or (a release before wrote none there) in the ledger. None where the runner
/// is gone.
async fn scope_of(worker: &Worker, entry: &Entry, runner: &str) -> Result<Option<String>, LedgerError> {
    if let Ok(scope) = entry.field("scope") {
        return Ok(Some(scope.to_owned()));
    }
    Ok(persist(PERSIST_CLAIM, || worker.ledger.runner(runner))
        .await?
        .and_then(|known| known.scope))
}

/// Walks a reservation through its steps. An error is the ledger's; everything else is told to the ledger here.
async fn make(
    worker: &Worker,
    making: &Making,
    reservation: &Reservation,
    fence: &str,
    place: Result<Place, jit_github::Error>,
    began: Instant,
) -> Result<(), LedgerError> {
    let name = reservation.name.as_str();
    let spec = RunnerSpec {
        name: name.to_owned(),
        org: reservation.org.clone(),
        scope: reservation.scope.clone(),
        group: reservation.group.clone(),
        profile: reservation.profile.clone(),
        labels: reservation.labels.clone(),
        job: reservation.job.get(),
    };
    let served = || place.as_ref().map_or(true, |place| place.is_served(worker));
    let fail = async |step: &'static str, mut failure: Failure| {
        if matches!(step, "registration" | "budget") && !served() {
            // what is refused to a credential that was replaced meanwhile says nothing of the next
            failure.back_off = None;
        }
        worker.metrics.failed.get_or_create(&metrics::Step { step }).inc();
        if step == "budget" {
            tracing::info!(
                runner.name = name,
                org = spec.org,
                job.id = spec.job,
                why = failure.why,
                "a runner has to wait for GitHub's limits"
            );
        } else {
            tracing::warn!(runner.name = name, org = spec.org, job.id = spec.job, step, why = failure.why, back_off = ?failure.back_off, "a runner could not be made");
        }
        let made = failure.made;
        let result = persist(PERSIST, || worker.ledger.fail(name, fence, &failure))
            .await
            .step("provision.failed");
        if made {
            worker.upkeep.notify_one();
        }
        worker.admit().await;
        result.map(|_| ())
    };

    let place = match &place {
        Ok(place) => place,
        Err(error) => {
            let scope = Scope::Organization(spec.org.clone());
            return fail(
                "registration",
                Failure {
                    made: false,
                    ..registration_failure(error, &scope, false, worker.organization_backoff)
                },
            )
            .await;
        }
    };
    let owner = place.scope.owner().to_lowercase();
    if let Some(slow) = making.permits.exhausted(&owner) {
        let why = format!(
            "{slow} runners of {owner} that this worker makes are slow: GitHub or Kubernetes takes long to answer for \
             it"
        );
        let back_off = Some(named(&[Subject::Org], SLOW_WAIT));
        return fail(
            "slow",
            Failure {
                made: false,
                registration: Registration::None,
                back_off,
                why,
            },
        )
        .await;
    }
    let doubtful = making.undeliverable().contains(&spec.org);
    if doubtful && let Err(error) = worker.backend.may_deliver(&spec).await {
        return fail("delivery", undeliverable(&error)).await;
    }
    // Before anything is made: what GitHub would refuse costs neither a pod nor a call. Where the App is not installed,
    // the token tells; one at hand costs nothing.
    if let Err(error) = place
        .credential
        .client
        .ready(&place.scope)
        .await
        .step("provision.token_ready")
    {
        return fail(
            "registration",
            Failure {
                made: false,
                ..place.failure(worker, &error, false)
            },
        )
        .await;
    }
    let account = place.credential.account(&place.scope);
    match persist(PERSIST, || {
        worker
            .ledger
            .spend_registration(&account, &spec.scope, name, &worker.budget)
    })
    .await
    .step("provision.budget_spent")?
    {
        Spending::Allowed => {}
        Spending::Wait { whose, wait, why } => {
            let back_off = place.limited(worker, whose, wait);
            return fail(
                "budget",
                Failure {
                    made: false,
                    registration: Registration::None,
                    back_off,
                    why,
                },
            )
            .await;
        }
    }
    let settle = async |sent: bool| {
        if let Err(error) = worker
            .ledger
            .settle_registration(&account, &spec.scope, name, sent, &worker.budget)
            .await
            .step("provision.budget_settled")
        {
            tracing::debug!(%error, runner.name = name, "a registration counts from when it was allowed");
        }
    };

    // A worker that was stopped here and wakes up late must not create what nobody counts any more: its slot is kept
    // for twice this time.
    if began.elapsed() > worker.backend.timeout() {
        settle(false).await;
        let why = "its worker came too late to create its pod".to_owned();
        return fail(
            "pod",
            Failure {
                made: false,
                registration: Registration::None,
                back_off: None,
                why,
            },
        )
        .await;
    }
    // The group's id is known from the second runner of a scope on; the first one need not wait for it.
    let group = async {
        place
            .credential
            .client
            .runner_group_id(&place.scope, &spec.group)
            .await
            .step("provision.group_found")
    };
    let (started, group) = tokio::join!(
        async { worker.backend.start(&spec).await.step("provision.pod_created") },
        group
    );
    if let Err(error) = started {
        settle(false).await;
        return fail("pod", pod_failure(&error)).await;
    }
    let registered = register(&making.patience, &owner, &spec, place, group).await;
    settle(
        registered
            .as_ref()
            .err()
            .is_none_or(|(error, asked)| *asked && error.sent()),
    )
    .await;
    let runner = match registered {
        Ok(runner) => runner,
        Err((error, asked)) => return fail("registration", place.failure(worker, &error, asked)).await,
    };
    match persist(PERSIST, || {
        worker
            .ledger
            .registered(name, fence, runner.id, worker.backend.timeout() * 2)
    })
    .await
    .step("provision.registration_recorded")?
    {
        Claim::Ours(()) => {}
        Claim::Stale => return discard(worker, &spec, runner.id).await,
    }

    if let Err(error) = worker
        .backend
        .deliver(&spec, &runner.encoded_jit_config)
        .await
        .step("provision.configuration_delivered")
    {
        if matches!(error, BackendError::Refused(_) | BackendError::Quota(_)) {
            making.undeliverable().insert(spec.org.clone());
        }
        return fail("delivery", delivery_failure(&error)).await;
    }
    making.undeliverable().remove(&spec.org);
    match persist(PERSIST, || worker.ledger.created(name, fence))
        .await
        .step("provision.created")?
    {
        Claim::Ours(woken) => {
            if woken {
                worker.admit().await; // what had failed works again: the rest may follow its probe
            }
        }
        Claim::Stale => return discard(worker, &spec, runner.id).await,
    }
    worker.metrics.created.inc();
    tracing::info!(
        runner.name = name,
        runner.id = runner.id,
        org = spec.org,
        job.id = spec.job,
        "runner created"
    );
    Ok(())
}

/// The error, and whether GitHub had been asked to register by then: only what was asked for may have happened.
async fn register(
    patience: &Patience,
    owner: &str,
    spec: &RunnerSpec,
    place: &Place,
    group: Result<u64, jit_github::Error>,
) -> Result<JitRunner, (jit_github::Error, bool)> {
    let group = group.map_err(|error| (error, false))?;
    let request = JitRequest {
        name: spec.name.clone(),
        runner_group_id: group,
        labels: spec.labels.clone(),
        work_folder: None,
    };
    let given = patience.get(owner);
    let result = place
        .credential
        .client
        .generate_jit_config(&place.scope, &request, given)
        .await
        .step("provision.runner_registered");
    patience.learn(owner, given, matches!(result, Err(jit_github::Error::TimedOut { .. })));
    result.map_err(|error| (error, true))
}

/// We woke up late: what we made is not wanted any more. It is removed as everything is, at GitHub first; one that
/// works already, lives.
async fn discard(worker: &Worker, spec: &RunnerSpec, github_id: u64) -> Result<(), LedgerError> {
    tracing::info!(
        runner.name = spec.name,
        "this runner was given up meanwhile; removing what was made"
    );
    let Ok(scope) = spec.scope.parse::<Scope>() else {
        return Ok(());
    };
    let deletion = match worker.credential(&scope) {
        Ok(credential) => credential
            .client
            .delete_runner(&scope, github_id)
            .await
            .step("provision.late_runner_deleted"),
        Err(error) => Err(error),
    };
    match deletion {
        // Not found may mean hidden. It got no configuration, so its program has not started, and no job is on it.
        Ok(Deletion::Deleted | Deletion::NotFound) => {}
        Ok(Deletion::Busy) => return Ok(()),
        Err(error) => {
            tracing::warn!(%error, runner.name = spec.name, runner.id = github_id, "GitHub does not say whether it is \
             gone; upkeep removes it");
            return Ok(());
        }
    }
    if let Err(error) = worker.backend.stop(&spec.name).await.step("provision.late_pod_stopped") {
        tracing::warn!(%error, runner.name = spec.name, "cannot remove its pod; the next reconcile does");
    }
    Ok(())
}
