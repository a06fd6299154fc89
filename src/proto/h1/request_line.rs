//! The first line of a request, in the forms and with the tolerance of nginx.

use super::Span;
use super::request::HeadError;
use crate::proto::scan;

/// Methods that nginx knows by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Any other word of capital letters, `_` and `-`.
    #[default]
    Other,
    Get,
    Head,
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Proppatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
}

impl Method {
    /// Recognises a method; methods are compared with case.
    pub fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"MKCOL" => Method::Mkcol,
            b"COPY" => Method::Copy,
            b"MOVE" => Method::Move,
            b"OPTIONS" => Method::Options,
            b"PROPFIND" => Method::Propfind,
            b"PROPPATCH" => Method::Proppatch,
            b"LOCK" => Method::Lock,
            b"UNLOCK" => Method::Unlock,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// A request that may be sent twice without harm (RFC 9110, 9.2.2, as nginx counts it).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Lock | Method::Patch | Method::Other)
    }
}

/// The protocol's version. HTTP/1.2 and later minor versions count as 1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    #[default]
    Http09,
    Http10,
    Http11,
    Http2,
    Http3,
}

/// The first line, taken apart. Spans that do not apply are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLine {
    /// Without the line's end: nginx's `$request`.
    pub whole: Span,
    pub method: Method,
    pub method_name: Span,
    /// Of a target in absolute form.
    pub scheme: Span,
    /// Host and port of a target in absolute form, or of CONNECT.
    pub authority: Span,
    /// The path with its arguments, as it was sent: nginx's `$request_uri`.
    pub target: Span,
    /// The path alone, still encoded; a lone `/` if the target named none.
    pub path: Span,
    /// What follows `?`, up to `#`.
    pub args: Span,
    /// What follows the last dot of the path's last part; not filled if the path must be
    /// normalised first.
    pub extension: Span,
    /// `HTTP/1.1`; empty in HTTP/0.9.
    pub protocol: Span,
    pub version: Version,
    /// The path holds `//` or `/.` and must be normalised.
    pub is_complex: bool,
    /// The path holds `%` and must be decoded.
    pub is_quoted: bool,
    /// The target was like `http://host?args`; it cannot be sent on as it was written.
    pub has_empty_path: bool,
}

impl RequestLine {
    /// The path must go through `uri::normalise` before it is used.
    pub fn needs_normalising(&self) -> bool {
        self.is_complex || self.is_quoted
    }
}

/// Why reading stopped before the line's end, and where.
#[derive(Debug)]
pub(crate) enum Stop {
    Partial,
    Bad { error: HeadError, at: usize },
}

/// Reads the line that starts at `start` into `line`; gives where the next line starts.
#[inline]
pub(crate) fn read(bytes: &[u8], start: usize, line: &mut RequestLine) -> Result<usize, Stop> {
    *line = RequestLine::default();
    line.whole.start = start as u32;
    let mut reader = Reader { bytes, at: start, line };
    let read = reader.method().and_then(|()| reader.target()).and_then(|()| reader.protocol());
    match read {
        Ok(next) if line.version != Version::Http09 || line.method == Method::Get => Ok(next),
        Ok(next) => Err(Stop::Bad { error: HeadError::InvalidMethod09, at: next - 1 }),
        Err(stop) => {
            line.whole.end = end_of_line(bytes, start) as u32;
            Err(stop)
        }
    }
}

/// Where a line that cannot be read ends, for the log.
#[cold]
fn end_of_line(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start.min(bytes.len())..];
    start + rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line: &'a mut RequestLine,
}

impl Reader<'_> {
    /// The byte at the cursor.
    #[inline(always)]
    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Partial)
    }

    #[cold]
    fn bad<T>(&self, error: HeadError) -> Result<T, Stop> {
        Err(Stop::Bad { error, at: self.at })
    }

    #[inline]
    fn spaces(&mut self) -> Result<u8, Stop> {
        loop {
            match self.peek()? {
                b' ' => self.at += 1,
                b => return Ok(b),
            }
        }
    }

    #[inline]
    fn method(&mut self) -> Result<(), Stop> {
        let start = self.at;
        if self.bytes[start..].starts_with(b"GET ") {
            self.line.method = Method::Get;
            self.line.method_name = Span::new(start, start + 3);
            self.at += 4;
            return Ok(());
        }
        loop {
            match self.peek()? {
                b'A'..=b'Z' | b'_' | b'-' => self.at += 1,
                b' ' if self.at > start => break,
                _ => return self.bad(HeadError::InvalidMethod),
            }
        }
        self.line.method = Method::of(&self.bytes[start..self.at]);
        self.line.method_name = Span::new(start, self.at);
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn target(&mut self) -> Result<(), Stop> {
        match self.spaces()? {
            _ if self.line.method == Method::Connect => self.connect_target(),
            b'/' => self.path(),
            b'A'..=b'Z' | b'a'..=b'z' => self.absolute_target(),
            _ => self.bad(HeadError::InvalidRequest),
        }
    }

    /// `host:port`; the port must be there.
    fn connect_target(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.host_name()?;
        if self.peek()? != b':' {
            return self.bad(HeadError::InvalidRequest);
        }
        self.at += 1;
        let port = self.at;
        self.digits()?;
        if self.at == port || self.peek()? != b' ' {
            return self.bad(HeadError::InvalidRequest);
        }
        self.line.authority = Span::new(start, self.at);
        Ok(())
    }

    /// `scheme://host[:port][/path][?args]`
    fn absolute_target(&mut self) -> Result<(), Stop> {
        let start = self.at;
        while let b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' = self.peek()? {
            self.at += 1;
        }
        let scheme = Span::new(start, self.at);
        for want in *b"://" {
            if self.peek()? != want {
                return self.bad(HeadError::InvalidRequest);
            }
            self.at += 1;
        }
        let host = self.at;
        self.host_name()?;
        if self.peek()? == b':' {
            self.at += 1;
            self.digits()?;
        }
        let stop = self.peek()?;
        self.line.scheme = scheme;
        self.line.authority = Span::new(host, self.at);
        // A path that is not there is the first slash of "://": a span must be somewhere.
        let slash = Span::new(host - 2, host - 1);
        match stop {
            b'/' => return self.path(),
            b'?' => {
                let target = self.at;
                self.line.path = slash;
                self.line.has_empty_path = true;
                self.args()?;
                self.line.target = Span::new(target, self.at);
            }
            b' ' => (self.line.path, self.line.target) = (slash, slash),
            _ => return self.bad(HeadError::InvalidRequest),
        }
        Ok(())
    }

    /// A name or a bracketed literal; only what cannot stand in a host at all is refused here,
    /// the rest is `host::validate`'s.
    fn host_name(&mut self) -> Result<(), Stop> {
        if self.peek()? != b'[' {
            while let b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' = self.peek()? {
                self.at += 1;
            }
            return Ok(());
        }
        loop {
            self.at += 1;
            match self.peek()? {
                b']' => break,
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b':' => (),
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' => (),
                b'*' | b'+' | b',' | b';' | b'=' => (),
                _ => return self.bad(HeadError::InvalidRequest),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Stop> {
        while self.peek()?.is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// The path at the cursor and what follows it, up to the space or line end behind it.
    #[inline]
    fn path(&mut self) -> Result<(), Stop> {
        let start = self.at;
        let mut slash = self.at;
        let mut dot = usize::MAX;
        self.at += 1;
        let stop = loop {
            let b = self.peek()?;
            if PATH[b as usize] == PLAIN {
                self.at += 1;
                continue;
            }
            let follows_slash = slash + 1 == self.at;
            match b {
                b'/' | b'.' if follows_slash => {
                    self.line.is_complex = true;
                    break self.rest_of_path()?;
                }
                b'/' => (slash, dot) = (self.at, usize::MAX),
                b'.' => dot = self.at + 1,
                b'%' => {
                    self.line.is_quoted = true;
                    break self.rest_of_path()?;
                }
                _ => break b,
            }
            self.at += 1;
        };
        self.line.path = Span::new(start, self.at);
        if dot != usize::MAX && !self.line.needs_normalising() {
            self.line.extension = Span::new(dot, self.at);
        }
        match stop {
            b'?' => self.args()?,
            b'#' => self.fragment()?,
            b' ' | b'\r' | b'\n' => (),
            _ => return self.bad(HeadError::InvalidRequest),
        }
        self.line.target = Span::new(start, self.at);
        Ok(())
    }

    /// The path's end, once it is known that the path must be normalised.
    fn rest_of_path(&mut self) -> Result<u8, Stop> {
        loop {
            match self.peek()? {
                b'%' => self.line.is_quoted = true,
                b if PATH[b as usize] == END => return Ok(b),
                _ => (),
            }
            self.at += 1;
        }
    }

    fn args(&mut self) -> Result<(), Stop> {
        let start = self.at + 1;
        self.at = scan::target_end(self.bytes, start);
        let stop = self.peek()?;
        self.line.args = Span::new(start, self.at);
        match stop {
            b'#' => self.fragment(),
            b' ' | b'\r' | b'\n' => Ok(()),
            _ => self.bad(HeadError::InvalidRequest),
        }
    }

    /// What follows `#` is part of the target but of neither path nor arguments.
    fn fragment(&mut self) -> Result<(), Stop> {
        while self.peek()? == b'#' {
            self.at = scan::target_end(self.bytes, self.at + 1);
        }
        match self.peek()? {
            b' ' | b'\r' | b'\n' => Ok(()),
            _ => self.bad(HeadError::InvalidRequest),
        }
    }

    /// The protocol, if there is one, and the line's end; gives where the next line starts.
    #[inline]
    fn protocol(&mut self) -> Result<usize, Stop> {
        // What nearly everybody sends, in one comparison.
        if let Some(b" HTTP/1.1\r\n") = self.bytes.get(self.at..self.at + 11) {
            self.set_version(self.at + 1, Version::Http11);
            self.line.whole.end = self.at as u32 + 9;
            self.line.protocol.end = self.at as u32 + 9;
            return Ok(self.at + 11);
        }
        if self.spaces()? == b'H' {
            self.version()?;
        }
        self.end()
    }

    fn set_version(&mut self, start: usize, version: Version) {
        self.line.protocol.start = start as u32;
        self.line.version = version;
        if self.line.method == Method::Connect {
            // nginx's $uri of CONNECT: the slash of "HTTP/".
            let slash = Span::new(start + 4, start + 5);
            (self.line.path, self.line.target) = (slash, slash);
        }
    }

    fn version(&mut self) -> Result<(), Stop> {
        let start = self.at;
        for want in *b"HTTP/" {
            if self.peek()? != want {
                return self.bad(HeadError::InvalidRequest);
            }
            self.at += 1;
        }
        match self.peek()? {
            b'1' => self.at += 1,
            b'2'..=b'9' => return self.bad(HeadError::InvalidVersion),
            _ => return self.bad(HeadError::InvalidRequest),
        }
        match self.peek()? {
            b'.' => self.at += 1,
            b'0'..=b'9' => return self.bad(HeadError::InvalidVersion),
            _ => return self.bad(HeadError::InvalidRequest),
        }
        if !self.peek()?.is_ascii_digit() {
            return self.bad(HeadError::InvalidRequest);
        }
        let mut minor = 0u32;
        while self.peek()?.is_ascii_digit() {
            if minor > 99 {
                return self.bad(HeadError::InvalidRequest);
            }
            minor = minor * 10 + u32::from(self.bytes[self.at] - b'0');
            self.at += 1;
        }
        self.set_version(start, if minor == 0 { Version::Http10 } else { Version::Http11 });
        Ok(())
    }

    /// Spaces and the line's end.
    fn end(&mut self) -> Result<usize, Stop> {
        let stop = self.spaces()?;
        let end = self.at;
        if stop == b'\r' {
            self.at += 1;
        }
        if self.peek()? != b'\n' {
            return self.bad(HeadError::InvalidRequest);
        }
        self.line.whole.end = end as u32;
        if self.line.version != Version::Http09 {
            self.line.protocol.end = end as u32;
        }
        Ok(self.at + 1)
    }
}

const PLAIN: u8 = 0;
const MARK: u8 = 1;
const END: u8 = 2;

/// Bytes of a path: plain, marks with a meaning within it, and what ends it.
static PATH: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut b = 0;
    while b < 256 {
        class[b] = match b as u8 {
            b'/' | b'.' | b'%' => MARK,
            0..=b' ' | 0x7f | b'?' | b'#' => END,
            _ => PLAIN,
        };
        b += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_refused_can_be_shown() {
        for (text, start, shown) in [
            (&b"\r\nHost: a\r\n"[..], 2, &b"Host: a"[..]),
            (b"garbage", 0, b"garbage"),
            (b"\r\n", 2, b""),
            (b"GET / x\nmore", 0, b"GET / x"),
        ] {
            let mut line = RequestLine::default();
            assert!(read(text, start, &mut line).is_err());
            assert_eq!(line.whole.of(text), shown);
        }
    }
}
