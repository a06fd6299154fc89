//! The name in a Host field, an absolute request target or `:authority`.

/// A host as it was written, cut into what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostName {
    /// How many leading bytes are the name: without the port and without a trailing dot.
    pub len: usize,
    /// The port that was written, or 0.
    pub port: u16,
    /// The name holds capital letters; nginx compares and prints it in lower case.
    pub has_upper: bool,
}

/// Checks and cuts a host. `None` is what nginx calls an invalid host.
///
/// Accepted are registered names (letters, digits, `-._~!$&'()*+,;=%`), without two dots in a
/// row, and address literals in brackets; both with an optional decimal port up to 65535.
pub fn validate(host: &[u8]) -> Option<HostName> {
    let (end, has_upper) =
        if host.first() == Some(&b'[') { literal(host)? } else { registered(host)? };
    let port = match host[end..].split_first() {
        None => 0,
        Some((b':', digits)) => port(digits)?,
        Some(_) => return None,
    };
    let len = if host[..end].last() == Some(&b'.') { end - 1 } else { end };
    (len > 0).then_some(HostName { len, port, has_upper })
}

/// Appends `name` in lower case.
pub fn push_lower(name: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
}

/// A name: where it ends, at a colon or with the text, and whether it holds capitals.
fn registered(host: &[u8]) -> Option<(usize, bool)> {
    let end = run(host, 0, NAME)?;
    matches!(host.get(end.0), None | Some(b':')).then_some(end)
}

/// A literal: where it ends, behind its bracket, and whether it holds capitals.
fn literal(host: &[u8]) -> Option<(usize, bool)> {
    let (end, has_upper) = run(host, 1, LITERAL)?;
    (host.get(end) == Some(&b']')).then_some((end + 1, has_upper))
}

/// Where bytes of `class` that start at `at` end; `None` if two dots follow each other.
#[inline]
fn run(host: &[u8], at: usize, class: u8) -> Option<(usize, bool)> {
    let (mut end, mut seen, mut before, mut doubled) = (host.len(), 0, 0, 0);
    for (i, &b) in host.iter().enumerate().skip(at) {
        let kind = CLASS[b as usize];
        if kind & class == 0 {
            end = i;
            break;
        }
        doubled |= kind & before;
        seen |= kind;
        before = kind;
    }
    (doubled & DOT == 0).then_some((end, seen & UPPER != 0))
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, &b| match b {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(b - b'0')),
        _ => None,
    })
}

const NAME: u8 = 1;
const LITERAL: u8 = 2;
const UPPER: u8 = 4;
const DOT: u8 = 8;

static CLASS: [u8; 256] = {
    let mut class = [0u8; 256];
    let mut b = 0;
    while b < 256 {
        class[b] = match b as u8 {
            b'A'..=b'Z' => NAME | LITERAL | UPPER,
            b'a'..=b'z' | b'0'..=b'9' => NAME | LITERAL,
            b'.' => NAME | LITERAL | DOT,
            b'-' | b'_' | b'~' => NAME | LITERAL,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                NAME | LITERAL
            }
            b'%' => NAME,
            b':' => LITERAL,
            _ => 0,
        };
        b += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(host: &str) -> String {
        match validate(host.as_bytes()) {
            None => "invalid".into(),
            Some(h) if h.port == 0 => host[..h.len].to_string(),
            Some(h) => format!("{} {}", &host[..h.len], h.port),
        }
    }

    #[test]
    fn hosts() {
        for (host, want) in [
            ("l", "l"),
            ("L", "L"),
            ("", "invalid"),
            (".", "invalid"),
            (":80", "invalid"),
            ("a.b:", "a.b"),
            ("a.b.:88", "a.b 88"),
            ("a.b.", "a.b"),
            ("a..b", "invalid"),
            ("a.b..", "invalid"),
            ("a.b:1.2", "invalid"),
            ("a:65535", "a 65535"),
            ("a:65536", "invalid"),
            ("a:98777", "invalid"),
            ("a:0080", "a 80"),
            ("a:1:2", "invalid"),
            ("a%20b", "a%20b"),
            ("a b", "invalid"),
            ("a/b", "invalid"),
            ("a\\b", "invalid"),
            ("a@b", "invalid"),
            ("a\0", "invalid"),
            ("h\u{e9}", "invalid"),
            ("[::1]", "[::1]"),
            ("[::1]:81", "[::1] 81"),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
            ("[::1].", "invalid"),
            ("[::1", "invalid"),
            ("[::1..2]", "invalid"),
            ("[::1%25en0]", "invalid"),
            ("x[::1]", "invalid"),
            ("[]", "[]"),
        ] {
            assert_eq!(cut(host), want, "{host:?}");
        }
        assert!(validate(b"Example.COM").unwrap().has_upper);
    }
}
