//! How much of GitHub's limits is used, before GitHub has to say so.

use jit_core::{config::Problems, ledger::Budget};
use url::Url;

/// GitHub's limits.
#[derive(Clone, Debug, clap::Args)]
pub struct BudgetArgs {
    /// Runners that are registered in 5 minutes at one organization, repository or enterprise at most; 0: no limit of
    /// our own
    #[arg(long, env, default_value = "1500")]
    pub github_registration_limit: String,
    /// GitHub's points a minute (a registration costs 5) that one credential uses at most; 0: no limit of our own;
    /// default: 900 on github.com and *.ghe.com, else 0
    #[arg(long, env, default_value = "")]
    pub github_points_per_minute: String,
    /// Calls of GitHub an hour and account (a token, or an installation of an App) that looking for lost jobs may take,
    /// of those that GitHub counts; 0: none
    #[arg(long, env, default_value = "1000")]
    pub recovery_calls_per_hour: String,
}

impl BudgetArgs {
    /// Checks all of it. `server` is the server as people open it.
    pub fn resolve(&self, server: &Url, problems: &mut Problems) -> Budget {
        let most = 1_000_000;
        let points_per_minute = match self.github_points_per_minute.trim() {
            // A GHES has its limits off by default, and one that has them on sets its own.
            "" if is_githubs_own(server) => 900,
            "" => 0,
            text => problems.number("GITHUB_POINTS_PER_MINUTE", text, 0, most),
        };
        Budget {
            registrations: problems.number("GITHUB_REGISTRATION_LIMIT", &self.github_registration_limit, 0, most),
            points_per_minute,
            spare_calls_per_hour: problems.number("RECOVERY_CALLS_PER_HOUR", &self.recovery_calls_per_hour, 0, most),
        }
    }
}

/// github.com or GHE.com.
fn is_githubs_own(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default().to_ascii_lowercase();
    host == "github.com" || host.ends_with(".github.com") || host.ends_with(".ghe.com")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        budget: BudgetArgs,
    }

    #[test]
    fn points_count_where_github_counts_them() {
        let budget = |server: &str, flags: &[&str]| {
            let mut problems = Problems::default();
            let budget = Cli::parse_from([&["test"], flags].concat())
                .budget
                .resolve(&server.parse().expect("a URL"), &mut problems);
            problems.finish(budget)
        };
        let points = |server| budget(server, &[]).expect("valid").points_per_minute;
        assert_eq!(
            (
                points("https://github.com"),
                points("https://acme.ghe.com"),
                points("https://github.example.com")
            ),
            (900, 900, 0)
        );
        assert_eq!(
            (
                points("https://evilghe.com"),
                budget("https://github.com", &[]).expect("valid").registrations
            ),
            (0, 1500)
        );
        assert_eq!(
            budget("https://github.example.com", &["--github-points-per-minute", "450"])
                .expect("valid")
                .points_per_minute,
            450
        );
        assert!(budget("https://github.com", &["--github-registration-limit", "many"]).is_err());
    }
}
