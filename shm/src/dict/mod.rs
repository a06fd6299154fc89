//! `ngx.shared.DICT`, and the records and counters of nginx's zones: one map from byte strings to
//! strings, numbers, booleans and lists, shared by all processes of the tree.
//!
//! - Readers take no lock, and a number that exists is incremented by compare-and-swap (`read`).
//! - Writers hold their shard's lock (`shard`, `store`, `list`); memory comes in size classes
//!   (`alloc`, `table`), and a clock evicts (`clock`). `sweep` walks everything, `carry` moves
//!   entries to a dict of another size, `repair` puts a shard right whose writer died inside.
//! - `layout` and `entry` are the format.
//!
//! Return values mean what OpenResty's mean; the texts of [`Error`] are its texts.
//!
//! **Invariant:** an entry is reachable only through its index line; everything else (bitmaps of
//! used slots, lists of pages, hints, counters, back links) can be rebuilt from there.
//!
//! **Invariant:** no function takes a shard's lock while it holds another one.

mod layout;
mod entry;
mod table;
mod read;
mod shard;
mod alloc;
mod clock;
mod store;
mod record;
mod list;
mod sweep;
mod carry;
mod repair;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use crate::lock::Stuck;
use crate::region::{OpenError, PAGE, Region};
use layout::Layout;

pub use carry::Carried;
pub use entry::KEY_MAX;
pub use record::{RECORD_MAX, Record, Update};

/// Longest value, bytes.
pub const VALUE_MAX: usize = u32::MAX as usize;

/// A shared dict. `&Dict` is all anybody needs; handles of one region in many processes (and
/// threads) are equal.
#[derive(Debug)]
pub struct Dict {
    region: Region,
    layout: Layout,
}

/// A value to store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    String(&'a [u8]),
    Number(f64),
    Bool(bool),
}

/// A value read.
#[derive(Clone, Debug, PartialEq)]
pub enum Owned {
    String(Vec<u8>),
    Number(f64),
    Bool(bool),
}

/// What `get` found.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub value: Owned,
    pub flags: u32,
    /// Expired; only `get_stale` answers so.
    pub stale: bool,
}

/// What `get_into` found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub value: Scalar,
    pub flags: u32,
    pub stale: bool,
}

/// The value of a [`Hit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// Appended to the caller's buffer.
    String,
    Number(f64),
    Bool(bool),
}

/// A value with its lifetime and user flags: `Put::new(v).ttl(ms).flags(n)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Put<'a> {
    pub value: Value<'a>,
    /// Milliseconds; 0 is for ever.
    pub ttl_ms: u64,
    pub flags: u32,
}

/// Where `incr` starts when there is no number: `Init::new(0.0).ttl(ms)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Init {
    pub value: f64,
    /// Milliseconds; 0 is for ever.
    pub ttl_ms: u64,
    pub room: Room,
}

/// Where the memory for a new entry may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Least recently used entries are evicted if need be.
    Evict,
    /// Only expired entries are; otherwise "no memory".
    Refuse,
}

/// A number after `incr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    pub value: f64,
    /// Living entries were evicted to store it.
    pub forcible: bool,
}

/// Why an operation was not done, in OpenResty's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not found")]
    NotFound,
    #[error("exists")]
    Exists,
    /// `forcible`: living entries were evicted in vain.
    #[error("no memory")]
    NoMemory { forcible: bool },
    #[error("not a number")]
    NotANumber,
    /// `get` of a list.
    #[error("value is a list")]
    IsList,
    /// A list operation on something else.
    #[error("value not a list")]
    NotAList,
    #[error("empty key")]
    EmptyKey,
    #[error("key too long")]
    KeyTooLong,
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

impl<'a> Put<'a> {
    pub fn new(value: Value<'a>) -> Put<'a> {
        Put { value, ttl_ms: 0, flags: 0 }
    }
    pub fn string(bytes: &'a [u8]) -> Put<'a> {
        Put::new(Value::String(bytes))
    }
    pub fn number(n: f64) -> Put<'a> {
        Put::new(Value::Number(n))
    }
    pub fn ttl(self, ttl_ms: u64) -> Put<'a> {
        Put { ttl_ms, ..self }
    }
    pub fn flags(self, flags: u32) -> Put<'a> {
        Put { flags, ..self }
    }
}

impl Init {
    pub fn new(value: f64) -> Init {
        Init { value, ttl_ms: 0, room: Room::Evict }
    }
    pub fn ttl(self, ttl_ms: u64) -> Init {
        Init { ttl_ms, ..self }
    }
    pub fn room(self, room: Room) -> Init {
        Init { room, ..self }
    }
}

impl Dict {
    /// Makes an empty dict whose entries share `size` bytes.
    pub fn create(name: &str, size: u64) -> Result<Dict, OpenError> {
        let layout = Layout::of(size).ok_or(OpenError::Refused("dict too large"))?;
        let region = Region::create(layout.plan(name, size))?;
        let dict = Dict { region, layout };
        (0..layout.pages).for_each(|page| dict.hint(page));
        Ok(dict)
    }

    /// Opens a dict by the descriptor that another process made (see [`crate::inherit`]).
    pub fn open(fd: OwnedFd) -> Result<Dict, OpenError> {
        let region = Region::open(fd, layout::KIND)?;
        let plan = region.plan();
        let layout = Layout::of(plan.param).ok_or(OpenError::Refused("dict too large"))?;
        let words = (layout.words * 8).next_multiple_of(PAGE) / 8;
        if plan.locks != layout.shards + 1 || plan.words != words {
            return Err(OpenError::Refused("its size is not that of its dict"));
        }
        Ok(Dict { region, layout })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.region.plan().name
    }

    /// The descriptor, for children and for [`crate::inherit`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// The region below, to set what happens to its descriptor over exec.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The declared size, bytes.
    pub fn capacity(&self) -> u64 {
        self.region.plan().param
    }

    /// Bytes in pages that no entry uses. As in OpenResty, 0 does not mean that nothing fits.
    pub fn free_space(&self) -> u64 {
        (self.count_free() * PAGE) as u64
    }

    /// Entries, expired ones included. Approximate after a writer was killed, until the repair.
    pub fn len(&self) -> u64 {
        self.sum(alloc::ENTRIES_AT)
    }

    /// Living entries evicted so far.
    pub fn evictions(&self) -> u64 {
        self.sum(alloc::EVICTED_AT)
    }

    /// Times a shard was put right because a process died in it.
    pub fn repairs(&self) -> u64 {
        self.sum(alloc::REPAIRS_AT)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`, unless it is expired.
    pub fn get(&self, key: &[u8], now_ms: u64) -> Result<Option<Got>, Error> {
        Ok(self.get_stale(key, now_ms)?.filter(|got| !got.stale))
    }

    /// The value of `key`, expired or not.
    pub fn get_stale(&self, key: &[u8], now_ms: u64) -> Result<Option<Got>, Error> {
        let mut bytes = Vec::new();
        let hit = self.get_stale_into(key, now_ms, &mut bytes)?;
        Ok(hit.map(|h| {
            let value = match h.value {
                Scalar::String => Owned::String(bytes),
                Scalar::Number(n) => Owned::Number(n),
                Scalar::Bool(b) => Owned::Bool(b),
            };
            Got { value, flags: h.flags, stale: h.stale }
        }))
    }

    /// Stores whatever was there before. True: living entries were evicted ("forcible").
    pub fn set(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<bool, Error> {
        self.store(key, &put, store::Mode::Set, Room::Evict, now_ms)
    }

    /// Stores, but never evicts living entries.
    pub fn safe_set(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<(), Error> {
        self.store(key, &put, store::Mode::Set, Room::Refuse, now_ms).map(drop)
    }

    /// Stores only if there is nothing living.
    pub fn add(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<bool, Error> {
        self.store(key, &put, store::Mode::Add, Room::Evict, now_ms)
    }

    /// `add` that never evicts living entries.
    pub fn safe_add(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<(), Error> {
        self.store(key, &put, store::Mode::Add, Room::Refuse, now_ms).map(drop)
    }

    /// Stores only over something living.
    pub fn replace(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<bool, Error> {
        self.store(key, &put, store::Mode::Replace, Room::Evict, now_ms)
    }

    /// Removes `key`, whatever it holds.
    pub fn delete(&self, key: &[u8]) -> Result<(), Error> {
        let key = self.key(key)?;
        let shard = self.lock_for(&key)?;
        if let Some(spot) = shard.find(&key) {
            shard.remove(&spot);
        }
        Ok(())
    }

    /// Adds `by` to a number. Without one: starts from `init`, if given, with its lifetime.
    pub fn incr(
        &self,
        key: &[u8],
        by: f64,
        init: Option<Init>,
        now_ms: u64,
    ) -> Result<Counted, Error> {
        let key = self.key(key)?;
        if let Some(value) = self.bump(&key, by, now_ms)? {
            return Ok(Counted { value, forcible: false });
        }
        self.start_number(&key, by, init.ok_or(Error::NotFound)?, now_ms)
    }

    fn sum(&self, at: usize) -> u64 {
        (0..self.layout.shards)
            .map(|s| self.shard_words(s)[at].load(Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests;
