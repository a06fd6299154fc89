//! A shard with its lock held: finding, linking and unlinking entries.
//!
//! The order of every change is what makes a death harmless: slot marked used → filled → linked
//! (the commit) → the replaced one's retirement counted → its slot marked free.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::alloc::ENTRIES_AT;
use super::entry::{HEAD_WORDS, Key, Kind, Link, Ref, Shape, Slot};
use super::layout::*;
use super::read::CHAIN_MAX;
use super::table::{Owner, bit_of, page_in, place_of};
use super::{Dict, Error};
use crate::lock::Guard;

/// A shard whose lock this process holds. Its state is whole: repaired if the last holder died.
pub(super) struct Shard<'d> {
    pub dict: &'d Dict,
    pub number: usize,
    /// Living entries were evicted since the lock was taken.
    pub forced: Cell<bool>,
    /// Any entries were evicted: spots found before are void.
    pub evicted: Cell<bool>,
    guard: Guard<'d>,
}

/// An entry and the word that points to it.
pub(super) struct Spot<'d> {
    pub holder: &'d AtomicU64,
    pub slot: Slot<'d>,
    pub shape: Shape,
    pub line: usize,
}

impl Dict {
    pub(super) fn lock_for(&self, key: &Key<'_>) -> Result<Shard<'_>, Error> {
        self.lock(self.shard_of_line(self.line_of(key.hash)))
    }

    pub(super) fn lock(&self, number: usize) -> Result<Shard<'_>, Error> {
        let mutex = self.region.mutex(number).expect("one lock per shard");
        let guard = Guard::take(mutex)?;
        let mut shard = Shard {
            dict: self,
            number,
            forced: Cell::new(false),
            evicted: Cell::new(false),
            guard,
        };
        if shard.guard.is_orphaned() {
            shard.repair();
            shard.guard.repaired();
        }
        Ok(shard)
    }
}

impl<'d> Shard<'d> {
    /// The entry of `key`, expired or not.
    pub fn find(&self, key: &Key<'_>) -> Option<Spot<'d>> {
        self.find_where(key.hash, |spot, link| {
            link.tag() == key.tag() && self.dict.key_is(spot.slot, spot.shape, key.bytes)
        })
    }

    /// The entry in slot `at`, whose key has `hash`.
    pub fn find_ref(&self, hash: u64, at: Ref) -> Option<Spot<'d>> {
        self.find_where(hash, |spot, _| spot.slot.at == at)
    }

    /// Links a filled entry in front of its chain: the commit of a new key.
    pub fn link(&self, key: &Key<'_>, slot: Slot<'d>) {
        let head = &self.dict.line(self.dict.line_of(key.hash))[Dict::head_of(key.hash)];
        // New entries start untouched, whoever had the slot before. (One that takes another's place
        // stays touched: then a storm of writes leaves the readers' bits alone.)
        let (touched, bit) = (self.dict.touched(place_of(slot.at).0), bit_of(slot.at));
        if touched.load(Relaxed) & bit != 0 {
            touched.fetch_and(!bit, Relaxed);
        }
        slot.next().store(head.load(Relaxed), Relaxed);
        head.store(Link::to(slot.at, key.tag()).0, Release);
        self.count_entries(1);
    }

    /// Puts a filled entry in the place of `old`: the commit of a changed key. Frees the old one.
    pub fn replace(&self, key: &Key<'_>, old: &Spot<'d>, slot: Slot<'d>) {
        slot.next().store(old.slot.next().load(Relaxed), Relaxed);
        old.holder.store(Link::to(slot.at, key.tag()).0, Release);
        self.retire(old);
    }

    /// Takes an entry out and frees all it holds.
    pub fn remove(&self, spot: &Spot<'d>) {
        spot.holder.store(spot.slot.next().load(Relaxed), Release);
        self.count_entries(-1);
        self.retire(spot);
    }

    /// Every entry of the shard, line by line, until `visit` says stop.
    pub fn each(&self, mut visit: impl FnMut(&Spot<'d>) -> Walk) {
        let (lines, shards) = (self.dict.layout.lines, self.dict.layout.shards);
        for line in (self.number..lines).step_by(shards) {
            if !self.each_in_line(line, &mut visit) {
                return;
            }
        }
    }

    /// The same for one line. False if `visit` said stop.
    pub fn each_in_line(&self, line: usize, visit: &mut impl FnMut(&Spot<'d>) -> Walk) -> bool {
        for head in &self.dict.line(line)[1..] {
            let mut holder = head;
            for n in 0..=CHAIN_MAX {
                if n == CHAIN_MAX {
                    holder.store(0, Release);
                }
                let Some(spot) = self.spot_at(holder, line) else { break };
                match visit(&spot) {
                    Walk::On => holder = spot.slot.next(),
                    Walk::Remove => self.remove(&spot),
                    Walk::Stop => return false,
                }
            }
        }
        true
    }

    /// The key's bytes of an entry.
    pub fn key_of(&self, spot: &Spot<'_>, into: &mut Vec<u8>) {
        into.clear();
        // Under the lock only damage makes this fail; an empty key then finds nothing.
        let _ = self.dict.copy_bytes(spot.slot, HEAD_WORDS, spot.shape.key_len, into);
    }

    /// Entries of this shard, for the curious; exact unless a holder died.
    pub fn count_entries(&self, by: i64) {
        let count = &self.dict.shard_words(self.number)[ENTRIES_AT];
        count.store(count.load(Relaxed).wrapping_add_signed(by), Relaxed);
    }

    /// Says that an unlinked entry is gone, then frees its memory.
    fn retire(&self, spot: &Spot<'d>) {
        self.bump_line(spot.line);
        if spot.shape.kind == Kind::List {
            self.free_elements(spot);
        }
        self.free_slot(spot.slot.at);
    }

    /// Tells readers that a slot they may have reached through this line is about to be reused.
    pub fn bump_line(&self, line: usize) {
        let retired = &self.dict.line(line)[0];
        retired.store(retired.load(Relaxed).wrapping_add(1), Release);
        // The next user's words must not overtake the counter.
        fence(Release);
    }

    fn find_where(
        &self,
        hash: u64,
        mut is_it: impl FnMut(&Spot<'d>, Link) -> bool,
    ) -> Option<Spot<'d>> {
        let line = self.dict.line_of(hash);
        let mut holder = &self.dict.line(line)[Dict::head_of(hash)];
        for _ in 0..CHAIN_MAX {
            let link = Link(holder.load(Acquire));
            let spot = self.spot_at(holder, line)?;
            if is_it(&spot, link) {
                return Some(spot);
            }
            holder = spot.slot.next();
        }
        // A circle: cut it here.
        holder.store(0, Release);
        None
    }

    /// The entry that `holder` points to. A link to nonsense is cut: nothing behind it is ours.
    pub fn spot_at(&self, holder: &'d AtomicU64, line: usize) -> Option<Spot<'d>> {
        let at = Link(holder.load(Acquire)).slot()?;
        let found = self.dict.slot(at).and_then(|slot| Some((slot, slot.shape()?)));
        match found {
            Some((slot, shape)) if self.is_sound(at, shape) => {
                Some(Spot { holder, slot, shape, line })
            }
            _ => {
                holder.store(0, Release);
                None
            }
        }
    }

    /// Whether an entry of this shape can be in this slot, and the slot is in use.
    pub fn is_sound(&self, at: Ref, shape: Shape) -> bool {
        let page = place_of(at).0;
        self.can_be(at, shape) && self.dict.desc(page).used().load(Relaxed) & bit_of(at) != 0
    }

    /// Whether an entry of this shape can be in this slot.
    pub fn can_be(&self, at: Ref, shape: Shape) -> bool {
        let (page, word) = place_of(at);
        if page >= self.dict.layout.pages {
            return false;
        }
        let Some(Owner { shard, class }) = self.dict.desc(page).owner() else { return false };
        shard == self.number
            && match class {
                WHOLE => word == 0 && shape.words() <= PAGE_WORDS * self.dict.layout.pages,
                MORE => false,
                _ => word * 8 % CLASSES[class] == 0 && shape.bytes() <= CLASSES[class],
            }
    }

    /// The first page of the large entry that `page` continues.
    pub fn first_page_of(&self, page: usize) -> Option<usize> {
        page_in(self.dict.desc(page).used().load(Relaxed)).filter(|p| *p < self.dict.layout.pages)
    }
}

/// What to do after looking at an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    On,
    Remove,
    Stop,
}
