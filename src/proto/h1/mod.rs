//! HTTP/1: heads and bodies, for the server's and the client's side.
//!
//! Heads are read where they arrived: a [`RequestHead`] holds [`Span`]s into the buffer and
//! copies nothing. The calling order of a server:
//!
//! 1. append what arrived to the buffer, call [`RequestHead::read`] with the whole buffer;
//! 2. on [`Progress::Partial`] wait for more and call again: what was read is not read twice;
//! 3. on [`Progress::Host`] (only if asked for) choose the server, call again with its rules;
//! 4. on [`Progress::Complete`] the body follows at `len`; [`RequestHead::clear`] when done.

mod field;
mod request;
mod request_line;

pub use field::Field;
pub use request::{Authority, Framing, HeadError, HeadRules, KeepAlive, Progress, RequestHead};
pub use request_line::{Method, RequestLine, Version};

/// A range of the buffer that holds a head; offsets in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes this span names in `buffer`, the buffer that was read.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
    #[inline]
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A decimal number as nginx reads lengths: digits only, at most `i64::MAX`.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })?;
    (value <= i64::MAX as u64).then_some(value)
}
