//! Named blocks of counters that all processes share: stub_status, the state of upstream peers.
//!
//! A block is eight atomic words of one cache line under a name. Looking one up takes no lock;
//! making one takes the region's. Blocks are never removed: a reload makes a new region and calls
//! [`Cells::carry_to`] for the names it still knows.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::hash::hash;
use crate::lock::{Guard, Stuck};
use crate::region::{OpenError, PAGE, Plan, Region, copy_in, copy_out};

/// Code of this kind in the region's header.
const KIND: u32 = u32::from_le_bytes(*b"cell");
/// Words in a block.
pub const CELLS: usize = 8;
/// Longest name, bytes.
pub const CELL_NAME_MAX: usize = (RECORD_WORDS - NAME_AT) * 8;
/// Most blocks of a region.
const BLOCKS_MAX: usize = 1 << 20;

// A record: the values in a cache line of their own, the length of the name plus one, the name.
const RECORD_WORDS: usize = 32;
const CONTROL_AT: usize = CELLS;
const NAME_AT: usize = CELLS + 1;

/// The counters of one name. What each word means is the user's.
pub type Block = [AtomicU64; CELLS];

/// A region of named blocks.
#[derive(Debug)]
pub struct Cells {
    region: Region,
    blocks: usize,
}

/// Why there is no such block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    #[error("no room for another block of counters")]
    Full,
    #[error("name of a block of counters is empty or too long")]
    BadName,
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

impl Cells {
    /// Makes room for `blocks` names.
    pub fn create(name: &str, blocks: usize) -> Result<Cells, OpenError> {
        let blocks = blocks.clamp(1, BLOCKS_MAX);
        let region = Region::create(Plan {
            kind: KIND,
            name: name.into(),
            param: blocks as u64,
            locks: 1,
            words: blocks * RECORD_WORDS,
        })?;
        Ok(Cells { region, blocks })
    }

    /// Opens what another process made.
    pub fn open(fd: OwnedFd) -> Result<Cells, OpenError> {
        let region = Region::open(fd, KIND)?;
        let plan = region.plan();
        let blocks = usize::try_from(plan.param).unwrap_or(usize::MAX);
        let bytes = blocks.min(BLOCKS_MAX + 1) * RECORD_WORDS * 8;
        if blocks == 0 || blocks > BLOCKS_MAX || plan.locks != 1 {
            return Err(OpenError::Refused("not a sensible number of blocks"));
        }
        if plan.words * 8 != bytes.next_multiple_of(PAGE) {
            return Err(OpenError::Refused("its size is not that of its blocks"));
        }
        Ok(Cells { region, blocks })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.region.plan().name
    }

    /// The descriptor, for children and for [`crate::inherit`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// The region below.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// How many names it has room for.
    pub fn capacity(&self) -> usize {
        self.blocks
    }

    /// The block of `name`, if somebody made it.
    pub fn find(&self, name: &[u8]) -> Option<&Block> {
        self.probe(name).and_then(Result::ok)
    }

    /// The block of `name`; its words are zero if nobody used it before.
    pub fn block(&self, name: &[u8]) -> Result<&Block, CellError> {
        if name.is_empty() || name.len() > CELL_NAME_MAX {
            return Err(CellError::BadName);
        }
        if let Some(block) = self.find(name) {
            return Ok(block);
        }
        // Nothing to repair if the last holder died: an unfinished record is a free one.
        let _guard = Guard::take(self.region.mutex(0).expect("it was made with one"))?;
        match self.probe(name).ok_or(CellError::Full)? {
            Ok(block) => Ok(block),
            Err(free) => {
                copy_in(&free[NAME_AT..], name).expect("length checked above");
                free[..CELLS].iter().for_each(|w| w.store(0, Relaxed));
                free[CONTROL_AT].store(name.len() as u64 + 1, Release);
                Ok(values(free))
            }
        }
    }

    /// Where the block of `name` is, for [`Cells::at`], which looks nothing up.
    pub fn place(&self, name: &[u8]) -> Result<usize, CellError> {
        let block = self.block(name)?.as_ptr();
        let found = (0..self.blocks).find(|n| self.record(*n).as_ptr() == block);
        Ok(found.expect("a block is one of the region's"))
    }

    /// The block at a place that [`Cells::place`] gave, in whatever process.
    pub fn at(&self, place: usize) -> Option<&Block> {
        (place < self.blocks).then(|| values(self.record(place)))
    }

    /// Copies the values of `name` to another region, if it has them.
    pub fn carry_to(&self, to: &Cells, name: &[u8]) -> Result<(), CellError> {
        if let Some(from) = self.find(name) {
            let block = to.block(name)?;
            from.iter().zip(block).for_each(|(f, t)| t.store(f.load(Relaxed), Relaxed));
        }
        Ok(())
    }

    /// All names with their blocks.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &Block)> {
        (0..self.blocks).filter_map(|n| {
            let record = self.record(n);
            let mut name = Vec::new();
            copy_out(&record[NAME_AT..], name_len(record)?, &mut name)?;
            Some((name, values(record)))
        })
    }

    /// The block of `name`, or the free record where it belongs; nothing if all are taken.
    fn probe(&self, name: &[u8]) -> Option<Result<&Block, &[AtomicU64]>> {
        let start = hash(self.region.seed(), name) as usize % self.blocks;
        let mut have = Vec::with_capacity(CELL_NAME_MAX);
        for n in (start..self.blocks).chain(0..start) {
            let record = self.record(n);
            let Some(len) = name_len(record) else { return Some(Err(record)) };
            have.clear();
            let read = copy_out(&record[NAME_AT..], len, &mut have);
            if read.is_some() && have == name {
                return Some(Ok(values(record)));
            }
        }
        None
    }

    fn record(&self, n: usize) -> &[AtomicU64] {
        &self.region.words()[n * RECORD_WORDS..(n + 1) * RECORD_WORDS]
    }
}

fn values(record: &[AtomicU64]) -> &Block {
    record.first_chunk().expect("a record is longer")
}

/// Length of a record's name; nothing if the record is free.
fn name_len(record: &[AtomicU64]) -> Option<usize> {
    let len = (record[CONTROL_AT].load(Acquire) as usize).checked_sub(1)?;
    Some(len.min(CELL_NAME_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_same_block_everywhere() {
        let a = Cells::create("status", 3).unwrap();
        let b = Cells::open(a.fd().try_clone_to_owned().unwrap()).unwrap();
        a.block(b"requests").unwrap()[2].fetch_add(5, Relaxed);
        assert_eq!(b.block(b"requests").unwrap()[2].fetch_sub(1, Relaxed), 5);
        assert!(b.find(b"other").is_none());
        b.block(b"other").unwrap()[0].store(1, Relaxed);
        b.block(b"third").unwrap();
        assert_eq!(a.block(b"fourth").unwrap_err(), CellError::Full);
        assert_eq!(a.iter().count(), 3);
        assert_eq!(a.block(&[1; CELL_NAME_MAX + 1]).unwrap_err(), CellError::BadName);
        let c = Cells::create("status", 10).unwrap();
        a.carry_to(&c, b"requests").unwrap();
        a.carry_to(&c, b"unknown").unwrap();
        assert_eq!((c.find(b"requests").unwrap()[2].load(Relaxed), c.iter().count()), (4, 1));
    }

    #[test]
    fn many_names_stay_apart() {
        let cells = Cells::create("peers", 100).unwrap();
        for n in 0..100u64 {
            cells.block(format!("peer{n}").as_bytes()).unwrap()[0].store(n, Relaxed);
        }
        for n in 0..100u64 {
            let block = cells.find(format!("peer{n}").as_bytes()).unwrap();
            assert_eq!(block[0].load(Relaxed), n);
            let place = cells.place(format!("peer{n}").as_bytes()).unwrap();
            assert_eq!(cells.at(place).unwrap()[0].load(Relaxed), n);
        }
    }
}
