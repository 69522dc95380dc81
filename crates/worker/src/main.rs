//! `jit-worker`: see [`jit_worker`].

use std::process::ExitCode;

use clap::Parser;
use jit_core::process;

fn main() -> ExitCode {
    let args = jit_worker::config::Args::parse();
    process::run("jit-worker", async { jit_worker::run::worker(args.resolve()?).await })
}
