//! What our ends of the pipes share: who works on one, and why that stops.

use crate::event::Deadline;
use crate::io::Pipe;
use crate::lua::socket::words;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Waker};
use std::time::Duration;

/// One of our ends.
pub struct Side {
    pub pipe: RefCell<Option<Pipe>>,
    pub is_busy: Cell<bool>,
    /// Why the operation under way is to end.
    stop: RefCell<Option<Fault>>,
    waker: RefCell<Option<Waker>>,
}

impl Side {
    pub fn new(pipe: Pipe) -> Side {
        Side {
            pipe: RefCell::new(Some(pipe)),
            is_busy: Cell::new(false),
            stop: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// Why no operation may begin, if so.
    pub fn objection(&self, busy: &'static str) -> Option<&'static str> {
        match (&*self.pipe.borrow(), self.is_busy.get()) {
            (None, _) => Some("closed"),
            (_, true) => Some(busy),
            _ => None,
        }
    }

    /// Closes it; an operation under way closes it when it has seen the fault.
    pub fn stop(&self, fault: Fault) {
        if !self.is_busy.get() {
            drop(self.pipe.take());
            return;
        }
        self.stop.replace(Some(fault));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The operation under way ends, or is told so by somebody.
    pub fn poll_stop(&self, cx: &mut Context<'_>) -> Option<Fault> {
        let fault = self.stop.take();
        match fault.is_some() {
            true => drop(self.waker.take()),
            false => drop(self.waker.replace(Some(cx.waker().clone()))),
        }
        fault
    }

    /// Nothing is under way any more.
    pub fn rest(&self) {
        self.is_busy.set(false);
        drop(self.waker.take());
        if self.stop.take().is_some() {
            // Given up before it saw that it was to end.
            drop(self.pipe.take());
        }
    }
}

/// The time that an operation has between two signs of life.
pub struct Patience {
    time: Duration,
    pub deadline: Deadline,
}

impl Patience {
    /// No time is all the time.
    pub fn new(time: Duration) -> Patience {
        let patience = Patience { time, deadline: Deadline::never() };
        patience.renew();
        patience
    }

    pub fn renew(&self) {
        if !self.time.is_zero() {
            self.deadline.set_after(self.time);
        }
    }
}

/// Why an operation failed.
#[derive(Debug)]
pub enum Fault {
    /// There is nobody at the other end, or our end is closed.
    Closed,
    /// Our end was closed while the operation was under way.
    Aborted,
    Timeout,
    /// More came than is kept.
    NoMemory,
    Os(io::Error),
}

impl Fault {
    /// As Lua gets it.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Fault::Closed => "closed".into(),
            Fault::Aborted => "aborted".into(),
            Fault::Timeout => "timeout".into(),
            Fault::NoMemory => "no memory".into(),
            Fault::Os(error) => words(error).into(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::Closed,
            _ => Fault::Os(error),
        }
    }
}
