//! Bodies, read within bounds: of one body, and of all that are being read at once.
//!
//! A sender that is not yet known to be GitHub may fill the network, but not the memory. There are two shares of
//! memory: one for small bodies, as webhooks usually are, and one for large ones. A body begins in the share of its
//! announced size; one that announced none moves over when it has grown large.
//!
//! When a share is spent, the body that has been reading for longest gives way: its buffer is freed at once for the
//! newcomer, and its sender is answered 503. A webhook comes within milliseconds, so it is never the one.
//!
//! Invariants: the buffers of a share hold no more than its size; what is counted is what is allocated, not what was
//! announced; a body that came whole is not taken away; a large body cannot take the memory of small ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::{errors::ApiError, turns::Turns};

/// What a share is counted in, in bytes.
const PAGE: usize = 4 * 1024;
/// Largest body that the small share takes. GitHub's `workflow_job` webhooks have about 15 KiB, at most some 30.
const SMALL: usize = 256 * 1024;
/// Size of the small share.
const SMALL_SHARE: usize = 16 * 1024 * 1024;
/// Bodies of the full size that the large share takes.
const FULL_BODIES: usize = 2;
/// A full size below this one counts as this one: the admin API takes bodies of 1 MiB whatever webhooks may have.
const LEAST_FULL_SIZE: usize = 4 * 1024 * 1024;
/// What a body may hold before its further pieces take turns with those of others.
const WITHOUT_TURN: usize = 64 * 1024;

/// Memory for the bodies of this process.
#[derive(Clone, Debug)]
pub struct Budget {
    small: Share,
    large: Share,
    turns: Turns,
}

/// A body that was read. Its memory goes back to its share with it.
#[derive(Debug)]
pub struct Read {
    /// Its bytes.
    pub bytes: Vec<u8>,
    _place: Place,
}

impl Budget {
    /// A budget for bodies of up to `limit` bytes, whose large ones take these turns.
    #[must_use]
    pub fn new(limit: usize, turns: Turns) -> Self {
        Self {
            small: Share::new(SMALL_SHARE),
            large: Share::new(FULL_BODIES * limit.max(LEAST_FULL_SIZE)),
            turns,
        }
    }

    /// Bytes that small bodies and large ones hold now.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        (self.small.in_use(), self.large.in_use())
    }

    /// The size that the headers announce, if any.
    ///
    /// # Errors
    /// 413 when it is above `limit`.
    pub fn announced(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, ApiError> {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let Some(announced) = announced else { return Ok(None) };
        usize::try_from(announced)
            .ok()
            .filter(|size| *size <= limit)
            .map(Some)
            .ok_or_else(|| ApiError::too_large(limit))
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 when it is larger, 503 when it gave way to another, 400 when it ends early.
    pub async fn read(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<Read, ApiError> {
        self.read_with(headers, body, limit, |_| {}).await
    }

    /// Reads a body as [`Self::read`] does, and shows each piece of it to `see` as it comes.
    ///
    /// # Errors
    /// The same.
    pub async fn read_with(
        &self,
        headers: &HeaderMap,
        mut body: Body,
        limit: usize,
        mut see: impl FnMut(&[u8]),
    ) -> Result<Read, ApiError> {
        let announced = Self::announced(headers, limit)?;
        let (mut size, mut is_large) = (0, announced.is_some_and(|size| size > SMALL));
        let mut place = if is_large { &self.large } else { &self.small }.open();
        loop {
            let frame = tokio::select! {
                biased;
                () = place.gave_way.notified() => return Err(ApiError::busy()),
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let Ok(piece) = frame
                .map_err(|_| ApiError::bad_request("the body ended early"))?
                .into_data()
            else {
                continue;
            };
            size += piece.len();
            if size > limit {
                return Err(ApiError::too_large(limit));
            }
            if size > SMALL && !is_large {
                is_large = true;
                place = place.moved_to(&self.large, limit)?;
            }
            let expected = announced.unwrap_or(if is_large { limit } else { limit.min(SMALL) });
            let mut take = || {
                place.append(&piece, expected)?;
                see(&piece);
                Ok::<_, ApiError>(())
            };
            if size > WITHOUT_TURN {
                self.turns.work(take).await
            } else {
                take()
            }?;
        }
        Ok(Read {
            bytes: place.close()?,
            _place: place,
        })
    }
}

/// A share of the memory.
#[derive(Clone, Debug)]
struct Share(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    /// Pages that nobody holds.
    free: usize,
    /// Number of the next body. A body with a lower one has been reading for longer.
    next: u64,
    holders: BTreeMap<u64, Holder>,
}

/// One body's part of a share.
#[derive(Debug)]
struct Holder {
    pages: usize,
    /// None when it came whole: it does not give way any more.
    buffer: Option<Vec<u8>>,
    gave_way: Arc<Notify>,
}

/// A body's place in its share. Its pages are free again when it is dropped.
#[derive(Debug)]
struct Place {
    share: Share,
    number: u64,
    /// Notified when the body gave way.
    gave_way: Arc<Notify>,
}

impl Share {
    fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Books {
            free: bytes.div_ceil(PAGE),
            next: 0,
            holders: BTreeMap::new(),
        })))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_use(&self) -> usize {
        self.books().holders.values().map(|holder| holder.pages * PAGE).sum()
    }

    /// A place for a body, which holds nothing yet.
    fn open(&self) -> Place {
        let gave_way = Arc::new(Notify::new());
        let mut books = self.books();
        let number = books.next;
        books.next += 1;
        books.holders.insert(
            number,
            Holder {
                pages: 0,
                buffer: Some(Vec::new()),
                gave_way: gave_way.clone(),
            },
        );
        Place {
            share: self.clone(),
            number,
            gave_way,
        }
    }
}

impl Books {
    /// Makes the body that has been reading for longest give way, and tells its number. None where nobody holds a page
    /// and reads.
    fn make_room(&mut self) -> Option<u64> {
        let (number, holder) = self
            .holders
            .iter()
            .find(|(_, holder)| holder.pages > 0 && holder.buffer.is_some())?;
        let number = *number;
        holder.gave_way.notify_one();
        self.remove(number);
        Some(number)
    }

    fn remove(&mut self, number: u64) {
        if let Some(holder) = self.holders.remove(&number) {
            self.free += holder.pages;
        }
    }
}

impl Place {
    /// Adds a piece. `expected` is the size that the body will have at most.
    ///
    /// # Errors
    /// 503 when the body gave way to another, or there is no room.
    fn append(&self, piece: &[u8], expected: usize) -> Result<(), ApiError> {
        let mut books = self.share.books();
        let own = books.holders.get(&self.number).ok_or_else(ApiError::busy)?;
        let (pages, size) = (own.pages, own.buffer.as_ref().map_or(0, Vec::len) + piece.len());
        let lacking = size.div_ceil(PAGE).saturating_sub(pages);
        if lacking > 0 {
            while books.free < lacking {
                // The body itself may have been reading for longest.
                if books.make_room().is_none_or(|number| number == self.number) {
                    return Err(ApiError::busy());
                }
            }
            // Twice as much each time, so that a large body is copied few times; but nobody gives way for that.
            let more = expected
                .min(2 * size)
                .div_ceil(PAGE)
                .saturating_sub(pages)
                .clamp(lacking, books.free);
            books.free -= more;
            let own = books.holders.get_mut(&self.number).ok_or_else(ApiError::busy)?;
            own.pages += more;
            if let Some(buffer) = &mut own.buffer {
                buffer.reserve_exact(own.pages * PAGE - buffer.len());
            }
        }
        if let Some(buffer) = books.holders.get_mut(&self.number).and_then(|own| own.buffer.as_mut()) {
            buffer.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Takes the bytes out. They stay counted until the place is dropped, and cannot be taken away any more.
    ///
    /// # Errors
    /// 503 when the body gave way to another.
    fn close(&self) -> Result<Vec<u8>, ApiError> {
        self.share
            .books()
            .holders
            .get_mut(&self.number)
            .and_then(|own| own.buffer.take())
            .ok_or_else(ApiError::busy)
    }

    /// A place in another share with the same bytes.
    ///
    /// # Errors
    /// 503 when the body gave way to another, or there is no room.
    fn moved_to(&self, share: &Share, expected: usize) -> Result<Self, ApiError> {
        let moved = share.open();
        moved.append(&self.close()?, expected)?;
        Ok(moved)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.share.books().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four pages for small bodies, and this many for large ones.
    fn budget(large: usize) -> Budget {
        Budget {
            small: Share::new(4 * PAGE),
            large: Share::new(large),
            turns: Turns::default(),
        }
    }

    fn free(share: &Share) -> usize {
        share.books().free
    }

    fn page() -> Vec<u8> {
        vec![b'x'; PAGE]
    }

    async fn read(budget: &Budget, announced: Option<usize>, body: Vec<u8>) -> Result<Read, ApiError> {
        let headers = announced.map(|size| (header::CONTENT_LENGTH, size.into()));
        budget
            .read(&HeaderMap::from_iter(headers), Body::from(body), 1 << 20)
            .await
    }

    #[tokio::test]
    async fn memory_is_held_by_the_body_and_comes_back_with_it() {
        let budget = budget(0);
        let first = read(&budget, None, vec![b'x'; PAGE + 1]).await.expect("two pages");
        assert_eq!(
            (first.bytes.len(), free(&budget.small)),
            (PAGE + 1, 1),
            "twice as much was free, and is counted"
        );
        let second = read(&budget, Some(PAGE), page()).await.expect("the last page");
        // Both came whole, so neither gives way.
        assert_eq!(
            read(&budget, None, page()).await.expect_err("nothing is left").status,
            503
        );
        drop((first, second));
        assert_eq!(free(&budget.small), 4);
        drop(
            read(&budget, Some(4 * PAGE), vec![b'x'; 4 * PAGE])
                .await
                .expect("all of it"),
        );
        assert_eq!(free(&budget.small), 4);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_as_announced_and_as_read() {
        let budget = Budget::new(100, Turns::default());
        let read =
            async |headers: &HeaderMap, size: usize| budget.read(headers, Body::from(vec![b'x'; size]), 100).await;
        assert_eq!(read(&HeaderMap::new(), 100).await.expect("exactly").bytes.len(), 100);
        assert_eq!(read(&HeaderMap::new(), 101).await.expect_err("one more").status, 413);
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "101".parse().expect("a header"))]);
        assert_eq!(read(&announced, 0).await.expect_err("announced").status, 413);
    }

    #[tokio::test]
    async fn whoever_reads_for_longest_gives_way_in_a_spent_share() {
        let share = Share::new(4 * PAGE);
        let empty = share.open();
        let slow: Vec<_> = (0..4).map(|_| share.open()).collect();
        for place in &slow {
            place.append(b"x", PAGE).expect("a page");
        }
        let newcomer = share.open();
        newcomer.append(&page(), 2 * PAGE).expect("the first one's page");
        slow[0].gave_way.notified().await;
        assert_eq!(slow[0].append(b"x", PAGE).expect_err("it gave way").status, 503);
        assert_eq!(slow[0].close().expect_err("it gave way").status, 503);
        // What the others hold, they keep; whoever holds nothing has nothing to give.
        slow[1].append(b"x", PAGE).expect("still there");
        empty.append(b"", PAGE).expect("still there");
        newcomer.append(b"x", 2 * PAGE).expect("the second one's page");
        slow[1].gave_way.notified().await;
        assert_eq!(newcomer.close().expect("whole").len(), PAGE + 1);
        assert_eq!(slow[2].close().expect("whole"), b"x");
        // The last one is the one that asks: it gives way itself.
        slow[3]
            .append(&vec![b'x'; 2 * PAGE], 3 * PAGE)
            .expect_err("it has been reading for longest");
        assert_eq!(free(&share), 1);
        drop((slow, newcomer, empty));
        assert_eq!(free(&share), 4);
    }

    #[tokio::test]
    async fn large_bodies_take_nothing_of_the_small_ones() {
        let budget = budget(SMALL + PAGE);
        let large = read(&budget, Some(SMALL + 1), vec![b'x'; SMALL + 1])
            .await
            .expect("as announced");
        assert_eq!((free(&budget.small), free(&budget.large)), (4, 0));
        assert_eq!(
            read(&budget, Some(SMALL + 1), vec![b'x'; SMALL + 1])
                .await
                .expect_err("spent")
                .status,
            503
        );
        read(&budget, None, page())
            .await
            .expect("a small one has a share of its own");
        drop(large);
        // What did not announce its size begins as a small one, and moves over.
        let budget = Budget {
            small: Share::new(SMALL),
            large: Share::new(SMALL + PAGE),
            turns: Turns::default(),
        };
        let pieces = Body::from_stream(futures::stream::iter(
            (0..=SMALL / PAGE).map(|_| Ok::<_, std::io::Error>(page())),
        ));
        let moved = budget
            .read(&HeaderMap::new(), pieces, 1 << 20)
            .await
            .expect("there is room");
        assert_eq!(
            (moved.bytes.len(), free(&budget.small), free(&budget.large)),
            (SMALL + PAGE, SMALL / PAGE, 0)
        );
    }

    #[tokio::test]
    async fn a_reader_that_gives_way_is_told_at_once_and_the_pieces_are_shown_in_order() {
        let budget = budget(0);
        let mut seen = Vec::new();
        let pieces = Body::from_stream(futures::stream::iter(["a", "bc", "", "d"].map(Ok::<_, std::io::Error>)));
        let whole = budget
            .read_with(&HeaderMap::new(), pieces, 100, |piece| seen.extend_from_slice(piece))
            .await
            .expect("small");
        assert_eq!((whole.bytes.as_slice(), seen.as_slice()), (&b"abcd"[..], &b"abcd"[..]));
        drop(whole);
        // One page, and then nothing more for ever.
        let stays_out = futures::StreamExt::chain(
            futures::stream::iter([Ok::<_, std::io::Error>(page())]),
            futures::stream::pending(),
        );
        let headers = HeaderMap::new();
        let silent = budget.read(&headers, Body::from_stream(stays_out), 1 << 20);
        let newcomer = async {
            while free(&budget.small) == 4 {
                tokio::task::yield_now().await;
            }
            read(&budget, Some(4 * PAGE), vec![b'x'; 4 * PAGE]).await
        };
        let (silent, newcomer) = tokio::join!(silent, newcomer);
        assert_eq!(silent.expect_err("it gave way").status, 503);
        assert_eq!(newcomer.expect("all four pages").bytes.len(), 4 * PAGE);
    }
}
