//! Eviction: a clock per shard and class, and a second one over all pages.
//!
//! A read sets the entry's touched bit, unless it is set. The hand of a class passes touched
//! entries, clearing their bits, and evicts the first untouched one; a page is judged with one
//! look at two bitmaps. When a class has nothing to give, or now and then so that memory moves
//! to the classes in demand, `reclaim` frees whole pages: it takes one shard's lock at a time,
//! never while its caller holds another, so there is no order of locks to get wrong.

use std::sync::atomic::Ordering::Relaxed;

use super::alloc::{DUE_AT, EVICTED_AT, HAND_AT, Part, Shortage};
use super::entry::{Key, Kind, Ref, Slot};
use super::layout::*;
use super::shard::{Shard, Spot};
use super::table::{bit_of, lowest, place_of, ref_of};
use super::{Dict, Error, Room};
use crate::lock::Guard;

/// After so many evictions by one shard a page at the second hand is judged.
const BALANCE_EVERY: u64 = 32;
/// Times the hand may pass the start of a ring: the first lap may only clear bits.
const LAPS_MAX: usize = 3;
/// Pages that are searched for expired entries when nothing may be evicted.
const EXPIRED_PAGES_MAX: usize = 256;

impl<'d> Shard<'d> {
    /// Frees one slot of `class`. False if there is nothing to free.
    pub fn clock(&self, class: usize, room: Room, now_ms: u64) -> bool {
        let hand = self.part(Part::Hand, class);
        let start = hand.load(Relaxed);
        // The hand is a page and a bit in it; a page that is not ours any more sends it home.
        let mut page = self.hand_page(start >> 8, class);
        let mut bit = if page.is_some() { start & 0xff } else { 0 };
        let mut laps = 0;
        let looks =
            if room == Room::Evict { 3 * self.dict.layout.pages } else { EXPIRED_PAGES_MAX };
        for _ in 0..looks {
            if page.is_none() {
                page = self.first(Part::Ring, class);
                laps += 1;
            }
            let Some(p) = page.filter(|_| laps <= LAPS_MAX) else { return false };
            let victim = self.judge(p, class, bit as u32, room, now_ms);
            // It goes on behind the victim: the newcomer takes that slot and must live a full turn.
            bit = victim.map_or(0, |v| u64::from(v) + 1);
            hand.store((p as u64 + 1) << 8 | bit, Relaxed);
            if victim.is_some() {
                return true;
            }
            page = self.after(Part::Ring, p);
        }
        false
    }

    /// Evicts everything in a page. Returns how many pages became free.
    pub fn empty_page(&self, page: usize, only_expired: bool, now_ms: u64) -> usize {
        let Some(owner) = self.dict.desc(page).owner() else { return 0 };
        let (first, class) = match owner.class {
            MORE => (self.first_page_of(page).unwrap_or(page), WHOLE),
            class => (page, class),
        };
        let pages = self.pages_from(first, class);
        let mut bits = self.dict.desc(first).used().load(Relaxed) & slot_bits(class);
        while let Some(bit) = lowest(bits) {
            bits &= bits - 1;
            let at = ref_of(first, slot_start(class, bit));
            // A list that went with an earlier element may have freed this slot.
            if self.dict.desc(first).used().load(Relaxed) >> bit & 1 == 1 {
                self.evict(at, only_expired, now_ms);
            }
        }
        if self.dict.desc(first).owner().is_none() { pages } else { 0 }
    }

    fn hand_page(&self, page_plus_one: u64, class: usize) -> Option<usize> {
        let page = (page_plus_one as usize).checked_sub(1)?;
        let owner = (page < self.dict.layout.pages).then(|| self.dict.desc(page).owner())??;
        (owner.shard == self.number && owner.class == class).then_some(page)
    }

    /// Looks at one page from `bit` on: evicts the first untouched (or expired) entry and returns
    /// its bit, or clears the touched bits and returns nothing.
    fn judge(&self, page: usize, class: usize, bit: u32, room: Room, now_ms: u64) -> Option<u32> {
        let from = u64::MAX.checked_shl(bit).unwrap_or(0);
        let used = self.dict.desc(page).used().load(Relaxed) & slot_bits(class) & from;
        if room == Room::Refuse {
            return self.evict_expired(page, class, used, now_ms);
        }
        let touched = self.dict.touched(page);
        let mut cold = used & !touched.load(Relaxed);
        while let Some(victim) = lowest(cold) {
            cold &= cold - 1;
            let passed = from & ((1 << victim) - 1);
            touched.fetch_and(!passed, Relaxed);
            if self.evict(ref_of(page, slot_start(class, victim)), false, now_ms) {
                return Some(victim);
            }
        }
        touched.fetch_and(!from, Relaxed);
        None
    }

    fn evict_expired(&self, page: usize, class: usize, used: u64, now_ms: u64) -> Option<u32> {
        let mut bits = used;
        while let Some(bit) = lowest(bits) {
            bits &= bits - 1;
            if self.evict(ref_of(page, slot_start(class, bit)), true, now_ms) {
                return Some(bit);
            }
        }
        None
    }

    /// Evicts what is in a used slot; an element takes its whole list along, unless the list was
    /// touched. True if the slot is free now.
    fn evict(&self, at: Ref, only_expired: bool, now_ms: u64) -> bool {
        // Used but not reachable: about to be filled by ourselves.
        let Some(spot) = self.dict.slot(at).and_then(|slot| self.entry_in(slot)) else {
            return false;
        };
        if !spot.slot.is_expired(now_ms) {
            if only_expired || (spot.slot.at != at && self.was_touched(spot.slot.at)) {
                return false;
            }
            self.forced.set(true);
            let evicted = &self.dict.shard_words(self.number)[EVICTED_AT];
            let count = evicted.load(Relaxed).wrapping_add(1);
            evicted.store(count, Relaxed);
            if count.is_multiple_of(BALANCE_EVERY) {
                self.dict.shard_words(self.number)[DUE_AT].store(1, Relaxed);
            }
        }
        self.evicted.set(true);
        self.remove(&spot);
        true
    }

    /// Takes the touched bit off a slot; says whether it was on.
    fn was_touched(&self, at: Ref) -> bool {
        let bit = bit_of(at);
        self.dict.touched(place_of(at).0).fetch_and(!bit, Relaxed) & bit != 0
    }

    /// The entry in a slot, or the list that an element belongs to.
    fn entry_in(&self, slot: Slot<'d>) -> Option<Spot<'d>> {
        let mut slot = slot;
        let mut shape = slot.shape()?;
        if shape.kind.is_element() {
            slot = self.dict.slot(Ref(slot.owner().load(Relaxed) as u32))?;
            shape = slot.shape().filter(|s| s.kind == Kind::List)?;
        }
        let mut key = Vec::new();
        self.dict.copy_bytes(slot, super::entry::HEAD_WORDS, shape.key_len, &mut key)?;
        self.find_ref(Key::new(self.dict.region.seed(), &key).hash, slot.at)
    }

    fn pages_from(&self, first: usize, class: usize) -> usize {
        if class != WHOLE {
            return 1;
        }
        let slot = self.dict.slot(ref_of(first, 0)).expect("a page has a slot");
        slot.shape().map_or(1, |s| s.words().div_ceil(PAGE_WORDS))
    }
}

/// What `reclaim` achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reclaimed {
    pub pages: usize,
    /// Living entries were evicted for them.
    pub forced: bool,
}

impl Dict {
    /// Frees pages until those in `short` are there, evicting cold ones first. The caller holds no
    /// shard's lock.
    pub(super) fn reclaim(
        &self,
        short: Shortage,
        room: Room,
        now_ms: u64,
    ) -> Result<Reclaimed, Error> {
        let mutex = self.region.mutex(self.layout.shards).expect("the lock behind the shards'");
        let _turn = Guard::take(mutex)?;
        let all = self.layout.pages;
        let rounds = if room == Room::Evict { 3 * all } else { all.min(EXPIRED_PAGES_MAX) };
        let mut sum = Reclaimed::default();
        for step in 0..rounds {
            if sum.pages >= short.pages {
                break;
            }
            let one = self.reclaim_next(room, step < all, now_ms)?;
            sum.pages += one.pages;
            sum.forced |= one.forced;
        }
        Ok(sum)
    }

    /// Now and then while a shard evicts: lets a page that nobody used for long go to whoever needs
    /// it. Before something is stored, so that it is not what goes.
    pub(super) fn balance(&self, shard: usize, now_ms: u64) -> Result<Reclaimed, Error> {
        let due = &self.shard_words(shard)[DUE_AT];
        if due.load(Relaxed) == 0 || due.swap(0, Relaxed) == 0 {
            return Ok(Reclaimed::default());
        }
        self.reclaim_next(Room::Evict, true, now_ms)
    }

    /// Judges the page at the second hand.
    fn reclaim_next(&self, room: Room, cold_only: bool, now_ms: u64) -> Result<Reclaimed, Error> {
        let hand = &self.shard_words(0)[HAND_AT];
        let mut page = (hand.fetch_add(1, Relaxed) % self.layout.pages as u64) as usize;
        let nothing = Reclaimed::default();
        let Some(owner) = self.desc(page).owner().filter(|o| o.shard < self.layout.shards) else {
            return Ok(nothing);
        };
        let shard = self.lock(owner.shard)?;
        if self.desc(page).owner() != Some(owner) {
            return Ok(nothing);
        }
        if owner.class == MORE {
            page = shard.first_page_of(page).unwrap_or(page);
        }
        let touched = self.touched(page);
        if room == Room::Evict && cold_only && touched.swap(0, Relaxed) != 0 {
            return Ok(nothing);
        }
        let pages = shard.empty_page(page, room == Room::Refuse, now_ms);
        Ok(Reclaimed { pages, forced: shard.forced.get() })
    }
}
