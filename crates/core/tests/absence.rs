//! Absence is no proof: what GitHub does not show, does not answer or may not be asked about ends no job and no runner
//! at work.

use jit_core::ledger::{Answer, AnswerStatus, Deregistration, Due, Listed, Observation, Question, Silence};
use jit_testing::{Store, completed, in_progress, listed, queued, unexplained, waiting};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn answer(status: AnswerStatus) -> Answer {
    Answer {
        status,
        runner: None,
        runner_id: None,
        conclusion: None,
    }
}

async fn answered(store: &Store, question: &Question, status: AnswerStatus) -> String {
    store
        .ledger
        .answer(question, &answer(status))
        .await
        .expect("answered")
        .to_string()
}

async fn unreadable(store: &Store, question: &Question) -> String {
    let words = "cannot be asked about: the credential may not read acme/app (404)";
    store
        .ledger
        .no_answer(question, Silence::Unreadable, words)
        .await
        .expect("taken")
        .to_string()
}

async fn unanswered(store: &Store, question: &Question) -> String {
    store
        .ledger
        .no_answer(
            question,
            Silence::Unanswered,
            "GitHub did not say what became of it: GitHub answered 502",
        )
        .await
        .expect("taken")
        .to_string()
}

/// Waits for the one question about a job, and says how long that took.
async fn question(store: &Store, job: u64) -> (Question, i64) {
    let began = store.time();
    let next = why(store, job).await.next.expect("it is asked about");
    let mut due = store.due_after((next - began).max(0)).await;
    let at = due
        .questions
        .iter()
        .position(|question| question.job.get() == job)
        .expect("its time has come");
    (due.questions.remove(at), store.time() - began)
}

async fn why(store: &Store, job: u64) -> jit_core::ledger::Explanation {
    store
        .ledger
        .explain(jit_core::event::JobId::new(job).expect("an id"))
        .await
        .expect("explained")
}

/// When GitHub is asked about a job next, whatever its state.
async fn asked_at(store: &Store, job: u64) -> Option<i64> {
    let mut redis = store.ledger.pool().get().await.expect("a connection");
    redis::cmd("ZSCORE")
        .arg("jobs:questions")
        .arg(job)
        .query_async::<Option<f64>>(&mut redis)
        .await
        .expect("read")
        .map(|at| at as i64)
}

/// A job whose runner went without having been seen busy, and the question about it.
async fn in_question(store: &Store, job: u64) -> Question {
    store.apply(&queued(job, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store
        .ledger
        .observe(Observation::Release, &name, "ended")
        .await
        .expect("released");
    assert_eq!(store.state(job).await, "in_question");
    question(store, job).await.0
}

/// A runner at work on a job.
async fn at_work(store: &Store, job: u64) -> String {
    store.apply(&queued(job, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 100 + job).await;
    store.apply(&in_progress(job, "acme", &name, 100 + job)).await;
    name
}

/// GitHub knows nothing of a job, three times in a row.
async fn given_up(store: &Store, mut asked: Question) {
    for _ in 0..2 {
        answered(store, &asked, AnswerStatus::Missing).await;
        store.pass(asked_at(store, asked.job.get()).await.expect("asked again") - store.time());
        asked = question_now(store, asked.job.get()).await;
    }
    assert_eq!(answered(store, &asked, AnswerStatus::Missing).await, "completed");
}

async fn question_now(store: &Store, job: u64) -> Question {
    let due: Due = store.due_after(0).await;
    due.questions
        .into_iter()
        .find(|question| question.job.get() == job)
        .expect("its time has come")
}

#[tokio::test]
async fn a_job_that_may_not_be_read_is_demand_again_and_asked_about_ever_more_seldom() {
    let store = Store::open().await;
    let asked = in_question(&store, 1).await;
    assert_eq!(unreadable(&store, &asked).await, "queued");
    assert_eq!(store.admit().await.len(), 1, "it gets another runner");
    assert_eq!(
        store.ledger.unreadable_repositories().await.expect("read"),
        ["acme/app"]
    );
    let explained = why(&store, 1).await;
    assert!(explained.why.contains("may not read acme/app (404)"), "{explained:?}");
    let mut waits = Vec::new();
    loop {
        let began = store.time();
        store.pass(asked_at(&store, 1).await.expect("asked about") - began);
        waits.push((store.time() - began) / HOUR);
        let asked = question_now(&store, 1).await;
        if unreadable(&store, &asked).await == "completed" {
            break;
        }
    }
    // Two days after its last word GitHub has ended a job that is queued; until then, it is asked about after twice as
    // long each time.
    assert_eq!(waits, [1, 2, 4, 8, 16, 16]);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_job_that_may_be_read_again_is_asked_about_as_ever() {
    let store = Store::open().await;
    let asked = in_question(&store, 1).await;
    unreadable(&store, &asked).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 8).await;
    assert!(
        store.due_after(MINUTE).await.questions.is_empty(),
        "an idle runner does not have it asked about before its time"
    );
    store
        .ledger
        .observe_deregistered(Observation::Release, &name, "removed", Deregistration::Deleted)
        .await
        .expect("released");
    store.pass(HOUR);
    let asked = question_now(&store, 1).await;
    assert_eq!(answered(&store, &asked, AnswerStatus::Queued).await, "queued");
    assert!(store.ledger.unreadable_repositories().await.expect("read").is_empty());
    assert!(!why(&store, 1).await.why.contains("may not read"));
    assert_eq!(asked_at(&store, 1).await, None);
    store.assert_sound().await;
}

#[tokio::test]
async fn what_runs_or_waits_and_may_not_be_read_stays_as_github_last_said() {
    let store = Store::open().await;
    let runner = at_work(&store, 1).await;
    store.apply(&waiting(2, "acme")).await;
    let mut ended = [None, None];
    let began = store.time();
    while ended.contains(&None) {
        let due = store.due_after(HOUR).await;
        assert!(
            due.removals.is_empty(),
            "a runner at work ends by itself: {:?}",
            due.removals
        );
        for asked in &due.questions {
            let job = asked.job.get() as usize;
            match unreadable(&store, asked).await.as_str() {
                "completed" => ended[job - 1] = Some((store.time() - began) / DAY),
                state => assert_eq!(state, ["in_progress", "waiting"][job - 1]),
            }
        }
        assert_eq!(store.admit().await.len(), 0, "neither is demand");
    }
    assert_eq!(
        ended,
        [Some(5), Some(35)],
        "as long as GitHub lets a job run, and keeps a run"
    );
    assert_eq!(
        store.runner_state(&runner).await,
        "busy",
        "that its job is given up is a guess of ours"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_job_in_question_of_which_github_does_not_answer_is_demand_again_within_two_minutes() {
    let store = Store::open().await;
    let mut asked = in_question(&store, 1).await;
    for _ in 0..2 {
        assert_eq!(unanswered(&store, &asked).await, "in_question");
        let explained = why(&store, 1).await;
        assert!(explained.why.contains("GitHub answered 502"), "{explained:?}");
        let (again, waited) = question(&store, 1).await;
        assert!((20 * SECOND..=25 * SECOND).contains(&waited), "{waited}");
        asked = again;
    }
    assert_eq!(unanswered(&store, &asked).await, "queued");
    assert_eq!(asked_at(&store, 1).await, None);
    assert_eq!(store.admit().await.len(), 1);
    assert!(
        why(&store, 1).await.why.contains("GitHub answered 502"),
        "the reason stays until GitHub says something"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn what_runs_is_asked_about_after_twice_as_long_while_github_does_not_answer() {
    let store = Store::open().await;
    at_work(&store, 1).await;
    let mut waits = Vec::new();
    store.pass(HOUR);
    for _ in 0..10 {
        let asked = question_now(&store, 1).await;
        assert_eq!(unanswered(&store, &asked).await, "in_progress");
        let wait = asked_at(&store, 1).await.expect("asked again") - store.time();
        waits.push(wait / (10 * SECOND));
        store.pass(wait);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 360, 360], "up to an hour");
}

#[tokio::test]
async fn a_job_that_waits_is_asked_about_ever_more_seldom_up_to_a_day() {
    let store = Store::open().await;
    store.apply(&waiting(1, "acme")).await;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (asked, waited) = question(&store, 1).await;
        waits.push(waited / HOUR);
        assert_eq!(answered(&store, &asked, AnswerStatus::Waiting).await, "waiting");
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24]);
    store.apply(&queued(1, "acme")).await;
    assert_eq!(store.admit().await.len(), 1);
}

#[tokio::test]
async fn githubs_own_word_brings_back_a_job_that_was_given_up() {
    for event in [
        queued(1, "acme"),
        waiting(1, "acme"),
        in_progress(1, "acme", "another", 9),
    ] {
        let store = Store::open().await;
        let asked = in_question(&store, 1).await;
        given_up(&store, asked).await;
        let mut late = event.clone();
        late.attempt = Some(0);
        store.apply(&late).await;
        assert_eq!(store.state(1).await, "completed", "an earlier attempt's word is late");
        store.apply(&event).await;
        let state = if event.action.as_str() == "in_progress" {
            "in_progress"
        } else {
            event.action.as_str()
        };
        assert_eq!(store.state(1).await, state);
        assert_eq!(store.admit().await.len(), usize::from(state == "queued"));
        store.apply(&completed(1, "acme", None)).await;
        store.apply(&event).await;
        assert_eq!(store.state(1).await, "completed", "GitHub's own end is final");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn a_runner_at_work_outlives_that_its_job_is_given_up_and_ends_by_githubs_word() {
    let store = Store::open().await;
    let name = at_work(&store, 1).await;
    store.pass(HOUR);
    let asked = question_now(&store, 1).await;
    given_up(&store, asked).await;
    for _ in 0..30 {
        assert!(
            store.due_after(HOUR).await.removals.is_empty(),
            "a guess ends no runner at work"
        );
    }
    assert_eq!(store.runner_state(&name).await, "busy");
    // Its end comes late, and is GitHub's own word: the tombstone takes it, and the runner has its time to end.
    store.apply(&completed(1, "acme", None)).await;
    assert!(why(&store, 1).await.why.contains("cancelled"));
    assert_eq!(store.due_after(HOUR).await.removals.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn an_adopted_runner_learns_its_id_from_the_first_word_about_it() {
    let store = Store::open().await;
    let (one, two) = (
        adopted(&store, "jit-runner-1-old", false).await,
        adopted(&store, "jit-runner-2-old", false).await,
    );
    assert_eq!([one.as_str(), two.as_str()], ["created", "created"]);
    store.apply(&in_progress(1, "acme", "jit-runner-1-old", 41)).await;
    // The other is found busy when it is to be removed, by its name.
    store
        .ledger
        .observe(Observation::Remove, "jit-runner-2-old", "surplus")
        .await
        .expect("removed");
    let removal = store.due_after(0).await.removals.remove(0);
    assert_eq!(
        (removal.github_id, removal.started, removal.uncertain),
        (None, true, true)
    );
    store
        .ledger
        .observe_busy("jit-runner-2-old", Some(42))
        .await
        .expect("it lives");
    for (name, id) in [("jit-runner-1-old", 41), ("jit-runner-2-old", 42)] {
        store
            .ledger
            .observe(Observation::Remove, name, "an operator wants it")
            .await
            .expect("removed");
        let due = store.due_after(0).await;
        assert_eq!(
            due.removals
                .iter()
                .find(|removal| removal.name == name)
                .expect("to remove")
                .github_id,
            Some(id)
        );
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_pod_whose_deletion_is_under_way_counts_until_it_is_gone_though_redis_forgot_it() {
    let store = Store::empty().await;
    store
        .ledger
        .set_limits(&[("acme".into(), Some(1))], false)
        .await
        .expect("set");
    store.apply(&queued(1, "acme")).await;
    assert_eq!(adopted(&store, "jit-runner-9-old", true).await, "removing");
    assert_eq!(store.admit().await.len(), 0, "it has the organization's one place");
    let removal = store.due_after(0).await.removals.remove(0);
    assert_eq!(removal.name, "jit-runner-9-old");
    store.assert_sound().await;
    store
        .ledger
        .observe_deregistered(Observation::Note, &removal.name, "removed", Deregistration::Absent)
        .await
        .expect("it is ending");
    assert_eq!(store.admit().await.len(), 0);
    store
        .ledger
        .observe(Observation::Release, &removal.name, "gone")
        .await
        .expect("gone");
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_removal_that_github_does_not_confirm_is_tried_again_within_25_seconds() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store
        .ledger
        .observe(Observation::Remove, &name, "surplus")
        .await
        .expect("removed");
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert_eq!(store.due_after(0).await.removals.len(), 1);
        store
            .ledger
            .observe(Observation::Postpone, &name, "")
            .await
            .expect("postponed");
        let began = store.time();
        while store.due_after(SECOND).await.removals.is_empty() {}
        waits.push((store.time() - began) / SECOND);
        store
            .ledger
            .observe(Observation::Postpone, &name, "")
            .await
            .expect("postponed");
        store.pass(25 * SECOND);
    }
    let least_and_most = [(2, 3), (8, 10), (20, 25), (20, 25), (20, 25), (20, 25), (20, 25)];
    for (wait, (least, most)) in waits.iter().zip(least_and_most) {
        assert!((least..=most).contains(wait), "{waits:?}");
    }
}

/// A pod of acme's that the ledger knows nothing of is listed; the state of its runner then.
async fn adopted(store: &Store, name: &str, terminating: bool) -> String {
    let mut all: Vec<Listed> = store
        .ledger
        .runners()
        .await
        .expect("read")
        .iter()
        .map(|runner| unexplained(&runner.name))
        .collect();
    all.push(Listed {
        terminating,
        ..listed(name, "acme")
    });
    store.pass(1);
    store.ledger.reconcile(store.time(), &all).await.expect("reconciled");
    store.runner_state(name).await
}

/// A runner that waits for work.
async fn idle(store: &Store, job: u64) -> String {
    store.apply(&queued(job, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 100 + job).await;
    name
}

/// What is due of a runner, after a time.
async fn removal(store: &Store, after: i64) -> Option<jit_core::ledger::Removal> {
    store.due_after(after).await.removals.into_iter().next()
}

#[tokio::test]
async fn a_runner_whose_owner_nobody_serves_any_more_ends_after_a_while() {
    for (busy, bound) in [(false, 15 * MINUTE), (true, 6 * HOUR)] {
        let store = Store::open().await;
        let name = if busy {
            at_work(&store, 1).await
        } else {
            idle(&store, 1).await
        };
        store
            .ledger
            .observe(Observation::Remove, &name, "it is to go")
            .await
            .expect("taken");
        let mut asked = removal(&store, 0).await.expect("it is due");
        assert!(!asked.deregistered, "GitHub is asked first");
        let began = store.time();
        while !asked.deregistered {
            assert!(
                store.time() - began <= bound + MINUTE,
                "busy {busy}: GitHub is asked first for ever"
            );
            store.ledger.postpone(&name, "", true).await.expect("taken");
            asked = loop {
                if let Some(removal) = removal(&store, 20 * SECOND).await {
                    break removal;
                }
            };
        }
        assert!(store.time() - began >= bound, "busy {busy}: it was given its time");
        store
            .ledger
            .observe(Observation::Release, &name, "removed")
            .await
            .expect("released");
        assert!(
            !store.due_after(2 * MINUTE).await.registrations.is_empty(),
            "its registration is doubtful"
        );
    }
}

#[tokio::test]
async fn an_answer_of_githubs_between_begins_the_time_anew() {
    let store = Store::open().await;
    let name = idle(&store, 1).await;
    store
        .ledger
        .observe(Observation::Remove, &name, "it is to go")
        .await
        .expect("taken");
    for _ in 0..3 {
        store.ledger.postpone(&name, "", true).await.expect("taken");
        store.due_after(10 * MINUTE).await;
        store.ledger.postpone(&name, "", false).await.expect("taken");
        let removal = removal(&store, MINUTE).await.expect("it is due");
        assert!(!removal.deregistered);
    }
}

#[tokio::test]
async fn an_operator_may_end_a_runner_whatever_github_says() {
    let store = Store::open().await;
    let name = at_work(&store, 1).await;
    store
        .ledger
        .observe(Observation::Force, &name, "an operator wants it gone")
        .await
        .expect("taken");
    let removal = removal(&store, 0).await.expect("it is due at once");
    assert!(removal.deregistered, "GitHub is not asked first");
    store
        .ledger
        .observe(Observation::Release, &name, "removed")
        .await
        .expect("released");
    let due = store.due_after(2 * MINUTE).await;
    assert!(
        due.registrations.iter().any(|doubt| doubt.name == name),
        "its registration is looked up"
    );
    assert!(
        due.questions.iter().any(|question| question.job.get() == 1),
        "and GitHub is asked about its job"
    );
}
