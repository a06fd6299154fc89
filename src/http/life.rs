//! A worker's life as its connections see it: how many there are, and whether it is ending.

use crate::event;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Shared by all connections of a worker.
#[derive(Default)]
pub struct Life {
    quitting: Cell<Option<Instant>>,
    cut: Cell<bool>,
    connections: Cell<usize>,
    requests: Cell<usize>,
}

impl Life {
    /// A life of its own, for a connection that ends anyway.
    pub fn apart() -> Rc<Life> {
        Rc::default()
    }

    /// From now on idle connections have only a grace, and every reply ends its connection.
    pub fn quit(&self) {
        if self.quitting.get().is_none() {
            self.quitting.set(Some(event::now()));
            event::wake_all();
        }
    }

    /// Ends every connection, whatever it is doing.
    pub fn cut(&self) {
        self.cut.set(true);
        event::wake_all();
    }

    /// Runs a connection to its end, or until everything is cut.
    pub async fn until_cut(&self, mut connection: Pin<&mut impl Future<Output = ()>>) {
        std::future::poll_fn(|cx| match self.cut.get() {
            true => Poll::Ready(()),
            false => connection.as_mut().poll(cx),
        })
        .await
    }

    /// Whether the worker is ending.
    pub fn is_quitting(&self) -> bool {
        self.quitting.get().is_some()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Requests that are being handled.
    pub fn requests(&self) -> usize {
        self.requests.get()
    }

    /// Counts a connection while the guard lives.
    pub fn begin_connection(self: &Rc<Life>) -> Held {
        Held::new(self, |life| &life.connections)
    }

    /// Counts a request while the guard lives.
    pub fn begin_request(self: &Rc<Life>) -> Held {
        Held::new(self, |life| &life.requests)
    }

    /// Waits for the client until `deadline`, which the connection keeps, but only for `grace`
    /// from the moment the worker was told to quit if the connection is idle.
    pub fn patience<'a>(
        &'a self,
        deadline: &'a event::Deadline,
        idle: bool,
        grace: Duration,
    ) -> Patience<'a> {
        Patience { deadline, grace, life: self, idle }
    }
}

/// Counts something as long as it lives.
pub struct Held {
    life: Rc<Life>,
    count: fn(&Life) -> &Cell<usize>,
}

impl Held {
    fn new(life: &Rc<Life>, count: fn(&Life) -> &Cell<usize>) -> Held {
        count(life).set(count(life).get() + 1);
        Held { life: life.clone(), count }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let count = (self.count)(&self.life);
        count.set(count.get() - 1);
    }
}

/// The patience was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPatience;

/// A bounded wait for a client.
pub struct Patience<'a> {
    deadline: &'a event::Deadline,
    grace: Duration,
    life: &'a Life,
    idle: bool,
}

impl Patience<'_> {
    /// Ready when it is over. To be polled after what is waited for.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<OutOfPatience> {
        if let (Some(since), true) = (self.life.quitting.get(), self.idle) {
            let end = since + self.grace;
            if self.deadline.get().is_none_or(|at| at > end) {
                self.deadline.set(end);
            }
        }
        self.deadline.poll(cx).map(|()| OutOfPatience)
    }
}
