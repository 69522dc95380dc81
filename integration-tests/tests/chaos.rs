//! A handful of the chaos suite's seeds; `make chaos` plays as many as one likes. `CHAOS_FIRST_SEED` and `CHAOS_SEEDS`
//! choose others.

#![allow(clippy::unwrap_used, missing_docs)]

use jit_harness::chaos;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handful_of_seeds() {
    let variable = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let keep = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
    let mut outcomes = Vec::new();
    for seed in (variable("CHAOS_FIRST_SEED", 1)..).take(usize::try_from(variable("CHAOS_SEEDS", 3)).unwrap()) {
        let outcome = chaos::play(seed, &keep, false).await.unwrap();
        assert!(
            outcome.verdict.clean(),
            "seed {seed}: {}\n{:#?}\nlogs: {:?}",
            outcome.schedule.in_short(),
            outcome.verdict,
            outcome.kept
        );
        outcomes.push(outcome);
    }
    println!("{}", chaos::totals(&outcomes));
}
