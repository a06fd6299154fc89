//! Tasks that wait until another task says so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A bell: `notify_one` wakes the longest waiting task, or the next one to come; `notify_all`
/// wakes those that wait now.
#[derive(Default)]
pub struct Notify {
    rung: Cell<bool>,
    next: Cell<u64>,
    /// Who waits, in order of arrival. Being taken out is being notified.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    /// Arrivals before this were notified together.
    all_before: Cell<u64>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes one task; if none waits, the next `notified` returns at once. Not counted: ringing
    /// twice while nobody waits lets one through.
    pub fn notify_one(&self) {
        let first = self.waiting.borrow_mut().pop_first();
        match first {
            Some((_, waker)) => waker.wake(),
            None => self.rung.set(true),
        }
    }

    /// Wakes all that wait, and nobody who comes later.
    pub fn notify_all(&self) {
        self.all_before.set(self.next.get());
        let all = self.waiting.take();
        all.into_values().for_each(Waker::wake);
    }

    /// How many tasks wait.
    pub fn waiters(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Waits to be notified.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, arrival: None }
    }
}

/// Waiting for a `Notify`. Dropped after it was chosen and before it ran, it passes the ring on.
pub struct Notified<'a> {
    notify: &'a Notify,
    arrival: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify;
        let Some(arrival) = self.arrival else {
            if notify.rung.take() {
                return Poll::Ready(());
            }
            let arrival = notify.next.get();
            notify.next.set(arrival + 1);
            notify.waiting.borrow_mut().insert(arrival, cx.waker().clone());
            self.arrival = Some(arrival);
            return Poll::Pending;
        };
        match notify.waiting.borrow_mut().get_mut(&arrival) {
            Some(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            None => {
                self.arrival = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(arrival) = self.arrival else { return };
        let waited = self.notify.waiting.borrow_mut().remove(&arrival).is_some();
        if !waited && arrival >= self.notify.all_before.get() {
            self.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, spawn, yield_now};
    use std::rc::Rc;

    #[test]
    fn a_ring_before_the_wait_is_kept_once() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let notify = Notify::new();
            notify.notify_one();
            notify.notify_one();
            notify.notified().await;
            assert!(!notify.rung.get());
        });
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (notify, order) = (Rc::new(Notify::new()), Rc::new(RefCell::new(vec![])));
            for name in 0..3 {
                let (notify, order) = (notify.clone(), order.clone());
                spawn(async move {
                    notify.notified().await;
                    order.borrow_mut().push(name);
                });
            }
            yield_now().await;
            notify.notify_one();
            yield_now().await;
            assert_eq!(*order.borrow(), [0]);
            notify.notify_all();
            yield_now().await;
            assert_eq!((&*order.borrow(), notify.waiters()), (&vec![0, 1, 2], 0));
        });
    }

    #[test]
    fn a_chosen_task_that_dies_passes_the_ring_on() {
        let notify = Notify::new();
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (Box::pin(notify.notified()), Box::pin(notify.notified()));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        notify.notify_one();
        drop(first);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }
}
