//! Idle connections to peers, kept for the next request.
//!
//! The most recent one is used first. `keepalive` bounds how many wait, but not to the letter:
//! a connection beyond the limit is closed only when more wait than the limit and those in use
//! together, or when it was not wanted for [`EXCESS_PATIENCE`]. With more clients than the limit
//! strict eviction closes and opens connections all the time: measured at 1,024 clients over 128
//! connections, three times nginx's throughput was lost.
//!
//! One task per pool looks after it: it hears of peers that close, and of time. A connection that
//! comes and goes touches neither a timer nor the kernel.

use super::peer::Peer;
use crate::event::{self, Deadline};
use crate::io::Conn;
use crate::sys::socket::Address;
use crate::tls::info::TlsInfo;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How long a connection beyond the limit may wait for a user.
const EXCESS_PATIENCE: Duration = Duration::from_millis(150);

/// `keepalive` and its kin.
#[derive(Clone, Debug)]
pub struct PoolRules {
    /// `keepalive`: how many may wait.
    pub limit: usize,
    /// `keepalive_requests`: of one connection.
    pub requests: u64,
    /// `keepalive_time`: a connection's whole life.
    pub time: Duration,
    /// `keepalive_timeout`: one wait.
    pub timeout: Duration,
    /// `local`: places do not share connections.
    pub local: bool,
}

impl Default for PoolRules {
    /// What an `upstream {}` without `keepalive` has.
    fn default() -> PoolRules {
        PoolRules {
            limit: 32,
            requests: 1000,
            time: Duration::from_secs(3600),
            timeout: Duration::from_secs(60),
            local: true,
        }
    }
}

/// What else two requests must have in common to share a connection: identities of the TLS
/// configuration (with the name it was verified for) and, if `local`, of the place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Which client configuration made it secure; 0: it is plain.
    pub tls: usize,
    /// What its certificate was checked against.
    pub name: Option<Rc<str>>,
    /// Which place it belongs to; ignored unless the pool is `local`.
    pub place: usize,
}

/// An open connection to a peer, in use by one request.
pub struct Kept {
    /// The connection.
    pub conn: Rc<Conn>,
    /// Bounds whatever is awaited on it.
    pub deadline: Deadline,
    /// What the handshake settled.
    pub tls: Option<Rc<TlsInfo>>,
    /// Requests it carried, this one included.
    pub requests: u64,
    opened: Instant,
    waits_since: Instant,
    key: Rc<Key>,
    /// Where it may return to; `None` while it is there, or if it has none.
    home: Option<Rc<Pool>>,
}

/// Connections with equal keys may stand in for one another.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    address: Address,
    tag: Tag,
}

impl Kept {
    /// A connection that was just made for `peer`.
    pub fn new(
        conn: Conn,
        tls: Option<Rc<TlsInfo>>,
        pool: Option<&Rc<Pool>>,
        peer: &Peer,
        tag: Tag,
    ) -> Box<Kept> {
        if let Some(pool) = pool {
            pool.using.set(pool.using.get() + 1);
        }
        let now = event::now();
        Box::new(Kept {
            conn: Rc::new(conn),
            deadline: Deadline::never(),
            tls,
            requests: 1,
            opened: now,
            waits_since: now,
            key: Rc::new(Key { address: peer.address.clone(), tag }),
            home: pool.cloned(),
        })
    }

    /// Gives it back to its pool, or closes it. Only for connections whose last reply has ended
    /// and whose peer will keep them open.
    pub fn release(mut self: Box<Self>) {
        if let Some(pool) = self.home.take() {
            pool.leave();
            pool.put(self);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(pool) = self.home.take() {
            pool.leave();
        }
    }
}

/// The idle connections of one upstream.
pub struct Pool {
    rules: PoolRules,
    stacks: RefCell<Vec<Stack>>,
    idle: Cell<usize>,
    using: Cell<usize>,
    keeper: RefCell<Option<Waker>>,
    has_keeper: Cell<bool>,
    /// When the keeper will look next.
    looks_at: Cell<Option<Instant>>,
}

/// Connections that are alike; the most recent one is the last.
struct Stack {
    key: Rc<Key>,
    waiting: VecDeque<Box<Kept>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(rules: PoolRules) -> Rc<Pool> {
        Rc::new(Pool {
            rules,
            stacks: RefCell::default(),
            idle: Cell::new(0),
            using: Cell::new(0),
            keeper: RefCell::default(),
            has_keeper: Cell::new(false),
            looks_at: Cell::new(None),
        })
    }

    /// Its directives.
    pub fn rules(&self) -> &PoolRules {
        &self.rules
    }

    /// How many connections wait.
    pub fn idle(&self) -> usize {
        self.idle.get()
    }

    fn leave(&self) {
        self.using.set(self.using.get() - 1);
    }

    /// A connection to `peer` that has waited, if there is one that is still good.
    pub fn take(self: &Rc<Pool>, peer: &Peer, tag: &Tag) -> Option<Box<Kept>> {
        if self.idle.get() == 0 {
            return None;
        }
        let mut stacks = self.stacks.borrow_mut();
        let suits = |key: &Key| key.address == peer.address && key.tag == *tag;
        let stack = stacks.iter_mut().find(|s| suits(&s.key))?;
        while let Some(mut kept) = stack.waiting.pop_back() {
            self.idle.set(self.idle.get() - 1);
            if kept.conn.is_quiet() {
                kept.requests += 1;
                self.using.set(self.using.get() + 1);
                kept.home = Some(self.clone());
                return Some(kept);
            }
        }
        None
    }

    fn put(self: &Rc<Pool>, mut kept: Box<Kept>) {
        let now = event::now();
        let spent = kept.requests >= self.rules.requests || now > kept.opened + self.rules.time;
        if spent || self.rules.limit == 0 || !kept.conn.is_quiet() {
            return;
        }
        if self.idle.get() + 1 > self.rules.limit + self.using.get() {
            self.drop_oldest();
        }
        kept.deadline.clear();
        kept.waits_since = now;
        if let Some(keeper) = &*self.keeper.borrow() {
            let mut cx = Context::from_waker(keeper);
            if kept.conn.stream().poll_closed(&mut cx).is_ready() {
                return;
            }
        }
        self.idle.set(self.idle.get() + 1);
        let mut stacks = self.stacks.borrow_mut();
        let is_alike = |s: &&mut Stack| Rc::ptr_eq(&s.key, &kept.key) || s.key == kept.key;
        match stacks.iter_mut().find(is_alike) {
            Some(stack) => stack.waiting.push_back(kept),
            None => {
                let key = kept.key.clone();
                stacks.push(Stack { key, waiting: VecDeque::from([kept]) });
            }
        }
        drop(stacks);
        self.mind_the_keeper(now);
    }

    /// Starts the keeper, or wakes it if it should look earlier than it means to.
    fn mind_the_keeper(self: &Rc<Pool>, now: Instant) {
        if !self.has_keeper.replace(true) {
            event::spawn(keep(Rc::downgrade(self)));
            return;
        }
        let wanted = match self.idle.get() > self.rules.limit {
            true => now + EXCESS_PATIENCE,
            false => now + self.rules.timeout,
        };
        if self.looks_at.get().is_none_or(|at| at > wanted)
            && let Some(keeper) = &*self.keeper.borrow()
        {
            self.looks_at.set(Some(wanted));
            keeper.wake_by_ref();
        }
    }

    fn oldest(stacks: &[Stack]) -> Option<(usize, Instant)> {
        let fronts = stacks.iter().enumerate();
        let fronts = fronts.filter_map(|(i, s)| Some((i, s.waiting.front()?.waits_since)));
        fronts.min_by_key(|(_, since)| *since)
    }

    fn drop_oldest(&self) {
        let mut stacks = self.stacks.borrow_mut();
        if let Some((index, _)) = Pool::oldest(&stacks) {
            stacks[index].waiting.pop_front();
            self.idle.set(self.idle.get() - 1);
        }
    }

    /// Closes what is dead, what waited too long, and what is too much.
    fn tend(&self, cx: &mut Context<'_>) {
        let now = event::now();
        let mut stacks = self.stacks.borrow_mut();
        for stack in stacks.iter_mut() {
            let timeout = self.rules.timeout;
            stack.waiting.retain(|kept| {
                kept.conn.stream().poll_closed(cx).is_pending()
                    && kept.conn.is_quiet()
                    && now.duration_since(kept.waits_since) < timeout
            });
        }
        stacks.retain(|stack| !stack.waiting.is_empty());
        let mut idle: usize = stacks.iter().map(|s| s.waiting.len()).sum();
        while idle > self.rules.limit
            && let Some((index, since)) = Pool::oldest(&stacks)
            && now.duration_since(since) >= EXCESS_PATIENCE
        {
            stacks[index].waiting.pop_front();
            idle -= 1;
        }
        self.idle.set(idle);
        let oldest = Pool::oldest(&stacks).map(|(_, since)| since);
        self.looks_at.set(oldest.map(|since| match idle > self.rules.limit {
            true => since + EXCESS_PATIENCE,
            false => since + self.rules.timeout,
        }));
    }

    /// Closes everything that waits.
    pub fn clear(&self) {
        self.stacks.borrow_mut().clear();
        self.idle.set(0);
    }
}

/// The keeper's task: it ends with its pool.
async fn keep(pool: Weak<Pool>) {
    event::look_after(|cx| {
        let pool = pool.upgrade()?;
        pool.keeper.replace(Some(cx.waker().clone()));
        pool.tend(cx);
        Some(pool.looks_at.get().into())
    })
    .await;
}
