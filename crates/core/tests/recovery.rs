//! What the ledger keeps to find what never came, on a real Redis.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jit_core::{
    event::{Action, JobEvent},
    ledger::recovery::{
        Ask, FailedDelivery, HookCursor, KnownRuns, Queued, RecoverySettings, RecoveryTick, Registered, Repetition,
        Reported, Round,
    },
};
use jit_testing::{Store, completed, in_progress, queued, waiting};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

async fn tick(store: &Store) -> RecoveryTick {
    let settings = RecoverySettings {
        interval: Duration::from_secs(60),
        calls_per_hour: 1000,
        redelivery: true,
    };
    store.ledger.recovery_tick(&settings).await.unwrap()
}

/// What is due in a round of an account, and whether the account is urgent.
async fn due(store: &Store, account: &str, name: Round, before: i64) -> (Vec<String>, bool) {
    let mut due = store
        .ledger
        .recovery_due(account, &[Ask { name, before, n: 10 }])
        .await
        .unwrap();
    (
        due.rounds.pop().map_or_else(Vec::new, |round| {
            round.items.into_iter().map(|item| item.item).collect()
        }),
        due.urgent,
    )
}

/// The new repositories are queued in an account, as a worker does.
async fn queue_new(store: &Store, account: &str) {
    let repos = tick(store).await.repos;
    let items: Vec<Queued> = repos
        .iter()
        .map(|repo| Queued::new(account, Round::Repos, repo.clone()))
        .collect();
    store.ledger.enqueue(&items, &repos).await.unwrap();
}

/// What lies in `jit:events`, taken out and applied as a worker would.
async fn take_in(store: &Store) -> usize {
    let mut connection = store.ledger.pool().get().await.unwrap();
    let entries: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
        .arg("jit:events")
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .unwrap();
    for entry in &entries.ids {
        let event: JobEvent = serde_json::from_str(&entry.get::<String>("event").unwrap()).unwrap();
        store.apply(&event).await;
        let _: i64 = redis::cmd("XDEL")
            .arg("jit:events")
            .arg(&entry.id)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    entries.ids.len()
}

async fn report(store: &Store, events: &[JobEvent]) -> (u64, u64) {
    let Reported {
        queued,
        in_progress,
        backlog,
    } = store.ledger.report_found(events, "jit-runner").await.unwrap();
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
    assert_eq!(
        report(
            &store,
            &[queued(1, "acme"), in_progress(1, "acme", "jit-runner-1-x", 5)]
        )
        .await,
        (0, 0),
        "the list is older than the end"
    );
    let again = JobEvent {
        attempt: Some(2),
        ..queued(1, "acme")
    };
    assert_eq!(report(&store, &[again]).await, (1, 0), "another attempt is another job");
    // GitHub did not know it three times, so it was given up; now it calls it queued.
    store.apply(&queued(2, "acme")).await;
    store
        .apply(&JobEvent {
            conclusion: Some("gone".into()),
            ..completed(2, "acme", None)
        })
        .await;
    assert_eq!(report(&store, &[queued(2, "acme")]).await, (1, 0));
    take_in(&store).await;
    assert_eq!(store.state(2).await, "queued");
    store.assert_sound().await;
}

#[tokio::test]
async fn what_is_known_otherwise_is_put_right_by_githubs_word() {
    let store = Store::open().await;
    store.apply(&waiting(1, "acme")).await;
    assert_eq!(
        report(&store, &[queued(1, "acme")]).await,
        (1, 0),
        "its approval was lost"
    );
    // Here in progress, there queued: the list may be the older one. GitHub is asked.
    store.apply(&queued(2, "acme")).await;
    store.apply(&in_progress(2, "acme", "another", 3)).await;
    assert_eq!(report(&store, &[queued(2, "acme")]).await, (0, 0));
    assert_eq!(
        store
            .due_after(0)
            .await
            .questions
            .iter()
            .map(|question| question.job.get())
            .collect::<Vec<_>>(),
        [2]
    );
    // Here queued, there in progress on whatever runner: it is no demand.
    store.apply(&queued(3, "acme")).await;
    assert_eq!(
        report(&store, &[in_progress(3, "acme", "GitHub Actions 7", 9)]).await,
        (0, 1)
    );
    // Unknown here, and on a runner that is none of ours.
    assert_eq!(
        report(&store, &[in_progress(4, "acme", "jit-runnerette-1", 9)]).await,
        (0, 0)
    );
    assert_eq!(
        report(&store, &[in_progress(5, "acme", "jit-runner-5-abc", 9)]).await,
        (0, 1),
        "unknown here, on one of ours"
    );
    take_in(&store).await;
    assert_eq!(
        (
            store.state(1).await.as_str(),
            store.state(3).await.as_str(),
            store.state(4).await.as_str()
        ),
        ("queued", "in_progress", "")
    );
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
    assert_eq!(
        report(&store, &[in_progress(1, "acme", &name, 7)]).await,
        (0, 0),
        "known now"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn with_a_backlog_nothing_can_be_told_to_be_unknown() {
    let store = Store::open().await;
    let mut connection = store.ledger.pool().get().await.unwrap();
    for _ in 0..1001 {
        let _: String = redis::cmd("XADD")
            .arg("jit:events")
            .arg("*")
            .arg("v")
            .arg("1")
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    assert!(
        store
            .ledger
            .report_found(&[queued(1, "acme")], "jit-runner")
            .await
            .unwrap()
            .backlog
    );
}

#[tokio::test]
async fn who_was_never_visited_comes_first_then_who_has_waited_longest() {
    let store = Store::open().await;
    for (job, org) in [(1, "old"), (2, "acme"), (3, "zeta")] {
        store.apply(&queued(job, org)).await;
        store.pass(DAY * 14);
    }
    // The first is 42 days old, and is forgotten.
    queue_new(&store, "pat").await;
    let repos = async || due(&store, "pat", Round::Repos, store.time()).await.0;
    let visited = async |repo: &str| {
        store
            .ledger
            .looked_at("pat", Round::Repos, repo, Some(store.time()), None)
            .await
            .unwrap()
    };
    assert_eq!(repos().await, ["zeta/app", "acme/app"], "the newest first");
    visited("zeta/app").await;
    assert_eq!(repos().await, ["acme/app"], "once in a slice");
    store.pass(2 * MINUTE);
    visited("acme/app").await;
    store.apply(&queued(4, "late")).await;
    assert!(
        tick(&store).await.repos == ["late/app"] && repos().await == ["zeta/app", "acme/app"],
        "it is not queued yet"
    );
    queue_new(&store, "pat").await;
    assert!(tick(&store).await.repos.is_empty());
    store.pass(MINUTE);
    assert_eq!(repos().await, ["late/app", "zeta/app", "acme/app"]);
    assert!(due(&store, "other", Round::Repos, store.time()).await.0.is_empty());
}

#[tokio::test]
async fn accounts_take_turns_and_one_without_budget_is_left_alone() {
    let store = Store::open().await;
    let accounts = async |n| store.ledger.recovery_accounts(store.time(), n).await.unwrap();
    store
        .ledger
        .enqueue(
            &["a", "b", "c"].map(|account| Queued::new(account, Round::Lists, "repos x")),
            &[],
        )
        .await
        .unwrap();
    assert_eq!(accounts(2).await, ["a", "b"]);
    assert_eq!(accounts(2).await, ["c"], "each once in a slice");
    assert!(accounts(2).await.is_empty());
    store.pass(MINUTE);
    store.ledger.account_served("a", store.time() + HOUR, 0).await.unwrap();
    store.ledger.account_served("b", store.time(), 0).await.unwrap();
    store.pass(MINUTE);
    assert_eq!(
        accounts(9).await,
        ["c", "b"],
        "one was left out, and has waited longest; one has no budget"
    );
    store.pass(HOUR);
    assert!(accounts(9).await.contains(&"a".to_owned()));
    store
        .ledger
        .looked_at("a", Round::Lists, "repos x", None, None)
        .await
        .unwrap();
    store.ledger.account_served("a", store.time(), 0).await.unwrap();
    store.pass(MINUTE);
    assert!(!accounts(9).await.contains(&"a".to_owned()), "it has nothing any more");
}

#[tokio::test]
async fn what_is_known_of_a_repository_is_kept_as_long_as_it_is() {
    let store = Store::open().await;
    store
        .ledger
        .discovered(
            "pat",
            &[
                ("acme/app".into(), store.time() - DAY),
                ("acme/old".into(), store.time() - 31 * DAY),
            ],
            true,
        )
        .await
        .unwrap();
    let item = async || {
        let asks = [Ask {
            name: Round::Repos,
            before: store.time(),
            n: 10,
        }];
        store
            .ledger
            .recovery_due("pat", &asks)
            .await
            .unwrap()
            .rounds
            .into_iter()
            .flat_map(|round| round.items)
            .next()
    };
    assert_eq!(item().await.unwrap().runs(), KnownRuns::default());
    assert_eq!(
        due(&store, "pat", Round::Lists, store.time()).await.0,
        ["hooks repos/acme/app"],
        "its webhooks are to be listed"
    );
    let known = KnownRuns {
        etag: Some("W/\"x\"".into()),
        over_below: 9_007_199_254_740_993,
    };
    store
        .ledger
        .looked_at("pat", Round::Repos, "acme/app", Some(store.time()), Some(&known))
        .await
        .unwrap();
    store.pass(MINUTE);
    let kept = item().await.unwrap();
    assert_eq!((kept.item.as_str(), kept.runs()), ("acme/app", known));
    store.pass(31 * DAY);
    tick(&store).await;
    assert_eq!(item().await, None, "nobody has heard of it for a month");
    let mut connection = store.ledger.pool().get().await.unwrap();
    let kept: bool = redis::cmd("HEXISTS")
        .arg("repos:runs")
        .arg("acme/app")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(!kept, "what was known of it goes, too");
    for round in [Round::Repos, Round::Rereads, Round::Lists] {
        assert!(due(&store, "pat", round, store.time()).await.0.is_empty());
    }
}

#[tokio::test]
async fn the_announced_time_is_that_between_two_visits() {
    let store = Store::open().await;
    let seconds = async || store.ledger.recovery().await.unwrap().seconds;
    assert_eq!(seconds().await, None);
    tick(&store).await;
    assert_eq!(seconds().await, Some(60));
    store
        .ledger
        .discovered(
            "pat",
            &["a/1", "a/2", "a/3"].map(|repo| (repo.to_owned(), store.time())),
            false,
        )
        .await
        .unwrap();
    let visit = async |repo: &str| {
        store
            .ledger
            .looked_at("pat", Round::Repos, repo, Some(store.time()), None)
            .await
            .unwrap()
    };
    let served = async |visited| store.ledger.account_served("pat", store.time(), visited).await.unwrap();
    visit("a/1").await;
    served(1).await;
    assert_eq!(seconds().await, Some(120 + 60), "one a tick, and two are left");
    store.pass(MINUTE);
    visit("a/2").await;
    visit("a/3").await;
    served(2).await;
    store.pass(9 * MINUTE);
    visit("a/1").await;
    served(1).await;
    assert_eq!(seconds().await, Some(600 + 60), "ten minutes were between two visits");
    store.pass(5 * MINUTE);
    assert_eq!(seconds().await, Some(14 * 60 + 60), "another waits longer by now");
    visit("a/2").await;
    visit("a/3").await;
    served(2).await;
    for _ in 0..200 {
        store.pass(MINUTE);
        for repo in ["a/1", "a/2", "a/3"] {
            visit(repo).await;
        }
        served(3).await;
    }
    assert_eq!(seconds().await, Some(60 + 60), "that was hours ago");
}

#[tokio::test]
async fn the_longest_time_of_an_hour_counts_and_the_pace_says_how_long_the_rest_takes() {
    let store = Store::open().await;
    tick(&store).await;
    let seconds = async || store.ledger.recovery().await.unwrap().seconds;
    let visit = async |repo: &str| {
        store
            .ledger
            .looked_at("pat", Round::Repos, repo, Some(store.time()), None)
            .await
            .unwrap()
    };
    store
        .ledger
        .discovered(
            "pat",
            &["a/1", "a/2", "a/3", "a/4"].map(|repo| (repo.to_owned(), store.time())),
            false,
        )
        .await
        .unwrap();
    visit("a/1").await;
    visit("a/2").await;
    store.ledger.account_served("pat", store.time(), 2).await.unwrap();
    assert_eq!(seconds().await, Some(60 + 60), "two a tick, and two are left");
    for wait in [0, 10, 1] {
        store.pass(wait * MINUTE);
        for repo in ["a/1", "a/2", "a/3", "a/4"] {
            visit(repo).await;
        }
        store.ledger.account_served("pat", store.time(), 4).await.unwrap();
    }
    assert_eq!(seconds().await, Some(600 + 60), "the last time was shorter");
}

#[tokio::test]
async fn a_push_of_the_future_was_now() {
    let store = Store::open().await;
    store
        .ledger
        .discovered("pat", &[("acme/app".into(), store.time() + DAY)], false)
        .await
        .unwrap();
    store.pass(30 * DAY + HOUR);
    tick(&store).await;
    assert!(
        due(&store, "pat", Round::Repos, store.time()).await.0.is_empty(),
        "nothing was heard of it for a month"
    );
}

#[tokio::test]
async fn a_failure_that_the_list_tells_of_again_is_no_other_one() {
    let store = Store::open().await;
    let hook = "orgs/acme/hooks/1";
    let note = async || {
        store
            .ledger
            .note_deliveries(hook, &[failed("a", 1, Action::Queued, 1)], &[], 3)
            .await
            .unwrap()
    };
    note().await;
    store
        .ledger
        .redelivered(hook, "a", Repetition::Accepted, 3)
        .await
        .unwrap();
    note().await;
    store.pass(2 * HOUR);
    assert!(
        store.ledger.redeliverable(hook, 10).await.unwrap().is_empty(),
        "it was repeated once, and has not failed since"
    );
}

#[tokio::test]
async fn lost_data_is_looked_for_at_once() {
    let store = Store::empty().await;
    assert!(!tick(&store).await.open, "the real runners have not been counted");
    store.ledger.reconcile(store.time(), &[]).await.unwrap();
    store.apply(&queued(1, "Acme")).await;
    let first = tick(&store).await;
    assert!(
        first.open && first.whole,
        "all owners that are known are walked through"
    );
    let (next, owners) = store.ledger.known_owners(&first.walk).await.unwrap();
    assert_eq!((next.as_str(), owners.as_slice()), ("0", &["Acme".to_owned()][..]));
    store.ledger.owners_walked(&next).await.unwrap();
    assert!(!tick(&store).await.whole);
    store
        .ledger
        .enqueue(&[Queued::new("pat", Round::Lists, "repos Acme")], &[])
        .await
        .unwrap();
    let lists = async || due(&store, "pat", Round::Lists, store.time() + 1).await;
    assert_eq!(lists().await, (vec!["repos Acme".to_owned()], true));
    store
        .ledger
        .discovered("pat", &[("Acme/app".into(), store.time() - DAY)], false)
        .await
        .unwrap();
    store
        .ledger
        .looked_at("pat", Round::Lists, "repos Acme", Some(store.time() + DAY), None)
        .await
        .unwrap();
    assert_eq!(
        due(&store, "pat", Round::Repos, store.time()).await,
        (vec!["Acme/app".to_owned()], true)
    );
    store
        .ledger
        .looked_at("pat", Round::Repos, "Acme/app", Some(store.time()), None)
        .await
        .unwrap();
    assert!(!lists().await.1, "all are visited");
    // The same Redis, another run of it.
    store.pass(HOUR);
    let mut connection = store.ledger.pool().get().await.unwrap();
    let _: i64 = redis::cmd("HSET")
        .arg("ledger:meta")
        .arg("run_id")
        .arg("another")
        .query_async(&mut connection)
        .await
        .unwrap();
    store.ledger.reconcile(store.time(), &[]).await.unwrap();
    assert!(tick(&store).await.whole);
    assert_eq!(
        lists().await,
        (vec![], true),
        "what was visited before counts for nothing"
    );
    store
        .ledger
        .enqueue(&[Queued::new("pat", Round::Lists, "repos Acme")], &[])
        .await
        .unwrap();
    assert_eq!(
        lists().await,
        (vec!["repos Acme".to_owned()], true),
        "what there is is asked for anew"
    );
    store.pass(HOUR);
    assert!(
        !lists().await.1,
        "what does not answer for an hour is not urgent any more"
    );
}

#[tokio::test]
async fn a_stray_is_deleted_when_it_was_seen_twice_and_is_nobodys() {
    let store = Store::open().await;
    store.apply(&queued(1, "acme")).await;
    let (live, _) = store.admit().await.remove(0);
    let scopes = async || due(&store, "pat", Round::Scopes, store.time() + 1).await.0;
    store
        .ledger
        .enqueue(&[Queued::new("pat", Round::Scopes, "orgs/acme")], &[])
        .await
        .unwrap();
    assert_eq!(scopes().await, ["orgs/acme"]);
    let registered = |name: &str, id: u64| Registered {
        name: name.to_owned(),
        id: id.to_string(),
    };
    let (stray, waking, ours) = (
        registered("jit-runner-9-x", 1),
        registered("jit-runner-8-x", 2),
        registered(&live, 3),
    );
    let (confirm, again) = (Duration::from_secs(600), Duration::from_secs(3600));
    let look = async |seen: &[Registered], cleared: &[Registered]| {
        store
            .ledger
            .strays("pat", "orgs/acme", seen, cleared, confirm, again)
            .await
            .unwrap()
    };
    let all = [stray.clone(), waking.clone(), ours.clone()];
    assert_eq!(look(&all, &[]).await, []);
    assert!(scopes().await.is_empty());
    store.pass(9 * MINUTE);
    assert_eq!(look(&all, &[]).await, [], "not ten minutes");
    store.pass(MINUTE);
    let deleted = look(&[stray.clone(), ours.clone()], std::slice::from_ref(&waking)).await;
    assert_eq!(deleted, std::slice::from_ref(&stray), "one is online, one is live here");
    store.pass(HOUR);
    assert_eq!(scopes().await, ["orgs/acme"]);
    assert_eq!(look(&[waking.clone(), ours], &[]).await, [], "seen anew, seen once");
    store.ledger.stray_gone("orgs/acme", &stray).await.unwrap();
    let recovery = store.ledger.recovery().await.unwrap();
    assert_eq!((recovery.strays, recovery.strays_deleted), (1, 1));
}

fn failed(guid: &str, id: u64, action: Action, at: i64) -> FailedDelivery {
    FailedDelivery {
        guid: guid.into(),
        id: id.to_string(),
        action: action.as_str().into(),
        at,
    }
}

#[tokio::test]
async fn deliveries_are_repeated_queued_ones_first_and_never_after_a_success() {
    let store = Store::open().await;
    let hook = "orgs/acme/hooks/1";
    let note = async |list: &[FailedDelivery], settled: &[&str]| {
        store
            .ledger
            .note_deliveries(
                hook,
                list,
                &settled.iter().map(|guid| (*guid).to_owned()).collect::<Vec<_>>(),
                3,
            )
            .await
            .unwrap();
    };
    let next = async || {
        store
            .ledger
            .redeliverable(hook, 10)
            .await
            .unwrap()
            .into_iter()
            .map(|it| (it.guid, it.id))
            .collect::<Vec<_>>()
    };
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
    assert_eq!(
        next().await,
        [pair("c", 3), pair("a", 1), pair("b", 2)],
        "queued, newest first; one has succeeded since"
    );
    store
        .ledger
        .redelivered(hook, "c", Repetition::Accepted, 3)
        .await
        .unwrap();
    note(&[failed("c", 3, Action::Queued, now - 1000)], &[]).await;
    assert_eq!(
        next().await,
        [pair("a", 1), pair("b", 2)],
        "the list is read again, and holds nothing new"
    );
    note(&[failed("c", 9, Action::Queued, now + 500)], &[]).await;
    assert_eq!(next().await.len(), 2, "it failed again, and waits a minute");
    store.ledger.hook_awake("orgs/other/hooks/1").await.unwrap();
    assert_eq!(next().await.len(), 2);
    store.ledger.hook_awake(hook).await.unwrap();
    assert_eq!(next().await[0], pair("c", 9), "the receiver is there again");
    for id in 10..20 {
        store
            .ledger
            .redelivered(hook, "c", Repetition::Accepted, 3)
            .await
            .unwrap();
        note(
            &[failed("c", id, Action::Queued, now + HOUR * i64::try_from(id).unwrap())],
            &[],
        )
        .await;
        store.pass(2 * HOUR);
    }
    assert_eq!(
        next().await,
        [pair("a", 1), pair("b", 2)],
        "three times, and not once more"
    );
    store
        .ledger
        .redelivered(hook, "a", Repetition::Forgotten, 3)
        .await
        .unwrap();
    note(&[], &["b"]).await;
    assert!(
        next().await.is_empty(),
        "GitHub has forgotten one, and a person has repeated the other"
    );
    note(
        &[
            failed("a", 98, Action::Queued, now + DAY),
            failed("b", 99, Action::Completed, now + DAY),
        ],
        &[],
    )
    .await;
    assert!(next().await.is_empty());
}

#[tokio::test]
async fn a_repetition_that_is_refused_is_tried_again_some_times() {
    let store = Store::open().await;
    let hook = "orgs/acme/hooks/1";
    let note = async || {
        store
            .ledger
            .note_deliveries(hook, &[failed("a", 1, Action::Queued, 1)], &[], 3)
            .await
            .unwrap()
    };
    note().await;
    for wait in [MINUTE, 2 * MINUTE] {
        assert_eq!(store.ledger.redeliverable(hook, 10).await.unwrap().len(), 1);
        store
            .ledger
            .redelivered(hook, "a", Repetition::Refused, 3)
            .await
            .unwrap();
        note().await;
        store.pass(wait - 1);
        assert!(store.ledger.redeliverable(hook, 10).await.unwrap().is_empty());
        store.pass(1);
    }
    assert_eq!(store.ledger.redeliverable(hook, 10).await.unwrap().len(), 1);
    store
        .ledger
        .redelivered(hook, "a", Repetition::Refused, 3)
        .await
        .unwrap();
    store.pass(HOUR);
    assert!(
        store.ledger.redeliverable(hook, 10).await.unwrap().is_empty(),
        "three times, and not once more"
    );
    let recovery = store.ledger.recovery().await.unwrap();
    assert_eq!(
        (recovery.failed_deliveries, recovery.redelivered),
        (0, 0),
        "nothing was repeated"
    );
}

#[tokio::test]
async fn one_worker_at_a_time_and_a_dead_one_holds_nobody_up() {
    let store = Store::open().await;
    let take = async |worker: &str| {
        store
            .ledger
            .take_recovery(worker, Duration::from_secs(120), Duration::from_secs(20))
            .await
            .unwrap()
    };
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
async fn hooks_are_remembered_with_what_they_tell_of() {
    let store = Store::open().await;
    let hook = "orgs/Acme/hooks/1";
    let covered = async || {
        store
            .ledger
            .any_has_a_hook(&["acme".to_owned(), "app:ci".to_owned()])
            .await
            .unwrap()
    };
    assert!(!covered().await);
    assert!(store.ledger.hook_found("pat", hook, Some("acme")).await.unwrap());
    let cursor = HookCursor {
        read_until: 5,
        walk_from: Some(9),
        page: Some("v1_3".into()),
        works: true,
        etag: Some("W/\"x\"".into()),
        unknown: 1,
    };
    store.ledger.keep_hook(hook, Some(&cursor), Some("acme")).await.unwrap();
    assert!(
        !store.ledger.hook_found("pat", hook, Some("acme")).await.unwrap(),
        "it is known"
    );
    assert_eq!(
        store.ledger.hook(hook).await.unwrap(),
        Some(cursor),
        "and goes on where it was"
    );
    assert!(covered().await);
    assert_eq!(due(&store, "pat", Round::Hooks, store.time()).await.0, [hook]);
    store.ledger.keep_hook(hook, None, Some("acme")).await.unwrap();
    assert_eq!(store.ledger.hook(hook).await.unwrap(), None);
    assert!(!covered().await);
}
