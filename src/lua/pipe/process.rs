//! A process, and waiting for its end.

use super::reading::{Outlet, Output};
use super::side::{Fault, Patience};
use super::writing::Inlet;
use crate::event::{self, Watch};
use crate::io::Pipe;
use crate::log;
use crate::lua::socket::{Life, Mortal, words};
use crate::lua::vm::{Operation, Stack, Value};
use crate::sys::child::{self, NotStarted, Order, Report};
use crate::sys::process::{Ended, Fate, fate};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// The most bytes of one read.
const CHUNK_MAX: usize = 64 << 10;
/// `SIGKILL`
const KILL: i32 = 9;

/// A process that Lua started.
pub struct Process {
    child: Rc<Child>,
    stdin: Inlet,
    stdout: Outlet,
    /// None if it goes where the output goes.
    stderr: Option<Outlet>,
    pub(super) chunk_bytes: usize,
    /// Its end was given to Lua, or nobody wants it any more.
    is_closed: Cell<bool>,
    is_awaited: Cell<bool>,
}

impl Process {
    /// Starts one for the code that runs now.
    pub fn start(order: &Order<'_>, chunk_bytes: usize) -> Result<Rc<Process>, NotStarted> {
        let started = child::start(order)?;
        let child = Rc::new(Child {
            pid: started.pid,
            end: Cell::new(None),
            waiter: RefCell::default(),
            report: RefCell::new(started.report),
            name: order.file.to_string_lossy().into_owned(),
        });
        let process = (|| {
            Ok(Rc::new(Process {
                child: child.clone(),
                stdin: Inlet::new(Pipe::new(started.stdin)?),
                stdout: Outlet::new(Pipe::new(started.stdout)?),
                stderr: started.stderr.map(Pipe::new).transpose()?.map(Outlet::new),
                chunk_bytes: chunk_bytes.clamp(1, CHUNK_MAX),
                is_closed: Cell::new(false),
                is_awaited: Cell::new(false),
            }))
        })();
        let watched = Watch::new(started.end).map(|end| event::spawn(child.clone().watch(end)));
        let failed = |error| NotStarted { what: "epoll_ctl", error };
        let process = process.and_then(|process| watched.map(|_| process)).map_err(|error| {
            child.kill();
            failed(error)
        })?;
        if let Some(life) = Life::current() {
            let weak: Weak<Process> = Rc::downgrade(&process);
            life.adopt(weak);
        }
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// An output; `None` if it has none of its own.
    pub fn outlet(&self, from: Output) -> Option<&Outlet> {
        match from {
            Output::Stdout => Some(&self.stdout),
            Output::Stderr => self.stderr.as_ref(),
        }
    }

    pub fn inlet(&self) -> &Inlet {
        &self.stdin
    }

    /// How it has ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.child.look()
    }

    /// Closes our ends; it may run on.
    pub fn close(&self) {
        self.is_closed.set(true);
        let fault = || if self.ended().is_some() { Fault::Closed } else { Fault::Aborted };
        self.stdin.side.stop(fault());
        self.stdout.side.stop(fault());
        self.stderr.iter().for_each(|outlet| outlet.side.stop(fault()));
    }

    /// Lets go of it, and kills it if it runs.
    pub fn destroy(&self) {
        self.child.kill();
        self.close();
    }
}

impl Mortal for Process {
    fn end(&self) {
        self.destroy();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Who runs, or has run.
struct Child {
    pid: u32,
    end: Cell<Option<End>>,
    waiter: RefCell<Option<Waker>>,
    report: RefCell<Report>,
    name: String,
}

impl Child {
    /// Takes its end when it comes, whether or not anybody waits for it.
    async fn watch(self: Rc<Child>, end: Watch<OwnedFd>) {
        while self.look().is_none() {
            end.readable().await;
        }
    }

    fn look(&self) -> Option<End> {
        if self.end.get().is_none() {
            let end = match fate(self.pid) {
                Fate::Runs => return None,
                Fate::Ended(Ended::Exited(status)) => End::Exit(status),
                Fate::Ended(Ended::Killed { signal, .. }) => End::Signal(signal),
                Fate::Unknown => End::Unknown,
            };
            self.end.set(Some(end));
            if let Some(error) = self.report.borrow_mut().failure() {
                let (name, error) = (&self.name, log::Os(&error));
                log::error!("lua pipe child execvp() failed while executing {name}{error}");
            }
            if let Some(waiter) = self.waiter.take() {
                waiter.wake();
            }
        }
        self.end.get()
    }

    /// Kills it if it runs; whoever watches it takes its end.
    fn kill(&self) {
        if self.look().is_none()
            && let Err(error) = child::signal(self.pid, KILL)
        {
            log::error!("lua pipe failed to kill process {}{}", self.pid, log::Os(&error));
        }
    }
}

/// Sends a signal: what Lua is told if that cannot be done.
pub fn kill(process: &Process, signal: i32) -> Result<(), String> {
    const EINVAL: i32 = 22;
    const ESRCH: i32 = 3;
    if process.is_closed() || process.ended().is_some() {
        return Err("exited".into());
    }
    child::signal(process.pid(), signal).map_err(|error| match error.raw_os_error() {
        Some(EINVAL) => "invalid signal".into(),
        Some(ESRCH) => "exited".into(),
        _ => words(&error),
    })
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// Somebody else took it.
    Unknown,
}

impl End {
    /// The reason and the status, as Lua gets them.
    pub fn told(self) -> (&'static CStr, i32) {
        match self {
            End::Exit(status) => (c"exit", status),
            End::Signal(signal) => (c"signal", signal),
            End::Unknown => (c"unknown", -1),
        }
    }
}

/// Begins to wait for the end.
pub fn wait(
    process: &Rc<Process>,
    timeout: Duration,
) -> Result<Result<End, Box<dyn Operation>>, &'static str> {
    if process.is_closed() {
        return Err("exited");
    }
    if process.is_awaited.get() {
        return Err("pipe busy waiting");
    }
    if let Some(end) = process.ended() {
        process.close();
        return Ok(Ok(end));
    }
    process.is_awaited.set(true);
    let patience = Patience::new(timeout);
    Ok(Err(Box::new(Waiting { process: process.clone(), patience, waits: true })))
}

/// A wait under way.
struct Waiting {
    process: Rc<Process>,
    patience: Patience,
    waits: bool,
}

impl Waiting {
    fn rest(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.process.is_awaited.set(false);
            drop(self.process.child.waiter.take());
        }
    }
}

impl Operation for Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.process.ended().is_none() {
            self.process.child.waiter.replace(Some(cx.waker().clone()));
            ready!(self.patience.deadline.poll(cx));
        }
        self.rest();
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        let Some(end) = self.process.ended() else {
            return stack.refuse("timeout");
        };
        self.process.close();
        let (reason, status) = end.told();
        stack.push_truth(status == 0);
        stack.push_text(reason.to_bytes());
        stack.push(&Value::Number(f64::from(status)));
        3
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.rest();
    }
}
