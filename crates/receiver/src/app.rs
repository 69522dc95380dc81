//! What the handlers share, and what keeps them from getting into each other's way.

use std::{sync::Arc, time::Duration};

use jit_core::{
    ledger::{Ledger, LedgerError, Overview},
    store,
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    body::Budget, config::Settings, errors::ApiError, metrics::Metrics, publish::Publisher, reads::Reads, turns::Turns,
};

/// Status, metrics and admin requests at once: they share the ledger's few connections, and must not hold up each
/// other's for long.
const READERS: usize = 32;
/// Wrong admin keys that are being answered at once. With their delay this is 8 tries a second, whoever tries.
const WRONG_KEYS: usize = 4;
/// The whole is read again after this time at the earliest, however often it is asked for.
const OVERVIEW_AGE: Duration = Duration::from_secs(1);

/// The receiver's state.
pub struct App {
    /// Its configuration.
    pub settings: Settings,
    /// The ledger.
    pub ledger: Ledger,
    /// The way into the streams.
    pub publisher: Publisher,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// Memory for bodies.
    pub bodies: Budget,
    /// Turns of those that send much.
    pub turns: Turns,
    /// Verified webhooks on their way to Redis.
    pub webhooks: Lane,
    /// Status, metrics and admin requests.
    pub readers: Lane,
    /// What anybody may read: its answers of the last second, and who asked.
    pub reads: Reads,
    /// Wrong admin keys on their way to their answer.
    pub wrong_keys: Semaphore,
    /// Cancelled when the process is to end: not ready any more.
    pub stop: CancellationToken,
    overview: Mutex<Option<(Instant, Arc<Overview>)>>,
}

/// So many at once; more are turned away, not kept waiting.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Semaphore>);

impl Lane {
    /// A lane for so many at once.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self(Arc::new(Semaphore::new(width)))
    }

    /// A place in it, until the permit is dropped.
    ///
    /// # Errors
    /// 503 when it is full.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.clone().try_acquire_owned().map_err(|_| ApiError::busy())
    }
}

impl App {
    /// Connects to nothing yet: the receiver starts without Redis, and says so.
    ///
    /// # Errors
    /// When Redis's URL cannot be read.
    pub fn new(settings: Settings, stop: CancellationToken) -> anyhow::Result<Self> {
        let turns = Turns::default();
        Ok(Self {
            ledger: Ledger::new(store::pool(&settings.redis)?),
            publisher: Publisher::new(&settings.redis),
            metrics: Metrics::new(),
            bodies: Budget::new(settings.max_body_bytes, turns.clone()),
            turns,
            webhooks: Lane::new(settings.max_in_flight),
            readers: Lane::new(READERS),
            reads: Reads::default(),
            wrong_keys: Semaphore::new(WRONG_KEYS),
            overview: Mutex::default(),
            stop,
            settings,
        })
    }

    /// The whole at a glance, at most a second old, with this process's own limits where no worker has set any. Read
    /// once for all who ask at once.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn overview(&self) -> Result<Arc<Overview>, LedgerError> {
        let mut slot = self.overview.lock().await;
        if let Some((read, overview)) = &*slot
            && read.elapsed() < OVERVIEW_AGE
        {
            return Ok(overview.clone());
        }
        let mut overview = self.ledger.overview().await?;
        if overview.max_per_org == 0 {
            (overview.max_per_org, overview.max_total) =
                (self.settings.limits.max_per_org, self.settings.limits.max_total);
        }
        let overview = Arc::new(overview);
        *slot = Some((Instant::now(), overview.clone()));
        Ok(overview)
    }
}
