//! The gate of all calls of GitHub: the ledger says whether one may be made, and learns how it ended.
//!
//! A limit that one worker's call met holds all workers' calls of that account. Without Redis calls are made as they
//! come: those are what is in hand already, since nothing new is handed out.

use std::{
    future::ready,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jit_core::ledger::{Budget, CallOf, Ended, Entering, Ledger, Turn};
use jit_github::{Answering, Caller, Ending, Gate, NotNow, Outgoing};
use tokio::time::Instant;

use crate::{
    metrics::{Held, Metrics},
    step::Step,
};

/// So long a call waits for its turn; then it is told to come later.
const PATIENCE: Duration = Duration::from_secs(20);
/// And comes again after this time at least.
const LATER: Duration = Duration::from_secs(5);

/// What the gates of all credentials share. Clones are the same.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    /// Of this worker.
    id: String,
    ledger: Ledger,
    budget: Budget,
    metrics: Metrics,
    count: AtomicU64,
}

impl Calls {
    /// The calls of the worker of this name.
    #[must_use]
    pub fn new(id: &str, ledger: &Ledger, budget: Budget, metrics: &Metrics) -> Self {
        Self(Arc::new(Shared {
            id: id.to_owned(),
            ledger: ledger.clone(),
            budget,
            metrics: metrics.clone(),
            count: AtomicU64::new(1),
        }))
    }

    /// The gate of a credential's calls.
    #[must_use]
    pub fn gate(&self, credential: &str) -> Arc<dyn Gate> {
        Arc::new(OfCredential {
            calls: self.clone(),
            credential: credential.to_owned(),
        })
    }

    async fn enter(&self, credential: &str, request: &Outgoing) -> Result<u64, NotNow> {
        let Shared {
            ledger,
            budget,
            metrics,
            count,
            ..
        } = &*self.0;
        let number = count.fetch_add(1, Ordering::Relaxed);
        let name = self.name(number);
        let call = Entering {
            call: &name,
            endpoint: request.endpoint,
            writes: request.writes,
            timeout: request.timeout,
        };
        let (who, began) = (caller(credential, &request.who), Instant::now());
        loop {
            let (wait, why) = match ledger.enter_call(&who, &call, budget).await.step("calls.entered") {
                Ok(Turn::Now) => return Ok(number),
                Ok(Turn::Soon(wait, _)) if began.elapsed() + wait <= PATIENCE => {
                    tokio::time::sleep(spread(wait)).await;
                    continue;
                }
                Ok(Turn::Soon(wait, why)) => (spread(wait.max(LATER)), why),
                Ok(Turn::Held(wait, why)) => (wait, why),
                Err(error) => {
                    tracing::debug!(
                        %error,
                        endpoint = request.endpoint,
                        "the ledger does not say whether GitHub may be called; it is"
                    );
                    return Ok(number);
                }
            };
            metrics
                .github_held
                .get_or_create(&Held {
                    endpoint: request.endpoint,
                })
                .inc();
            return Err(NotNow { wait, why });
        }
    }

    async fn ended(&self, credential: &str, who: &Caller, number: Option<u64>, ended: &Ended) {
        let (name, who) = (number.map(|number| self.name(number)), caller(credential, who));
        if let Ended::Limited(wait, _, why) = ended {
            tracing::warn!(
                credential,
                wait_seconds = wait.as_secs(),
                why,
                "GitHub limits a credential; nothing is asked with it meanwhile"
            );
        }
        if let Ended::Refused(why) = ended {
            let owner = who.owner;
            tracing::warn!(
                credential,
                owner,
                why,
                "GitHub refuses a credential; it is tried again from time to time"
            );
        }
        if let Err(error) = self
            .0
            .ledger
            .leave_call(&who, name.as_deref(), ended)
            .await
            .step("calls.left")
        {
            tracing::debug!(%error, credential, "the ledger was not told of a call's end; its time ends by itself");
        }
    }

    fn name(&self, number: u64) -> String {
        format!("{}:{number}", self.0.id)
    }
}

fn caller<'a>(credential: &'a str, who: &'a Caller) -> CallOf<'a> {
    CallOf {
        credential,
        app: who.app,
        owner: who.owner.as_deref(),
        enterprise: who.enterprise,
    }
}

/// Up to a tenth more, each time another: those who wait for the same need not come at the same time.
fn spread(wait: Duration) -> Duration {
    let part = u32::try_from(RandomState::new().hash_one(0) % 100).unwrap_or(0);
    wait + wait * part / 1000
}

struct OfCredential {
    calls: Calls,
    credential: String,
}

impl Gate for OfCredential {
    fn enter<'a>(&'a self, request: &'a Outgoing) -> Answering<'a, Result<u64, NotNow>> {
        Box::pin(self.calls.enter(&self.credential, request))
    }

    fn leave<'a>(&'a self, request: &'a Outgoing, number: u64, ending: Ending) -> Answering<'a, ()> {
        let ended = match ending {
            Ending::Answered => Ended::Answered,
            Ending::Unanswered => Ended::Unanswered,
            Ending::Unauthorized => Ended::Unauthorized,
            Ending::Limited { wait, whole, why } => Ended::Limited(wait, whole, why),
            Ending::Refused { why } => Ended::Refused(why),
        };
        if matches!(ended, Ended::Limited(..) | Ended::Refused(_)) {
            // Before anything else is asked for.
            return Box::pin(async move {
                self.calls
                    .ended(&self.credential, &request.who, Some(number), &ended)
                    .await
            });
        }
        let (calls, credential, who) = (self.calls.clone(), self.credential.clone(), request.who.clone());
        tokio::spawn(async move { calls.ended(&credential, &who, Some(number), &ended).await });
        Box::pin(ready(()))
    }

    fn refused<'a>(&'a self, who: &'a Caller, why: String) -> Answering<'a, ()> {
        Box::pin(async move {
            self.calls
                .ended(&self.credential, who, None, &Ended::Refused(why))
                .await
        })
    }
}
