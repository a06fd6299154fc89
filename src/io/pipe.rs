//! One end of a pipe to a program: bytes in one direction.

use crate::event::{Direction, Source, Trigger};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

/// One end of a pipe, nonblocking.
pub struct Pipe {
    // In front: it is taken off the loop before the file is closed.
    source: Source,
    file: File,
}

impl Pipe {
    pub fn new(file: File) -> io::Result<Pipe> {
        Ok(Pipe { source: Source::new(file.as_fd(), Trigger::Edge)?, file })
    }

    /// Reads what there is: how many bytes; 0 is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.attempt(Direction::Read, cx, |mut file| file.read(buf))
    }

    /// Writes as much as there is room for: how many bytes.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.attempt(Direction::Write, cx, |mut file| file.write(bytes))
    }

    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of it, waiting for the reader; bound it in time or drop it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let done = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[done..];
        }
        Ok(())
    }

    fn attempt(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&File) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(direction, cx));
            match call(&self.file) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.source.clear(direction),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}
