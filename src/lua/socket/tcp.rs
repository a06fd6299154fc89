//! A stream socket as Lua holds it.

use super::fault::Fault;
use super::inbox::Inbox;
use super::life::{Around, Life, Mortal, Speaker};
use super::pool::Seat;
use super::settings::Settings;
use crate::event::Deadline;
use crate::http::{Body, Pull};
use crate::io::{Conn, Stream};
use crate::log;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The most bytes that are received at once.
pub const RECEIVED_MAX: usize = 512 << 20;
/// The most bytes of one read where many are wanted.
const READ_MAX: usize = crate::io::SCRATCH_BYTES;

/// A stream socket: one that was connected, or the client's.
pub struct Tcp {
    owner: Weak<Life>,
    pub speaker: Speaker,
    settings: RefCell<Rc<Settings>>,
    pub(super) end: RefCell<End>,
    pub(super) inbox: RefCell<Inbox>,
    /// Nothing more comes.
    pub(super) is_at_end: Cell<bool>,
    pub(super) is_read_closed: Cell<bool>,
    pub(super) is_write_closed: Cell<bool>,
    /// What coroutines wait for.
    pub(super) waits: Cell<Waits>,
    pub timeouts: Timeouts,
    pub(super) read_deadline: Deadline,
    pub(super) write_deadline: Deadline,
    /// How often the connection came out of a pool.
    pub(super) reused: Cell<u32>,
    /// Its place among the connections of a pool.
    pub(super) seat: RefCell<Option<Seat>>,
    /// What the last handshake came to.
    pub(super) shaken: RefCell<super::secure::Shaken>,
}

/// Where bytes come from and go to.
#[derive(Default)]
pub enum End {
    /// Nowhere.
    #[default]
    None,
    /// Nowhere yet: it connects, or shakes hands.
    Coming,
    /// A connection that Lua opened.
    Peer(Rc<Conn>),
    /// The client's connection.
    Client(Rc<Conn>),
    /// The request's body, over the client's connection.
    Body(Body, Rc<Conn>),
}

/// Which operations are under way.
#[derive(Clone, Copy, Default)]
pub struct Waits {
    pub connecting: bool,
    pub reading: bool,
    pub writing: bool,
}

/// A use of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Connecting,
    Reading,
    Writing,
}

impl Busy {
    /// Everything that connecting, closing and the like must not meet.
    pub const ANY: &[Busy] = &[Busy::Connecting, Busy::Reading, Busy::Writing];
    pub const TO_READ: &[Busy] = &[Busy::Connecting, Busy::Reading];
    pub const TO_WRITE: &[Busy] = &[Busy::Connecting, Busy::Writing];

    /// What Lua is told.
    pub fn text(self) -> &'static str {
        match self {
            Busy::Connecting => "socket busy connecting",
            Busy::Reading => "socket busy reading",
            Busy::Writing => "socket busy writing",
        }
    }
}

/// How long operations may take.
pub struct Timeouts {
    pub connect: Cell<Duration>,
    pub send: Cell<Duration>,
    pub read: Cell<Duration>,
}

impl Timeouts {
    fn of(settings: &Settings) -> Timeouts {
        Timeouts {
            connect: Cell::new(settings.connect_timeout),
            send: Cell::new(settings.send_timeout),
            read: Cell::new(settings.read_timeout),
        }
    }
}

impl Tcp {
    /// A socket of `life` that is not connected.
    pub fn new(life: &Rc<Life>, around: &Around) -> Rc<Tcp> {
        Tcp::with_end(life, around, End::None)
    }

    pub(super) fn with_end(life: &Rc<Life>, around: &Around, end: End) -> Rc<Tcp> {
        let tcp = Rc::new(Tcp {
            owner: Rc::downgrade(life),
            speaker: life.speaker(),
            settings: RefCell::new(around.settings.clone()),
            end: RefCell::new(end),
            inbox: RefCell::default(),
            is_at_end: Cell::new(false),
            is_read_closed: Cell::new(false),
            is_write_closed: Cell::new(false),
            waits: Cell::default(),
            timeouts: Timeouts::of(&around.settings),
            read_deadline: Deadline::never(),
            write_deadline: Deadline::never(),
            reused: Cell::new(0),
            seat: RefCell::default(),
            shaken: RefCell::default(),
        });
        let weak: Weak<Tcp> = Rc::downgrade(&tcp);
        life.adopt(weak);
        tcp
    }

    /// Whether the code that runs now may use it.
    pub fn belongs_to(&self, life: &Rc<Life>) -> bool {
        std::ptr::eq(self.owner.as_ptr(), Rc::as_ptr(life))
    }

    pub fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Begins anew with what is true where code runs now: for another `connect`.
    pub fn renew(&self, around: &Around) {
        if self.has_end() {
            log::debug_http!(&self.speaker, "lua tcp socket reconnect without shutting down");
        }
        log::debug_http!(&self.speaker, "lua reuse socket upstream ctx");
        self.close();
        self.settings.replace(around.settings.clone());
        self.is_at_end.set(false);
        self.is_read_closed.set(false);
        self.is_write_closed.set(false);
        self.reused.set(0);
        self.shaken.take();
    }

    // ---- its state

    /// Whether there is a connection (or one is coming) that `read`s or `write`s still.
    pub fn is_open(&self) -> bool {
        self.has_end() && !(self.is_read_closed.get() && self.is_write_closed.get())
    }

    pub fn may_read(&self) -> bool {
        self.has_end() && !self.is_read_closed.get()
    }

    pub fn may_write(&self) -> bool {
        self.has_end() && !self.is_write_closed.get()
    }

    pub fn has_end(&self) -> bool {
        !matches!(*self.end.borrow(), End::None)
    }

    /// Whether it is the client's connection, or its body.
    pub fn is_downstream(&self) -> bool {
        matches!(*self.end.borrow(), End::Client(_) | End::Body(..))
    }

    pub fn is_body(&self) -> bool {
        matches!(*self.end.borrow(), End::Body(..))
    }

    /// The first of `uses` that is under way.
    pub fn is_busy(&self, uses: &[Busy]) -> Option<Busy> {
        let waits = self.waits.get();
        uses.iter().copied().find(|busy| match busy {
            Busy::Connecting => waits.connecting,
            Busy::Reading => waits.reading,
            Busy::Writing => waits.writing,
        })
    }

    pub(super) fn set_waits(&self, change: impl FnOnce(&mut Waits)) {
        let mut waits = self.waits.get();
        change(&mut waits);
        self.waits.set(waits);
    }

    /// The connection below.
    pub fn conn(&self) -> Option<Rc<Conn>> {
        match &*self.end.borrow() {
            End::Peer(conn) | End::Client(conn) => Some(conn.clone()),
            _ => None,
        }
    }

    /// Calls `f` with the descriptor, if there is one.
    pub fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match &*self.end.borrow() {
            End::Peer(conn) | End::Client(conn) | End::Body(_, conn) => {
                Some(f(conn.stream().as_fd()))
            }
            End::None | End::Coming => None,
        }
    }

    pub fn reused(&self) -> u32 {
        self.reused.get()
    }

    /// Bytes that came and were not asked for.
    pub fn unread(&self) -> usize {
        self.inbox.borrow().len()
    }

    // ---- its end

    pub(super) fn connected(&self, stream: Stream) {
        self.end.replace(End::Peer(Rc::new(Conn::plain(stream))));
    }

    /// Reads no more; what came is gone.
    pub(super) fn close_reading(&self) {
        self.is_read_closed.set(true);
        self.inbox.borrow_mut().clear();
    }

    /// Closes it, or lets go of the client's connection.
    pub fn close(&self) {
        self.close_reading();
        self.is_write_closed.set(true);
        if self.is_body() {
            // The request takes back what is left of its body: see `downstream`.
            return;
        }
        drop(self.end.take());
        drop(self.seat.take());
    }

    // ---- bytes

    /// Receives something into the inbox: how many bytes; 0 is the end. `wanted` more bytes would
    /// be of use, at least.
    pub(super) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        if self.is_at_end.get() {
            return Poll::Ready(Ok(0));
        }
        if self.inbox.borrow().len() > RECEIVED_MAX {
            return Poll::Ready(Err(Fault::NoMemory));
        }
        let room = self.settings.borrow().buffer_size.max(wanted.min(READ_MAX));
        let mut end = self.end.borrow_mut();
        let filled = match &mut *end {
            End::Peer(conn) | End::Client(conn) => {
                let inbox = &self.inbox;
                ready!(conn.poll_read_with(cx, room, |bytes| {
                    inbox.borrow_mut().push(bytes);
                    bytes.len()
                }))
                .or_else(end_without_goodbye)
                .inspect_err(|e| log::error!(&self.speaker, "recv() failed{}", log::Os(e)))?
            }
            End::Body(body, _) => ready!(self.poll_body(body, cx))?,
            End::None | End::Coming => return Poll::Ready(Err(Fault::Closed)),
        };
        if filled == 0 {
            self.is_at_end.set(true);
        }
        Poll::Ready(Ok(filled))
    }

    fn poll_body(&self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        match ready!(body.poll_pull(cx)) {
            Ok(None) => Poll::Ready(Ok(0)),
            Ok(Some(chunk)) => {
                let mut bytes = Vec::new();
                chunk.append_to(&mut bytes)?;
                self.inbox.borrow_mut().push(&bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Err(fault) if fault.status == 408 => Poll::Ready(Err(Fault::Timeout)),
            Err(_) => Poll::Ready(Err(Fault::ClientAborted)),
        }
    }
}

/// A TLS peer that just closes has come to its end.
fn end_without_goodbye(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(0),
        _ => Err(error),
    }
}

impl Mortal for Tcp {
    fn end(&self) {
        self.close();
        // A body that was not given back has no request any more.
        drop(self.end.take());
        self.speaker.forget();
    }
}
