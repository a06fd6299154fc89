//! Bytes, or a range of a file: what bodies are made of.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::warm::{Warming, Warmth};
use super::{Buf, Size, Slice};
use crate::sys::file::{self, Facts, TempFile};

/// A file whose ranges are sent.
pub struct OpenFile {
    content: Content,
    facts: Option<Facts>,
    warmth: Warmth,
    direct: OnceCell<Direct>,
}

/// How a file is read past the kernel's cache.
pub(super) struct Direct {
    pub fd: Arc<OwnedFd>,
    /// What the device wants offsets to be multiples of, bytes.
    pub align: usize,
}

enum Content {
    Opened(Arc<OwnedFd>),
    Temporary(TempFile),
}

impl OpenFile {
    /// Opens a file and asks for its facts.
    pub fn open(path: &Path) -> io::Result<OpenFile> {
        let fd = file::open(path)?;
        let facts = file::facts_of(fd.as_fd())?;
        Ok(OpenFile::new(fd, facts))
    }

    /// A file that was opened elsewhere.
    pub fn new(fd: OwnedFd, facts: Facts) -> OpenFile {
        OpenFile::of(Content::Opened(Arc::new(fd)), Some(facts))
    }

    /// A temporary file, as far as it was written.
    pub fn temporary(file: TempFile) -> OpenFile {
        OpenFile::of(Content::Temporary(file), None)
    }

    fn of(content: Content, facts: Option<Facts>) -> OpenFile {
        OpenFile { content, facts, warmth: Warmth::default(), direct: OnceCell::new() }
    }

    /// From here on a [`super::Chain`] reads it past the kernel's cache, by threads. `align` is a
    /// power of two.
    pub fn read_past_cache(&self, align: usize) -> io::Result<()> {
        if self.direct.get().is_none() {
            let fd = Arc::new(file::open_direct(self.as_fd())?);
            let _ = self.direct.set(Direct { fd, align });
        }
        Ok(())
    }

    pub(super) fn direct(&self) -> Option<&Direct> {
        self.direct.get()
    }

    /// Bytes it had when it was opened.
    pub fn size(&self) -> u64 {
        match (&self.content, &self.facts) {
            (Content::Temporary(file), _) => file.len(),
            (_, Some(facts)) => facts.size,
            (_, None) => 0,
        }
    }

    /// What the file system said when it was opened; nothing of a temporary file.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// The name of a temporary file.
    pub fn temporary_path(&self) -> Option<&Path> {
        match &self.content {
            Content::Temporary(file) => Some(file.path()),
            Content::Opened(_) => None,
        }
    }

    /// Reads at offset `at`; 0 is the end.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        file::read_at(self.as_fd(), buf, at)
    }

    /// Ready when so many bytes at `at` can be read without waiting for the disk, as far as can be
    /// told. A temporary file was written just now.
    pub(super) fn poll_warm(
        &self,
        warming: &mut Warming,
        cx: &mut Context<'_>,
        range: (u64, u64),
    ) -> Poll<()> {
        match &self.content {
            Content::Opened(fd) => self.warmth.poll(fd, warming, cx, range),
            Content::Temporary(_) => Poll::Ready(()),
        }
    }

    /// Fills all of `buf` from offset `at`; a file that ends before is `UnexpectedEof`.
    pub fn read_exact_at(&self, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, at)? {
                0 => return Err(truncated()),
                n => {
                    buf = &mut buf[n..];
                    at += n as u64;
                }
            }
        }
        Ok(())
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.content {
            Content::Opened(fd) => fd.as_fd(),
            Content::Temporary(file) => file.fd(),
        }
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFile({} bytes)", self.size())
    }
}

/// The file became shorter while it was sent.
pub(super) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file was truncated")
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Chunk {
    Mem(Slice),
    File { file: Rc<OpenFile>, at: u64, len: u64 },
}

impl Chunk {
    pub fn len(&self) -> u64 {
        match self {
            Chunk::Mem(bytes) => bytes.len() as u64,
            Chunk::File { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first `n` bytes off and returns them, without reading or copying.
    pub fn split_to(&mut self, n: u64) -> Chunk {
        assert!(n <= self.len(), "the range lies within the chunk");
        match self {
            Chunk::Mem(bytes) => Chunk::Mem(bytes.split_to(n as usize)),
            Chunk::File { file, at, len } => {
                let first = Chunk::File { file: file.clone(), at: *at, len: n };
                (*at, *len) = (*at + n, *len - n);
                first
            }
        }
    }

    /// Drops the first `n` bytes.
    pub fn advance(&mut self, n: u64) {
        assert!(n <= self.len(), "the range lies within the chunk");
        match self {
            Chunk::Mem(bytes) => bytes.advance_by(n as usize),
            Chunk::File { at, len, .. } => (*at, *len) = (*at + n, *len - n),
        }
    }

    /// Keeps the first `n` bytes.
    pub fn truncate(&mut self, n: u64) {
        assert!(n <= self.len(), "the range lies within the chunk");
        match self {
            Chunk::Mem(bytes) => bytes.truncate(n as usize),
            Chunk::File { len, .. } => *len = n,
        }
    }

    /// The bytes at its front, read if they are in a file: all of a `Mem`, at most 64 KiB of a
    /// file. The chunk keeps the rest. For filters that look at bytes.
    pub fn take_bytes(&mut self) -> io::Result<Slice> {
        let (file, at, len) = match self {
            Chunk::Mem(bytes) => return Ok(std::mem::take(bytes)),
            Chunk::File { file, at, len } => (file, at, len),
        };
        let wanted = (*len).min(Size::Large.bytes() as u64) as usize;
        let size = Size::for_bytes(wanted).expect("no more than the largest is wanted");
        let mut buf = Buf::new(size);
        file.read_exact_at(&mut buf.spare()[..wanted], *at)?;
        buf.fill(wanted);
        (*at, *len) = (*at + wanted as u64, *len - wanted as u64);
        Ok(buf.freeze())
    }

    /// Appends all bytes, read if they are in a file, to `bytes`. The caller bounds the length.
    pub fn append_to(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Chunk::Mem(part) => bytes.extend_from_slice(part),
            Chunk::File { file, at, len } => {
                let start = bytes.len();
                let len = usize::try_from(*len).map_err(|_| io::ErrorKind::OutOfMemory)?;
                bytes.resize(start + len, 0);
                file.read_exact_at(&mut bytes[start..], *at)?;
            }
        }
        Ok(())
    }
}

impl From<Slice> for Chunk {
    fn from(bytes: Slice) -> Chunk {
        Chunk::Mem(bytes)
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Chunk {
        Chunk::Mem(bytes.into())
    }
}

impl From<&'static str> for Chunk {
    fn from(text: &'static str) -> Chunk {
        Chunk::Mem(text.into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::file::Keep;

    pub fn file(bytes: &[u8]) -> Rc<OpenFile> {
        let mut file = TempFile::create(&std::env::temp_dir(), &[], Keep::Nameless).unwrap();
        file.append(bytes).unwrap();
        Rc::new(OpenFile::temporary(file))
    }

    #[test]
    fn a_range_of_a_file_is_cut_and_read() {
        let mut chunk = Chunk::File { file: file(b"0123456789"), at: 2, len: 6 };
        let mut first = chunk.split_to(2);
        assert_eq!(&*first.take_bytes().unwrap(), b"23");
        assert!(first.is_empty());
        chunk.advance(1);
        let mut all = b"x".to_vec();
        chunk.append_to(&mut all).unwrap();
        assert_eq!(all, b"x567");
        chunk.truncate(1);
        assert_eq!(chunk.len(), 1);
    }

    #[test]
    fn a_large_file_is_read_in_parts() {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut chunk = Chunk::File { file: file(&bytes), at: 0, len: 100_000 };
        assert_eq!(&*chunk.take_bytes().unwrap(), &bytes[..65_536]);
        assert_eq!(&*chunk.take_bytes().unwrap(), &bytes[65_536..]);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let mut chunk = Chunk::File { file: file(b"abc"), at: 0, len: 5 };
        assert_eq!(chunk.take_bytes().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
