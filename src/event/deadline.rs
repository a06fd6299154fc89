//! Waiting for a time.
//!
//! A `Deadline` is made once per connection and moved for every read and write: moving it is one
//! store. The wheel hears of it only when a task really waits, and holds one node for it, which
//! may stand for an earlier time: then the task is woken once too early, sees that, and waits on.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::reactor::{Loop, current, now};
use super::wheel::NodeId;

/// A moment that can be moved as often as one likes.
#[derive(Default)]
pub struct Deadline {
    at: Cell<Option<Instant>>,
    armed: Cell<Option<Armed>>,
}

#[derive(Clone, Copy)]
struct Armed {
    home: &'static Loop,
    node: NodeId,
    /// The node stands for this time or an earlier one.
    at: Instant,
}

/// The time was up first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(_: Elapsed) -> std::io::Error {
        std::io::ErrorKind::TimedOut.into()
    }
}

impl Deadline {
    /// One that never comes, until it is set.
    pub fn never() -> Deadline {
        Deadline::default()
    }

    pub fn at(at: Instant) -> Deadline {
        Deadline { at: Cell::new(Some(at)), armed: Cell::new(None) }
    }

    /// `after` from the turn's time.
    pub fn after(after: Duration) -> Deadline {
        Deadline::at(now() + after)
    }

    /// Moves it.
    #[inline]
    pub fn set(&self, at: Instant) {
        self.at.set(Some(at));
        if let Some(armed) = self.armed.get()
            && at < armed.at
        {
            self.armed.set(Some(Armed { at, ..armed }));
            armed.home.timers.borrow_mut().hasten(armed.node, armed.home.tick_at(at));
        }
    }

    /// Moves it to `after` from the turn's time.
    #[inline]
    pub fn set_after(&self, after: Duration) {
        self.set(now() + after);
    }

    /// It does not come any more.
    #[inline]
    pub fn clear(&self) {
        self.at.set(None);
    }

    /// When it comes, if it does.
    pub fn get(&self) -> Option<Instant> {
        self.at.get()
    }

    /// Whether it has come, by the turn's time.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.at.get().is_some_and(|at| now() >= at)
    }

    /// Ready when the time has come; else the task is woken then, or somewhat before.
    #[inline]
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.at.get() {
            None => Poll::Pending,
            Some(at) if now() >= at => Poll::Ready(()),
            Some(at) => {
                self.arm(at, cx);
                Poll::Pending
            }
        }
    }

    fn arm(&self, at: Instant, cx: &mut Context<'_>) {
        let mut armed = self.armed.get().unwrap_or_else(|| {
            let home = current();
            Armed { home, node: home.timers.borrow_mut().take_node(), at }
        });
        let mut timers = armed.home.timers.borrow_mut();
        match timers.waker(armed.node) {
            // The usual case: the deadline only moved away since it was armed.
            Some(waker) if armed.at <= at && waker.will_wake(cx.waker()) => return,
            Some(_) if armed.at <= at => {}
            _ => armed.at = at,
        }
        timers.arm(armed.node, armed.home.tick_at(armed.at), cx.waker());
        drop(timers);
        self.armed.set(Some(armed));
    }

    /// Waits for the time.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// What `future` gives, unless the time comes first. A future that is ready at once touches
    /// no timer. The deadline may be moved meanwhile.
    pub async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(Armed { home, node, .. }) = self.armed.get() {
            home.timers.borrow_mut().give_back(node);
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deadline").field(&self.at.get()).finish()
    }
}

/// Waits for `after` from the turn's time.
pub async fn sleep(after: Duration) {
    Deadline::after(after).wait().await;
}

/// Waits until `at`.
pub async fn sleep_until(at: Instant) {
    Deadline::at(at).wait().await;
}

/// What `future` gives, unless `at` comes first.
pub async fn timeout_at<F: Future>(at: Instant, future: F) -> Result<F::Output, Elapsed> {
    Deadline::at(at).bound(future).await
}

/// Calls `look` now, whenever what it polled wakes it, and at the time that it named last, until
/// it says `None`.
pub async fn look_after(mut look: impl FnMut(&mut Context<'_>) -> Option<Next>) {
    let deadline = Deadline::never();
    std::future::poll_fn(|cx| {
        loop {
            match look(cx) {
                None => return Poll::Ready(()),
                Some(Next::At(at)) => deadline.set(at),
                Some(Next::WhenWoken) => deadline.clear(),
            }
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// When [`look_after`] looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    At(Instant),
    WhenWoken,
}

impl From<Option<Instant>> for Next {
    fn from(at: Option<Instant>) -> Next {
        at.map_or(Next::WhenWoken, Next::At)
    }
}

/// What `future` gives, unless it takes longer than `after`.
pub async fn timeout<F: Future>(after: Duration, future: F) -> Result<F::Output, Elapsed> {
    Deadline::after(after).bound(future).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, oneshot, spawn};
    use std::rc::Rc;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn sleepers_wake_in_order() {
        let mut reactor = Reactor::new().unwrap();
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        for ms in [30, 10, 20] {
            let order = order.clone();
            spawn(async move {
                let asleep = Instant::now();
                sleep(ms * MS).await;
                assert!(asleep.elapsed() >= ms * MS);
                order.borrow_mut().push(ms);
            });
        }
        reactor.block_on(sleep(40 * MS));
        assert_eq!(*order.borrow(), [10, 20, 30]);
    }

    #[test]
    fn a_deadline_moves_both_ways() {
        let mut reactor = Reactor::new().unwrap();
        let deadline = Rc::new(Deadline::after(60_000 * MS));
        let waiting = deadline.clone();
        let (sender, receiver) = oneshot();
        spawn(async move {
            waiting.wait().await;
            let _ = sender.send(Instant::now());
        });
        reactor.block_on(async move {
            sleep(5 * MS).await;
            deadline.set_after(10 * MS);
            sleep(5 * MS).await;
            deadline.set_after(30 * MS);
            let expected = deadline.get().unwrap();
            let woken = receiver.await.unwrap();
            assert!(woken >= expected && woken < expected + 500 * MS);
        });
    }

    #[test]
    fn a_bound_future_wins_or_loses() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            assert_eq!(timeout(10 * MS, std::future::pending::<()>()).await, Err(Elapsed));
            assert_eq!(timeout(10 * MS, async { 3 }).await, Ok(3));
            assert_eq!(
                timeout(1000 * MS, async {
                    sleep(MS).await;
                    4
                })
                .await,
                Ok(4)
            );
            let ready = Deadline::after(MS);
            assert_eq!(ready.bound(async { 5 }).await, Ok(5));
            assert!(ready.armed.get().is_none(), "no timer was touched");
        });
    }

    #[test]
    fn many_short_deadlines_share_a_node() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            for _ in 0..1000 {
                let slow = async { crate::event::yield_now().await };
                timeout(60_000 * MS, slow).await.unwrap();
            }
            assert_eq!(current().timers.borrow().nodes(), 1);
        });
    }
}
