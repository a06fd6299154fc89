//! What waits for a program to read it: bounded, and dropped when it does not.

use crate::event::Notify;
use crate::io::Pipe;
use std::cell::{Cell, RefCell};
use std::io;

/// Bytes that may wait; as many may be on their way into the pipe.
const WAITING_MAX_BYTES: usize = 256 << 10;

/// Lines for one program.
#[derive(Default)]
pub struct Outbox {
    waiting: RefCell<Vec<u8>>,
    filled: Notify,
    /// A program is there to read.
    open: Cell<bool>,
    dropped: Cell<u64>,
}

impl Outbox {
    /// Adds whole lines, or drops and counts them.
    pub fn push(&self, lines: &[u8], count: u64) {
        let mut waiting = self.waiting.borrow_mut();
        if !self.open.get() || waiting.len() + lines.len() > WAITING_MAX_BYTES {
            self.dropped.set(self.dropped.get() + count);
            return;
        }
        waiting.extend_from_slice(lines);
        drop(waiting);
        self.filled.notify_one();
    }

    /// How many lines were dropped since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.take()
    }

    /// A program has come, or gone: what waits was not for the next one.
    pub fn open(&self, open: bool) {
        self.open.set(open);
        self.waiting.borrow_mut().clear();
    }

    /// Writes what comes into a program's standard input, until that is closed.
    pub async fn pour(&self, into: &Pipe) -> io::Result<()> {
        loop {
            let lines = self.waiting.take();
            match lines.is_empty() {
                true => self.filled.notified().await,
                false => into.write_all(&lines).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_dropped() {
        let outbox = Outbox::default();
        outbox.push(b"x\n", 1);
        outbox.open(true);
        let line = [b'x'; 1000];
        (0..1000).for_each(|_| outbox.push(&line, 1));
        assert_eq!(outbox.waiting.borrow().len(), WAITING_MAX_BYTES / 1000 * 1000);
        assert_eq!(outbox.take_dropped(), 1 + 1000 - WAITING_MAX_BYTES as u64 / 1000);
        assert_eq!(outbox.take_dropped(), 0);
    }
}
