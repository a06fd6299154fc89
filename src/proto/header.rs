//! The names of header fields that nginx, or this server, treats specially.
//!
//! One enum serves requests, replies and trailers of every protocol, so that a field is
//! recognised once, when its line is read, and compared as a byte afterwards.

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
    XForwardedHost = "X-Forwarded-Host",
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
    ///
    /// The name must be one that a parser let through: without control characters.
    #[inline]
    pub fn of(name: &[u8]) -> HeaderId {
        let (Some(&first), Some(&last)) = (name.first(), name.last()) else {
            return HeaderId::Other;
        };
        let id = SLOTS[slot(first, name[name.len() / 2], last, name.len())];
        if same_name(name, &LOWER[id as usize]) { IDS[id as usize] } else { HeaderId::Other }
    }

    /// The name as it is usually written; empty for [`HeaderId::Other`].
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The place of this name in a [`HeaderSet`].
    const fn bit(self) -> u128 {
        1 << self as u8
    }
}

/// Which known names a head carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderSet(u128);

impl HeaderSet {
    pub const EMPTY: HeaderSet = HeaderSet(0);

    /// The set of `ids`.
    pub const fn of(ids: &[HeaderId]) -> HeaderSet {
        let (mut bits, mut i) = (0, 0);
        while i < ids.len() {
            bits |= ids[i].bit();
            i += 1;
        }
        HeaderSet(bits)
    }
    #[inline]
    pub const fn contains(self, id: HeaderId) -> bool {
        self.0 & id.bit() != 0
    }
    #[inline]
    pub fn insert(&mut self, id: HeaderId) {
        self.0 |= id.bit();
    }
}

/// The longest known name, in bytes.
const LONGEST: usize = 32;

/// A known name in lower case, padded with zeros.
#[derive(Clone, Copy)]
struct Lower {
    len: usize,
    bytes: [u8; LONGEST],
}

static LOWER: [Lower; NAMES.len()] = {
    let mut all = [Lower { len: 0, bytes: [0; LONGEST] }; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        all[i].len = name.len();
        let mut j = 0;
        while j < name.len() {
            all[i].bytes[j] = name[j].to_ascii_lowercase();
            j += 1;
        }
        i += 1;
    }
    all
};

/// Compares without regard to case. `| 0x20` maps only letters, digits and signs that a field
/// name may hold onto the lower-case name: what else it maps there is a control character.
#[inline]
fn same_name(name: &[u8], lower: &Lower) -> bool {
    name.len() == lower.len && name.iter().zip(&lower.bytes).all(|(n, l)| n | 0x20 == *l)
}

/// A perfect hash of the known names; the compiler proves it, see [`SLOTS`].
#[inline]
const fn slot(first: u8, middle: u8, last: u8, len: usize) -> usize {
    let hash = (first | 0x20) as usize * 65
        + (middle | 0x20) as usize * 19
        + (last | 0x20) as usize * 250
        + len.wrapping_mul(98);
    hash & 0xff
}

static SLOTS: [u8; 256] = {
    let mut slots = [0u8; 256];
    let mut i = 1;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        assert!(name.len() <= LONGEST);
        let at = slot(name[0], name[name.len() / 2], name[name.len() - 1], name.len());
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
        for name in ["", "x", "hos\u{e9}", "content_length", "X-Forwarded-Foo", &"a".repeat(300)] {
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
}
