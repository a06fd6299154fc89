//! Bytes that are shared and cut without copying.

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::rc::Rc;

use super::pool::{self, Block};

/// A range of a block, or of static bytes. Cloning counts one reference, not atomically.
pub struct Slice(Inner);

enum Inner {
    Static(&'static [u8]),
    Shared { block: Option<Rc<Block>>, start: u32, end: u32 },
}

impl Slice {
    /// No bytes.
    pub const EMPTY: Slice = Slice(Inner::Static(&[]));

    pub const fn from_static(bytes: &'static [u8]) -> Slice {
        Slice(Inner::Static(bytes))
    }

    /// Copies into a pooled block, or into one of its own size if it is larger than those.
    pub fn copy_from(bytes: &[u8]) -> Slice {
        let Some(size) = super::Size::for_bytes(bytes.len()) else {
            return Slice::from(bytes.to_vec());
        };
        let mut buf = super::Buf::new(size);
        buf.append(bytes);
        buf.freeze()
    }

    /// `range` of a block; the range lies within it.
    pub(super) fn of_block(block: Rc<Block>, start: usize, end: usize) -> Slice {
        debug_assert!(start <= end && end <= block.bytes.len());
        Slice(Inner::Shared { block: Some(block), start: start as u32, end: end as u32 })
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::Static(bytes) => bytes,
            Inner::Shared { block: Some(block), start, end } => {
                &block.bytes[*start as usize..*end as usize]
            }
            Inner::Shared { block: None, .. } => &[],
        }
    }

    /// A part of it, sharing the bytes. Panics if the range is not within it, as slices do.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Slice {
        let mut part = self.clone();
        let from = match range.start_bound() {
            std::ops::Bound::Included(&n) => n,
            std::ops::Bound::Excluded(&n) => n + 1,
            std::ops::Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            std::ops::Bound::Included(&n) => n + 1,
            std::ops::Bound::Excluded(&n) => n,
            std::ops::Bound::Unbounded => self.len(),
        };
        part.truncate(to);
        part.advance_by(from);
        part
    }

    /// Takes the first `n` bytes off and returns them.
    pub fn split_to(&mut self, n: usize) -> Slice {
        let mut first = self.clone();
        first.truncate(n);
        self.advance_by(n);
        first
    }

    /// Keeps the first `n` bytes.
    pub fn truncate(&mut self, n: usize) {
        assert!(n <= self.len(), "the range lies within the slice");
        match &mut self.0 {
            Inner::Static(bytes) => *bytes = &bytes[..n],
            Inner::Shared { start, end, .. } => *end = *start + n as u32,
        }
    }

    /// Drops the first `n` bytes.
    #[inline]
    pub fn advance_by(&mut self, n: usize) {
        assert!(n <= self.len(), "the range lies within the slice");
        match &mut self.0 {
            Inner::Static(bytes) => *bytes = &bytes[n..],
            Inner::Shared { start, .. } => *start += n as u32,
        }
    }
}

impl Clone for Slice {
    #[inline]
    fn clone(&self) -> Slice {
        Slice(match &self.0 {
            Inner::Static(bytes) => Inner::Static(bytes),
            Inner::Shared { block, start, end } => {
                Inner::Shared { block: block.clone(), start: *start, end: *end }
            }
        })
    }
}

impl Drop for Slice {
    #[inline]
    fn drop(&mut self) {
        if let Inner::Shared { block, .. } = &mut self.0
            && let Some(block) = block.take()
        {
            pool::release(block);
        }
    }
}

impl Default for Slice {
    fn default() -> Slice {
        Slice::EMPTY
    }
}

impl Deref for Slice {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Takes the vector over; above 4 GiB, which no buffer here reaches, it panics.
impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        let end = u32::try_from(bytes.len()).expect("a buffer is below 4 GiB");
        Slice(Inner::Shared { block: Some(pool::wrap(bytes)), start: 0, end })
    }
}

impl From<String> for Slice {
    fn from(text: String) -> Slice {
        Slice::from(text.into_bytes())
    }
}

impl From<&'static str> for Slice {
    fn from(text: &'static str) -> Slice {
        Slice::from_static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Slice {
    fn from(bytes: &'static [u8]) -> Slice {
        Slice::from_static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Slice {
    fn from(bytes: &'static [u8; N]) -> Slice {
        Slice::from_static(bytes)
    }
}

impl bytes::Buf for Slice {
    fn remaining(&self) -> usize {
        self.len()
    }
    fn chunk(&self) -> &[u8] {
        self.as_bytes()
    }
    fn advance(&mut self, n: usize) {
        self.advance_by(n);
    }
}

impl PartialEq<[u8]> for Slice {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Slice {}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_cut_without_copying() {
        let whole = Slice::from(b"hello world".to_vec());
        let at = whole.as_ptr();
        let mut rest = whole.clone();
        let first = rest.split_to(6);
        assert_eq!((&*first, &*rest), (&b"hello "[..], &b"world"[..]));
        assert_eq!(first.as_ptr(), at);
        assert_eq!(&*whole.slice(3..=4), b"lo");
        assert_eq!(&*whole.slice(6..), b"world");
        drop(whole);
        assert_eq!(&*rest, b"world");
        let mut fixed = Slice::from("abc");
        assert_eq!((&*fixed.split_to(1), &*fixed), (&b"a"[..], &b"bc"[..]));
        assert_eq!(Slice::EMPTY.len(), 0);
    }

    #[test]
    fn large_bytes_are_copied_too() {
        let large = vec![7; 100_000];
        assert_eq!(&*Slice::copy_from(&large), &large[..]);
        assert_eq!(&*Slice::copy_from(b"x"), b"x");
    }

    #[test]
    #[should_panic(expected = "within the slice")]
    fn cutting_beyond_the_end_is_our_mistake() {
        Slice::from("abc").split_to(4);
    }
}
