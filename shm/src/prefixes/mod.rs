//! Networks and their values in a snapshot: which is the longest network that holds an address?
//!
//! Networks that lie in one another are cut into ranges that do not: a sorted row of addresses at
//! which another value begins, and a row of numbers that say which one. IPv4 has an index by the
//! upper half of the address, so that a lookup touches three or four cache lines; IPv6 has every
//! 32nd address once more in a row of their own. A million IPv4 networks take 10 MB if there are
//! few values.
//!
//! ```text
//! header │ v4: index, starts, numbers │ v6: fences, starts, numbers │ values: offsets, text
//! ```
//!
//! **Invariant:** what the memory says is a claim. [`Prefixes::check`] believes nothing, and even
//! unchecked bytes could only lead to a wrong answer, as every access is to a checked slice.

mod build;

pub use build::{Builder, ENTRIES_MAX, Full, VALUE_MAX_BYTES};

use crate::region::OpenError;
use crate::snapshot::Snapshot;
use std::net::IpAddr;
use std::ops::{Deref, Range};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The kind of such snapshots; the last letter is the version of the layout.
pub const KIND: u32 = u32::from_le_bytes(*b"pfx1");

/// Words of the header: source, networks, ranges of either family, width of a number, values,
/// bytes of all values, and one to spare.
const HEADER_BYTES: usize = 8 * 8;
/// One place for each upper half of an IPv4 address, and the end.
const INDEX_PLACES: usize = (1 << 16) + 1;
/// Ranges that are a short piece of work.
const STEP: usize = 4096;
/// IPv6 addresses between two fences.
const FENCE: usize = 32;

/// A table that was checked. `B` is where its bytes are.
pub struct Prefixes<B = Snapshot> {
    bytes: B,
    layout: Layout,
}

/// Where the parts are.
struct Layout {
    source: u64,
    networks: u64,
    width: usize,
    v4: Family,
    v6: Family,
    offsets: Range<usize>,
    text: Range<usize>,
}

/// The ranges of IPv4 or IPv6.
struct Family {
    count: usize,
    /// The index or the fences.
    guide: Range<usize>,
    starts: Range<usize>,
    numbers: Range<usize>,
}

impl Prefixes<Snapshot> {
    /// Maps and checks what somebody built, calling `step` between short pieces of work.
    pub fn open(fd: OwnedFd, step: &mut dyn FnMut()) -> Result<Prefixes, OpenError> {
        Prefixes::check(Snapshot::open_in_steps(fd, KIND, step)?, step)
    }

    /// The descriptor to hand to others.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bytes.fd()
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// The number it was built under.
    pub fn generation(&self) -> u64 {
        self.bytes.generation()
    }
}

impl<B: Deref<Target = [u8]>> Prefixes<B> {
    /// Reads every byte once. Whatever is not as a builder would write it is refused.
    pub fn check(bytes: B, step: &mut dyn FnMut()) -> Result<Prefixes<B>, OpenError> {
        let layout = Layout::read(&bytes).ok_or(OpenError::Refused("its parts do not fit"))?;
        let table = Prefixes { bytes, layout };
        if table.has_sound_v4(step) && table.has_sound_v6(step) && table.has_sound_values(step) {
            Ok(table)
        } else {
            Err(OpenError::Refused("its ranges or values are out of order"))
        }
    }

    /// The value of the longest network that holds `ip`. IPv4 in IPv6 is IPv4.
    #[inline]
    pub fn find(&self, ip: IpAddr) -> Option<&[u8]> {
        let number = match ip.to_canonical() {
            IpAddr::V4(ip) => self.number(&self.layout.v4, self.place_v4(ip.to_bits())?)?,
            IpAddr::V6(ip) => self.number(&self.layout.v6, self.place_v6(ip.to_bits())?)?,
        };
        self.value(number.checked_sub(1)? as usize)
    }

    /// What the builder was told of the source.
    pub fn source(&self) -> u64 {
        self.layout.source
    }

    /// How many networks it was built from.
    pub fn networks(&self) -> u64 {
        self.layout.networks
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The range that begins last at or before the address.
    #[inline]
    fn place_v4(&self, address: u32) -> Option<usize> {
        let (index, starts) = (self.words(&self.layout.v4.guide), self.starts_v4());
        let upper = (address >> 16) as usize;
        let [begin, end] = [upper, upper + 1].map(|at| index.get(at).map(|w| le4(w) as usize));
        let (begin, end) = (begin?, end?);
        let among = starts.get(begin..end)?;
        (begin + among.partition_point(|start| le4(start) <= address)).checked_sub(1)
    }

    #[inline]
    fn place_v6(&self, address: u128) -> Option<usize> {
        let fences = self.bytes[self.layout.v6.guide.clone()].as_chunks::<16>().0;
        let before = |start: &[u8; 16]| u128::from_le_bytes(*start) <= address;
        let fence = fences.partition_point(before).checked_sub(1)?;
        let (starts, begin) = (self.starts_v6(), fence * FENCE);
        let among = starts.get(begin..starts.len().min(begin + FENCE))?;
        (begin + among.partition_point(before)).checked_sub(1)
    }

    /// Which value a range has: 0 for none.
    #[inline]
    fn number(&self, family: &Family, place: usize) -> Option<u32> {
        let numbers = &self.bytes[family.numbers.clone()];
        match self.layout.width {
            1 => numbers.get(place).copied().map(u32::from),
            2 => numbers.as_chunks::<2>().0.get(place).map(|w| u16::from_le_bytes(*w).into()),
            _ => numbers.as_chunks::<4>().0.get(place).map(le4),
        }
    }

    #[inline]
    fn value(&self, number: usize) -> Option<&[u8]> {
        let offsets = self.words(&self.layout.offsets);
        let (begin, end) = (le4(offsets.get(number)?), le4(offsets.get(number + 1)?));
        self.bytes[self.layout.text.clone()].get(begin as usize..end as usize)
    }

    #[inline]
    fn words(&self, part: &Range<usize>) -> &[[u8; 4]] {
        self.bytes[part.clone()].as_chunks::<4>().0
    }

    #[inline]
    fn starts_v4(&self) -> &[[u8; 4]] {
        self.words(&self.layout.v4.starts)
    }

    #[inline]
    fn starts_v6(&self) -> &[[u8; 16]] {
        self.bytes[self.layout.v6.starts.clone()].as_chunks::<16>().0
    }

    fn has_sound_v4(&self, step: &mut dyn FnMut()) -> bool {
        let (index, starts) = (self.words(&self.layout.v4.guide), self.starts_v4());
        let Some((last, places)) = index.split_last() else { return starts.is_empty() };
        let mut place = 0;
        for (upper, (begin, end)) in places.iter().zip(&index[1..]).enumerate() {
            if upper % (STEP / 16) == 0 {
                step();
            }
            let Some(among) = starts.get(place..le4(end) as usize) else { return false };
            if le4(begin) as usize != place || among.iter().any(|s| le4(s) >> 16 != upper as u32) {
                return false;
            }
            place = le4(end) as usize;
        }
        le4(last) as usize == starts.len()
            && is_sorted(starts, |a, b| le4(a) < le4(b), step)
            && self.has_sound_numbers(&self.layout.v4, step)
    }

    fn has_sound_v6(&self, step: &mut dyn FnMut()) -> bool {
        let fences = self.bytes[self.layout.v6.guide.clone()].as_chunks::<16>().0;
        let starts = self.starts_v6();
        let rises = |a: &[u8; 16], b: &[u8; 16]| u128::from_le_bytes(*a) < u128::from_le_bytes(*b);
        is_sorted(starts, rises, step)
            && starts.iter().step_by(FENCE).eq(fences)
            && self.has_sound_numbers(&self.layout.v6, step)
    }

    fn has_sound_numbers(&self, family: &Family, step: &mut dyn FnMut()) -> bool {
        let values = self.layout.offsets.len() / 4 - 1;
        let is_sound = |place| self.number(family, place).is_some_and(|n| n as usize <= values);
        (0..family.count).step_by(STEP).all(|begin| {
            step();
            (begin..family.count.min(begin + STEP)).all(is_sound)
        })
    }

    fn has_sound_values(&self, step: &mut dyn FnMut()) -> bool {
        let offsets = self.words(&self.layout.offsets);
        is_sorted(offsets, |a, b| le4(a) <= le4(b), step)
            && offsets.last().is_some_and(|end| le4(end) as usize == self.layout.text.len())
    }
}

fn is_sorted<T>(row: &[T], rises: impl Fn(&T, &T) -> bool, step: &mut dyn FnMut()) -> bool {
    (0..row.len()).step_by(STEP).all(|begin| {
        step();
        // The first of the next piece too.
        row[begin..row.len().min(begin + STEP + 1)].is_sorted_by(&rises)
    })
}

impl<B> std::fmt::Debug for Prefixes<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prefixes({} networks)", self.layout.networks)
    }
}

impl Layout {
    /// Where the header says that things are; `None` unless they fill the bytes exactly.
    fn read(bytes: &[u8]) -> Option<Layout> {
        let header = bytes.get(..HEADER_BYTES)?.as_chunks::<8>().0;
        let word = |at: usize| u64::from_le_bytes(header[at]);
        let count = |at: usize| usize::try_from(word(at)).ok();
        let (n4, n6, width) = (count(2)?, count(3)?, count(4)?);
        if !matches!(width, 1 | 2 | 4) {
            return None;
        }
        let mut end = HEADER_BYTES;
        let mut part = |items: usize, size: usize| {
            let begin = end;
            end = items.checked_mul(size)?.checked_add(begin)?;
            Some(begin..end)
        };
        let index = if n4 == 0 { 0 } else { INDEX_PLACES };
        let v4 = Family {
            count: n4,
            guide: part(index, 4)?,
            starts: part(n4, 4)?,
            numbers: part(n4, width)?,
        };
        let v6 = Family {
            count: n6,
            guide: part(n6.div_ceil(FENCE), 16)?,
            starts: part(n6, 16)?,
            numbers: part(n6, width)?,
        };
        let offsets = part(count(5)?.checked_add(1)?, 4)?;
        let text = part(count(6)?, 1)?;
        let (source, networks) = (word(0), word(1));
        (end == bytes.len()).then_some(Layout { source, networks, width, v4, v6, offsets, text })
    }
}

#[inline]
fn le4(word: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*word)
}

#[cfg(test)]
mod tests;
