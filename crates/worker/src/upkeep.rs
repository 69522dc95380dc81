//! Upkeep: the work whose time has come. Runners to remove, jobs to ask GitHub about, registrations that may be left over.
//!
//! There is one way to remove a runner, whoever wants it gone: at GitHub first, and only when GitHub confirms that it is not registered is
//! its pod touched. GitHub refuses (422) while a job runs on it, and then the runner lives.

use futures::{StreamExt, stream};
use jit_core::ledger::{Answer, AnswerStatus, Deregistration, Doubt, LedgerError, Observation, Question, Removal};
use jit_github::{Deletion, JobStatus, Scope};
use tokio_util::sync::CancellationToken;

use crate::{Worker, backend::Stopped, retry::Pause, step::Step};

/// Pieces of each kind that are taken at once.
const BATCH: u32 = 64;
/// Pieces that are worked on at once.
const AT_ONCE: usize = 8;

/// Works when rung for, until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    let mut pause = Pause::new();
    loop {
        tokio::select! { () = stop.cancelled() => return, () = worker.upkeep.notified() => {} }
        match work(worker, stop).await {
            Ok(()) => pause = Pause::new(),
            Err(error) => {
                tracing::warn!(%error, "upkeep is interrupted; what is not done is taken up again");
                pause.wait(stop).await;
            }
        }
    }
}

async fn work(worker: &Worker, stop: &CancellationToken) -> Result<(), LedgerError> {
    loop {
        let due = worker.ledger.due(BATCH, worker.pace.lease).await.step_if("upkeep.leased", |due| due.as_ref().is_ok_and(|due| !due.is_empty()))?;
        match due.is_empty() {
            _ if stop.is_cancelled() => return Ok(()),
            true if due.held == 0 => return Ok(()),
            true => continue, // behind what GitHub holds back there may be work of others
            false => {}
        }
        stream::iter(due.removals).for_each_concurrent(AT_ONCE, |removal| async move { log(remove(worker, &removal).await, &removal.name) }).await;
        stream::iter(due.questions).for_each_concurrent(AT_ONCE, |question| async move { log(ask(worker, &question).await, &question.repo) }).await;
        stream::iter(due.registrations).for_each_concurrent(AT_ONCE, |doubt| async move { log(look_up(worker, &doubt).await, &doubt.name) }).await;
        worker.admit().await;
    }
}

fn log(result: Result<(), LedgerError>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(%error, what, "the ledger did not take a result; it is tried again");
    }
}

/// What GitHub says of a runner's registration.
enum Registration {
    /// Confirmed to be gone.
    Gone(Deregistration),
    /// Not found by its name; a call that is still under way may make it yet.
    NotFound,
    Busy,
    Unknown,
}

async fn deregister(worker: &Worker, name: &str, scope: &str, id: Option<u64>) -> Registration {
    let Ok(scope) = scope.parse::<Scope>() else { return Registration::NotFound };
    match delete(worker, name, &scope, id).await {
        Ok(Some(Deletion::Deleted)) => Registration::Gone(Deregistration::Deleted),
        Ok(Some(Deletion::NotFound)) => Registration::Gone(Deregistration::Absent),
        Ok(Some(Deletion::Busy)) => Registration::Busy,
        Ok(None) => Registration::NotFound,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "GitHub does not say whether a runner is gone; asked again");
            Registration::Unknown
        }
    }
}

/// `None` where no runner of this name is registered.
async fn delete(worker: &Worker, name: &str, scope: &Scope, id: Option<u64>) -> Result<Option<Deletion>, jit_github::Error> {
    let client = worker.github.of(scope)?.client;
    let id = match id {
        Some(id) => Some(id),
        None => client.find_runner(scope, name).await.step("upkeep.registration_found")?.map(|runner| runner.id),
    };
    match id {
        Some(id) => client.delete_runner(scope, id).await.step("upkeep.registration_deleted").map(Some),
        None => Ok(None),
    }
}

async fn remove(worker: &Worker, removal: &Removal) -> Result<(), LedgerError> {
    let name = removal.name.as_str();
    let ask = removal.github_id.is_some() || (removal.uncertain && !removal.deregistered);
    let registration = if ask { deregister(worker, name, &removal.scope, removal.github_id).await } else { Registration::NotFound };
    let confirmed = match registration {
        Registration::Gone(how) => Some(how),
        Registration::NotFound => None,
        Registration::Busy => {
            tracing::info!(runner.name = name, "a runner that was to be removed is at work, and lives");
            return worker.ledger.observe(Observation::Busy, name, "").await.step("upkeep.found_busy").map(|_| ());
        }
        // Its pod is not touched.
        Registration::Unknown => return worker.ledger.observe(Observation::Postpone, name, "").await.step("upkeep.postponed").map(|_| ()),
    };
    let observation = match worker.backend.stop(name).await.step("upkeep.pod_stopped") {
        Ok(Stopped::Ending) => Observation::Note, // its slot is freed when it is gone
        Ok(Stopped::Absent) => Observation::Absent,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "a runner's pod cannot be removed; tried again");
            return Ok(());
        }
    };
    let why = "removed";
    let observed = match confirmed {
        Some(how) => worker.ledger.observe_deregistered(observation, name, why, how).await.step("upkeep.removed")?,
        None => worker.ledger.observe(observation, name, why).await.step("upkeep.removed_unregistered")?,
    };
    tracing::info!(runner.name = name, runner.state = observed.state, "runner removed");
    Ok(())
}

async fn ask(worker: &Worker, question: &Question) -> Result<(), LedgerError> {
    let Some((owner, repo)) = question.repo.split_once('/') else { return Ok(()) };
    let scope = Scope::Repository { owner: owner.to_owned(), name: repo.to_owned() };
    let job = match worker.github.of(&scope) {
        Ok(credential) => credential.client.job(owner, repo, question.job.get()).await.step("upkeep.job_asked"),
        Err(error) => Err(error),
    };
    let answer = match job {
        Ok(Some(job)) => {
            let status = match job.status {
                JobStatus::Queued => AnswerStatus::Queued,
                JobStatus::InProgress => AnswerStatus::InProgress,
                JobStatus::Completed => AnswerStatus::Completed,
                JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => AnswerStatus::Waiting,
                JobStatus::Other(word) => {
                    tracing::warn!(job.id = %question.job, status = word, "GitHub gives a job a status that is not known here; asked again");
                    return Ok(());
                }
            };
            Answer { status, runner: job.runner_name, runner_id: job.runner_id, conclusion: job.conclusion }
        }
        Ok(None) => Answer { status: AnswerStatus::Missing, runner: None, runner_id: None, conclusion: None },
        Err(error) => {
            tracing::warn!(%error, job.id = %question.job, "GitHub does not say what became of a job; asked again");
            return Ok(());
        }
    };
    let state = worker.ledger.answer(question, &answer).await.step("upkeep.answered")?;
    tracing::info!(job.id = %question.job, job.state = state, github = ?answer.status, "GitHub was asked about a job");
    Ok(())
}

async fn look_up(worker: &Worker, doubt: &Doubt) -> Result<(), LedgerError> {
    if let Registration::Gone(how) = deregister(worker, &doubt.name, &doubt.scope, doubt.github_id).await {
        if how == Deregistration::Deleted {
            tracing::info!(runner.name = doubt.name, "deleted a registration that was left over");
        }
        worker.ledger.settle_doubt(doubt).await.step("upkeep.doubt_settled")?;
    }
    Ok(())
}
