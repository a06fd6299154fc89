//! How a peer is chosen, and what must be remembered between the tries of one request.

use super::group::{Group, Groups};
use super::peer::Peer;
use super::round_robin;
use crate::log;
use smallvec::{SmallVec, smallvec};
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

/// After so many vain guesses methods that guess leave it to round robin.
pub const GUESSES_MAX: u32 = 20;

/// A method of choosing peers.
pub trait Balance {
    /// Prepares for one request: hashes its key or its client.
    fn begin(&self, _ask: &mut Ask, _client: Option<IpAddr>, _key: Vec<u8>) {}

    /// Chooses among the primary peers that were not tried yet. `now` in seconds.
    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize>;

    /// Chooses among the backup peers.
    fn choose_backup(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        round_robin::choose(group, ask, now)
    }
}

/// One request's search for a peer.
pub struct Ask {
    pub(super) groups: Rc<Groups>,
    pub(super) on_backup: bool,
    tried: SmallVec<[u64; 1]>,
    /// Tries that are left.
    pub tries: u32,
    pub(super) key: Vec<u8>,
    pub(super) hash: u32,
    pub(super) rehash: u32,
    pub(super) guesses: u32,
}

impl Ask {
    pub(super) fn new(groups: Rc<Groups>) -> Ask {
        let tries = groups.tries();
        Ask {
            groups,
            on_backup: false,
            tried: smallvec![0],
            tries,
            key: Vec::new(),
            hash: 0,
            rehash: 0,
            guesses: 0,
        }
    }

    /// Whether the request went to peer `index` of the group in turn already.
    pub fn has_tried(&self, index: usize) -> bool {
        self.tried.get(index / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    fn mark(&mut self, index: usize) {
        if self.tried.len() <= index / 64 {
            self.tried.resize(index / 64 + 1, 0);
        }
        self.tried[index / 64] |= 1 << (index % 64);
    }

    fn unmark(&mut self, index: usize) {
        if let Some(word) = self.tried.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    pub(super) fn turn_to_backup(&mut self) {
        self.on_backup = true;
        self.tried.fill(0);
    }

    /// Whether the peer may get the request: not tried yet, and able.
    pub fn suits(&self, group: &Group, index: usize, now: u64) -> bool {
        !self.has_tried(index) && group.peers[index].may_serve(now)
    }
}

/// A request's turn at a peer. Dropping it says that it went well.
pub struct Turn {
    peer: Rc<Peer>,
    index: usize,
    is_single: bool,
    on_backup: bool,
    failed: Cell<bool>,
}

impl Turn {
    pub(super) fn begin(group: &Group, index: usize, ask: &mut Ask, now: u64) -> Turn {
        let peer = group.peers[index].clone();
        if !group.is_single {
            ask.mark(index);
        }
        peer.begin(now);
        let (is_single, on_backup) = (group.is_single, ask.on_backup);
        Turn { peer, index, is_single, on_backup, failed: Cell::new(false) }
    }

    /// A turn at a peer of no group (an address that a variable gave).
    pub fn alone(peer: Rc<Peer>) -> Turn {
        peer.begin(0);
        Turn { peer, index: 0, is_single: true, on_backup: false, failed: Cell::new(false) }
    }

    /// A turn at a peer that code has chosen: others may follow.
    pub fn chosen(peer: Rc<Peer>) -> Turn {
        let mut turn = Turn::alone(peer);
        turn.is_single = false;
        turn
    }

    /// Who it is.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// The try is spent without the peer being to blame.
    pub fn spend(&self, ask: &mut Ask) {
        ask.tries = if self.is_single { 0 } else { ask.tries.saturating_sub(1) };
    }

    /// The peer failed: the try is spent and the failure counted. `doing`: while what, for the log.
    pub fn fail(&self, ask: &mut Ask, context: &dyn log::Context, doing: &str) {
        self.spend(ask);
        self.failed.set(true);
        if !self.is_single {
            self.peer.count_failure(context, doing);
        }
    }

    /// A connection that had waited in the pool was dead: nobody is to blame, and the same peer
    /// may be asked again.
    pub fn excuse(&self, ask: &mut Ask) {
        if self.on_backup == ask.on_backup {
            ask.unmark(self.index);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.failed.get() {
            self.peer.count_success();
        }
        self.peer.end();
    }
}
