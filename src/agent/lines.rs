//! The lines that come out of a program.

use crate::io::Pipe;
use std::fs::File;
use std::io;

/// The longest line, bytes.
pub const LINE_MAX_BYTES: usize = 64 << 10;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Reads lines.
pub struct Lines {
    pipe: Pipe,
    cutter: Cutter,
    chunk: Box<[u8]>,
}

impl Lines {
    pub fn new(file: File) -> io::Result<Lines> {
        let chunk = vec![0; CHUNK_BYTES].into();
        Ok(Lines { pipe: Pipe::new(file)?, cutter: Cutter::default(), chunk })
    }

    /// Reads on and gives each line that came to `take`; false at the end.
    pub async fn next(&mut self, mut take: impl FnMut(Line<'_>)) -> io::Result<bool> {
        let count = self.pipe.read(&mut self.chunk).await?;
        self.cutter.cut(&self.chunk[..count], &mut take);
        Ok(count > 0)
    }
}

/// What stood between two line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than [`LINE_MAX_BYTES`]; this is its beginning.
    TooLong(&'a [u8]),
}

/// Cuts a stream into lines and keeps the unfinished one.
#[derive(Default)]
struct Cutter {
    rest: Vec<u8>,
    /// The line is over the limit: it is skipped to its end.
    skipping: bool,
}

impl Cutter {
    fn cut(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.rest.is_empty() {
                take(Line::Whole(line));
                continue;
            }
            self.rest.extend_from_slice(line);
            match self.rest.len() > LINE_MAX_BYTES {
                true => take(Line::TooLong(&self.rest)),
                false => take(Line::Whole(&self.rest)),
            }
            self.rest.clear();
        }
        if self.skipping {
            return;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LINE_MAX_BYTES {
            take(Line::TooLong(&self.rest));
            (self.rest, self.skipping) = (Vec::new(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, usize) {
        let (mut cutter, mut all) = (Cutter::default(), Vec::new());
        for piece in pieces {
            cutter.cut(piece, &mut |line| {
                all.push(match line {
                    Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                    Line::TooLong(line) => format!("long {}", line.len() > LINE_MAX_BYTES),
                });
            });
        }
        (all, cutter.rest.len())
    }

    #[test]
    fn lines_are_put_together() {
        assert_eq!(cut(&[b"a\nb", b"c", b"\n\nd"]), (vec!["a".into(), "bc".into(), "".into()], 1));
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let long = vec![b'x'; LINE_MAX_BYTES / 2 + 1];
        let (lines, rest) = cut(&[&long, &long, &long, &long, b"tail\nnext\n"]);
        assert_eq!((lines, rest), (vec!["long true".into(), "next".into()], 0));
        let exact = [&vec![b'x'; LINE_MAX_BYTES][..], b"\n"].concat();
        assert_eq!(cut(&[&exact]).0[0].len(), LINE_MAX_BYTES);
    }
}
