//! A user of Redis that lacks a right, or loses one: it is told, and no script writes half.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use futures::future::BoxFuture;
use jit_core::{
    event::JobId,
    ledger::{
        Answer, AnswerStatus, Applied, Budget, CallOf, Ended, Entering, Ledger, LedgerError, Observation, Question,
        RateWord, Subject,
        recovery::{FailedDelivery, RecoverySettings},
    },
    model::JobState,
    store::{
        self, RedisSettings,
        check::{Checks, Severity, look},
        rights::{KEYS, called, commands},
    },
};
use jit_testing::{Store, completed, default_limits, eventually, in_progress, maker, queued, refused, why};
use prometheus_client::metrics::gauge::Gauge;
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

const OFF: Budget = Budget {
    registrations: 10,
    points_per_minute: 100,
    spare_calls_per_hour: 100,
};

/// What the store is spoken to as: with these rules of `ACL SETUSER`.
struct User {
    name: String,
    settings: RedisSettings,
    ledger: Ledger,
    operator: MultiplexedConnection,
}

impl User {
    async fn new(store: &Store, rules: &str) -> Self {
        let (address, database) = (store.redis.topology.address(), store.redis.topology.database());
        let client = redis::Client::open(format!("redis://{address}/{database}")).unwrap();
        let operator = client.get_multiplexed_async_connection().await.unwrap();
        let name = format!("user-{database}");
        let settings = RedisSettings::of_url(&format!("redis://{name}:pw@{address}/{database}")).unwrap();
        let ledger = Ledger::new(store::pool(&settings).unwrap()).with_clock(store.clock.clone());
        let mut user = Self {
            name,
            settings,
            ledger,
            operator,
        };
        user.may(&format!("reset on >pw {rules}")).await;
        user
    }

    async fn may(&mut self, rules: &str) {
        let mut command = redis::cmd("ACL");
        command
            .arg("SETUSER")
            .arg(&self.name)
            .arg(rules.split(' ').collect::<Vec<_>>());
        command
            .exec_async(&mut self.operator)
            .await
            .unwrap_or_else(|error| panic!("{rules}: {error}"));
    }

    async fn refusals(&self) -> Vec<String> {
        let findings = look(self.ledger.pool(), &self.settings).await.expect("looked");
        findings
            .into_iter()
            .filter(|finding| finding.severity == Severity::Refusal)
            .map(|finding| finding.text)
            .collect()
    }

    /// Every key with its content and when it expires.
    async fn dump(&mut self) -> BTreeSet<(Vec<u8>, Vec<u8>, i64)> {
        const DUMP: &str = "local all = {} for i, key in ipairs(redis.call('KEYS', '*')) do \
                              all[i] = { key, redis.call('DUMP', key), redis.call('PEXPIRETIME', key) } end return all";
        redis::cmd("EVAL")
            .arg(DUMP)
            .arg(0)
            .query_async(&mut self.operator)
            .await
            .unwrap()
    }
}

/// What the transitions of the test are about.
struct Scene {
    store: Store,
    reserved: (String, String),
    claimed: (String, String),
    made: String,
    question: Question,
}

/// Two organizations: jobs queued, a runner reserved, one claimed, one that waits for work, a job in question.
async fn scene() -> Scene {
    let store = Store::with_limits(|limits| limits.max_total = 4).await;
    for job in 1..=3 {
        store.apply(&queued(job, "Acme")).await;
    }
    let mut runners = store.admit().await;
    let (made, claimed) = (runners.pop().unwrap(), runners.pop().unwrap());
    store.make(&made.0, &made.1, 70).await;
    store
        .ledger
        .claim(&claimed.0, &claimed.1, &maker("w", "default"))
        .await
        .unwrap();
    let reserved = runners.pop().unwrap();
    // Its runner ended without having been seen busy.
    store.apply(&queued(4, "Other")).await;
    let lost = store.admit().await.pop().expect("reserved");
    store.make(&lost.0, &lost.1, 71).await;
    store
        .ledger
        .observe(Observation::Release, &lost.0, "gone")
        .await
        .unwrap();
    let due = store.due_after(60_000).await;
    let question = due.questions.into_iter().next().expect("a question");
    store.apply(&queued(5, "Other")).await;
    Scene {
        store,
        reserved,
        claimed,
        made: made.0,
        question,
    }
}

type Step<'a> = (&'static str, BoxFuture<'a, Result<(), LedgerError>>);

/// A transition of each script.
fn steps<'a>(scene: &'a Scene, ledger: &'a Ledger) -> Vec<Step<'a>> {
    const TOKEN: CallOf<'_> = CallOf {
        credential: "default",
        app: false,
        owner: None,
        enterprise: false,
    };
    const RECOVERY: RecoverySettings = RecoverySettings {
        interval: Duration::from_secs(60),
        calls_per_hour: 1000,
        redelivery: true,
    };
    let answer = Answer {
        status: AnswerStatus::Queued,
        runner: None,
        runner_id: None,
        conclusion: None,
    };
    let entering = Entering {
        call: "call",
        endpoint: "job",
        writes: false,
        timeout: Duration::from_secs(20),
    };
    let failed = [FailedDelivery {
        guid: "g".into(),
        id: "1".into(),
        action: "queued".into(),
        at: scene.store.time(),
    }];
    macro_rules! step {
        ($name:literal, $what:expr) => {
            (
                $name,
                Box::pin(async move { $what.await.map(drop) }) as BoxFuture<'a, Result<(), LedgerError>>,
            )
        };
    }
    vec![
        step!("an event that queues a job", ledger.apply(&queued(900, "New"), None)),
        step!(
            "one that it runs",
            ledger.apply(&in_progress(1, "Acme", &scene.made, 70), None)
        ),
        step!(
            "one that it is over",
            ledger.apply(&completed(1, "Acme", Some((&scene.made, 70))), None)
        ),
        step!("an admission", ledger.admit()),
        step!(
            "a claim",
            ledger.claim(&scene.reserved.0, &scene.reserved.1, &maker("w", "default"))
        ),
        step!(
            "a failure",
            ledger.fail(
                &scene.claimed.0,
                &scene.claimed.1,
                &refused(&[Subject::Class], "refused")
            )
        ),
        step!(
            "an observation",
            ledger.observe(Observation::Release, &scene.reserved.0, "gone")
        ),
        step!("what is due", ledger.due(10, Duration::from_secs(60))),
        step!("an answer", ledger.answer(&scene.question, &answer)),
        step!("a limit", ledger.set_limits(&[("Acme".to_owned(), Some(7))], false)),
        step!("a pause", ledger.pause("Acme", "for a test", None)),
        step!("another try", ledger.retry(JobId::new(2).unwrap())),
        step!("a configuration", ledger.configure(&default_limits())),
        step!("a reconcile", ledger.reconcile(scene.store.time(), &[])),
        step!("a tick of recovery", ledger.recovery_tick(&RECOVERY)),
        step!("deliveries", ledger.note_deliveries("1", &failed, &[], 3)),
        step!(
            "a registration",
            ledger.spend_registration("default", "orgs/Acme", "r", &OFF)
        ),
        step!(
            "a rate",
            ledger.note_rate(
                "default",
                &RateWord {
                    limit: 10,
                    remaining: 9,
                    reset_in: Duration::from_secs(60)
                }
            )
        ),
        step!("a call", ledger.enter_call(&TOKEN, &entering, &OFF)),
        step!("an overview, which changes nothing", ledger.overview()),
        step!(
            "its end",
            ledger.leave_call(
                &TOKEN,
                Some("call"),
                &Ended::Limited(Duration::from_secs(9), true, "limited".into())
            )
        ),
    ]
}

/// Takes the steps as a user with these rules, and returns those that failed. Each of these is a passing refusal and
/// has changed nothing.
async fn take_steps(rules: &str) -> Vec<&'static str> {
    let scene = scene().await;
    let mut user = User::new(&scene.store, rules).await;
    let ledger = user.ledger.clone();
    let (mut failed, mut before) = (Vec::new(), user.dump().await);
    for (name, step) in steps(&scene, &ledger) {
        let result = step.await;
        let after = user.dump().await;
        if let Err(error) = result {
            assert!(matches!(error, LedgerError::Refused(_)), "{rules}: {name}: {error}");
            let text = error.to_string().to_uppercase();
            assert!(
                ["NOPERM", "THE USER EXECUTING THE SCRIPT", "ACL FAILURE IN SCRIPT"]
                    .iter()
                    .any(|words| text.contains(words)),
                "{rules}: {name}: {error}"
            );
            assert!(before == after, "{rules}: {name} has changed something");
            failed.push(name);
        }
        before = after;
    }
    failed
}

/// Commands that the scripts of the ledger call.
fn of_scripts() -> impl Iterator<Item = &'static str> {
    let folders = ["prelude", "ops"].map(|folder| format!("{}/src/ledger/lua/{folder}", env!("CARGO_MANIFEST_DIR")));
    let files = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("scripts"));
    let text: String = files
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("read"))
        .collect();
    let called = called(&text);
    commands().filter(move |command| called.contains(*command))
}

#[tokio::test]
async fn a_user_with_the_rights_that_the_manual_names_may_do_everything() {
    for rules in ["~* +@all", "~* +@all -@dangerous +info +role"] {
        assert_eq!(take_steps(rules).await, Vec::<&str>::new(), "{rules}");
        let store = Store::open().await;
        assert_eq!(
            User::new(&store, rules).await.refusals().await,
            Vec::<String>::new(),
            "{rules}"
        );
    }
    // No more than the list.
    let exactly: String = commands()
        .map(|command| format!(" +{}", command.to_lowercase()))
        .collect();
    let rules = format!("~* +select{exactly}");
    assert_eq!(
        User::new(&Store::open().await, &rules).await.refusals().await,
        Vec::<String>::new()
    );
    assert_eq!(take_steps(&rules).await, Vec::<&str>::new());
}

#[tokio::test]
async fn each_command_that_is_missing_is_named() {
    let store = Store::open().await;
    let mut user = User::new(&store, "~* +@all").await;
    for command in commands() {
        let lower = command.to_lowercase();
        user.may(&format!("-{lower}")).await;
        let refusals = user.refusals().await;
        let [refusal] = refusals.as_slice() else {
            panic!("{command}: {refusals:?}")
        };
        assert!(
            refusal.contains(&command.replace('|', " ")) && refusal.contains(&format!("+{lower}")),
            "{command}: {refusal}"
        );
        user.may(&format!("+{lower}")).await;
        assert_eq!(
            user.refusals().await,
            Vec::<String>::new(),
            "{command} is allowed again"
        );
    }
    user.may("-zmscore -xautoclaim -xgroup|create -info").await;
    let refusals = user.refusals().await;
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(
        refusals[0].contains("may not run INFO: nothing is ever admitted"),
        "{refusals:?}"
    );
    assert!(
        refusals[1].contains("may not run XAUTOCLAIM, XGROUP CREATE, ZMSCORE: "),
        "{refusals:?}"
    );
    assert!(
        refusals[1].contains("ACL SETUSER … +xautoclaim +xgroup|create +zmscore)"),
        "{refusals:?}"
    );
}

#[tokio::test]
async fn a_user_that_may_run_no_script_is_told_so() {
    let store = Store::open().await;
    let mut user = User::new(&store, "~* +@all -@scripting").await;
    let refusals = user.refusals().await;
    assert!(
        matches!(refusals.as_slice(), [text] if text.contains("SCRIPT LOAD, EVALSHA") && text.contains("only then")),
        "{refusals:?}"
    );
    user.may("+evalsha -script").await;
    assert!(user.refusals().await[0].contains("SCRIPT LOAD"));
}

#[tokio::test]
async fn a_transition_writes_nothing_before_it_may_write_all() {
    let commands: Vec<&str> = of_scripts().collect();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        let failed = take_steps(&format!("~* +@all -{}", command.to_lowercase())).await;
        assert!(!failed.is_empty(), "{command}: nothing was refused");
        if ["DEL", "HDEL", "HGET", "HSET", "SADD", "SET", "ZADD", "ZREM"].contains(&command) {
            assert!(failed.len() >= 10, "{command}: most scripts call it: {failed:?}");
        }
    }
}

#[tokio::test]
async fn keys_that_a_user_may_not_use_are_named_and_nothing_is_written() {
    let all = take_steps("+@all").await;
    assert!(all.len() >= 19, "{all:?}");
    let store = Store::open().await;
    let refusals = User::new(&store, "+@all").await.refusals().await;
    assert!(
        matches!(refusals.as_slice(), [text] if text.contains("no key that is needed") && text.contains("~*")),
        "{refusals:?}"
    );
    let patterns: Vec<String> = KEYS
        .iter()
        .map(|key| format!("~{}*", key.find(':').map_or(*key, |colon| &key[..=colon])))
        .collect();
    assert_eq!(
        take_steps(&format!("+@all {}", patterns.join(" "))).await,
        Vec::<&str>::new(),
        "a pattern for each family"
    );
    for key in ["org:o:pending", "jit:events", "quota:ceiling", "delivery:d"] {
        let others: Vec<&str> = patterns
            .iter()
            .map(String::as_str)
            .filter(|pattern| !key.starts_with(pattern[1..].trim_end_matches('*')))
            .collect();
        let rules = format!("+@all {}", others.join(" "));
        let refusals = User::new(&Store::open().await, &rules).await.refusals().await;
        assert!(
            matches!(refusals.as_slice(), [text] if text.contains(key)),
            "{key}: {refusals:?}"
        );
        assert!(take_steps(&rules).await.len() >= 19, "{key}");
    }
    // To read is not enough.
    let store = Store::open().await;
    let mut user = User::new(&store, "+@all ~* resetkeys %R~job:* %RW~*").await;
    assert_eq!(user.refusals().await, Vec::<String>::new());
    user.may(&format!(
        "resetkeys %R~job:* {}",
        patterns
            .iter()
            .filter(|pattern| *pattern != "~job:*")
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    ))
    .await;
    let refusals = user.refusals().await;
    assert!(
        matches!(refusals.as_slice(), [text] if text.contains("job:1:info")),
        "{refusals:?}"
    );
}

#[tokio::test]
async fn without_info_it_is_said_that_nothing_is_admitted() {
    let store = Store::open().await;
    store.apply(&queued(1, "Acme")).await;
    let mut user = User::new(&store, "~* +@all -info").await;
    let error = user.ledger.admit().await.expect_err("not admitted");
    assert!(
        matches!(&error, LedgerError::Refused(text) if text.contains("may not run INFO")),
        "{error}"
    );
    assert!(
        user.ledger
            .why_closed()
            .await
            .unwrap()
            .unwrap()
            .contains("may not run INFO")
    );
    assert!(!user.ledger.overview().await.expect("an overview").admitting);
    let why = user
        .ledger
        .explain(JobId::new(1).unwrap())
        .await
        .expect("explained")
        .why;
    assert!(
        why.starts_with("nothing is admitted because the user of Redis may not run INFO") && why.contains("+info"),
        "{why}"
    );
    user.ledger
        .apply(&queued(2, "Acme"), None)
        .await
        .expect("events are taken all the same");
    user.ledger.doctor().await.expect("examined");
    user.may("+info").await;
    assert_eq!(user.ledger.why_closed().await.unwrap(), None);
    assert_eq!(user.ledger.admit().await.expect("admitted").admitted, 2);
}

#[tokio::test]
async fn a_right_that_is_lost_and_given_back_loses_nothing() {
    let store = Store::open().await;
    let mut user = User::new(&store, "~* +@all").await;
    let settings = RedisSettings {
        check_interval: Duration::from_millis(20),
        ..user.settings.clone()
    };
    let (gauge, stop) = (Gauge::default(), CancellationToken::new());
    let mut checks = Checks::new(user.ledger.pool(), &settings, gauge.clone());
    checks.first().await.expect("looked").expect("taken");
    let (usual, until) = (gauge.get(), stop.clone());
    let watching = tokio::spawn(async move { checks.watch(&until).await });
    user.ledger.apply(&queued(1, "Acme"), None).await.expect("applied");

    user.may("-zadd -hincrby").await;
    let before = user.dump().await;
    for _ in 0..3 {
        let error = user.ledger.apply(&queued(2, "Acme"), None).await.expect_err("refused");
        assert!(
            matches!(&error, LedgerError::Refused(text) if text.contains("may not run HINCRBY, ZADD")),
            "{error}"
        );
    }
    assert!(before == user.dump().await);
    eventually("it is counted", async || gauge.get() == usual + 1).await;

    user.may("+zadd +hincrby").await;
    assert_eq!(
        user.ledger
            .apply(&queued(2, "Acme"), None)
            .await
            .expect("the same event applies"),
        Applied::State(JobState::Queued)
    );
    eventually("it is over", async || gauge.get() == usual).await;
    stop.cancel();
    watching.await.expect("it went on");
    assert!(why(&store, 2).await.why.contains("about to be admitted"));
    store.assert_sound().await;
}
