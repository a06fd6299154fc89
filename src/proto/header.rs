//! The names of header fields that nginx, or this server, treats specially.
//!
//! One enum serves requests, replies and trailers of every protocol, so that a field is
//! recognised once, when its line is read, and compared as a byte afterwards.

use super::scan::{Block, Word};

macro_rules! header_names {
    ($($id:ident = $name:literal,)*) => {
        /// A header field's name, if it is one that somebody asks for by name.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderId {
            /// Any other name.
            #[default]
            Other,
            $(#[doc = $name] $id,)*
        }
        const IDS: &[HeaderId] = &[HeaderId::Other, $(HeaderId::$id,)*];
        const NAMES: &[&str] = &["", $($name,)*];
    };
}

header_names! {
    Host = "Host",
    Connection = "Connection",
    ProxyConnection = "Proxy-Connection",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    UserAgent = "User-Agent",
    Referer = "Referer",
    ContentLength = "Content-Length",
    ContentRange = "Content-Range",
    ContentType = "Content-Type",
    Range = "Range",
    IfRange = "If-Range",
    TransferEncoding = "Transfer-Encoding",
    Te = "TE",
    Trailer = "Trailer",
    Expect = "Expect",
    Upgrade = "Upgrade",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    Via = "Via",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    KeepAlive = "Keep-Alive",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XRealIp = "X-Real-IP",
    Forwarded = "Forwarded",
    Origin = "Origin",
    Depth = "Depth",
    Destination = "Destination",
    Overwrite = "Overwrite",
    LockToken = "Lock-Token",
    Date = "Date",
    Cookie = "Cookie",
    EarlyData = "Early-Data",
    Http2Settings = "HTTP2-Settings",
    XRequestId = "X-Request-ID",
    SecWebsocketKey = "Sec-WebSocket-Key",
    SecWebsocketVersion = "Sec-WebSocket-Version",
    SecWebsocketProtocol = "Sec-WebSocket-Protocol",
    SecWebsocketExtensions = "Sec-WebSocket-Extensions",
    SecWebsocketAccept = "Sec-WebSocket-Accept",
    CacheControl = "Cache-Control",
    Pragma = "Pragma",
    Server = "Server",
    Status = "Status",
    Location = "Location",
    Refresh = "Refresh",
    LastModified = "Last-Modified",
    Etag = "ETag",
    Expires = "Expires",
    AcceptRanges = "Accept-Ranges",
    Age = "Age",
    Allow = "Allow",
    Vary = "Vary",
    Link = "Link",
    SetCookie = "Set-Cookie",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    AuthenticationInfo = "Authentication-Info",
    ContentEncoding = "Content-Encoding",
    ContentDisposition = "Content-Disposition",
    ContentLanguage = "Content-Language",
    ContentLocation = "Content-Location",
    RetryAfter = "Retry-After",
    Warning = "Warning",
    AltSvc = "Alt-Svc",
    StrictTransportSecurity = "Strict-Transport-Security",
    XAccelExpires = "X-Accel-Expires",
    XAccelRedirect = "X-Accel-Redirect",
    XAccelLimitRate = "X-Accel-Limit-Rate",
    XAccelBuffering = "X-Accel-Buffering",
    XAccelCharset = "X-Accel-Charset",
    XPad = "X-Pad",
    P3p = "P3P",
}

impl HeaderId {
    /// Recognises `name` in any letter case.
    #[inline]
    pub fn of(name: &[u8]) -> HeaderId {
        if name.is_empty() { HeaderId::Other } else { HeaderId::at(name, 0, name.len()) }
    }

    /// Recognises the name that stands at `start..end` of `bytes`; it is not empty.
    #[inline(always)]
    pub(crate) fn at(bytes: &[u8], start: usize, end: usize) -> HeaderId {
        HeaderId::of_block(Block::at(bytes, start), bytes, start, end)
    }

    /// The same, given the block at `start`.
    #[inline(always)]
    pub(crate) fn of_block(block: Block, bytes: &[u8], start: usize, end: usize) -> HeaderId {
        let len = end - start;
        let id = SLOTS[slot(bytes[start], bytes[end - 1], len)];
        let pattern = &PATTERNS[id as usize];
        let agrees = len == pattern.len
            && pattern.start.starts(block)
            && (len <= Block::LEN || pattern.rest.starts(Block::at(bytes, start + Block::LEN)));
        if agrees { IDS[id as usize] } else { HeaderId::Other }
    }

    /// The name as it is usually written; empty for [`HeaderId::Other`].
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The place of this name in a [`HeaderSet`].
    const fn place(self) -> (usize, u64) {
        (self as usize / 64, 1 << (self as u8 % 64))
    }
}

/// Which known names a head carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderSet([u64; 2]);

impl HeaderSet {
    pub const EMPTY: HeaderSet = HeaderSet([0; 2]);

    /// The set of `ids`.
    pub const fn of(ids: &[HeaderId]) -> HeaderSet {
        let (mut words, mut i) = ([0; 2], 0);
        while i < ids.len() {
            let (word, bit) = ids[i].place();
            words[word] |= bit;
            i += 1;
        }
        HeaderSet(words)
    }
    #[inline]
    pub const fn contains(self, id: HeaderId) -> bool {
        let (word, bit) = id.place();
        self.0[word] & bit != 0
    }
    #[inline]
    pub fn insert(&mut self, id: HeaderId) {
        let (word, bit) = id.place();
        self.0[word] |= bit;
    }
}

/// A known name, in two blocks.
#[derive(Clone, Copy)]
struct Pattern {
    len: usize,
    start: Word,
    rest: Word,
}

static PATTERNS: [Pattern; NAMES.len()] = {
    let none = Word::part("", 0);
    let mut all = [Pattern { len: 0, start: none, rest: none }; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        let name = NAMES[i];
        assert!(name.len() <= 2 * Block::LEN);
        all[i] = Pattern {
            len: name.len(),
            start: Word::part(name, 0),
            rest: Word::part(name, Block::LEN),
        };
        i += 1;
    }
    all
};

/// A perfect hash of the known names; the compiler proves it, see [`SLOTS`].
#[inline(always)]
const fn slot(first: u8, last: u8, len: usize) -> usize {
    let hash = (first | 0x20) as usize * 257 + (last | 0x20) as usize * 238 + len.wrapping_mul(149);
    hash % SLOTS_LEN
}

const SLOTS_LEN: usize = 512;

static SLOTS: [u8; SLOTS_LEN] = {
    let mut slots = [0u8; SLOTS_LEN];
    let mut i = 1;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        let at = slot(name[0], name[name.len() - 1], name.len());
        assert!(slots[at] == 0, "two names share a slot: choose other multipliers");
        slots[at] = i as u8;
        i += 1;
    }
    assert!(NAMES.len() <= 128, "HeaderSet has 128 bits");
    slots
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_name_is_found_in_every_case() {
        for &id in &IDS[1..] {
            let name = id.name();
            assert_eq!(HeaderId::of(name.as_bytes()), id);
            assert_eq!(HeaderId::of(name.to_ascii_lowercase().as_bytes()), id);
            assert_eq!(HeaderId::of(name.to_ascii_uppercase().as_bytes()), id);
            assert_eq!(HeaderId::of(&name.as_bytes()[1..]), HeaderId::Other);
            assert_eq!(HeaderId::of(format!("{name}x").as_bytes()), HeaderId::Other);
        }
    }

    #[test]
    fn other_names_are_other() {
        for name in [
            "",
            "x",
            "hos\u{e9}",
            "content_length",
            "Content\rLength",
            "content\u{d}length",
            "X-Forwarded-Foo",
            &"a".repeat(300),
        ] {
            assert_eq!(HeaderId::of(name.as_bytes()), HeaderId::Other, "{name}");
        }
    }

    #[test]
    fn a_set_remembers() {
        let mut set = HeaderSet::of(&[HeaderId::Host]);
        assert!(set.contains(HeaderId::Host) && !set.contains(HeaderId::P3p));
        set.insert(HeaderId::P3p);
        assert!(set.contains(HeaderId::P3p));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_quick_search_finds_what_a_slow_one_finds(
            id in 1..IDS.len(), at: prop::sample::Index, byte: u8, other: Vec<u8>,
        ) {
            let mut name = NAMES[id].as_bytes().to_vec();
            let place = at.index(name.len());
            name[place] = byte;
            for name in [&name, &other] {
                let slow = IDS.iter().find(|i| i.name().as_bytes().eq_ignore_ascii_case(name));
                prop_assert_eq!(HeaderId::of(name), slow.copied().unwrap_or_default());
            }
        }
    }
}
