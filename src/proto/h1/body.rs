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
        let field = match field::read_line(&self.trailer, start, true) {
            Line::Field(field, next) if next == self.trailer.len() => field,
            _ => return Err(BodyError::InvalidTrailer),
        };
        if self.fields.len() == TRAILER_FIELDS_MAX {
            return Err(BodyError::TrailerTooLarge);
        }
        self.fields.push(field);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a body out of `text`, which arrives in pieces of `step` bytes.
    fn taken_in(framing: Framing, text: &[u8], step: usize) -> String {
        let mut body = Body::new(framing, 64);
        let mut data = Vec::new();
        let mut read = 0;
        for input in text.chunks(step) {
            let mut at = 0;
            loop {
                let owed = body.owed();
                match body.next(input, &mut at) {
                    Ok(Piece::Data(range)) => data.extend(&input[range]),
                    Ok(Piece::More) => break,
                    Ok(Piece::End) => {
                        let data = String::from_utf8_lossy(&data);
                        let rest = String::from_utf8_lossy(&text[read + at..]).into_owned();
                        return format!("{data}{}|{rest}", trailer(&body));
                    }
                    Err(error) => return error.to_string(),
                }
                assert!(owed != Some(0), "a body that goes on owes something");
            }
            read += input.len();
        }
        match body.closed() {
            Ok(()) => format!("{}|", String::from_utf8_lossy(&data)),
            Err(error) => error.to_string(),
        }
    }

    fn trailer(body: &Body) -> String {
        let Some((fields, bytes)) = body.trailer() else { return String::new() };
        let text = |s: super::super::Span| String::from_utf8_lossy(s.of(bytes)).into_owned();
        fields.iter().map(|f| format!("[{}={}]", text(f.name), text(f.value))).collect()
    }

    fn check(framing: Framing, cases: &[(&str, &str)]) {
        for (text, want) in cases {
            for step in 1..=text.len().max(1) {
                let got = taken_in(framing, text.as_bytes(), step);
                assert_eq!(got, *want, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn lengths() {
        check(Framing::None, &[("GET", "|GET")]);
        check(Framing::Length(0), &[("GET", "|GET")]);
        check(Framing::Length(3), &[("abcGET", "abc|GET"), ("abc", "abc|")]);
        check(Framing::Length(3), &[("ab", "closed before the end of the body")]);
        check(Framing::UntilClose, &[("abc", "abc|"), ("", "|")]);
    }

    #[test]
    fn chunks() {
        check(
            Framing::Chunked,
            &[
                ("0\r\n\r\n", "|"),
                ("3\r\nabc\r\n0\r\n\r\nGET", "abc|GET"),
                ("00a\r\n0123456789\r\n1\r\nx\r\n00\r\n\r\n", "0123456789x|"),
                ("3;a=b\r\nabc\r\n0 ;x\r\n\r\n", "abc|"),
                ("A\t\r\n0123456789\r\n0\r\n\r\n", "0123456789|"),
                ("0\r\nX: y\r\nZ:\r\n\r\nGET", "[X=y][Z=]|GET"),
                ("3\r\nabc", "closed before the end of the body"),
                ("3\r\nabc\r\n", "closed before the end of the body"),
                ("3\r\nabcd\r\n", "invalid chunk"),
                ("3\r\nabc\n0\r\n\r\n", "invalid chunk"),
                ("3\nabc\r\n", "invalid chunk"),
                ("3;\nabc\r\n", "invalid chunk"),
                ("3\rabc\r\n", "invalid chunk"),
                ("3;\rabc\r\n", "invalid chunk"),
                ("\r\n", "invalid chunk"),
                ("x\r\n", "invalid chunk"),
                ("-1\r\n", "invalid chunk"),
                ("0x3\r\nabc\r\n", "invalid chunk"),
                (" 3\r\nabc\r\n", "invalid chunk"),
                ("7ffffffffffffff6\r\n", "closed before the end of the body"),
                ("7ffffffffffffff7\r\n", "chunk size too large"),
                ("ffffffffffffffff\r\n", "chunk size too large"),
                ("10000000000000000\r\n", "chunk size too large"),
                ("00000000000000003\r\nabc\r\n", "chunk size too large"),
                ("0\r\n\n", "invalid chunk"),
                ("0\r\nX: y\n\r\n", "invalid chunk"),
                ("0\r\nX: y\rZ: 1\r\n\r\n", "invalid chunk"),
                ("0\r\nX : y\r\n\r\n", "invalid trailer"),
                ("0\r\n folded\r\n\r\n", "invalid trailer"),
                ("0\r\nX: \0\r\n\r\n", "invalid trailer"),
            ],
        );
        let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(60));
        check(Framing::Chunked, &[(&long, "trailer too large")]);
    }

    #[test]
    fn extensions_are_bounded_by_the_data() {
        let text = format!("1;{}\r\nx\r\n", "e".repeat(17000));
        let got = taken_in(Framing::Chunked, text.as_bytes(), 1000);
        assert_eq!(got, "too many chunk extensions");
        let chunk = format!("100;{}\r\n{}\r\n", "e".repeat(200), "x".repeat(256));
        let text = chunk.repeat(1000) + "0\r\n\r\n";
        assert!(taken_in(Framing::Chunked, text.as_bytes(), 1000).ends_with("xxx|"));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for len in [1u64, 15, 16, 255, 4096, u64::MAX] {
            let head = ChunkHead::new(len);
            assert_eq!(&*head, format!("{len:x}\r\n").as_bytes());
        }
        let mut text = ChunkHead::new(3).to_vec();
        text.extend(b"abc");
        text.extend(CHUNK_END);
        push_last_chunk([(&b"X"[..], &b"y"[..])], &mut text);
        assert_eq!(taken_in(Framing::Chunked, &text, 2), "abc[X=y]|");
        assert_eq!(taken_in(Framing::Chunked, LAST_CHUNK, 9), "|");
    }

    #[test]
    fn what_is_owed() {
        let text = b"3;e\r\nabc\r\n0\r\nX: y\r\n\r\n";
        let owed = [5, 12, 12, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 4, 4, 4, 4, 3, 2, 1, 0];
        let mut body = Body::new(Framing::Chunked, 64);
        assert_eq!(body.owed(), Some(owed[0]));
        for (i, b) in text.iter().enumerate() {
            let mut at = 0;
            body.next(&[*b], &mut at).unwrap();
            assert_eq!(body.owed(), Some(owed[i + 1]), "after {i}");
        }
    }
}
