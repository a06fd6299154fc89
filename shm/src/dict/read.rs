//! Reading without a lock, and `incr` on a number that exists.
//!
//! Chains are always whole: an entry is linked and unlinked by one store. What a reader must fear
//! is a slot that is given to another entry while it looks. Therefore whoever unlinks an entry
//! bumps the *retire counter* of its index line before the slot is free; a reader that finds the
//! counter unchanged afterwards has seen a living entry. A dead or stopped writer never holds
//! readers up: there is no odd state to wait for. After [`RETRIES`] the lock decides.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use super::entry::{HEAD_WORDS, Key, Kind, Link, Ref, Shape, Slot, same_key};
use super::layout::PAGE_WORDS;
use super::table::{bit_of, page_in, place_of};
use super::{Dict, Error};
use crate::region::copy_out;

/// Attempts of a reader before it takes the lock.
const RETRIES: usize = 100;
/// More entries than a chain ever has (28 chains share 64 entries at most): a circle.
pub(super) const CHAIN_MAX: usize = 512;

/// What a reader found at one look. What it copied lies where its closure put it: handing values
/// out through nested enums cost more than the lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Found,
    Absent,
    /// Something changed under our eyes, or made no sense.
    Unsettled,
}

impl Dict {
    /// Looks `key` up until the answer is sure; says whether it is there. `take` copies what it
    /// needs
    /// out of the entry; it may see garbage, and answers `None` if it does.
    #[inline]
    pub(super) fn look_up<'d>(
        &'d self,
        key: &Key<'_>,
        mut take: impl FnMut(Slot<'d>, Shape) -> Option<()>,
    ) -> Result<bool, Error> {
        for _ in 0..RETRIES {
            match self.look_once(key, &mut take) {
                Look::Found => return Ok(true),
                Look::Absent => return Ok(false),
                Look::Unsettled => std::hint::spin_loop(),
            }
        }
        self.look_locked(key, &mut take)
    }

    #[inline]
    fn look_once<'d>(
        &'d self,
        key: &Key<'_>,
        take: &mut impl FnMut(Slot<'d>, Shape) -> Option<()>,
    ) -> Look {
        let line = self.line(self.line_of(key.hash));
        let before = line[0].load(Acquire);
        let mut link = Link(line[Dict::head_of(key.hash)].load(Acquire));
        // A chain without an end answers so.
        let mut answer = Look::Unsettled;
        for _ in 0..CHAIN_MAX {
            let Some(at) = link.slot() else {
                answer = Look::Absent;
                break;
            };
            let Some(slot) = self.slot(at) else { return Look::Unsettled };
            if link.tag() == key.tag() {
                let Some(shape) = slot.shape() else { return Look::Unsettled };
                if self.key_is(slot, shape, key.bytes) {
                    if take(slot, shape).is_none() {
                        return Look::Unsettled;
                    }
                    answer = Look::Found;
                    break;
                }
            }
            link = slot.next_link();
        }
        fence(Acquire);
        if line[0].load(Relaxed) == before { answer } else { Look::Unsettled }
    }

    #[cold]
    fn look_locked<'d>(
        &'d self,
        key: &Key<'_>,
        take: &mut impl FnMut(Slot<'d>, Shape) -> Option<()>,
    ) -> Result<bool, Error> {
        let shard = self.lock_for(key)?;
        if self.look_once(key, take) == Look::Unsettled {
            // Under the lock nothing changes: the memory was damaged.
            shard.repair();
        }
        Ok(self.look_once(key, take) == Look::Found)
    }

    /// Marks an entry as recently used. One load if it is marked already, so that readers of one
    /// entry in several processes share its cache line.
    #[inline]
    pub(super) fn touch(&self, at: Ref) {
        let (touched, bit) = (self.touched(place_of(at).0), bit_of(at));
        if touched.load(Relaxed) & bit == 0 {
            touched.fetch_or(bit, Relaxed);
        }
    }

    /// `incr` of a living number without a lock. `Ok(None)`: there is none.
    #[inline]
    pub(super) fn bump(&self, key: &Key<'_>, by: f64, now_ms: u64) -> Result<Option<f64>, Error> {
        let mask = key.mask();
        for _ in 0..RETRIES * 10 {
            let (mut at, mut word, mut old, mut expired) = (Ref(0), None, 0, false);
            let there = self.look_up(key, |slot, shape| {
                (at, word, expired) = (slot.at, None, slot.is_expired(now_ms));
                if shape.kind == Kind::Number {
                    let number = self.word_of(slot, shape.value_at())?;
                    old = number.load(Relaxed);
                    word = Some(number);
                }
                Some(())
            })?;
            if !there || expired {
                return Ok(None);
            }
            let word = word.ok_or(Error::NotANumber)?;
            let sum = f64::from_bits(old ^ mask) + by;
            if word.compare_exchange(old, sum.to_bits() ^ mask, AcqRel, Relaxed).is_ok() {
                self.touch(at);
                return Ok(Some(sum));
            }
        }
        Err(Error::Stuck(crate::lock::Stuck))
    }

    #[inline]
    pub(super) fn key_is(&self, slot: Slot<'_>, shape: Shape, key: &[u8]) -> bool {
        if shape.key_len != key.len() || shape.kind.is_element() {
            return false;
        }
        let end = shape.value_at();
        if end <= slot.words.len() {
            return same_key(&slot.words[HEAD_WORDS..end], key);
        }
        let mut copy = Vec::with_capacity(key.len());
        self.copy_bytes(slot, HEAD_WORDS, shape.key_len, &mut copy).is_some() && copy == key
    }

    /// Appends `len` bytes of an entry, from its word `from` on, following its further pages.
    /// `None` if the entry does not have them.
    #[inline]
    pub(super) fn copy_bytes(
        &self,
        slot: Slot<'_>,
        from: usize,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        if from + len.div_ceil(8) <= slot.words.len() {
            return copy_out(&slot.words[from..], len, out);
        }
        self.copy_far_bytes(slot, from, len, out)
    }

    /// Word `n` of an entry, wherever it lies.
    #[inline]
    pub(super) fn word_of<'d>(&'d self, slot: Slot<'d>, n: usize) -> Option<&'d AtomicU64> {
        slot.word(n).or_else(|| self.far_word_of(slot, n))
    }

    #[cold]
    fn far_word_of<'d>(&'d self, slot: Slot<'d>, n: usize) -> Option<&'d AtomicU64> {
        let (mut page, word) = place_of(slot.at);
        if word != 0 {
            return None;
        }
        for _ in 0..n / PAGE_WORDS {
            page = page_in(self.desc(page).more().load(Relaxed))?;
            if page >= self.layout.pages {
                return None;
            }
        }
        Some(&self.page_words(page)[n % PAGE_WORDS])
    }

    #[cold]
    fn copy_far_bytes(
        &self,
        slot: Slot<'_>,
        from: usize,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (mut page, word) = place_of(slot.at);
        if word != 0 {
            return None;
        }
        let (mut skip, mut left) = (from, len);
        for _ in 0..self.layout.pages {
            let words = self.page_words(page);
            if skip < words.len() {
                let here = left.min((words.len() - skip) * 8);
                copy_out(&words[skip..], here, out)?;
                left -= here;
            }
            if left == 0 {
                return Some(());
            }
            skip = skip.saturating_sub(words.len());
            page = page_in(self.desc(page).more().load(Relaxed))?;
            if page >= self.layout.pages {
                return None;
            }
        }
        None
    }
}
