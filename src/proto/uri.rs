//! Paths of requests: decoding and normalising them as nginx does, and refusing unsafe ones.

use std::ops::Range;

/// A path that has been normalised into a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// Where in the buffer the path stands.
    pub path: Range<usize>,
    /// What follows the last dot of the path's last part; empty if there is none.
    pub extension: Range<usize>,
    /// How many bytes of the input are the path: all, unless `?` or `#` ended it.
    pub used: usize,
}

/// The path leads above the root, holds NUL, decoded or not, or a broken `%` sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// Appends to `out` what `path` means: `%XX` decoded, `/./` and `/../` resolved, and, with
/// `merge_slashes`, slashes in a row made one.
///
/// A decoded slash or dot counts as one that was written; a decoded `?`, `#` or `%` is a plain
/// byte of the path.
pub fn normalise(
    path: &[u8],
    merge_slashes: bool,
    out: &mut Vec<u8>,
) -> Result<Normalised, BadPath> {
    let start = out.len();
    out.reserve(path.len());
    let mut last = Last::Plain;
    let mut dot = None;
    let mut at = 0;
    while let Some(&b) = path.get(at) {
        let (byte, width) = match b {
            b'?' | b'#' => break,
            0 => return Err(BadPath),
            b'%' => (decode(path.get(at + 1..at + 3))?, 3),
            b => (b, 1),
        };
        at += width;
        match (byte, last) {
            (b'?' | b'#' | b'%', _) => {
                out.push(byte);
                last = Last::Plain;
            }
            (b'/', Last::Plain) => {
                out.push(b'/');
                dot = None;
                last = Last::Slash;
            }
            (b'/', Last::Slash) => {
                if !merge_slashes {
                    out.push(b'/');
                }
            }
            (b'/', Last::Dot) => {
                out.pop();
                last = Last::Slash;
            }
            (b'/', Last::DotDot) => {
                leave(out, start)?;
                last = Last::Slash;
            }
            (b'.', Last::Slash | Last::Dot) => {
                out.push(b'.');
                last = if last == Last::Slash { Last::Dot } else { Last::DotDot };
            }
            _ => {
                out.push(byte);
                if byte == b'.' && last == Last::Plain {
                    dot = Some(out.len());
                }
                last = Last::Plain;
            }
        }
    }
    match last {
        Last::Dot => out.truncate(out.len() - 1),
        Last::DotDot => leave(out, start)?,
        Last::Plain | Last::Slash => (),
    }
    let end = out.len();
    Ok(Normalised { path: start..end, extension: dot.unwrap_or(end)..end, used: at })
}

/// What was just read of the path, as far as it matters for what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Plain,
    Slash,
    /// A dot behind a slash.
    Dot,
    /// Two dots behind a slash.
    DotDot,
}

/// Takes `name/..` off the end of `out`, whose path starts at `start`.
fn leave(out: &mut Vec<u8>, start: usize) -> Result<(), BadPath> {
    let slash = out.len() - 3;
    let parent = out[start..slash].iter().rposition(|&b| b == b'/').ok_or(BadPath)?;
    out.truncate(start + parent + 1);
    Ok(())
}

/// The byte that two hexadecimal digits stand for; NUL is refused.
fn decode(digits: Option<&[u8]>) -> Result<u8, BadPath> {
    let Some(&[high, low]) = digits else { return Err(BadPath) };
    match (hex(high), hex(low)) {
        (Some(high), Some(low)) if high | low != 0 => Ok(high << 4 | low),
        _ => Err(BadPath),
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// What a path that somebody wrote (not a client's request line) needs before it is used.
///
/// For `rewrite`, `X-Accel-Redirect`, `Destination` and the like, as nginx's
/// `ngx_http_parse_uri`: the path must start with a slash and hold no space or control byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Where `?` stands, if the path has arguments.
    pub args: Option<usize>,
    pub is_complex: bool,
    pub is_quoted: bool,
}

/// Looks a target over without changing it.
pub fn survey(target: &[u8]) -> Result<Survey, BadPath> {
    if target.first() != Some(&b'/') || target.iter().any(|&b| b <= b' ' || b == 0x7f) {
        return Err(BadPath);
    }
    let end = target.iter().position(|&b| b == b'?' || b == b'#').unwrap_or(target.len());
    let path = &target[..end];
    Ok(Survey {
        args: (target.get(end) == Some(&b'?')).then_some(end),
        is_complex: end < target.len() && target[end] == b'#'
            || path.windows(2).any(|w| w[0] == b'/' && (w[1] == b'/' || w[1] == b'.')),
        is_quoted: path.contains(&b'%'),
    })
}

/// Whether a path given by an upstream or an included page could lead out of its root, when
/// decoded or not: it is empty, has `..` as a part, or holds NUL. `?` ends it.
pub fn is_unsafe(target: &[u8]) -> bool {
    let end = target.iter().position(|&b| b == b'?').unwrap_or(target.len());
    let path = &target[..end];
    let leads_out =
        |path: &[u8]| path.contains(&0) || path.split(|&b| b == b'/').any(|p| p == b"..");
    if path.is_empty() || leads_out(path) {
        return true;
    }
    if !path.contains(&b'%') {
        return false;
    }
    let mut decoded = Vec::with_capacity(path.len());
    super::escape::unescape(path, super::escape::Unescape::All, &mut decoded);
    leads_out(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(path: &str, merge: bool) -> String {
        let mut out = b"~/".to_vec();
        match normalise(path.as_bytes(), merge, &mut out) {
            Err(BadPath) => "bad".into(),
            Ok(n) => {
                assert_eq!(n.path, 2..out.len());
                let text = |r: Range<usize>| String::from_utf8_lossy(&out[r]).into_owned();
                let ext = text(n.extension.clone());
                let more = if ext.is_empty() { String::new() } else { format!(" {ext}") };
                format!("{}{more}", text(n.path))
            }
        }
    }

    #[test]
    fn paths() {
        for (path, want) in [
            ("/", "/"),
            ("/a//b", "/a/b"),
            ("/a///./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c.d", "/a/c.d d"),
            ("/a/../..", "bad"),
            ("/..", "bad"),
            ("/../a", "bad"),
            ("/.a", "/.a"),
            ("/.a.b", "/.a.b b"),
            ("/..a", "/..a"),
            ("/...", "/..."),
            ("/a./b", "/a./b"),
            ("/a.b/c", "/a.b/c"),
            ("/a.b/..", "/"),
            ("/a.", "/a."),
            ("/%41%2fb", "/A/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/%2e%2e/b", "bad"),
            ("/a%2", "bad"),
            ("/a%", "bad"),
            ("/a%zz", "bad"),
            ("/a%00", "bad"),
            ("/a\0b", "bad"),
            ("/a%02", "/a\u{2}"),
            ("/a%3fb%23c%25d", "/a?b#c%d"),
            ("/%252e%252e/b", "/%2e%2e/b"),
            ("/a/.%3f", "/a/.?"),
            ("/a/.?x", "/a/"),
            ("/a/..#x", "/"),
            ("/a%3", "bad"),
            ("/a+b", "/a+b"),
            ("/\u{e9}", "/\u{e9}"),
        ] {
            assert_eq!(show(path, true), want, "{path:?}");
        }
        assert_eq!(show("/a//b", false), "/a//b");
        assert_eq!(show("/a//../b", false), "/a/b");
        assert_eq!(show("//", false), "//");
        assert_eq!(show("//..", false), "/");
    }

    #[test]
    fn surveys() {
        let s = |t: &str| survey(t.as_bytes());
        assert_eq!(s("/a?b"), Ok(Survey { args: Some(2), ..Survey::default() }));
        assert_eq!(s("/a%20"), Ok(Survey { is_quoted: true, ..Survey::default() }));
        assert!(s("/a//b").unwrap().is_complex && s("/.").unwrap().is_complex);
        for bad in ["", "a", "/a b", "/\n", "?a"] {
            assert_eq!(s(bad), Err(BadPath), "{bad:?}");
        }
    }

    #[test]
    fn unsafe_paths() {
        for (path, want) in [
            ("", true),
            ("?a", true),
            ("..", true),
            ("../a", true),
            ("/a/..", true),
            ("/a/../b", true),
            ("/a/%2e%2e/b", true),
            ("/a%00", true),
            ("/a/..b", false),
            ("/a?/../", false),
            ("/a%20b", false),
        ] {
            assert_eq!(is_unsafe(path.as_bytes()), want, "{path:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A normalised path has nothing left to resolve, and escaping it brings it back.
        #[test]
        fn normal_is_normal(path in "/([a-z./%+?#]|%[0-9a-f]{2}|\u{e9}){0,30}", merge: bool) {
            let mut out = Vec::new();
            if let Ok(n) = normalise(path.as_bytes(), merge, &mut out) {
                prop_assert!(n.used <= path.len() && n.path == (0..out.len()));
                prop_assert!(n.extension.start <= out.len() && n.extension.end == out.len());
                prop_assert_eq!(out[0], b'/');
                let parts: Vec<&[u8]> = out[1..].split(|&b| b == b'/').collect();
                prop_assert!(parts.iter().all(|&p| p != b".." && p != b"."));
                prop_assert!(!merge || parts.iter().rev().skip(1).all(|p| !p.is_empty()));
                let (mut escaped, mut again) = (Vec::new(), Vec::new());
                crate::proto::escape::Escape::Uri.push(&out, &mut escaped);
                prop_assert!(normalise(&escaped, merge, &mut again).is_ok());
                prop_assert_eq!(again, out);
            }
        }

        #[test]
        fn any_path_is_survived(path: Vec<u8>, merge: bool) {
            let mut out = Vec::new();
            let _ = normalise(&path, merge, &mut out);
            let _ = (survey(&path), is_unsafe(&path));
        }
    }
}
