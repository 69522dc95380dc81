//! `jit-worker`: see [`jit_worker`].

use std::process::ExitCode;

use jit_core::process;

fn main() -> ExitCode {
    process::main("jit-worker", jit_worker::config::Args::resolve, jit_worker::run::worker)
}
