//! One line of a head: a header field, or the empty line that ends it.

use super::Span;
use crate::proto::header::HeaderId;
use crate::proto::scan;

/// A header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    /// Without spaces before and after it.
    pub value: Span,
    pub id: HeaderId,
    /// The name consists of letters, digits and hyphens, and underscores if they are allowed.
    pub is_valid: bool,
}

/// What a line turned out to be, and where the next one starts.
#[derive(Debug)]
pub(crate) enum Line {
    Partial,
    Field { field: Field, next: usize },
    End { next: usize },
}

/// A line that cannot be a field: nginx shows it up to the byte at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub at: usize,
}

/// Reads the line that starts at `start`.
///
/// As nginx: a line ends with LF or CR LF; a CR elsewhere, a NUL, a space or control character
/// in the name, and a line that starts with a space (a folded value) are errors; a line without
/// a colon is a field with an empty value. Unlike nginx, CR CR LF does not end a line.
#[inline]
pub(crate) fn read_line(bytes: &[u8], start: usize, underscores: bool) -> Result<Line, BadLine> {
    let Some(&first) = bytes.get(start) else { return Ok(Line::Partial) };
    if first == b'\r' || first == b'\n' {
        return Ok(match line_end(bytes, start)? {
            Some(next) => Line::End { next },
            None => Line::Partial,
        });
    }
    if first == b':' {
        return Err(BadLine { at: start });
    }
    let mut kinds = 0;
    let mut at = start;
    let stop = loop {
        let Some(&b) = bytes.get(at) else { return Ok(Line::Partial) };
        let kind = NAME[b as usize];
        if kind & STOP != 0 {
            break b;
        }
        kinds |= kind;
        at += 1;
    };
    let name = Span::new(start, at);
    let is_valid = kinds & ODD == 0 && (underscores || kinds & UNDERSCORE == 0);
    let id = HeaderId::of(&bytes[start..at]);
    let (value, end) = match stop {
        b':' => match value(bytes, at + 1)? {
            Some(found) => found,
            None => return Ok(Line::Partial),
        },
        b'\r' | b'\n' => (Span::new(at, at), at),
        _ => return Err(BadLine { at }),
    };
    Ok(match line_end(bytes, end)? {
        Some(next) => Line::Field { field: Field { name, value, id, is_valid }, next },
        None => Line::Partial,
    })
}

/// The value that starts at or after `at`, and where its line's end stands.
#[inline]
fn value(bytes: &[u8], mut at: usize) -> Result<Option<(Span, usize)>, BadLine> {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    let start = at;
    loop {
        at = scan::control(bytes, at);
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'\r' | b'\n') => break,
            Some(0) => return Err(BadLine { at }),
            Some(_) => at += 1,
        }
    }
    let mut end = at;
    while end > start && bytes[end - 1] == b' ' {
        end -= 1;
    }
    Ok(Some((Span::new(start, end), at)))
}

/// Where the next line starts, given that a CR or LF stands at `at`.
#[inline]
fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, BadLine> {
    match (bytes[at], bytes.get(at + 1)) {
        (b'\n', _) => Ok(Some(at + 1)),
        (_, Some(b'\n')) => Ok(Some(at + 2)),
        (_, None) => Ok(None),
        (_, Some(_)) => Err(BadLine { at: at + 1 }),
    }
}

const STOP: u8 = 1;
const UNDERSCORE: u8 = 2;
const ODD: u8 = 4;

static NAME: [u8; 256] = {
    let mut class = [0u8; 256];
    let mut b = 0;
    while b < 256 {
        class[b] = match b as u8 {
            0..=b' ' | 0x7f | b':' => STOP,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => 0,
            b'_' => UNDERSCORE,
            _ => ODD,
        };
        b += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        let bytes = line.as_bytes();
        match read_line(bytes, 0, false) {
            Err(bad) => format!("bad at {}", bad.at),
            Ok(Line::Partial) => "partial".into(),
            Ok(Line::End { next }) => format!("end {next}"),
            Ok(Line::Field { field, next }) => format!(
                "{}={}{} {next}",
                String::from_utf8_lossy(field.name.of(bytes)),
                String::from_utf8_lossy(field.value.of(bytes)),
                if field.is_valid { "" } else { " invalid" },
            ),
        }
    }

    #[test]
    fn lines() {
        for (line, want) in [
            ("Host: a\r\n", "Host=a 9"),
            ("Host: a\n", "Host=a 8"),
            ("Host:a b  \r\n", "Host=a b 12"),
            ("Host:\r\n", "Host= 7"),
            ("Host:   \n", "Host= 9"),
            ("Host\r\n", "Host= 6"),
            ("Host: \ta\t\n", "Host=\ta\t 10"),
            ("Host: \u{1}\u{7f}\n", "Host=\u{1}\u{7f} 9"),
            ("Host: a\rb\n", "bad at 8"),
            ("Host: a\r\r\n", "bad at 8"),
            ("Host: a\0b\n", "bad at 7"),
            ("Host : a\n", "bad at 4"),
            ("Ho st: a\n", "bad at 2"),
            (" folded\n", "bad at 0"),
            ("\tfolded\n", "bad at 0"),
            (":a\n", "bad at 0"),
            ("\u{7f}: a\n", "bad at 0"),
            ("a_b: c\n", "a_b=c invalid 7"),
            ("a{: c\n", "a{=c invalid 6"),
            ("\u{e9}: c\n", "\u{e9}=c invalid 6"),
            ("\r\n", "end 2"),
            ("\n", "end 1"),
            ("\ra", "bad at 1"),
            ("\r", "partial"),
            ("", "partial"),
            ("Hos", "partial"),
            ("Host:", "partial"),
            ("Host: a", "partial"),
            ("Host: a\r", "partial"),
        ] {
            assert_eq!(show(line), want, "{line:?}");
        }
    }
}
