//! Brakes: what is refused for ever costs little, says so, holds back itself alone, and comes back when the cause is
//! gone.

use std::time::Duration;

use jit_core::{
    event::{JobEvent, JobId},
    ledger::{
        Answer, AnswerStatus, BackOff, Claim, Failure, Growth, Hold, Known, Needs, Observation, Registration, Subject,
    },
    model::JobState,
};
use jit_testing::{Store, completed, failed, in_progress, maker, queued, still_queued, why};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn patient(chain: &'static [Subject], why: &str) -> Failure {
    failed(
        BackOff::Hold(Hold {
            chain,
            needs: Needs::Made,
            first: secs(5),
            most: secs(1800),
            growth: Growth::Patient,
        }),
        why,
    )
}

/// A job of a class of its own.
fn job_of(job: u64, org: &str, label: &str) -> JobEvent {
    let mut event = queued(job, org);
    if let Some(class) = &mut event.class {
        class.labels.push(label.to_owned());
    }
    event
}

/// Plays ten minutes, second by second: each runner that is admitted comes to `end`. How many there were.
async fn ten_minutes(store: &Store, mut end: impl AsyncFnMut(&Store, &str, &str)) -> usize {
    let mut made = 0;
    for _ in 0..600 {
        store.pass(SECOND);
        for (name, fence) in store.admit().await {
            made += 1;
            end(store, &name, &fence).await;
        }
        let due = store.ledger.due(64, secs(60)).await.expect("due");
        still_queued(store, &due).await;
        for removal in &due.removals {
            store
                .ledger
                .observe(Observation::Absent, &removal.name, "removed")
                .await
                .expect("removed");
        }
    }
    store.assert_sound().await;
    made
}

async fn refuse(store: &Store, name: &str, fence: &str, failure: &Failure) {
    if let Claim::Ours(_) = store
        .ledger
        .claim(name, fence, &maker("w", "default"))
        .await
        .expect("claim")
    {
        store.ledger.fail(name, fence, failure).await.expect("failed");
    }
}

/// Its program ends a second after its start, and had no work.
async fn end_at_once(store: &Store, name: &str, fence: &str) {
    store.make(name, fence, 1).await;
    store.pass(SECOND);
    store
        .ledger
        .observe(Observation::Release, name, "exit code 1: Error")
        .await
        .expect("released");
}

/// Its node does not take its pod. One that was reserved before another of them was rejected is given back.
async fn reject(store: &Store, name: &str, fence: &str) {
    let Claim::Ours(_) = store
        .ledger
        .claim(name, fence, &maker("w", "default"))
        .await
        .expect("claim")
    else {
        return;
    };
    assert_eq!(
        store
            .ledger
            .registered(name, fence, 1, secs(20))
            .await
            .expect("registered"),
        Claim::Ours(())
    );
    assert!(matches!(
        store.ledger.created(name, fence).await.expect("created"),
        Claim::Ours(_)
    ));
    store
        .ledger
        .observe(Observation::Rejected, name, "OutOfcpu: no room")
        .await
        .expect("released");
}

/// Another organization's job gets its runner at once.
async fn healthy(store: &Store, job: u64) {
    store.apply(&queued(job, "healthy")).await;
    let reserved = store.admit().await;
    let own: Vec<_> = reserved
        .iter()
        .filter(|(name, _)| name.contains(&format!("-{job}-")))
        .collect();
    assert_eq!(
        own.len(),
        1,
        "another organization's job waits: {:?}",
        why(store, job).await
    );
}

#[tokio::test]
async fn a_refusal_that_does_not_end_costs_little_and_says_what_was_said() {
    for (chain, bound) in [
        (&[Subject::Class, Subject::Org] as &'static [Subject], 31),
        (&[Subject::Org, Subject::Credential], 31),
        (&[Subject::Org, Subject::Global], 31),
    ] {
        let store = Store::open().await;
        store.apply(&queued(1, "sick")).await;
        let failure = patient(chain, "GitHub: 403 runners are disabled");
        let made = ten_minutes(&store, async |store, name, fence| {
            refuse(store, name, fence, &failure).await
        })
        .await;
        assert!((2..=bound).contains(&made), "{chain:?}: {made} in ten minutes");
        let waits = why(&store, 1).await;
        assert!(waits.why.contains("runners are disabled"), "{waits:?}");
        healthy(&store, 2).await;
        // The cause goes away.
        let mut runs = false;
        for _ in 0..30 {
            store.pass(SECOND);
            if let Some((name, fence)) = store.admit().await.into_iter().find(|(name, _)| name.contains("-1-")) {
                store.make(&name, &fence, 7).await;
                runs = true;
                break;
            }
        }
        assert!(runs, "{chain:?}: not within 30 s of the cause's end");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn many_classes_that_are_refused_speak_for_their_organization() {
    let store = Store::with_limits(|limits| limits.max_per_org = 50).await;
    for job in 1..=200 {
        store.apply(&job_of(job, "sick", &format!("label-{job}"))).await;
    }
    let failure = patient(&[Subject::Class, Subject::Org], "GitHub: 409 whatever the name");
    let made = ten_minutes(&store, async |store, name, fence| {
        refuse(store, name, fence, &failure).await
    })
    .await;
    assert!(made <= 50 + 60, "{made} in ten minutes");
    let waits = why(&store, 150).await;
    assert!(
        waits.why.contains("organization sick") && waits.why.contains("whatever the name"),
        "{waits:?}"
    );
    healthy(&store, 1000).await;
}

#[tokio::test]
async fn what_an_operator_has_mended_is_tried_at_once_by_one_runner() {
    let store = Store::open().await;
    for job in 1..=3 {
        store.apply(&job_of(job, &format!("org-{job}"), "large")).await;
    }
    // The runners of all three end at once: their profile waits for a minute.
    for (name, fence) in store.admit().await {
        store.make(&name, &fence, 7).await;
        store.pass(SECOND);
        store
            .ledger
            .observe(Observation::Outdated, &name, "exit code 7")
            .await
            .expect("released");
    }
    still_queued(&store, &store.due_after(20 * SECOND).await).await;
    assert!(store.admit().await.is_empty());
    assert!(why(&store, 2).await.why.contains("profile default"));
    let retried = store
        .ledger
        .retry(JobId::new(2).expect("an id"))
        .await
        .expect("retried");
    assert_eq!(
        (retried.state, retried.retried[0].as_str()),
        (Known::State(JobState::Queued), "profile:default")
    );
    assert!(
        retried.retried.len() == 2 && retried.retried[1].starts_with("class:"),
        "{retried:?}"
    );
    let probe = store.admit().await;
    let [(name, fence)] = probe.as_slice() else {
        panic!("one tries it: {probe:?}")
    };
    assert!(
        store
            .ledger
            .retry(JobId::new(2).expect("an id"))
            .await
            .expect("asked")
            .retried
            .is_empty(),
        "it is tried already"
    );
    store.make(name, fence, 8).await;
    let (job, org) = store
        .ledger
        .runner(name)
        .await
        .expect("read")
        .map(|info| (info.job.expect("an id").get(), info.org.expect("an owner")))
        .expect("a runner");
    store.apply(&in_progress(job, &org, name, 8)).await;
    for waits in [1, 3] {
        let retried = store
            .ledger
            .retry(JobId::new(waits).expect("an id"))
            .await
            .expect("retried")
            .retried;
        assert!(
            matches!(retried.as_slice(), [class] if class.starts_with("class:")),
            "its profile is held no more: {retried:?}"
        );
    }
    assert_eq!(store.admit().await.len(), 2, "and the rest follow");
    let unknown = store.ledger.retry(JobId::new(99).expect("an id")).await.expect("asked");
    assert_eq!((unknown.state, unknown.retried.len()), (Known::Unknown, 0));
    // A time that GitHub named stays.
    let limit = Hold {
        chain: &[Subject::Org],
        needs: Needs::Made,
        first: secs(600),
        most: secs(600),
        growth: Growth::Named,
    };
    store.apply(&queued(20, "limited")).await;
    for (name, fence) in store.admit().await {
        refuse(
            &store,
            &name,
            &fence,
            &failed(BackOff::Hold(limit), "GitHub: rate limit"),
        )
        .await;
    }
    assert!(
        store
            .ledger
            .retry(JobId::new(20).expect("an id"))
            .await
            .expect("asked")
            .retried
            .is_empty()
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_tried_again_once_under_another() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let hold = Hold {
        chain: &[Subject::Class, Subject::Org],
        needs: Needs::Made,
        first: secs(5),
        most: secs(1800),
        growth: Growth::Again,
    };
    let failure = failed(BackOff::Hold(hold), "GitHub: a runner of this name exists");
    for expected in [1, 1, 0] {
        let reserved = store.admit().await;
        assert_eq!(reserved.len(), expected);
        for (name, fence) in reserved {
            refuse(&store, &name, &fence, &failure).await;
        }
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_program_that_ends_at_once_holds_back_its_class() {
    let store = Store::open().await;
    store.apply(&queued(1, "sick")).await;
    let made = ten_minutes(&store, end_at_once).await;
    assert!((3..=20).contains(&made), "{made} in ten minutes");
    let waits = why(&store, 1).await;
    assert!(
        waits.why.contains("ends before it has work (exit code 1: Error)"),
        "{waits:?}"
    );
    healthy(&store, 2).await;
}

#[tokio::test]
async fn programs_of_many_classes_that_end_at_once_hold_back_their_organization() {
    let store = Store::with_limits(|limits| limits.max_per_org = 50).await;
    for job in 1..=200 {
        store.apply(&job_of(job, "sick", &format!("label-{job}"))).await;
    }
    let made = ten_minutes(&store, end_at_once).await;
    assert!(made <= 75, "{made} in ten minutes");
    healthy(&store, 1000).await;
}

#[tokio::test]
async fn pods_that_their_node_rejects_hold_back_their_class_and_then_their_organization() {
    for (classes, bound) in [(1, 31), (200, 110)] {
        let store = Store::with_limits(|limits| limits.max_per_org = 50).await;
        for job in 1..=classes {
            store.apply(&job_of(job, "sick", &format!("label-{job}"))).await;
        }
        let made = ten_minutes(&store, reject).await;
        assert!((2..=bound).contains(&made), "{classes} classes: {made} in ten minutes");
        let waits = why(&store, 1).await;
        assert!(waits.why.contains("OutOfcpu"), "{waits:?}");
        healthy(&store, 1000).await;
    }
}

#[tokio::test]
async fn a_runner_that_had_work_or_waited_for_it_is_no_failure() {
    let store = Store::open().await;
    for round in 0..5 {
        let job = 10 + round;
        store.apply(&queued(job, "acme")).await;
        let (name, fence) = store.admit().await.remove(0);
        store.make(&name, &fence, 1).await;
        // Its job ran so fast that its end is seen before any word of it.
        if round % 2 == 0 {
            store
                .ledger
                .observe(Observation::Release, &name, "exit code 0")
                .await
                .expect("released");
            let due = store.due_after(10 * SECOND).await;
            let answer = Answer {
                status: AnswerStatus::Completed,
                runner: Some(name),
                runner_id: Some(1),
                conclusion: Some("success".into()),
            };
            store.ledger.answer(&due.questions[0], &answer).await.expect("answered");
        } else {
            store.pass(3 * MINUTE); // GitHub removes a just-in-time runner that waits for long
            store
                .ledger
                .observe(Observation::Release, &name, "exit code 0")
                .await
                .expect("released");
            let due = store.due_after(10 * SECOND).await;
            still_queued(&store, &due).await;
            store.apply(&completed(job, "acme", None)).await;
        }
    }
    store.apply(&queued(99, "acme")).await;
    assert_eq!(store.admit().await.len(), 1, "{:?}", why(&store, 99).await);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_runner_that_had_work_ends_the_row_of_those_that_had_none() {
    let store = Store::open().await;
    let ends = async |worked: bool| {
        let (name, fence) = store.admit().await.remove(0);
        end_at_once(&store, &name, &fence).await;
        let due = store.due_after(10 * SECOND).await;
        if !worked {
            return still_queued(&store, &due).await;
        }
        let answer = Answer {
            status: AnswerStatus::Completed,
            runner: Some(name),
            runner_id: Some(1),
            conclusion: Some("success".into()),
        };
        store.ledger.answer(&due.questions[0], &answer).await.expect("answered");
    };
    store.apply(&queued(1, "acme")).await;
    for worked in [false, false, true] {
        ends(worked).await;
    }
    store.apply(&queued(2, "acme")).await;
    for worked in [false, false] {
        ends(worked).await;
    }
    assert_eq!(
        store.admit().await.len(),
        1,
        "two in a row, not four: {:?}",
        why(&store, 2).await
    );
}

#[tokio::test]
async fn several_owners_that_fail_speak_for_github_and_one_does_not() {
    let store = Store::open().await;
    let failure = patient(&[Subject::Org, Subject::Global], "GitHub answered 502");
    for (job, org) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        store.apply(&queued(job, org)).await;
    }
    let reserved = store.admit().await;
    for (name, fence) in &reserved[..2] {
        refuse(&store, name, fence, &failure).await;
    }
    healthy(&store, 5).await;
    refuse(&store, &reserved[2].0, &reserved[2].1, &failure).await;
    let waits = why(&store, 1).await;
    assert!(
        waits.why.contains("everything backs off") && waits.next.is_some_and(|next| next <= store.time() + 4 * SECOND),
        "{waits:?}"
    );
    // It is tried every few seconds; one success ends it for all.
    store.pass(4 * SECOND);
    let probe = store.admit().await;
    assert_eq!(probe.len(), 1, "one probe");
    store.make(&probe[0].0, &probe[0].1, 9).await;
    assert!(store.admit().await.len() >= 2, "and the rest follow");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_probe_that_is_gone_without_a_verdict_makes_room_for_another() {
    let store = Store::open().await;
    for job in 1..=3 {
        store.apply(&queued(job, "acme")).await;
    }
    let failure = patient(&[Subject::Org, Subject::Global], "GitHub answered 502");
    for (name, fence) in store.admit().await {
        refuse(&store, &name, &fence, &failure).await;
    }
    store.pass(30 * SECOND);
    let probe = store.admit().await;
    assert_eq!(probe.len(), 1);
    assert!(store.admit().await.is_empty());
    let waits = why(&store, 3).await;
    assert!(waits.why.contains(&probe[0].0), "{waits:?}");
    store
        .ledger
        .observe(Observation::Remove, &probe[0].0, "its worker is gone")
        .await
        .expect("removed");
    assert_eq!(store.admit().await.len(), 1, "another tries");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_limit_that_github_named_is_waited_for_whatever_else_succeeds() {
    let store = Store::open().await;
    for job in 1..=3 {
        store.apply(&queued(job, "acme")).await;
    }
    let reserved = store.admit().await;
    let hold = Hold {
        chain: &[Subject::Credential],
        needs: Needs::Made,
        first: secs(600),
        most: secs(600),
        growth: Growth::Named,
    };
    assert!(matches!(
        store
            .ledger
            .claim(&reserved[1].0, &reserved[1].1, &maker("w", "default"))
            .await
            .expect("claim"),
        Claim::Ours(_)
    ));
    refuse(
        &store,
        &reserved[0].0,
        &reserved[0].1,
        &failed(BackOff::Hold(hold), "GitHub: rate limit used up"),
    )
    .await;
    assert_eq!(
        store
            .ledger
            .created(&reserved[1].0, &reserved[1].1)
            .await
            .expect("created"),
        Claim::Ours(false)
    );
    assert!(
        store.admit().await.is_empty(),
        "what was under way has succeeded; the limit stands"
    );
    store.pass(599 * SECOND);
    assert!(store.admit().await.is_empty());
    store.pass(SECOND);
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn what_was_under_way_when_its_subject_began_to_back_off_is_no_further_failure() {
    let store = Store::open().await;
    for job in 1..=5 {
        store.apply(&queued(job, "acme")).await;
    }
    let failure = patient(&[Subject::Org, Subject::Global], "GitHub answered 502");
    let reserved = store.admit().await;
    for (name, fence) in &reserved {
        assert!(matches!(
            store
                .ledger
                .claim(name, fence, &maker("w", "default"))
                .await
                .expect("claim"),
            Claim::Ours(_)
        ));
    }
    for (name, fence) in &reserved {
        store
            .ledger
            .fail(
                name,
                fence,
                &Failure {
                    registration: Registration::None,
                    ..failure.clone()
                },
            )
            .await
            .expect("failed");
    }
    let waits = why(&store, 1).await;
    assert_eq!(
        waits.next,
        Some(store.time() + 5 * SECOND),
        "five at once are one failure: {waits:?}"
    );
}
