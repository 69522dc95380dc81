//! The receiver's process: see the library.

use clap::Parser;

fn main() -> std::process::ExitCode {
    let args = jit_receiver::config::ReceiverArgs::parse();
    jit_core::process::run("jit-receiver", jit_receiver::run(args))
}
