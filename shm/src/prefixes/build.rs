//! Building a table: collect the networks, cut them into ranges, write.
//!
//! Memory while it lasts: 12 bytes per IPv4 and 32 per IPv6 network, twice that while sorting, and
//! the finished table.

use super::{FENCE, HEADER_BYTES, INDEX_PLACES, KIND, Prefixes};
use crate::region::OpenError;
use crate::snapshot::SnapshotBuilder;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;

/// Networks of one table.
pub const ENTRIES_MAX: usize = 8 << 20;
/// The longest value.
pub const VALUE_MAX_BYTES: usize = 255;
/// All different values together.
const TEXT_MAX_BYTES: usize = 64 << 20;

/// A table being collected.
#[derive(Debug, Default)]
pub struct Builder {
    v4: Vec<Net<u32>>,
    v6: Vec<Net<u128>>,
    values: Values,
}

/// Why a network was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("more than {ENTRIES_MAX} networks")]
    Networks,
    #[error("too many different values")]
    Values,
}

#[derive(Clone, Copy, Debug)]
struct Net<A> {
    start: A,
    length: u8,
    number: u32,
}

/// At `start` the value of `number` begins; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Border<A> {
    start: A,
    number: u32,
}

impl Builder {
    /// Adds a network; bits behind its length do not count. A later one of the same name wins.
    pub fn add(&mut self, ip: IpAddr, length: u8, value: &[u8]) -> Result<(), Full> {
        if self.len() == ENTRIES_MAX {
            return Err(Full::Networks);
        }
        let number = self.values.number(value)?;
        match ip {
            IpAddr::V4(ip) => self.v4.push(Net::new(ip.to_bits(), length, number)),
            IpAddr::V6(ip) => self.v6.push(Net::new(ip.to_bits(), length, number)),
        }
        Ok(())
    }

    /// How many networks were added.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes and seals the table. `source` is whatever the caller wants to recognise it by.
    pub fn finish(self, name: &str, source: u64, generation: u64) -> Result<Prefixes, OpenError> {
        let networks = self.len();
        let Builder { v4, v6, values } = self;
        let width = values.width();
        let (v4, v6) = (cut(v4), cut(v6));
        let text = values.text.len();
        let counts = [networks, v4.len(), v6.len(), width, values.ends.len(), text, 0];
        let mut out = SnapshotBuilder::new(name, KIND)?;
        out.write_all(&source.to_le_bytes())?;
        for count in counts {
            out.write_all(&(count as u64).to_le_bytes())?;
        }
        debug_assert_eq!(HEADER_BYTES, 8 * (counts.len() + 1));
        write_index(&v4, &mut out)?;
        v4.iter().try_for_each(|border| out.write_all(&border.start.to_le_bytes()))?;
        write_numbers(&v4, width, &mut out)?;
        let mut fences = v6.iter().step_by(FENCE);
        fences.try_for_each(|border| out.write_all(&border.start.to_le_bytes()))?;
        v6.iter().try_for_each(|border| out.write_all(&border.start.to_le_bytes()))?;
        write_numbers(&v6, width, &mut out)?;
        drop((v4, v6));
        values.write(&mut out)?;
        Prefixes::check(out.finish(generation)?)
    }
}

fn write_index(borders: &[Border<u32>], out: &mut impl Write) -> io::Result<()> {
    let mut place = 0;
    for upper in 0..INDEX_PLACES as u64 {
        while borders.get(place).is_some_and(|border| u64::from(border.start >> 16) < upper) {
            place += 1;
        }
        if !borders.is_empty() {
            out.write_all(&(place as u32).to_le_bytes())?;
        }
    }
    Ok(())
}

fn write_numbers<A>(borders: &[Border<A>], width: usize, out: &mut impl Write) -> io::Result<()> {
    borders.iter().try_for_each(|border| out.write_all(&border.number.to_le_bytes()[..width]))
}

/// Cuts networks that lie in one another into ranges that do not.
fn cut<A: Address>(mut nets: Vec<Net<A>>) -> Vec<Border<A>> {
    // Outer ones first; a stable order, so that the last of equal ones stays the last.
    nets.sort_by_key(|net| (net.start, net.length));
    let mut borders = Vec::new();
    // Networks that hold the present place, the innermost last.
    let mut around: Vec<(A, u32)> = Vec::new();
    for net in &nets {
        while let Some((last, _)) = around.last().filter(|(last, _)| *last < net.start) {
            let end = *last;
            around.pop();
            leave(end, &around, &mut borders);
        }
        begin(net.start, net.number, &mut borders);
        around.push((net.last(), net.number));
    }
    while let Some((end, _)) = around.pop() {
        leave(end, &around, &mut borders);
    }
    borders
}

/// Behind `end` the value of the network around it goes on.
fn leave<A: Address>(end: A, around: &[(A, u32)], borders: &mut Vec<Border<A>>) {
    if let Some(start) = end.next() {
        begin(start, around.last().map_or(0, |(_, number)| *number), borders);
    }
}

fn begin<A: Address>(start: A, number: u32, borders: &mut Vec<Border<A>>) {
    borders.pop_if(|last| last.start == start);
    if borders.last().map_or(0, |last| last.number) != number {
        borders.push(Border { start, number });
    }
}

trait Address: Copy + Ord {
    const BITS: u8;
    /// The first and the last address of the network that holds this one.
    fn bounds(self, length: u8) -> (Self, Self);
    /// `None` behind the very last one.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    const BITS: u8 = 32;

    fn bounds(self, length: u8) -> (u32, u32) {
        let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        (self & !behind, self | behind)
    }

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    const BITS: u8 = 128;

    fn bounds(self, length: u8) -> (u128, u128) {
        let behind = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        (self & !behind, self | behind)
    }

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

impl<A: Address> Net<A> {
    fn new(address: A, length: u8, number: u32) -> Net<A> {
        Net { start: address.bounds(length).0, length: length.min(A::BITS), number }
    }

    fn last(&self) -> A {
        self.start.bounds(self.length).1
    }
}

/// The different values, numbered from 1.
#[derive(Debug, Default)]
struct Values {
    text: Vec<u8>,
    /// Where each ends in `text`.
    ends: Vec<u32>,
    numbers: HashMap<Box<[u8]>, u32>,
    /// The value of the last network: feeds repeat themselves.
    last: (Box<[u8]>, u32),
}

impl Values {
    fn number(&mut self, value: &[u8]) -> Result<u32, Full> {
        if self.last.1 != 0 && *self.last.0 == *value {
            return Ok(self.last.1);
        }
        let number = match self.numbers.get(value) {
            Some(known) => *known,
            None => self.add(value)?,
        };
        self.last = (value.into(), number);
        Ok(number)
    }

    fn add(&mut self, value: &[u8]) -> Result<u32, Full> {
        if self.text.len() + value.len() > TEXT_MAX_BYTES {
            return Err(Full::Values);
        }
        self.text.extend_from_slice(value);
        self.ends.push(self.text.len() as u32);
        let number = self.ends.len() as u32;
        self.numbers.insert(value.into(), number);
        Ok(number)
    }

    /// Bytes that a number takes.
    fn width(&self) -> usize {
        match self.ends.len() {
            ..0x100 => 1,
            0x100..0x1_0000 => 2,
            _ => 4,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&0u32.to_le_bytes())?;
        self.ends.iter().try_for_each(|end| out.write_all(&end.to_le_bytes()))?;
        out.write_all(&self.text)
    }
}
