//! How many connections a worker may hold (`worker_connections`): clients' and upstreams' together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Notify;
use super::reactor::current;

/// Below this part of the slots being free, idle connections are asked to go.
const SCARCE_PART: usize = 16;
/// Idle connections asked to go at a time.
const RECLAIM_MAX: usize = 32;

/// The loop's slots.
#[derive(Clone)]
pub struct Slots(Rc<Shared>);

struct Shared {
    limit: Cell<usize>,
    taken: Cell<usize>,
    freed: Notify,
    reclaim: RefCell<Option<Reclaim>>,
}

/// Closes at most so many idle connections.
type Reclaim = Rc<dyn Fn(usize)>;

/// One connection's slot, free again when dropped.
pub struct Slot(Slots);

/// The slots of this thread's loop; without a limit until `set_limit`.
pub fn slots() -> Slots {
    current().slots.clone()
}

impl Default for Slots {
    fn default() -> Slots {
        Slots(Rc::new(Shared {
            limit: Cell::new(usize::MAX),
            taken: Cell::new(0),
            freed: Notify::new(),
            reclaim: RefCell::new(None),
        }))
    }
}

impl Slots {
    /// `worker_connections`
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.set(limit);
    }
    pub fn limit(&self) -> usize {
        self.0.limit.get()
    }
    pub fn taken(&self) -> usize {
        self.0.taken.get()
    }

    /// Who closes idle connections when slots become scarce; asked for a number of them at most.
    pub fn set_reclaim(&self, reclaim: impl Fn(usize) + 'static) {
        *self.0.reclaim.borrow_mut() = Some(Rc::new(reclaim));
    }

    /// A slot, if one is free.
    pub fn take(&self) -> Option<Slot> {
        let (taken, limit) = (self.taken(), self.limit());
        if limit - taken.min(limit) <= limit / SCARCE_PART {
            self.reclaim();
        }
        if self.taken() >= limit {
            return None;
        }
        self.0.taken.set(self.taken() + 1);
        Some(Slot(self.clone()))
    }

    fn reclaim(&self) {
        let reclaim = self.0.reclaim.borrow().clone();
        if let Some(reclaim) = reclaim {
            reclaim(RECLAIM_MAX.min(self.limit() / 8).max(1));
        }
    }

    /// Waits until a slot was given back.
    pub async fn freed(&self) {
        if self.taken() >= self.limit() {
            self.0.freed.notified().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.0.0;
        slots.taken.set(slots.taken.get() - 1);
        if slots.freed.waiters() > 0 {
            slots.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_slots_than_the_limit() {
        let slots = Slots::default();
        slots.set_limit(2);
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
        assert_eq!(slots.taken(), 1);
    }

    #[test]
    fn idle_connections_are_asked_to_go() {
        let slots = Slots::default();
        slots.set_limit(32);
        let idle: Rc<RefCell<Vec<Slot>>> = Rc::default();
        let pool = idle.clone();
        slots.set_reclaim(move |most| {
            let mut pool = pool.borrow_mut();
            let rest = pool.len().saturating_sub(most);
            pool.truncate(rest);
        });
        for _ in 0..1000 {
            let slot = slots.take().expect("idle ones made room");
            idle.borrow_mut().push(slot);
        }
        assert!(slots.taken() <= 32);
    }
}
