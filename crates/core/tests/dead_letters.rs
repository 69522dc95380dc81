//! Dead letters on a real Redis: an entry is in its stream or among them, whoever calls what how often; and one that
//! kills gets there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use jit_core::{
    ledger::LedgerError,
    store::{self, Pool},
    stream::{
        self, Entry, Reader,
        dead_letters::{self, DeadLetter, Order, Requeued},
        poison::{self, DEATHS, Suspect},
    },
};
use jit_testing::{fresh_redis, queued};

async fn redis<T: redis::FromRedisValue>(pool: &Pool, command: &[&str]) -> T {
    let mut connection = pool.get().await.expect("a connection");
    redis::cmd(command[0])
        .arg(&command[1..])
        .query_async(&mut connection)
        .await
        .expect("an answer")
}

async fn append(pool: &Pool, event: &str) -> String {
    redis(
        pool,
        &["XADD", "jit:events", "*", "v", "1", "event", event, "delivery", "d"],
    )
    .await
}

fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
    Entry {
        id: id.to_owned(),
        fields: fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<HashMap<_, _>>(),
    }
}

async fn letters(pool: &Pool) -> Vec<DeadLetter> {
    dead_letters::list(pool, Order::Oldest, None, 1000)
        .await
        .expect("a list")
        .letters
}

/// What the consumer holds and reads anew.
async fn read(settings: &jit_core::store::RedisSettings, consumer: &str) -> Vec<Entry> {
    Reader::new(settings.clone(), stream::EVENTS, consumer, Duration::from_millis(10))
        .read(64)
        .await
        .expect("read")
}

#[tokio::test]
async fn a_letter_goes_back_once_and_keeps_its_place() {
    let settings = fresh_redis();
    let pool = store::pool(&settings).expect("a pool");
    let event = serde_json::to_string(&queued(7, "Acme")).expect("JSON");
    let id: String = redis(
        &pool,
        &[
            "XADD",
            "jit:events",
            "1700000000000-5",
            "v",
            "1",
            "event",
            &event,
            "delivery",
            "d",
        ],
    )
    .await;
    let held = read(&settings, "w").await;
    for _ in 0..2 {
        dead_letters::bury(&pool, stream::EVENTS, &held[0], "the ledger rejects it")
            .await
            .expect("buried");
    }
    let all = letters(&pool).await;
    assert_eq!(all.len(), 1, "burying twice is burying once");
    let letter = &all[0];
    assert_eq!(
        (letter.stream.as_str(), &letter.entry_id, letter.reason.as_str()),
        ("jit:events", &id, "the ledger rejects it")
    );
    assert_eq!(
        (letter.accepted_at(), letter.event().map(|event| event.job.get())),
        (Some(1_700_000_000_000), Some(7))
    );
    assert_eq!(
        letter.fields.keys().map(String::as_str).collect::<Vec<_>>(),
        ["delivery", "event", "v"]
    );
    assert_eq!(
        dead_letters::one(&pool, &letter.id).await.expect("read").as_ref(),
        Some(letter)
    );
    assert_eq!(redis::<u64>(&pool, &["XLEN", "jit:events"]).await, 0);

    let Requeued::Back { stream, id: new } = dead_letters::requeue(&pool, &letter.id).await.expect("requeued") else {
        panic!("not back")
    };
    assert_eq!((stream.as_str(), new != id), ("jit:events", true));
    assert_eq!(
        dead_letters::requeue(&pool, &letter.id).await.expect("asked twice"),
        Requeued::Unknown
    );
    assert_eq!(
        (
            letters(&pool).await.len(),
            redis::<u64>(&pool, &["XLEN", "jit:events"]).await
        ),
        (0, 1)
    );
    let again = read(&settings, "w").await;
    assert_eq!(
        (&again[0].id, again[0].accepted_at()),
        (&new, Some(1_700_000_000_000)),
        "its job keeps its place"
    );
    assert_eq!(again[0].job_event().expect("readable"), queued(7, "Acme"));

    // And it dies again: what it remembers is not remembered twice.
    dead_letters::bury(&pool, stream::EVENTS, &again[0], "again")
        .await
        .expect("buried");
    let letter = &letters(&pool).await[0];
    assert_eq!(
        (letter.accepted_at(), letter.fields.len()),
        (Some(1_700_000_000_000), 4)
    );
    assert!(matches!(
        dead_letters::requeue(&pool, &letter.id).await.expect("requeued"),
        Requeued::Back { .. }
    ));
    assert_eq!(read(&settings, "w2").await[0].fields["accepted"], "1700000000000");
}

#[tokio::test]
async fn a_reservation_does_not_go_back_nor_does_what_came_from_nowhere() {
    let pool = store::pool(&fresh_redis()).expect("a pool");
    let _: String = redis(&pool, &["XADD", "jit:provision", "5-1", "v", "9", "runner", "r"]).await;
    dead_letters::bury(
        &pool,
        stream::PROVISION,
        &entry("5-1", &[("v", "9"), ("runner", "r")]),
        "version 9",
    )
    .await
    .expect("buried");
    let id = letters(&pool).await[0].id.clone();
    assert_eq!(
        dead_letters::requeue(&pool, &id).await.expect("asked"),
        Requeued::Dropped
    );
    assert_eq!(
        dead_letters::requeue(&pool, &id).await.expect("asked twice"),
        Requeued::Unknown
    );
    assert_eq!(
        (
            letters(&pool).await.len(),
            redis::<u64>(&pool, &["XLEN", "jit:provision"]).await
        ),
        (0, 0)
    );
    for fields in [
        &["stream", "org_limits", "entry.v", "1"][..],
        &["reason", "none"],
        &["stream", "jit:events"],
    ] {
        let id: String = redis(&pool, &[&["XADD", "jit:dead", "*"], fields].concat()).await;
        assert!(
            matches!(
                dead_letters::requeue(&pool, &id).await.expect("asked"),
                Requeued::Stuck { .. }
            ),
            "{fields:?}"
        );
        assert!(
            dead_letters::one(&pool, &id).await.expect("read").is_some(),
            "it is left where it is"
        );
        assert!(dead_letters::remove(&pool, &id).await.expect("dropped"));
        assert!(!dead_letters::remove(&pool, &id).await.expect("asked twice"));
    }
    assert_eq!(
        redis::<u64>(&pool, &["DBSIZE"]).await,
        redis::<u64>(&pool, &["EXISTS", "jit:dead", "jit:provision"]).await
    );
    for wrong in ["", "+", "5", "jit:events", "5-1-1"] {
        assert!(
            matches!(dead_letters::requeue(&pool, wrong).await, Err(LedgerError::Rejected(_))),
            "{wrong}"
        );
        assert!(dead_letters::one(&pool, wrong).await.is_err() && dead_letters::remove(&pool, wrong).await.is_err());
        assert!(dead_letters::list(&pool, Order::Newest, Some(wrong), 5).await.is_err());
    }
}

#[tokio::test]
async fn letters_are_listed_in_pages_in_both_directions() {
    let pool = store::pool(&fresh_redis()).expect("a pool");
    assert_eq!(
        dead_letters::list(&pool, Order::Newest, None, 3).await.expect("a list"),
        dead_letters::Page::default()
    );
    for (order, end) in [
        (Order::Newest, "0-0"),
        (Order::Newest, "00-0"),
        (Order::Oldest, "18446744073709551615-18446744073709551615"),
    ] {
        assert!(
            dead_letters::list(&pool, order, Some(end), 3)
                .await
                .expect("a list")
                .letters
                .is_empty(),
            "{end}"
        );
    }
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(
            redis::<String>(
                &pool,
                &[
                    "XADD",
                    "jit:dead",
                    &format!("{}-{}", 10 + n / 3, n),
                    "stream",
                    "jit:events",
                    "reason",
                    "r",
                ],
            )
            .await,
        );
    }
    for order in [Order::Newest, Order::Oldest] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = dead_letters::list(&pool, order, cursor.as_deref(), 3)
                .await
                .expect("a page");
            assert!(page.letters.len() <= 3);
            seen.extend(page.letters.into_iter().map(|letter| letter.id));
            pages += 1;
            // What was the cursor may go meanwhile.
            if let (Order::Newest, Some(next)) = (order, &page.next) {
                let _: u64 = redis(&pool, &["XDEL", "jit:dead", next]).await;
                ids.retain(|id| id != next);
                seen.retain(|id| id != next);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if order == Order::Newest {
            seen.reverse();
            assert_eq!(pages, 3);
        }
        assert_eq!(seen, ids);
    }
}

/// A worker that takes over what the dead held and dies over the poison, having handled all that came before it.
async fn live_and_die(pool: &Pool, worker: &str, poison: &str) -> (Vec<String>, Option<String>) {
    let living = HashSet::from([worker.to_owned()]);
    let taken = poison::take_over(pool, stream::EVENTS, worker, &living, 64)
        .await
        .expect("taken over");
    if taken.entries.iter().any(|entry| entry.id == poison) {
        return (Vec::new(), None);
    }
    // As intake does: a batch is acknowledged as one.
    let mut done: Vec<String> = taken.entries.into_iter().map(|entry| entry.id).collect();
    stream::acknowledge(pool, stream::EVENTS, &done)
        .await
        .expect("acknowledged");
    for id in taken.suspects {
        match poison::take_suspect(pool, stream::EVENTS, worker, &id)
            .await
            .expect("taken")
        {
            Suspect::Alone(entry, _) if entry.id == poison => return (done, None),
            Suspect::Alone(entry, _) => {
                stream::acknowledge(pool, stream::EVENTS, std::slice::from_ref(&entry.id))
                    .await
                    .expect("acknowledged");
                done.push(entry.id);
            }
            Suspect::Buried(_, reason) => return (done, Some(reason)),
            Suspect::Gone => {}
        }
    }
    (done, None)
}

#[tokio::test]
async fn an_entry_that_kills_its_workers_is_buried_and_holds_nothing_else_up() {
    let settings = fresh_redis();
    let pool = store::pool(&settings).expect("a pool");
    let mut ids = Vec::new();
    for n in 0..9 {
        ids.push(append(&pool, &n.to_string()).await);
    }
    let poison = ids[4].clone();
    // A bad network is not a death: it reads what it holds again and again.
    for _ in 0..20 {
        assert_eq!(read(&settings, "worker-0").await.len(), 9);
    }
    let (mut done, mut buried, mut workers) = (Vec::new(), None, 0);
    while buried.is_none() {
        workers += 1;
        assert!(workers <= DEATHS, "it circles");
        let (more, reason) = live_and_die(&pool, &format!("worker-{workers}"), &poison).await;
        done.extend(more);
        buried = reason;
        if workers == DEATHS - 1 {
            assert_eq!(done.len(), 8, "those that were with it were done before it was buried");
        }
    }
    assert_eq!(
        (workers, buried.as_deref()),
        (DEATHS, Some("5 workers died while they held it"))
    );
    ids.retain(|id| *id != poison);
    done.sort();
    assert_eq!(done, ids);
    let letter = &letters(&pool).await[0];
    assert_eq!((&letter.entry_id, letter.fields["event"].as_str()), (&poison, "4"));
    assert_eq!(
        redis::<u64>(&pool, &["EXISTS", "jit:events:deaths"]).await,
        0,
        "nothing is left of the count"
    );
    let pending: BTreeMap<String, redis::Value> =
        BTreeMap::from_iter(redis::<Vec<(String, redis::Value)>>(&pool, &["XRANGE", "jit:events", "-", "+"]).await);
    assert!(pending.is_empty(), "{pending:?}");
    // Requeued, it begins anew.
    assert!(matches!(
        dead_letters::requeue(&pool, &letter.id).await.expect("requeued"),
        Requeued::Back { .. }
    ));
    assert_eq!(read(&settings, "worker-9").await.len(), 1);
    let taken = poison::take_over(&pool, stream::EVENTS, "worker-10", &HashSet::new(), 64)
        .await
        .expect("taken over");
    assert_eq!((taken.entries.len(), taken.suspects.len()), (1, 0));
}
