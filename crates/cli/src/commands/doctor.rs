//! `doctor`: whether the ledger's invariants hold on the live store, and Redis is one to keep it; how soon a lost job
//! is found.

use std::process::ExitCode;

use jit_core::{
    ledger::LedgerError,
    render,
    store::check::{Severity, look},
};

use crate::ctl::Ctl;

/// Back-offs that are shown at most.
const HELD: isize = 20;

/// An answer of the ledger. None where it cannot be read, as in a Cluster, and Redis was found unfit already.
fn readable<T>(answer: Result<T, LedgerError>, refused: bool) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if refused => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `jitctl doctor`.
pub async fn doctor(ctl: &mut Ctl<'_>) -> anyhow::Result<ExitCode> {
    let settings = look(ctl.ledger.pool(), &ctl.redis).await?;
    let refused = settings.iter().any(|finding| finding.severity == Severity::Refusal);
    let report = readable(ctl.ledger.doctor_settled().await, refused)?;
    let recovery = readable(ctl.ledger.recovery().await, refused)?.unwrap_or_default();
    let unreadable = readable(ctl.ledger.unreadable_repositories().await, refused)?.unwrap_or_default();
    let conditions = readable(ctl.ledger.conditions().await, refused)?.unwrap_or_default();
    let held = readable(ctl.ledger.held_subjects(HELD).await, refused)?.unwrap_or_default();
    let (looked, report) = (report.is_some(), report.unwrap_or_default());
    if ctl.is_json() {
        let mut value = serde_json::to_value(&report)?;
        value["held"] = held
            .iter()
            .map(|(subject, until, why)| {
                serde_json::json!({ "subject": subject,
            "until": render::time(*until), "why": why })
            })
            .collect();
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
            writeln!(
                ctl.out,
                "held back until {}: {subject}: {why}",
                render::time(*until).unwrap_or_default()
            )?;
        }
        for sentence in recovery.sentences() {
            writeln!(ctl.out, "{sentence}")?;
        }
        for repo in unreadable {
            writeln!(
                ctl.out,
                "GitHub cannot be asked about jobs of {repo}: give the credential the right \"Actions: read\" there (a \
                 classic token: the scope repo)"
            )?;
        }
        if !looked {
            writeln!(
                ctl.out,
                "the ledger could not be looked at: mend first what is said of Redis"
            )?;
            return Ok(ExitCode::FAILURE);
        }
        writeln!(
            ctl.out,
            "looked at {} organizations, {} live runners, {} jobs that are not over",
            report.organizations, report.runners, report.jobs
        )?;
        for finding in &report.findings {
            writeln!(ctl.out, "invariant {}: {}", finding.invariant, finding.text)?;
        }
        writeln!(
            ctl.out,
            "{}",
            if report.findings.is_empty() {
                "all five invariants hold".to_owned()
            } else {
                format!(
                    "{} findings: jitctl reconcile, and report them if they stay",
                    report.findings.len()
                )
            }
        )?;
    }
    Ok(if report.findings.is_empty() && conditions.is_empty() && !refused {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
