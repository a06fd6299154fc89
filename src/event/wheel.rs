//! Timers by the millisecond, in a hierarchical wheel.
//!
//! Six levels of 64 slots: a timer far away sits in a coarse slot and moves to a finer one as its
//! time comes near. Setting, moving and finding the next are O(1).
//!
//! A node keeps its place in the wheel when its owner lets it go, and the next owner takes it over
//! as it is: a request that arms a 60-second timeout and finishes in a millisecond, again and
//! again, moves nothing. A node fires at most once too early in its life, and whoever is woken
//! looks at the clock.

use std::task::Waker;

const LEVELS: usize = 6;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Once around the coarsest level: about two years.
const SPAN_MS: u64 = 1 << (LEVELS * SLOT_BITS);
/// The farthest a timer can be; later ones fire then and are armed again.
const REACH_MS: u64 = SPAN_MS - (SPAN_MS >> SLOT_BITS);
const NONE: u32 = u32::MAX;
const NOWHERE: u16 = u16::MAX;

/// A timer's handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NodeId(u32);

struct Node {
    waker: Option<Waker>,
    /// When it fires; meaningful while it has a place.
    at: u64,
    prev: u32,
    next: u32,
    /// Level and slot, or `NOWHERE`.
    place: u16,
}

/// All timers of one loop. Times are milliseconds since the loop began.
pub(super) struct Wheel {
    nodes: Vec<Node>,
    free: Vec<u32>,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    elapsed: u64,
    /// No timer fires before this.
    next: u64,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            nodes: Vec::new(),
            free: Vec::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
            next: u64::MAX,
        }
    }
}

impl Wheel {
    /// The earliest time at which something may be due; `u64::MAX` if there is no timer.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A node for a new owner. It may still stand in the wheel for a time its last owner wanted.
    pub fn take_node(&mut self) -> NodeId {
        NodeId(self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node { waker: None, at: 0, prev: NONE, next: NONE, place: NOWHERE });
            self.nodes.len() as u32 - 1
        }))
    }

    /// Who will be woken for the node.
    #[inline]
    pub fn waker(&self, id: NodeId) -> Option<&Waker> {
        self.nodes[id.0 as usize].waker.as_ref()
    }

    /// Nodes ever needed at one time.
    #[cfg(test)]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The owner goes; nobody is woken for it any more.
    pub fn give_back(&mut self, id: NodeId) {
        self.nodes[id.0 as usize].waker = None;
        self.free.push(id.0);
    }

    /// Wakes `waker` at `at`, or before: an earlier time the node stands for is kept.
    pub fn arm(&mut self, id: NodeId, at: u64, waker: &Waker) {
        let node = &mut self.nodes[id.0 as usize];
        if !node.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            node.waker = Some(waker.clone());
        }
        if node.place == NOWHERE || node.at > at {
            self.unlink(id.0);
            self.link(id.0, at.max(self.elapsed + 1));
        }
    }

    /// As `arm` for a node that has a waker already; else nothing needs to be done.
    pub fn hasten(&mut self, id: NodeId, at: u64) {
        let node = &self.nodes[id.0 as usize];
        if node.waker.is_some() && (node.place == NOWHERE || node.at > at) {
            self.unlink(id.0);
            self.link(id.0, at.max(self.elapsed + 1));
        }
    }

    /// Takes one timer that is due at `now` out of the wheel. `Some(None)` was nobody's any more;
    /// `None`: nothing is due.
    pub fn pop(&mut self, now: u64) -> Option<Option<Waker>> {
        loop {
            let (level, slot, at) = match self.earliest() {
                Some(found) if found.2 <= now => found,
                other => {
                    self.elapsed = self.elapsed.max(now);
                    self.next = other.map_or(u64::MAX, |(_, _, at)| at);
                    return None;
                }
            };
            self.elapsed = self.elapsed.max(at);
            if level == 0 {
                let first = self.heads[0][slot];
                self.unlink(first);
                return Some(self.nodes[first as usize].waker.take());
            }
            self.refine(level, slot);
        }
    }

    /// Spreads a coarse slot, whose time has come, over finer ones.
    fn refine(&mut self, level: usize, slot: usize) {
        while self.heads[level][slot] != NONE {
            let index = self.heads[level][slot];
            let at = self.nodes[index as usize].at;
            self.unlink(index);
            self.link(index, at);
        }
    }

    /// The first occupied slot in time: level, slot, and when it begins.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let shift = level * SLOT_BITS;
        let here = (self.elapsed >> shift) as usize % SLOTS;
        let ahead = self.occupied[level].rotate_right(here as u32).trailing_zeros() as usize;
        let slot = (here + ahead) % SLOTS;
        let round = (self.elapsed >> shift) & !(SLOTS as u64 - 1);
        let mut at = (round + slot as u64) << shift;
        if slot < here {
            at += SPAN_MS.min((SLOTS as u64) << shift);
        }
        Some((level, slot, at))
    }

    fn link(&mut self, index: u32, at: u64) {
        let reach = at.min(self.elapsed + REACH_MS);
        let place = place_of(self.elapsed, reach);
        let (level, slot) = (place as usize / SLOTS, place as usize % SLOTS);
        let head = self.heads[level][slot];
        self.nodes[index as usize] = Node {
            at: reach,
            prev: NONE,
            next: head,
            place,
            waker: self.nodes[index as usize].waker.take(),
        };
        if head != NONE {
            self.nodes[head as usize].prev = index;
        }
        self.heads[level][slot] = index;
        self.occupied[level] |= 1 << slot;
        self.next = self.next.min(reach);
    }

    fn unlink(&mut self, index: u32) {
        let Node { prev, next, place, .. } = &self.nodes[index as usize];
        let (prev, next, place) = (*prev, *next, *place);
        if place == NOWHERE {
            return;
        }
        let (level, slot) = (place as usize / SLOTS, place as usize % SLOTS);
        match prev {
            NONE => self.heads[level][slot] = next,
            prev => self.nodes[prev as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if self.heads[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
        self.nodes[index as usize].place = NOWHERE;
    }
}

/// The slot for a timer at `at`, seen from `elapsed`: the level is where the two times differ.
fn place_of(elapsed: u64, at: u64) -> u16 {
    let differ = (elapsed ^ at) | (SLOTS as u64 - 1);
    let level = (differ.ilog2() as usize / SLOT_BITS).min(LEVELS - 1);
    let slot = (at >> (level * SLOT_BITS)) as usize % SLOTS;
    (level * SLOTS + slot) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    fn run_to(wheel: &mut Wheel, now: u64) {
        while let Some(fired) = wheel.pop(now) {
            fired.into_iter().for_each(Waker::wake);
        }
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        for at in [1, 63, 64, 65, 4095, 4096, 60_000, 1 << 24, 1 << 35] {
            let (mut wheel, (count, waker)) = (Wheel::default(), counter());
            let node = wheel.take_node();
            wheel.arm(node, at, &waker);
            run_to(&mut wheel, at - 1);
            assert_eq!(count.0.load(Ordering::Relaxed), 0, "{at}");
            assert!(wheel.next() <= at);
            run_to(&mut wheel, at);
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "{at}");
            run_to(&mut wheel, at * 2);
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "{at}");
            assert_eq!(wheel.next(), u64::MAX);
        }
    }

    #[test]
    fn a_node_given_back_keeps_its_place_for_the_next_owner() {
        let (mut wheel, (count, waker)) = (Wheel::default(), counter());
        for now in 0..1000 {
            run_to(&mut wheel, now);
            let node = wheel.take_node();
            wheel.arm(node, now + 60_000, &waker);
            wheel.give_back(node);
        }
        assert_eq!((wheel.nodes.len(), wheel.nodes[0].at), (1, 60_000));
        run_to(&mut wheel, 60_000);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    /// What the wheel is asked to do, at one time after another.
    #[derive(Clone, Debug)]
    enum Step {
        Arm { owner: usize, after: u64 },
        Drop { owner: usize },
        Pass { ms: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = || prop_oneof![0..5u64, 0..200u64, 0..10_000u64, 0..10_000_000u64];
        let step = prop_oneof![
            3 => (0..8usize, span()).prop_map(|(owner, after)| Step::Arm { owner, after }),
            1 => (0..8usize).prop_map(|owner| Step::Drop { owner }),
            3 => span().prop_map(|ms| Step::Pass { ms }),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against a sorted map: whoever is due was woken at the latest then; nobody is woken who
        /// let go; `next` is never too late.
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(steps in steps()) {
            let mut wheel = Wheel::default();
            let mut owners: Vec<Option<(NodeId, Arc<Count>)>> = vec![None; 8];
            let mut due: BTreeMap<usize, u64> = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arm { owner, after } => {
                        let entry = owners[owner]
                            .get_or_insert_with(|| (wheel.take_node(), Arc::default()));
                        entry.1.0.store(0, Ordering::Relaxed);
                        wheel.arm(entry.0, now + after, &Waker::from(entry.1.clone()));
                        due.insert(owner, now + after.max(1));
                    }
                    Step::Drop { owner } => if let Some((node, _)) = owners[owner].take() {
                        wheel.give_back(node);
                        due.remove(&owner);
                    },
                    Step::Pass { ms } => {
                        now += ms;
                        run_to(&mut wheel, now);
                    }
                }
                for (&owner, &at) in &due {
                    let woken = owners[owner].as_ref().unwrap().1.0.load(Ordering::Relaxed);
                    prop_assert!(woken <= 1);
                    prop_assert!(woken == 1 || at > now, "owner {owner} due {at} now {now}");
                    prop_assert!(woken == 1 || wheel.next() <= at);
                }
                due.retain(|&owner, _| {
                    owners[owner].as_ref().unwrap().1.0.load(Ordering::Relaxed) == 0
                });
            }
        }
    }
}
