//! Settings as the command line gives them.

use clap::Parser;
use jit_core::config::{GithubArgs, GithubSettings, LimitsSettings, Problems};

/// The default limits and deadlines.
pub fn default_limits() -> LimitsSettings {
    LimitsSettings::default()
}

/// The default settings of a GitHub at this URL.
pub fn github_settings(url: &str) -> GithubSettings {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        github: GithubArgs,
    }
    let mut problems = Problems::default();
    let settings = Cli::parse_from(["test", "--ghes-url", url])
        .github
        .resolve(&mut problems);
    problems.finish(settings).expect("the defaults are valid")
}
