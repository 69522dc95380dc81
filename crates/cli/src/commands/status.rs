//! `status`: the whole at a glance, or one organization.

use std::process::ExitCode;

use crate::{ctl::Ctl, table};

/// `jitctl status`. A terminal is shown the busiest organizations only.
pub async fn whole(ctl: &mut Ctl<'_>, terminal: bool) -> anyhow::Result<ExitCode> {
    let (overview, conditions) = (ctl.ledger.overview().await?, ctl.ledger.conditions().await?);
    if ctl.is_json() {
        let mut value = serde_json::to_value(&overview)?;
        value["conditions"] = serde_json::json!(conditions);
        ctl.json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        ctl.out,
        "runners     {} of {} live{}",
        overview.total_running,
        overview.max_total,
        breakdown(&overview.runners)
    )?;
    writeln!(
        ctl.out,
        "jobs        {} queued, {} asked about or running",
        overview.total_pending, overview.questions
    )?;
    let [events, provision, ticks, dead] = overview.backlog;
    writeln!(
        ctl.out,
        "backlog     jit:events {events}, jit:provision {provision}, jit:ticks {ticks}, jit:dead {dead}"
    )?;
    writeln!(ctl.out, "workers     {} alive", overview.workers)?;
    writeln!(
        ctl.out,
        "admission   {}",
        overview
            .closed
            .map_or_else(|| "open".to_owned(), |why| format!("closed {why}"))
    )?;
    for condition in conditions {
        writeln!(ctl.out, "condition   {}: {}", condition.process, condition.text)?;
    }
    writeln!(
        ctl.out,
        "recovery    {}",
        overview.recovery.sentences().join("\n            ")
    )?;
    writeln!(
        ctl.out,
        "known       {} organizations; limit {} each where they have none of their own",
        overview.known_orgs, overview.max_per_org
    )?;
    if !overview.organizations.is_empty() {
        writeln!(ctl.out)?;
        let mut rows: Vec<_> = overview.organizations.iter().collect();
        rows.sort_by_key(|(_, (running, pending))| std::cmp::Reverse((*pending, *running)));
        let shown = if terminal { 20 } else { rows.len() };
        let lines = rows
            .iter()
            .take(shown)
            .map(|(org, (running, pending))| vec![(*org).clone(), running.to_string(), pending.to_string()])
            .collect();
        table::print(ctl.out, &["ORGANIZATION", "RUNNING", "PENDING"], lines)?;
        if rows.len() > shown {
            writeln!(ctl.out, "… and {} more (--output json shows all)", rows.len() - shown)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn breakdown(states: &std::collections::BTreeMap<String, u64>) -> String {
    if states.is_empty() {
        return String::new();
    }
    format!(
        " ({})",
        states
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

/// `jitctl status ORG`.
pub async fn of_org(ctl: &mut Ctl<'_>, org: &str) -> anyhow::Result<ExitCode> {
    let (status, reasons) = (ctl.ledger.org_status(org).await?, ctl.ledger.org_reasons(org).await?);
    if ctl.is_json() {
        let mut value = serde_json::to_value(&status)?;
        value["reasons"] = serde_json::json!(reasons);
        ctl.json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let own = if status.is_custom_limit {
        "its own limit"
    } else {
        "the default limit"
    };
    writeln!(
        ctl.out,
        "{}: {} of {} runners ({own}), {} jobs queued",
        status.organization, status.running, status.max, status.pending
    )?;
    for reason in reasons {
        writeln!(ctl.out, "  {reason}")?;
    }
    Ok(ExitCode::SUCCESS)
}
