//! HTTP/1: heads and bodies, for the server's and the client's side.
//!
//! Heads are read where they arrived: a [`RequestHead`] holds [`Span`]s into the buffer and
//! copies nothing. The calling order of a server:
//!
//! 1. append what arrived to the buffer, call [`RequestHead::read`] with the whole buffer;
//! 2. on [`Progress::Partial`] wait for more and call again: what was read is not read twice;
//! 3. on [`Progress::Host`] (only if asked for) choose the server, call again with its rules;
//! 4. on [`Progress::Complete`] the body follows at `len`: a [`Body`] takes it out of its framing;
//! 5. [`RequestHead::clear`] when the request is done.
//!
//! A client reads a [`ReplyHead`] in the same way, and a [`Body`] of [`ReplyHead::framing`].

use std::borrow::Cow;

mod body;
mod cursor;
mod field;
mod request;
mod request_line;
mod response;
#[cfg(test)]
mod properties;

pub use body::{
    Body, BodyError, CHUNK_END, ChunkHead, Framing, LAST_CHUNK, Piece, push_last_chunk,
};
pub use field::Field;
pub use request::{Authority, HeadError, HeadRules, IGNORED_SHOWN, KeepAlive, RequestHead};
pub use request_line::{Method, RequestLine, Version};
pub use response::{ReplyError, ReplyHead};

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// [`RequestHead::authority`] is known now; call again with the rules of its server.
    Host,
    /// The head takes the first `len` bytes of the buffer; the body follows.
    Complete { len: usize },
}

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
    /// The bytes as text for the log, cut where nginx cuts header lines.
    fn shown(self, buffer: &[u8]) -> Cow<'_, str> {
        let bytes = self.of(buffer);
        String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX)])
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

/// The longest part of a header line that is logged, in bytes.
const SHOWN_MAX: usize = 2048 - 300;

/// Whether `word` (lower case, without `-` in front) stands anywhere in `value`.
fn contains_word(value: &[u8], word: &[u8]) -> bool {
    let Some(last) = value.len().checked_sub(word.len()) else { return false };
    (0..=last).any(|at| {
        value[at] | 0x20 == word[0] && value[at..at + word.len()].eq_ignore_ascii_case(word)
    })
}

/// A decimal number as nginx reads lengths: digits only, at most `i64::MAX`.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })?;
    (value <= i64::MAX as u64).then_some(value)
}
