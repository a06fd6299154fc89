//! Escaping for the places text is put into: URIs, arguments, HTML, SQL, and the way back.

/// Where escaped text will stand; which bytes are escaped follows nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Escape {
    /// A path in a request line or Location.
    Uri,
    /// An argument within a URI.
    Args,
    /// Anything but letters, digits and `-._~`.
    UriComponent,
    /// A path within an HTML attribute.
    Html,
    /// The target of an HTML refresh.
    Refresh,
    /// A key of memcached; a value in a header of an authentication server.
    Memcached,
    /// SMTP's xtext, which escapes with `+`.
    MailXtext,
    /// A part of a URI, as OpenResty's set-misc has it: some punctuation stands for itself.
    UriPart,
    /// The same five places as OpenResty's Lua has them: nginx's before it escaped more.
    LuaUri,
    LuaArgs,
    LuaComponent,
    LuaHtml,
    LuaRefresh,
}

impl Escape {
    /// Whether `byte` is escaped.
    #[inline]
    pub fn escapes(self, byte: u8) -> bool {
        CLASS[byte as usize] & (1 << self as u8) != 0
    }

    /// How many bytes of `text` are escaped; each grows by two.
    pub fn count(self, text: &[u8]) -> usize {
        text.iter().filter(|&&b| self.escapes(b)).count()
    }

    /// Appends `text`, escaped.
    pub fn push(self, text: &[u8], out: &mut Vec<u8>) {
        let prefix = if self == Escape::MailXtext { b'+' } else { b'%' };
        out.reserve(text.len());
        for &b in text {
            if self.escapes(b) {
                out.extend([prefix, HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            } else {
                out.push(b);
            }
        }
    }
}

/// How far and what [`unescape`] decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    All,
    /// As `All`, and `+` is a space: arguments of forms.
    Form,
    /// Up to and with the first `?`, written or decoded.
    Path,
    /// As `Path`, but only printable characters after `%` in ASCII are decoded.
    Redirect,
}

impl Unescape {
    fn ends_at_question(self) -> bool {
        matches!(self, Unescape::Path | Unescape::Redirect)
    }
}

/// Appends `text` with `%XX` decoded; gives how many bytes of `text` were read.
///
/// Broken sequences lose their `%` as in nginx: `%zz` becomes `zz`, `%1z` nothing.
pub fn unescape(text: &[u8], how: Unescape, out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        at += 1;
        if b != b'%' {
            out.push(if b == b'+' && how == Unescape::Form { b' ' } else { b });
            if b == b'?' && how.ends_at_question() {
                return at;
            }
            continue;
        }
        let Some(&high) = text.get(at) else { break };
        at += 1;
        let Some(h) = super::uri::hex(high) else {
            out.push(high);
            continue;
        };
        let Some(&low) = text.get(at) else { break };
        at += 1;
        let Some(l) = super::uri::hex(low) else { continue };
        let byte = h << 4 | l;
        if how == Unescape::Redirect && !(byte > b'%' && byte < 0x7f) {
            out.extend([b'%', high, low]);
            continue;
        }
        out.push(byte);
        if byte == b'?' && how.ends_at_question() {
            return at;
        }
    }
    at
}

/// Appends `text` with `<`, `>`, `&` and `"` as HTML entities.
pub fn push_html(text: &[u8], out: &mut Vec<u8>) {
    for &b in text {
        match b {
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'&' => out.extend(b"&amp;"),
            b'"' => out.extend(b"&quot;"),
            b => out.push(b),
        }
    }
}

/// Appends `text` as it stands within a JSON string. Bytes that are no UTF-8 are kept.
pub fn push_json(text: &[u8], out: &mut Vec<u8>) {
    for &b in text {
        let short = match b {
            b'"' | b'\\' => b,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
                continue;
            }
            _ => {
                out.push(b);
                continue;
            }
        };
        out.extend([b'\\', short]);
    }
}

/// Appends `text` as it stands within the quotes of MySQL; `$` is escaped too if `dollars`.
pub fn push_sql(text: &[u8], dollars: bool, out: &mut Vec<u8>) {
    for &b in text {
        let escaped = match b {
            0 => b'0',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            26 => b'Z',
            b'\\' | b'\'' | b'"' => b,
            b'$' if dollars => b,
            plain => {
                out.push(plain);
                continue;
            }
        };
        out.extend([b'\\', escaped]);
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

const fn is_in(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

static CLASS: [u16; 256] = {
    let mut class = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let outside = b <= b' ' || b >= 0x7f;
        let never = outside || is_in(b, b"\"<>\\^`{|}");
        let unreserved = b.is_ascii_alphanumeric() || is_in(b, b"-._~");
        let escaped = [
            (Escape::Uri, never || is_in(b, b"#%?")),
            (Escape::Args, never || is_in(b, b"#%?&+;")),
            (Escape::UriComponent, !unreserved),
            (Escape::Html, never || is_in(b, b"#%'")),
            // nginx escapes "~" here and not "}".
            (Escape::Refresh, never && b != b'}' || is_in(b, b"'~")),
            (Escape::Memcached, b <= b' ' || b == b'%'),
            (Escape::MailXtext, outside || is_in(b, b"+=")),
            (Escape::UriPart, outside || is_in(b, b"\"#%&+/:;<=>?[\\]^{}")),
            (Escape::LuaUri, outside || is_in(b, b"#%?")),
            (Escape::LuaArgs, outside || is_in(b, b"#%?+")),
            (Escape::LuaComponent, !unreserved && !is_in(b, b"!*'()")),
            (Escape::LuaHtml, outside || is_in(b, b"#%'\"")),
            (Escape::LuaRefresh, outside || is_in(b, b"%'\"")),
        ];
        let mut kind = 0;
        while kind < escaped.len() {
            if escaped[kind].1 {
                class[i] |= 1 << escaped[kind].0 as u8;
            }
            kind += 1;
        }
        i += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(how: Escape) -> String {
        (b'!'..0x7f).filter(|&b| how.escapes(b)).map(char::from).collect()
    }

    #[test]
    fn what_each_place_escapes() {
        assert_eq!(escaped(Escape::Uri), "\"#%<>?\\^`{|}");
        assert_eq!(escaped(Escape::Args), "\"#%&+;<>?\\^`{|}");
        assert_eq!(escaped(Escape::UriComponent), "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}");
        assert_eq!(escaped(Escape::Html), "\"#%'<>\\^`{|}");
        assert_eq!(escaped(Escape::Refresh), "\"'<>\\^`{|~");
        assert_eq!(escaped(Escape::Memcached), "%");
        assert_eq!(escaped(Escape::MailXtext), "+=");
        assert_eq!(escaped(Escape::UriPart), "\"#%&+/:;<=>?[\\]^{}");
        for how in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::MailXtext] {
            assert!([0, b' ', 0x7f, 0xff].iter().all(|&b| how.escapes(b)));
        }
        assert!(Escape::Memcached.escapes(0) && !Escape::Memcached.escapes(0x7f));
        assert!(!Escape::Memcached.escapes(0xff));
    }

    #[test]
    fn escaping() {
        let mut out = Vec::new();
        Escape::Uri.push("/a b?\u{e9}".as_bytes(), &mut out);
        assert_eq!(out, b"/a%20b%3F%C3%A9");
        assert_eq!(Escape::Uri.count("/a b?\u{e9}".as_bytes()), 4);
        out.clear();
        Escape::MailXtext.push(b"a+b", &mut out);
        assert_eq!(out, b"a+2Bb");
        out.clear();
        push_html(b"<a href=\"&\">", &mut out);
        assert_eq!(out, b"&lt;a href=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn unescaping() {
        for (text, how, want, read) in [
            ("a%20b%3F?c", Unescape::All, "a b??c", 10),
            ("a%20b%3Fc", Unescape::Path, "a b?", 8),
            ("a?b", Unescape::Path, "a?", 2),
            ("%zz%1z%", Unescape::All, "zz", 7),
            ("%41%20%7f%25", Unescape::Redirect, "A%20%7f%25", 12),
            ("%3fx", Unescape::Redirect, "?", 3),
            ("%4", Unescape::All, "", 2),
            ("a+b%2B?+", Unescape::Form, "a b+? ", 8),
        ] {
            let mut out = Vec::new();
            assert_eq!(unescape(text.as_bytes(), how, &mut out), read, "{text}");
            assert_eq!(String::from_utf8(out).unwrap(), want, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_escaped_can_be_unescaped(text: Vec<u8>) {
            for how in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Html] {
                let (mut escaped, mut back) = (Vec::new(), Vec::new());
                how.push(&text, &mut escaped);
                prop_assert_eq!(escaped.len(), text.len() + 2 * how.count(&text));
                unescape(&escaped, Unescape::All, &mut back);
                prop_assert_eq!(&back, &text);
            }
            for how in [Unescape::All, Unescape::Path, Unescape::Redirect] {
                let mut out = Vec::new();
                prop_assert!(unescape(&text, how, &mut out) <= text.len());
            }
        }
    }
}
