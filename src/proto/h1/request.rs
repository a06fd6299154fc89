//! The head of a request: the line, the fields, and what they say about the body.

use std::fmt;

use super::body::Framing;
use super::cursor::LineCursor;
use super::field::{self, Field, Line};
use super::request_line::{self, Method, RequestLine, Stop, Version};
use super::{Progress, Span, contains_word, number};
use crate::proto::header::{HeaderId, HeaderSet};
use crate::proto::host::{self, HostName};
use crate::proto::scan::{Block, Word};

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
    /// The last host that was valid, kept over [`RequestHead::clear`]: the next is mostly the same.
    known_host: (Vec<u8>, Option<HostName>),
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
        self.fields.clear();
        self.ignored.clear();
        self.present = HeaderSet::EMPTY;
        self.authority = None;
        self.framing = Framing::None;
        self.keep_alive = KeepAlive::Unsaid;
        self.state = State::default();
        // The line is overwritten as a whole when the next one is read.
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
        match request_line::read(buffer, start, &mut self.line) {
            Ok(next) => {
                self.fits(next, rules)?;
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
            let underscores = rules.underscores_in_headers;
            return match field::read_line(part, start, underscores) {
                Line::Bad(at) => Some(HeadError::invalid_line(part, start, at)),
                _ => None,
            };
        }
        match request_line::read(part, start, &mut RequestLine::default()) {
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
            self.authority = Some(self.host(written, buffer).ok_or(HeadError::InvalidLineHost)?);
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
        let mut start = self.state.cursor.start;
        loop {
            if let Some((field, next)) = field::read_known(buffer, start)
                && next <= self.state.room_end
            {
                start = next;
                self.add_field(field, rules)?;
                if WATCHED.contains(field.id)
                    && self.take_watched(field.id, field.value, buffer)?
                    && rules.pause_at_host
                {
                    self.state.cursor.move_to(start);
                    return Ok(Progress::Host);
                }
                continue;
            }
            self.state.cursor.move_to(start);
            if let Some(progress) = self.read_odd_line(buffer, rules)? {
                return Ok(progress);
            }
            start = self.state.cursor.start;
        }
    }

    /// A line that is not a whole field with a known name, or does not fit into its buffer.
    fn read_odd_line(
        &mut self,
        buffer: &[u8],
        rules: &HeadRules,
    ) -> Result<Option<Progress>, HeadError> {
        let start = self.state.cursor.start;
        match field::read_line(buffer, start, rules.underscores_in_headers) {
            Line::Field(field, next) => {
                self.fits(next, rules)?;
                self.state.cursor = LineCursor::at(next);
                if !field.is_valid && rules.ignore_invalid_headers {
                    if self.ignored.len() < IGNORED_SHOWN {
                        self.ignored.push(Span { start: start as u32, end: field.value.end });
                    }
                    return Ok(None);
                }
                self.add_field(field, rules)?;
                let stops = WATCHED.contains(field.id)
                    && self.take_watched(field.id, field.value, buffer)?
                    && rules.pause_at_host;
                Ok(stops.then_some(Progress::Host))
            }
            Line::End(next) => {
                self.fits(next, rules)?;
                self.state.cursor = LineCursor::at(next);
                self.conclude(buffer, rules).map(Some)
            }
            Line::Partial => self.wait(buffer, rules).map(Some),
            Line::Bad(at) => {
                self.fits(at + 1, rules)?;
                Err(HeadError::invalid_line(buffer, start, at))
            }
        }
    }

    #[inline(always)]
    fn add_field(&mut self, field: Field, rules: &HeadRules) -> Result<(), HeadError> {
        if self.fields.len() >= rules.max_headers as usize {
            return Err(HeadError::TooManyHeaders);
        }
        self.fields.push(field);
        if !WATCHED.contains(field.id) {
            self.present.insert(field.id);
        }
        Ok(())
    }

    /// The last field may stand once only, or says something about the connection; gives
    /// whether it made the authority known.
    fn take_watched(
        &mut self,
        id: HeaderId,
        value: Span,
        buffer: &[u8],
    ) -> Result<bool, HeadError> {
        if id == HeaderId::Connection {
            self.take_connection(value, buffer);
        } else if self.present.contains(id) {
            return Err(self.duplicate(id));
        }
        self.present.insert(id);
        if id != HeaderId::Host {
            return Ok(false);
        }
        let host = self.host(value, buffer).ok_or(HeadError::InvalidHost)?;
        let is_new = self.authority.is_none();
        self.authority.get_or_insert(host);
        Ok(is_new)
    }

    /// The host that is written there, if it is a valid one.
    fn host(&mut self, written: Span, buffer: &[u8]) -> Option<Authority> {
        let text = written.of(buffer);
        let host = match &self.known_host {
            (known, Some(host)) if *known == text => *host,
            _ => {
                let host = host::validate(text)?;
                self.known_host.0.clear();
                self.known_host.0.extend_from_slice(text);
                self.known_host.1 = Some(host);
                host
            }
        };
        let start = written.start as usize;
        let name = Span::new(start, start + host.len);
        Some(Authority { name, port: host.port, has_upper: host.has_upper })
    }

    #[cold]
    fn duplicate(&self, id: HeaderId) -> HeadError {
        let mut fields = self.all(id);
        let first = *fields.next().expect("a name in the set is in the table");
        let again = *fields.last().expect("the field was added before it was judged");
        HeadError::Duplicate { again, first }
    }

    fn take_connection(&mut self, value: Span, buffer: &[u8]) {
        let start = Block::at(buffer, value.start as usize);
        // What nearly everybody sends, before the search.
        if value.len() == 10 && KEEP_ALIVE.starts(start) {
            self.keep_alive = KeepAlive::KeepAlive;
        } else if contains_word(value.of(buffer), b"close") {
            self.keep_alive = KeepAlive::Close;
        } else if contains_word(value.of(buffer), b"keep-alive") {
            self.keep_alive = KeepAlive::KeepAlive;
        }
    }

    /// What can be judged only when all fields are known; in nginx's order.
    fn conclude(&mut self, buffer: &[u8], rules: &HeadRules) -> Result<Progress, HeadError> {
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
            _ => {
                self.state.place = Place::Done;
                Ok(Progress::Complete { len: self.state.cursor.start })
            }
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

const KEEP_ALIVE: Word = Word::part("keep-alive", 0);

/// Fields that may stand in a request once, and Connection.
const WATCHED: HeaderSet = HeaderSet::of(&[
    HeaderId::Connection,
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
        let (line, byte) = field::shown_part(buffer, start, at);
        HeadError::InvalidLine { line, byte }
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

    #[test]
    fn fields() {
        check(&[
            ("GET / HTTP/1.0\nA: b\n\n", "GET / HTTP/1.0 [A=b]"),
            ("GET / HTTP/1.0\r\nA:b \r\nC:\r\nD\r\n\r\nx", "GET / HTTP/1.0 [A=b] [C=] [D=] +1"),
            ("GET / HTTP/1.0\na_b: c\nD{: e\nf: g\n\n", "GET / HTTP/1.0 [f=g]"),
            ("GET / HTTP/1.0\nHost: [::1]:80\n\n", "GET / HTTP/1.0 host=[::1]:80 [Host=[::1]:80]"),
            ("GET http://a HTTP/1.0\nHost: b\n\n", "GET / HTTP/1.0 host=a:0 [Host=b]"),
            (
                "GET / HTTP/1.1\nA: b\n\n",
                "400 client sent HTTP/1.1 request without \"Host\" header",
            ),
            ("GET / HTTP/1.0\nA b: c\n\n", "400 client sent invalid header line: \"A\\x20...\""),
            ("GET / HTTP/1.0\nA : b\n\n", "400 client sent invalid header line: \"A\\x20...\""),
            (
                "GET / HTTP/1.0\nA: b\n folded\n\n",
                "400 client sent invalid header line: \"\\x20...\"",
            ),
            (
                "GET / HTTP/1.0\nA: b\0c\n\n",
                "400 client sent invalid header line: \"A: b\\x00...\"",
            ),
            (
                "GET / HTTP/1.0\nA: b\rC: d\n\n",
                "400 client sent invalid header line: \"A: b\\x0d...\"",
            ),
            ("GET / HTTP/1.0\nHost: a b\n\n", "400 client sent invalid host header"),
            ("GET / HTTP/1.1\nHost:\n\n", "400 client sent invalid host header"),
            ("GET http://a/ HTTP/1.1\nHost: /\n\n", "400 client sent invalid host header"),
            (
                "GET / HTTP/1.1\nHost: a\nhost: b\n\n",
                "400 client sent duplicate host header: \"host: b\", previous value: \"Host: a\"",
            ),
            (
                "GET / HTTP/1.0\nIf-Match: a\nif-match: a\n\n",
                "400 client sent duplicate header line: \"if-match: a\", \
                 previous value: \"If-Match: a\"",
            ),
        ]);
    }

    #[test]
    fn what_smuggles_is_refused() {
        let invalid = "400 client sent invalid \"Content-Length\" header";
        for (fields, want) in [
            ("Content-Length: 0", "Length(0)"),
            ("Content-Length: 9223372036854775807", "Length(9223372036854775807)"),
            ("Content-Length: 007", "Length(7)"),
            ("Transfer-Encoding: Chunked", "Chunked"),
            ("Content-Length: 9223372036854775808", invalid),
            ("Content-Length: 18446744073709551617", invalid),
            ("Content-Length: +1", invalid),
            ("Content-Length: -1", invalid),
            ("Content-Length: 1, 1", invalid),
            ("Content-Length: 0x1", invalid),
            ("Content-Length: 1 1", invalid),
            ("Content-Length:\t1", invalid),
            ("Content-Length: 1\t", invalid),
            ("Content-Length:", invalid),
            ("Content-Length", invalid),
            (
                "Content-Length: 1\nContent-Length: 1",
                "400 client sent duplicate header line: \"Content-Length: 1\", \
                 previous value: \"Content-Length: 1\"",
            ),
            (
                "Content-Length: 1\nTransfer-Encoding: chunked",
                "400 client sent \"Content-Length\" and \"Transfer-Encoding\" headers \
                 at the same time",
            ),
            (
                "Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
                "400 client sent duplicate header line: \"Transfer-Encoding: chunked\", \
                 previous value: \"Transfer-Encoding: chunked\"",
            ),
            (
                "Transfer-Encoding: gzip, chunked",
                "501 client sent unknown \"Transfer-Encoding\": \"gzip, chunked\"",
            ),
            (
                "Transfer-Encoding: \tchunked",
                "501 client sent unknown \"Transfer-Encoding\": \"\tchunked\"",
            ),
            ("Transfer-Encoding", "501 client sent unknown \"Transfer-Encoding\": \"\""),
            (
                "Transfer-Encoding : chunked",
                "400 client sent invalid header line: \"Transfer-Encoding\\x20...\"",
            ),
        ] {
            let text = format!("POST / HTTP/1.1\nHost: a\n{fields}\n\n");
            let got = outcome(text.as_bytes(), &HeadRules::default());
            let got = match got.strip_prefix("POST / HTTP/1.1 host=a:0 ") {
                Some(rest) => rest.split(' ').next().unwrap().to_string(),
                None => got,
            };
            assert_eq!(got, want, "{fields:?}");
        }
        check(&[(
            "POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n",
            "400 client sent HTTP/1.0 request with \"Transfer-Encoding\" header",
        )]);
    }

    #[test]
    fn rules_are_obeyed() {
        let text = b"GET / HTTP/1.0\na_b: c\nd{: e\n\n";
        let lax = HeadRules {
            ignore_invalid_headers: false,
            underscores_in_headers: true,
            ..HeadRules::default()
        };
        assert_eq!(outcome(text, &lax), "GET / HTTP/1.0 [a_b=c] [d{=e]");
        let underscores = HeadRules { underscores_in_headers: true, ..HeadRules::default() };
        assert_eq!(outcome(text, &underscores), "GET / HTTP/1.0 [a_b=c]");
        let two = HeadRules { max_headers: 2, ..HeadRules::default() };
        let text = "GET / HTTP/1.0\nb_d: c\n".to_string() + &"A: b\n".repeat(3) + "\n";
        assert_eq!(outcome(text.as_bytes(), &two), "494 client sent too many header lines");
        let three = HeadRules { max_headers: 3, ..HeadRules::default() };
        assert_eq!(outcome(text.as_bytes(), &three), "GET / HTTP/1.0 [A=b] [A=b] [A=b]");
        let connect = HeadRules { allow_connect: true, ..HeadRules::default() };
        assert_eq!(
            outcome(b"CONNECT a.:1 HTTP/1.1\nHost: a\n\n", &connect),
            "CONNECT / HTTP/1.1 host=a:1 [Host=a]"
        );
        assert_eq!(
            outcome(b"CONNECT a:1 HTTP/1.1\nHost: a\nContent-Length: 1\n\n", &connect),
            "400 client sent CONNECT request with body"
        );
    }

    /// A first buffer of 32 bytes and two of 64.
    const SMALL: HeadRules = HeadRules {
        first_buffer: 32,
        buffers: 2,
        buffer_size: 64,
        max_headers: 1000,
        ignore_invalid_headers: true,
        underscores_in_headers: false,
        allow_connect: false,
        pause_at_host: false,
    };

    #[test]
    fn buffers_are_counted_as_nginx_counts_them() {
        let head = |target: usize, fields: &[usize]| {
            let mut text = format!("GET /{} HTTP/1.0\n", "t".repeat(target - 15));
            for len in fields {
                text += &format!("A: {}\n", "v".repeat(len - 4));
            }
            text + "\n"
        };
        let too_long_uri = "414 client sent too long URI";
        for (target, fields, want) in [
            (63, &[][..], ""),
            (64, &[], ""),
            (65, &[], too_long_uri),
            (300, &[], too_long_uri),
            // The line in a large buffer, the field in the other.
            (64, &[63], ""),
            (64, &[64], "494"),
            (20, &[64, 63], ""),
            (20, &[64, 64], "494"),
            (20, &[65], "494"),
            (31, &[20, 20, 23], ""),
            (31, &[20, 20, 23, 20, 20, 23], ""),
            (31, &[20, 20, 23, 20, 20, 24], "494"),
            (31, &[40, 40, 40], "494"),
        ] {
            let got = outcome(head(target, fields).as_bytes(), &SMALL);
            let ok = match want {
                "" => got.starts_with("GET"),
                "494" => got.starts_with("494 client sent too l"),
                want => got == want,
            };
            assert!(ok, "{target} {fields:?}: {got}");
        }
        // What is wrong before the limit is what is reported, and not what is wrong behind it.
        let long = "t".repeat(70);
        assert_eq!(
            outcome(format!("GET /\x01{long}\n").as_bytes(), &SMALL),
            "400 client sent invalid request"
        );
        assert_eq!(outcome(format!("GET /{long}\x01\n").as_bytes(), &SMALL), too_long_uri);
        let blank = "\r\n".repeat(20);
        assert_eq!(
            outcome(format!("{blank}GET /\n").as_bytes(), &SMALL),
            "400 client sent invalid request"
        );
    }

    #[test]
    fn it_pauses_when_the_host_is_known() {
        let rules = HeadRules { pause_at_host: true, ..HeadRules::default() };
        for text in
            ["GET http://a/ HTTP/1.1\nHost: b\nC: d\n\n", "GET / HTTP/1.1\nC: d\nHost: a\nE: f\n\n"]
        {
            let mut head = RequestHead::new();
            assert_eq!(head.read(text.as_bytes(), &rules), Ok(Progress::Host));
            assert_eq!(head.authority.unwrap().name.of(text.as_bytes()), b"a");
            let complete = Ok(Progress::Complete { len: text.len() });
            assert_eq!(head.read(text.as_bytes(), &rules), complete);
            assert_eq!(head.read(text.as_bytes(), &rules), complete);
            assert_eq!(head.fields.len(), text.matches(": ").count());
        }
    }

    #[test]
    fn connection_and_ignored_lines_are_remembered() {
        let mut head = RequestHead::new();
        let text = b"GET / HTTP/1.0\nConnection: Keep-Alive\nx_y: z\n\n";
        head.read(text, &HeadRules::default()).unwrap();
        assert_eq!(head.keep_alive, KeepAlive::KeepAlive);
        assert_eq!(head.ignored[0].of(text), b"x_y: z");
        assert_eq!(head.value(HeaderId::Connection, text), Some(&b"Keep-Alive"[..]));
        assert_eq!(head.value(HeaderId::Host, text), None);
        head.clear();
        assert!(!head.has_begun() && head.fields.is_empty() && head.ignored.is_empty());
        let text = b"GET / HTTP/1.0\nConnection: keep-alive\nConnection: upgrade, close\n\n";
        head.read(text, &HeadRules::default()).unwrap();
        assert_eq!(head.keep_alive, KeepAlive::Close);
        assert_eq!(head.all(HeaderId::Connection).count(), 2);
    }

    #[test]
    fn a_head_that_drips_in_is_read_in_linear_time() {
        let text = format!("GET / HTTP/1.0\nA: {}\n\n", "v".repeat(8000));
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            let mut head = RequestHead::new();
            for end in 0..text.len() {
                let got = head.read(&text.as_bytes()[..end], &HeadRules::default());
                assert_eq!(got, Ok(Progress::Partial));
            }
        }
        // Quadratic reading would take 20 × 32 MB of steps.
        assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
    }
}
