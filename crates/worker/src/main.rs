//! `jit-worker`: see [`jit_worker`].

use std::process::ExitCode;

fn main() -> ExitCode {
    jit_runtime::main("jit-worker", jit_worker::config::Args::resolve, jit_worker::run::worker)
}
