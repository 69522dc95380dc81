//! Upkeep: the work whose time has come. Runners to remove, jobs to ask GitHub about, registrations that may be left
//! over.
//!
//! There is one way to remove a runner, whoever wants it gone: at GitHub first, and only when GitHub confirms that it
//! is not registered is its pod touched. GitHub refuses (422) while a job runs on it, and then the runner lives.
//!
//! Absence is not taken for proof. A 404 counts where GitHub shows what would stand beside the thing that is not there:
//! the runners of its scope, the runs of its repository. Else nothing is removed, and no job is given up.

use std::{sync::Arc, time::Duration};

use jit_backend::Stopped;
use jit_core::{
    ledger::{Answer, AnswerStatus, Deregistration, Doubt, LedgerError, Observation, Question, Removal, Silence},
    names,
};
use jit_github::{Client, Deletion, Job, JobStatus, Lookup, Scope};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Worker,
    metrics::Unanswered,
    permits::{Permits, owner_of},
    retry::Pause,
    step::Step,
};

/// Pieces of each kind that are taken at once.
const BATCH: u32 = 64;
/// Pieces that are worked on at once.
const AT_ONCE: usize = 8;
/// So long what is in hand is waited for at the end; what is not done then is handed out again.
const FINISH: Duration = Duration::from_secs(5);

/// Works when rung for, until `stop`.
pub async fn run(worker: &Arc<Worker>, stop: &CancellationToken) {
    let (permits, tasks, mut pause) = (Arc::new(Permits::new(AT_ONCE)), TaskTracker::new(), Pause::new());
    loop {
        tokio::select! { () = stop.cancelled() => break, () = worker.upkeep.notified() => {} }
        match work(worker, &permits, &tasks, stop).await {
            Ok(()) => pause = Pause::new(),
            Err(error) => {
                tracing::warn!(%error, "upkeep is interrupted; what is not done is taken up again");
                pause.wait(stop).await;
            }
        }
    }
    tasks.close();
    let _ = tokio::time::timeout(FINISH, tasks.wait()).await;
}

/// Works off what is due now, and what that makes due: a tick of a clock that a test drives.
///
/// # Errors
/// When Redis is unavailable.
pub async fn once(worker: &Arc<Worker>) -> Result<(), LedgerError> {
    let (permits, tasks) = (Arc::new(Permits::new(AT_ONCE)), TaskTracker::new());
    let result = work(worker, &permits, &tasks, &CancellationToken::new()).await;
    tasks.close();
    tasks.wait().await;
    result
}

/// One piece of work that is due.
enum Piece {
    Removal(Removal),
    Question(Question),
    Doubt(Doubt),
}

impl Piece {
    /// Whose it is.
    fn owner(&self) -> String {
        match self {
            Self::Removal(removal) => owner_of(&removal.scope),
            Self::Question(question) => names::owner_of(&question.repo).to_lowercase(),
            Self::Doubt(doubt) => owner_of(&doubt.scope),
        }
    }

    async fn work(&self, worker: &Worker) {
        let (result, what) = match self {
            Self::Removal(removal) => (remove(worker, removal).await, &removal.name),
            Self::Question(question) => (ask(worker, question).await, &question.repo),
            Self::Doubt(doubt) => (look_up(worker, doubt).await, &doubt.name),
        };
        if let Err(error) = result {
            tracing::warn!(%error, what, "the ledger did not take a result; it is tried again");
        }
        worker.admit().await;
    }
}

async fn work(
    worker: &Arc<Worker>,
    permits: &Arc<Permits>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), LedgerError> {
    loop {
        let due = worker
            .ledger
            .due(BATCH, worker.pace.lease)
            .await
            .step_if("upkeep.leased", |due| due.as_ref().is_ok_and(|due| !due.is_empty()))?;
        match due.is_empty() {
            _ if stop.is_cancelled() => return Ok(()),
            true if due.held == 0 => return Ok(()),
            true => continue, // behind what GitHub holds back there may be work of others
            false => {}
        }
        let removals = due.removals.into_iter().map(Piece::Removal);
        for piece in removals
            .chain(due.questions.into_iter().map(Piece::Question))
            .chain(due.registrations.into_iter().map(Piece::Doubt))
        {
            let owner = piece.owner();
            if permits.exhausted(&owner).is_some() {
                continue; // slow enough: it is handed out again when its lease is over
            }
            let Some(permit) = permits.permit().await else {
                return Ok(());
            };
            let (worker, permits) = (worker.clone(), permits.clone());
            tasks.spawn(async move { permits.hold(permit, &owner, piece.work(&worker)).await });
        }
    }
}

/// What GitHub says of a runner's registration.
enum Registration {
    /// Confirmed to be gone.
    Gone(Deregistration),
    /// Not found by its name, in complete lists; a call that is still under way may make it yet.
    NotFound,
    /// At work; with its id, where a look-up found it.
    Busy(Option<u64>),
    /// GitHub does not say.
    Unknown,
    /// Nobody may ask GitHub for its owner any more.
    Unserved,
}

/// `looks`: so many complete lists have to lack a runner whose id is not known before it is not found.
async fn deregister(worker: &Worker, name: &str, scope: &str, id: Option<u64>, looks: u32) -> Registration {
    let Ok(scope) = scope.parse::<Scope>() else {
        return Registration::NotFound;
    };
    match worker
        .with_client(&scope, |client| delete(client, name, &scope, id, looks))
        .await
    {
        Ok(registration) => registration,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "GitHub does not say whether a runner is gone; asked again");
            if is_unserved(&error) {
                Registration::Unserved
            } else {
                Registration::Unknown
            }
        }
    }
}

/// Whether no credential can ask: none is configured for the owner, or its App is not installed there, or suspended.
fn is_unserved(error: &jit_github::Error) -> bool {
    use jit_github::Error;
    matches!(
        error,
        Error::NotServed { .. } | Error::NotInstalled { .. } | Error::Suspended { .. }
    )
}

/// Absence is no proof: GitHub answers 404 too where the credential may not see the scope any more. That it does not
/// know the id counts where it lists the runners of the scope, and that no list holds the name, where the list was
/// complete.
async fn delete(
    client: Client,
    name: &str,
    scope: &Scope,
    id: Option<u64>,
    looks: u32,
) -> Result<Registration, jit_github::Error> {
    if let Some(id) = id {
        match delete_by_id(&client, scope, id).await? {
            Deletion::Deleted => return Ok(Registration::Gone(Deregistration::Deleted)),
            Deletion::Busy => return Ok(Registration::Busy(None)),
            Deletion::NotFound => {}
        }
    }
    let looks = if id.is_some() { 1 } else { looks };
    for _ in 0..looks {
        match client
            .find_runner(scope, name)
            .await
            .step("upkeep.registration_found")?
        {
            // two answers that contradict each other
            Lookup::Found(runner) if Some(runner.id) == id => return Ok(Registration::Unknown),
            Lookup::Found(runner) => {
                return Ok(match delete_by_id(&client, scope, runner.id).await? {
                    Deletion::Deleted => Registration::Gone(Deregistration::Deleted),
                    Deletion::NotFound => Registration::Gone(Deregistration::Absent),
                    Deletion::Busy => Registration::Busy(Some(runner.id)),
                });
            }
            Lookup::Unseen if id.is_none() => {
                tracing::info!(runner.name = name, %scope, "the list of runners changed while it was read, so it \
                 proves nothing; read again");
                return Ok(Registration::Unknown);
            }
            Lookup::Unseen | Lookup::Absent => {}
        }
    }
    Ok(if id.is_some() {
        Registration::Gone(Deregistration::Absent)
    } else {
        Registration::NotFound
    })
}

async fn delete_by_id(client: &Client, scope: &Scope, id: u64) -> Result<Deletion, jit_github::Error> {
    client
        .delete_runner(scope, id)
        .await
        .step("upkeep.registration_deleted")
}

/// GitHub must say first that a runner is not registered, where it may be.
fn must_ask(removal: &Removal) -> bool {
    !removal.deregistered && (removal.github_id.is_some() || removal.uncertain)
}

async fn registration_of(worker: &Worker, removal: &Removal) -> Registration {
    let looks = if removal.started { 2 } else { 1 };
    if must_ask(removal) {
        deregister(worker, &removal.name, &removal.scope, removal.github_id, looks).await
    } else {
        Registration::NotFound
    }
}

/// Whether the pod of a runner that does not count may end: GitHub has it no more.
pub(crate) async fn may_end(worker: &Worker, removal: &Removal) -> bool {
    matches!(
        registration_of(worker, removal).await,
        Registration::Gone(_) | Registration::NotFound
    )
}

async fn remove(worker: &Worker, removal: &Removal) -> Result<(), LedgerError> {
    let name = removal.name.as_str();
    let ask = must_ask(removal);
    let registration = registration_of(worker, removal).await;
    let unserved = matches!(registration, Registration::Unserved);
    let settled = !ask || matches!(registration, Registration::Gone(_));
    let (confirmed, observation) = match registration {
        Registration::Busy(id) => {
            tracing::info!(
                runner.name = name,
                "a runner that was to be removed is at work, and lives"
            );
            return worker
                .ledger
                .observe_busy(name, id)
                .await
                .step("upkeep.found_busy")
                .map(|_| ());
        }
        Registration::Unknown | Registration::Unserved => (None, Observation::Postpone), // its pod is not touched
        Registration::NotFound => (None, stop(worker, name, settled).await),
        Registration::Gone(how) => (Some(how), stop(worker, name, settled).await),
    };
    let why = "removed";
    let observed = match (confirmed, observation) {
        (Some(how), _) => worker
            .ledger
            .observe_deregistered(observation, name, why, how)
            .await
            .step("upkeep.removed")?,
        (None, Observation::Postpone) => worker
            .ledger
            .postpone(name, why, unserved)
            .await
            .step("upkeep.postponed")?,
        (None, _) => worker
            .ledger
            .observe(observation, name, why)
            .await
            .step("upkeep.removed_unregistered")?,
    };
    if observation != Observation::Postpone {
        tracing::info!(runner.name = name, runner.state = %observed.state, "runner removed");
    }
    Ok(())
}

/// Ends the pod, and says what is to be observed then. A pod that does not go, as on a lost node, keeps no slot where
/// it is `settled` that its runner takes no job any more.
async fn stop(worker: &Worker, name: &str, settled: bool) -> Observation {
    match worker.backend.stop(name).await.step("upkeep.pod_stopped") {
        Ok(Stopped::Stuck) if settled => {
            tracing::warn!(
                runner.name = name,
                "a pod was to be gone minutes ago and is not, as on a lost node; its slot is free, since its runner is \
                 not registered any more"
            );
            Observation::Release
        }
        Ok(Stopped::Ending | Stopped::Stuck) => Observation::Note, // its slot is freed when it is gone
        Ok(Stopped::Absent) => Observation::Absent,
        Err(error) => {
            tracing::warn!(%error, runner.name = name, "a runner's pod cannot be removed; tried again");
            Observation::Postpone
        }
    }
}

async fn ask(worker: &Worker, question: &Question) -> Result<(), LedgerError> {
    match what_became_of(worker, question).await {
        Ok(answer) => {
            let state = worker.ledger.answer(question, &answer).await.step("upkeep.answered")?;
            tracing::info!(job.id = %question.job, job.state = %state, github = ?answer.status, "GitHub was asked about \
             a job");
        }
        Err(Unsaid(silence, words)) => {
            worker.metrics.unanswered.get_or_create(&Unanswered::of(silence)).inc();
            let state = worker
                .ledger
                .no_answer(question, silence, &words)
                .await
                .step("upkeep.unanswered")?;
            tracing::warn!(job.id = %question.job, job.state = %state, why = words, "GitHub does not say what became of \
             a job; asked again");
        }
    }
    Ok(())
}

/// Why GitHub did not say what became of a job, in words for people.
struct Unsaid(Silence, String);

async fn what_became_of(worker: &Worker, question: &Question) -> Result<Answer, Unsaid> {
    let repo = question.repo.as_str();
    let Some((owner, name)) = repo.split_once('/') else {
        return Err(Unsaid(Silence::Unanswered, format!("{repo:?} is no repository")));
    };
    let scope = Scope::Repository {
        owner: owner.to_owned(),
        name: name.to_owned(),
    };
    let job = worker
        .with_client(&scope, |client| find_job(client, owner, name, question.job.get()))
        .await
        .map_err(|error| unsaid(repo, &error))?;
    let Some(job) = job else {
        return Ok(Answer {
            status: AnswerStatus::Missing,
            runner: None,
            runner_id: None,
            conclusion: None,
        });
    };
    let status = match job.status {
        JobStatus::Queued => AnswerStatus::Queued,
        JobStatus::InProgress => AnswerStatus::InProgress,
        JobStatus::Completed => AnswerStatus::Completed,
        JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => AnswerStatus::Waiting,
        JobStatus::Other(word) => {
            return Err(Unsaid(
                Silence::Unanswered,
                format!("GitHub gives it a status that is not known here: {word}"),
            ));
        }
    };
    Ok(Answer {
        status,
        runner: job.runner_name,
        runner_id: job.runner_id,
        conclusion: job.conclusion,
    })
}

/// A job; nothing where GitHub shows the repository's runs, which take the same right, and not the job.
async fn find_job(client: Client, owner: &str, name: &str, job: u64) -> Result<Option<Job>, jit_github::Error> {
    let job = client.job(owner, name, job).await.step("upkeep.job_asked")?;
    if job.is_none()
        && !client
            .may_read_runs(owner, name)
            .await
            .step("upkeep.repository_asked")?
    {
        return Err(jit_github::Error::NotFound {
            what: format!("the jobs of {owner}/{name}"),
            said: "404 for its runs, too".to_owned(),
        });
    }
    Ok(job)
}

/// A refusal that holds until somebody gives the right, or a failure that passes.
fn unsaid(repo: &str, error: &jit_github::Error) -> Unsaid {
    use jit_github::Error::{Forbidden, NotFound, NotInstalled, NotServed, Suspended};
    match error {
        Forbidden { said, .. } => Unsaid(
            Silence::Unreadable,
            format!("cannot be asked about: the credential may not read {repo} (403: {said})"),
        ),
        NotFound { .. } => Unsaid(
            Silence::Unreadable,
            format!("cannot be asked about: the credential may not read {repo} (404)"),
        ),
        NotInstalled { .. } | NotServed { .. } | Suspended { .. } => {
            Unsaid(Silence::Unreadable, format!("cannot be asked about: {error}"))
        }
        _ => Unsaid(
            Silence::Unanswered,
            format!("GitHub did not say what became of it: {error}"),
        ),
    }
}

async fn look_up(worker: &Worker, doubt: &Doubt) -> Result<(), LedgerError> {
    if let Registration::Gone(how) = deregister(worker, &doubt.name, &doubt.scope, doubt.github_id, 1).await {
        if how == Deregistration::Deleted {
            tracing::info!(runner.name = doubt.name, "deleted a registration that was left over");
        }
        worker.ledger.settle_doubt(doubt).await.step("upkeep.doubt_settled")?;
    }
    Ok(())
}
