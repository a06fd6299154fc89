//! The head of a request: the line, the fields, and what they say about the body.

use std::fmt;

use super::body::Framing;
use super::cursor::LineCursor;
use super::field::{self, Field, Line};
use super::request_line::{self, Method, RequestLine, Stop, Version};
use super::{Progress, Span, contains_word, number};
use crate::proto::header::{HeaderId, HeaderSet};
use crate::proto::host;

/// What a server's directives allow a request head to be. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeadRules {
    /// `client_header_buffer_size`
    pub first_buffer: u32,
    /// `large_client_header_buffers`: how many, and how large
    pub buffers: u32,
    pub buffer_size: u32,
    pub max_headers: u32,
    pub ignore_invalid_headers: bool,
    pub underscores_in_headers: bool,
    pub allow_connect: bool,
    /// Stop with [`Progress::Host`] once the host is known: another server's rules may hold.
    pub pause_at_host: bool,
}

impl Default for HeadRules {
    /// nginx's defaults.
    fn default() -> Self {
        HeadRules {
            first_buffer: 1024,
            buffers: 4,
            buffer_size: 8192,
            max_headers: 1000,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            allow_connect: false,
            pause_at_host: false,
        }
    }
}

/// Whom the request is for: the request line's host if it has one, else the Host field's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Without port and trailing dot; as written, see `has_upper`.
    pub name: Span,
    /// The port that was written, or 0.
    pub port: u16,
    pub has_upper: bool,
}

/// What the Connection fields ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAlive {
    /// Nothing was said: the version decides.
    #[default]
    Unsaid,
    Close,
    KeepAlive,
}

/// A request's head, read in place; made once per connection and cleared between requests.
#[derive(Debug, Default)]
pub struct RequestHead {
    pub line: RequestLine,
    /// In the order they arrived; without those that were ignored.
    pub fields: Vec<Field>,
    /// Which known names are among `fields`.
    pub present: HeaderSet,
    pub authority: Option<Authority>,
    /// How the body that follows is delimited; never until close.
    pub framing: Framing,
    pub keep_alive: KeepAlive,
    /// Lines dropped by `ignore_invalid_headers`, for the log; the first [`IGNORED_SHOWN`].
    pub ignored: Vec<Span>,
    state: State,
}

/// How many ignored lines are remembered.
pub const IGNORED_SHOWN: usize = 16;

#[derive(Debug, Default)]
struct State {
    place: Place,
    cursor: LineCursor,
    /// Where nginx's current header buffer would end, and how many large ones are taken.
    room_end: usize,
    buffers_taken: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Blank,
    RequestLine,
    Fields,
    Done,
}

impl RequestHead {
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Forgets the request; keeps the memory of its tables.
    pub fn clear(&mut self) {
        let (mut fields, mut ignored) =
            (std::mem::take(&mut self.fields), std::mem::take(&mut self.ignored));
        fields.clear();
        ignored.clear();
        *self = RequestHead { fields, ignored, ..RequestHead::default() };
    }

    /// Reads on. `buffer` starts with the same bytes as in the calls before, and has more.
    ///
    /// After an error the head can only be cleared.
    pub fn read(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<Progress, HeadError> {
        if self.state.place == Place::Fields {
            return self.read_fields(buffer, rules);
        }
        if self.state.place == Place::Done {
            return Ok(Progress::Complete { len: self.state.cursor.start });
        }
        if !self.skip_blank(buffer, rules)? || !self.state.cursor.is_worth_a_look(buffer) {
            return self.wait(buffer, rules);
        }
        let start = self.state.cursor.start;
        match request_line::read(buffer, start) {
            Ok((line, next)) => {
                self.fits(next, rules)?;
                self.line = line;
                self.state.cursor = LineCursor::at(next);
                self.take_line(buffer, rules)
            }
            Err(Stop::Partial) => self.wait(buffer, rules),
            Err(Stop::Bad { error, at }) => {
                self.fits(at + 1, rules)?;
                Err(error)
            }
        }
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

    /// Something other than blank lines has arrived: a request has begun.
    pub fn has_begun(&self) -> bool {
        self.state.place != Place::Blank
    }

    /// The line being read when an error was found; for the log.
    pub fn current_line_start(&self) -> usize {
        self.state.cursor.start
    }

    /// Skips line ends before the request line; says whether anything follows them.
    fn skip_blank(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<bool, HeadError> {
        if self.state.place == Place::RequestLine {
            return Ok(true);
        }
        let mut at = self.state.cursor.start;
        while let Some(b'\r' | b'\n') = buffer.get(at) {
            at += 1;
        }
        if at > rules.first_buffer as usize {
            return Err(HeadError::InvalidRequest);
        }
        self.state.cursor = LineCursor::at(at);
        if at == buffer.len() {
            return Ok(false);
        }
        self.state.room_end = at + rules.first_buffer as usize;
        self.state.place = Place::RequestLine;
        Ok(true)
    }

    /// The line is not finished: refuses it if it outgrows its room.
    #[cold]
    fn wait(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<Progress, HeadError> {
        if self.state.place == Place::Blank {
            return Ok(Progress::Partial);
        }
        if let Err(too_long) = self.fits(buffer.len() + 1, rules) {
            // What is wrong before the limit is the error, however the bytes arrived.
            return Err(self.error_before(buffer, rules).unwrap_or(too_long));
        }
        self.state.cursor.wait(buffer);
        Ok(Progress::Partial)
    }

    /// The error in the part of the current line that would still have fitted.
    fn error_before(&self, buffer: &[u8], rules: &HeadRules) -> Option<HeadError> {
        let start = self.state.cursor.start;
        let room = self.state.room_end.clamp(start, buffer.len());
        let part = &buffer[..room];
        if self.state.place == Place::Fields {
            let bad = field::read_line(part, start, rules.underscores_in_headers).err()?;
            return Some(HeadError::invalid_line(part, start, bad.at));
        }
        match request_line::read(part, start) {
            Err(Stop::Bad { error, .. }) => Some(error),
            _ => None,
        }
    }

    /// Accounts for a line that ends at `end` as nginx does, which reads a head into one small
    /// buffer and then into large ones, and never splits a line.
    #[inline]
    fn fits(&mut self, end: usize, rules: &HeadRules) -> Result<(), HeadError> {
        if end <= self.state.room_end { Ok(()) } else { self.take_buffers(end, rules) }
    }

    #[cold]
    fn take_buffers(&mut self, end: usize, rules: &HeadRules) -> Result<(), HeadError> {
        let (start, size) = (self.state.cursor.start, rules.buffer_size as usize);
        while end > self.state.room_end {
            let held = self.state.room_end.saturating_sub(start);
            if held > 0 && held >= size || self.state.buffers_taken >= rules.buffers {
                return Err(match self.state.place {
                    Place::Fields => HeadError::HeaderTooLarge {
                        line: Span::new(start, self.state.room_end.max(start)),
                    },
                    _ => HeadError::LineTooLong,
                });
            }
            self.state.room_end = start.saturating_add(size);
            self.state.buffers_taken += 1;
        }
        Ok(())
    }

    /// The request line is complete.
    fn take_line(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<Progress, HeadError> {
        let is_named = !self.line.scheme.is_empty() || self.line.method == Method::Connect;
        if is_named {
            let written = self.line.authority;
            self.authority = Some(authority(written, buffer).ok_or(HeadError::InvalidLineHost)?);
        }
        if self.line.version == Version::Http09 {
            self.state.place = Place::Done;
            return Ok(Progress::Complete { len: self.state.cursor.start });
        }
        self.state.place = Place::Fields;
        if is_named && rules.pause_at_host {
            return Ok(Progress::Host);
        }
        self.read_fields(buffer, rules)
    }

    fn read_fields(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<Progress, HeadError> {
        if !self.state.cursor.is_worth_a_look(buffer) {
            return self.wait(buffer, rules);
        }
        loop {
            let start = self.state.cursor.start;
            match field::read_line(buffer, start, rules.underscores_in_headers) {
                Ok(Line::Field { field, next }) => {
                    self.fits(next, rules)?;
                    self.state.cursor = LineCursor::at(next);
                    let had_host = self.authority.is_some();
                    self.take_field(field, buffer, rules)?;
                    if rules.pause_at_host && !had_host && self.authority.is_some() {
                        return Ok(Progress::Host);
                    }
                }
                Ok(Line::End { next }) => {
                    self.fits(next, rules)?;
                    self.state.cursor = LineCursor::at(next);
                    self.conclude(buffer, rules)?;
                    self.state.place = Place::Done;
                    return Ok(Progress::Complete { len: next });
                }
                Ok(Line::Partial) => return self.wait(buffer, rules),
                Err(bad) => {
                    self.fits(bad.at + 1, rules)?;
                    return Err(HeadError::invalid_line(buffer, start, bad.at));
                }
            }
        }
    }

    #[inline]
    fn take_field(
        &mut self,
        field: Field,
        buffer: &[u8],
        rules: &HeadRules,
    ) -> Result<(), HeadError> {
        if !field.is_valid && rules.ignore_invalid_headers {
            if self.ignored.len() < IGNORED_SHOWN {
                self.ignored.push(Span { start: field.name.start, end: field.value.end });
            }
            return Ok(());
        }
        if self.fields.len() >= rules.max_headers as usize {
            return Err(HeadError::TooManyHeaders);
        }
        self.fields.push(field);
        if field.id == HeaderId::Other {
            return Ok(());
        }
        if UNIQUE.contains(field.id) && self.present.contains(field.id) {
            return Err(self.duplicate(field));
        }
        self.present.insert(field.id);
        match field.id {
            HeaderId::Host => self.take_host(field, buffer),
            HeaderId::Connection => {
                self.take_connection(field.value.of(buffer));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn duplicate(&self, again: Field) -> HeadError {
        let first = *self.find(again.id).expect("a field in the set is in the table");
        HeadError::Duplicate { again, first }
    }

    fn take_host(&mut self, field: Field, buffer: &[u8]) -> Result<(), HeadError> {
        let host = authority(field.value, buffer).ok_or(HeadError::InvalidHost)?;
        self.authority.get_or_insert(host);
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        if contains_word(value, b"close") {
            self.keep_alive = KeepAlive::Close;
        } else if contains_word(value, b"keep-alive") {
            self.keep_alive = KeepAlive::KeepAlive;
        }
    }

    /// What can be judged only when all fields are known; in nginx's order.
    fn conclude(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<(), HeadError> {
        if !self.present.contains(HeaderId::Host) && self.line.version >= Version::Http11 {
            return Err(HeadError::MissingHost);
        }
        if let Some(value) = self.value(HeaderId::ContentLength, buffer) {
            let length = number(value).ok_or(HeadError::InvalidContentLength)?;
            self.framing = Framing::Length(length);
        }
        if let Some(&coding) = self.find(HeaderId::TransferEncoding) {
            self.take_coding(coding, buffer)?;
        }
        match self.line.method {
            Method::Connect if !rules.allow_connect || self.line.version != Version::Http11 => {
                Err(HeadError::Connect)
            }
            Method::Connect if !matches!(self.framing, Framing::None | Framing::Length(0)) => {
                Err(HeadError::ConnectWithBody)
            }
            Method::Trace => Err(HeadError::Trace),
            _ => Ok(()),
        }
    }

    fn take_coding(&mut self, coding: Field, buffer: &[u8]) -> Result<(), HeadError> {
        if self.line.version < Version::Http11 {
            return Err(HeadError::Http10Coding);
        }
        if !coding.value.of(buffer).eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::UnknownCoding { value: coding.value });
        }
        if self.framing != Framing::None {
            return Err(HeadError::LengthAndCoding);
        }
        self.framing = Framing::Chunked;
        Ok(())
    }
}

/// Fields that may stand in a request once.
const UNIQUE: HeaderSet = HeaderSet::of(&[
    HeaderId::Host,
    HeaderId::IfModifiedSince,
    HeaderId::IfUnmodifiedSince,
    HeaderId::IfMatch,
    HeaderId::IfNoneMatch,
    HeaderId::ContentLength,
    HeaderId::ContentRange,
    HeaderId::IfRange,
    HeaderId::TransferEncoding,
    HeaderId::Expect,
    HeaderId::Authorization,
    HeaderId::ProxyAuthorization,
]);

fn authority(written: Span, buffer: &[u8]) -> Option<Authority> {
    let host = host::validate(written.of(buffer))?;
    let start = written.start as usize;
    let name = Span::new(start, start + host.len);
    Some(Authority { name, port: host.port, has_upper: host.has_upper })
}

/// Why a request head was refused; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    InvalidMethod,
    InvalidRequest,
    InvalidVersion,
    InvalidMethod09,
    /// The request line does not fit into a header buffer.
    LineTooLong,
    InvalidLineHost,
    /// A line that is no field, up to the byte that cannot stand there.
    InvalidLine {
        line: Span,
        byte: u8,
    },
    /// The line being read when the header buffers were full; cut.
    HeaderTooLarge {
        line: Span,
    },
    TooManyHeaders,
    Duplicate {
        again: Field,
        first: Field,
    },
    InvalidHost,
    MissingHost,
    InvalidContentLength,
    Http10Coding,
    LengthAndCoding,
    UnknownCoding {
        value: Span,
    },
    Connect,
    ConnectWithBody,
    Trace,
}

impl HeadError {
    #[cold]
    fn invalid_line(buffer: &[u8], start: usize, at: usize) -> HeadError {
        HeadError::InvalidLine { line: Span::new(start, at), byte: buffer[at] }
    }

    /// The status to answer with; 494 is nginx's, shown as 400.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::InvalidVersion => 505,
            HeadError::LineTooLong => 414,
            HeadError::HeaderTooLarge { .. } | HeadError::TooManyHeaders => 494,
            HeadError::UnknownCoding { .. } => 501,
            HeadError::Connect | HeadError::Trace => 405,
            _ => 400,
        }
    }

    /// nginx's sentence for the log; `buffer` is what was read.
    pub fn sentence<'a>(&'a self, buffer: &'a [u8]) -> impl fmt::Display + 'a {
        Sentence { error: self, buffer }
    }
}

struct Sentence<'a> {
    error: &'a HeadError,
    buffer: &'a [u8],
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = |span: Span| span.shown(self.buffer);
        f.write_str("client sent ")?;
        let plain = match self.error {
            HeadError::InvalidMethod => "invalid method",
            HeadError::InvalidRequest => "invalid request",
            HeadError::InvalidVersion => "invalid version",
            HeadError::InvalidMethod09 => "invalid method in HTTP/0.9 request",
            HeadError::LineTooLong => "too long URI",
            HeadError::InvalidLineHost => "invalid host in request line",
            HeadError::TooManyHeaders => "too many header lines",
            HeadError::InvalidHost => "invalid host header",
            HeadError::MissingHost => "HTTP/1.1 request without \"Host\" header",
            HeadError::InvalidContentLength => "invalid \"Content-Length\" header",
            HeadError::Http10Coding => "HTTP/1.0 request with \"Transfer-Encoding\" header",
            HeadError::LengthAndCoding => {
                "\"Content-Length\" and \"Transfer-Encoding\" headers at the same time"
            }
            HeadError::Connect => "CONNECT method",
            HeadError::ConnectWithBody => "CONNECT request with body",
            HeadError::Trace => "TRACE method",
            HeadError::HeaderTooLarge { line } if line.is_empty() => "too large request",
            HeadError::HeaderTooLarge { line } => {
                return write!(f, "too long header line: \"{}...\"", text(*line));
            }
            HeadError::InvalidLine { line, byte } => {
                let line = text(*line);
                return write!(f, "invalid header line: \"{line}\\x{byte:02x}...\"");
            }
            HeadError::UnknownCoding { value } => {
                return write!(f, "unknown \"Transfer-Encoding\": \"{}\"", text(*value));
            }
            HeadError::Duplicate { again, first } => {
                let what = if again.id == HeaderId::Host { "host header" } else { "header line" };
                return write!(
                    f,
                    "duplicate {what}: \"{}: {}\", previous value: \"{}: {}\"",
                    text(again.name),
                    text(again.value),
                    text(first.name),
                    text(first.value)
                );
            }
        };
        f.write_str(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` in one piece and in every two pieces and byte by byte; all must agree.
    fn outcome(text: &[u8], rules: &HeadRules) -> String {
        let whole = read_in(text, rules, &[]);
        for cut in 0..text.len() {
            assert_eq!(read_in(text, rules, &[cut]), whole, "cut at {cut}: {text:?}");
        }
        let drip: Vec<usize> = (0..text.len()).collect();
        assert_eq!(read_in(text, rules, &drip), whole, "drip: {text:?}");
        whole
    }

    fn read_in(text: &[u8], rules: &HeadRules, cuts: &[usize]) -> String {
        let mut head = RequestHead::new();
        for &end in cuts.iter().chain([&text.len()]) {
            match head.read(&text[..end], rules) {
                Ok(Progress::Partial) => continue,
                Ok(progress) => return show(&head, text, progress),
                Err(error) => return format!("{} {}", error.status(), error.sentence(text)),
            }
        }
        "partial".into()
    }

    fn show(head: &RequestHead, text: &[u8], progress: Progress) -> String {
        let s = |span: Span| String::from_utf8_lossy(span.of(text));
        let Progress::Complete { len } = progress else { return "host".into() };
        let line = &head.line;
        let mut out = format!("{} {}", s(line.method_name), s(line.path));
        for (mark, span) in [("?", line.args), (" ext=", line.extension), (" ", line.protocol)] {
            if !span.is_empty() {
                out += &format!("{mark}{}", s(span));
            }
        }
        if line.needs_normalising() {
            out += " odd";
        }
        if let Some(host) = head.authority {
            out += &format!(" host={}:{}", s(host.name), host.port);
        }
        match head.framing {
            Framing::None => (),
            other => out += &format!(" {other:?}"),
        }
        for f in &head.fields {
            out += &format!(" [{}={}]", s(f.name), s(f.value));
        }
        if len != text.len() {
            out += &format!(" +{}", text.len() - len);
        }
        out
    }

    fn check(cases: &[(&str, &str)]) {
        for (text, want) in cases {
            assert_eq!(outcome(text.as_bytes(), &HeadRules::default()), *want, "{text:?}");
        }
    }

    #[test]
    fn request_lines() {
        check(&[
            ("GET /\r\n", "GET /"),
            ("GET /a.b/c.txt?x=1#f\n", "GET /a.b/c.txt?x=1 ext=txt"),
            ("GET / HTTP/1.0\n\n", "GET / HTTP/1.0"),
            ("\r\n\n\rGET   /a.txt   HTTP/1.0  \n\n", "GET /a.txt ext=txt HTTP/1.0  "),
            ("M-_X / HTTP/1.0\n\nmore", "M-_X / HTTP/1.0 +4"),
            ("GET /a?b HTTP/1.2\nHost: x\n\n", "GET /a?b HTTP/1.2 host=x:0 [Host=x]"),
            ("GET http://H.:81?b HTTP/1.0\n\n", "GET /?b HTTP/1.0 host=H:81"),
            ("GET http://h HTTP/1.0\n\n", "GET / HTTP/1.0 host=h:0"),
            ("GET s+1.-://[::1]/x?y HTTP/1.0\n\n", "GET /x?y HTTP/1.0 host=[::1]:0"),
            ("get / HTTP/1.0\n\n", "400 client sent invalid method"),
            (" GET / HTTP/1.0\n\n", "400 client sent invalid method"),
            ("\x16\x03\x01", "400 client sent invalid method"),
            ("POST /\n", "400 client sent invalid method in HTTP/0.9 request"),
            ("GET / HTTP/2.0\n\n", "505 client sent invalid version"),
            ("GET / HTTP/10.0\n\n", "505 client sent invalid version"),
            ("GET / HTTP/0.9\n\n", "400 client sent invalid request"),
            ("GET / HTTP/1.\n\n", "400 client sent invalid request"),
            ("GET / HTTP/1.1000\n\n", "400 client sent invalid request"),
            ("GET / http/1.0\n\n", "400 client sent invalid request"),
            ("GET / / HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET /\x02 HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET /?\x7f HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET /\rx HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET / HTTP/1.0\rx\n", "400 client sent invalid request"),
            ("GET * HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET http:/h HTTP/1.0\n\n", "400 client sent invalid request"),
            ("GET http:// HTTP/1.0\n\n", "400 client sent invalid host in request line"),
            ("GET http://a..b/ HTTP/1.0\n\n", "400 client sent invalid host in request line"),
            ("GET http://h#f HTTP/1.0\n\n", "400 client sent invalid request"),
            ("CONNECT / HTTP/1.1\n", "400 client sent invalid request"),
            ("CONNECT a HTTP/1.1\n", "400 client sent invalid request"),
            ("CONNECT a:1 HTTP/1.1\nHost: a\n\n", "405 client sent CONNECT method"),
            ("TRACE / HTTP/1.1\nHost: a\n\n", "405 client sent TRACE method"),
        ]);
    }
}
