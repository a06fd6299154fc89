//! One line being made: bounded, and free of what could forge another line.
use std::fmt;

/// Bytes of a line with its line feed; nginx's bound.
const LINE_BYTES_MAX: usize = 2048;

/// A line of the log. What does not fit is cut off; control characters are written as `\xHH`,
/// so that nothing a peer sends starts a record of its own or speaks to a terminal. A traceback
/// keeps its lines: no record begins as they do.
pub struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

impl Line {
    pub fn new() -> Line {
        Line { bytes: [0; LINE_BYTES_MAX], len: 0 }
    }

    /// Appends bytes that may come from a peer.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|b| b.is_ascii_control()) {
            self.append(&bytes[..at]);
            if let Some(start) = traceback_line(&bytes[at..]) {
                self.append(start);
                bytes = &bytes[at + start.len()..];
                continue;
            }
            let hex = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            self.append(&[b'\\', b'x', hex(bytes[at] >> 4), hex(bytes[at] & 15)]);
            bytes = &bytes[at + 1..];
        }
        self.append(bytes);
    }

    /// Appends a number without the machinery of `format!`.
    pub fn push_number(&mut self, number: u64) {
        self.append(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The bytes so far, without a line feed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The line with its line feed, for which a place is always left.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.bytes[self.len] = b'\n';
        &self.bytes[..=self.len]
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - 1 - self.len;
        let taken = bytes.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken;
    }
}

/// The line feed and what begins a line of a traceback, if `bytes` begin so.
fn traceback_line(bytes: &[u8]) -> Option<&[u8]> {
    let starts: [&[u8]; 3] = [b"\n\t", b"\nstack traceback:", b"\ncoroutine "];
    let start = starts.iter().find(|start| bytes.starts_with(start))?;
    Some(&bytes[..start.len()])
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn a_peer_cannot_start_a_line() {
        let mut line = Line::new();
        line.push(b"a\r\nb\x1b[31m\xff");
        assert_eq!(line.finish(), b"a\\x0D\\x0Ab\\x1B[31m\xff\n");
    }

    #[test]
    fn a_traceback_keeps_its_lines() {
        let mut line = Line::new();
        let text = b"boom\nstack traceback:\ncoroutine 0:\n\t[C]: in function 'error'";
        line.push(text);
        assert_eq!(line.as_bytes(), text);
    }

    #[test]
    fn a_long_line_is_cut_and_still_ends() {
        let mut line = Line::new();
        write!(line, "{}", "x".repeat(5000)).unwrap();
        line.push_number(7);
        let whole = line.finish();
        assert_eq!(whole.len(), LINE_BYTES_MAX);
        assert!(whole.ends_with(b"xx\n"));
    }
}
