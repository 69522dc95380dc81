//! Every call of GitHub, by all workers together: on a real Redis, with a clock of the test's.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jit_core::{
    event::JobId,
    ledger::{AT_ONCE, Budget, CallOf, Ended, Entering, Observation, RateWord, Spending, Turn, Whose},
};
use jit_testing::{Store, maker, queued, waiting};

const OFF: Budget = Budget {
    registrations: 0,
    points_per_minute: 0,
    spare_calls_per_hour: 0,
};
const TOKEN: CallOf<'_> = CallOf {
    credential: "default",
    app: false,
    owner: None,
    enterprise: false,
};
const TIMEOUT: Duration = Duration::from_secs(20);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An App itself, or its installation.
fn app<'a>(owner: Option<&'a str>) -> CallOf<'a> {
    CallOf {
        credential: "app",
        app: true,
        owner,
        enterprise: false,
    }
}

fn deletion(call: &str) -> Entering<'_> {
    Entering {
        call,
        endpoint: "delete-runner",
        writes: true,
        timeout: TIMEOUT,
    }
}

fn question(call: &str) -> Entering<'_> {
    Entering {
        call,
        endpoint: "job",
        writes: false,
        timeout: TIMEOUT,
    }
}

async fn enter(store: &Store, who: &CallOf<'_>, call: &str) -> Turn {
    store
        .ledger
        .enter_call(who, &deletion(call), &OFF)
        .await
        .expect("an answer")
}

async fn leave(store: &Store, who: &CallOf<'_>, call: &str, ended: Ended) {
    store.ledger.leave_call(who, Some(call), &ended).await.expect("told");
}

fn limited(seconds: u64, whole: bool) -> Ended {
    Ended::Limited(
        secs(seconds),
        whole,
        "deletion of runner 5: GitHub answered 403: API rate limit exceeded".into(),
    )
}

fn held(turn: Turn) -> Option<Duration> {
    match turn {
        Turn::Now => None,
        Turn::Held(wait, _) => Some(wait),
        Turn::Soon(..) => panic!("not held, only early: {turn:?}"),
    }
}

/// So many runners of an organization, at work for its jobs and served by this credential.
async fn runners(store: &Store, org: &str, credential: &str, first: u64, n: u64) -> Vec<String> {
    for job in first..first + n {
        store.apply(&queued(job, org)).await;
    }
    let mut names = Vec::new();
    for (github_id, (name, fence)) in (first..).zip(store.admit().await) {
        store
            .ledger
            .claim(&name, &fence, &maker("w", credential))
            .await
            .unwrap();
        store
            .ledger
            .registered(&name, &fence, github_id, TIMEOUT)
            .await
            .unwrap();
        store.ledger.created(&name, &fence).await.unwrap();
        names.push(name);
    }
    names
}

#[tokio::test]
async fn a_limit_that_one_call_meets_holds_all_of_the_credentials() {
    let store = Store::open().await;
    assert_eq!(enter(&store, &TOKEN, "w1:1").await, Turn::Now);
    assert_eq!(enter(&store, &TOKEN, "w2:1").await, Turn::Now, "before it is known");
    leave(&store, &TOKEN, "w1:1", limited(600, false)).await;
    store.pass(1000);
    let Turn::Held(wait, why) = enter(&store, &TOKEN, "w2:2").await else {
        panic!("not held")
    };
    assert_eq!(wait, secs(599));
    assert!(why.contains("API rate limit exceeded"), "{why}");
    leave(&store, &TOKEN, "w2:1", Ended::Answered).await;
    assert!(
        held(enter(&store, &TOKEN, "w2:3").await).is_some(),
        "what was under way before proves nothing"
    );
    leave(&store, &TOKEN, "w2:1", limited(60, false)).await;
    assert_eq!(
        held(enter(&store, &TOKEN, "w2:3").await),
        Some(secs(599)),
        "and cuts nothing short"
    );
    let other = CallOf {
        credential: "other",
        ..TOKEN
    };
    assert_eq!(
        enter(&store, &other, "w2:4").await,
        Turn::Now,
        "another credential has its own"
    );
    let Spending::Wait { whose, wait, why } = store
        .ledger
        .spend_registration("default", "orgs/acme", "r", &OFF)
        .await
        .unwrap()
    else {
        panic!("not held")
    };
    assert_eq!((whose, wait), (Whose::Credential, secs(599)));
    assert!(why.contains("API rate limit exceeded"), "{why}");
}

#[tokio::test]
async fn after_a_hold_one_call_goes_first() {
    let store = Store::open().await;
    enter(&store, &TOKEN, "1").await;
    leave(&store, &TOKEN, "1", limited(60, false)).await;
    store.pass(60_000);
    assert_eq!(
        enter(&store, &TOKEN, "2").await,
        Turn::Now,
        "it tries whether it is over"
    );
    assert!(
        matches!(enter(&store, &TOKEN, "3").await, Turn::Soon(..)),
        "the others wait for it"
    );
    leave(&store, &TOKEN, "2", Ended::Unanswered).await;
    assert_eq!(
        enter(&store, &TOKEN, "3").await,
        Turn::Now,
        "it learned nothing: the next one tries"
    );
    leave(&store, &TOKEN, "3", limited(60, false)).await;
    assert_eq!(held(enter(&store, &TOKEN, "4").await), Some(secs(60)));
    store.pass(60_000);
    assert_eq!(enter(&store, &TOKEN, "4").await, Turn::Now);
    store.pass(31_000);
    assert_eq!(enter(&store, &TOKEN, "5").await, Turn::Now, "its worker is dead");
    leave(&store, &TOKEN, "5", Ended::Answered).await;
    for call in ["6", "7", "8"] {
        assert_eq!(enter(&store, &TOKEN, call).await, Turn::Now, "it is over");
    }
}

#[tokio::test]
async fn a_refused_credential_is_tried_every_25_s_and_later_ever_more_seldom() {
    let store = Store::open().await;
    let (mut passed, mut waits) = (0, Vec::new());
    while passed < 3_600 {
        assert_eq!(enter(&store, &TOKEN, "1").await, Turn::Now);
        leave(&store, &TOKEN, "1", Ended::Unauthorized).await;
        store
            .ledger
            .leave_call(&TOKEN, None, &Ended::Refused("401: Bad credentials".into()))
            .await
            .unwrap();
        store
            .ledger
            .leave_call(&TOKEN, None, &Ended::Refused("401: another at the same time".into()))
            .await
            .unwrap();
        let wait = held(enter(&store, &TOKEN, "1").await).expect("held");
        store.pass(i64::try_from(wait.as_millis()).unwrap());
        passed += wait.as_secs();
        waits.push(wait.as_secs());
    }
    assert!(
        waits.iter().take(36).all(|wait| *wait == 25),
        "a quarter of an hour: {waits:?}"
    );
    assert_eq!(waits[36..42], [50, 100, 200, 300, 300, 300], "{waits:?}");
    assert_eq!(enter(&store, &TOKEN, "1").await, Turn::Now);
    leave(&store, &TOKEN, "1", Ended::Answered).await;
    store
        .ledger
        .leave_call(&TOKEN, None, &Ended::Refused("401".into()))
        .await
        .unwrap();
    assert_eq!(
        held(enter(&store, &TOKEN, "1").await),
        Some(secs(25)),
        "a success begins anew"
    );
}

#[tokio::test]
async fn an_app_is_held_where_its_limit_is() {
    let store = Store::open().await;
    let (acme, other) = (app(Some("acme")), app(Some("other")));
    leave(&store, &acme, "1", limited(600, false)).await;
    assert!(held(enter(&store, &acme, "2").await).is_some());
    assert_eq!(
        enter(&store, &other, "3").await,
        Turn::Now,
        "another installation has its own hour"
    );
    assert_eq!(
        enter(&store, &app(None), "4").await,
        Turn::Now,
        "and so has the App itself"
    );
    leave(&store, &other, "5", limited(60, true)).await;
    assert!(
        held(enter(&store, &other, "6").await).is_some() && held(enter(&store, &app(None), "6").await).is_some(),
        "a secondary limit is everybody's"
    );
    store.ledger.renew_credential("app").await.unwrap();
    for who in [acme, other, app(None)] {
        assert_eq!(enter(&store, &who, "7").await, Turn::Now, "a new credential: {who:?}");
    }
    store
        .ledger
        .leave_call(&app(None), None, &Ended::Refused("401: the App's key".into()))
        .await
        .unwrap();
    assert_eq!(held(enter(&store, &app(None), "8").await), Some(secs(25)));
    assert_eq!(enter(&store, &acme, "9").await, Turn::Now, "the tokens at hand hold");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_github_allows_and_a_dead_workers_end_by_themselves() {
    let store = Store::open().await;
    for call in 0..AT_ONCE {
        assert_eq!(
            enter(&store, &app(Some(&format!("o{}", call % 7))), &format!("w1:{call}")).await,
            Turn::Now,
            "call {call}"
        );
    }
    let Turn::Soon(_, why) = enter(&store, &app(None), "w2:1").await else {
        panic!("one too many")
    };
    assert!(why.contains("100 calls of credential app are under way"), "{why}");
    assert_eq!(
        enter(&store, &TOKEN, "w2:2").await,
        Turn::Now,
        "another credential has its own"
    );
    leave(&store, &app(None), "w1:7", Ended::Unanswered).await;
    assert_eq!(enter(&store, &app(None), "w2:1").await, Turn::Now);
    assert!(matches!(enter(&store, &app(None), "w2:3").await, Turn::Soon(..)));
    store.pass(30_000); // a time-out of 20 s, and 10 s to say so
    for call in 0..AT_ONCE {
        assert_eq!(
            enter(&store, &app(None), &format!("w3:{call}")).await,
            Turn::Now,
            "call {call}"
        );
    }
}

#[tokio::test]
async fn points_are_counted_by_method_and_endpoint() {
    let (store, budget) = (
        Store::open().await,
        Budget {
            points_per_minute: 12,
            ..OFF
        },
    );
    let ask = async |call: Entering<'_>| {
        store
            .ledger
            .enter_call(&TOKEN, &call, &budget)
            .await
            .expect("an answer")
    };
    assert_eq!(ask(deletion("1")).await, Turn::Now);
    store.pass(10_000);
    assert_eq!(ask(deletion("2")).await, Turn::Now);
    let Turn::Soon(wait, why) = ask(deletion("3")).await else {
        panic!("15 points")
    };
    assert_eq!(wait, secs(50));
    assert!(
        why.contains("12 points") && why.contains("delete-runner") && why.contains("GITHUB_POINTS_PER_MINUTE"),
        "{why}"
    );
    for call in ["4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"] {
        assert_eq!(
            ask(question(call)).await,
            Turn::Now,
            "one point each, and another endpoint"
        );
    }
    assert!(matches!(ask(question("16")).await, Turn::Soon(..)));
    store.pass(50_000);
    assert_eq!(ask(deletion("3")).await, Turn::Now, "when it was said");
    let little = Budget {
        points_per_minute: 3,
        ..OFF
    };
    store.pass(120_000);
    assert_eq!(
        store.ledger.enter_call(&TOKEN, &deletion("17"), &little).await.unwrap(),
        Turn::Now,
        "one a minute at least"
    );
    assert!(matches!(
        store.ledger.enter_call(&TOKEN, &deletion("18"), &little).await.unwrap(),
        Turn::Soon(..)
    ));
}

#[tokio::test]
async fn calls_are_booked_in_the_hour_and_one_that_is_used_up_holds() {
    let store = Store::open().await;
    store
        .ledger
        .note_rate(
            "default",
            &RateWord {
                limit: 100,
                remaining: 2,
                reset_in: secs(600),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        (enter(&store, &TOKEN, "1").await, enter(&store, &TOKEN, "2").await),
        (Turn::Now, Turn::Now)
    );
    let Turn::Held(wait, why) = enter(&store, &TOKEN, "3").await else {
        panic!("none is left")
    };
    assert_eq!(wait, secs(600));
    assert!(why.contains("used up the 100 calls"), "{why}");
    store.pass(600_000);
    assert_eq!(enter(&store, &TOKEN, "3").await, Turn::Now, "a new hour");
}

#[tokio::test]
async fn what_is_held_costs_no_call_and_is_there_when_it_is_over() {
    let store = Store::open().await;
    let (held, free) = (
        runners(&store, "Acme", "poor", 1, 6).await,
        runners(&store, "Other", "rich", 101, 2).await,
    );
    for name in held.iter().chain(&free) {
        store.ledger.observe(Observation::Remove, name, "a test").await.unwrap();
    }
    store.apply(&waiting(50, "Acme")).await;
    let poor = CallOf {
        credential: "poor",
        ..TOKEN
    };
    leave(&store, &poor, "1", limited(1800, false)).await;
    // Looked at lazily, so many at a time: the other owner's work is behind what is held, and is found.
    let (mut due, mut put_off) = (Vec::new(), 0);
    loop {
        let some = store.ledger.due(3, secs(60)).await.unwrap();
        put_off += some.held;
        if some.is_empty() && some.held == 0 {
            break;
        }
        assert!(some.questions.is_empty() && some.registrations.is_empty(), "{some:?}");
        due.extend(some.removals.into_iter().map(|removal| removal.name));
    }
    due.sort();
    assert_eq!(
        (due, put_off),
        (
            {
                let mut free = free.clone();
                free.sort();
                free
            },
            6
        )
    );
    for name in &free {
        store.ledger.observe(Observation::Absent, name, "gone").await.unwrap();
    }
    for minute in 0..29 {
        let due = store.due_after(60_000).await;
        assert!(due.removals.is_empty(), "minute {minute}: {due:?}");
    }
    // The hold ends, and each comes at a time of its own within the minute after.
    let mut came = 0;
    for _ in 0..70 {
        came += store.due_after(1000).await.removals.len();
    }
    assert!(came >= 6, "{came}");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_hold_stops_admission_says_why_and_a_new_credential_lifts_it_at_once() {
    let store = Store::open().await;
    let name = runners(&store, "Acme", "poor", 1, 1).await.remove(0);
    leave(
        &store,
        &CallOf {
            credential: "poor",
            ..TOKEN
        },
        "1",
        limited(3600, false),
    )
    .await;
    store
        .ledger
        .observe(Observation::Remove, &name, "a test")
        .await
        .unwrap();
    store.apply(&queued(2, "Acme")).await;
    assert!(store.admit().await.is_empty(), "nothing is reserved");
    assert_eq!(store.ledger.due(64, secs(60)).await.unwrap().held, 1);
    let explained = store.ledger.explain(JobId::new(2).unwrap()).await.unwrap();
    assert!(
        explained.why.contains("API rate limit exceeded") && explained.next.is_some(),
        "{explained:?}"
    );
    store.ledger.renew_credential("poor").await.unwrap();
    assert!(!store.admit().await.is_empty());
    assert_eq!(
        store.due_after(66_001).await.removals.len(),
        1,
        "and what was put off comes within about a minute"
    );
}

#[tokio::test]
async fn an_installation_that_is_used_up_holds_its_organization_alone() {
    let store = Store::open().await;
    runners(&store, "Acme", "app", 1, 1).await;
    runners(&store, "Other", "app", 11, 1).await;
    leave(&store, &app(Some("acme")), "1", limited(3600, false)).await;
    store.apply(&queued(2, "Acme")).await;
    store.apply(&queued(12, "Other")).await;
    let reserved = store.admit().await;
    assert!(
        reserved.iter().any(|(name, _)| name.contains("-12-"))
            && !reserved.iter().any(|(name, _)| name.contains("-2-")),
        "{reserved:?}"
    );
}
