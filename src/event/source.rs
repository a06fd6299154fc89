//! Readiness of descriptors.
//!
//! A descriptor is registered once, for both directions, edge-triggered: the kernel says when
//! something changes, and a flag here remembers it until a read or write finds the socket drained
//! or full. So a busy connection costs no `epoll_ctl` and no failed read.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::reactor::{Loop, current};
use crate::sys;

/// Ready answers one task gets before others have their turn.
const ANSWERS_PER_POLL: u32 = 64;

const READABLE: u8 = 1;
const WRITABLE: u8 = 1 << 1;
/// The peer will send nothing more: the end is to be read without another edge.
const READ_CLOSED: u8 = 1 << 2;
/// Reset or closed in both directions.
const HUNG_UP: u8 = 1 << 3;
const READER_WAITS: u8 = 1 << 4;
const WRITER_WAITS: u8 = 1 << 5;

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
}

impl Direction {
    fn ready(self) -> u8 {
        match self {
            Direction::Read => READABLE,
            Direction::Write => WRITABLE,
        }
    }
    fn waits(self) -> u8 {
        match self {
            Direction::Read => READER_WAITS,
            Direction::Write => WRITER_WAITS,
        }
    }
}

/// How the kernel reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Changes of both directions, once each.
    Edge,
    /// Readability, in every turn while it lasts; `shared`: one of the processes that wait.
    Level { shared: bool },
}

/// One descriptor's readiness. Its owner keeps the descriptor and drops this before closing it.
pub struct Source {
    home: &'static Loop,
    token: Token,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    flags: Cell<u8>,
    /// The reader and the writer.
    parked: RefCell<[Option<Waker>; 2]>,
}

impl State {
    #[inline]
    fn has(&self, bits: u8) -> bool {
        self.flags.get() & bits != 0
    }
    #[inline]
    fn add(&self, bits: u8) {
        self.flags.set(self.flags.get() | bits);
    }
    #[inline]
    fn remove(&self, bits: u8) {
        self.flags.set(self.flags.get() & !bits);
    }

    fn park(&self, direction: Direction, waker: &Waker) {
        let parked = &mut self.parked.borrow_mut()[direction as usize];
        if !parked.as_ref().is_some_and(|parked| parked.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
        self.add(direction.waits());
    }

    fn wake(&self, direction: Direction) {
        if !self.has(direction.waits()) {
            return;
        }
        self.remove(direction.waits());
        // The waker stays parked, so that the next wait of the same task stores nothing.
        if let Some(waker) = &self.parked.borrow()[direction as usize] {
            waker.wake_by_ref();
        }
    }
}

impl Source {
    /// Registers a descriptor with this thread's loop. Edge-triggered ones count as writable until
    /// a write says otherwise, and as not readable until the kernel reports bytes.
    pub fn new(fd: BorrowedFd<'_>, trigger: Trigger) -> io::Result<Source> {
        let home = current();
        let state = Rc::new(State::default());
        let token = home.sources.insert(state.clone());
        let source = Source { home, token, state };
        let poll = home.poll.borrow();
        let poll = poll.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match trigger {
            Trigger::Edge => {
                source.state.add(WRITABLE);
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, both)?;
            }
            Trigger::Level { shared } => {
                sys::poll::watch_level(poll.as_raw_fd(), fd, token.0, shared)?;
            }
        }
        Ok(source)
    }

    /// Takes the registration back. Needed only if the descriptor stays open elsewhere: closing
    /// the last copy of a descriptor does it too.
    pub fn deregister(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match &*self.home.poll.borrow() {
            Some(poll) => sys::poll::unwatch(poll.as_raw_fd(), fd),
            None => Ok(()),
        }
    }

    /// Whether an attempt in this direction is worth a system call.
    #[inline]
    pub fn is_ready(&self, direction: Direction) -> bool {
        self.state.has(direction.ready())
    }

    /// Ready when an attempt is worth it; else the task is woken when it is.
    #[inline]
    pub fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        if !self.state.has(direction.ready()) {
            self.state.park(direction, cx.waker());
            return Poll::Pending;
        }
        self.home.pace(cx)
    }

    /// The task is woken by the kernel's next report, whether or not it is ready already.
    pub fn wait_change(&self, direction: Direction, cx: &mut Context<'_>) {
        self.state.park(direction, cx.waker());
    }

    /// An attempt found nothing to read, or no room to write.
    #[inline]
    pub fn clear(&self, direction: Direction) {
        self.state.remove(direction.ready());
    }

    /// A read got less than it could take: the socket is drained, no need to ask again, unless
    /// the end follows.
    #[inline]
    pub fn drained(&self) {
        if !self.state.has(READ_CLOSED) {
            self.state.remove(READABLE);
        }
    }

    /// An attempt is worth it after all.
    pub fn mark(&self, direction: Direction) {
        self.state.add(direction.ready());
    }

    /// The kernel has said that the peer sends nothing more, or that the connection is gone.
    pub fn is_read_closed(&self) -> bool {
        self.state.has(READ_CLOSED)
    }

    /// The kernel has said that the connection is gone.
    pub fn is_hung_up(&self) -> bool {
        self.state.has(HUNG_UP)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.home.sources.remove(self.token);
    }
}

/// A descriptor of somebody else's whose readability should end the poll: a signal descriptor, a
/// pipe, a child's process descriptor.
pub struct Watch<F: AsFd> {
    source: Option<Source>,
    fd: F,
}

impl<F: AsFd> Watch<F> {
    /// Watches `fd`. The turn in which it becomes readable returns.
    pub fn new(fd: F) -> io::Result<Watch<F>> {
        let source = Source::new(fd.as_fd(), Trigger::Level { shared: false })?;
        Ok(Watch { source: Some(source), fd })
    }

    /// Watches what stays readable for ever, for the next thing that comes.
    pub fn of_edges(fd: F) -> io::Result<Watch<F>> {
        let source = Source::new(fd.as_fd(), Trigger::Edge)?;
        Ok(Watch { source: Some(source), fd })
    }

    pub fn fd(&self) -> &F {
        &self.fd
    }

    /// Whether it became readable since the last call. While it stays so, every turn says it again.
    pub fn take_ready(&self) -> bool {
        let ready = self.source().is_ready(Direction::Read);
        self.source().clear(Direction::Read);
        ready
    }

    /// Waits until it is readable.
    pub async fn readable(&self) {
        std::future::poll_fn(|cx| self.source().poll_ready(Direction::Read, cx)).await;
        self.source().clear(Direction::Read);
    }

    fn source(&self) -> &Source {
        self.source.as_ref().expect("present until dropped")
    }
}

impl<F: AsFd> Drop for Watch<F> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            // Not registered any more means what is wanted.
            let _ = source.deregister(self.fd.as_fd());
        }
    }
}

impl Loop {
    /// Bounds how long one task may find everything ready while others wait.
    #[inline]
    fn pace(&self, cx: &mut Context<'_>) -> Poll<()> {
        let answers = self.answers.get();
        if answers < ANSWERS_PER_POLL {
            self.answers.set(answers + 1);
            return Poll::Ready(());
        }
        self.ready.defer(cx.waker().clone());
        Poll::Pending
    }
}

/// The descriptors of one loop.
#[derive(Default)]
pub(super) struct Sources {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
}

struct Slot {
    /// Rises with every use: a late event for the last user finds nobody.
    generation: u32,
    state: Option<Rc<State>>,
}

impl Sources {
    fn insert(&self, state: Rc<State>) -> Token {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot { generation: 0, state: None });
            slots.len() as u32 - 1
        });
        let slot = &mut slots[index as usize];
        slot.state = Some(state);
        token(index, slot.generation)
    }

    fn remove(&self, token: Token) {
        let index = token.0 as u32;
        let slot = &mut self.slots.borrow_mut()[index as usize];
        // Below the maximum, which is the token of wakes.
        slot.generation = (slot.generation + 1) % (u32::MAX - 1);
        slot.state = None;
        self.free.borrow_mut().push(index);
    }

    /// Remembers what the kernel says and wakes who waits for it.
    #[inline]
    pub fn dispatch(&self, event: &Event) {
        let Some(state) = self.find(event.token()) else { return };
        let mut flags = state.flags.get();
        let hung_up = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        if hung_up {
            flags |= HUNG_UP | READ_CLOSED | READABLE | WRITABLE;
        }
        if event.is_read_closed() {
            flags |= READ_CLOSED | READABLE;
        }
        if event.is_readable() {
            flags |= READABLE;
        }
        if event.is_writable() {
            flags |= WRITABLE;
        }
        state.flags.set(flags);
        if flags & READABLE != 0 {
            state.wake(Direction::Read);
        }
        if flags & WRITABLE != 0 {
            state.wake(Direction::Write);
        }
    }

    #[inline]
    fn find(&self, Token(token): Token) -> Option<Rc<State>> {
        let slots = self.slots.borrow();
        let slot = slots.get(token as u32 as usize)?;
        if slot.generation == (token >> 32) as u32 { slot.state.clone() } else { None }
    }
}

fn token(index: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, spawn};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn an_edge_is_remembered_until_it_is_cleared() {
        let mut reactor = Reactor::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let source = Source::new(a.as_fd(), Trigger::Edge).unwrap();
        assert!(!source.is_ready(Direction::Read) && source.is_ready(Direction::Write));
        b.write_all(b"x").unwrap();
        reactor.turn(Some(Duration::from_secs(5))).unwrap();
        assert!(source.is_ready(Direction::Read));
        source.drained();
        assert!(!source.is_ready(Direction::Read) && !source.is_read_closed());
        drop(b);
        reactor.turn(Some(Duration::from_secs(5))).unwrap();
        assert!(source.is_read_closed() && source.is_hung_up());
        source.drained();
        assert!(source.is_ready(Direction::Read), "the end is still to be read");
    }

    #[test]
    fn a_late_event_finds_nobody() {
        let mut reactor = Reactor::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let old = Source::new(a.as_fd(), Trigger::Edge).unwrap();
        b.write_all(b"x").unwrap();
        drop(old);
        let (c, _d) = UnixStream::pair().unwrap();
        let new = Source::new(c.as_fd(), Trigger::Edge).unwrap();
        reactor.turn(Some(Duration::from_secs(5))).unwrap();
        assert!(!new.is_ready(Direction::Read));
    }

    #[test]
    fn a_watched_descriptor_ends_the_poll() {
        let mut reactor = Reactor::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let watch = Watch::new(a).unwrap();
        assert!(!watch.take_ready());
        b.write_all(b"x").unwrap();
        for _ in 0..2 {
            reactor.turn(Some(Duration::from_secs(5))).unwrap();
            assert!(watch.take_ready());
        }
        watch.fd().read_exact(&mut [0]).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(!watch.take_ready());
    }

    #[test]
    fn a_task_that_finds_everything_ready_gives_way() {
        let mut reactor = Reactor::new().unwrap();
        let (a, _b) = UnixStream::pair().unwrap();
        let source = Source::new(a.as_fd(), Trigger::Edge).unwrap();
        spawn(async move {
            loop {
                std::future::poll_fn(|cx| source.poll_ready(Direction::Write, cx)).await;
            }
        });
        for _ in 0..3 {
            assert_eq!(reactor.turn(None).unwrap().polls, 1);
        }
    }
}
