//! GitHub's limits, kept ahead of time: on a real Redis, with a clock of the test's.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use jit_core::{
    event::JobId,
    ledger::{BackOff, Budget, Claim, Growth, Hold, Needs, RateWord, Spare, Spending, Subject, Whose},
};
use jit_testing::{Store, failed, maker, queued};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;
const OFF: Budget = Budget {
    registrations: 0,
    points_per_minute: 0,
    spare_calls_per_hour: 0,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn word(limit: u64, remaining: u64, reset_in: u64) -> RateWord {
    RateWord {
        limit,
        remaining,
        reset_in: secs(reset_in),
    }
}

async fn spend(store: &Store, scope: &str, runner: &str, budget: &Budget) -> Spending {
    store
        .ledger
        .spend_registration("default", scope, runner, budget)
        .await
        .expect("an answer")
}

/// Whose limit holds it back, and for how long; none where it is allowed.
fn held(spending: Spending) -> Option<(Whose, Duration)> {
    match spending {
        Spending::Allowed => None,
        Spending::Wait { whose, wait, .. } => Some((whose, wait)),
    }
}

#[tokio::test]
async fn a_scope_has_its_registrations_in_five_minutes_and_not_one_more() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            registrations: 3,
            ..OFF
        },
    );
    for runner in ["a", "b", "c"] {
        assert_eq!(spend(&store, "orgs/Acme", runner, &budget).await, Spending::Allowed);
        store.pass(1000);
    }
    let Spending::Wait { whose, wait, why } = spend(&store, "orgs/acme", "d", &budget).await else {
        panic!("the fourth is allowed")
    };
    assert_eq!((whose, wait), (Whose::Scope, secs(297)));
    assert!(
        why.contains("3 registrations") && why.contains("GITHUB_REGISTRATION_LIMIT"),
        "{why}"
    );
    assert_eq!(
        spend(&store, "orgs/other", "d", &budget).await,
        Spending::Allowed,
        "another scope has its own"
    );
    store.pass(297_000 - 1);
    assert_eq!(
        held(spend(&store, "orgs/acme", "d", &budget).await),
        Some((Whose::Scope, Duration::from_millis(1)))
    );
    store.pass(1);
    assert_eq!(
        spend(&store, "orgs/acme", "d", &budget).await,
        Spending::Allowed,
        "at the very time that was said"
    );
    assert_eq!(
        held(spend(&store, "orgs/acme", "e", &budget).await),
        Some((Whose::Scope, secs(1)))
    );
}

#[tokio::test]
async fn a_registration_counts_from_its_answer_and_one_that_was_never_sent_does_not() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            registrations: 1,
            ..OFF
        },
    );
    assert_eq!(spend(&store, "orgs/acme", "slow", &budget).await, Spending::Allowed);
    store.pass(180_000);
    store
        .ledger
        .settle_registration("default", "orgs/Acme", "slow", true, &budget)
        .await
        .expect("settled");
    assert_eq!(
        held(spend(&store, "orgs/acme", "next", &budget).await),
        Some((Whose::Scope, secs(300)))
    );
    store.pass(300_000);
    assert_eq!(spend(&store, "orgs/acme", "next", &budget).await, Spending::Allowed);
    store
        .ledger
        .settle_registration("default", "orgs/acme", "next", false, &budget)
        .await
        .expect("settled");
    assert_eq!(
        spend(&store, "orgs/acme", "another", &budget).await,
        Spending::Allowed,
        "its pod was refused: GitHub was not asked"
    );
}

#[tokio::test]
async fn a_minute_has_its_points() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            points_per_minute: 10,
            ..OFF
        },
    );
    assert_eq!(spend(&store, "orgs/a", "1", &budget).await, Spending::Allowed);
    assert_eq!(spend(&store, "orgs/b", "2", &budget).await, Spending::Allowed);
    assert_eq!(
        held(spend(&store, "orgs/c", "3", &budget).await),
        Some((Whose::Credential, secs(60))),
        "5 points each"
    );
    let other = store
        .ledger
        .spend_registration("other", "orgs/c", "3", &budget)
        .await
        .expect("an answer");
    assert_eq!(other, Spending::Allowed, "another credential has its own");
    store.pass(MINUTE);
    assert_eq!(spend(&store, "orgs/c", "3", &budget).await, Spending::Allowed);
}

#[tokio::test]
async fn the_last_calls_of_the_hour_are_kept_for_removals() {
    let store = Store::empty().await;
    store
        .ledger
        .note_rate("default", &word(100, 5, 600))
        .await
        .expect("noted");
    for runner in ["a", "b", "c"] {
        assert_eq!(spend(&store, "orgs/acme", runner, &OFF).await, Spending::Allowed);
    }
    let Spending::Wait { whose, wait, why } = spend(&store, "orgs/acme", "d", &OFF).await else {
        panic!("2 of 100 are kept")
    };
    assert_eq!((whose, wait), (Whose::Credential, secs(600)));
    assert!(why.contains("2 of the 100 calls"), "{why}");
    store.pass(660_000);
    assert_eq!(
        spend(&store, "orgs/acme", "d", &OFF).await,
        Spending::Allowed,
        "a new hour, of which GitHub has said nothing"
    );
}

#[tokio::test]
async fn words_of_one_hour_that_overtake_each_other_do_not_give_calls_back() {
    let store = Store::empty().await;
    store
        .ledger
        .note_rate("default", &word(100, 2, 600))
        .await
        .expect("noted");
    store
        .ledger
        .note_rate("default", &word(100, 50, 601))
        .await
        .expect("an older word of the same hour");
    assert!(held(spend(&store, "orgs/acme", "a", &OFF).await).is_some());
    store
        .ledger
        .note_rate("default", &word(100, 50, 1800))
        .await
        .expect("another token's hour");
    assert_eq!(spend(&store, "orgs/acme", "a", &OFF).await, Spending::Allowed);
}

#[tokio::test]
async fn optional_calls_leave_half_of_the_hour_and_keep_to_their_number() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            spare_calls_per_hour: 10,
            ..OFF
        },
    );
    let spare = async |calls| {
        store
            .ledger
            .spend_spare("default", calls, &budget)
            .await
            .expect("an answer")
    };
    assert_eq!(spare(6).await, Spare::Allowed);
    store.pass(MINUTE);
    assert_eq!(spare(4).await, Spare::Allowed);
    let Spare::Wait(wait) = spare(1).await else {
        panic!("the eleventh of an hour")
    };
    assert!(wait > secs(59 * 60) && wait <= secs(61 * 60), "{wait:?}");
    store.pass(i64::try_from(wait.as_millis()).expect("hours"));
    assert_eq!(spare(6).await, Spare::Allowed, "as many as were given back");
    assert!(matches!(spare(1).await, Spare::Wait(_)));
    store.pass(120 * MINUTE);
    store
        .ledger
        .note_rate("default", &word(100, 52, 900))
        .await
        .expect("noted");
    assert_eq!(spare(2).await, Spare::Allowed);
    assert_eq!(
        spare(1).await,
        Spare::Wait(secs(900)),
        "half of the hour's calls are the runners'"
    );
    assert_eq!(spend(&store, "orgs/acme", "a", &OFF).await, Spending::Allowed);
    assert!(
        matches!(
            store.ledger.spend_spare("default", 1, &OFF).await.expect("an answer"),
            Spare::Wait(_)
        ),
        "turned off"
    );
}

#[tokio::test]
async fn optional_calls_that_github_does_not_count_are_given_back_but_in_their_minute() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            spare_calls_per_hour: 2,
            ..OFF
        },
    );
    let spare = async || {
        store
            .ledger
            .spend_spare("default", 1, &budget)
            .await
            .expect("an answer")
    };
    for _ in 0..600 {
        assert_eq!(spare().await, Spare::Allowed);
        store.ledger.uncount_spare("default").await.expect("given back");
    }
    let Spare::Wait(wait) = spare().await else {
        panic!("enough for a minute")
    };
    assert!(wait <= secs(60), "{wait:?}");
    store.pass(MINUTE);
    assert_eq!((spare().await, spare().await), (Spare::Allowed, Spare::Allowed));
    let Spare::Wait(wait) = spare().await else {
        panic!("two were counted")
    };
    assert!(wait > secs(59 * 60), "{wait:?}");
    store.ledger.uncount_spare("default").await.expect("given back");
    assert_eq!(spare().await, Spare::Allowed);
}

#[tokio::test]
async fn a_server_without_limits_has_those_of_the_minute_alone() {
    let (store, budget) = (
        Store::empty().await,
        Budget {
            spare_calls_per_hour: 1,
            ..OFF
        },
    );
    let spare = async || {
        store
            .ledger
            .spend_spare("default", 1, &budget)
            .await
            .expect("an answer")
    };
    assert_eq!(spare().await, Spare::Allowed);
    assert!(matches!(spare().await, Spare::Wait(_)), "nobody has said so");
    store.ledger.note_unlimited("default").await.expect("noted");
    for _ in 0..599 {
        assert_eq!(spare().await, Spare::Allowed);
    }
    assert!(matches!(spare().await, Spare::Wait(wait) if wait <= secs(60)));
    assert!(
        matches!(
            store.ledger.spend_spare("default", 1, &OFF).await.expect("an answer"),
            Spare::Wait(_)
        ),
        "turned off"
    );
}

#[tokio::test]
async fn a_credential_that_became_another_is_tried_at_once() {
    let store = Store::open().await;
    store.apply(&queued(1, "Acme")).await;
    let (name, fence) = store.admit().await.remove(0);
    assert!(matches!(
        store.ledger.claim(&name, &fence, &maker("w", "poor")).await.unwrap(),
        Claim::Ours(_)
    ));
    store
        .ledger
        .note_rate("poor", &word(100, 0, 3600))
        .await
        .expect("noted");
    let spending = store
        .ledger
        .spend_registration("poor", "orgs/Acme", &name, &OFF)
        .await
        .expect("an answer");
    let Spending::Wait { wait, why, .. } = spending else {
        panic!("nothing is left")
    };
    let hold = Hold {
        chain: &[Subject::Credential],
        needs: Needs::Made,
        first: wait,
        most: wait,
        growth: Growth::Named,
    };
    let failure = failed(BackOff::Hold(hold), &why);
    store.ledger.fail(&name, &fence, &failure).await.expect("noted");
    assert!(store.admit().await.is_empty(), "held for an hour");
    let explained = store.ledger.explain(JobId::new(1).unwrap()).await.expect("explained");
    assert!(
        explained.why.contains("credential poor") && explained.next == Some(store.time() + 3_600_000),
        "{explained:?}"
    );
    store.ledger.renew_credential("poor").await.expect("renewed");
    assert_eq!(store.admit().await.len(), 1);
    assert_eq!(
        store
            .ledger
            .spend_registration("poor", "orgs/Acme", &name, &OFF)
            .await
            .expect("an answer"),
        Spending::Allowed
    );
    store.assert_sound().await;
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        scope: usize,
        runner: usize,
    },
    /// Of a runner that was allowed before.
    Settle {
        scope: usize,
        runner: usize,
        sent: bool,
    },
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, 0..40usize).prop_map(|(scope, runner)| Step::Ask { scope, runner }),
        2 => (0..2usize, 0..40usize, any::<bool>()).prop_map(|(scope, runner, sent)| Step::Settle { scope, runner,
            sent }),
        2 => (0..90_000i64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However calls are asked for and settled, no 5 minutes hold more registrations of a scope than allowed, and a
    /// wait is neither too long nor too short.
    #[test]
    fn no_window_is_ever_exceeded(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (store, budget) = (Store::empty().await, Budget { registrations: 4, ..OFF });
            // What counts, by scope and runner: since when.
            let mut counted: [BTreeMap<usize, i64>; 2] = Default::default();
            for step in steps {
                let now = store.time();
                for window in &mut counted {
                    window.retain(|_, at| now - *at < 300_000);
                }
                match step {
                    Step::Pass(ms) => store.pass(ms),
                    Step::Ask { scope, runner } => {
                        let mut times: Vec<i64> = counted[scope].values().copied().collect();
                        times.sort_unstable();
                        let answer = held(spend(&store, &format!("orgs/{scope}"), &runner.to_string(), &budget).await);
                        let expected = (times.len() >= 4).then(|| {
                            let wait = times[times.len() - 4] + 300_000 - now;
                            (Whose::Scope, Duration::from_millis(wait.try_into().expect("ahead")))
                        });
                        prop_assert_eq!(answer, expected);
                        if answer.is_none() {
                            counted[scope].insert(runner, now);
                        }
                        prop_assert!(counted[scope].len() <= 4);
                    }
                    Step::Settle { scope, runner, sent } => {
                        if !counted[scope].contains_key(&runner) {
                            continue;
                        }
                        store.ledger.settle_registration("default", &format!("orgs/{scope}"), &runner.to_string(), sent,
                            &budget).await.expect("settled");
                        if sent {
                            counted[scope].insert(runner, now);
                        } else {
                            counted[scope].remove(&runner);
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
