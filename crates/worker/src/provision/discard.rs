//! Removal of what a worker made too late.

use jit_backend::RunnerSpec;
use jit_github::{Deletion, Scope};

use crate::{Worker, step::Step};

/// Removes a runner that was given up meanwhile, as every runner is removed: at GitHub first. One that works already,
/// lives.
pub(super) async fn discard(worker: &Worker, spec: &RunnerSpec, github_id: u64) {
    tracing::info!(
        runner.name = spec.name,
        "this runner was given up meanwhile; removing what was made"
    );
    let Ok(scope) = spec.scope.parse::<Scope>() else {
        return;
    };
    let deletion = match worker.credential(&scope) {
        Ok(credential) => credential
            .client
            .delete_runner(&scope, github_id)
            .await
            .step("provision.late_runner_deleted"),
        Err(error) => Err(error),
    };
    match deletion {
        // Not found may mean hidden. It got no configuration, so its program has not started, and no job is on it.
        Ok(Deletion::Deleted | Deletion::NotFound) => {}
        Ok(Deletion::Busy) => return,
        Err(error) => {
            return tracing::warn!(
                %error,
                runner.name = spec.name,
                runner.id = github_id,
                "GitHub does not say whether it is gone; upkeep removes it"
            );
        }
    }
    if let Err(error) = worker.backend.stop(&spec.name).await.step("provision.late_pod_stopped") {
        tracing::warn!(%error, runner.name = spec.name, "cannot remove its pod; the next reconcile does");
    }
}
