//! One line of a head: a header field, or the empty line that ends it.

use super::Span;
use crate::proto::header::HeaderId;
use crate::proto::scan::{self, Block};

/// A header field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    /// Without spaces before and after it.
    pub value: Span,
    pub id: HeaderId,
    /// The name consists of letters, digits and hyphens, and underscores if they are allowed.
    pub is_valid: bool,
}

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It is not finished.
    Partial,
    /// A field; where the next line starts.
    Field(Field, usize),
    /// The empty line; where what follows the head starts.
    End(usize),
    /// It cannot be a field, because of the byte at this place.
    Bad(usize),
}

/// Reads the line that starts at `start`.
///
/// As nginx: a line ends with LF or CR LF; a CR elsewhere, a NUL, a space or control character
/// in the name, and a line that starts with a space (a folded value) are errors; a line without
/// a colon is a field with an empty value. Unlike nginx, CR CR LF does not end a line.
pub(crate) fn read_line(bytes: &[u8], start: usize, underscores: bool) -> Line {
    match read_known(bytes, start) {
        Some((field, next)) => Line::Field(field, next),
        None => read_odd_line(bytes, start, underscores),
    }
}

/// The quick way for what most lines are: a whole line with a known name and a colon. The name
/// is a valid one then, and its bytes need not be looked at one by one.
#[inline(always)]
pub(crate) fn read_known(bytes: &[u8], start: usize) -> Option<(Field, usize)> {
    let chunk = bytes.get(start..)?.first_chunk()?;
    if chunk[0] <= b' ' {
        return None;
    }
    let block = Block::new(chunk);
    let name_end = match block.equals(b':') {
        0 => far_colon(bytes, start),
        colons => start + colons.trailing_zeros() as usize,
    };
    if name_end == start {
        return None;
    }
    let id = HeaderId::of_block(block, bytes, start, name_end);
    if id == HeaderId::Other {
        return None;
    }
    let value_start = skip_spaces(bytes, name_end + 1);
    let stop = scan::control(bytes, value_start);
    if bytes.get(stop..stop + 2) != Some(b"\r\n") {
        return None;
    }
    let value_end = without_spaces(bytes, value_start, stop);
    let (name, value) = (Span::new(start, name_end), Span::new(value_start, value_end));
    Some((Field { name, value, id, is_valid: true }, stop + 2))
}

/// The colon behind a long name, or `start` if no known name could end there.
#[inline(never)]
fn far_colon(bytes: &[u8], start: usize) -> usize {
    match Block::at(bytes, start + Block::LEN).equals(b':') {
        0 => start,
        colons => start + Block::LEN + colons.trailing_zeros() as usize,
    }
}

/// Any line, looked at byte by byte.
fn read_odd_line(bytes: &[u8], start: usize, underscores: bool) -> Line {
    if let Some(b'\r' | b'\n') = bytes.get(start) {
        return line_end(bytes, start, Line::End);
    }
    let mut kinds = 0;
    let Some(length) = bytes[start..].iter().position(|&b| {
        kinds |= NAME[b as usize];
        kinds & STOP != 0
    }) else {
        return Line::Partial;
    };
    let at = start + length;
    if length == 0 || !matches!(bytes[at], b':' | b'\r' | b'\n') {
        return Line::Bad(at);
    }
    let (value, stop) = match bytes[at] {
        b':' => match value(bytes, at + 1) {
            Ok(found) => found,
            Err(line) => return line,
        },
        _ => (Span::new(at, at), at),
    };
    let field = Field {
        name: Span::new(start, at),
        value,
        id: HeaderId::at(bytes, start, at),
        is_valid: kinds & ODD == 0 && (underscores || kinds & UNDERSCORE == 0),
    };
    line_end(bytes, stop, |next| Line::Field(field, next))
}

/// The value that starts at or after `at`, and where its line's end stands.
fn value(bytes: &[u8], at: usize) -> Result<(Span, usize), Line> {
    let start = skip_spaces(bytes, at);
    let mut stop = start;
    loop {
        stop = scan::control(bytes, stop);
        match bytes.get(stop) {
            None => return Err(Line::Partial),
            Some(b'\r' | b'\n') => break,
            Some(0) => return Err(Line::Bad(stop)),
            Some(_) => stop += 1,
        }
    }
    Ok((Span::new(start, without_spaces(bytes, start, stop)), stop))
}

/// The part of a bad line that is shown, given where the bad byte is; and the byte to show. For
/// a CR without LF that is the CR, or the spaces before it.
pub(crate) fn shown_part(bytes: &[u8], start: usize, at: usize) -> (Span, u8) {
    let end = match bytes[start..at] {
        [.., b'\r'] => without_spaces(bytes, start, at - 1),
        _ => at,
    };
    (Span::new(start, end), bytes[end])
}

#[inline(always)]
fn skip_spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// The end of what stands at `start..end` without the spaces behind it.
#[inline(always)]
fn without_spaces(bytes: &[u8], start: usize, mut end: usize) -> usize {
    while end > start && bytes[end - 1] == b' ' {
        end -= 1;
    }
    end
}

/// Given that a CR or LF stands at `at`: the line, if it ends there.
fn line_end(bytes: &[u8], at: usize, line: impl FnOnce(usize) -> Line) -> Line {
    match (bytes[at], bytes.get(at + 1)) {
        (b'\n', _) => line(at + 1),
        (_, Some(b'\n')) => line(at + 2),
        (_, None) => Line::Partial,
        (_, Some(_)) => Line::Bad(at + 1),
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
            Line::Bad(at) => format!("bad at {at}"),
            Line::Partial => "partial".into(),
            Line::End(next) => format!("end {next}"),
            Line::Field(field, next) => format!(
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
