//! What a process writes, and reading it.

use super::process::Process;
use super::side::{Fault, Patience, Side};
use crate::io::Pipe;
use crate::lua::socket::{Got, Inbox, RECEIVED_MAX, Want};
use crate::lua::vm::{Operation, Stack};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// One of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// What the process writes.
pub struct Outlet {
    pub(super) side: Side,
    inbox: RefCell<Inbox>,
    is_at_end: Cell<bool>,
    /// What the last read came to, until Lua has fetched it.
    read: RefCell<Option<Read>>,
}

/// What a read came to.
pub struct Read {
    pub bytes: Vec<u8>,
    pub fault: Option<Fault>,
}

impl Outlet {
    pub(super) fn new(pipe: Pipe) -> Outlet {
        Outlet {
            side: Side::new(pipe),
            inbox: RefCell::default(),
            is_at_end: Cell::new(false),
            read: RefCell::default(),
        }
    }

    pub fn shut(&self) {
        self.side.stop(Fault::Aborted);
    }

    /// Hands the result out if there is room for it; else says how much it needs.
    pub fn fetch(&self, room: usize) -> Result<Read, usize> {
        let closed = || Read { bytes: Vec::new(), fault: Some(Fault::Closed) };
        let read = self.read.take().unwrap_or_else(closed);
        let length = read.bytes.len();
        if length > room {
            self.read.replace(Some(read));
            return Err(length);
        }
        Ok(read)
    }

    /// Why what was begun failed; `None` if it did not, or was fetched.
    pub fn fault(&self) -> Option<Cow<'static, str>> {
        self.read.borrow().as_ref()?.fault.as_ref().map(Fault::text)
    }

    /// Reads something into the inbox: false at the end.
    fn poll_fill(&self, cx: &mut Context<'_>, chunk_bytes: usize) -> Poll<Result<bool, Fault>> {
        if self.inbox.borrow().len() > RECEIVED_MAX {
            return Poll::Ready(Err(Fault::NoMemory));
        }
        let pipe = self.side.pipe.borrow();
        let Some(pipe) = &*pipe else { return Poll::Ready(Err(Fault::Closed)) };
        let mut chunk = vec![0; chunk_bytes];
        let count = ready!(pipe.poll_read(cx, &mut chunk))?;
        self.inbox.borrow_mut().push(&chunk[..count]);
        self.is_at_end.set(count == 0);
        Poll::Ready(Ok(count > 0))
    }
}

/// Begins to read: the operation that goes on with it, if there is not enough yet.
pub fn read(
    process: &Rc<Process>,
    from: Output,
    want: Want,
    timeout: Duration,
) -> Result<Option<Box<dyn Operation>>, &'static str> {
    if process.is_closed() {
        return Err("closed");
    }
    let outlet = process.outlet(from).ok_or("merged to stdout")?;
    if let Some(why) = outlet.side.objection("pipe busy reading") {
        return Err(why);
    }
    let patience = Patience::new(timeout);
    let mut reading = Reading { process: process.clone(), from, want, patience, waits: false };
    let mut nobody = Context::from_waker(Waker::noop());
    if reading.advance(&mut nobody).is_ready() {
        return Ok(None);
    }
    reading.waits = true;
    outlet.side.is_busy.set(true);
    Ok(Some(Box::new(reading)))
}

/// A read under way.
struct Reading {
    process: Rc<Process>,
    from: Output,
    want: Want,
    patience: Patience,
    waits: bool,
}

impl Reading {
    fn outlet(&self) -> &Outlet {
        self.process.outlet(self.from).expect("it began with this one")
    }

    /// Reads until it has what is wanted, or never will, and keeps that for Lua.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let process = self.process.clone();
        let outlet = process.outlet(self.from).expect("it began with this one");
        loop {
            let got = self.want.look(outlet.inbox.borrow().bytes(), outlet.is_at_end.get());
            match got {
                Some(Got::Text { len, skip }) => self.keep(len, skip, None),
                Some(Got::Failed(_, len)) => self.keep(len, 0, Some(Fault::Closed)),
                Some(Got::Over) => self.keep(0, 0, Some(Fault::Closed)),
                None => match ready!(outlet.poll_fill(cx, process.chunk_bytes)) {
                    Ok(_) => {
                        self.patience.renew();
                        continue;
                    }
                    Err(fault) => self.fail(fault),
                },
            }
            return Poll::Ready(());
        }
    }

    fn fail(&self, fault: Fault) {
        let partial = self.want.partial(self.outlet().inbox.borrow().bytes());
        self.keep(partial, 0, Some(fault));
    }

    fn keep(&self, len: usize, skip: usize, fault: Option<Fault>) {
        let outlet = self.outlet();
        let mut inbox = outlet.inbox.borrow_mut();
        let bytes = self.want.cleaned(&inbox.bytes()[..len]).into_owned();
        inbox.take(len + skip);
        outlet.read.replace(Some(Read { bytes, fault }));
    }

    /// Somebody has closed our end. What a process that has ended left behind is read yet.
    fn stop(&mut self, fault: Fault, cx: &mut Context<'_>) {
        match fault {
            Fault::Closed if self.advance(cx).is_ready() => {
                if let Some(read) = &mut *self.outlet().read.borrow_mut() {
                    read.fault = Some(fault);
                }
            }
            fault => self.fail(fault),
        }
        drop(self.outlet().side.pipe.take());
    }

    fn rest(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.outlet().side.rest();
        }
    }
}

impl Operation for Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(fault) = self.outlet().side.poll_stop(cx) {
            self.stop(fault, cx);
        } else if self.advance(cx).is_pending() {
            ready!(self.patience.deadline.poll(cx));
            self.fail(Fault::Timeout);
        }
        self.rest();
        Poll::Ready(())
    }

    fn finish(&mut self, _: &mut Stack) -> c_int {
        0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.rest();
    }
}
