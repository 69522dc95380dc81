//! Search: what never came is looked for at GitHub, a slice at a time; see [`crate::search`].

use tokio_util::sync::CancellationToken;

use super::rung::{Next, Rung};
use crate::{Worker, search};

pub(super) const NAME: &str = "search";

/// Works on a slice when rung for, until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    if worker.search.webhook_url.is_none() {
        tracing::warn!(
            "WEBHOOK_URL is not set: failed deliveries of webhooks are not repeated, and lost jobs are found by the \
             sweep alone"
        );
    }
    let rung = Rung {
        name: NAME,
        bell: &worker.bells.search,
        failed: "recovery is interrupted; the next tick goes on",
        again: false,
    };
    let work = async || search::one(worker, stop).await.map(|()| Next::WhenRung);
    rung.run(&worker.loops, stop, work).await;
}
