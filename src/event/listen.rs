//! Accepting connections.
//!
//! A listening socket is watched level-triggered: one connection is taken per event (all that wait,
//! with `multi_accept`), and the kernel tells again about the rest. Where nobody may be accepted
//! (no slot, no descriptor, paused) the socket is not watched at all, and connections wait in the
//! kernel's queue: nginx takes and closes them there.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::slots::{Slot, Slots, slots};
use super::{Direction, Source, Trigger, now, sleep, spawn, yield_now};
use crate::log::{self, Os};
use crate::sys::socket::{self, Address};

/// Connections taken before other tasks have their turn.
const BATCH_MAX: usize = 64;
/// Rest after an error that another attempt would meet too, as nginx.
const REST: Duration = Duration::from_millis(500);
/// How often a full worker is worth a line.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// How a socket is listened on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accepting {
    /// `multi_accept`: take all that wait, not one.
    pub multi: bool,
    /// Several processes accept from this very socket: one of them is woken, not all.
    pub shared: bool,
}

/// A connection that was taken.
pub struct Accepted {
    /// Nonblocking, close-on-exec.
    pub socket: OwnedFd,
    pub peer: Address,
    /// Keep it as long as the connection.
    pub slot: Slot,
}

/// A listening socket at work. Dropping this changes nothing; see `close`.
#[derive(Clone)]
pub struct Acceptor(Rc<Shared>);

struct Shared {
    socket: RefCell<Option<OwnedFd>>,
    source: RefCell<Option<Source>>,
    rules: Accepting,
    mode: Cell<Mode>,
    task: RefCell<Option<Waker>>,
    accepted: Cell<u64>,
    slots: Slots,
    /// When the operator was last told that there are too few slots.
    complained: Cell<Option<Instant>>,
    take: Box<dyn Fn(Accepted)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Paused,
    /// Take what waits, then close.
    Draining,
    Closed,
}

/// Accepts from a listening socket: `take` gets each connection, and spawns a task for it.
pub fn listen(
    socket: OwnedFd,
    rules: Accepting,
    take: impl Fn(Accepted) + 'static,
) -> io::Result<Acceptor> {
    let shared = Rc::new(Shared {
        socket: RefCell::new(Some(socket)),
        source: RefCell::new(None),
        rules,
        mode: Cell::new(Mode::Open),
        task: RefCell::new(None),
        accepted: Cell::new(0),
        slots: slots(),
        complained: Cell::new(None),
        take: Box::new(take),
    });
    shared.watch()?;
    let running = shared.clone();
    spawn(async move { running.run().await });
    Ok(Acceptor(shared))
}

impl Acceptor {
    /// Takes nobody until `resume`; connections wait in the kernel's queue.
    pub fn pause(&self) {
        if self.0.mode.get() == Mode::Open {
            self.0.enter(Mode::Paused);
        }
    }

    pub fn resume(&self) {
        if self.0.mode.get() == Mode::Paused {
            self.0.enter(Mode::Open);
        }
    }

    /// Takes all that wait in the queue and closes the socket: for one that gets no new
    /// connections any more. `is_closed` tells when it is done.
    pub fn drain(&self) {
        if self.0.mode.get() != Mode::Closed {
            self.0.enter(Mode::Draining);
        }
    }

    /// Closes the socket in this process; if no other holds it, those that wait are reset.
    pub fn close(&self) {
        self.0.enter(Mode::Closed);
        self.0.shut();
    }

    pub fn is_closed(&self) -> bool {
        self.0.mode.get() == Mode::Closed
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }
}

/// Why a batch ended.
enum Ended {
    /// Perhaps more wait; the kernel or the next batch tells.
    Took,
    /// Nobody waits.
    Empty,
    /// No slot for another connection.
    Full,
    Failed(io::Error),
}

impl Shared {
    async fn run(&self) {
        loop {
            match self.mode.get() {
                Mode::Closed => return self.shut(),
                Mode::Paused => self.unwatch(),
                Mode::Open => self.settle(self.watch()).await,
                Mode::Draining => {}
            }
            if self.mode.get() != Mode::Draining && !self.wait().await {
                continue;
            }
            match self.accept_batch() {
                Ended::Took if self.mode.get() == Mode::Draining => yield_now().await,
                Ended::Took => {}
                Ended::Empty if self.mode.get() == Mode::Draining => self.mode.set(Mode::Closed),
                Ended::Empty => {}
                Ended::Full => self.wait_for_slot().await,
                Ended::Failed(error) => self.settle(Err(error)).await,
            }
        }
    }

    /// Takes one connection, or with `multi_accept` and while draining all that wait, in bounds.
    fn accept_batch(&self) -> Ended {
        let all = self.rules.multi || self.mode.get() == Mode::Draining;
        for _ in 0..if all { BATCH_MAX } else { 1 } {
            let Some(slot) = self.slots.take() else { return Ended::Full };
            let accepted = match &*self.socket.borrow() {
                Some(socket) => socket::accept(socket.as_fd()),
                None => return Ended::Empty,
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.accepted.set(self.accepted.get() + 1);
                    (self.take)(Accepted { socket, peer, slot });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ended::Empty,
                // The client is gone already; the next one is not to suffer for it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    log::error!("accept4() failed{}", Os(&error));
                }
                Err(error) => return Ended::Failed(error),
            }
        }
        Ended::Took
    }

    /// Waits for a connection; false: the mode has changed.
    async fn wait(&self) -> bool {
        let mode = self.mode.get();
        poll_fn(|cx| {
            if self.mode.get() != mode {
                return Poll::Ready(false);
            }
            let source = self.source.borrow();
            if let Some(source) = &*source
                && source.poll_ready(Direction::Read, cx).is_ready()
            {
                source.clear(Direction::Read);
                return Poll::Ready(true);
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn wait_for_slot(&self) {
        if self.complained.get().is_none_or(|at| now() - at >= COMPLAIN_EVERY) {
            self.complained.set(Some(now()));
            log::alert!("{} worker_connections are not enough", self.slots.limit());
        }
        self.unwatch();
        self.slots.freed().await;
    }

    /// After a failure that would repeat itself: says so and rests, the socket unwatched.
    async fn settle(&self, result: io::Result<()>) {
        let Err(error) = result else { return };
        match error.raw_os_error() {
            Some(code) if socket::is_out_of_descriptors(code) => {
                log::crit!("accept4() failed{}", Os(&error));
            }
            _ => log::alert!("accept4() failed{}", Os(&error)),
        }
        self.unwatch();
        sleep(REST).await;
    }

    fn enter(&self, mode: Mode) {
        self.mode.set(mode);
        let task = self.task.borrow_mut().take();
        task.into_iter().for_each(Waker::wake);
    }

    fn watch(&self) -> io::Result<()> {
        if self.source.borrow().is_some() {
            return Ok(());
        }
        if let Some(socket) = &*self.socket.borrow() {
            let trigger = Trigger::Level { shared: self.rules.shared };
            *self.source.borrow_mut() = Some(Source::new(socket.as_fd(), trigger)?);
        }
        Ok(())
    }

    fn unwatch(&self) {
        if let (Some(source), Some(socket)) = (self.source.take(), &*self.socket.borrow()) {
            // Not watched any more is what is wanted.
            let _ = source.deregister(socket.as_fd());
        }
    }

    /// The socket may be another process's too, so closing alone would leave it watched.
    fn shut(&self) {
        self.unwatch();
        self.socket.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reactor;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn open() -> (OwnedFd, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        (listener.into(), at)
    }

    fn turns(reactor: &mut Reactor, until: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while !until() && std::time::Instant::now() < deadline {
            reactor.turn(Some(Duration::from_millis(20))).unwrap();
        }
        assert!(until(), "within five seconds");
    }

    fn held() -> (Rc<RefCell<Vec<Accepted>>>, impl Fn(Accepted) + 'static) {
        let held: Rc<RefCell<Vec<Accepted>>> = Rc::default();
        let keep = held.clone();
        (held, move |accepted| keep.borrow_mut().push(accepted))
    }

    #[test]
    fn one_connection_is_taken_per_turn_or_all() {
        for (multi, first) in [(false, 1), (true, 3)] {
            let mut reactor = Reactor::new().unwrap();
            let (socket, at) = open();
            let (held, take) = held();
            let rules = Accepting { multi, shared: false };
            let acceptor = listen(socket, rules, take).unwrap();
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
            turns(&mut reactor, || acceptor.accepted() > 0);
            assert_eq!(acceptor.accepted(), first);
            turns(&mut reactor, || held.borrow().len() == 3);
            let peer = held.borrow()[0].peer.inet();
            assert_eq!(peer, Some(clients[0].local_addr().unwrap()));
        }
    }

    #[test]
    fn without_a_slot_connections_wait() {
        let mut reactor = Reactor::new().unwrap();
        slots().set_limit(2);
        let (socket, at) = open();
        let (held, take) = held();
        listen(socket, Accepting::default(), take).unwrap();
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
        turns(&mut reactor, || held.borrow().len() == 2);
        reactor.turn(Some(Duration::from_millis(200))).unwrap(); // finds it full
        for _ in 0..5 {
            let turn = reactor.turn(Some(Duration::from_millis(2))).unwrap();
            assert_eq!(turn.events, 0, "the full worker does not spin");
        }
        held.borrow_mut().pop();
        turns(&mut reactor, || held.borrow().len() == 2);
        assert_eq!(slots().taken(), 2);
    }

    #[test]
    fn a_paused_listener_takes_nobody() {
        let mut reactor = Reactor::new().unwrap();
        let (socket, at) = open();
        let (held, take) = held();
        let acceptor = listen(socket, Accepting::default(), take).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        acceptor.pause();
        let _client = TcpStream::connect(at).unwrap();
        for _ in 0..5 {
            reactor.turn(Some(Duration::from_millis(2))).unwrap();
        }
        assert_eq!(held.borrow().len(), 0);
        acceptor.resume();
        turns(&mut reactor, || held.borrow().len() == 1);
    }

    #[test]
    fn draining_takes_all_that_wait_and_ends() {
        let mut reactor = Reactor::new().unwrap();
        let (socket, at) = open();
        let (held, take) = held();
        let acceptor = listen(socket, Accepting::default(), take).unwrap();
        let _clients: Vec<_> = (0..100).map(|_| TcpStream::connect(at).unwrap()).collect();
        acceptor.drain();
        turns(&mut reactor, || acceptor.is_closed());
        assert_eq!(held.borrow().len(), 100);
        turns(&mut reactor, || TcpStream::connect(at).is_err());
    }

    #[test]
    fn closing_ends_at_once() {
        let mut reactor = Reactor::new().unwrap();
        let (socket, at) = open();
        let acceptor = listen(socket, Accepting::default(), |_| {}).unwrap();
        acceptor.close();
        assert!(TcpStream::connect(at).is_err());
        turns(&mut reactor, || acceptor.is_closed());
    }
}
