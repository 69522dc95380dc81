//! Logs: one line an event, JSON or text, on standard error. A line never holds a body, a token, a key or a JIT
//! configuration.

use tracing_subscriber::EnvFilter;

use jit_core::config::LogFormat;

/// Starts logging. `level` is a level or a filter such as `info,jit_worker=debug`.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    // Libraries speak up from WARN on: their INFO is of no use to operators.
    let filter = EnvFilter::try_new(format!("warn,{}", own_crates(level)))
        .map_err(|error| anyhow::anyhow!("LOG_LEVEL={level:?}: {error}; use ERROR, WARN, INFO, DEBUG or TRACE"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true);
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}

fn own_crates(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
    }
    [
        "jit_core",
        "jit_github",
        "jit_backend",
        "jit_runtime",
        "jit_receiver",
        "jit_worker",
        "jit_beat",
    ]
    .map(|name| format!("{name}={level}"))
    .join(",")
}
