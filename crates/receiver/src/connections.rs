//! Who is connected, what each connection is doing, and which of them gives way when there are too many.
//!
//! There are two bounds: of all connections together, and of one peer's. A peer is an IP address. Proxies that are
//! configured as trusted bring many senders, so only the bound of all together is theirs.
//!
//! A newcomer above a bound makes another connection give way, among all or among its own peer's:
//!
//! 1. the one that has been waiting for longest: idle after a request, with an answer that it does not read, or without
//!    the headers of its first request for more than a second;
//! 2. where none waits, the one whose request has been in hand for longest, if for more than a second;
//! 3. where there is none of these either, the one that was accepted first and has sent no headers yet.
//!
//! A webhook that was verified never gives way.
//!
//! Where none can, the newcomer waits. Invariants: no more connections are registered than the bounds allow; a
//! connection is asked to give way and decides by its phase at that moment, so a request that came meanwhile is not
//! lost.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// A request that has been in hand for longer than this is slow. So is a sender whose first headers are out for longer.
const SLOW: Duration = Duration::from_secs(1);
/// A newcomer that waits looks again after this time at the latest: requests grow slow without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bounds of connections at once.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Of all peers together.
    pub total: usize,
    /// Of one peer that is not trusted.
    pub per_peer: usize,
    /// Peers that the bound above is not for.
    pub trusted: Vec<IpNet>,
}

impl Bounds {
    /// Whether a peer brings many senders.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&peer))
    }
}

/// All connections of one listener.
#[derive(Debug)]
pub struct Connections {
    bounds: Bounds,
    open: Mutex<Open>,
    /// Notified when a connection has ended or begun to wait.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    by_peer: HashMap<IpAddr, usize>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It was accepted, and no request has come yet.
    New,
    /// No request is in hand any more.
    Waiting,
    /// A request is in hand.
    Serving,
    /// Its answer is made, but may not be sent yet.
    Answered,
    /// A webhook that was verified is in hand.
    Verified,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    state: Mutex<State>,
    /// Notified when it is asked to give way.
    asked: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Whether it was asked to give way in this phase.
    asked: bool,
}

/// A connection's place among the others. It is another's when this is dropped.
#[derive(Debug)]
pub struct Slot {
    all: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
}

/// A connection that a newcomer has asked to give way.
pub type Asked = Option<Arc<Connection>>;

/// Why there is no slot at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are as many connections as there may be.
    All,
    /// The peer has as many as it may have.
    Peer,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            open: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A slot for a newcomer, if there is one. Else a connection is asked to give way, unless `asked` still is.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn try_enter(self: &Arc<Self>, peer: IpAddr, asked: &mut Asked) -> Result<Slot, Full> {
        let mut open = self.open();
        let of_peer = open.by_peer.get(&peer).copied().unwrap_or(0);
        let full = if of_peer >= self.bounds.per_peer && !self.is_trusted(peer) {
            Full::Peer
        } else if open.connections.len() >= self.bounds.total {
            Full::All
        } else {
            return Ok(self.enter_now(&mut open, peer));
        };
        if asked.as_ref().is_none_or(|connection| !connection.state().asked) {
            let candidates = open
                .connections
                .values()
                .filter(|connection| full == Full::All || connection.peer == peer);
            *asked = ask(candidates, Instant::now());
        }
        Err(full)
    }

    /// A slot for a newcomer, as soon as there is one. `asked` is the connection that [`Self::try_enter`] asked for it.
    pub async fn enter(self: &Arc<Self>, peer: IpAddr, mut asked: Asked) -> Slot {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change goes unnoticed.
            changed.as_mut().enable();
            if let Ok(slot) = self.try_enter(peer, &mut asked) {
                return slot;
            }
            let _ = timeout(LOOK_AGAIN, changed).await;
        }
    }

    fn enter_now(self: &Arc<Self>, open: &mut Open, peer: IpAddr) -> Slot {
        let state = State {
            phase: Phase::New,
            since: Instant::now(),
            asked: false,
        };
        let connection = Arc::new(Connection {
            peer,
            state: Mutex::new(state),
            asked: Notify::new(),
        });
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, connection.clone());
        *open.by_peer.entry(peer).or_default() += 1;
        Slot {
            all: self.clone(),
            number,
            connection,
        }
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.bounds.trusts(peer)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the connection that comes first to give way.
fn ask<'c>(connections: impl Iterator<Item = &'c Arc<Connection>>, now: Instant) -> Asked {
    let candidates = connections.filter_map(|connection| connection.state().rank(now).map(|rank| (rank, connection)));
    let (_, connection) = candidates.min_by_key(|(rank, _)| *rank)?;
    let mut state = connection.state();
    // A request may have come since the ranks were compared: then nobody is asked this time.
    state.rank(now)?;
    state.asked = true;
    connection.asked.notify_one();
    Some(connection.clone())
}

impl State {
    /// Where it stands in the order of those that may give way: the lowest comes first. None where it may not.
    fn rank(&self, now: Instant) -> Option<(u8, Instant)> {
        let is_slow = now.duration_since(self.since) > SLOW;
        let rank = match self.phase {
            _ if self.asked => return None,
            Phase::Waiting => 0,
            Phase::New if is_slow => 0,
            Phase::Serving if is_slow => 1,
            Phase::New => 2,
            Phase::Serving | Phase::Answered | Phase::Verified => return None,
        };
        Some((rank, self.since))
    }
}

impl Connection {
    /// The IP address at its other end.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter_phase(&self, phase: Phase) {
        // Whoever asked it to give way looks for another one.
        *self.state() = State {
            phase,
            since: Instant::now(),
            asked: false,
        };
    }

    /// A request has come.
    pub fn serving(&self) {
        self.enter_phase(Phase::Serving);
    }

    /// Its request is a webhook that was verified.
    pub fn verified(&self) {
        self.enter_phase(Phase::Verified);
    }

    /// Its request is answered. The answer is sent when the connection is polled next.
    pub fn answered(&self) {
        self.enter_phase(Phase::Answered);
    }
}

impl Slot {
    /// What the handler of a request may tell of it.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The connection was polled: an answer that was made has been sent, or its reader does not read it.
    pub fn polled(&self) {
        if self.connection.state().phase == Phase::Answered {
            self.waits();
        }
    }

    /// No request is in hand any more.
    pub fn waits(&self) {
        self.connection.enter_phase(Phase::Waiting);
        self.all.changed.notify_waiters();
    }

    /// Returns when it has to give way.
    pub async fn gives_way(&self) {
        loop {
            self.connection.asked.notified().await;
            let (asked, phase, since) = {
                let state = self.connection.state();
                (state.asked, state.phase, state.since)
            };
            if asked {
                let seconds = since.elapsed().as_secs_f64();
                tracing::debug!(peer = %self.connection.peer, ?phase, seconds, "a connection gives way to another");
                return;
            }
            self.all.changed.notify_waiters();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.all.open();
        open.connections.remove(&self.number);
        if let Some(count) = open.by_peer.get_mut(&self.connection.peer) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&self.connection.peer);
            }
        }
        drop(open);
        self.connection.state().asked = false;
        self.all.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn connections(total: usize, per_peer: usize, trusted: &[&str]) -> Arc<Connections> {
        Connections::new(Bounds {
            total,
            per_peer,
            trusted: trusted.iter().map(|text| text.parse().expect("a network")).collect(),
        })
    }

    fn enter(all: &Arc<Connections>, peer: IpAddr) -> Slot {
        all.try_enter(peer, &mut None).expect("there is room")
    }

    /// Makes it so that its phase began this long ago.
    fn since(slot: &Slot, ago: Duration) {
        slot.connection.state().since = Instant::now().checked_sub(ago).expect("the machine runs for longer");
    }

    fn is_asked(slot: &Slot) -> bool {
        slot.connection.state().asked
    }

    #[tokio::test]
    async fn the_longest_waiting_gives_way_then_the_longest_in_hand_and_never_a_verified_webhook() {
        let all = connections(7, 7, &[]);
        let slots: Vec<_> = (0..7).map(|_| enter(&all, A)).collect();
        let [silent, idle, later, slow, new, verified, quick] = &slots[..] else {
            panic!("seven")
        };
        since(silent, SLOW * 3);
        idle.waits();
        since(idle, Duration::from_millis(20));
        later.waits();
        since(later, Duration::from_millis(10));
        slow.connection.serving();
        since(slow, SLOW * 2);
        verified.connection.verified();
        since(verified, SLOW * 9);
        quick.connection.serving();
        for next in [silent, idle, later, slow, new] {
            assert!(!is_asked(next));
            assert!(all.try_enter(B, &mut None).is_err());
            assert!(is_asked(next));
            next.gives_way().await;
        }
        assert!(all.try_enter(B, &mut None).is_err());
        assert!(!is_asked(verified) && !is_asked(quick));
    }

    #[tokio::test]
    async fn a_newcomer_asks_one_and_asks_another_when_that_one_has_something_to_do() {
        let all = connections(2, 2, &[]);
        let (first, second) = (enter(&all, A), enter(&all, A));
        since(&first, Duration::from_millis(10));
        let mut asked = None;
        assert_eq!(all.try_enter(B, &mut asked).expect_err("full"), Full::All);
        assert_eq!(all.try_enter(B, &mut asked).expect_err("full"), Full::All);
        assert!(is_asked(&first) && !is_asked(&second));
        // Its next request came in the same moment.
        first.connection.serving();
        assert!(!is_asked(&first));
        let newcomer = tokio::spawn({
            let all = all.clone();
            async move { all.enter(B, asked).await }
        });
        second.gives_way().await;
        drop(second);
        let newcomer = newcomer.await.expect("entered");
        // A request in hand is not slow at once, and its answer is sent before the connection counts as waiting.
        let mut asked = None;
        assert!(all.try_enter(A, &mut asked).is_err() && is_asked(&newcomer));
        newcomer.connection.verified();
        first.connection.answered();
        assert!(all.try_enter(A, &mut asked).is_err() && asked.is_none());
        first.polled();
        assert!(all.try_enter(A, &mut asked).is_err() && is_asked(&first));
    }

    #[tokio::test]
    async fn a_peer_at_its_bound_makes_its_own_give_way_and_a_trusted_one_has_none() {
        let all = connections(4, 2, &["10.0.0.2/32"]);
        let (other, own, busy) = (enter(&all, B), enter(&all, A), enter(&all, A));
        since(&other, Duration::from_secs(9));
        busy.connection.serving();
        assert_eq!(all.try_enter(A, &mut None).expect_err("its bound"), Full::Peer);
        assert!(is_asked(&own) && !is_asked(&other));
        let _fourth = enter(&all, B);
        assert_eq!(all.try_enter(B, &mut None).expect_err("all of them"), Full::All);
        assert!(is_asked(&other));
        // A peer that is gone is forgotten.
        drop((own, busy));
        assert!(!all.open().by_peer.contains_key(&A));
    }
}
