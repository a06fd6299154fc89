//! One value from one task to another.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Shared<T> {
    value: Option<T>,
    /// The other end is gone.
    closed: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

/// Gives the value.
pub struct Sender<T>(Rc<RefCell<Shared<T>>>);

/// A future of the value.
pub struct Receiver<T>(Rc<RefCell<Shared<T>>>);

/// The sender went away without a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Canceled;

impl fmt::Display for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task that should have answered is gone")
    }
}

impl std::error::Error for Canceled {}

/// A way for one value, within one thread.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Shared { value: None, closed: false, receiver: None, sender: None };
    let shared = Rc::new(RefCell::new(shared));
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Gives the value, or gives it back if nobody waits for it any more.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut shared = self.0.borrow_mut();
        if shared.closed {
            return Err(value);
        }
        shared.value = Some(value);
        Ok(())
    }

    /// Whether nobody waits any more.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Ready when nobody waits any more: the work may be given up.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.closed {
            return Poll::Ready(());
        }
        shared.sender = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.closed = true;
        let receiver = shared.receiver.take();
        drop(shared);
        receiver.into_iter().for_each(Waker::wake);
    }
}

impl<T> Receiver<T> {
    /// The value if it has come, without waiting.
    pub fn try_take(&mut self) -> Option<Result<T, Canceled>> {
        let mut shared = self.0.borrow_mut();
        match shared.value.take() {
            Some(value) => Some(Ok(value)),
            None if shared.closed => Some(Err(Canceled)),
            None => None,
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Canceled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.try_take() {
            return Poll::Ready(result);
        }
        self.0.borrow_mut().receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.closed = true;
        let (value, sender) = (shared.value.take(), shared.sender.take());
        drop(shared);
        drop(value);
        sender.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, spawn, yield_now};

    #[test]
    fn the_value_arrives() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (sender, receiver) = oneshot();
            spawn(async move {
                yield_now().await;
                sender.send(5).unwrap();
            });
            assert_eq!(receiver.await, Ok(5));
        });
    }

    #[test]
    fn either_end_sees_the_other_go() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (sender, receiver) = oneshot::<u8>();
            drop(sender);
            assert_eq!(receiver.await, Err(Canceled));
            let (sender, receiver) = oneshot::<u8>();
            spawn(async move { drop(receiver) });
            std::future::poll_fn(|cx| sender.poll_closed(cx)).await;
            assert_eq!(sender.send(1), Err(1));
        });
    }
}
