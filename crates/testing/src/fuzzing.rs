//! Runs a property: in `make test` on a few cases, in `make fuzz` for as long as it says.

use std::time::{Duration, Instant};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

/// Runs a property on some hundred cases, the same each time; with `FUZZ_SECONDS` on as many as fit into that time,
/// others each time.
pub fn fuzz<S: Strategy>(inputs: S, property: impl Fn(S::Value)) {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .map(|text| text.parse::<u64>().expect("FUZZ_SECONDS is a number"));
    let seed = if seconds.is_some() {
        RngSeed::Random
    } else {
        RngSeed::Fixed(20_261_124)
    };
    let config = Config {
        cases: 500,
        rng_seed: seed,
        failure_persistence: None,
        ..Config::default()
    };
    let (began, mut cases) = (Instant::now(), 0);
    loop {
        let run = TestRunner::new(config.clone()).run(&inputs, |input| {
            property(input);
            Ok(())
        });
        run.unwrap_or_else(|failure| panic!("{failure}"));
        cases += config.cases;
        if seconds.is_none_or(|seconds| began.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    if seconds.is_some() {
        eprintln!("{}: {cases} cases", std::thread::current().name().unwrap_or_default());
    }
}
