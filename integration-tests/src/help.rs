//! What a program's `--help` says.

use std::process::Command;

/// The help of a program that lies beside the tests.
#[must_use]
pub fn help(program: &str) -> String {
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
