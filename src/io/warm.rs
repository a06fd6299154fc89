//! Files that are not in the kernel's memory: a thread reads them before the loop does.
//!
//! Before a stretch of a file is sent, its first and last byte are asked for in a way that never
//! waits for the disk. If one is missing, a thread reads the stretch, which leaves it in memory;
//! the loop serves others meanwhile. What was found in memory is believed for a second, so a file
//! from `open_file_cache` under load is asked for nothing.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::event::{self, Offloaded, offload};
use crate::sys::file;

use super::chunk::Direct;

/// Bytes that are looked at, read and sent at a time.
pub(super) const STRETCH_BYTES: u64 = 1 << 20;
/// How long a stretch found in memory is believed to stay there.
const BELIEVED: Duration = Duration::from_secs(1);
/// Bytes a thread reads at a time.
const PART_BYTES: usize = 128 << 10;

/// A thread's reading past the kernel's cache, under way.
#[derive(Default)]
pub(super) struct Loading(Option<Offloaded<io::Result<Vec<u8>>>>);

impl Loading {
    /// Bytes of `file` at `at`, at most `len`; none if the file ended. If no thread has time, the
    /// loop reads itself.
    pub fn poll(
        &mut self,
        file: &Direct,
        cx: &mut Context<'_>,
        at: u64,
        len: usize,
    ) -> Poll<io::Result<Vec<u8>>> {
        let align = file.align;
        if self.0.is_none() {
            let fd = file.fd.clone();
            match offload(move || file::read_direct(fd.as_fd(), at, len, align)) {
                Ok(job) => self.0 = Some(job),
                Err(_) => return Poll::Ready(file::read_direct(file.fd.as_fd(), at, len, align)),
            }
        }
        let job = self.0.as_mut().expect("just begun");
        let done = ready!(std::pin::Pin::new(job).poll(cx));
        self.0 = None;
        Poll::Ready(done.unwrap_or_else(|lost| Err(io::Error::other(lost.to_string()))))
    }
}

/// What is known of a file's place in memory.
#[derive(Clone, Copy)]
struct Stretch {
    from: u64,
    to: u64,
    seen: Instant,
}

/// A thread's reading under way.
#[derive(Default)]
pub(super) struct Warming(Option<Offloaded<()>>);

/// Remembers the stretch of a file that was found in memory last.
#[derive(Default)]
pub(super) struct Warmth(Cell<Option<Stretch>>);

impl Warmth {
    /// Ready when `len` bytes at `at`, at most a stretch, are in memory as far as can be told; at
    /// once if no thread has time to read them.
    pub fn poll(
        &self,
        file: &Arc<OwnedFd>,
        warming: &mut Warming,
        cx: &mut Context<'_>,
        (at, len): (u64, u64),
    ) -> Poll<()> {
        if warming.0.is_none() {
            if self.believes(at, len) || in_memory(file, at, len) {
                self.remember(at, len);
                return Poll::Ready(());
            }
            let file = file.clone();
            let Ok(job) = offload(move || read_through(&file, at, len)) else {
                return Poll::Ready(());
            };
            warming.0 = Some(job);
        }
        if let Some(job) = &mut warming.0
            && std::pin::Pin::new(job).poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        // Whether or not the thread succeeded: the next read tells what is wrong.
        warming.0 = None;
        self.remember(at, len);
        Poll::Ready(())
    }

    fn believes(&self, at: u64, len: u64) -> bool {
        let is_within =
            |s: Stretch| s.from <= at && at + len <= s.to && event::now() < s.seen + BELIEVED;
        self.0.get().is_some_and(is_within)
    }

    /// A part of what is believed already does not make the belief younger.
    fn remember(&self, at: u64, len: u64) {
        if !self.believes(at, len) {
            self.0.set(Some(Stretch { from: at, to: at + len, seen: event::now() }));
        }
    }
}

fn in_memory(file: &OwnedFd, at: u64, len: u64) -> bool {
    let is_there = |at| match file::read_at_cached(file.as_fd(), &mut [0], at) {
        Ok(_) => true,
        // Other errors are no word about memory (a file system that cannot tell, a bad disk).
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    is_there(at) && is_there(at + len.saturating_sub(1))
}

fn read_through(file: &OwnedFd, mut at: u64, len: u64) {
    let (end, mut part) = (at + len, vec![0; PART_BYTES]);
    while at < end {
        let wanted = (end - at).min(PART_BYTES as u64) as usize;
        match file::read_at(file.as_fd(), &mut part[..wanted], at) {
            Ok(read @ 1..) => at += read as u64,
            _ => return,
        }
    }
}
