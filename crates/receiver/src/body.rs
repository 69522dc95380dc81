//! Bodies, read within bounds: of one body, and of all that are being read at once.
//!
//! A sender that is not yet known to be GitHub may fill the network, but not the memory: every 64 KiB of body take a permit from one budget for the
//! process, and when that is spent a body is refused as too much for now. A `Content-Length` over the limit is refused before a byte is read.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::errors::ApiError;

/// Bytes of one permit of the budget.
const PAGE: usize = 64 * 1024;
/// Bodies of the full size that may be in memory at once.
const FULL_BODIES: usize = 2;

/// Memory for the bodies of this process.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

/// A body that was read. Its memory goes back to the budget with it.
#[derive(Debug)]
pub struct Read {
    /// Its bytes.
    pub bytes: Vec<u8>,
    _held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget for bodies of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(FULL_BODIES * limit.div_ceil(PAGE).max(64))))
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 when it is larger, 503 when the budget is spent, 400 when it ends early.
    pub async fn read(&self, headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Read, ApiError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
        if announced > limit as u64 {
            return Err(ApiError::too_large(limit));
        }
        // What was only announced is not reserved: a sender could announce much and send nothing.
        let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).min(PAGE));
        let mut held: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ApiError::bad_request("the body ended early"))?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(ApiError::too_large(limit));
            }
            bytes.extend_from_slice(&data);
            let lacking = bytes.len().div_ceil(PAGE) - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if lacking > 0 {
                let more = self.0.clone().try_acquire_many_owned(u32::try_from(lacking).unwrap_or(u32::MAX)).map_err(|_| ApiError::busy())?;
                match &mut held {
                    Some(held) => held.merge(more),
                    None => held = Some(more),
                }
            }
        }
        Ok(Read { bytes, _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_is_for_all_bodies_together_and_comes_back() {
        let budget = Budget(Arc::new(Semaphore::new(3)));
        let read = async |size: usize| budget.read(&HeaderMap::new(), Body::from(vec![b'x'; size]), 1 << 20).await;
        let first = read(PAGE + 1).await.expect("two pages");
        assert_eq!(first.bytes.len(), PAGE + 1);
        assert_eq!(read(PAGE + 1).await.expect_err("one page is left").status, 503);
        read(PAGE).await.expect("which is enough for a small one");
        drop(first);
        read(3 * PAGE).await.expect("all of it is back");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_as_announced_and_as_read() {
        let budget = Budget::new(100);
        let read = async |headers: &HeaderMap, size: usize| budget.read(headers, Body::from(vec![b'x'; size]), 100).await;
        assert_eq!(read(&HeaderMap::new(), 100).await.expect("exactly").bytes.len(), 100);
        assert_eq!(read(&HeaderMap::new(), 101).await.expect_err("one more").status, 413);
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "101".parse().expect("a header"))]);
        assert_eq!(read(&announced, 0).await.expect_err("announced").status, 413);
    }
}
