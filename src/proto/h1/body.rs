//! Bodies of HTTP/1 messages: where they end, taken out of and put into their framing.

use std::ops::Range;

use super::field::{self, Field, Line};
use crate::proto::uri::hex;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    None,
    /// Content-Length; may be 0.
    Length(u64),
    Chunked,
    /// It ends with the connection; replies only.
    UntilClose,
}

/// What the next bytes of a message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This range of the input is body; never empty.
    Data(Range<usize>),
    /// The input is used up and the body goes on.
    More,
    /// The body is over; the input behind the cursor belongs to the next message.
    End,
}

/// Why a body is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("invalid chunk")]
    InvalidChunk,
    #[error("chunk size too large")]
    SizeOverflow,
    #[error("too many chunk extensions")]
    TooLongExtensions,
    #[error("trailer too large")]
    TrailerTooLarge,
    #[error("invalid trailer")]
    InvalidTrailer,
    #[error("closed before the end of the body")]
    Truncated,
}

/// Takes a body out of its framing, without copying it.
///
/// Call [`Body::next`] with the input and a cursor into it until it says [`Piece::More`] (then
/// drop the input and bring new) or [`Piece::End`]; call [`Body::closed`] if the peer closes.
#[derive(Debug)]
pub struct Body {
    state: State,
}

#[derive(Debug)]
enum State {
    Ended(Option<Box<Chunked>>),
    Length { left: u64 },
    Chunked(Box<Chunked>),
    UntilClose,
}

impl Body {
    /// A body that will arrive in this framing; `trailer_max` bounds its trailer, in bytes.
    pub fn new(framing: Framing, trailer_max: usize) -> Body {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended(None),
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Chunked(Box::new(Chunked::new(trailer_max))),
            Framing::UntilClose => State::UntilClose,
        };
        Body { state }
    }

    /// The next piece of `input` at `*at`, which moves behind it.
    #[inline]
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Piece, BodyError> {
        let have = input.len() - *at;
        match &mut self.state {
            State::Ended(_) => Ok(Piece::End),
            _ if have == 0 => Ok(Piece::More),
            State::UntilClose => Ok(take(at, have)),
            State::Length { left } => {
                let piece = take(at, have.min(usize::try_from(*left).unwrap_or(usize::MAX)));
                *left -= taken(&piece);
                if *left == 0 {
                    self.state = State::Ended(None);
                }
                Ok(piece)
            }
            State::Chunked(chunked) => {
                let piece = chunked.next(input, at)?;
                if piece == Piece::End {
                    let State::Chunked(chunked) =
                        std::mem::replace(&mut self.state, State::Ended(None))
                    else {
                        unreachable!("matched above")
                    };
                    self.state = State::Ended(Some(chunked));
                }
                Ok(piece)
            }
        }
    }

    /// The peer closed its side: an end for a body without framing, else a broken body.
    pub fn closed(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Ended(_) => Ok(()),
            State::UntilClose => {
                self.state = State::Ended(None);
                Ok(())
            }
            State::Length { .. } | State::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// How many bytes are still to come, if that was said beforehand.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Ended(_) => Some(0),
            State::Length { left } => Some(left),
            State::Chunked(_) | State::UntilClose => None,
        }
    }

    /// The fewest bytes that the peer must still send: how much may be read without taking
    /// bytes of a next message. 0 when the body has ended; nothing is known until close.
    pub fn owed(&self) -> Option<u64> {
        match &self.state {
            State::Ended(_) => Some(0),
            State::Length { left } => Some(*left),
            State::Chunked(chunked) => Some(chunked.owed()),
            State::UntilClose => None,
        }
    }

    /// The fields behind a chunked body that has ended, and the bytes their spans name.
    pub fn trailer(&self) -> Option<(&[Field], &[u8])> {
        match &self.state {
            State::Ended(Some(chunked)) if !chunked.fields.is_empty() => {
                Some((&chunked.fields, &chunked.trailer))
            }
            _ => None,
        }
    }
}

fn take(at: &mut usize, len: usize) -> Piece {
    let start = *at;
    *at += len;
    Piece::Data(start..*at)
}

fn taken(piece: &Piece) -> u64 {
    match piece {
        Piece::Data(range) => range.len() as u64,
        _ => 0,
    }
}

/// The largest chunk, as nginx bounds it: what is owed with it must fit an `i64`.
const CHUNK_MAX: u64 = i64::MAX as u64 - 9;
/// Digits of a chunk size; more could only be zeros.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of chunk extensions a message may have beyond the number of its data bytes.
const EXTENSIONS_MAX: u64 = 16 * 1024;
/// Fields a trailer may have.
const TRAILER_FIELDS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
}

/// A chunked body in the middle of being read.
#[derive(Debug)]
struct Chunked {
    at: At,
    digits: u8,
    /// Of the chunk being read: its size, then what is left of its data.
    size: u64,
    extension_bytes: u64,
    data_bytes: u64,
    /// The lines behind the last chunk.
    trailer: Vec<u8>,
    trailer_max: usize,
    /// Where in `trailer` the line being read starts.
    line_start: usize,
    fields: Vec<Field>,
}

impl Chunked {
    fn new(trailer_max: usize) -> Chunked {
        Chunked {
            at: At::Size,
            digits: 0,
            size: 0,
            extension_bytes: 0,
            data_bytes: 0,
            trailer: Vec::new(),
            trailer_max,
            line_start: 0,
            fields: Vec::new(),
        }
    }

    fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Piece, BodyError> {
        while let Some(&b) = input.get(*at) {
            if self.at == At::Data {
                return Ok(self.data(input.len(), at));
            }
            *at += 1;
            match (self.at, b) {
                (At::Size, b) => self.size_byte(b)?,
                (At::Extension, b'\r') => self.at = At::SizeLf,
                (At::Extension, b'\n') => return Err(BodyError::InvalidChunk),
                (At::Extension, _) => self.count_extension()?,
                (At::SizeLf, b'\n') => {
                    self.at = if self.size == 0 { At::Trailer } else { At::Data };
                    self.digits = 0;
                }
                (At::DataCr, b'\r') => self.at = At::DataLf,
                (At::DataLf, b'\n') => self.at = At::Size,
                (At::Trailer, b) => self.trailer_byte(b)?,
                (At::TrailerLf, b'\n') => {
                    self.trailer.push(b);
                    if self.line_start + 2 == self.trailer.len() {
                        return Ok(Piece::End);
                    }
                    self.trailer_line()?;
                }
                _ => return Err(BodyError::InvalidChunk),
            }
        }
        Ok(Piece::More)
    }

    fn data(&mut self, end: usize, at: &mut usize) -> Piece {
        let have = end - *at;
        let len = have.min(usize::try_from(self.size).unwrap_or(usize::MAX));
        self.size -= len as u64;
        self.data_bytes = self.data_bytes.saturating_add(len as u64);
        if self.size == 0 {
            self.at = At::DataCr;
        }
        take(at, len)
    }

    fn size_byte(&mut self, b: u8) -> Result<(), BodyError> {
        if let Some(digit) = hex(b) {
            self.digits += 1;
            self.size = self.size << 4 | u64::from(digit);
            if self.digits > SIZE_DIGITS_MAX || self.size > CHUNK_MAX {
                return Err(BodyError::SizeOverflow);
            }
            return Ok(());
        }
        match b {
            _ if self.digits == 0 => return Err(BodyError::InvalidChunk),
            b'\r' => self.at = At::SizeLf,
            b';' | b' ' | b'\t' => {
                self.count_extension()?;
                self.at = At::Extension;
            }
            _ => return Err(BodyError::InvalidChunk),
        }
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > self.data_bytes.saturating_add(EXTENSIONS_MAX) {
            return Err(BodyError::TooLongExtensions);
        }
        Ok(())
    }

    fn trailer_byte(&mut self, b: u8) -> Result<(), BodyError> {
        if self.trailer.len() + 2 > self.trailer_max.max(2) {
            return Err(BodyError::TrailerTooLarge);
        }
        match b {
            b'\n' => return Err(BodyError::InvalidChunk),
            b'\r' => self.at = At::TrailerLf,
            _ => (),
        }
        self.trailer.push(b);
        Ok(())
    }

    /// A line of the trailer is complete.
    fn trailer_line(&mut self) -> Result<(), BodyError> {
        let start = self.line_start;
        match field::read_line(&self.trailer, start, true) {
            Ok(Line::Field { field, next }) if next == self.trailer.len() => {
                if self.fields.len() == TRAILER_FIELDS_MAX {
                    return Err(BodyError::TrailerTooLarge);
                }
                self.fields.push(field);
            }
            _ => return Err(BodyError::InvalidTrailer),
        }
        self.line_start = self.trailer.len();
        self.at = At::Trailer;
        Ok(())
    }

    fn owed(&self) -> u64 {
        const LAST: u64 = 5; // "0" CR LF CR LF
        let rest = if self.size == 0 { 2 } else { self.size + 2 + LAST };
        match self.at {
            At::Size if self.digits == 0 => LAST,
            At::Size | At::Extension => 2 + rest,
            At::SizeLf => 1 + rest,
            At::Data => rest,
            At::DataCr => 2 + LAST,
            At::DataLf => 1 + LAST,
            At::Trailer if self.trailer.len() == self.line_start => 2,
            At::Trailer => 4,
            At::TrailerLf if self.trailer.len() == self.line_start + 1 => 1,
            At::TrailerLf => 3,
        }
    }
}

/// The line before a chunk's data, as nginx writes it: size in hexadecimal, CR LF.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHead {
    /// The head of a chunk of `len` bytes; a chunk of 0 bytes would end the body.
    pub fn new(mut len: u64) -> ChunkHead {
        debug_assert!(len > 0, "an empty chunk ends the body");
        let mut bytes = [0; 18];
        bytes[16..].copy_from_slice(CHUNK_END);
        let mut start = 16;
        loop {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[(len & 15) as usize];
            len >>= 4;
            if len == 0 {
                return ChunkHead { bytes, start: start as u8 };
            }
        }
    }
}

impl std::ops::Deref for ChunkHead {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// What follows a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The end of a body without trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the end of a body with a trailer of these fields.
pub fn push_last_chunk<'a>(
    trailer: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailer {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}
