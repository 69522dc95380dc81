//! `doctor`: whether the ledger's invariants hold on the live store.

use std::process::ExitCode;

use crate::Ctl;

/// `jitctl doctor`.
pub async fn doctor(ctl: &mut Ctl<'_>) -> anyhow::Result<ExitCode> {
    let report = ctl.ledger.doctor_settled().await?;
    if ctl.is_json() {
        ctl.json(&report)?;
    } else {
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
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
