//! Lines that code of this process wants to read back: a bounded queue beside the targets.
//!
//! A line is kept if some target took it and its level is not below the filter's. When the queue is
//! full the oldest lines go.

use super::Level;
use crate::sys::time;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a line counts beside its bytes.
const OVERHEAD: usize = 16;

/// A line that was kept, without its line feed.
pub struct Captured {
    pub level: Level,
    pub unix_ms: u64,
    pub line: Box<[u8]>,
}

#[derive(Default)]
struct Queue {
    /// Bytes that it may hold; 0: nobody wants any.
    size: usize,
    used: usize,
    /// The most talkative level that is kept; `None` keeps nothing.
    up_to: Option<Level>,
    lines: VecDeque<Captured>,
}

/// Whether anybody wants lines: so that others pay one load.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { size: 0, used: 0, up_to: None, lines: VecDeque::new() });

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps lines from now on, in so many bytes; none with 0. One that is kept so already goes on.
pub fn capture(size: usize) {
    let mut queue = queue();
    if queue.size != size {
        *queue = Queue { size, up_to: Some(Level::Debug), ..Queue::default() };
        IS_WANTED.store(size > 0, Relaxed);
    }
}

/// Keeps lines of this level and graver ones only. False if none are kept at all.
pub fn capture_up_to(level: Option<Level>) -> bool {
    let mut queue = queue();
    queue.up_to = level;
    queue.size > 0
}

/// Takes the oldest line. The outer `None`: none are kept at all.
pub fn next_captured() -> Option<Option<Captured>> {
    let mut queue = queue();
    let is_kept = queue.size > 0;
    is_kept.then(|| queue.pop())
}

pub(super) fn keep(level: Level, line: &[u8]) {
    if IS_WANTED.load(Relaxed) {
        queue().push(Captured { level, unix_ms: time::unix_ms(), line: line.into() });
    }
}

impl Queue {
    fn push(&mut self, captured: Captured) {
        let cost = captured.line.len() + OVERHEAD;
        if self.up_to.is_none_or(|up_to| captured.level > up_to) || cost > self.size {
            return;
        }
        while self.used + cost > self.size && self.pop().is_some() {}
        self.used += cost;
        self.lines.push_back(captured);
    }

    fn pop(&mut self) -> Option<Captured> {
        let oldest = self.lines.pop_front()?;
        self.used -= oldest.line.len() + OVERHEAD;
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go() {
        let mut queue = Queue { size: 60, up_to: Some(Level::Error), ..Queue::default() };
        let line = |level, text: &[u8]| Captured { level, unix_ms: 0, line: text.into() };
        for text in [&b"one"[..], b"two", b"three", &[b'x'; 100]] {
            queue.push(line(Level::Error, text));
        }
        queue.push(line(Level::Info, b"talk"));
        let kept = std::iter::from_fn(|| queue.pop()).map(|c| c.line.into_vec());
        assert_eq!(kept.collect::<Vec<_>>().concat(), b"onetwothree");
        assert_eq!(queue.used, 0);
        queue.size = 40;
        for text in [&b"one"[..], b"two", b"three"] {
            queue.push(line(Level::Crit, text));
        }
        assert_eq!(queue.pop().map(|c| c.line.into_vec()), Some(b"two".to_vec()));
    }
}
