//! Every step can be the last: a worker is killed at each step between two effects in turn, another goes on, and nothing is lost.
//!
//! The steps are read from the worker's source, so a new one is taken up by itself. It has to be reached: one that plain jobs do not
//! reach needs a scenario here.

#![allow(clippy::unwrap_used, missing_docs)]

mod source;

#[test]
fn every_effect_of_the_worker_is_followed_by_a_step() {
    let missing = source::without_a_step();
    assert!(missing.is_empty(), "add `.step(\"…\")` behind the `.await` of:\n{}", missing.join("\n"));
    let steps = source::steps();
    assert!(steps.len() >= 40, "the steps are not found: {steps:?}");
}
