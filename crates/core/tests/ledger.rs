//! The ledger's transitions on a real Redis, one story a test.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jit_core::{
    event::{Action, JobId},
    ledger::{ADMIT_BATCH, Answer, AnswerStatus, Claim, Deregistration, Known, Maker, Observation, Subject},
    model::RunnerState,
};
use jit_testing::{Store, completed, in_progress, maker, queued, refused, waiting};

#[tokio::test]
async fn a_job_gets_one_runner_and_leaves_nothing() {
    let store = Store::open().await;
    store.apply(&queued(1, "Acme")).await;
    let provision = store.admit().await;
    assert_eq!(provision.len(), 1);
    assert_eq!(store.admit().await.len(), 0, "one job, one runner");
    let (name, fence) = &provision[0];
    assert!(name.starts_with("jit-runner-1-"), "{name}");
    store.make(name, fence, 77).await;
    store.apply(&in_progress(1, "Acme", name, 77)).await;
    store.apply(&completed(1, "Acme", Some((name, 77)))).await;
    store
        .ledger
        .observe(Observation::Release, name, "ended")
        .await
        .expect("released");
    store.assert_sound().await;
    let status = store.ledger.org_status("acme").await.expect("status");
    assert_eq!(
        (status.organization.as_str(), status.running, status.pending),
        ("Acme", 0, 0)
    );
    assert!(store.due_after(3_600_000).await.is_empty(), "nothing is left to do");
}

#[tokio::test]
async fn limits_hold_and_a_raised_limit_takes_effect_at_once() {
    let store = Store::open().await;
    for job in 1..=20 {
        store.apply(&queued(job, "acme")).await;
    }
    assert_eq!(store.admit().await.len(), 10);
    store
        .ledger
        .set_limits(&[("ACME".into(), Some(12))], false)
        .await
        .expect("set");
    assert_eq!(store.admit().await.len(), 2);
    store
        .ledger
        .set_limits(&[("acme".into(), None)], false)
        .await
        .expect("back to the default");
    assert_eq!(store.admit().await.len(), 0);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_runner_that_takes_another_classs_job_leaves_that_jobs_class_with_one_more() {
    let store = Store::open().await;
    let (a, mut b) = (queued(1, "acme"), queued(2, "acme"));
    b.class.as_mut().expect("ours").labels.push("gpu".into());
    store.apply(&a).await;
    let first = store.admit().await.remove(0);
    store.make(&first.0, &first.1, 5).await;
    store.apply(&b).await;
    let second = store.admit().await.remove(0);
    store.make(&second.0, &second.1, 6).await;
    store.apply(&in_progress(1, "acme", &second.0, 6)).await; // made for job 2, runs job 1
    store.assert_sound().await;
    assert_eq!(store.admit().await.len(), 1, "job 2 is one runner short again");
}

#[tokio::test]
async fn late_and_doubled_events_settle_in_the_same_state() {
    let store = Store::open().await;
    store.apply(&completed(1, "acme", None)).await;
    store.apply(&in_progress(1, "acme", "elsewhere", 9)).await;
    store.apply(&queued(1, "acme")).await;
    assert_eq!(store.state(1).await, "completed");
    assert_eq!(store.admit().await.len(), 0);
    let mut again = queued(1, "acme");
    again.attempt = Some(2);
    store.apply(&again).await;
    assert_eq!(store.state(1).await, "queued", "a later attempt is another life");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_job_held_for_approval_is_no_demand_and_its_late_word_asks_github() {
    let store = Store::open().await;
    store.apply(&waiting(1, "acme")).await;
    assert_eq!(store.admit().await.len(), 0);
    store.apply(&queued(1, "acme")).await;
    store.apply(&waiting(1, "acme")).await; // late, or held after all
    assert_eq!(store.state(1).await, "in_question");
    let question = store.due_after(1).await.questions.remove(0);
    store.apply(&queued(1, "acme")).await; // heard after the question was asked
    let answer = Answer {
        status: AnswerStatus::Waiting,
        runner: None,
        runner_id: None,
        conclusion: None,
    };
    store.ledger.answer(&question, &answer).await.expect("answered");
    assert_eq!(store.state(1).await, "in_question", "a stale answer is not believed");
    let question = store.due_after(1).await.questions.remove(0);
    store
        .ledger
        .answer(
            &question,
            &Answer {
                status: AnswerStatus::Queued,
                ..answer
            },
        )
        .await
        .expect("answered");
    assert_eq!(store.state(1).await, "queued");
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_runner_gone_before_it_was_seen_busy_puts_its_job_in_question() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store
        .ledger
        .observe(Observation::Release, &name, "ended")
        .await
        .expect("released");
    assert_eq!(store.state(1).await, "in_question");
    assert_eq!(store.admit().await.len(), 0, "it may have run");
    let due = store.due_after(60_000).await;
    assert_eq!(due.registrations.len(), 1, "the registration may be left over");
    let answer = Answer {
        status: AnswerStatus::Queued,
        runner: None,
        runner_id: None,
        conclusion: None,
    };
    store.ledger.answer(&due.questions[0], &answer).await.expect("answered");
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_cancelled_jobs_runner_is_surplus_and_goes_after_its_grace() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store.apply(&completed(1, "acme", None)).await;
    assert_eq!(store.ledger.admit().await.expect("admit").reaped, 0);
    store.pass(120_000);
    assert_eq!(store.ledger.admit().await.expect("admit").reaped, 1);
    let removal = store.due_after(0).await.removals.remove(0);
    assert_eq!((removal.name.as_str(), removal.github_id), (name.as_str(), Some(7)));
    store
        .ledger
        .observe(Observation::Busy, &name, "")
        .await
        .expect("GitHub refused");
    assert_eq!(
        store.runner_state(&name).await,
        "busy",
        "it took another job meanwhile, and lives"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn surplus_goes_at_once_when_its_organization_is_full_and_others_wait() {
    let store = Store::open().await;
    store
        .ledger
        .set_limits(&[("acme".into(), Some(1))], false)
        .await
        .expect("set");
    store.apply(&queued(1, "acme")).await;
    let mut other = queued(2, "acme");
    other.class.as_mut().expect("ours").labels.push("gpu".into());
    store.apply(&other).await;
    assert_eq!(store.admit().await.len(), 1);
    store.apply(&completed(1, "acme", None)).await;
    assert_eq!(
        store.ledger.admit().await.expect("admit").reaped,
        1,
        "a reservation nobody has taken up goes without a trace"
    );
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_answered_again() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    let first = store
        .ledger
        .claim(&name, &fence, &maker("w1", "default"))
        .await
        .expect("claim");
    store.pass(60_000); // its Redis was away for so long
    assert_eq!(
        store
            .ledger
            .claim(&name, &fence, &maker("w1", "default"))
            .await
            .expect("claim"),
        first
    );
    assert!(
        store.due_after(79_000).await.is_empty(),
        "the time to make it counts from the answer that came"
    );
    let timeout = std::time::Duration::from_secs(20);
    assert_eq!(
        store
            .ledger
            .registered(&name, &fence, 5, timeout)
            .await
            .expect("registered"),
        Claim::Ours(())
    );
    assert_eq!(
        store
            .ledger
            .claim(&name, &fence, &maker("w1", "default"))
            .await
            .expect("claim"),
        Claim::Stale,
        "it is past that"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_worker_that_wakes_up_late_has_lost_its_fence() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    let timeout = std::time::Duration::from_secs(20);
    assert!(matches!(
        store
            .ledger
            .claim(&name, &fence, &maker("w1", "default"))
            .await
            .expect("claim"),
        Claim::Ours(_)
    ));
    assert_eq!(
        store
            .ledger
            .claim(&name, &fence, &maker("w2", "default"))
            .await
            .expect("claim"),
        Claim::Stale,
        "taken once"
    );
    let next = Maker {
        claim: 2,
        ..maker("w1", "default")
    };
    assert_eq!(
        store.ledger.claim(&name, &fence, &next).await.expect("claim"),
        Claim::Stale,
        "also by who reads its entry twice"
    );
    let due = store.due_after(81_000).await;
    assert_eq!(due.removals.len(), 1, "its deadline has passed");
    assert_eq!(
        store
            .ledger
            .registered(&name, &fence, 5, timeout)
            .await
            .expect("registered"),
        Claim::Stale
    );
    assert_eq!(
        store.ledger.created(&name, &fence).await.expect("created"),
        Claim::Stale
    );
    let failed = store
        .ledger
        .fail(&name, &fence, &refused(&[Subject::Class], "GitHub is slow"))
        .await
        .expect("failed");
    assert_eq!(failed, Claim::Stale, "nor does it hold its class back");
    let absent = store
        .ledger
        .observe(Observation::Absent, &name, "no pod")
        .await
        .expect("absent");
    assert!(!absent.changed, "a create may be in flight: the slot is kept");
    store.pass(19_999);
    assert!(
        !store
            .ledger
            .observe(Observation::Absent, &name, "no pod")
            .await
            .expect("absent")
            .changed,
        "for twice the time that creating it may take"
    );
    store.pass(1);
    assert!(
        store
            .ledger
            .observe(Observation::Absent, &name, "no pod")
            .await
            .expect("absent")
            .changed
    );
    assert_eq!(store.admit().await.len(), 1, "demand makes another, under a new name");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_refused_class_backs_off_and_costs_others_nothing() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    store.apply(&queued(2, "other")).await;
    let reserved = store.admit().await;
    assert_eq!(reserved.len(), 2);
    let (name, fence) = reserved
        .iter()
        .find(|(name, _)| name.starts_with("jit-runner-1-"))
        .expect("acme's");
    store
        .ledger
        .claim(name, fence, &maker("w", "default"))
        .await
        .expect("claim");
    store
        .ledger
        .fail(
            name,
            fence,
            &refused(&[Subject::Class], "GitHub refuses: 422 no such label"),
        )
        .await
        .expect("failed");
    store.assert_sound().await;
    assert_eq!(store.admit().await.len(), 0);
    let why = store
        .ledger
        .explain(JobId::new(1).expect("id"))
        .await
        .expect("explained");
    assert!(why.why.contains("422 no such label"), "{}", why.why);
    store.pass(60_001);
    assert_eq!(store.admit().await.len(), 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_reservation_whose_pod_is_not_there_yet_is_kept() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    assert!(matches!(
        store
            .ledger
            .claim(&name, &fence, &maker("w", "default"))
            .await
            .expect("claimed"),
        Claim::Ours(_)
    ));
    let seen = store
        .ledger
        .observe(Observation::Absent, &name, "gone")
        .await
        .expect("observed");
    assert_eq!((seen.state, seen.changed), (Known::State(RunnerState::Reserved), false));
    store.create(&name, &fence, 7).await;
}

#[tokio::test]
async fn who_waits_for_a_removal_is_told_of_it() {
    let store = Store::with_limits(|limits| limits.max_per_org = 1).await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store
        .ledger
        .observe(Observation::Remove, &name, "an operator wants it gone")
        .await
        .expect("removing");
    store.apply(&queued(2, "acme")).await;
    let why = async || {
        store
            .ledger
            .explain(JobId::new(2).expect("an id"))
            .await
            .expect("explained")
            .why
    };
    let told = format!("1 being removed, {name} since 2027-01-15T08:00:00.001Z (an operator wants it gone): ");
    let said = why().await;
    assert!(
        said.ends_with(&format!("{told}GitHub has not said yet that it has it no more")),
        "{said}"
    );
    store
        .ledger
        .observe_deregistered(Observation::Postpone, &name, "removed", Deregistration::Deleted)
        .await
        .expect("noted");
    let said = why().await;
    assert!(
        said.ends_with(&format!("{told}GitHub has it no more, and its pod is not gone")),
        "{said}"
    );
}

#[tokio::test]
async fn other_runners_jobs_leave_no_trace() {
    let store = Store::open().await;
    let mut event = completed(5, "acme", Some(("GitHub Actions 12", 3)));
    event.class = None;
    store.apply(&event).await;
    assert!(store.ledger.job(event.job).await.expect("read").is_none());
    assert_eq!(event.action, Action::Completed);
    let (name, fence) = {
        store.apply(&queued(1, "acme")).await;
        store.admit().await.remove(0)
    };
    store.make(&name, &fence, 8).await;
    let mut foreign = in_progress(6, "acme", &name, 8);
    foreign.class = None;
    store.apply(&foreign).await;
    assert_eq!(
        store.runner_state(&name).await,
        "busy",
        "a runner of ours may run a job of other labels"
    );
    assert_eq!(store.admit().await.len(), 1, "and job 1 needs another");
    store.assert_sound().await;
}

#[tokio::test]
async fn events_of_another_organization_or_runner_id_are_not_believed() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 8).await;
    store.apply(&in_progress(2, "evil", &name, 8)).await;
    store.apply(&in_progress(3, "acme", &name, 9)).await;
    assert_eq!(store.runner_state(&name).await, "created");
    store.assert_sound().await;
}

#[tokio::test]
async fn small_organizations_are_served_beside_large_ones() {
    let store = Store::with_limits(|limits| limits.max_total = 8).await;
    for job in 0..100 {
        store.apply(&queued(1000 + job, "large")).await;
    }
    for org in 0..4 {
        store.apply(&queued(1 + org, &format!("small{org}"))).await;
    }
    let reserved = store.admit().await;
    assert_eq!(reserved.len(), 8);
    let small = reserved
        .iter()
        .filter(|(name, _)| name.split('-').nth(2).is_some_and(|job| job.len() == 1))
        .count();
    assert_eq!(small, 4, "{reserved:?}");
    store.assert_sound().await;
    let clock: Arc<AtomicI64> = store.clock.clone();
    assert!(clock.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_runner_that_github_deleted_unused_questions_no_job() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store
        .ledger
        .observe(Observation::Remove, &name, "an operator wants it gone")
        .await
        .expect("removing");
    store
        .ledger
        .observe_deregistered(Observation::Absent, &name, "removed", Deregistration::Deleted)
        .await
        .expect("gone");
    assert_eq!(store.state(1).await, "queued");
    assert_eq!(store.admit().await.len(), 1, "demand makes another at once");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_runner_lost_over_its_job_is_looked_up_at_github() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store.apply(&in_progress(1, "acme", &name, 7)).await;
    store
        .ledger
        .observe(Observation::Release, &name, "evicted")
        .await
        .expect("released");
    let mut failed = completed(1, "acme", Some((&name, 7)));
    failed.conclusion = Some("failure".into());
    store.apply(&failed).await;
    let doubts = store.due_after(60_000).await.registrations;
    assert_eq!(
        doubts
            .iter()
            .map(|doubt| (doubt.name.as_str(), doubt.github_id))
            .collect::<Vec<_>>(),
        [(name.as_str(), Some(7))]
    );
    store.ledger.settle_doubt(&doubts[0]).await.expect("settled");
    assert!(store.due_after(3_600_000).await.is_empty());
    store.assert_sound().await;
}

#[tokio::test]
async fn a_store_of_the_python_system_is_told_apart_and_nothing_is_lost() {
    let store = Store::open().await;
    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let _: i64 = redis::cmd("RPUSH")
        .arg("org:acme:pending")
        .arg("job")
        .query_async(&mut connection)
        .await
        .expect("a list");
    let error = store.ledger.apply(&queued(1, "acme"), None).await.expect_err("refused");
    assert!(error.is_transient(), "the event stays in its stream: {error}");
    assert!(error.to_string().contains("Python system"), "{error}");
}

#[tokio::test]
async fn of_several_beats_one_speaks() {
    let store = Store::open().await;
    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let minute = std::time::Duration::from_secs(60);
    let mut emitted = Vec::new();
    for _ in 0..3 {
        emitted.push(
            jit_core::stream::emit_tick(&mut connection, "dispatch", minute)
                .await
                .expect("asked"),
        );
    }
    assert_eq!(emitted, [true, false, false]);
    assert!(
        jit_core::stream::emit_tick(&mut connection, "sync", minute)
            .await
            .expect("asked"),
        "another kind is another tick"
    );
    assert!(store.ledger.take_tick("dispatch", "w1", minute).await.expect("taken"));
    assert!(
        !store.ledger.take_tick("dispatch", "w2", minute).await.expect("asked"),
        "one of this kind is being worked on"
    );
    store.ledger.end_tick("dispatch", "w2").await.expect("not its own");
    assert!(!store.ledger.take_tick("dispatch", "w2", minute).await.expect("asked"));
    store.ledger.end_tick("dispatch", "w1").await.expect("ended");
    assert!(store.ledger.take_tick("dispatch", "w2", minute).await.expect("taken"));
}

#[tokio::test]
async fn the_next_job_gets_the_slot_that_a_runner_has_freed() {
    let store = Store::with_limits(|limits| limits.max_per_org = 2).await;
    for job in 1..=3 {
        store.apply(&queued(job, "acme")).await;
    }
    let reserved = store.admit().await;
    assert_eq!(reserved.len(), 2);
    for (id, (name, fence)) in (7..).zip(&reserved) {
        store.make(name, fence, id).await;
    }
    let name = &reserved[0].0;
    store.apply(&in_progress(1, "acme", name, 7)).await;
    store.apply(&completed(1, "acme", Some((name, 7)))).await;
    store
        .ledger
        .observe(Observation::Release, name, "ended")
        .await
        .expect("released");
    let next = store.admit().await;
    assert_eq!(next.len(), 1);
    assert!(next[0].0.starts_with("jit-runner-3-"), "{next:?}");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_mirror_that_is_set_by_hand_decides_nothing_and_is_put_right() {
    let store = Store::with_limits(|limits| limits.max_per_org = 1).await;
    store.apply(&queued(1, "acme")).await;
    store.apply(&queued(2, "acme")).await;
    assert_eq!(store.admit().await.len(), 1);
    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let _: () = redis::cmd("SET")
        .arg("org:acme:running")
        .arg(0)
        .query_async(&mut connection)
        .await
        .expect("set by hand");
    assert_eq!(store.admit().await.len(), 0);
    assert_eq!(
        store
            .ledger
            .reconcile(store.time(), &[])
            .await
            .expect("reconciled")
            .corrected,
        1
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_limit_lowered_by_hand_holds_at_the_next_admission() {
    let store = Store::with_limits(|limits| limits.max_total = 100).await;
    for job in 1..=80 {
        store
            .apply(&queued(job, if job <= 40 { "acme" } else { "other" }))
            .await;
    }
    store
        .ledger
        .set_limits(&[("other".into(), Some(70))], false)
        .await
        .expect("set");
    let mut connection = store.ledger.pool().get().await.expect("a connection");
    let _: i64 = redis::cmd("HSET")
        .arg("org_limits")
        .arg("acme")
        .arg(3)
        .query_async(&mut connection)
        .await
        .expect("written");
    assert_eq!(store.admit().await.len(), 43);
    assert_eq!(store.ledger.org_status("acme").await.expect("status").running, 3);
    store.assert_sound().await;
}

#[tokio::test]
async fn one_admission_is_a_batch_and_says_that_there_is_more() {
    let store = Store::with_limits(|limits| (limits.max_total, limits.max_per_org) = (100, 100)).await;
    for job in 1..=u64::from(ADMIT_BATCH) + 6 {
        store.apply(&queued(job, "acme")).await;
    }
    let first = store.ledger.admit().await.expect("admitted");
    assert_eq!((first.admitted, first.more), (ADMIT_BATCH, true));
    let second = store.ledger.admit().await.expect("admitted");
    assert_eq!((second.admitted, second.more), (6, false));
    store.assert_sound().await;
}

#[tokio::test]
async fn of_surplus_runners_reserved_ones_go_first_and_then_the_youngest() {
    let store = Store::open().await;
    let mut names = Vec::new();
    for job in 1..=4 {
        store.apply(&queued(job, "acme")).await;
        let (name, fence) = store.admit().await.remove(0);
        if job != 2 {
            store.make(&name, &fence, 70 + job).await;
        }
        names.push(name);
        store.pass(1000);
    }
    for gone in [1, 3, 2] {
        store.apply(&completed(gone as u64 + 1, "acme", None)).await;
        store.pass(120_000);
        assert_eq!(store.ledger.admit().await.expect("admit").reaped, 1);
        assert!(
            ["gone", "removing"].contains(&store.runner_state(&names[gone]).await.as_str()),
            "{gone}"
        );
    }
    assert_eq!(store.runner_state(&names[0]).await, "created");
    store.assert_sound().await;
}
