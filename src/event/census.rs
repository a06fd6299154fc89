//! How many connections and requests there are, in all processes together: `stub_status`.
//!
//! Every worker writes a block of counters of its own, one cache line that nobody else writes; who
//! asks sums them up. What a worker was busy with counts only while the worker lives; what it has
//! done counts for ever, as the next worker goes on with the block.
//!
//! **Invariant:** a block is written by the process whose number is in it, and by nobody else.
use super::Zone;
use crate::sys::process;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use tollbar_shm::{Block, Cells};

/// Processes that can be counted at the same time; old ones that are still draining are among
/// them.
pub const SEATS: u64 = 1024;

// The words of a block.
const OWNER: usize = 0;
const ACCEPTED: usize = 1;
const HANDLED: usize = 2;
const REQUESTS: usize = 3;
const ACTIVE: usize = 4;
const READING: usize = 5;
const WRITING: usize = 6;
const WAITING: usize = 7;

/// The owner of a block that nobody ever had. All blocks behind it are like it.
const NEVER: u64 = 0;
/// The owner of a block whose process has gone. (Process 1 is no worker.)
const GONE: u64 = 1;

thread_local! {
    /// The block of this process.
    static OURS: Cell<Option<&'static Block>> = const { Cell::new(None) };
    /// All blocks.
    static ALL: Cell<Option<&'static Cells>> = const { Cell::new(None) };
}

/// What all processes have done, and do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub accepted: u64,
    pub handled: u64,
    pub requests: u64,
    pub active: u64,
    /// Connections whose request is being read.
    pub reading: u64,
    /// Requests that are being handled.
    pub writing: u64,
    /// Connections that wait for a request.
    pub waiting: u64,
}

/// From here on this process is counted in `zone`. False if there are too many to be counted.
pub fn take_part(zone: &Rc<Zone>) -> bool {
    // The process keeps its memory until it exits.
    let zone: &'static Rc<Zone> = Box::leak(Box::new(zone.clone()));
    let block = free_block(zone.cells(), process::id().into(), is_alive);
    OURS.set(block);
    ALL.set(Some(zone.cells()));
    block.is_some()
}

/// The numbers of all workers, those that are still draining among them.
pub fn workers() -> Vec<u32> {
    let all = ALL.get().into_iter().flat_map(blocks);
    let owners = all.map(|block| block[OWNER].load(Acquire)).take_while(|owner| *owner != NEVER);
    let alive = owners.filter(|owner| *owner > GONE && is_alive(*owner));
    alive.filter_map(|owner| u32::try_from(owner).ok()).collect()
}

/// The sum over all processes.
pub fn sum(cells: &Cells) -> Census {
    sum_living(cells, is_alive)
}

/// Counts an accepted connection while the guard lives.
pub fn connection() -> Counted {
    if let Some(block) = OURS.get() {
        add(block, ACCEPTED);
        add(block, HANDLED);
    }
    Counted::new(ACTIVE)
}

/// Counts a request that is being handled.
pub fn request() -> Counted {
    if let Some(block) = OURS.get() {
        add(block, REQUESTS);
    }
    Counted::new(WRITING)
}

/// Counts a connection that waits for a request, or of which a request is being read.
pub fn arriving(begun: bool) -> Counted {
    Counted::new(if begun { READING } else { WAITING })
}

/// Something that is counted as long as this lives.
pub struct Counted(usize);

impl Counted {
    fn new(word: usize) -> Counted {
        if let Some(block) = OURS.get() {
            add(block, word);
        }
        Counted(word)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(block) = OURS.get() {
            let word = &block[self.0];
            word.store(word.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }
}

/// Nobody else writes the word: no locked instruction is needed.
fn add(block: &Block, word: usize) {
    let word = &block[word];
    word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
}

fn is_alive(owner: u64) -> bool {
    u32::try_from(owner).is_ok_and(process::exists)
}

/// Takes the first block that nobody living has, and frees the others of the dead.
fn free_block(cells: &Cells, own: u64, is_alive: fn(u64) -> bool) -> Option<&Block> {
    let mut taken = None;
    for block in blocks(cells) {
        let owner = block[OWNER].load(Acquire);
        if owner > GONE && owner != own && is_alive(owner) {
            continue;
        }
        let next = if taken.is_none() { own } else { GONE };
        let is_ours = block[OWNER].compare_exchange(owner, next, AcqRel, Acquire).is_ok();
        if is_ours && taken.is_none() {
            block[ACTIVE..].iter().for_each(|word| word.store(0, Relaxed));
            taken = Some(block);
        }
        if owner == NEVER {
            break;
        }
    }
    taken
}

fn sum_living(cells: &Cells, is_alive: fn(u64) -> bool) -> Census {
    let mut all = Census::default();
    for block in blocks(cells) {
        let word = |at: usize| block[at].load(Relaxed);
        let owner = block[OWNER].load(Acquire);
        if owner == NEVER {
            break;
        }
        all.accepted += word(ACCEPTED);
        all.handled += word(HANDLED);
        all.requests += word(REQUESTS);
        if owner == GONE || !is_alive(owner) {
            continue;
        }
        all.active += word(ACTIVE);
        all.reading += word(READING);
        all.writing += word(WRITING);
        all.waiting += word(WAITING);
    }
    all
}

fn blocks(cells: &Cells) -> impl Iterator<Item = &Block> {
    (0..cells.capacity()).filter_map(|place| cells.at(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_busy_with_nothing() {
        let cells = Cells::create("census", 4).unwrap();
        let nobody = |_| false;
        let all = |_| true;
        let first = free_block(&cells, 10, all).unwrap();
        let second = free_block(&cells, 11, all).unwrap();
        for block in [first, second] {
            add(block, REQUESTS);
            add(block, ACTIVE);
        }
        let both = Census { requests: 2, active: 2, ..Census::default() };
        assert_eq!(sum_living(&cells, all), both);
        assert_eq!(sum_living(&cells, |pid| pid == 11), Census { active: 1, ..both });
        // The next process goes on with what the dead one has done.
        let heir = free_block(&cells, 12, |pid| pid == 11).unwrap();
        assert!(std::ptr::eq(heir, first));
        add(heir, REQUESTS);
        assert_eq!(sum_living(&cells, all), Census { requests: 3, active: 1, ..both });
        // Both have gone: one block is taken, the other is free, and no block was lost.
        free_block(&cells, 13, nobody).unwrap();
        assert_eq!(sum_living(&cells, all), Census { requests: 3, active: 0, ..both });
        assert!((14..17).all(|pid| free_block(&cells, pid, all).is_some()));
        assert!(free_block(&cells, 17, all).is_none());
    }
}
