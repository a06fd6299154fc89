//! Connections that wait for their next user, by the name that Lua gave them.
//!
//! A pool counts the connections that were opened under its name since it exists, in use or not:
//! with a `backlog` those beyond its size wait for one to come back. It goes when the last of its
//! connections is closed. One task per pool looks after those that wait: it closes what a peer
//! has closed, or said something on, and what waited too long.

use super::tcp::{End, Tcp};
use crate::event::{self, Receiver, Sender};
use crate::io::Conn;
use crate::log;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

thread_local! {
    /// The pools of this worker.
    static POOLS: RefCell<HashMap<Box<[u8]>, Weak<Pool>>> = RefCell::default();
}

/// How big a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub size: usize,
    /// How many may wait to connect when there are `size`; `None`: nobody waits or is refused.
    pub backlog: Option<usize>,
}

/// The connections of one name.
pub struct Pool {
    name: Box<[u8]>,
    rules: Rules,
    /// Those in use, those that wait, and those that somebody wants.
    connections: Cell<usize>,
    /// The most recent one is the last.
    idle: RefCell<VecDeque<Idle>>,
    wanting: RefCell<VecDeque<Sender<()>>>,
    keeper: RefCell<Option<Waker>>,
    /// When the keeper will look next.
    looks_at: Cell<Option<Instant>>,
}

/// A connection that waits.
struct Idle {
    conn: Rc<Conn>,
    reused: u32,
    upstream: String,
    until: Option<Instant>,
    seat: Seat,
}

/// One of the connections that a pool counts; when it is dropped somebody else may have one.
pub struct Seat {
    pool: Rc<Pool>,
    is_quiet: bool,
}

impl Seat {
    fn new(pool: &Rc<Pool>) -> Seat {
        pool.connections.set(pool.connections.get() + 1);
        Seat { pool: pool.clone(), is_quiet: false }
    }

    /// Gives it up for a connection that has a seat already: nobody else gets one.
    fn leave_quietly(mut self) {
        self.is_quiet = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.connections.set(pool.connections.get() - 1);
        if pool.connections.get() == 0 {
            pool.vanish();
        } else if !self.is_quiet {
            pool.call_next();
        }
    }
}

/// The pool of this name.
pub fn pool_of(name: &[u8]) -> Option<Rc<Pool>> {
    POOLS.with_borrow(|pools| pools.get(name).and_then(Weak::upgrade))
}

impl Pool {
    /// The pool of this name, made with `rules` if there is none.
    pub fn of(name: &[u8], rules: Rules) -> Rc<Pool> {
        if let Some(pool) = pool_of(name) {
            return pool;
        }
        let shown = log::Raw(name);
        log::debug_http!(
            "lua tcp socket connection pool size: {}, backlog: {}",
            rules.size,
            rules.backlog.map_or(-1, |backlog| backlog as i64)
        );
        log::debug_http!("lua tcp socket keepalive create connection pool for key \"{shown}\"");
        let pool = Rc::new(Pool {
            name: name.into(),
            rules,
            connections: Cell::new(0),
            idle: RefCell::default(),
            wanting: RefCell::default(),
            keeper: RefCell::default(),
            looks_at: Cell::new(None),
        });
        POOLS.with_borrow_mut(|pools| pools.insert(name.into(), Rc::downgrade(&pool)));
        pool
    }

    /// A waiting connection becomes that of `tcp`, if there is one.
    pub fn lend(&self, tcp: &Tcp) -> bool {
        let Some(idle) = self.take() else { return false };
        log::debug_http!(
            &tcp.speaker,
            "lua tcp socket get keepalive peer: using connection {:p}",
            Rc::as_ptr(&idle.conn)
        );
        tcp.end.replace(End::Peer(idle.conn));
        tcp.reused.set(idle.reused + 1);
        tcp.speaker.upstream.replace(idle.upstream);
        let seat = tcp.seat.replace(Some(idle.seat));
        debug_assert!(seat.is_none(), "a socket without a connection has no seat");
        true
    }

    fn take(&self) -> Option<Idle> {
        let mut dead = Vec::new();
        let found = loop {
            let Some(idle) = self.idle.borrow_mut().pop_back() else { break None };
            match idle.conn.is_quiet() {
                true => break Some(idle),
                false => dead.push(idle),
            }
        };
        // Their seats are given up with the queue at rest.
        drop(dead);
        found
    }

    /// A seat for a new connection.
    ///
    /// Errors: too many wait for one.
    pub fn sit(self: &Rc<Pool>) -> Result<Sitting, TooMany> {
        let seat = Seat::new(self);
        let Some(backlog) = self.rules.backlog else { return Ok(Sitting::Now(seat)) };
        let count = self.connections.get();
        if count > self.rules.size + backlog {
            seat.leave_quietly();
            return Err(TooMany);
        }
        if count <= self.rules.size {
            return Ok(Sitting::Now(seat));
        }
        let (sender, receiver) = event::oneshot();
        self.wanting.borrow_mut().push_back(sender);
        Ok(Sitting::Later(seat, receiver))
    }

    /// Tells the first who still waits that it is its turn.
    fn call_next(&self) {
        while let Some(next) = self.wanting.borrow_mut().pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
    }

    /// Keeps a connection.
    fn put(self: &Rc<Pool>, idle: Idle) {
        if let Some(keeper) = &*self.keeper.borrow() {
            let mut cx = Context::from_waker(keeper);
            if idle.conn.stream().poll_closed(&mut cx).is_ready() {
                return;
            }
        }
        let until = idle.until;
        let too_much = {
            let mut waiting = self.idle.borrow_mut();
            let too_much = match waiting.len() >= self.rules.size {
                true => waiting.pop_front(),
                false => None,
            };
            waiting.push_back(idle);
            too_much
        };
        drop(too_much);
        self.mind_the_keeper(until);
        self.call_next();
    }

    fn mind_the_keeper(self: &Rc<Pool>, until: Option<Instant>) {
        if self.keeper.borrow().is_none() {
            self.keeper.replace(Some(Waker::noop().clone()));
            event::spawn(look_after(Rc::downgrade(self)));
            return;
        }
        let is_earlier = until.is_some_and(|at| self.looks_at.get().is_none_or(|next| at < next));
        if is_earlier && let Some(keeper) = &*self.keeper.borrow() {
            self.looks_at.set(until);
            keeper.wake_by_ref();
        }
    }

    /// Closes what is dead and what waited too long.
    fn tend(&self, cx: &mut Context<'_>) {
        let now = event::now();
        let mut dead = Vec::new();
        {
            let mut waiting = self.idle.borrow_mut();
            for idle in std::mem::take(&mut *waiting) {
                let is_good = idle.conn.stream().poll_closed(cx).is_pending()
                    && idle.conn.is_quiet()
                    && idle.until.is_none_or(|until| now < until);
                if is_good {
                    waiting.push_back(idle);
                    continue;
                }
                log::debug_http!("lua tcp socket keepalive close handler");
                dead.push(idle);
            }
            self.looks_at.set(waiting.iter().filter_map(|idle| idle.until).min());
        }
        drop(dead);
    }

    fn vanish(&self) {
        let name = log::Raw(&self.name);
        log::debug_http!("lua tcp socket keepalive: free connection pool for \"{name}\"");
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
        // At the end of the thread there is no list any more.
        let _ = POOLS.try_with(|pools| {
            let mut pools = pools.borrow_mut();
            if pools.get(&self.name).is_some_and(|pool| std::ptr::eq(pool.as_ptr(), self)) {
                pools.remove(&self.name);
            }
        });
    }
}

/// A seat, or the wait for one: it is counted already.
pub enum Sitting {
    Now(Seat),
    Later(Seat, Receiver<()>),
}

/// More want to connect than may.
#[derive(Debug)]
pub struct TooMany;

/// What a socket whose turn has come does: it takes a connection that came back, or sits down.
pub fn turn_has_come(pool: &Pool, seat: Seat, tcp: &Tcp) -> Option<Seat> {
    match pool.lend(tcp) {
        true => {
            seat.leave_quietly();
            None
        }
        false => Some(seat),
    }
}

/// Puts the connection of `tcp` into the pool of this name, made with `size` if there is none.
/// False if the connection is not as quiet as an idle one should be.
pub fn keep(tcp: &Tcp, name: &[u8], size: usize, timeout: Option<Duration>) -> bool {
    let pool = Pool::of(name, Rules { size, backlog: None });
    let End::Peer(conn) = tcp.end.take() else { return false };
    let seat = tcp.seat.take().unwrap_or_else(|| Seat::new(&pool));
    let is_quiet = conn.is_quiet();
    match timeout {
        Some(time) => {
            log::debug_http!("lua tcp socket keepalive timeout: {} ms", time.as_millis());
        }
        None => log::debug_http!("lua tcp socket keepalive timeout: unlimited"),
    }
    if is_quiet {
        let idle = Idle {
            conn,
            reused: tcp.reused.get(),
            upstream: tcp.speaker.upstream.take(),
            until: timeout.map(|timeout| event::now() + timeout),
            seat,
        };
        pool.put(idle);
    }
    tcp.close();
    is_quiet
}

/// The keeper's task: it ends with its pool.
async fn look_after(pool: Weak<Pool>) {
    event::look_after(|cx| {
        let pool = pool.upgrade()?;
        if pool.connections.get() == 0 {
            return None;
        }
        pool.keeper.replace(Some(cx.waker().clone()));
        pool.tend(cx);
        Some(pool.looks_at.get().into())
    })
    .await;
}
