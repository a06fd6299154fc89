//! The head of a reply from an upstream: the status line, the fields, and what follows them.

use std::fmt;

use super::body::Framing;
use super::cursor::LineCursor;
use super::field::{self, Field, Line};
use super::request_line::Version;
use super::{Progress, Span, contains_word, number};
use crate::proto::header::{HeaderId, HeaderSet};

/// A reply's head, read in place; made once per upstream connection and cleared in between.
///
/// As in nginx, lines may end with LF alone, the reason may be missing, fields with odd names
/// pass (they are marked), and a repeated status line among the fields is skipped.
#[derive(Debug, Default)]
pub struct ReplyHead {
    pub version: Version,
    pub status: u16,
    /// The status and its reason: `404 Not Found`.
    pub status_line: Span,
    pub fields: Vec<Field>,
    /// Which known names are among `fields`.
    pub present: HeaderSet,
    /// The upstream will close the connection, or did not say that it will not.
    pub closes: bool,
    length: Option<u64>,
    is_chunked: bool,
    cursor: LineCursor,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    StatusLine,
    Fields,
    Done,
}

impl ReplyHead {
    pub fn new() -> ReplyHead {
        ReplyHead::default()
    }

    /// Forgets the reply; keeps the memory of its table.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = ReplyHead { fields, ..ReplyHead::default() };
    }

    /// Reads on. `buffer` starts with the same bytes as in the calls before, and has more; the
    /// head may have `max` bytes. Never gives [`Progress::Host`].
    ///
    /// After an error the head can only be cleared.
    pub fn read(&mut self, buffer: &[u8], max: usize) -> Result<Progress, ReplyError> {
        if self.place == Place::Done {
            return Ok(Progress::Complete { len: self.cursor.start });
        }
        let buffer_fits = &buffer[..buffer.len().min(max)];
        if buffer.len() >= max || self.cursor.is_worth_a_look(buffer_fits) {
            if self.place == Place::StatusLine {
                self.read_status_line(buffer_fits)?;
            }
            if self.place == Place::Fields {
                self.read_fields(buffer_fits)?;
            }
            if self.place == Place::Done {
                return Ok(Progress::Complete { len: self.cursor.start });
            }
        }
        if buffer.len() >= max {
            return Err(ReplyError::TooBig);
        }
        self.cursor.wait(buffer);
        Ok(Progress::Partial)
    }

    /// How the body that follows is delimited.
    pub fn framing(&self, to_head_request: bool) -> Framing {
        let has_no_body = to_head_request || matches!(self.status, 100..=199 | 204 | 304);
        match self.length {
            _ if has_no_body => Framing::None,
            _ if self.is_chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }

    /// What Content-Length says, also of a body that is not sent.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// A reply before the reply; 101 is final for HTTP.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// The first field with this name.
    #[inline]
    pub fn find(&self, id: HeaderId) -> Option<&Field> {
        if !self.present.contains(id) {
            return None;
        }
        self.fields.iter().find(|f| f.id == id)
    }

    /// All fields with this name.
    pub fn all(&self, id: HeaderId) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |f| f.id == id)
    }

    /// The first field's value, in the buffer that was read.
    pub fn value<'b>(&self, id: HeaderId, buffer: &'b [u8]) -> Option<&'b [u8]> {
        self.find(id).map(|f| f.value.of(buffer))
    }

    fn read_status_line(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        let Some(line) = StatusLine::read(bytes)? else { return Ok(()) };
        if line.version < Version::Http11 {
            if line.status == 103 {
                return Err(ReplyError::EarlyHintsIn10);
            }
            self.closes = true;
        }
        self.version = line.version;
        self.status = line.status;
        self.status_line = line.text;
        self.cursor = LineCursor::at(line.next);
        self.place = Place::Fields;
        Ok(())
    }

    fn read_fields(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        loop {
            let start = self.cursor.start;
            if let Some((field, next)) = field::read_known(bytes, start) {
                self.cursor = LineCursor::at(next);
                self.take_field(field, bytes)?;
                continue;
            }
            if bytes[start..].starts_with(b"HTTP/") {
                // Some servers send the status line twice.
                let Some(lf) = memchr::memchr(b'\n', &bytes[start..]) else { return Ok(()) };
                self.cursor = LineCursor::at(start + lf + 1);
                continue;
            }
            match field::read_line(bytes, start, true) {
                Line::Field(field, next) => {
                    self.cursor = LineCursor::at(next);
                    self.take_field(field, bytes)?;
                }
                Line::End(next) => {
                    self.cursor = LineCursor::at(next);
                    self.place = Place::Done;
                    return Ok(());
                }
                Line::Partial => return Ok(()),
                Line::Bad(at) => {
                    let (line, byte) = field::shown_part(bytes, start, at);
                    return Err(ReplyError::InvalidLine { line, byte });
                }
            }
        }
    }

    #[inline]
    fn take_field(&mut self, field: Field, bytes: &[u8]) -> Result<(), ReplyError> {
        self.fields.push(field);
        if field.id == HeaderId::Other {
            return Ok(());
        }
        let first = !self.present.contains(field.id);
        self.present.insert(field.id);
        if self.is_interim() {
            return Ok(());
        }
        let value = field.value.of(bytes);
        match field.id {
            HeaderId::ContentLength | HeaderId::TransferEncoding if !first => {
                let first = *self.find(field.id).expect("a field in the set is in the table");
                Err(ReplyError::Duplicate { again: field, first })
            }
            HeaderId::ContentLength => {
                let invalid = ReplyError::InvalidContentLength { field };
                self.length = Some(number(value).ok_or(invalid)?);
                self.one_framing()
            }
            HeaderId::TransferEncoding => {
                self.is_chunked = true;
                self.one_framing()?;
                if value.eq_ignore_ascii_case(b"chunked") {
                    return Ok(());
                }
                Err(ReplyError::UnknownCoding { value: field.value })
            }
            HeaderId::Connection => {
                self.closes |= contains_word(value, b"close");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn one_framing(&self) -> Result<(), ReplyError> {
        if self.is_chunked && self.length.is_some() {
            return Err(ReplyError::LengthAndCoding);
        }
        Ok(())
    }
}

/// The first line of a reply.
struct StatusLine {
    version: Version,
    status: u16,
    text: Span,
    next: usize,
}

impl StatusLine {
    /// Reads the line the buffer starts with; `None` if it is not finished.
    fn read(bytes: &[u8]) -> Result<Option<StatusLine>, ReplyError> {
        let mut at = 0;
        match StatusLine::read_at(bytes, &mut at) {
            Ok(line) => Ok(Some(line)),
            // What cannot be read may be unfinished, or wrong.
            Err(()) if at >= bytes.len() => Ok(None),
            Err(()) => Err(ReplyError::NoStatusLine),
        }
    }

    /// `Err` with `at` at the byte that cannot stand there, or at the end of the bytes.
    fn read_at(bytes: &[u8], at: &mut usize) -> Result<StatusLine, ()> {
        for want in *b"HTTP/" {
            expect(bytes, at, |b| b == want)?;
        }
        if bytes.get(*at) == Some(&b'0') {
            return Err(());
        }
        let major = digits(bytes, at)?;
        expect(bytes, at, |b| b == b'.')?;
        let minor = digits(bytes, at)?;
        expect(bytes, at, |b| b == b' ')?;
        while bytes.get(*at) == Some(&b' ') {
            *at += 1;
        }
        let start = *at;
        let mut status = 0;
        for _ in 0..3 {
            status = status * 10 + u16::from(expect(bytes, at, |b| b.is_ascii_digit())? - b'0');
        }
        // Some servers send sub-codes: "403.1 Forbidden".
        if expect(bytes, at, |b| matches!(b, b' ' | b'.' | b'\r' | b'\n'))? < b' ' {
            *at -= 1;
        }
        let rest = &bytes[*at..];
        let Some(stop) = memchr::memchr2(b'\r', b'\n', rest) else {
            *at = bytes.len();
            return Err(());
        };
        *at += stop;
        let end = *at;
        if bytes[*at] == b'\r' {
            *at += 1;
        }
        expect(bytes, at, |b| b == b'\n')?;
        let version = match (major, minor) {
            (1, 0) => Version::Http10,
            _ => Version::Http11,
        };
        Ok(StatusLine { version, status, text: Span::new(start, end), next: *at })
    }
}

fn expect(bytes: &[u8], at: &mut usize, test: impl Fn(u8) -> bool) -> Result<u8, ()> {
    match bytes.get(*at) {
        Some(&b) if test(b) => {
            *at += 1;
            Ok(b)
        }
        _ => Err(()),
    }
}

/// One to three digits.
fn digits(bytes: &[u8], at: &mut usize) -> Result<u16, ()> {
    let mut n = u16::from(expect(bytes, at, |b| b.is_ascii_digit())? - b'0');
    while let Some(b @ b'0'..=b'9') = bytes.get(*at) {
        if n > 99 {
            return Err(());
        }
        n = n * 10 + u16::from(b - b'0');
        *at += 1;
    }
    Ok(n)
}

/// Why a reply's head was refused; always the upstream's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The reply does not start like HTTP. nginx passes it on as a body (HTTP/0.9).
    NoStatusLine,
    EarlyHintsIn10,
    /// A line that is no field, up to the byte that cannot stand there.
    InvalidLine {
        line: Span,
        byte: u8,
    },
    /// The head does not fit into `proxy_buffer_size`.
    TooBig,
    Duplicate {
        again: Field,
        first: Field,
    },
    InvalidContentLength {
        field: Field,
    },
    LengthAndCoding,
    UnknownCoding {
        value: Span,
    },
}

impl ReplyError {
    /// nginx's sentence for the log; `buffer` is what was read.
    pub fn sentence<'a>(&'a self, buffer: &'a [u8]) -> impl fmt::Display + 'a {
        Sentence { error: self, buffer }
    }
}

struct Sentence<'a> {
    error: &'a ReplyError,
    buffer: &'a [u8],
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = |span: Span| span.shown(self.buffer);
        let field = |x: &Field| format!("\"{}: {}\"", text(x.name), text(x.value));
        f.write_str("upstream sent ")?;
        match self.error {
            ReplyError::NoStatusLine => f.write_str("no valid HTTP/1.0 header"),
            ReplyError::EarlyHintsIn10 => f.write_str("HTTP/1.0 response with early hints"),
            ReplyError::InvalidLine { line, byte } => {
                write!(f, "invalid header: \"{}\\x{byte:02x}...\"", text(*line))
            }
            ReplyError::TooBig => f.write_str("too big header"),
            ReplyError::Duplicate { again, first } => write!(
                f,
                "duplicate header line: {}, previous value: {}",
                field(again),
                field(first)
            ),
            ReplyError::InvalidContentLength { field: x } => {
                write!(f, "invalid \"Content-Length\" header: {}", field(x))
            }
            ReplyError::LengthAndCoding => {
                f.write_str("\"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
            }
            ReplyError::UnknownCoding { value } => {
                write!(f, "unknown \"Transfer-Encoding\": \"{}\"", text(*value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &[u8], max: usize) -> String {
        let whole = read_in(text, max, &[]);
        for cut in 0..text.len() {
            assert_eq!(read_in(text, max, &[cut]), whole, "cut at {cut}: {text:?}");
        }
        let drip: Vec<usize> = (0..text.len()).collect();
        assert_eq!(read_in(text, max, &drip), whole, "drip: {text:?}");
        whole
    }

    fn read_in(text: &[u8], max: usize, cuts: &[usize]) -> String {
        let mut head = ReplyHead::new();
        for &end in cuts.iter().chain([&text.len()]) {
            match head.read(&text[..end], max) {
                Ok(Progress::Complete { len }) => return show(&head, text, len),
                Ok(_) => continue,
                Err(error) => return error.sentence(text).to_string(),
            }
        }
        "partial".into()
    }

    fn show(head: &ReplyHead, text: &[u8], len: usize) -> String {
        let s = |span: Span| String::from_utf8_lossy(span.of(text));
        let mut out =
            format!("{} ({}) {:?}", head.status, s(head.status_line), head.framing(false));
        if head.closes {
            out += " close";
        }
        for f in &head.fields {
            out += &format!(" [{}={}]", s(f.name), s(f.value));
        }
        if len != text.len() {
            out += &format!(" +{}", text.len() - len);
        }
        out
    }

    #[test]
    fn replies() {
        for (text, want) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody", "200 (200 OK) UntilClose +4"),
            ("HTTP/1.0 200\n\n", "200 (200) UntilClose close"),
            ("HTTP/1.1   404 \r\n\r\n", "404 (404 ) UntilClose"),
            ("HTTP/1.1 403.1 No\r\n\r\n", "403 (403.1 No) UntilClose"),
            ("HTTP/2.0 200 OK\n\n", "200 (200 OK) UntilClose"),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5\nConnection: Close\na_b: c\nd\n\n",
                "200 (200 OK) Length(5) close [Content-Length=5] [Connection=Close] [a_b=c] [d=]",
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: CHUNKED\n\n",
                "200 (200 OK) Chunked [Transfer-Encoding=CHUNKED]",
            ),
            ("HTTP/1.1 204 N\nContent-Length: 5\n\n", "204 (204 N) None [Content-Length=5]"),
            ("HTTP/1.1 304 N\n\n", "304 (304 N) None"),
            ("HTTP/1.1 103 E\nContent-Length: x\n\n", "103 (103 E) None [Content-Length=x]"),
            ("HTTP/1.1 200 OK\nHTTP/1.1 200 OK\nA: b\n\n", "200 (200 OK) UntilClose [A=b]"),
            ("HTTP/1.0 103 E\n\n", "upstream sent HTTP/1.0 response with early hints"),
            ("hello\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/0.9 200 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1 200 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1\t200 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1000 200 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1 20 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1 2000 OK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1 200 O\rK\n\n", "upstream sent no valid HTTP/1.0 header"),
            ("HTTP/1.1 200 OK\nA b: c\n\n", "upstream sent invalid header: \"A\\x20...\""),
            ("HTTP/1.1 200 OK\n a: b\n\n", "upstream sent invalid header: \"\\x20...\""),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n",
                "upstream sent duplicate header line: \"Content-Length: 5\", \
                 previous value: \"Content-Length: 5\"",
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: -5\n\n",
                "upstream sent invalid \"Content-Length\" header: \"Content-Length: -5\"",
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5\n\n",
                "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers \
                 at the same time",
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n",
                "upstream sent unknown \"Transfer-Encoding\": \"gzip\"",
            ),
            ("HTTP/1.1 200 OK\nA: b\n", "partial"),
        ] {
            assert_eq!(outcome(text.as_bytes(), 4096), want, "{text:?}");
        }
    }

    #[test]
    fn the_head_is_bounded() {
        let text = format!("HTTP/1.1 200 OK\nA: {}\n\nbody", "b".repeat(79));
        assert!(outcome(text.as_bytes(), 100).starts_with("200"));
        assert_eq!(outcome(text.as_bytes(), 99), "upstream sent too big header");
        let text = format!("HTTP/1.1 200 OK\nA: {}", "b".repeat(200));
        assert_eq!(outcome(text.as_bytes(), 99), "upstream sent too big header");
        let text = format!("HTTP/1.1 200 OK\nA: {}\0\n", "b".repeat(78));
        assert!(outcome(text.as_bytes(), 99).starts_with("upstream sent invalid header"));
    }

    #[test]
    fn bodies_depend_on_the_request() {
        let mut head = ReplyHead::new();
        head.read(b"HTTP/1.1 200 OK\nContent-Length: 5\n\n", 4096).unwrap();
        assert_eq!(head.framing(true), Framing::None);
        assert_eq!(head.content_length(), Some(5));
        assert!(!head.is_interim());
        head.clear();
        head.read(b"HTTP/1.1 101 Switching\n\n", 4096).unwrap();
        assert!(!head.is_interim());
        head.clear();
        head.read(b"HTTP/1.1 100 Continue\n\n", 4096).unwrap();
        assert!(head.is_interim());
    }
}
