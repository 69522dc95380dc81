//! Questions: what became of a job, GitHub is asked.

use jit_core::ledger::{Answer, AnswerStatus, LedgerError, Question, Silence};
use jit_github::{Client, Job, JobStatus, Scope};

use crate::{Worker, metrics::Unanswered, step::Step};

/// Asks GitHub what became of a job, and tells the ledger.
pub(super) async fn ask(worker: &Worker, question: &Question) -> Result<(), LedgerError> {
    match what_became_of(worker, question).await {
        Ok(answer) => {
            let state = worker.ledger.answer(question, &answer).await.step("upkeep.answered")?;
            tracing::info!(
                job.id = %question.job,
                job.state = %state,
                github = ?answer.status,
                "GitHub was asked about a job"
            );
        }
        Err(Unsaid(silence, words)) => {
            worker.metrics.unanswered.get_or_create(&Unanswered::of(silence)).inc();
            let state = worker
                .ledger
                .no_answer(question, silence, &words)
                .await
                .step("upkeep.unanswered")?;
            tracing::warn!(
                job.id = %question.job,
                job.state = %state,
                why = words,
                "GitHub does not say what became of a job; asked again"
            );
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
