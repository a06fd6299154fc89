//! Many faults, few lines in the log.

use crate::event;
use crate::log;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// The least time between two lines about one thing.
const PAUSE: Duration = Duration::from_secs(10);
/// How much of a foreign text is shown, bytes.
const SHOWN_BYTES: usize = 120;

/// Counts the faults of one kind and tells the log at most every ten seconds.
pub struct Complaint {
    /// Who and what: `helper "feed": lines were not taken`.
    about: String,
    total: Cell<u64>,
    told: Cell<u64>,
    next: Cell<Option<Instant>>,
    last: RefCell<String>,
}

impl Complaint {
    pub fn new(about: String) -> Complaint {
        let (total, told, next) = (Cell::new(0), Cell::new(0), Cell::new(None));
        Complaint { about, total, told, next, last: RefCell::default() }
    }

    /// Counts `count` faults, with the reason and the text of the last one.
    pub fn count(&self, count: u64, why: &dyn Display, text: &[u8]) {
        self.total.set(self.total.get() + count);
        let now = event::now();
        if self.next.get().is_some_and(|next| now < next) {
            if self.last.borrow().is_empty() {
                *self.last.borrow_mut() = describe(why, text);
            }
            return;
        }
        self.next.set(Some(now + PAUSE));
        *self.last.borrow_mut() = describe(why, text);
        self.tell();
    }

    /// Tells what has not been told yet, if enough time is over.
    pub fn tell_due(&self) {
        let now = event::now();
        if self.total.get() > self.told.get() && self.next.get().is_none_or(|next| now >= next) {
            self.next.set(Some(now + PAUSE));
            self.tell();
        }
    }

    /// Tells what has not been told yet.
    pub fn tell(&self) {
        let (total, told) = (self.total.get(), self.told.replace(self.total.get()));
        if total > told {
            let last = std::mem::take(&mut *self.last.borrow_mut());
            log::warn!("{}: {} more, {total} in all, such as {last}", self.about, total - told);
        }
    }
}

fn describe(why: &dyn Display, text: &[u8]) -> String {
    if text.is_empty() {
        return why.to_string();
    }
    let shown = &text[..text.len().min(SHOWN_BYTES)];
    format!("\"{}\" ({why})", shown.escape_ascii())
}
