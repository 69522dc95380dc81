//! What the tests in `tests/` share. The system that they start is `jit_harness::stack`.

#![allow(clippy::unwrap_used, reason = "a test fails where a thing is not as it has to be")]

mod help;
pub mod source;
mod stack;

pub use help::help;
pub use stack::{PodCount, assert_all_ran_once, assert_sound, brisk, kubernetes, number, prove, send, settle, until};
