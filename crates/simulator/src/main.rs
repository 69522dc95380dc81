//! `jit-simulator`: a GitHub, a runner and a kubelet to try the real system on. See the crate's README.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

use clap::Parser;

fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::Cli::parse().run()
}
