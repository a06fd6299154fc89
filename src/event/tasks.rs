//! The table of tasks.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use super::reactor::{Running, current, poll_once};
use crate::sys::waker::{ReadyQueue, TASKS_MAX, TaskName};

/// The name of a task that was started. It may have ended since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Task(TaskName);

impl Task {
    /// Whether it has not ended yet.
    pub fn is_alive(self) -> bool {
        current().ready.is_open(self.0)
    }

    /// Ends the task where it waits: its future is dropped. A task that cancels itself ends at its
    /// next wait.
    pub fn cancel(self) {
        let current = current();
        if current.ready.is_open(self.0) {
            current.tasks.end(current.ready, self.0);
        }
    }
}

/// The tasks of one loop.
#[derive(Default)]
pub(super) struct Tasks {
    slots: RefCell<Vec<Option<Running>>>,
    free: RefCell<Vec<u32>>,
    alive: Cell<usize>,
}

impl Tasks {
    pub fn len(&self) -> usize {
        self.alive.get()
    }

    pub fn spawn(&self, ready: &ReadyQueue, future: Running) -> Task {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() as u32 - 1
        });
        assert!(index < TASKS_MAX, "fewer tasks than slots for them");
        slots[index as usize] = Some(future);
        self.alive.set(self.alive.get() + 1);
        let name = ready.open(index);
        ready.push(name);
        Task(name)
    }

    /// Polls a task that was ready. The table is not borrowed while it runs: it may spawn.
    #[inline]
    pub fn run(&self, ready: &ReadyQueue, task: TaskName) {
        let Some(mut future) = self.slots.borrow_mut()[task.index()].take() else { return };
        match catch_unwind(AssertUnwindSafe(|| poll_once(&mut future, task))) {
            Ok(Poll::Pending) if ready.is_open(task) => {
                self.slots.borrow_mut()[task.index()] = Some(future);
            }
            // It cancelled itself: its slot is given back already.
            Ok(Poll::Pending) => discard(future),
            Ok(Poll::Ready(())) | Err(_) => {
                discard(future);
                self.end(ready, task);
            }
        }
    }

    /// Drops what is left of the task and frees its slot, once.
    fn end(&self, ready: &ReadyQueue, task: TaskName) {
        if !ready.is_open(task) {
            return;
        }
        ready.close(task);
        let future = self.slots.borrow_mut()[task.index()].take();
        future.into_iter().for_each(discard);
        self.free.borrow_mut().push(task.index() as u32);
        self.alive.set(self.alive.get() - 1);
    }

    /// Marks every task ready.
    pub fn wake_all(&self, ready: &ReadyQueue) {
        for (index, slot) in self.slots.borrow().iter().enumerate() {
            if slot.is_some() {
                ready.push(ready.name(index));
            }
        }
    }

    /// Drops every task; those they spawn while dying are dropped too.
    pub fn clear(&self, ready: &ReadyQueue) {
        let next = || self.slots.borrow().iter().position(Option::is_some);
        while let Some(index) = next() {
            self.end(ready, ready.name(index));
        }
    }
}

/// Drops a future; its destructors may panic as any code may.
fn discard(future: Running) {
    // The panic hook has written where and why (`log::write_panics`).
    let _ = catch_unwind(AssertUnwindSafe(move || drop(future)));
}
