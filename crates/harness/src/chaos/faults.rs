//! Faults, as they begin and end.

use std::collections::HashMap;

use anyhow::Context;

use super::schedule::{Fault, Schedule};
use crate::stack::{Stack, proxy::Mode};

/// Brings faults about, and remembers what has to be ended.
#[derive(Default)]
pub struct Faults {
    /// Numbers of GitHub's faults by their place in the schedule.
    github: HashMap<usize, Vec<u64>>,
}

impl Faults {
    /// Begins the fault of this place.
    ///
    /// # Errors
    /// When the stack itself does not do what it should.
    pub async fn begin(&mut self, stack: &mut Stack, place: usize, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(part) => stack.part(part)?.kill().await,
            Fault::Pause(part) => stack.part(part)?.pause(),
            Fault::RedisEmptied => empty(stack).await,
            Fault::RedisWay(part, mode) => stack.network.redis(part, *mode),
            Fault::RedisCut(part) => stack.network.cut_redis(part),
            Fault::ApiServer(mode) => stack.network.kubernetes(*mode),
            Fault::WatchCut => stack.network.cut_kubernetes(),
            Fault::WatchGone => stack.network.end_watches(),
            Fault::Github(_, fault) => drop(self.github.insert(place, stack.github_faults(fault).await?)),
            // A kubelet that is away takes no orders; then nothing happens to pods.
            Fault::Pods(fault) => drop(stack.kubelet_fault(fault).await),
            Fault::NodeGone => stack.lose_node().await?,
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// As above.
    pub async fn end(&mut self, stack: &mut Stack, place: usize, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(part) => start(stack, part).await?,
            Fault::Pause(part) => stack.part(part)?.resume(),
            Fault::RedisWay(part, _) => stack.network.redis(part, Mode::Pass),
            Fault::ApiServer(_) => stack.network.kubernetes(Mode::Pass),
            Fault::Github(..) => {
                for number in self.github.remove(&place).unwrap_or_default() {
                    stack.end_github_faults(Some(number)).await?;
                }
            }
            Fault::Pods(_) => stack.end_kubelet_faults().await,
            Fault::NodeGone => {
                stack.collect_pods().await?;
                start(stack, "kubelet").await?;
            }
            Fault::RedisEmptied | Fault::RedisCut(_) | Fault::WatchCut | Fault::WatchGone => {}
        }
        Ok(())
    }

    /// Ends all of them, whatever is still under way, and waits until every part is there.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn end_all(stack: &mut Stack, schedule: &Schedule) -> anyhow::Result<()> {
        stack.network.heal();
        stack.end_github_faults(None).await?;
        for planned in &schedule.faults {
            if let Fault::Pause(part) = &planned.fault {
                stack.part(part)?.resume();
            }
        }
        stack.end_kubelet_faults().await;
        stack.all_ready().await
    }
}

async fn empty(stack: &Stack) {
    let emptied = async {
        let mut redis = stack.redis().await?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await
    };
    // One that is paused or away holds on to what it has.
    let _ = emptied.await;
}

/// Starts a part that was killed, unless another fault that ended before has done so.
async fn start(stack: &mut Stack, part: &str) -> anyhow::Result<()> {
    let part = stack.part(part)?;
    if part.ended().is_some() || !part.is_running() {
        part.spawn()
            .await
            .with_context(|| format!("start {} again", part.name()))?;
    }
    Ok(())
}
