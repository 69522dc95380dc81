//! `doctor`: whether the ledger's invariants hold on the live store, and Redis is one to keep it; how soon a lost job is found.

use std::process::ExitCode;

use jit_core::{
    ledger::{Report, recovery::Recovery},
    redis::check::{Severity, look},
    render,
};

use crate::Ctl;

/// What backs off is told of so many at most.
const HELD: isize = 20;

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
    let conditions = match ctl.ledger.conditions().await {
        Ok(conditions) => conditions,
        Err(_) if refused => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let held = match ctl.ledger.held_subjects(HELD).await {
        Ok(held) => held,
        Err(_) if refused => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if ctl.is_json() {
        let mut value = serde_json::to_value(&report)?;
        value["held"] = held.iter().map(|(subject, until, why)| serde_json::json!({ "subject": subject, "until": render::time(*until), "why": why })).collect();
        value["conditions"] = serde_json::json!(conditions);
        value["unreadable"] = serde_json::json!(unreadable);
        value["redis"] = serde_json::json!(settings);
        value["recovery"] = serde_json::json!(recovery);
        ctl.json(&value)?;
    } else {
        for finding in &settings {
            writeln!(ctl.out, "Redis: {}", finding.text)?;
        }
        for condition in &conditions {
            writeln!(ctl.out, "{}: {}", condition.process, condition.text)?;
        }
        for (subject, until, why) in &held {
            writeln!(ctl.out, "held back until {}: {subject}: {why}", render::time(*until).unwrap_or_default())?;
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
    Ok(if report.findings.is_empty() && conditions.is_empty() && !refused { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
