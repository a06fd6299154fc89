//! Lists: `lpush`, `rpush`, `lpop`, `rpop`, `llen`.
//!
//! A list's entry names its first and last element and counts them. The truth is the chain from
//! the first element on; a push or pop is committed by the one store that changes it, and the
//! other words (back links, the last element, the count) are put right by `repair` if we die.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::entry::{HEAD_WORDS, Key, Kind, LIST_WORDS, Ref, Shape, Slot};
use super::shard::{Shard, Spot};
use super::store::{Draft, Failure};
use super::{Dict, Error, Owned, Room, Value};

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

/// The words of a list's entry.
#[derive(Clone, Copy)]
pub(super) struct Ends<'d> {
    pub first: &'d AtomicU64,
    pub last: &'d AtomicU64,
    pub count: &'d AtomicU64,
}

impl Dict {
    /// Puts a value in front; answers the new length. Like OpenResty's it never evicts.
    pub fn lpush(&self, key: &[u8], value: Value<'_>, now_ms: u64) -> Result<u64, Error> {
        self.push(key, value, End::Left, now_ms)
    }

    /// Puts a value at the end; answers the new length.
    pub fn rpush(&self, key: &[u8], value: Value<'_>, now_ms: u64) -> Result<u64, Error> {
        self.push(key, value, End::Right, now_ms)
    }

    /// Takes the first value. A list without values is gone.
    pub fn lpop(&self, key: &[u8], now_ms: u64) -> Result<Option<Owned>, Error> {
        self.pop(key, End::Left, now_ms)
    }

    /// Takes the last value.
    pub fn rpop(&self, key: &[u8], now_ms: u64) -> Result<Option<Owned>, Error> {
        self.pop(key, End::Right, now_ms)
    }

    /// How many values a list has; 0 if there is none.
    pub fn llen(&self, key: &[u8], now_ms: u64) -> Result<u64, Error> {
        let key = self.key(key)?;
        let (mut at, mut count, mut expired) = (Ref(0), None, false);
        let there = self.look_up(&key, |slot, shape| {
            (at, count, expired) = (slot.at, None, slot.is_expired(now_ms));
            if shape.kind == Kind::List {
                count = Some(self.word_of(slot, shape.value_at() + 2)?.load(Relaxed));
            }
            Some(())
        })?;
        if !there || expired {
            return Ok(0);
        }
        self.touch(at);
        count.ok_or(Error::NotAList)
    }

    fn push(&self, key: &[u8], value: Value<'_>, end: End, now_ms: u64) -> Result<u64, Error> {
        let key = self.key(key)?;
        let element = element_of(value);
        let mut length = 0;
        self.with_room(&key, element.shape.bytes(), Room::Refuse, now_ms, |shard| {
            let mut found = shard.find(&key);
            if let Some(spot) = found.take_if(|s| s.slot.is_expired(now_ms)) {
                shard.remove(&spot);
            }
            if found.as_ref().is_some_and(|s| s.shape.kind != Kind::List) {
                return Err(Failure::Final(Error::NotAList));
            }
            let slot = shard.place(element.shape.bytes(), Room::Refuse, now_ms)?;
            self.fill(slot, &Key { bytes: b"", hash: 0 }, &element);
            if shard.evicted.get() {
                found = shard.find(&key);
            }
            length = match found {
                Some(spot) => {
                    shard.attach(&spot, slot, end).ok_or(Failure::Final(Error::NotAList))?
                }
                None => shard.start_list(&key, slot, now_ms)?,
            };
            Ok(())
        })?;
        Ok(length)
    }

    fn pop(&self, key: &[u8], end: End, now_ms: u64) -> Result<Option<Owned>, Error> {
        let key = self.key(key)?;
        let shard = self.lock_for(&key)?;
        let Some(spot) = shard.find(&key).filter(|s| !s.slot.is_expired(now_ms)) else {
            return Ok(None);
        };
        if spot.shape.kind != Kind::List {
            return Err(Error::NotAList);
        }
        let taken = shard.detach(&spot, end);
        if taken.is_none() {
            // A list without a sound element at its end: damaged.
            shard.repair();
        }
        Ok(taken)
    }

    pub(super) fn ends(&self, slot: Slot<'_>, shape: Shape) -> Option<Ends<'_>> {
        let slot = self.slot(slot.at)?;
        let at = shape.value_at();
        Some(Ends {
            first: self.word_of(slot, at)?,
            last: self.word_of(slot, at + 1)?,
            count: self.word_of(slot, at + 2)?,
        })
    }

    /// The value in an element.
    pub(super) fn element_value(&self, slot: Slot<'_>, shape: Shape) -> Option<Owned> {
        let mut bytes = Vec::new();
        self.copy_bytes(slot, HEAD_WORDS, shape.value_len, &mut bytes)?;
        match shape.kind {
            Kind::ElementString => Some(Owned::String(bytes)),
            Kind::ElementNumber => {
                let bits = bytes.try_into().map(u64::from_ne_bytes).ok()?;
                Some(Owned::Number(f64::from_bits(bits)))
            }
            _ => None,
        }
    }
}

impl<'d> Shard<'d> {
    /// The elements of a list from the first on, as far as they are sound.
    pub fn each_element(&self, list: &Spot<'d>, mut visit: impl FnMut(Slot<'d>, Shape)) {
        let Some(ends) = self.dict.ends(list.slot, list.shape) else { return };
        let mut next = ends.first.load(Relaxed);
        for _ in 0..self.dict.layout.pages * 64 {
            let Some((slot, shape)) = self.element(next, list.slot.at) else { return };
            next = slot.next().load(Relaxed);
            visit(slot, shape);
        }
    }

    /// Frees the elements of a list that nobody can reach any more.
    pub fn free_elements(&self, list: &Spot<'d>) {
        self.each_element(list, |slot, _| self.free_slot(slot.at));
    }

    /// The element that `word` names, if it is one of the list at `owner`.
    fn element(&self, word: u64, owner: Ref) -> Option<(Slot<'d>, Shape)> {
        let slot = self.dict.slot(Ref(u32::try_from(word).ok().filter(|w| *w != 0)?))?;
        let shape = slot.shape().filter(|s| s.kind.is_element())?;
        let ours = slot.owner().load(Relaxed) == u64::from(owner.0);
        (ours && self.is_sound(slot.at, shape)).then_some((slot, shape))
    }

    fn start_list(&self, key: &Key<'_>, element: Slot<'d>, now_ms: u64) -> Result<u64, Failure> {
        let value_len = LIST_WORDS * 8;
        let shape = Shape { kind: Kind::List, key_len: key.bytes.len(), value_len };
        let list = match self.place(shape.bytes(), Room::Refuse, now_ms) {
            Ok(slot) => slot,
            Err(short) => {
                self.free_slot(element.at);
                return Err(short.into());
            }
        };
        let one = u64::from(element.at.0);
        let value: Vec<u8> = [one, one, 1].iter().flat_map(|w: &u64| w.to_ne_bytes()).collect();
        let draft = Draft { shape, value: Value::String(&value), expires_ms: 0, flags: 0 };
        self.dict.fill(list, key, &draft);
        self.join(element, 0, 0, list.at);
        self.link(key, list);
        Ok(1)
    }

    /// Nothing if the list's entry is damaged.
    fn attach(&self, list: &Spot<'d>, new: Slot<'d>, end: End) -> Option<u64> {
        let ends = self.dict.ends(list.slot, list.shape)?;
        let (one, owner) = (u64::from(new.at.0), list.slot.at);
        let (first, last) = (ends.first.load(Relaxed), ends.last.load(Relaxed));
        match end {
            End::Left => {
                self.join(new, first, 0, owner);
                ends.first.store(one, Release);
                match self.element(first, owner) {
                    Some((old, _)) => old.prev().store(one, Relaxed),
                    None => ends.last.store(one, Relaxed),
                }
            }
            End::Right => {
                self.join(new, 0, last, owner);
                match self.element(last, owner) {
                    Some((old, _)) => old.next().store(one, Release),
                    None => ends.first.store(one, Release),
                }
                ends.last.store(one, Relaxed);
            }
        }
        let count = ends.count.load(Relaxed).wrapping_add(1);
        ends.count.store(count, Relaxed);
        self.dict.touch(list.slot.at);
        Some(count)
    }

    fn detach(&self, list: &Spot<'d>, end: End) -> Option<Owned> {
        let ends = self.dict.ends(list.slot, list.shape)?;
        let owner = list.slot.at;
        let from = if end == End::Left { ends.first } else { ends.last };
        let (slot, shape) = self.element(from.load(Relaxed), owner)?;
        let value = self.dict.element_value(slot, shape)?;
        if ends.count.load(Relaxed) <= 1 {
            self.remove(list);
            return Some(value);
        }
        let inner = if end == End::Left { slot.next() } else { slot.prev() };
        let (neighbour, _) = self.element(inner.load(Relaxed), owner)?;
        let one = u64::from(neighbour.at.0);
        match end {
            End::Left => {
                ends.first.store(one, Release);
                neighbour.prev().store(0, Relaxed);
            }
            End::Right => {
                neighbour.next().store(0, Release);
                ends.last.store(one, Relaxed);
            }
        }
        ends.count.store(ends.count.load(Relaxed) - 1, Relaxed);
        self.free_slot(slot.at);
        self.dict.touch(list.slot.at);
        Some(value)
    }

    fn join(&self, element: Slot<'d>, next: u64, prev: u64, owner: Ref) {
        element.next().store(next, Relaxed);
        element.prev().store(prev, Relaxed);
        element.owner().store(u64::from(owner.0), Relaxed);
    }
}

fn element_of(value: Value<'_>) -> Draft<'_> {
    // OpenResty refuses booleans before they come here; a number stands for one.
    let (kind, value, value_len) = match value {
        Value::String(bytes) => (Kind::ElementString, value, bytes.len()),
        Value::Number(_) => (Kind::ElementNumber, value, 8),
        Value::Bool(b) => (Kind::ElementNumber, Value::Number(f64::from(u8::from(b))), 8),
    };
    let shape = Shape { kind, key_len: 0, value_len };
    Draft { shape, value, expires_ms: 0, flags: 0 }
}
