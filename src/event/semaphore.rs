//! A bound on how many tasks do a thing at the same time.

use std::cell::Cell;
use std::rc::Rc;

use super::Notify;

/// So many permits, given in order of arrival.
#[derive(Clone)]
pub struct Semaphore(Rc<Shared>);

struct Shared {
    free: Cell<usize>,
    /// Permits handed to waiting tasks that have not run yet.
    bell: Notify,
}

/// One permit, given back when dropped.
pub struct Permit(Rc<Shared>);

impl Semaphore {
    pub fn new(permits: usize) -> Semaphore {
        Semaphore(Rc::new(Shared { free: Cell::new(permits), bell: Notify::new() }))
    }

    /// Permits nobody holds.
    pub fn free(&self) -> usize {
        self.0.free.get()
    }

    /// Tasks that wait for one.
    pub fn waiters(&self) -> usize {
        self.0.bell.waiters()
    }

    /// A permit if there is one now.
    pub fn try_acquire(&self) -> Option<Permit> {
        let free = self.0.free.get().checked_sub(1)?;
        self.0.free.set(free);
        Some(Permit(self.0.clone()))
    }

    /// Waits for a permit. Bound the number of waiters by `waiters` if strangers cause them.
    pub async fn acquire(&self) -> Permit {
        loop {
            match self.try_acquire() {
                Some(permit) => return permit,
                None => self.0.bell.notified().await,
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        if self.0.bell.waiters() > 0 {
            self.0.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, spawn, yield_now};

    #[test]
    fn no_more_than_the_permits_run_together() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let semaphore = Semaphore::new(2);
            let (inside, most, done) = (
                Rc::<Cell<i32>>::default(),
                Rc::<Cell<i32>>::default(),
                Rc::<Cell<i32>>::default(),
            );
            for _ in 0..10 {
                let (semaphore, inside) = (semaphore.clone(), inside.clone());
                let (most, done) = (most.clone(), done.clone());
                spawn(async move {
                    let _permit = semaphore.acquire().await;
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    yield_now().await;
                    inside.set(inside.get() - 1);
                    done.set(done.get() + 1);
                });
            }
            while done.get() < 10 {
                yield_now().await;
            }
            assert_eq!((most.get(), semaphore.free(), semaphore.waiters()), (2, 2, 0));
        });
    }
}
