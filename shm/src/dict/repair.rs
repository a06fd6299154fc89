//! Putting a shard right whose lock holder died inside, or whose memory makes no sense.
//!
//! The index is the truth: entries that can be reached from their line are kept, everything else
//! of the shard is free memory. Bitmaps, lists of pages, back links of lists, counters and hints
//! are built anew. Readers go on meanwhile. Dying in here is harmless: the next one starts over.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Dict;
use super::alloc::{ENTRIES_AT, Part, REPAIRS_AT};
use super::entry::{HEAD_WORDS, Key, Kind, Link, Ref, Shape, Slot};
use super::layout::*;
use super::read::CHAIN_MAX;
use super::shard::Shard;
use super::table::{Owner, bit_of, page_in, place_of};

impl<'d> Shard<'d> {
    /// Rebuilds the shard from its index.
    pub fn repair(&self) {
        self.dict.shard_words(self.number)[REPAIRS_AT].fetch_add(1, Relaxed);
        self.forget();
        let (lines, shards) = (self.dict.layout.lines, self.dict.layout.shards);
        let mut entries = 0;
        for line in (self.number..lines).step_by(shards) {
            for n in 1..LINE_WORDS {
                entries += self.mark_chain(line, n);
            }
            // The dead one may have unlinked something and not said so.
            self.bump_line(line);
        }
        self.dict.shard_words(self.number)[ENTRIES_AT].store(entries, Relaxed);
        self.own_pages(|page, class| self.settle(page, class));
        self.dict.hint_all_free();
    }

    /// Drops everything derived: no slot is used, no page listed.
    fn forget(&self) {
        for class in 0..=WHOLE {
            for part in [Part::Ring, Part::Roomy, Part::Hand] {
                self.part(part, class).store(0, Relaxed);
            }
        }
        self.own_pages(|page, class| {
            let desc = self.dict.desc(page);
            match class {
                // Of a further page `used` names the first; `roomy` is the mark of this repair.
                MORE => desc.roomy().store(0, Relaxed),
                // Of a first page `roomy` names the second.
                WHOLE => desc.used().store(0, Relaxed),
                _ => {
                    desc.used().store(0, Relaxed);
                    desc.roomy().store(0, Relaxed);
                }
            }
        });
    }

    /// Marks what a chain reaches; unlinks what cannot be. Returns the number of entries.
    fn mark_chain(&self, line: usize, head: usize) -> u64 {
        let mut holder = &self.dict.line(line)[head];
        let mut entries = 0;
        for _ in 0..CHAIN_MAX {
            let link = Link(holder.load(Acquire));
            let Some(at) = link.slot() else { return entries };
            let slot = self.dict.slot(at);
            let sound = slot.and_then(|s| self.mark_entry(s, line, head, link.tag()).map(|()| s));
            let Some(slot) = sound else {
                // Its link onwards is no better than itself.
                holder.store(0, Release);
                return entries;
            };
            entries += 1;
            holder = slot.next();
        }
        holder.store(0, Release);
        entries
    }

    fn mark_entry(&self, slot: Slot<'d>, line: usize, head: usize, tag: u32) -> Option<()> {
        let shape = slot.shape().filter(|s| !s.kind.is_element())?;
        if !self.can_be(slot.at, shape) || self.is_marked(slot.at) || !self.has_pages(slot, shape) {
            return None;
        }
        let mut bytes = Vec::with_capacity(shape.key_len);
        self.dict.copy_bytes(slot, HEAD_WORDS, shape.key_len, &mut bytes)?;
        let key = Key::new(self.dict.region.seed(), &bytes);
        let here = self.dict.line_of(key.hash) == line && Dict::head_of(key.hash) == head;
        if !here || key.tag() != tag {
            return None;
        }
        self.mark(slot, shape);
        if shape.kind == Kind::List {
            self.mark_list(slot, shape);
        }
        Some(())
    }

    /// Marks a list's elements and rebuilds its back links, end and count.
    fn mark_list(&self, list: Slot<'d>, shape: Shape) {
        let Some(ends) = self.dict.ends(list, shape) else { return };
        let (mut holder, mut last, mut count) = (ends.first, 0, 0);
        loop {
            let at = Ref(holder.load(Relaxed) as u32);
            let element = self.dict.slot(at).filter(|_| at.0 != 0);
            let Some(slot) = element.filter(|s| self.mark_element(*s, list.at)) else { break };
            slot.prev().store(last, Relaxed);
            last = u64::from(at.0);
            count += 1;
            holder = slot.next();
        }
        holder.store(0, Release);
        ends.last.store(last, Relaxed);
        ends.count.store(count, Relaxed);
    }

    fn mark_element(&self, slot: Slot<'d>, list: Ref) -> bool {
        let Some(shape) = slot.shape().filter(|s| s.kind.is_element()) else { return false };
        let sound = slot.owner().load(Relaxed) == u64::from(list.0)
            && self.can_be(slot.at, shape)
            && !self.is_marked(slot.at)
            && self.has_pages(slot, shape);
        if sound {
            self.mark(slot, shape);
        }
        sound
    }

    /// Whether a large entry has all its further pages.
    fn has_pages(&self, slot: Slot<'d>, shape: Shape) -> bool {
        self.further_pages(slot, shape, |_| {}) == needed(shape)
    }

    fn mark(&self, slot: Slot<'d>, shape: Shape) {
        let used = self.dict.desc(place_of(slot.at).0).used();
        used.store(used.load(Relaxed) | bit_of(slot.at), Relaxed);
        self.further_pages(slot, shape, |page| self.dict.desc(page).roomy().store(1, Relaxed));
    }

    fn is_marked(&self, at: Ref) -> bool {
        self.dict.desc(place_of(at).0).used().load(Relaxed) & bit_of(at) != 0
    }

    /// Visits as many further pages as the shape asks for; returns how many there are.
    fn further_pages(&self, slot: Slot<'d>, shape: Shape, mut visit: impl FnMut(usize)) -> usize {
        let first = place_of(slot.at).0;
        let mut page = first;
        for n in 0..needed(shape) {
            let next = page_in(self.dict.desc(page).more().load(Relaxed));
            let Some(p) = next.filter(|p| self.is_more_of(*p, first)) else { return n };
            visit(p);
            page = p;
        }
        needed(shape)
    }

    /// Frees a page without marks, lists one with marks.
    fn settle(&self, page: usize, class: usize) {
        let desc = self.dict.desc(page);
        let used = desc.used().load(Relaxed);
        let marked = if class == MORE { desc.roomy().load(Relaxed) } else { used };
        if marked == 0 {
            return self.dict.free_page(page);
        }
        if class == MORE {
            return desc.roomy().store(0, Relaxed);
        }
        self.enlist(Part::Ring, class, page);
        if class != WHOLE && used != slot_bits(class) {
            self.enlist(Part::Roomy, class, page);
        }
    }

    fn own_pages(&self, mut visit: impl FnMut(usize, usize)) {
        for page in 0..self.dict.layout.pages {
            if let Some(Owner { shard, class }) = self.dict.desc(page).owner()
                && shard == self.number
            {
                visit(page, class);
            }
        }
    }
}

/// Pages an entry of this shape needs besides its first.
fn needed(shape: Shape) -> usize {
    shape.words().div_ceil(PAGE_WORDS).saturating_sub(1)
}
