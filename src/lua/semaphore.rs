//! `ngx.semaphore`: counts what there is, and lets light threads wait for it in order.

use super::vm::{Operation, Stack, Value};
use crate::event::Deadline;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A semaphore of this process.
#[derive(Default)]
pub struct Semaphore {
    /// What was posted and not taken; those who wait take theirs when their turn comes.
    free: Cell<i64>,
    waiting: RefCell<VecDeque<Rc<Wish>>>,
}

/// One who waits.
#[derive(Default)]
struct Wish {
    is_granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Semaphore {
    pub fn new(free: i64) -> Semaphore {
        Semaphore { free: Cell::new(free), ..Semaphore::default() }
    }

    /// Takes one if there is one and nobody waits.
    pub fn take(&self) -> bool {
        let may = self.waiting.borrow().is_empty() && self.free.get() > 0;
        if may {
            self.free.set(self.free.get() - 1);
        }
        may
    }

    /// Adds `n`: who waits longest may take one, when the code that posts has given way.
    pub fn post(&self, n: i64) {
        self.free.set(self.free.get().saturating_add(n));
        self.wake_first();
    }

    fn wake_first(&self) {
        if self.free.get() > 0
            && let Some(wish) = self.waiting.borrow().front()
            && let Some(waker) = wish.waker.take()
        {
            waker.wake();
        }
    }

    /// Lets who waits longest, if that is `wish`, take one.
    fn grant(&self, wish: &Rc<Wish>) {
        let is_first = self.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, wish));
        if is_first && self.free.get() > 0 {
            self.free.set(self.free.get() - 1);
            self.waiting.borrow_mut().pop_front();
            wish.is_granted.set(true);
            self.wake_first();
        }
    }

    /// How many there are; below 0, how many wait.
    pub fn count(&self) -> i64 {
        self.free.get() - self.waiting.borrow().len() as i64
    }
}

/// Waits for one, for some time.
pub struct Wait {
    semaphore: Rc<Semaphore>,
    wish: Rc<Wish>,
    deadline: Deadline,
}

impl Wait {
    pub fn begin(semaphore: Rc<Semaphore>, time: Duration) -> Wait {
        let wish = Rc::new(Wish::default());
        semaphore.waiting.borrow_mut().push_back(wish.clone());
        Wait { semaphore, wish, deadline: Deadline::after(time) }
    }

    /// Waits no longer; who is first now may have been waiting for that.
    fn give_up(&self) {
        let ours = |wish: &Rc<Wish>| Rc::ptr_eq(wish, &self.wish);
        self.semaphore.waiting.borrow_mut().retain(|wish| !ours(wish));
        self.semaphore.wake_first();
    }
}

impl Operation for Wait {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.semaphore.grant(&self.wish);
        if self.wish.is_granted.get() {
            return Poll::Ready(());
        }
        *self.wish.waker.borrow_mut() = Some(cx.waker().clone());
        let is_late = self.deadline.poll(cx);
        if is_late.is_ready() {
            self.give_up();
        }
        is_late
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        if self.wish.is_granted.take() {
            stack.push(&Value::Bool(true));
            return 1;
        }
        stack.refuse("timeout")
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.give_up();
        // One that was granted and never used goes to the next.
        if self.wish.is_granted.get() {
            self.semaphore.post(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_is_first() {
        crate::event::Reactor::new().unwrap().block_on(async {
            let semaphore = Rc::new(Semaphore::new(1));
            assert!(semaphore.take() && !semaphore.take());
            let mut cx = Context::from_waker(Waker::noop());
            let wait = || Wait::begin(semaphore.clone(), Duration::from_secs(10));
            let (mut first, mut second) = (wait(), wait());
            assert_eq!(semaphore.count(), -2);
            semaphore.post(1);
            assert!(!semaphore.take() && semaphore.count() == -1);
            assert!(second.poll(&mut cx).is_pending() && first.poll(&mut cx).is_ready());
            // The first one goes without it.
            drop(first);
            assert!(second.poll(&mut cx).is_ready());
            assert_eq!(semaphore.count(), 0);
        });
    }
}
