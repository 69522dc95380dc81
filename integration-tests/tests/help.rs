//! What `--help` says: the variables, their defaults and what they mean are a contract. A change shows in the snapshot,
//! and in docs/configuration.md (`make docs`).

#![allow(missing_docs)]

use std::process::Command;

fn help(program: &str) -> String {
    let test = std::env::current_exe().expect("this test");
    let dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("programs lie beside the tests");
    let output = Command::new(dir.join(program))
        .arg("--help")
        .env_clear()
        .output()
        .expect("the program is built: run through `make test`");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn help_of_every_program() {
    for program in ["jit-receiver", "jit-worker", "jit-beat", "jitctl"] {
        insta::assert_snapshot!(program, help(program));
    }
}
