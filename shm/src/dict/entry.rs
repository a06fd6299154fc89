//! One entry in its slot, and the words that point to it.
//!
//! ```text
//! word 0  value length (32) | key length (16) | kind (8) | mark (8)
//! word 1  link to the next entry of the chain (or element of the list)
//! word 2  expiry, ms; 0 never           element: the element before
//! word 3  user flags (32)               element: the list's entry
//! then    key, padded to words; value, padded to words
//! ```
//! A large entry goes on in further pages. An entry is filled while nobody can reach it and then
//! linked by one store; afterwards only `expires`, a number's value word and a list's ends change.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::hash::{hash, scramble};

/// Words before the key.
pub(super) const HEAD_WORDS: usize = 4;
/// Words of a list's value: its first element, its last, and how many there are.
pub(super) const LIST_WORDS: usize = 3;
/// Longest key, bytes (OpenResty's limit).
pub const KEY_MAX: usize = 65_535;
/// Says "an entry starts here"; anything else in its place is garbage.
const MARK: u64 = 0xa7;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    String = 1,
    Number = 2,
    Bool = 3,
    List = 4,
    /// Of a list: not in the index.
    ElementString = 5,
    ElementNumber = 6,
}

impl Kind {
    pub fn is_element(self) -> bool {
        matches!(self, Kind::ElementString | Kind::ElementNumber)
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::String),
            2 => Some(Kind::Number),
            3 => Some(Kind::Bool),
            4 => Some(Kind::List),
            5 => Some(Kind::ElementString),
            6 => Some(Kind::ElementNumber),
            _ => None,
        }
    }
}

/// A slot's name: its place in 16-byte granules, plus one. A claim until the dict looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(pub u32);

/// A word that points to an entry: its slot, and 32 bits of its key's hash. Zero points nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub u64);

impl Link {
    pub fn to(slot: Ref, tag: u32) -> Link {
        Link(u64::from(tag) << 32 | u64::from(slot.0))
    }
    #[inline]
    pub fn slot(self) -> Option<Ref> {
        (self.0 as u32 != 0).then_some(Ref(self.0 as u32))
    }
    #[inline]
    pub fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A key with everything its hash decides.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

impl<'a> Key<'a> {
    #[inline]
    pub fn new(seed: u64, bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hash: hash(seed, bytes) }
    }
    #[inline]
    pub fn tag(&self) -> u32 {
        self.hash as u32
    }
    /// What a number's bits are combined with. A CAS on a slot that was given to another key
    /// meanwhile fails, because the same number looks different there (but for one chance in 2^64).
    #[inline]
    pub fn mask(&self) -> u64 {
        scramble(self.hash)
    }
}

/// The first word of an entry, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub kind: Kind,
    pub key_len: usize,
    pub value_len: usize,
}

impl Shape {
    #[inline]
    pub fn decode(word: u64) -> Option<Shape> {
        if word >> 56 != MARK {
            return None;
        }
        let kind = Kind::from_byte((word >> 48) as u8)?;
        let (key_len, value_len) = ((word >> 32) as u16 as usize, word as u32 as usize);
        let fits = match kind {
            Kind::String | Kind::ElementString => true,
            Kind::List => value_len == LIST_WORDS * 8,
            _ => value_len == 8,
        };
        fits.then_some(Shape { kind, key_len, value_len })
    }
    pub fn encode(self) -> u64 {
        let lens = (self.key_len as u64) << 32 | self.value_len as u64;
        MARK << 56 | (self.kind as u64) << 48 | lens
    }
    pub fn value_at(self) -> usize {
        HEAD_WORDS + self.key_len.div_ceil(8)
    }
    /// Words of the whole entry.
    pub fn words(self) -> usize {
        self.value_at() + self.value_len.div_ceil(8)
    }
    pub fn bytes(self) -> usize {
        self.words() * 8
    }
}

/// A slot and what follows it up to the end of its page.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub at: Ref,
    pub words: &'a [AtomicU64],
}

impl<'a> Slot<'a> {
    #[inline]
    pub fn shape(&self) -> Option<Shape> {
        Shape::decode(self.words.first()?.load(Relaxed))
    }
    #[inline]
    pub fn next(&self) -> &'a AtomicU64 {
        &self.words[1]
    }
    #[inline]
    pub fn expires(&self) -> &'a AtomicU64 {
        &self.words[2]
    }
    #[inline]
    pub fn flags(&self) -> &'a AtomicU64 {
        &self.words[3]
    }
    /// Of an element: the one before it.
    pub fn prev(&self) -> &'a AtomicU64 {
        &self.words[2]
    }
    /// Of an element: the list's entry.
    pub fn owner(&self) -> &'a AtomicU64 {
        &self.words[3]
    }
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        let at = self.expires().load(Relaxed);
        at != 0 && at <= now_ms
    }
    /// Word `n` of the entry, if it lies in this page.
    #[inline]
    pub fn word(&self, n: usize) -> Option<&'a AtomicU64> {
        self.words.get(n)
    }
    pub fn next_link(&self) -> Link {
        Link(self.next().load(Acquire))
    }
}

/// Compares a key with words that start with it, padded with zeros.
#[inline]
pub(super) fn same_key(words: &[AtomicU64], key: &[u8]) -> bool {
    let mut chunks = key.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let want = u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
        if words[at].load(Relaxed) != want {
            return false;
        }
        at += 1;
    }
    let rest = chunks.remainder();
    rest.is_empty() || words[at].load(Relaxed) == crate::region::load_le(rest).to_le()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_decoded_as_it_was_encoded_and_garbage_is_not() {
        let shape = Shape { kind: Kind::String, key_len: KEY_MAX, value_len: u32::MAX as usize };
        assert_eq!(Shape::decode(shape.encode()), Some(shape));
        assert_eq!(Shape::decode(0), None);
        assert_eq!(Shape::decode(shape.encode() ^ 1 << 63), None);
        assert_eq!(Shape::decode(MARK << 56 | 9 << 48), None);
    }

    #[test]
    fn links_carry_their_tag() {
        let link = Link::to(Ref(7), 0xdead_beef);
        assert_eq!((link.slot(), link.tag()), (Some(Ref(7)), 0xdead_beef));
        assert_eq!(Link(0xffff_ffff_0000_0000).slot(), None);
    }
}
