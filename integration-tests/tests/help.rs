//! What `--help` says: the variables, their defaults and what they mean are a contract. A change shows in the snapshot,
//! and in docs/configuration.md (`make docs`).

#![allow(missing_docs)]

use integration_tests::help;

#[test]
fn help_of_every_program() {
    for program in ["jit-receiver", "jit-worker", "jit-beat", "jitctl"] {
        insta::assert_snapshot!(program, help(program));
    }
}
