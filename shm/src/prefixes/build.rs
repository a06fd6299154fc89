//! Building a table: collect the networks, cut them into ranges, write.
//!
//! Memory while it lasts: 12 bytes per IPv4 and 32 per IPv6 network, up to 16 and 64 more for their
//! ranges, and the finished table. It is work for a thread that gives way to others, so it is done
//! in short steps, between which the thread may rest.

use super::{FENCE, HEADER_BYTES, INDEX_PLACES, KIND, Prefixes, STEP};
use crate::region::OpenError;
use crate::snapshot::SnapshotBuilder;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};
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

    /// Writes and seals the table, calling `step` between short pieces of work. `source` is
    /// whatever the caller wants to recognise it by.
    pub fn finish(
        self,
        name: &str,
        source: u64,
        generation: u64,
        step: &mut dyn FnMut(),
    ) -> Result<Prefixes, OpenError> {
        let networks = self.len();
        let Builder { v4, v6, values } = self;
        let width = values.width();
        let (v4, v6) = (cut(v4, step), cut(v6, step));
        let text = values.text.len();
        let counts = [networks, v4.len(), v6.len(), width, values.count(), text, 0];
        let mut out = SnapshotBuilder::new(name, KIND)?;
        out.write_all(&source.to_le_bytes())?;
        for count in counts {
            out.write_all(&(count as u64).to_le_bytes())?;
        }
        debug_assert_eq!(HEADER_BYTES, 8 * (counts.len() + 1));
        write_index(&v4, step, &mut out)?;
        write_row(&v4, |border| border.start.to_le_bytes(), 4, step, &mut out)?;
        write_row(&v4, |border| border.number.to_le_bytes(), width, step, &mut out)?;
        let mut fences = v6.iter().step_by(FENCE);
        fences.try_for_each(|border| out.write_all(&border.start.to_le_bytes()))?;
        write_row(&v6, |border| border.start.to_le_bytes(), 16, step, &mut out)?;
        write_row(&v6, |border| border.number.to_le_bytes(), width, step, &mut out)?;
        drop((v4, v6));
        write_row(&values.offsets, |end| end.to_le_bytes(), 4, step, &mut out)?;
        for piece in values.text.chunks(STEP) {
            step();
            out.write_all(piece)?;
        }
        Prefixes::check(out.finish_in_steps(generation, step)?, step)
    }
}

fn write_index(
    borders: &[Border<u32>],
    step: &mut dyn FnMut(),
    out: &mut impl Write,
) -> io::Result<()> {
    let mut place = 0;
    for upper in 0..INDEX_PLACES as u64 {
        if upper % (STEP as u64 / 16) == 0 {
            step();
        }
        while borders.get(place).is_some_and(|border| u64::from(border.start >> 16) < upper) {
            place += 1;
        }
        if !borders.is_empty() {
            out.write_all(&(place as u32).to_le_bytes())?;
        }
    }
    Ok(())
}

/// Of each item the first `width` bytes.
fn write_row<T, const N: usize>(
    row: &[T],
    bytes: impl Fn(&T) -> [u8; N],
    width: usize,
    step: &mut dyn FnMut(),
    out: &mut impl Write,
) -> io::Result<()> {
    for piece in row.chunks(STEP) {
        step();
        piece.iter().try_for_each(|item| out.write_all(&bytes(item)[..width]))?;
    }
    Ok(())
}

/// Cuts networks that lie in one another into ranges that do not.
fn cut<A: Address>(mut nets: Vec<Net<A>>, step: &mut dyn FnMut()) -> Vec<Border<A>> {
    for run in nets.chunks_mut(STEP) {
        step();
        // Stable, so that the last of equal ones stays the last.
        run.sort_by_key(Net::key);
    }
    // As many as there can be; what is not written to takes no memory.
    let mut borders = Vec::with_capacity(2 * nets.len());
    // Networks that hold the present place, the innermost last.
    let mut around: Vec<(A, u32)> = Vec::new();
    let mut merge = Merge::new(&nets);
    let mut count = 0;
    while let Some(net) = merge.next() {
        count += 1;
        if count % STEP == 0 {
            step();
        }
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

/// Sorted runs of `STEP` networks as one sorted row.
struct Merge<'a, A> {
    nets: &'a [Net<A>],
    heads: BinaryHeap<Reverse<Head<A>>>,
}

/// The next network of a run: its key, the number of the run, its place.
type Head<A> = ((A, u8), usize, usize);

impl<'a, A: Address> Merge<'a, A> {
    fn new(nets: &'a [Net<A>]) -> Merge<'a, A> {
        let heads = (0..nets.len()).step_by(STEP).enumerate();
        let heads = heads.map(|(run, place)| Reverse((nets[place].key(), run, place))).collect();
        Merge { nets, heads }
    }

    fn next(&mut self) -> Option<&'a Net<A>> {
        let mut head = self.heads.peek_mut()?;
        let Reverse((_, run, place)) = *head;
        let next = place + 1;
        if next % STEP == 0 || next == self.nets.len() {
            PeekMut::pop(head);
        } else {
            *head = Reverse((self.nets[next].key(), run, next));
        }
        Some(&self.nets[place])
    }
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

    /// Outer ones first.
    fn key(&self) -> (A, u8) {
        (self.start, self.length)
    }

    fn last(&self) -> A {
        self.start.bounds(self.length).1
    }
}

/// The different values, numbered from 1.
#[derive(Debug)]
struct Values {
    text: Vec<u8>,
    /// Where each begins in `text`, and the end.
    offsets: Vec<u32>,
    numbers: HashMap<Box<[u8]>, u32>,
    /// The value of the last network: feeds repeat themselves.
    last: (Box<[u8]>, u32),
}

impl Default for Values {
    fn default() -> Values {
        let (text, numbers, last) = Default::default();
        Values { text, offsets: vec![0], numbers, last }
    }
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
        self.offsets.push(self.text.len() as u32);
        let number = self.count() as u32;
        self.numbers.insert(value.into(), number);
        Ok(number)
    }

    /// Bytes that a number takes.
    fn width(&self) -> usize {
        match self.count() {
            ..0x100 => 1,
            0x100..0x1_0000 => 2,
            _ => 4,
        }
    }

    fn count(&self) -> usize {
        self.offsets.len() - 1
    }
}
