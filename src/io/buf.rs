//! A block being filled.
//!
//! Bytes are appended at the end and taken from the front. Room can be left before the first byte,
//! so that a head may be written just before a body that was read already: one `send` for both.

use std::fmt;
use std::rc::Rc;

pub use super::pool::Size;
use super::pool::{self, Block};
use super::slice::Slice;

/// A pooled block with one user.
pub struct Buf {
    /// `None` only while it is dropped.
    block: Option<Rc<Block>>,
    start: usize,
    end: usize,
}

impl Buf {
    /// An empty one.
    pub fn new(size: Size) -> Buf {
        Buf { block: Some(pool::take(size)), start: 0, end: 0 }
    }

    /// An empty one whose bytes will begin at `offset`, for `prepend`.
    pub fn with_room(size: Size, offset: usize) -> Buf {
        let offset = offset.min(size.bytes());
        Buf { block: Some(pool::take(size)), start: offset, end: offset }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("present until dropped")
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        let block = self.block.as_mut().expect("present until dropped");
        &mut Rc::get_mut(block).expect("a Buf is its block's only user").bytes
    }

    /// The bytes in it.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.block().bytes[self.start..self.end]
    }
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        &mut self.bytes_mut()[start..end]
    }
    pub fn len(&self) -> usize {
        self.end - self.start
    }
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Bytes before the first one.
    pub fn room_before(&self) -> usize {
        self.start
    }
    /// Bytes that fit behind the last one.
    pub fn room(&self) -> usize {
        self.block().bytes.len() - self.end
    }
    /// All bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.block().bytes.len()
    }

    /// The room behind the last byte. What is written there counts after `fill`.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        let end = self.end;
        &mut self.bytes_mut()[end..]
    }
    /// `n` bytes of the spare room were written.
    #[inline]
    pub fn fill(&mut self, n: usize) {
        assert!(n <= self.room(), "no more is filled than there was room");
        self.end += n;
    }

    /// Appends what fits and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let fits = bytes.len().min(self.room());
        self.spare()[..fits].copy_from_slice(&bytes[..fits]);
        self.end += fits;
        fits
    }
    /// Writes `bytes` just before the first byte. False if there is no room.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        let end = self.start;
        self.bytes_mut()[start..end].copy_from_slice(bytes);
        self.start = start;
        true
    }
    /// Takes the first `n` bytes off.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "no more is consumed than there is");
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
    /// Moves the bytes to the front, so that all room is behind them.
    pub fn compact(&mut self) {
        let (start, end) = (self.start, self.end);
        if start > 0 {
            self.bytes_mut().copy_within(start..end, 0);
            (self.start, self.end) = (0, end - start);
        }
    }
    /// Drops all bytes; the next ones begin at `offset`.
    pub fn reset(&mut self, offset: usize) {
        let offset = offset.min(self.capacity());
        (self.start, self.end) = (offset, offset);
    }

    /// The bytes, not to be changed any more; no copy.
    pub fn freeze(mut self) -> Slice {
        let block = self.block.take().expect("present until dropped");
        Slice::of_block(block, self.start, self.end)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.block.take().into_iter().for_each(pool::release);
    }
}

/// `write!` into it: an error when it is full.
impl std::io::Write for Buf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(self.append(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_before_a_body() {
        let mut buf = Buf::with_room(Size::Small, 100);
        buf.spare()[..4].copy_from_slice(b"body");
        buf.fill(4);
        assert!(buf.prepend(b"head "));
        assert!(!buf.prepend(&[0; 200]));
        assert_eq!(&*buf.freeze(), b"head body");
    }

    #[test]
    fn bytes_go_in_behind_and_out_in_front() {
        let mut buf = Buf::new(Size::Small);
        assert_eq!(buf.append(&[1; 4090]), 4090);
        assert_eq!(buf.append(b"abcdefgh"), 6);
        assert_eq!(buf.room(), 0);
        buf.consume(4090);
        buf.compact();
        assert_eq!((buf.filled(), buf.room()), (&b"abcdef"[..], 4090));
        buf.consume(6);
        assert!(buf.is_empty() && buf.room() == 4096);
    }
}
