//! One runner, step by step: [`Claimed`] → [`Placed`] → [`Registered`] → [`Delivered`].
//!
//! Each step takes the value of the one before and gives the next, or [`Abandoned`]. What there is of the runner is
//! what the value holds, so a step that is refused does not say what may have to be removed: its [`Stage`] does.

use std::time::Duration;

use jit_backend::{BackendError, RunnerSpec};
use jit_core::ledger::{Claim, Failure, LedgerError, Reservation, Spending};
use jit_github::{JitRequest, JitRunner, Scope};
use tokio::time::Instant;

use super::{
    Shared,
    discard::discard,
    failure::{Abandoned, Holds, Refusal, Stage},
    registrar::Registrar,
};
use crate::{Worker, metrics, retry::persist, step::Step};

/// So long a step's result is offered to a ledger that does not answer; then the deadline clears up.
const PERSIST: Duration = Duration::from_secs(20);

/// A runner that is to be made: what all of its steps need.
pub(super) struct Order<'a> {
    pub(super) worker: &'a Worker,
    pub(super) shared: &'a Shared,
    pub(super) spec: RunnerSpec,
    /// Of its claim: the ledger takes no step without it.
    pub(super) fence: &'a str,
    /// When it was claimed.
    pub(super) began: Instant,
}

/// Walks a reservation through its steps. An error is the ledger's; everything else is told to the ledger here.
pub(super) async fn make(
    order: &Order<'_>,
    registrar: Result<Registrar, jit_github::Error>,
) -> Result<(), LedgerError> {
    match steps(order, registrar).await {
        Ok(()) => Ok(()),
        Err(Abandoned::Refused(step, failure)) => order.failed(step, &failure).await,
        Err(Abandoned::Late(github_id)) => {
            discard(order.worker, &order.spec, github_id).await;
            Ok(())
        }
        Err(Abandoned::Untold(error)) => Err(error),
    }
}

async fn steps(order: &Order<'_>, registrar: Result<Registrar, jit_github::Error>) -> Result<(), Abandoned> {
    let claimed = Claimed::new(order, registrar)?;
    let placed = claimed.place().await?;
    let registered = placed.register().await?;
    let delivered = registered.deliver().await?;
    delivered.finish().await
}

impl<'a> Order<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        shared: &'a Shared,
        reservation: &Reservation,
        fence: &'a str,
        began: Instant,
    ) -> Self {
        let spec = RunnerSpec {
            name: reservation.name.clone(),
            org: reservation.org.clone(),
            scope: reservation.scope.clone(),
            group: reservation.group.clone(),
            profile: reservation.profile.clone(),
            labels: reservation.labels.clone(),
            job: reservation.job.get(),
        };
        Self {
            worker,
            shared,
            spec,
            fence,
            began,
        }
    }

    /// Tells the ledger of a step, and waits for it a while where it does not answer.
    async fn tell<T, F: Future<Output = Result<T, LedgerError>>>(
        &self,
        call: impl FnMut() -> F,
    ) -> Result<T, LedgerError> {
        persist(PERSIST, call).await
    }

    /// Tells the ledger that the runner could not be made, and lets others have its room.
    async fn failed(&self, step: &'static str, failure: &Failure) -> Result<(), LedgerError> {
        let Self { worker, spec, .. } = self;
        worker.metrics.failed.get_or_create(&metrics::Step { step }).inc();
        if step == "budget" {
            tracing::info!(
                runner.name = spec.name,
                org = spec.org,
                job.id = spec.job,
                why = failure.why,
                "a runner has to wait for GitHub's limits"
            );
        } else {
            tracing::warn!(
                runner.name = spec.name,
                org = spec.org,
                job.id = spec.job,
                step,
                why = failure.why,
                back_off = ?failure.back_off,
                "a runner could not be made"
            );
        }
        let result = self
            .tell(|| worker.ledger.fail(&spec.name, self.fence, failure))
            .await
            .step("provision.failed");
        if failure.made {
            worker.bells.upkeep.notify_one();
        }
        worker.admit().await;
        result.map(|_| ())
    }
}

/// A registration that GitHub's limits leave room for. It counts from when it is known whether GitHub was asked.
struct Allowance<'a> {
    order: &'a Order<'a>,
    account: String,
}

impl Allowance<'_> {
    /// Says whether GitHub was asked.
    async fn settle(self, sent: bool) {
        let Order { worker, spec, .. } = self.order;
        if let Err(error) = worker
            .ledger
            .settle_registration(&self.account, &spec.scope, &spec.name, sent, &worker.budget)
            .await
            .step("provision.budget_settled")
        {
            tracing::debug!(%error, runner.name = spec.name, "a registration counts from when it was allowed");
        }
    }
}

/// A runner of which there is nothing but its slot.
struct Claimed<'a> {
    order: &'a Order<'a>,
    registrar: Registrar,
}

impl Stage for Claimed<'_> {
    const HOLDS: Holds = Holds::Nothing;
}

impl<'a> Claimed<'a> {
    fn new(order: &'a Order<'a>, registrar: Result<Registrar, jit_github::Error>) -> Result<Self, Abandoned> {
        match registrar {
            Ok(registrar) => Ok(Self { order, registrar }),
            Err(error) => {
                let scope = Scope::Organization(order.spec.org.clone());
                let organization = order.worker.organization_backoff;
                Err(Self::abandon(Refusal::registration(
                    &error,
                    &scope,
                    false,
                    organization,
                )))
            }
        }
    }

    /// Asks ahead of time for what would be refused later, and creates its pod.
    async fn place(self) -> Result<Placed<'a>, Abandoned> {
        self.check().await?;
        let allowance = self.allow().await?;
        let Self { order, registrar } = self;
        let Order { worker, spec, .. } = order;
        // A worker that was stopped here and wakes up late must not create what nobody counts any more: its slot is
        // kept for twice this time.
        if order.began.elapsed() > worker.backend.timeout() {
            allowance.settle(false).await;
            return Err(Self::abandon(Refusal::too_late()));
        }
        // The group's id is known from the second runner of a scope on; the first one need not wait for it.
        let (started, group) = tokio::join!(
            async { worker.backend.start(spec).await.step("provision.pod_created") },
            async {
                registrar
                    .credential
                    .client
                    .runner_group_id(&registrar.scope, &spec.group)
                    .await
                    .step("provision.group_found")
            }
        );
        if let Err(error) = started {
            allowance.settle(false).await;
            return Err(Self::abandon(Refusal::pod(&error)));
        }
        Ok(Placed {
            order,
            registrar,
            allowance,
            group,
        })
    }

    /// What would be refused costs neither a pod nor a registration.
    async fn check(&self) -> Result<(), Abandoned> {
        let Order {
            worker, shared, spec, ..
        } = self.order;
        let owner = self.registrar.owner();
        if let Some(slow) = shared.permits.exhausted(&owner) {
            return Err(Self::abandon(Refusal::slow(&owner, slow)));
        }
        let doubtful = shared.undeliverable().contains(&spec.org);
        if doubtful && let Err(error) = worker.backend.may_deliver(spec).await {
            return Err(Self::abandon(Refusal::delivery(&error)));
        }
        // Where the App is not installed, the token tells; one at hand costs nothing.
        self.registrar
            .credential
            .client
            .ready(&self.registrar.scope)
            .await
            .step("provision.token_ready")
            .map_err(|error| Self::abandon(self.registrar.refused(worker, &error, false)))
    }

    /// Takes a registration out of what GitHub's limits leave.
    async fn allow(&self) -> Result<Allowance<'a>, Abandoned> {
        let order = self.order;
        let Order { worker, spec, .. } = order;
        let account = self.registrar.credential.account(&self.registrar.scope);
        let spending = order
            .tell(|| {
                worker
                    .ledger
                    .spend_registration(&account, &spec.scope, &spec.name, &worker.budget)
            })
            .await
            .step("provision.budget_spent")?;
        match spending {
            Spending::Allowed => Ok(Allowance { order, account }),
            Spending::Wait { whose, wait, why } => Err(Self::abandon(self.registrar.limited(worker, whose, wait, why))),
        }
    }
}

/// A runner that has its pod.
struct Placed<'a> {
    order: &'a Order<'a>,
    registrar: Registrar,
    allowance: Allowance<'a>,
    /// Its group's id.
    group: Result<u64, jit_github::Error>,
}

impl Stage for Placed<'_> {
    const HOLDS: Holds = Holds::Pod;
}

impl<'a> Placed<'a> {
    /// Registers it at GitHub, and notes its id.
    async fn register(self) -> Result<Registered<'a>, Abandoned> {
        let Self {
            order,
            registrar,
            allowance,
            group,
        } = self;
        let Order {
            worker, spec, fence, ..
        } = order;
        // Only what was asked for may have happened.
        let asked = group.is_ok();
        let result = match group {
            Ok(group) => ask(order, &registrar, group).await,
            Err(error) => Err(error),
        };
        allowance
            .settle(result.as_ref().err().is_none_or(|error| asked && error.sent()))
            .await;
        let runner = result.map_err(|error| Self::abandon(registrar.refused(worker, &error, asked)))?;
        let claim = order
            .tell(|| {
                worker
                    .ledger
                    .registered(&spec.name, fence, runner.id, worker.backend.timeout() * 2)
            })
            .await
            .step("provision.registration_recorded")?;
        match claim {
            Claim::Ours(()) => Ok(Registered { order, runner }),
            Claim::Stale => Err(Abandoned::Late(runner.id)),
        }
    }
}

/// Asks GitHub for a JIT configuration.
async fn ask(order: &Order<'_>, registrar: &Registrar, group: u64) -> Result<JitRunner, jit_github::Error> {
    let Order { shared, spec, .. } = order;
    let request = JitRequest {
        name: spec.name.clone(),
        runner_group_id: group,
        labels: spec.labels.clone(),
        work_folder: None,
    };
    let owner = registrar.owner();
    let given = shared.patience.get(&owner);
    let result = registrar
        .credential
        .client
        .generate_jit_config(&registrar.scope, &request, given)
        .await
        .step("provision.runner_registered");
    let timed_out = matches!(result, Err(jit_github::Error::TimedOut { .. }));
    shared.patience.learn(&owner, given, timed_out);
    result
}

/// A runner that is registered; the ledger knows its id.
struct Registered<'a> {
    order: &'a Order<'a>,
    runner: JitRunner,
}

impl Stage for Registered<'_> {
    const HOLDS: Holds = Holds::Registration;
}

impl<'a> Registered<'a> {
    /// Hands it its JIT configuration.
    async fn deliver(self) -> Result<Delivered<'a>, Abandoned> {
        let Self { order, runner } = self;
        let Order {
            worker, shared, spec, ..
        } = order;
        if let Err(error) = worker
            .backend
            .deliver(spec, &runner.encoded_jit_config)
            .await
            .step("provision.configuration_delivered")
        {
            if matches!(error, BackendError::Refused(_) | BackendError::Quota(_)) {
                shared.undeliverable().insert(spec.org.clone());
            }
            return Err(Self::abandon(Refusal::delivery(&error)));
        }
        shared.undeliverable().remove(&spec.org);
        Ok(Delivered {
            order,
            github_id: runner.id,
        })
    }
}

/// A runner that has all it needs.
struct Delivered<'a> {
    order: &'a Order<'a>,
    github_id: u64,
}

impl Delivered<'_> {
    /// Tells the ledger that it is made.
    async fn finish(self) -> Result<(), Abandoned> {
        let Order {
            worker, spec, fence, ..
        } = self.order;
        let claim = self
            .order
            .tell(|| worker.ledger.created(&spec.name, fence))
            .await
            .step("provision.created")?;
        match claim {
            Claim::Ours(true) => worker.admit().await, // what had failed works again: the rest may follow its probe
            Claim::Ours(false) => {}
            Claim::Stale => return Err(Abandoned::Late(self.github_id)),
        }
        worker.metrics.created.inc();
        tracing::info!(
            runner.name = spec.name,
            runner.id = self.github_id,
            org = spec.org,
            job.id = spec.job,
            "runner created"
        );
        Ok(())
    }
}
