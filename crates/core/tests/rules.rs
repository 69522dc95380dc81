//! The rules that running this design showed to be needed: quota, misfits, a GitHub that gives out no work, credentials
//! and old images.

use std::time::Duration;

use jit_core::{
    event::JobId,
    ledger::{BackOff, Claim, Failure, Growth, Hold, Known, Needs, Observation, Subject},
};
use jit_testing::{Store, failed, in_progress, maker, queued, refused, still_queued, why};

const MINUTE: i64 = 60_000;

async fn fail(store: &Store, (name, fence): &(String, String), credential: &str, failure: &Failure) {
    assert!(matches!(
        store
            .ledger
            .claim(name, fence, &maker("w", credential))
            .await
            .expect("claim"),
        Claim::Ours(_)
    ));
    store.ledger.fail(name, fence, failure).await.expect("failed");
}

/// Queues jobs 1 to `n` of an organization, and makes a runner for each that starts and waits for work.
async fn idle_runners(store: &Store, org: &str, jobs: std::ops::RangeInclusive<u64>) -> Vec<String> {
    for job in jobs {
        store.apply(&queued(job, org)).await;
    }
    let reserved = store.admit().await;
    for (number, (name, fence)) in reserved.iter().enumerate() {
        store.make(name, fence, 100 + number as u64).await;
    }
    reserved.into_iter().map(|(name, _)| name).collect()
}

/// What is to be removed is gone at once.
async fn remove_all(store: &Store, due: &jit_core::ledger::Due) {
    for removal in &due.removals {
        store
            .ledger
            .observe_deregistered(
                Observation::Absent,
                &removal.name,
                "removed",
                jit_core::ledger::Deregistration::Deleted,
            )
            .await
            .expect("removed");
    }
}

#[tokio::test]
async fn a_used_up_quota_sets_a_ceiling_that_rises_by_one_a_minute() {
    let store = Store::open().await;
    for job in 1..=5 {
        store.apply(&queued(job, "acme")).await;
    }
    store.apply(&queued(6, "other")).await;
    let reserved = store.admit().await;
    assert_eq!(reserved.len(), 6);
    for runner in &reserved[3..] {
        fail(
            &store,
            runner,
            "default",
            &failed(BackOff::Quota, "exceeded quota: runners, used: pods=3"),
        )
        .await;
    }
    assert_eq!(store.admit().await.len(), 0, "three fit");
    let waits = why(&store, 5).await;
    assert!(
        waits.why.contains("exceeded quota: runners") && waits.why.contains("3 runners"),
        "{}",
        waits.why
    );
    assert_eq!(waits.next, Some(store.time() + MINUTE));
    store.assert_sound().await;
    store.pass(MINUTE);
    let tried = store.admit().await;
    assert_eq!(tried.len(), 1, "one more is tried");
    fail(&store, &tried[0], "default", &failed(BackOff::Quota, "exceeded quota")).await;
    store.pass(MINUTE - 1);
    assert_eq!(store.admit().await.len(), 0, "and a minute from the last refusal on");
    // One of the three ends: its place is free, whatever the time.
    store.make(&reserved[0].0, &reserved[0].1, 7).await;
    store
        .ledger
        .observe(Observation::Release, &reserved[0].0, "ended")
        .await
        .expect("released");
    assert_eq!(store.admit().await.len(), 1);
    store.pass(200 * MINUTE);
    assert_eq!(store.admit().await.len(), 2, "a ceiling above the maximum is none");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_misfit_is_replaced_holds_back_its_job_and_its_class_gets_one_at_a_time() {
    let store = Store::open().await;
    let first = idle_runners(&store, "acme", 1..=3).await;
    // Elsewhere GitHub gives out work, so it is these that do not fit.
    let other = idle_runners(&store, "other", 11..=11).await;
    let due = store.due_after(MINUTE).await; // GitHub is asked about the jobs of the idle runners
    still_queued(&store, &due).await;
    store.pass(8 * MINUTE);
    store.apply(&in_progress(11, "other", &other[0], 100)).await;
    let due = store.due_after(MINUTE).await;
    assert_eq!(due.removals.len(), first.len(), "none of them got work for ten minutes");
    remove_all(&store, &due).await;
    // The first and the last alone of the class are misfits; in between there were more than it should have had by
    // then.
    assert_eq!(
        [store.state(1).await, store.state(2).await, store.state(3).await],
        ["in_question", "in_question", "queued"]
    );
    let held = why(&store, 1).await;
    assert!(held.why.contains("stayed idle while it waited"), "{}", held.why);
    assert_eq!(held.next, Some(store.time() + 10 * MINUTE));
    let reasons = store.ledger.org_reasons("acme").await.expect("reasons");
    assert!(
        reasons
            .iter()
            .any(|reason| reason.starts_with("job 1: ") && reason.contains("; tried again at ")),
        "{reasons:?}"
    );
    assert_eq!(store.admit().await.len(), 1, "job 3's");
    store.apply(&queued(4, "acme")).await;
    assert_eq!(store.admit().await.len(), 0, "one at a time");
    let waits = why(&store, 4).await;
    assert!(
        waits.why.contains("one runner at a time") && waits.next.is_some(),
        "{waits:?}"
    );
    store.apply(&queued(1, "acme")).await; // a redelivery
    store.assert_sound().await;
    let due = store.due_after(5 * MINUTE).await;
    assert!(
        due.questions.iter().all(|question| question.job.get() > 2),
        "held back for ten minutes: {:?}",
        due.questions
    );
    let due = store.due_after(5 * MINUTE).await;
    still_queued(&store, &due).await;
    assert_eq!([store.state(1).await, store.state(2).await], ["queued", "queued"]);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_class_whose_runner_gets_work_gets_as_many_as_it_has_jobs_again() {
    let store = Store::open().await;
    idle_runners(&store, "acme", 1..=1).await;
    let other = idle_runners(&store, "other", 11..=11).await;
    store.pass(9 * MINUTE);
    store.apply(&in_progress(11, "other", &other[0], 100)).await;
    let due = store.due_after(MINUTE).await; // asked about its job first
    still_queued(&store, &due).await;
    let due = store.due_after(1).await;
    remove_all(&store, &due).await;
    assert_eq!(store.state(1).await, "in_question");
    for job in 2..=4 {
        store.apply(&queued(job, "acme")).await;
    }
    let due = store.due_after(10 * MINUTE).await;
    still_queued(&store, &due).await;
    let one = store.admit().await;
    assert_eq!(one.len(), 1, "its job came back, and remembers that it was a misfit");
    store.make(&one[0].0, &one[0].1, 300).await;
    store.apply(&in_progress(1, "acme", &one[0].0, 300)).await;
    assert_eq!(store.admit().await.len(), 3);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_job_that_never_fits_is_held_back_twice_as_long_each_time_up_to_an_hour() {
    let store = Store::open().await;
    let mut held = Vec::new();
    idle_runners(&store, "acme", 1..=1).await;
    for _ in 0..5 {
        for _ in 0..12 {
            let due = store.due_after(MINUTE).await;
            still_queued(&store, &due).await;
            remove_all(&store, &due).await;
            if store.state(1).await == "in_question" {
                break;
            }
        }
        let until = why(&store, 1).await.next.expect("when it is tried again");
        held.push((until - store.time() + MINUTE - 1) / MINUTE);
        store.pass(until - store.time());
        let due = store.due_after(1).await;
        still_queued(&store, &due).await;
        let reserved = store.admit().await;
        store.make(&reserved[0].0, &reserved[0].1, 5).await;
    }
    assert_eq!(held, [10, 20, 40, 60, 60]);
}

#[tokio::test]
async fn where_nothing_starts_anywhere_one_runner_is_replaced_in_an_idle_time_out() {
    let store = Store::open().await;
    for org in 0..6_u64 {
        idle_runners(&store, &format!("org-{org}"), org * 10 + 1..=org * 10 + 2).await;
    }
    let mut removed = Vec::new();
    for _ in 0..60 {
        let due = store.due_after(MINUTE).await;
        still_queued(&store, &due).await;
        removed.push(due.removals.len());
        remove_all(&store, &due).await;
        // Those that are made anew start as well, and get no work either.
        for (name, fence) in store.admit().await {
            store.make(&name, &fence, 1).await;
        }
    }
    let gone: usize = removed.iter().sum();
    // In an hour: six replaced, each with one that its class had too many from then on (which surplus would take
    // anyway).
    assert!((4..=14).contains(&gone), "{gone} of 12 went in an hour: {removed:?}");
    assert!(removed[9] <= 2, "not all at once: {removed:?}");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_credential_that_is_refused_costs_the_owners_of_others_nothing() {
    let store = Store::open().await;
    for (job, org) in [(1, "acme"), (2, "acme-too"), (3, "other")] {
        store.apply(&queued(job, org)).await;
    }
    let of = |job: u64, reserved: &[(String, String)]| {
        reserved
            .iter()
            .find(|(name, _)| name.starts_with(&format!("jit-runner-{job}-")))
            .cloned()
            .expect("reserved")
    };
    let reserved = store.admit().await;
    fail(
        &store,
        &of(1, &reserved),
        "east",
        &refused(&[Subject::Credential], "GitHub: the credential is not accepted"),
    )
    .await;
    // Served by the same credential, and admitted before it was refused: nothing is made of it.
    let (name, fence) = of(2, &reserved);
    assert_eq!(
        store
            .ledger
            .claim(&name, &fence, &maker("w", "east"))
            .await
            .expect("claim"),
        Claim::Stale
    );
    assert_eq!(store.runner_state(&name).await, "gone");
    let (name, fence) = of(3, &reserved);
    store.make(&name, &fence, 5).await;
    store.apply(&queued(4, "other")).await;
    let more = store.admit().await;
    assert_eq!(more.len(), 1, "other's alone: {more:?}");
    for job in [1, 2] {
        let waits = why(&store, job).await;
        assert!(
            waits.why.contains("credential east") && waits.why.contains("not accepted"),
            "{}",
            waits.why
        );
        assert!(waits.next.is_some());
    }
    store.assert_sound().await;
    store.pass(MINUTE);
    let tried = store.admit().await;
    let [(name, fence)] = tried.as_slice() else {
        panic!("one tries it: {tried:?}")
    };
    assert!(matches!(
        store
            .ledger
            .claim(name, fence, &maker("w", "east"))
            .await
            .expect("claim"),
        Claim::Ours(_)
    ));
    assert_eq!(
        store.ledger.created(name, fence).await.expect("created"),
        Claim::Ours(true),
        "and it works"
    );
    assert_eq!(store.admit().await.len(), 1, "so the other follows");
    store.assert_sound().await;
}

#[tokio::test]
async fn what_began_to_back_off_is_not_made() {
    let store = Store::open().await;
    for job in 1..=4 {
        store.apply(&queued(job, "acme")).await;
    }
    let reserved = store.admit().await;
    fail(
        &store,
        &reserved[0],
        "default",
        &refused(&[Subject::Global], "GitHub answered 503"),
    )
    .await;
    for (name, fence) in &reserved[1..] {
        assert_eq!(
            store
                .ledger
                .claim(name, fence, &maker("w", "default"))
                .await
                .expect("claim"),
            Claim::Stale
        );
    }
    let status = store.ledger.org_status("acme").await.expect("status");
    assert_eq!((status.running, status.pending), (0, 4));
    assert!(store.due_after(1).await.is_empty(), "and leaves nothing to look up");
    store.pass(MINUTE);
    let probe = store.admit().await;
    let [(name, fence)] = probe.as_slice() else {
        panic!("one tries it: {probe:?}")
    };
    let waits = why(&store, 4).await;
    assert!(
        waits.why.contains("GitHub answered 503") && waits.why.contains(name),
        "{waits:?}"
    );
    store.create(name, fence, 6).await;
    assert_eq!(store.admit().await.len(), 3, "and it works, so the rest follow");
    store.assert_sound().await;
}

#[tokio::test]
async fn an_image_that_github_refuses_as_too_old_holds_back_its_class_and_after_three_organizations_its_profile() {
    let store = Store::open().await;
    for (job, org) in [(1, "acme"), (2, "globex"), (3, "initech")] {
        assert_eq!(why(&store, job).await.state, Known::Unknown, "{org} is free so far");
        let runners = idle_runners(&store, org, job..=job).await;
        store
            .ledger
            .observe(Observation::Outdated, &runners[0], "exit code 7")
            .await
            .expect("observed");
        store.apply(&queued(job + 10, org)).await;
        assert_eq!(store.admit().await.len(), 0, "{org} waits");
        assert!(why(&store, job + 10).await.why.contains("update the image"));
    }
    store.apply(&queued(20, "other")).await;
    assert_eq!(store.admit().await.len(), 0);
    let waits = why(&store, 20).await;
    assert!(
        waits.why.contains("profile default") && waits.why.contains("update the image"),
        "{}",
        waits.why
    );
    store.pass(MINUTE);
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

/// A runner that is made, and whose pod says this until its time to start is over.
async fn does_not_start(store: &Store, job: u64, org: &str, labels: &[&str], said: &str) {
    let mut event = queued(job, org);
    if let Some(class) = &mut event.class {
        class.labels.extend(labels.iter().map(|label| (*label).to_owned()));
    }
    store.apply(&event).await;
    let reserved = store.admit().await;
    let [(name, fence)] = reserved.as_slice() else {
        panic!("one alone: {reserved:?}")
    };
    store.create(name, fence, job).await;
    store
        .ledger
        .observe(Observation::Note, name, said)
        .await
        .expect("noted");
    let due = store.due_after(10 * MINUTE).await;
    remove_all(store, &due).await;
    assert_eq!(store.runner_state(name).await, "gone");
}

#[tokio::test]
async fn a_runner_that_does_not_start_holds_back_its_class_and_says_what_its_pod_said() {
    let store = Store::open().await;
    does_not_start(&store, 1, "acme", &[], "Unschedulable: 0/3 nodes are available").await;
    let waits = why(&store, 1).await;
    assert!(
        waits.why.contains("its class") && waits.why.contains("0/3 nodes are available") && waits.next.is_some(),
        "{waits:?}"
    );
    let reasons = store.ledger.org_reasons("acme").await.expect("reasons");
    assert!(
        reasons[0].contains("0/3 nodes are available") && reasons[0].contains("; tried again at "),
        "{reasons:?}"
    );
    does_not_start(&store, 2, "acme", &["gpu"], "Unschedulable: no gpu").await; // another class is tried all the same
    store.assert_sound().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_holds_back_its_profile() {
    let store = Store::open().await;
    does_not_start(&store, 1, "acme", &[], "ImagePullBackOff: no such tag").await;
    store.apply(&queued(2, "other")).await;
    assert!(store.admit().await.is_empty(), "it would find no image either");
    for job in [1, 2] {
        let waits = why(&store, job).await;
        assert!(
            waits.why.contains("profile default") && waits.why.contains("no such tag") && waits.next.is_some(),
            "{waits:?}"
        );
    }
    store.pass(MINUTE);
    assert_eq!(store.admit().await.len(), 1, "one tries it");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_pause_is_told_where_no_job_waits() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    assert_eq!(store.admit().await.len(), 1);
    store
        .ledger
        .pause("other", "an upgrade", Some(store.time() + MINUTE))
        .await
        .expect("paused");
    let reasons = store.ledger.org_reasons("other").await.expect("reasons");
    assert!(
        reasons.len() == 1 && reasons[0].contains("is paused: an upgrade; tried again at "),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn what_was_under_way_when_its_class_failed_is_no_further_failure() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    store.apply(&queued(2, "acme")).await;
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
    let failure = refused(&[Subject::Class], "422 no such label");
    let (first, second) = (&reserved[0], &reserved[1]);
    store.pass(1);
    store.ledger.fail(&first.0, &first.1, &failure).await.expect("failed");
    // The wait is over, and nobody has tried it since.
    store.ledger.pause("acme", "for a test", None).await.expect("paused");
    store.pass(MINUTE + 1);
    assert_eq!(store.admit().await, []);
    store.ledger.fail(&second.0, &second.1, &failure).await.expect("failed");
    store.ledger.resume("acme").await.expect("resumed");
    assert_eq!(
        store.admit().await.len(),
        1,
        "a probe at once, and not after two minutes"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn waits_stay_short_for_a_quarter_of_an_hour_and_grow_then() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (first, most) = (Duration::from_secs(5), Duration::from_secs(1800));
    let failure = failed(
        BackOff::Hold(Hold {
            chain: &[Subject::Class],
            needs: Needs::Made,
            first,
            most,
            growth: Growth::Patient,
        }),
        "409",
    );
    let began = store.time();
    loop {
        let runner = store.admit().await.remove(0);
        fail(&store, &runner, "default", &failure).await;
        let next = store
            .ledger
            .explain(JobId::new(1).expect("an id"))
            .await
            .expect("explained")
            .next
            .expect("a next try");
        let (passed, wait) = (store.time() - began, next - store.time());
        if passed >= 15 * MINUTE {
            assert!(wait > 25_000, "{wait} ms after {passed} ms");
            break;
        }
        assert!(wait <= 25_000, "{wait} ms after {passed} ms");
        store.pass(wait + 1);
    }
}
