//! `doctor`: whether the ledger's invariants hold on the live store, and Redis is one to keep it; how soon a lost job is found.

use std::process::ExitCode;

use jit_core::{
    ledger::{Report, recovery::Recovery},
    redis::check::{Severity, look},
};

use crate::Ctl;

/// `jitctl doctor`.
pub async fn doctor(ctl: &mut Ctl<'_>) -> anyhow::Result<ExitCode> {
    let settings = look(ctl.ledger.pool(), &ctl.redis).await?;
    let refused = settings.iter().any(|finding| finding.severity == Severity::Refusal);
    let report = match ctl.ledger.doctor_settled().await {
        Ok(report) => report,
        // A Cluster, say, does not let the ledger be read: what matters is known already.
        Err(_) if refused => Report::default(),
        Err(error) => return Err(error.into()),
    };
    let recovery = match ctl.ledger.recovery().await {
        Ok(recovery) => recovery,
        Err(_) if refused => Recovery::default(),
        Err(error) => return Err(error.into()),
    };
    let unreadable = match ctl.ledger.unreadable_repositories().await {
        Ok(repositories) => repositories,
        Err(_) if refused => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if ctl.is_json() {
        let mut value = serde_json::to_value(&report)?;
        value["unreadable"] = serde_json::json!(unreadable);
        value["redis"] = serde_json::json!(settings);
        value["recovery"] = serde_json::json!(recovery);
        ctl.json(&value)?;
    } else {
        for finding in &settings {
            writeln!(ctl.out, "Redis: {}", finding.text)?;
        }
        for sentence in recovery.sentences() {
            writeln!(ctl.out, "{sentence}")?;
        }
        for repo in unreadable {
            writeln!(
                ctl.out,
                "GitHub cannot be asked about jobs of {repo}: give the credential the right \"Actions: read\" there (a classic token: the scope repo)"
            )?;
        }
        writeln!(ctl.out, "looked at {} organizations, {} live runners, {} jobs that are not over", report.organizations, report.runners, report.jobs)?;
        for finding in &report.findings {
            writeln!(ctl.out, "invariant {}: {}", finding.invariant, finding.text)?;
        }
        writeln!(
            ctl.out,
            "{}",
            if report.findings.is_empty() {
                "all five invariants hold".to_owned()
            } else {
                format!("{} findings: jitctl reconcile, and report them if they stay", report.findings.len())
            }
        )?;
    }
    Ok(if report.findings.is_empty() && !refused { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
