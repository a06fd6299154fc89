//! The parts of the region by name, and the pages: who owns each, and which are free.
//!
//! The first word of a page's descriptor is the truth: free, or owned by one shard for one class.
//! A page is taken by a compare-and-swap on it, without any lock. The hint bitmaps only say where
//! looking is worth it: a set hint may be wrong (the taker died before clearing it), a missing one
//! is put back by the repair of the shard whose lock the dying process held.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use super::Dict;
use super::entry::{Ref, Slot};
use super::layout::*;

/// Owner word of a free page.
const FREE: u64 = 0;
const TAKEN: u64 = 1 << 63;

/// Shard and class of a taken page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub shard: usize,
    pub class: usize,
}

impl Owner {
    fn encode(self) -> u64 {
        TAKEN | (self.class as u64) << 16 | self.shard as u64
    }
    fn decode(word: u64) -> Option<Owner> {
        let (shard, class) = ((word & 0xffff) as usize, (word >> 16 & 0xff) as usize);
        (word & TAKEN != 0 && class < CLASSES.len()).then_some(Owner { shard, class })
    }
}

/// Four words about a page. All but `owner` belong to the owning shard's lock.
#[derive(Clone, Copy)]
pub(super) struct Desc<'a>(&'a [AtomicU64]);

impl<'a> Desc<'a> {
    pub fn owner(self) -> Option<Owner> {
        Owner::decode(self.0[0].load(Acquire))
    }
    /// Bitmap of used slots. Of a further page: the number of the first page, plus one.
    pub fn used(self) -> &'a AtomicU64 {
        &self.0[1]
    }
    /// Neighbours in the ring of the class. Of a further page: the page after it, plus one.
    pub fn ring(self) -> &'a AtomicU64 {
        &self.0[2]
    }
    /// Neighbours among pages with room. Of a large entry's first page: the second page, plus one.
    pub fn roomy(self) -> &'a AtomicU64 {
        &self.0[3]
    }
    pub fn more(self) -> &'a AtomicU64 {
        match self.owner() {
            Some(Owner { class: MORE, .. }) => self.ring(),
            _ => self.roomy(),
        }
    }
}

impl Dict {
    #[inline]
    pub(super) fn shard_words(&self, shard: usize) -> &[AtomicU64] {
        let at = shard * SHARD_WORDS;
        &self.region.words()[at..at + SHARD_WORDS]
    }

    /// Index line `n`: the retire counter, then the chains' heads.
    #[inline]
    pub(super) fn line(&self, n: usize) -> &[AtomicU64] {
        let at = self.layout.at_lines + n * LINE_WORDS;
        &self.region.words()[at..at + LINE_WORDS]
    }

    #[inline]
    pub(super) fn line_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.layout.lines as u128) >> 64) as usize
    }

    #[inline]
    pub(super) fn head_of(hash: u64) -> usize {
        1 + ((((hash >> 8) & 0xffff) * HEADS as u64) >> 16) as usize
    }

    #[inline]
    pub(super) fn shard_of_line(&self, line: usize) -> usize {
        line & (self.layout.shards - 1)
    }

    #[inline]
    pub(super) fn touched(&self, page: usize) -> &AtomicU64 {
        &self.region.words()[self.layout.at_touched + page]
    }

    #[inline]
    pub(super) fn desc(&self, page: usize) -> Desc<'_> {
        let at = self.layout.at_descs + page * DESC_WORDS;
        Desc(&self.region.words()[at..at + DESC_WORDS])
    }

    #[inline]
    pub(super) fn page_words(&self, page: usize) -> &[AtomicU64] {
        let at = self.layout.at_pages + page * PAGE_WORDS;
        &self.region.words()[at..at + PAGE_WORDS]
    }

    /// The slot a claim names, if there can be one.
    #[inline]
    pub(super) fn slot(&self, at: Ref) -> Option<Slot<'_>> {
        let (page, word) = place_of(at);
        if page >= self.layout.pages || word > PAGE_WORDS - super::entry::HEAD_WORDS {
            return None;
        }
        Some(Slot { at, words: &self.page_words(page)[word..] })
    }

    /// Takes any free page for `owner`.
    pub(super) fn take_page(&self, owner: Owner) -> Option<usize> {
        for n in 0..self.layout.summary {
            while let Some(bit) = lowest(self.summary_word(n).load(Relaxed)) {
                let group = n * 64 + bit as usize;
                if group >= self.layout.hints {
                    self.summary_word(n).fetch_and(!(1 << bit), Relaxed);
                } else if let Some(page) = self.take_page_in(group, owner) {
                    return Some(page);
                }
            }
        }
        None
    }

    /// Gives a page of the held shard back.
    pub(super) fn free_page(&self, page: usize) {
        let desc = self.desc(page);
        for word in [desc.used(), desc.ring(), desc.roomy()] {
            word.store(0, Relaxed);
        }
        self.touched(page).store(0, Relaxed);
        desc.0[0].store(FREE, Release);
        self.hint(page);
    }

    /// Says that `page` may be free.
    pub(super) fn hint(&self, page: usize) {
        self.hint_word(page / 64).fetch_or(1 << (page % 64), SeqCst);
        self.summary_word(page / 4096).fetch_or(1 << (page / 64 % 64), SeqCst);
    }

    /// Pages that are free now.
    pub(super) fn count_free(&self) -> usize {
        (0..self.layout.pages).filter(|&p| self.desc(p).0[0].load(Relaxed) == FREE).count()
    }

    /// Puts back every hint that a dying process may have kept to itself.
    pub(super) fn hint_all_free(&self) {
        for page in 0..self.layout.pages {
            let hinted = self.hint_word(page / 64).load(Relaxed) >> (page % 64) & 1 == 1;
            let listed = self.summary_word(page / 4096).load(Relaxed) >> (page / 64 % 64) & 1 == 1;
            if self.desc(page).0[0].load(Acquire) & TAKEN == 0 && !(hinted && listed) {
                // A word that is neither free nor taken is garbage: make it free.
                self.desc(page).0[0].store(FREE, Release);
                self.hint(page);
            }
        }
    }

    fn take_page_in(&self, group: usize, owner: Owner) -> Option<usize> {
        let hints = self.hint_word(group);
        while let Some(bit) = lowest(hints.load(Relaxed)) {
            let page = group * 64 + bit as usize;
            if page >= self.layout.pages {
                hints.fetch_and(!(1 << bit), Relaxed);
                continue;
            }
            let word = &self.desc(page).0[0];
            let taken = word.compare_exchange(FREE, owner.encode(), AcqRel, Relaxed).is_ok();
            hints.fetch_and(!(1 << bit), SeqCst);
            if taken {
                return Some(page);
            }
            if word.load(SeqCst) == FREE {
                // Freed between our two steps: its hint was the one we cleared.
                self.hint(page);
            }
        }
        let summary = self.summary_word(group / 64);
        summary.fetch_and(!(1 << (group % 64)), SeqCst);
        if hints.load(SeqCst) != 0 {
            summary.fetch_or(1 << (group % 64), SeqCst);
        }
        None
    }

    fn hint_word(&self, group: usize) -> &AtomicU64 {
        &self.region.words()[self.layout.at_hints + group]
    }

    fn summary_word(&self, n: usize) -> &AtomicU64 {
        &self.region.words()[self.layout.at_summary + n]
    }
}

/// Page, and word within it, that a claim names.
#[inline]
pub(super) fn place_of(at: Ref) -> (usize, usize) {
    let granule = at.0.wrapping_sub(1) as usize;
    (granule / (PAGE_WORDS / 2), granule % (PAGE_WORDS / 2) * 2)
}

/// The name of the slot that starts at byte `start` of `page`.
pub(super) fn ref_of(page: usize, start: usize) -> Ref {
    Ref((page * (PAGE_WORDS / 2) + start / 16 + 1) as u32)
}

/// The bit of a slot in its page's bitmaps.
#[inline]
pub(super) fn bit_of(at: Ref) -> u64 {
    1 << (place_of(at).1 / 8)
}

#[inline]
pub(super) fn lowest(bits: u64) -> Option<u32> {
    (bits != 0).then(|| bits.trailing_zeros())
}

/// A page number as it stands in a descriptor: zero is none.
#[inline]
pub(super) fn page_in(half: u64) -> Option<usize> {
    (half as u32 as usize).checked_sub(1)
}
