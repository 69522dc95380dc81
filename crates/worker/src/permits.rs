//! How many pieces of work are done at once: runners that are made, what upkeep does. A piece that takes longer than
//! usual gives its permit back and goes on without one, so that one slow owner, be it at GitHub or in Kubernetes, keeps
//! nobody else waiting. Those are counted, too: for each owner, and in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jit_github::Scope;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A piece that takes longer than this is slow; some 10 ms are usual.
const QUICK: Duration = Duration::from_secs(1);
/// Slow ones in all, for each permit.
const SLOW_FOR_EACH: usize = 10;

pub(crate) struct Permits {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// Slow ones of each owner, of whom there are at most `most`.
    owners: Mutex<HashMap<String, usize>>,
    most: usize,
}

/// The owner of a scope, in lower case.
pub(crate) fn owner_of(scope: &str) -> String {
    scope
        .parse::<Scope>()
        .map_or_else(|_| String::new(), |scope| scope.owner().to_lowercase())
}

/// One slow piece of an owner's, until it is dropped.
struct Slow<'a> {
    permits: &'a Permits,
    owner: &'a str,
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        let mut owners = self.permits.owners();
        if let Some(count) = owners.get_mut(self.owner) {
            *count -= 1;
            if *count == 0 {
                owners.remove(self.owner);
            }
        }
    }
}

impl Permits {
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            quick: Arc::new(Semaphore::new(concurrency)),
            slow: Arc::new(Semaphore::new(concurrency * SLOW_FOR_EACH)),
            owners: Mutex::default(),
            most: concurrency,
        }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for one piece; none where there will be none any more.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.quick.clone().acquire_owned().await.ok()
    }

    /// Permits that nobody has.
    pub(crate) fn available(&self) -> usize {
        self.quick.available_permits()
    }

    /// How many of an owner's pieces are slow, where that is as many as there may be.
    pub(crate) fn exhausted(&self, owner: &str) -> Option<usize> {
        self.owners().get(owner).copied().filter(|count| *count >= self.most)
    }

    /// Does the work with the permit, and gives that back where the work is slow.
    pub(crate) async fn hold(&self, permit: OwnedSemaphorePermit, owner: &str, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        tokio::select! { () = &mut work => return, () = tokio::time::sleep(QUICK) => {} }
        *self.owners().entry(owner.to_owned()).or_default() += 1;
        let _slow = Slow { permits: self, owner };
        // Where there are too many slow ones in all it keeps its permit, and so nothing more is begun.
        let _place = tokio::select! { () = &mut work => return, place = self.slow.acquire() => place };
        drop(permit);
        work.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_gives_its_permit_back_and_is_counted() {
        let permits = Arc::new(Permits::new(2));
        let never = |owner: &'static str| {
            let permits = permits.clone();
            tokio::spawn(async move {
                let permit = permits.permit().await.expect("a permit");
                permits.hold(permit, owner, std::future::pending()).await;
            })
        };
        let slow = [never("acme"), never("acme")];
        tokio::time::sleep(QUICK / 2).await;
        assert_eq!((permits.available(), permits.exhausted("acme")), (0, None));
        tokio::time::sleep(QUICK).await;
        assert_eq!(
            (
                permits.available(),
                permits.exhausted("acme"),
                permits.exhausted("other")
            ),
            (2, Some(2), None)
        );
        for task in slow {
            task.abort();
            let _ = task.await;
        }
        assert_eq!(permits.exhausted("acme"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_are_slow_nothing_more_is_begun() {
        let permits = Arc::new(Permits::new(1));
        for _ in 0..=SLOW_FOR_EACH {
            let permit = permits.permit().await.expect("a permit");
            let permits = permits.clone();
            tokio::spawn(async move { permits.hold(permit, "acme", std::future::pending()).await });
            tokio::time::sleep(QUICK * 2).await;
        }
        assert_eq!(permits.available(), 0);
    }
}
