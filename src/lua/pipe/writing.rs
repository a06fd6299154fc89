//! What a process reads, and writing it.

use super::process::Process;
use super::side::{Fault, Patience, Side};
use crate::io::Pipe;
use crate::lua::vm::{Operation, Stack};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// What the process reads.
pub struct Inlet {
    pub(super) side: Side,
    /// What the last write came to.
    written: RefCell<Option<Result<usize, Fault>>>,
}

impl Inlet {
    pub(super) fn new(pipe: Pipe) -> Inlet {
        Inlet { side: Side::new(pipe), written: RefCell::default() }
    }

    pub fn shut(&self) {
        self.side.stop(Fault::Aborted);
    }

    pub fn take_result(&self) -> Result<usize, Fault> {
        self.written.take().unwrap_or(Err(Fault::Closed))
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        sent: &mut usize,
    ) -> Poll<Result<(), Fault>> {
        let pipe = self.side.pipe.borrow();
        let Some(pipe) = &*pipe else { return Poll::Ready(Err(Fault::Closed)) };
        while *sent < bytes.len() {
            *sent += ready!(pipe.poll_write(cx, &bytes[*sent..]))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Begins to write: the operation that goes on with it, if not all went.
pub fn write(
    process: &Rc<Process>,
    bytes: &[u8],
    timeout: Duration,
) -> Result<Option<Box<dyn Operation>>, Cow<'static, str>> {
    if process.is_closed() {
        return Err("closed".into());
    }
    let inlet = &process.inlet();
    if let Some(why) = inlet.side.objection("pipe busy writing") {
        return Err(why.into());
    }
    let (mut sent, mut nobody) = (0, Context::from_waker(Waker::noop()));
    match inlet.poll_write(&mut nobody, bytes, &mut sent) {
        Poll::Ready(Ok(())) => Ok(None),
        Poll::Ready(Err(fault)) => Err(fault.text()),
        Poll::Pending => {
            inlet.side.is_busy.set(true);
            Ok(Some(Box::new(Writing {
                process: process.clone(),
                length: bytes.len(),
                rest: bytes[sent..].to_vec(),
                sent: 0,
                patience: Patience::new(timeout),
                waits: true,
            })))
        }
    }
}

/// A write under way.
struct Writing {
    process: Rc<Process>,
    length: usize,
    rest: Vec<u8>,
    sent: usize,
    patience: Patience,
    waits: bool,
}

impl Writing {
    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let inlet = &self.process.inlet();
        if let Some(fault) = inlet.side.poll_stop(cx) {
            drop(inlet.side.pipe.take());
            return Poll::Ready(Err(fault));
        }
        let before = self.sent;
        if let Poll::Ready(result) = inlet.poll_write(cx, &self.rest, &mut self.sent) {
            return Poll::Ready(result);
        }
        if self.sent > before {
            self.patience.renew();
        }
        self.patience.deadline.poll(cx).map(|_| Err(Fault::Timeout))
    }

    fn rest(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.process.inlet().side.rest();
        }
    }
}

impl Operation for Writing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let result = ready!(self.poll_result(cx));
        self.process.inlet().written.replace(Some(result.map(|()| self.length)));
        self.rest();
        Poll::Ready(())
    }

    fn finish(&mut self, _: &mut Stack) -> c_int {
        0
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.rest();
    }
}
