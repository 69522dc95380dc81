//! The receiver's process: see the library.

fn main() -> std::process::ExitCode {
    jit_runtime::main(
        "jit-receiver",
        |args: jit_receiver::config::ReceiverArgs| args.resolve(),
        jit_receiver::run,
    )
}
