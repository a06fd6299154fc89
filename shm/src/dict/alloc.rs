//! Memory of a held shard: slots in pages of size classes, whole pages for large entries.
//!
//! A shard keeps, per class, a ring of its pages (the clock walks it) and a list of those with
//! room. Both, and the bitmaps of used slots, are derived: `repair` rebuilds them from the index.

use std::sync::atomic::Ordering::Relaxed;

use super::Room;
use super::entry::{Ref, Slot};
use super::layout::*;
use super::shard::Shard;
use super::table::{Owner, bit_of, lowest, page_in, place_of, ref_of};

/// Word of a shard: entries in it.
pub(super) const ENTRIES_AT: usize = WHOLE * 3 + 3;
/// Word of a shard: living entries it evicted.
pub(super) const EVICTED_AT: usize = ENTRIES_AT + 1;
/// Word of a shard: times it was repaired.
pub(super) const REPAIRS_AT: usize = EVICTED_AT + 1;
/// Word of the first shard: the hand over all pages.
pub(super) const HAND_AT: usize = REPAIRS_AT + 1;
/// Word of a shard: it evicted a good deal, so that a page should be judged.
pub(super) const DUE_AT: usize = HAND_AT + 1;
const _: () = assert!(DUE_AT < SHARD_WORDS);

/// Words of a shard per class.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Ring = 0,
    Roomy = 1,
    Hand = 2,
}

/// How many pages somebody must free before the entry fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub pages: usize,
}

impl<'d> Shard<'d> {
    /// A slot for an entry of `bytes`. With [`Room::Evict`] the clock may evict entries of the same
    /// class and shard, with [`Room::Refuse`] only expired ones; other memory is for `reclaim`.
    pub fn place(&self, bytes: usize, room: Room, now_ms: u64) -> Result<Slot<'d>, Shortage> {
        let class = class_of(bytes);
        let at = if class == WHOLE {
            self.place_pages(bytes.div_ceil(crate::region::PAGE))?
        } else {
            self.place_small(class)
                .or_else(|| self.clock(class, room, now_ms).then(|| self.place_small(class))?)
                .ok_or(Shortage { pages: 1 })?
        };
        Ok(self.dict.slot(at).expect("a slot we made"))
    }

    /// Frees a slot, and its page if it was the last one in it.
    pub fn free_slot(&self, at: Ref) {
        let page = place_of(at).0;
        let Some(Owner { class, .. }) = self.dict.desc(page).owner() else { return };
        if class == WHOLE {
            return self.free_pages(page);
        }
        let used = self.dict.desc(page).used();
        let before = used.load(Relaxed);
        let after = before & !bit_of(at);
        used.store(after, Relaxed);
        if after == 0 {
            self.unlist(Part::Ring, class, page);
            if before != slot_bits(class) {
                self.unlist(Part::Roomy, class, page);
            }
            self.dict.free_page(page);
        } else if before == slot_bits(class) {
            self.enlist(Part::Roomy, class, page);
        }
    }

    /// Puts `page` in front of one of the class's lists.
    pub fn enlist(&self, part: Part, class: usize, page: usize) {
        let head = self.part(part, class);
        let first = self.first(part, class);
        self.set_neighbours(part, page, first, None);
        if let Some(first) = first {
            self.set_neighbours(part, first, self.after(part, first), Some(page));
        }
        head.store(page as u64 + 1, Relaxed);
    }

    pub fn part(&self, part: Part, class: usize) -> &'d std::sync::atomic::AtomicU64 {
        &self.dict.shard_words(self.number)[class * 3 + part as usize]
    }

    /// The page behind `page` in a list, if it is one of ours.
    pub fn after(&self, part: Part, page: usize) -> Option<usize> {
        self.checked(page_in(self.neighbours(part, page).load(Relaxed)))
    }

    /// The first page of a list.
    pub fn first(&self, part: Part, class: usize) -> Option<usize> {
        self.checked(page_in(self.part(part, class).load(Relaxed)))
    }

    fn place_small(&self, class: usize) -> Option<Ref> {
        let page = match self.first(Part::Roomy, class) {
            Some(page) => page,
            None => self.new_page(class)?,
        };
        let used = self.dict.desc(page).used();
        let before = used.load(Relaxed);
        let bit = lowest(slot_bits(class) & !before)?;
        let after = before | 1 << bit;
        used.store(after, Relaxed);
        if after == slot_bits(class) {
            self.unlist(Part::Roomy, class, page);
        }
        Some(ref_of(page, slot_start(class, bit)))
    }

    fn new_page(&self, class: usize) -> Option<usize> {
        let page = self.dict.take_page(Owner { shard: self.number, class })?;
        self.dict.desc(page).used().store(0, Relaxed);
        self.enlist(Part::Ring, class, page);
        self.enlist(Part::Roomy, class, page);
        Some(page)
    }

    /// The first of `n` chained pages.
    fn place_pages(&self, n: usize) -> Result<Ref, Shortage> {
        let owner = |class| Owner { shard: self.number, class };
        let Some(first) = self.dict.take_page(owner(WHOLE)) else {
            return Err(Shortage { pages: n });
        };
        let desc = self.dict.desc(first);
        desc.used().store(1, Relaxed);
        desc.roomy().store(0, Relaxed);
        self.enlist(Part::Ring, WHOLE, first);
        let mut last = first;
        for got in 1..n {
            let Some(page) = self.dict.take_page(owner(MORE)) else {
                self.free_pages(first);
                return Err(Shortage { pages: n - got });
            };
            self.dict.desc(page).used().store(first as u64 + 1, Relaxed);
            self.dict.desc(page).ring().store(0, Relaxed);
            self.dict.desc(last).more().store(page as u64 + 1, Relaxed);
            last = page;
        }
        Ok(ref_of(first, 0))
    }

    fn free_pages(&self, first: usize) {
        self.unlist(Part::Ring, WHOLE, first);
        let mut next = page_in(self.dict.desc(first).more().load(Relaxed));
        self.dict.free_page(first);
        for _ in 0..self.dict.layout.pages {
            let Some(page) = next.filter(|p| self.is_more_of(*p, first)) else { return };
            next = page_in(self.dict.desc(page).more().load(Relaxed));
            self.dict.free_page(page);
        }
    }

    /// Whether `page` is a further page of ours behind `first`.
    pub fn is_more_of(&self, page: usize, first: usize) -> bool {
        page < self.dict.layout.pages
            && self.dict.desc(page).owner() == Some(Owner { shard: self.number, class: MORE })
            && self.first_page_of(page) == Some(first)
    }

    fn unlist(&self, part: Part, class: usize, page: usize) {
        let word = self.neighbours(part, page).load(Relaxed);
        let (after, before) = (self.checked(page_in(word)), self.checked(page_in(word >> 32)));
        match before {
            Some(b) => self.set_neighbours(part, b, after, self.before(part, b)),
            None => self.part(part, class).store(after.map_or(0, |p| p as u64 + 1), Relaxed),
        }
        if let Some(a) = after {
            self.set_neighbours(part, a, self.after(part, a), before);
        }
        self.neighbours(part, page).store(0, Relaxed);
    }

    fn before(&self, part: Part, page: usize) -> Option<usize> {
        self.checked(page_in(self.neighbours(part, page).load(Relaxed) >> 32))
    }

    fn set_neighbours(&self, part: Part, page: usize, after: Option<usize>, before: Option<usize>) {
        let half = |p: Option<usize>| p.map_or(0, |p| p as u64 + 1);
        self.neighbours(part, page).store(half(before) << 32 | half(after), Relaxed);
    }

    fn neighbours(&self, part: Part, page: usize) -> &'d std::sync::atomic::AtomicU64 {
        match part {
            Part::Roomy => self.dict.desc(page).roomy(),
            Part::Ring | Part::Hand => self.dict.desc(page).ring(),
        }
    }

    /// A page number read from memory, if the page is this shard's.
    fn checked(&self, page: Option<usize>) -> Option<usize> {
        let page = page.filter(|p| *p < self.dict.layout.pages)?;
        (self.dict.desc(page).owner()?.shard == self.number).then_some(page)
    }
}
