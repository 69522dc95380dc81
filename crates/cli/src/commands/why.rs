//! `why`: what holds a job back.

use std::process::ExitCode;

use jit_core::{event::JobId, ledger::Known};

use crate::{ctl::Ctl, time};

/// `jitctl why JOB`.
pub async fn why(ctl: &mut Ctl<'_>, job: JobId) -> anyhow::Result<ExitCode> {
    let explanation = ctl.ledger.explain(job).await?;
    if ctl.is_json() {
        ctl.json(&explanation)?;
    } else {
        let since = explanation
            .since
            .map(|at| format!(", for {}", time::ago(ctl.now - at)))
            .unwrap_or_default();
        let next = explanation
            .next
            .map(|at| format!("; next try in {}", time::ago(at - ctl.now)))
            .unwrap_or_default();
        writeln!(
            ctl.out,
            "{job} is {}{since}: {}{next}",
            explanation.state.to_string().replace('_', " "),
            explanation.why
        )?;
    }
    Ok(if explanation.state == Known::Unknown {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
