//! What the ledger keeps to find what never came, on a real Redis.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jit_core::{
    event::{Action, JobEvent},
    ledger::recovery::{Asked, FailedDelivery, HookCursor, RecoverySettings, Registered, Repetition, Reported},
};

mod support;
use support::{Store, completed, in_progress, queued, waiting};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn settings(calls_per_hour: u64) -> RecoverySettings {
    RecoverySettings {
        interval: Duration::from_secs(60),
        calls_per_hour,
        rediscover_interval: Duration::from_secs(24 * 3600),
        redelivery: true,
        scopes: "organization".into(),
    }
}

/// What lies in `jit:events`, taken out and applied as a worker would.
async fn take_in(store: &Store) -> usize {
    let mut connection = store.ledger.pool().get().await.unwrap();
    let entries: redis::streams::StreamRangeReply = redis::cmd("XRANGE").arg("jit:events").arg("-").arg("+").query_async(&mut connection).await.unwrap();
    for entry in &entries.ids {
        let event: JobEvent = serde_json::from_str(&entry.get::<String>("event").unwrap()).unwrap();
        store.apply(&event).await;
        let _: i64 = redis::cmd("XDEL").arg("jit:events").arg(&entry.id).query_async(&mut connection).await.unwrap();
    }
    entries.ids.len()
}

async fn report(store: &Store, events: &[JobEvent]) -> (u64, u64) {
    let Reported { queued, in_progress, backlog } = store.ledger.report_found(events, "jit-runner").await.unwrap();
    assert!(!backlog);
    (queued, in_progress)
}

#[tokio::test]
async fn a_job_that_nobody_told_of_is_reported_once_and_a_late_webhook_changes_nothing() {
    let store = Store::open().await;
    store.apply(&queued(1, "Acme")).await;
    let found = [queued(1, "Acme"), queued(2, "Acme")];
    assert_eq!(report(&store, &found).await, (1, 0), "one is known");
    assert_eq!(take_in(&store).await, 1);
    store.apply(&queued(2, "Acme")).await; // its webhook comes after all
    assert_eq!(report(&store, &found).await, (0, 0));
    assert_eq!(store.admit().await.len(), 2, "two jobs, two runners");
    assert_eq!(store.ledger.org_status("Acme").await.unwrap().pending, 2);
    assert_eq!(store.ledger.recovery().await.unwrap().found_jobs, 1);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_tombstone_wins_unless_it_was_a_guess() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    store.apply(&completed(1, "acme", None)).await;
    assert_eq!(report(&store, &[queued(1, "acme"), in_progress(1, "acme", "jit-runner-1-x", 5)]).await, (0, 0), "the list is older than the end");
    let again = JobEvent { attempt: Some(2), ..queued(1, "acme") };
    assert_eq!(report(&store, &[again]).await, (1, 0), "another attempt is another job");
    // GitHub did not know it three times, so it was given up; now it calls it queued.
    store.apply(&queued(2, "acme")).await;
    store.apply(&JobEvent { conclusion: Some("gone".into()), ..completed(2, "acme", None) }).await;
    assert_eq!(report(&store, &[queued(2, "acme")]).await, (1, 0));
    take_in(&store).await;
    assert_eq!(store.state(2).await, "queued");
    store.assert_sound().await;
}

#[tokio::test]
async fn what_is_known_otherwise_is_put_right_by_githubs_word() {
    let store = Store::open().await;
    store.apply(&waiting(1, "acme")).await;
    assert_eq!(report(&store, &[queued(1, "acme")]).await, (1, 0), "its approval was lost");
    // Here in progress, there queued: the list may be the older one. GitHub is asked.
    store.apply(&queued(2, "acme")).await;
    store.apply(&in_progress(2, "acme", "another", 3)).await;
    assert_eq!(report(&store, &[queued(2, "acme")]).await, (0, 0));
    assert_eq!(store.due_after(0).await.questions.iter().map(|question| question.job.get()).collect::<Vec<_>>(), [2]);
    // Here queued, there in progress on whatever runner: it is no demand.
    store.apply(&queued(3, "acme")).await;
    assert_eq!(report(&store, &[in_progress(3, "acme", "GitHub Actions 7", 9)]).await, (0, 1));
    // Unknown here, and on a runner that is none of ours.
    assert_eq!(report(&store, &[in_progress(4, "acme", "jit-runnerette-1", 9)]).await, (0, 0));
    assert_eq!(report(&store, &[in_progress(5, "acme", "jit-runner-5-abc", 9)]).await, (0, 1), "unknown here, on one of ours");
    take_in(&store).await;
    assert_eq!((store.state(1).await.as_str(), store.state(3).await.as_str(), store.state(4).await.as_str()), ("queued", "in_progress", ""));
    store.assert_sound().await;
}

#[tokio::test]
async fn an_idle_runner_learns_that_it_works() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    store.make(&name, &fence, 7).await;
    store.apply(&in_progress(1, "acme", "somebody", 9)).await; // a wrong word, or one about an earlier pick-up
    assert_eq!(store.runner_state(&name).await, "created");
    assert_eq!(report(&store, &[in_progress(1, "acme", &name, 7)]).await, (0, 1));
    take_in(&store).await;
    assert_eq!(store.runner_state(&name).await, "busy");
    assert_eq!(report(&store, &[in_progress(1, "acme", &name, 7)]).await, (0, 0), "known now");
    store.assert_sound().await;
}

#[tokio::test]
async fn with_a_backlog_nothing_can_be_told_to_be_unknown() {
    let store = Store::open().await;
    let mut connection = store.ledger.pool().get().await.unwrap();
    for _ in 0..1001 {
        let _: String = redis::cmd("XADD").arg("jit:events").arg("*").arg("v").arg("1").query_async(&mut connection).await.unwrap();
    }
    assert!(store.ledger.report_found(&[queued(1, "acme")], "jit-runner").await.unwrap().backlog);
}

#[tokio::test]
async fn a_pass_visits_each_repository_newest_first_and_goes_on_where_it_stopped() {
    let store = Store::open().await;
    for (job, org) in [(1, "old"), (2, "acme"), (3, "zeta")] {
        store.apply(&queued(job, org)).await;
        store.pass(DAY * 14);
    }
    // The first is 42 days old, and is forgotten.
    assert!(store.ledger.recovery_tick(&settings(1000)).await.unwrap().open);
    let pass = store.ledger.sweep(0, 10, true).await.unwrap();
    assert_eq!(pass.repos, ["zeta/app", "acme/app"]);
    assert_eq!(store.ledger.sweep(1, 10, true).await.unwrap().repos, ["acme/app"], "past the first");
    store.ledger.swept("zeta/app", 3, false).await.unwrap();
    store.apply(&queued(4, "late")).await;
    assert_eq!(store.ledger.sweep(0, 10, true).await.unwrap().repos, ["acme/app"], "who comes later is in the next pass");
    store.pass(2 * MINUTE);
    store.ledger.swept("acme/app", 7, false).await.unwrap();
    assert!(store.ledger.sweep(0, 10, false).await.unwrap().ended);
    assert_eq!(store.ledger.sweep(0, 10, true).await.unwrap().repos, ["late/app", "zeta/app", "acme/app"]);
    let recovery = store.ledger.recovery().await.unwrap();
    // 3 repositories at 5 calls each, 1000 an hour, and a tick before.
    assert_eq!((recovery.repositories, recovery.seconds), (3, Some(120 + 1 + 60)), "the last pass took longer than its calls must");
    assert!(recovery.swept_at.is_some());
}

#[tokio::test]
async fn a_repository_that_does_not_answer_comes_last_and_the_pass_ends_without_it() {
    let store = Store::open().await;
    for (job, org) in [(1, "acme"), (2, "beta"), (3, "zeta")] {
        store.apply(&queued(job, org)).await;
        store.pass(MINUTE);
    }
    let left = async || store.ledger.sweep(0, 10, false).await.unwrap().repos;
    store.ledger.sweep(0, 10, true).await.unwrap();
    store.ledger.swept("zeta/app", 1, true).await.unwrap();
    assert_eq!(left().await, ["beta/app", "acme/app", "zeta/app"]);
    store.ledger.swept("beta/app", 1, true).await.unwrap();
    store.ledger.swept("zeta/app", 1, true).await.unwrap();
    assert_eq!(left().await, ["acme/app", "beta/app", "zeta/app"], "the fewer failures, the earlier");
    store.ledger.swept("acme/app", 3, false).await.unwrap();
    store.ledger.swept("beta/app", 3, false).await.unwrap();
    assert_eq!(left().await, ["zeta/app"]);
    store.ledger.swept("zeta/app", 1, true).await.unwrap();
    assert!(store.ledger.sweep(0, 10, false).await.unwrap().ended, "three times are enough for a pass");
    store.ledger.swept("zeta/app", 1, true).await.unwrap();
    assert_eq!(store.ledger.sweep(0, 10, true).await.unwrap().repos, ["zeta/app", "beta/app", "acme/app"], "another pass, another chance");
}

#[tokio::test]
async fn an_owner_that_does_not_answer_is_asked_again_and_given_up_after_an_hour() {
    let store = Store::open().await;
    let rediscovery = async || store.ledger.recovery_tick(&settings(1000)).await.unwrap().rediscovery;
    let missed = async || store.ledger.discovered(&[], &[], Some(Asked::Missed("Beta")), None).await.unwrap();
    assert_eq!(rediscovery().await.as_deref(), Some("0"));
    store.ledger.discovered(&[], &["Acme".into(), "Beta".into()], None, Some("end")).await.unwrap();
    missed().await;
    store.ledger.discovered(&[], &[], Some(Asked::Answered("Acme")), None).await.unwrap();
    store.pass(HOUR - 1);
    missed().await;
    assert_eq!(store.ledger.owners_to_list(10).await.unwrap(), ["Beta"]);
    assert_eq!(rediscovery().await.as_deref(), Some("end"));
    store.pass(1);
    missed().await;
    assert_eq!(rediscovery().await, None, "it is over without this one");
    assert!(store.ledger.owners_to_list(10).await.unwrap().is_empty());
    // The next rediscovery knows nothing of that.
    store.pass(25 * HOUR);
    assert_eq!(rediscovery().await.as_deref(), Some("0"));
    store.ledger.discovered(&[], &["Beta".into()], None, Some("end")).await.unwrap();
    missed().await;
    assert_eq!(store.ledger.owners_to_list(10).await.unwrap(), ["Beta"]);
}

#[tokio::test]
async fn lost_data_is_looked_for_at_once() {
    let store = Store::empty().await;
    let tick = async |store: &Store| store.ledger.recovery_tick(&settings(1000)).await.unwrap();
    assert!(!tick(&store).await.open, "the real runners have not been counted");
    store.ledger.reconcile(store.time(), &[]).await.unwrap();
    let first = tick(&store).await;
    assert_eq!((first.open, first.urgent, first.rediscovery.as_deref()), (true, true, Some("0")));
    store.ledger.discovered(&[], &["Acme".into(), "Beta".into()], None, Some("77")).await.unwrap();
    assert_eq!(tick(&store).await.rediscovery.as_deref(), Some("77"), "it goes on where it stopped");
    store.ledger.discovered(&[], &[], None, Some("end")).await.unwrap();
    let mut owners = store.ledger.owners_to_list(10).await.unwrap();
    owners.sort();
    assert_eq!(owners, ["Acme", "Beta"]);
    store
        .ledger
        .discovered(&[("Acme/app".into(), store.time() - DAY), ("Acme/old".into(), store.time() - 31 * DAY)], &[], Some(Asked::Answered("Acme")), None)
        .await
        .unwrap();
    assert_eq!(store.ledger.sweep(0, 10, false).await.unwrap().repos, ["Acme/app"], "not in a pass to come, but now");
    store.ledger.discovered(&[], &[], Some(Asked::Answered("Beta")), None).await.unwrap();
    assert_eq!(tick(&store).await.rediscovery, None, "all are listed");
    store.ledger.swept("Acme/app", 3, false).await.unwrap();
    assert!(tick(&store).await.urgent);
    assert!(store.ledger.sweep(0, 10, false).await.unwrap().ended);
    assert!(!tick(&store).await.urgent, "all are visited");
    store.pass(25 * HOUR);
    let later = tick(&store).await;
    assert_eq!((later.urgent, later.rediscovery.as_deref()), (false, Some("0")), "once a day, without haste");
    // The same Redis, another run of it.
    let mut connection = store.ledger.pool().get().await.unwrap();
    let _: i64 = redis::cmd("HSET").arg("ledger:meta").arg("run_id").arg("another").query_async(&mut connection).await.unwrap();
    store.ledger.reconcile(store.time(), &[]).await.unwrap();
    store.ledger.hooks_are_asked("orgs/Acme").await.unwrap();
    assert!(tick(&store).await.urgent);
    assert!(!store.ledger.hooks_were_asked("orgs/Acme", Duration::from_secs(86_400)).await.unwrap(), "hooks are looked for, too");
    store.ledger.hooks_are_asked("orgs/Acme").await.unwrap();
    assert!(tick(&store).await.urgent && store.ledger.hooks_were_asked("orgs/Acme", Duration::from_secs(86_400)).await.unwrap(), "once");
}

#[tokio::test]
async fn a_stray_is_deleted_when_it_was_seen_twice_and_is_nobodys() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (live, _) = store.admit().await.remove(0);
    store.ledger.recovery_tick(&settings(1000)).await.unwrap();
    assert_eq!(store.ledger.stray_scopes(10).await.unwrap(), ["orgs/acme"]);
    let registered = |name: &str, id: u64| Registered { name: name.to_owned(), id: id.to_string() };
    let (stray, waking, ours) = (registered("jit-runner-9-x", 1), registered("jit-runner-8-x", 2), registered(&live, 3));
    let (confirm, again) = (Duration::from_secs(600), Duration::from_secs(3600));
    let look = async |seen: &[Registered], cleared: &[Registered]| store.ledger.strays("orgs/acme", seen, cleared, confirm, again).await.unwrap();
    let all = [stray.clone(), waking.clone(), ours.clone()];
    assert_eq!(look(&all, &[]).await, []);
    assert!(store.ledger.stray_scopes(10).await.unwrap().is_empty());
    store.pass(9 * MINUTE);
    assert_eq!(look(&all, &[]).await, [], "not ten minutes");
    store.pass(MINUTE);
    let deleted = look(&[stray.clone(), ours.clone()], std::slice::from_ref(&waking)).await;
    assert_eq!(deleted, std::slice::from_ref(&stray), "one is online, one is live here");
    store.pass(HOUR);
    assert_eq!(store.ledger.stray_scopes(10).await.unwrap(), ["orgs/acme"]);
    assert_eq!(look(&[waking.clone(), ours], &[]).await, [], "seen anew, seen once");
    store.ledger.stray_gone("orgs/acme", &stray).await.unwrap();
    let recovery = store.ledger.recovery().await.unwrap();
    assert_eq!((recovery.strays, recovery.strays_deleted), (1, 1));
}

fn failed(guid: &str, id: u64, action: Action, at: i64) -> FailedDelivery {
    FailedDelivery { guid: guid.into(), id: id.to_string(), action: action.as_str().into(), at }
}

#[tokio::test]
async fn deliveries_are_repeated_queued_ones_first_and_never_after_a_success() {
    let store = Store::open().await;
    let hook = "orgs/acme/hooks/1";
    let note = async |list: &[FailedDelivery], settled: &[&str]| {
        store.ledger.note_deliveries(hook, list, &settled.iter().map(|guid| (*guid).to_owned()).collect::<Vec<_>>(), 3).await.unwrap();
    };
    let next = async || store.ledger.redeliverable(10).await.unwrap().into_iter().map(|it| (it.guid, it.id)).collect::<Vec<_>>();
    let pair = |guid: &str, id: u64| (guid.to_owned(), id.to_string());
    let now = store.time();
    note(
        &[
            failed("a", 1, Action::Queued, now - 3000),
            failed("b", 2, Action::Completed, now - 2000),
            failed("c", 3, Action::Queued, now - 1000),
            failed("d", 4, Action::Queued, now),
        ],
        &["d"],
    )
    .await;
    assert_eq!(next().await, [pair("c", 3), pair("a", 1), pair("b", 2)], "queued, newest first; one has succeeded since");
    store.ledger.redelivered("c", Repetition::Accepted, 3).await.unwrap();
    note(&[failed("c", 3, Action::Queued, now - 1000)], &[]).await;
    assert_eq!(next().await, [pair("a", 1), pair("b", 2)], "the list is read again, and holds nothing new");
    note(&[failed("c", 9, Action::Queued, now + 500)], &[]).await;
    assert_eq!(next().await.len(), 2, "it failed again, and waits a minute");
    store.ledger.hook_awake("orgs/other/hooks/1").await.unwrap();
    assert_eq!(next().await.len(), 2);
    store.ledger.hook_awake(hook).await.unwrap();
    assert_eq!(next().await[0], pair("c", 9), "the receiver is there again");
    for id in 10..20 {
        store.ledger.redelivered("c", Repetition::Accepted, 3).await.unwrap();
        note(&[failed("c", id, Action::Queued, now + HOUR * i64::try_from(id).unwrap())], &[]).await;
        store.pass(2 * HOUR);
    }
    assert_eq!(next().await, [pair("a", 1), pair("b", 2)], "three times, and not once more");
    store.ledger.redelivered("a", Repetition::Forgotten, 3).await.unwrap();
    note(&[], &["b"]).await;
    assert!(next().await.is_empty(), "GitHub has forgotten one, and a person has repeated the other");
    note(&[failed("b", 99, Action::Completed, now + DAY)], &[]).await;
    assert!(next().await.is_empty());
}

#[tokio::test]
async fn a_repetition_that_is_refused_is_tried_again_some_times() {
    let store = Store::open().await;
    let note = async || store.ledger.note_deliveries("orgs/acme/hooks/1", &[failed("a", 1, Action::Queued, 1)], &[], 3).await.unwrap();
    note().await;
    for wait in [MINUTE, 2 * MINUTE] {
        assert_eq!(store.ledger.redeliverable(10).await.unwrap().len(), 1);
        store.ledger.redelivered("a", Repetition::Refused, 3).await.unwrap();
        note().await;
        store.pass(wait - 1);
        assert!(store.ledger.redeliverable(10).await.unwrap().is_empty());
        store.pass(1);
    }
    assert_eq!(store.ledger.redeliverable(10).await.unwrap().len(), 1);
    store.ledger.redelivered("a", Repetition::Refused, 3).await.unwrap();
    store.pass(HOUR);
    assert!(store.ledger.redeliverable(10).await.unwrap().is_empty(), "three times, and not once more");
    let recovery = store.ledger.recovery().await.unwrap();
    assert_eq!((recovery.failed_deliveries, recovery.redelivered), (0, 0), "nothing was repeated");
}

#[tokio::test]
async fn one_worker_at_a_time_and_a_dead_one_holds_nobody_up() {
    let store = Store::open().await;
    let take = async |worker: &str| store.ledger.take_recovery(worker, Duration::from_secs(120), Duration::from_secs(20)).await.unwrap();
    store.ledger.heartbeat("a").await.unwrap();
    store.ledger.heartbeat("b").await.unwrap();
    assert!(take("a").await);
    assert!(!take("b").await);
    assert!(take("a").await, "Redis was away when it gave it back");
    store.pass(21_000);
    store.ledger.heartbeat("b").await.unwrap();
    assert!(take("b").await, "a was not heard of");
    store.ledger.end_tick("recovery", "a").await.unwrap();
    store.ledger.heartbeat("a").await.unwrap();
    assert!(!take("a").await, "it was slow, and has lost it");
    store.ledger.end_tick("recovery", "b").await.unwrap();
    assert!(take("a").await);
}

#[tokio::test]
async fn hooks_are_remembered_and_asked_for_once_in_a_while() {
    let store = Store::open().await;
    let day = Duration::from_secs(86_400);
    assert!(!store.ledger.hooks_were_asked("orgs/acme", day).await.unwrap());
    assert!(!store.ledger.hooks_were_asked("orgs/acme", day).await.unwrap(), "a question is no answer");
    store.ledger.hooks_are_asked("orgs/acme").await.unwrap();
    assert!(store.ledger.hooks_were_asked("orgs/acme", day).await.unwrap());
    store.pass(DAY);
    assert!(!store.ledger.hooks_were_asked("orgs/acme", day).await.unwrap());
    let cursor = HookCursor { read_until: 5, walk_from: Some(9), page: Some("v1_3".into()), works: true };
    store.ledger.keep_hook("app/hook", Some(&cursor)).await.unwrap();
    assert_eq!(store.ledger.hooks().await.unwrap(), [("app/hook".to_owned(), cursor)].into());
    store.ledger.keep_hook("app/hook", None).await.unwrap();
    assert!(store.ledger.hooks().await.unwrap().is_empty());
}
