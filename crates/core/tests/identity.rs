//! Owners and repositories get other names, and jobs other classes, in each state of a job. On a real Redis.

#![allow(clippy::unwrap_used)]

use jit_core::{
    class::Class,
    event::{Identity, JobEvent},
    ledger::{Answer, AnswerStatus, Observation},
};
use jit_testing::{Store, completed, in_progress, queued, waiting};

const MINUTE: i64 = 60_000;
const ACME: u64 = 77;

/// The event as GitHub tells it `at` a time, of an owner with this id.
fn told(event: JobEvent, owner_id: u64, at: i64) -> JobEvent {
    JobEvent {
        identity: Identity {
            owner_id: Some(owner_id),
            at: Some(at),
            user: false,
        },
        ..event
    }
}

/// How far a job has come when its owner gets another name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Queued,
    Reserved,
    Created,
    Idle,
    Busy,
    InQuestion,
}

const STATES: [State; 7] = [
    State::Waiting,
    State::Queued,
    State::Reserved,
    State::Created,
    State::Idle,
    State::Busy,
    State::InQuestion,
];

/// What becomes of the owner.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The owner gets another login.
    Renamed,
    /// The owner writes itself in another case.
    Case,
    /// The owner gets a login that operators have set something for already.
    Awaited,
    /// The owner gets another login, and then its first one again.
    ThereAndBack,
}

const CHANGES: [Change; 4] = [Change::Renamed, Change::Case, Change::Awaited, Change::ThereAndBack];

impl Change {
    fn login(self) -> &'static str {
        match self {
            Self::Renamed | Self::Awaited => "Umbrella",
            Self::Case => "ACME",
            Self::ThereAndBack => "Acme",
        }
    }
}

/// Job 1 of Acme, as far as this; its runner, where it has one.
async fn bring_to(store: &Store, state: State, identified: bool) -> Option<(String, String)> {
    let as_told = |event: JobEvent| if identified { told(event, ACME, 1000) } else { event };
    store
        .apply(&as_told(if state == State::Waiting {
            waiting(1, "Acme")
        } else {
            queued(1, "Acme")
        }))
        .await;
    if matches!(state, State::Waiting | State::Queued) {
        return None;
    }
    let (name, fence) = store.admit().await.remove(0);
    if matches!(state, State::Created | State::Idle | State::Busy | State::InQuestion) {
        store.create(&name, &fence, 5).await;
    }
    if matches!(state, State::Idle | State::Busy | State::InQuestion) {
        store.ledger.observe(Observation::Started, &name, "").await.unwrap();
    }
    match state {
        State::Busy => store.apply(&as_told(in_progress(1, "Acme", &name, 5))).await,
        State::InQuestion => {
            store
                .ledger
                .observe(Observation::Release, &name, "exit code 0")
                .await
                .unwrap();
            assert_eq!(store.state(1).await, "in_question");
        }
        _ => {}
    }
    Some((name, fence))
}

/// Records move in slices, with admissions; what these reserve.
async fn all_moved(store: &Store) -> Vec<(String, String)> {
    let reserved = store.admit().await;
    store.assert_sound().await;
    reserved
}

async fn play(state: State, change: Change, identified: bool) {
    let store = Store::with_limits(|limits| limits.max_per_org = 2).await;
    if matches!(change, Change::Awaited) {
        store
            .ledger
            .set_limits(&[("umbrella".into(), Some(1))], false)
            .await
            .unwrap();
    }
    store
        .ledger
        .set_limits(&[("Acme".into(), Some(3))], false)
        .await
        .unwrap();
    let runner = bring_to(&store, state, identified).await;
    if matches!(change, Change::ThereAndBack) {
        store.apply(&told(queued(7, "Elsewhere"), ACME, 1500)).await;
        store.apply(&told(completed(7, "Elsewhere", None), ACME, 1600)).await;
    }
    // Another job of it is the first word under the new login.
    let login = change.login();
    if !identified {
        store.apply(&told(queued(3, "Acme"), ACME, 1700)).await;
        store.apply(&told(completed(3, "Acme", None), ACME, 1800)).await;
    }
    store.apply(&told(queued(2, login), ACME, 2000)).await;
    store.apply(&told(completed(2, login, None), ACME, 2001)).await;
    let mut reserved = all_moved(&store).await;
    let status = store.ledger.org_status(login).await.unwrap();
    assert_eq!(
        status.max,
        if matches!(change, Change::Awaited) { 1 } else { 3 },
        "what operators decided stays"
    );

    // A word of before the change is late, and undoes nothing.
    if !matches!(change, Change::ThereAndBack) {
        store.apply(&told(queued(4, "Acme"), ACME, 1900)).await;
        store.apply(&told(completed(4, "Acme", None), ACME, 1901)).await;
        assert_eq!(
            store
                .ledger
                .job(jit_core::event::JobId::new(4).unwrap())
                .await
                .unwrap()
                .unwrap()
                .org
                .unwrap(),
            login
        );
    }

    // The job's own words come under the new one.
    match state {
        State::Waiting | State::Queued => store.apply(&told(queued(1, login), ACME, 3000)).await,
        State::InQuestion => {
            let due = store.due_after(2 * MINUTE).await;
            assert_eq!(due.questions[0].repo, format!("{login}/app"), "asked about where it is");
            let answer = Answer {
                status: AnswerStatus::Queued,
                runner: None,
                runner_id: None,
                conclusion: None,
            };
            store.ledger.answer(&due.questions[0], &answer).await.unwrap();
        }
        State::Reserved | State::Created | State::Idle | State::Busy => {}
    }
    let (name, fence) = match (runner, state) {
        (Some(runner), State::Reserved | State::Created | State::Idle | State::Busy) => runner,
        _ => {
            reserved.extend(store.admit().await);
            assert_eq!(reserved.len(), 1, "one runner, under the new login");
            reserved.remove(0)
        }
    };
    match state {
        State::Waiting | State::Queued | State::Reserved | State::InQuestion => store.make(&name, &fence, 5).await,
        State::Created => _ = store.ledger.observe(Observation::Started, &name, "").await.unwrap(),
        State::Idle | State::Busy => {}
    }
    let runner = store.ledger.runner(&name).await.unwrap().unwrap();
    assert_eq!(
        (runner.org.as_deref().unwrap(), runner.scope.as_deref().unwrap()),
        (login, format!("orgs/{login}").as_str()),
        "its registration is found there"
    );
    store.apply(&told(in_progress(1, login, &name, 5), ACME, 4000)).await;
    assert_eq!(store.runner_state(&name).await, "busy", "it is believed to be at work");
    // Long enough for surplus, idle and busy runners to be looked at: a runner at work is not ended.
    for _ in 0..3 {
        store.admit().await;
        let due = store.due_after(70 * MINUTE).await;
        assert!(due.removals.is_empty(), "{due:?}");
    }
    store
        .apply(&told(completed(1, login, Some((&name, 5))), ACME, 5000))
        .await;
    store
        .ledger
        .observe(Observation::Release, &name, "exit code 0")
        .await
        .unwrap();
    all_moved(&store).await;
    assert_eq!(store.state(1).await, "completed");
    let overview = store.ledger.overview().await.unwrap();
    assert_eq!(overview.total_running, 0, "nothing is left, nothing was made twice");
}

#[tokio::test]
async fn an_owner_may_change_its_name_in_each_state_of_a_job() {
    for state in STATES {
        for change in CHANGES {
            for identified in [true, false] {
                println!("{state:?}, {change:?}, {identified}");
                play(state, change, identified).await;
            }
        }
    }
}

#[tokio::test]
async fn a_login_that_another_owner_takes_is_that_owners() {
    let store = Store::open().await;
    store.apply(&told(queued(1, "Acme"), ACME, 1000)).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 5).await;
    store.apply(&told(in_progress(1, "Acme", &name, 5), ACME, 1100)).await;
    // Acme was renamed, which nobody has told yet; another owner has taken its login.
    store.apply(&told(queued(2, "Acme"), 78, 2000)).await;
    all_moved(&store).await;
    assert_eq!(
        store.ledger.runner(&name).await.unwrap().unwrap().scope.unwrap(),
        "orgs/Acme~77",
        "nobody asks the other owner about it"
    );
    assert_eq!(
        store.ledger.runner(&name).await.unwrap().unwrap().org.unwrap(),
        "Acme~77"
    );
    let told_of = store.ledger.nameless_owners().await.unwrap();
    assert!(
        told_of.len() == 1
            && told_of[0]
                .text
                .contains("Acme~77: another owner has the login Acme now"),
        "{told_of:?}"
    );
    store.apply(&told(completed(9, "Acme", None), ACME, 1200)).await; // late
    assert_eq!(
        store.ledger.org_status("Acme").await.unwrap().running,
        1,
        "the new owner's reservation alone"
    );
    // Now its own new name is heard.
    store
        .apply(&told(completed(1, "Acme-Old", Some((&name, 5))), ACME, 3000))
        .await;
    all_moved(&store).await;
    assert_eq!(store.state(1).await, "completed");
    assert_eq!(
        store.ledger.runner(&name).await.unwrap().unwrap().org.unwrap(),
        "Acme-Old"
    );
    assert!(store.ledger.nameless_owners().await.unwrap().is_empty());
    assert_eq!(store.ledger.org_status("Acme").await.unwrap().running, 1);
}

/// Webhooks that were written after GitHub's example have one id and one time for all.
#[tokio::test]
async fn two_owners_with_one_id_and_one_time_are_two() {
    let store = Store::open().await;
    let at = store.time();
    for (job, org) in [(1, "Acme"), (2, "Umbrella"), (3, "Acme")] {
        store.apply(&told(queued(job, org), ACME, at)).await;
    }
    for (org, pending) in [("Acme", 2), ("Umbrella", 1)] {
        let status = store.ledger.org_status(org).await.unwrap();
        assert_eq!((status.organization.as_str(), status.pending), (org, pending));
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_thousand_jobs_of_a_renamed_owner_move_in_slices() {
    let store = Store::with_limits(|limits| limits.max_per_org = 1).await;
    for job in 1..=1000 {
        store
            .ledger
            .apply(&told(queued(job, "Acme"), ACME, 1000), Some(store.time()))
            .await
            .unwrap();
    }
    let (name, _) = store.admit().await.remove(0);
    store.apply(&told(queued(2000, "Umbrella"), ACME, 2000)).await;
    all_moved(&store).await;
    let job = async |job: u64| {
        store
            .ledger
            .job(jit_core::event::JobId::new(job).unwrap())
            .await
            .unwrap()
            .unwrap()
    };
    for number in [1, 500, 1000, 2000] {
        let job = job(number).await;
        assert_eq!(
            [job.org, job.repo, job.scope].map(Option::unwrap),
            ["Umbrella", "Umbrella/app", "orgs/Umbrella"],
            "{number}"
        );
    }
    let status = store.ledger.org_status("umbrella").await.unwrap();
    assert_eq!((status.running, status.pending), (1, 1001));
    assert_eq!(
        store.ledger.runner(&name).await.unwrap().unwrap().org.unwrap(),
        "Umbrella"
    );
}

fn in_group(event: JobEvent, group: &str) -> JobEvent {
    let class = event.class.clone().map(|class| Class {
        group: group.into(),
        ..class
    });
    JobEvent { class, ..event }
}

#[tokio::test]
async fn a_job_that_comes_again_with_another_class_moves_over() {
    let store = Store::open().await;
    store.apply(&in_group(queued(1, "Acme"), "mispelt")).await;
    let (first, fence) = store.admit().await.remove(0);
    store.make(&first, &fence, 5).await;
    store.apply(&in_group(queued(1, "Acme"), "misspelt")).await;
    let (second, _) = store.admit().await.remove(0);
    assert_eq!(
        store.ledger.runner(&second).await.unwrap().unwrap().group.unwrap(),
        "misspelt"
    );
    assert_eq!(
        store.ledger.runner(&first).await.unwrap().unwrap().group.unwrap(),
        "mispelt",
        "a runner that exists stays what it is"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_repository_that_moves_to_another_owner_takes_its_waiting_job_along() {
    let store = Store::open().await;
    store.apply(&told(queued(1, "Acme"), ACME, 1000)).await;
    store.apply(&told(queued(1, "Umbrella"), 78, 2000)).await;
    let status = async |org: &str| store.ledger.org_status(org).await.unwrap().pending;
    assert_eq!((status("Acme").await, status("Umbrella").await), (0, 1));
    store.assert_sound().await;
}

#[tokio::test]
async fn an_owner_that_is_gone_for_a_month_is_forgotten() {
    let store = Store::open().await;
    store
        .ledger
        .set_limits(&[("kept".into(), Some(3))], false)
        .await
        .unwrap();
    for (job, org, id) in [(1, "Acme", ACME), (2, "Kept", 78), (3, "Busy", 79)] {
        store.apply(&told(queued(job, org), id, 1000)).await;
        if org != "Busy" {
            store.apply(&told(completed(job, org, None), id, 1000)).await;
        }
    }
    let known = async || {
        store.ledger.reconcile(store.time(), &[]).await.unwrap();
        let (_, mut owners) = store.ledger.known_owners("0").await.unwrap();
        owners.sort();
        owners
    };
    store.pass(29 * 24 * 60 * MINUTE);
    assert_eq!(known().await, ["Acme", "Busy", "Kept"]);
    store.pass(2 * 24 * 60 * MINUTE);
    assert_eq!(
        known().await,
        ["Busy", "Kept"],
        "one has a job, for one an operator has decided something"
    );
    store.assert_sound().await;
    store.apply(&told(queued(4, "Acme"), ACME, 3000)).await;
    assert_eq!(known().await, ["Acme", "Busy", "Kept"]);
}
