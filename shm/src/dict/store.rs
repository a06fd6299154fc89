//! Storing values, reading them back, lifetimes.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::clock::Reclaimed;
use super::entry::{HEAD_WORDS, KEY_MAX, Key, Kind, Ref, Shape, Slot};
use super::layout::PAGE_WORDS;
use super::shard::{Shard, Spot};
use super::table::{page_in, place_of};
use super::{Counted, Dict, Error, Hit, Init, Put, Room, Scalar, VALUE_MAX, Value};
use crate::region::copy_in;

/// Attempts to get memory that other processes take away again.
const ROUNDS: usize = 64;

/// Which existing state allows a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
}

/// Everything of a new entry but its place.
#[derive(Clone, Copy)]
pub(super) struct Draft<'a> {
    pub shape: Shape,
    pub value: Value<'a>,
    pub expires_ms: u64,
    pub flags: u32,
}

impl Dict {
    /// Reads into the caller's buffer: a string is appended to `out`.
    #[inline]
    pub fn get_into(
        &self,
        key: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Hit>, Error> {
        let start = out.len();
        let hit = self.get_stale_into(key, now_ms, out)?;
        if hit.is_some_and(|h| h.stale) {
            out.truncate(start);
            return Ok(None);
        }
        Ok(hit)
    }

    /// The same for entries expired or not.
    #[inline]
    pub fn get_stale_into(
        &self,
        key: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Hit>, Error> {
        let key = self.key(key)?;
        let start = out.len();
        // Plain numbers, one by one: a half-built enum here costs more than the lookup.
        let (mut at, mut kind, mut bits, mut flags, mut stale) = (Ref(0), Kind::List, 0, 0, false);
        let there = self.look_up(&key, |slot, shape| {
            let value_at = shape.value_at();
            match shape.kind {
                Kind::String => {
                    out.truncate(start);
                    self.copy_bytes(slot, value_at, shape.value_len, out)?;
                }
                Kind::Number | Kind::Bool => bits = self.word_of(slot, value_at)?.load(Relaxed),
                _ => {}
            }
            (at, kind, stale) = (slot.at, shape.kind, slot.is_expired(now_ms));
            flags = slot.flags().load(Relaxed) as u32;
            Some(())
        })?;
        if !there || kind != Kind::String {
            // An earlier look may have copied something that was not the answer.
            out.truncate(start);
        }
        let value = match kind {
            _ if !there => return Ok(None),
            Kind::String => Scalar::String,
            Kind::Number => Scalar::Number(f64::from_bits(bits ^ key.mask())),
            Kind::Bool => Scalar::Bool(bits != 0),
            _ if stale => return Ok(None),
            _ => return Err(Error::IsList),
        };
        self.touch(at);
        Ok(Some(Hit { value, flags, stale }))
    }

    /// Milliseconds that `key` has left; 0 if it never expires, negative if it did.
    pub fn ttl(&self, key: &[u8], now_ms: u64) -> Result<i64, Error> {
        let key = self.key(key)?;
        let mut expires = 0;
        let there = self.look_up(&key, |slot, _| {
            expires = slot.expires().load(Relaxed);
            Some(())
        })?;
        match expires {
            _ if !there => Err(Error::NotFound),
            0 => Ok(0),
            at => Ok(at.wrapping_sub(now_ms) as i64),
        }
    }

    /// Gives `key` a new lifetime from now on, milliseconds; 0 is for ever.
    pub fn expire(&self, key: &[u8], ttl_ms: u64, now_ms: u64) -> Result<(), Error> {
        let key = self.key(key)?;
        let shard = self.lock_for(&key)?;
        let spot = shard.find(&key).ok_or(Error::NotFound)?;
        spot.slot.expires().store(deadline(ttl_ms, now_ms), Release);
        Ok(())
    }

    #[inline]
    pub(super) fn key<'k>(&self, bytes: &'k [u8]) -> Result<Key<'k>, Error> {
        match bytes.len() {
            0 => Err(Error::EmptyKey),
            1..=KEY_MAX => Ok(Key::new(self.region.seed(), bytes)),
            _ => Err(Error::KeyTooLong),
        }
    }

    /// All of `set`, `add`, `replace` and their safe kin. True: living entries were evicted.
    pub(super) fn store(
        &self,
        key: &[u8],
        put: &Put<'_>,
        mode: Mode,
        room: Room,
        now_ms: u64,
    ) -> Result<bool, Error> {
        let key = self.key(key)?;
        let draft = Draft::of(&key, put, now_ms)?;
        let bytes = draft.shape.bytes();
        self.with_room(&key, bytes, room, now_ms, |shard| {
            let old = shard.find(&key);
            let living = old.as_ref().is_some_and(|s| !s.slot.is_expired(now_ms));
            match mode {
                Mode::Add if living => return Err(Failure::Final(Error::Exists)),
                Mode::Replace if !living => return Err(Failure::Final(Error::NotFound)),
                _ => {}
            }
            if old.as_ref().is_some_and(|spot| shard.overwrite(spot, &key, &draft)) {
                return Ok(());
            }
            let slot = shard.place(bytes, room, now_ms)?;
            self.fill(slot, &key, &draft);
            shard.commit(&key, old, slot);
            Ok(())
        })
    }

    /// Runs `attempt` under the lock of `key`'s shard until it has the memory it wants, reclaiming
    /// pages in between. True: living entries were evicted.
    pub(super) fn with_room(
        &self,
        key: &Key<'_>,
        bytes: usize,
        room: Room,
        now_ms: u64,
        mut attempt: impl FnMut(&Shard<'_>) -> Result<(), Failure>,
    ) -> Result<bool, Error> {
        let mut forcible = false;
        if bytes.div_ceil(crate::region::PAGE) > self.layout.pages {
            return Err(Error::NoMemory { forcible });
        }
        if room == Room::Evict {
            forcible = self.balance(self.shard_of_line(self.line_of(key.hash)), now_ms)?.forced;
        }
        for _ in 0..ROUNDS {
            let shard = self.lock_for(key)?;
            let done = attempt(&shard);
            forcible |= shard.forced.get();
            drop(shard);
            match done {
                Ok(()) => return Ok(forcible),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Short(short)) => {
                    let Reclaimed { pages, forced } = self.reclaim(short, room, now_ms)?;
                    forcible |= forced;
                    // With nothing else left, what the key itself holds is given up.
                    if pages == 0 && !self.give_up(key)? {
                        break;
                    }
                }
            }
        }
        Err(Error::NoMemory { forcible })
    }

    /// Adds a number that is not there yet; somebody may be faster.
    pub(super) fn start_number(
        &self,
        key: &Key<'_>,
        by: f64,
        init: Init,
        now_ms: u64,
    ) -> Result<Counted, Error> {
        let put = Put::number(init.value + by).ttl(init.ttl_ms);
        for _ in 0..ROUNDS {
            match self.store(key.bytes, &put, Mode::Add, init.room, now_ms) {
                Ok(forcible) => return Ok(Counted { value: init.value + by, forcible }),
                Err(Error::Exists) => {}
                Err(e) => return Err(e),
            }
            if let Some(value) = self.bump(key, by, now_ms)? {
                return Ok(Counted { value, forcible: false });
            }
        }
        Err(Error::Stuck(crate::lock::Stuck))
    }

    /// Writes an entry that nobody can reach yet.
    pub(super) fn fill(&self, slot: Slot<'_>, key: &Key<'_>, draft: &Draft<'_>) {
        slot.words[0].store(draft.shape.encode(), Relaxed);
        slot.expires().store(draft.expires_ms, Relaxed);
        slot.flags().store(u64::from(draft.flags), Relaxed);
        self.put_bytes(slot, HEAD_WORDS, key.bytes);
        let at = draft.shape.value_at();
        match draft.value {
            Value::String(bytes) => self.put_bytes(slot, at, bytes),
            Value::Number(n) => self.put_word(slot, at, n.to_bits() ^ key.mask()),
            Value::Bool(b) => self.put_word(slot, at, u64::from(b)),
        }
    }

    pub(super) fn put_word(&self, slot: Slot<'_>, at: usize, word: u64) {
        self.put_bytes(slot, at, &word.to_ne_bytes());
    }

    /// Writes bytes from word `at` of an entry on, into its further pages if need be.
    pub(super) fn put_bytes(&self, slot: Slot<'_>, at: usize, bytes: &[u8]) {
        if at + bytes.len().div_ceil(8) <= slot.words.len() {
            copy_in(&slot.words[at..], bytes).expect("it fits");
            return;
        }
        let (mut page, mut skip, mut rest) = (place_of(slot.at).0, at, bytes);
        for _ in 0..self.layout.pages {
            if skip < PAGE_WORDS {
                let here = rest.len().min((PAGE_WORDS - skip) * 8);
                copy_in(&self.page_words(page)[skip..], &rest[..here]).expect("it fits");
                rest = &rest[here..];
            }
            skip = skip.saturating_sub(PAGE_WORDS);
            match page_in(self.desc(page).more().load(Relaxed)) {
                Some(next) if !rest.is_empty() && next < self.layout.pages => page = next,
                _ => return,
            }
        }
    }

    fn give_up(&self, key: &Key<'_>) -> Result<bool, Error> {
        let shard = self.lock_for(key)?;
        let old = shard.find(key);
        if let Some(spot) = &old {
            shard.remove(spot);
        }
        Ok(old.is_some())
    }
}

impl<'d> Shard<'d> {
    /// Makes a filled entry the one of `key`. `old` was found before the slot was placed.
    pub fn commit(&self, key: &Key<'_>, old: Option<Spot<'d>>, slot: Slot<'d>) {
        let old = if self.evicted.get() { self.find(key) } else { old };
        match old {
            Some(old) => {
                self.replace(key, &old, slot);
                self.dict.touch(slot.at);
            }
            None => self.link(key, slot),
        }
    }

    /// Where only a number changes, one store does it.
    fn overwrite(&self, old: &Spot<'d>, key: &Key<'_>, draft: &Draft<'_>) -> bool {
        let Value::Number(n) = draft.value else { return false };
        let same = old.shape.kind == Kind::Number
            && old.slot.expires().load(Relaxed) == draft.expires_ms
            && old.slot.flags().load(Relaxed) == u64::from(draft.flags);
        let word = same.then(|| self.dict.word_of(old.slot, old.shape.value_at())).flatten();
        if let Some(word) = word {
            word.store(n.to_bits() ^ key.mask(), Release);
            self.dict.touch(old.slot.at);
        }
        word.is_some()
    }
}

/// Why an attempt under the lock did not succeed.
pub(super) enum Failure {
    Final(Error),
    Short(super::alloc::Shortage),
}

impl From<super::alloc::Shortage> for Failure {
    fn from(short: super::alloc::Shortage) -> Self {
        Failure::Short(short)
    }
}

impl<'a> Draft<'a> {
    fn of(key: &Key<'_>, put: &Put<'a>, now_ms: u64) -> Result<Draft<'a>, Error> {
        let (kind, value_len) = match put.value {
            Value::String(bytes) => (Kind::String, bytes.len()),
            Value::Number(_) => (Kind::Number, 8),
            Value::Bool(_) => (Kind::Bool, 8),
        };
        if value_len > VALUE_MAX {
            return Err(Error::NoMemory { forcible: false });
        }
        Ok(Draft {
            shape: Shape { kind, key_len: key.bytes.len(), value_len },
            value: put.value,
            expires_ms: deadline(put.ttl_ms, now_ms),
            flags: put.flags,
        })
    }
}

/// When something that lives `ttl_ms` from now on expires; 0 is never.
pub(super) fn deadline(ttl_ms: u64, now_ms: u64) -> u64 {
    if ttl_ms == 0 { 0 } else { now_ms.saturating_add(ttl_ms).max(1) }
}
