//! The ledger against a model in memory: random sequences of transitions, doubled, late and out of order, with time
//! passing and data lost.
//!
//! After every transition both have answered alike and hold the same state, so every invariant of the ledger holds,
//! since the model derives it from its definition; every few transitions the doctor finds nothing. A sequence ends when
//! its faults end: then all comes to rest.
//!
//! Without more said, 1000 sequences, the same in every run, so that a change is judged by its own merits.
//! `LEDGER_CASES=100000` runs so many others, different each time; `PROPTEST_RNG_SEED` picks and repeats a run. What
//! failed is kept in `properties.proptest-regressions` and tried first.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jit_core::{
    ledger::Ledger,
    store::{self, RedisSettings},
};
use jit_testing::{default_limits, fresh_redis};
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner};

mod model;
use model::{
    drive::{Stores, World},
    steps::{Case, case},
};

/// Sequences are run by so many threads at once, each with databases of its own.
const THREADS: u32 = 2;

/// Where nothing else is said.
const SEED: u64 = 20_261_122;

fn cases() -> u32 {
    std::env::var("LEDGER_CASES")
        .ok()
        .map_or(1000, |text| text.parse().expect("LEDGER_CASES is a number"))
}

async fn stores() -> Stores {
    let (redis, backup) = (fresh_redis(), fresh_redis());
    let clock = Arc::new(AtomicI64::new(0));
    let number = |url: &str| {
        url.rsplit_once(['/', '='])
            .and_then(|(_, number)| number.parse().ok())
            .expect("a database's number")
    };
    let databases = (number(&redis.url), number(&backup.url));
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(store::RESPONSE_TIMEOUT));
    let connection = async |settings: &RedisSettings| {
        let client = redis::Client::open(settings.url.as_str()).expect("a URL");
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .expect("a connection")
    };
    Stores {
        ledger: Ledger::new(store::pool(&redis).expect("a pool")).with_clock(clock.clone()),
        clock,
        redis: connection(&redis).await,
        backup: connection(&backup).await,
        databases,
    }
}

async fn run(stores: &mut Stores, case: &Case) -> Result<(), String> {
    let mut world = World::new(stores, case, default_limits()).await?;
    let mut result = Ok(());
    for step in &case.steps {
        result = world.step(step).await;
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        world.log.push("faults end".into());
        result = world.finish().await;
    }
    result.map_err(|error| format!("{error}\n\nafter:\n{}\n", world.log.join("\n")))
}

#[test]
fn the_ledger_and_the_model_agree() {
    let done = Arc::new(AtomicI64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let done = done.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let mut stores = Some(runtime.block_on(stores()));
                let stores = std::cell::RefCell::new(stores.take().expect("just made"));
                let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/properties.proptest-regressions");
                let mut config = Config {
                    cases: cases().div_ceil(THREADS),
                    max_shrink_time: 60_000,
                    ..Config::default()
                };
                config.failure_persistence =
                    (thread == 0).then(|| Box::new(FileFailurePersistence::Direct(regressions)) as _);
                config.source_file = Some(file!());
                let seed = match config.rng_seed {
                    RngSeed::Fixed(seed) => Some(seed),
                    RngSeed::Random => std::env::var_os("LEDGER_CASES").is_none().then_some(SEED),
                };
                if let Some(seed) = seed {
                    config.rng_seed = RngSeed::Fixed(seed + u64::from(thread));
                }
                let result = TestRunner::new(config).run(&case(), |case| {
                    done.fetch_add(1, Ordering::Relaxed);
                    runtime
                        .block_on(run(&mut stores.borrow_mut(), &case))
                        .map_err(TestCaseError::fail)
                });
                match result {
                    Ok(()) => {}
                    Err(TestError::Fail(why, case)) => panic!("{why}\nthe shortest case that fails:\n{case}"),
                    Err(TestError::Abort(why)) => panic!("{why}"),
                }
            })
        })
        .collect();
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
