//! Wakers that cost nothing to clone or drop.
//!
//! A task's name (loop, index, generation) is packed into the waker's pointer, so no reference is
//! counted. A wake on the loop's own thread is a push to that thread's ready queue; from another
//! thread it goes through a locked queue and mio's `Waker`. A waker that outlives its task is
//! harmless: its generation no longer matches.
//!
//! Deliberately absent: any `Arc` per task, and any lock that a process inherits by `fork`: a child
//! that makes a loop of its own claims a seat of its own.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{RawWaker, RawWakerVTable, Waker};

const _: () = assert!(usize::BITS == 64, "a task's name is packed into a 64-bit pointer");

const INDEX_BITS: u32 = 28;
const GENERATION_BITS: u32 = 28;
/// Loops alive at one time in one process: one per thread that serves; tests run many.
const SEATS_MAX: usize = 256;
/// Tasks alive at one time in one loop.
pub const TASKS_MAX: u32 = (1 << INDEX_BITS) - 1;

const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const QUEUED: u32 = 1 << 31;

/// A task's name: which loop, which slot, which use of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskName(u64);

impl TaskName {
    fn new(seat: u8, index: u32, generation: u32) -> TaskName {
        debug_assert!(index <= TASKS_MAX && generation <= GENERATION_MASK);
        let (seat, generation) = (u64::from(seat), u64::from(generation));
        TaskName(
            seat << (INDEX_BITS + GENERATION_BITS) | generation << INDEX_BITS | u64::from(index),
        )
    }
    /// The slot in the loop's table of tasks.
    #[inline]
    pub fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }
    #[inline]
    fn generation(self) -> u32 {
        (self.0 >> INDEX_BITS) as u32 & GENERATION_MASK
    }
    #[inline]
    fn seat(self) -> u8 {
        (self.0 >> (INDEX_BITS + GENERATION_BITS)) as u8
    }
    /// A waker for this task. Free to make, clone and drop.
    #[inline]
    pub fn waker(self) -> Waker {
        let raw = RawWaker::new(std::ptr::without_provenance(self.0 as usize), &VTABLE);
        // SAFETY: the pointer is a number that is never dereferenced; every function of the table
        // is safe to call with any number, from any thread, any number of times.
        unsafe { Waker::from_raw(raw) }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone_raw, wake_raw, wake_raw, drop_raw);

fn clone_raw(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake_raw(data: *const ()) {
    wake(TaskName(data.addr() as u64));
}

fn drop_raw(_: *const ()) {}

thread_local! {
    static HERE: Cell<Option<&'static ReadyQueue>> = const { Cell::new(None) };
}

/// Marks a task ready, from any thread.
#[inline]
pub fn wake(task: TaskName) {
    match HERE.get() {
        Some(queue) if queue.seat == task.seat() => queue.push(task),
        _ => SEATS[task.seat() as usize].push(task),
    }
}

/// The tasks of this thread's loop that want to run, and which names are still valid.
pub struct ReadyQueue {
    seat: u8,
    /// Per slot: its generation, and whether it is queued already.
    marks: RefCell<Vec<u32>>,
    queue: RefCell<Vec<TaskName>>,
    /// Tasks that gave way: they run in the next turn, after the poll.
    deferred: RefCell<Vec<Waker>>,
}

impl ReadyQueue {
    /// Makes the calling thread a loop's thread; `nudge` interrupts that loop's poll. What an
    /// earlier loop of this thread left behind (in a parent, before `fork`) is forgotten.
    /// The queue lives as long as the process: there is one loop per process, so this is no leak.
    pub fn claim(nudge: mio::Waker) -> io::Result<&'static ReadyQueue> {
        let seat = Seat::claim(nudge).ok_or_else(|| io::Error::other("too many event loops"))?;
        let queue = Box::leak(Box::new(ReadyQueue {
            seat,
            marks: RefCell::default(),
            queue: RefCell::default(),
            deferred: RefCell::default(),
        }));
        HERE.set(Some(queue));
        Ok(queue)
    }

    /// The loop is gone: later wakes of its tasks do nothing.
    pub fn leave(&self) {
        SEATS[self.seat as usize].release();
        if HERE.get().is_some_and(|here| std::ptr::eq(here, self)) {
            HERE.set(None);
        }
    }

    /// Begins a use of slot `index`, which is free.
    pub fn open(&self, index: u32) -> TaskName {
        let mut marks = self.marks.borrow_mut();
        if marks.len() <= index as usize {
            marks.resize(index as usize + 1, 0);
        }
        TaskName::new(self.seat, index, marks[index as usize] & GENERATION_MASK)
    }

    /// The name of the task in slot `index`, which is open.
    pub fn name(&self, index: usize) -> TaskName {
        let generation = self.marks.borrow()[index] & GENERATION_MASK;
        TaskName::new(self.seat, index as u32, generation)
    }

    /// Ends that use: every waker of it is stale from here on.
    pub fn close(&self, task: TaskName) {
        if let Some(mark) = self.marks.borrow_mut().get_mut(task.index())
            && *mark & GENERATION_MASK == task.generation()
        {
            *mark = task.generation().wrapping_add(1) & GENERATION_MASK;
        }
    }

    /// Whether the name still means a task.
    pub fn is_open(&self, task: TaskName) -> bool {
        task.seat() == self.seat
            && self.marks.borrow().get(task.index()).map(|m| m & GENERATION_MASK)
                == Some(task.generation())
    }

    /// Marks a task of this loop ready; a second wake before it runs changes nothing.
    #[inline]
    pub fn push(&self, task: TaskName) {
        if let Some(mark) = self.marks.borrow_mut().get_mut(task.index())
            && *mark == task.generation()
        {
            *mark |= QUEUED;
            self.queue.borrow_mut().push(task);
        }
    }

    /// Makes a task ready for the next turn, not for this one.
    pub fn defer(&self, task: Waker) {
        self.deferred.borrow_mut().push(task);
    }

    /// Whether a task waits to run, now or in the next turn.
    #[inline]
    pub fn has_work(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.deferred.borrow().is_empty()
    }

    /// Moves what was deferred and what other threads woke into the queue.
    #[inline]
    pub fn gather(&self) {
        if !self.deferred.borrow().is_empty() {
            self.wake_deferred();
        }
        let seat = &SEATS[self.seat as usize];
        if seat.nudged.load(Ordering::Acquire) {
            for task in seat.take() {
                self.push(task);
            }
        }
    }

    fn wake_deferred(&self) {
        let mut deferred = self.deferred.take();
        deferred.drain(..).for_each(Waker::wake);
        let mut later = self.deferred.borrow_mut();
        if later.is_empty() {
            *later = deferred; // keeps its room
        }
    }

    /// Swaps the queued tasks with `batch`, which is empty.
    #[inline]
    pub fn take(&self, batch: &mut Vec<TaskName>) {
        debug_assert!(batch.is_empty());
        std::mem::swap(&mut *self.queue.borrow_mut(), batch);
    }

    /// A task leaves the queue to run. False: it ended since it was queued.
    #[inline]
    pub fn begin(&self, task: TaskName) -> bool {
        match self.marks.borrow_mut().get_mut(task.index()) {
            Some(mark) if *mark == task.generation() | QUEUED => {
                *mark &= !QUEUED;
                true
            }
            _ => false,
        }
    }
}

/// Where other threads leave wakes for one loop.
struct Seat {
    taken: AtomicBool,
    /// The loop was told and has not looked yet.
    nudged: AtomicBool,
    woken: Mutex<Vec<TaskName>>,
    nudge: Mutex<Option<Arc<mio::Waker>>>,
}

static SEATS: [Seat; SEATS_MAX] = [const { Seat::free() }; SEATS_MAX];

impl Seat {
    const fn free() -> Seat {
        Seat {
            taken: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            woken: Mutex::new(Vec::new()),
            nudge: Mutex::new(None),
        }
    }

    fn claim(nudge: mio::Waker) -> Option<u8> {
        let free = |seat: &Seat| !seat.taken.swap(true, Ordering::AcqRel);
        let index = SEATS.iter().position(free)?;
        *lock(&SEATS[index].nudge) = Some(Arc::new(nudge));
        Some(index as u8)
    }

    fn release(&self) {
        *lock(&self.nudge) = None;
        self.take();
        self.taken.store(false, Ordering::Release);
    }

    fn push(&self, task: TaskName) {
        lock(&self.woken).push(task);
        if !self.nudged.swap(true, Ordering::AcqRel) {
            let nudge = lock(&self.nudge).clone();
            // A failed nudge (the eventfd is gone) means that the loop is gone too.
            let _ = nudge.map(|nudge| nudge.wake());
        }
    }

    fn take(&self) -> Vec<TaskName> {
        self.nudged.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.woken))
    }
}

/// Nothing in here can panic halfway, so a poisoned lock holds sound data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (mio::Poll, &'static ReadyQueue) {
        let poll = mio::Poll::new().unwrap();
        let nudge = mio::Waker::new(poll.registry(), mio::Token(9)).unwrap();
        (poll, ReadyQueue::claim(nudge).unwrap())
    }

    fn drain(queue: &ReadyQueue) -> Vec<TaskName> {
        let mut batch = Vec::new();
        queue.gather();
        queue.take(&mut batch);
        batch.retain(|&task| queue.begin(task));
        batch
    }

    #[test]
    fn a_task_is_queued_once_until_it_runs() {
        let (_poll, queue) = queue();
        let task = queue.open(5);
        let waker = task.waker();
        waker.wake_by_ref();
        Waker::clone(&waker).wake();
        assert_eq!(drain(queue), [task]);
        assert_eq!(drain(queue), []);
        waker.wake();
        assert_eq!(drain(queue), [task]);
        queue.leave();
    }

    #[test]
    fn a_stale_waker_does_nothing() {
        let (_poll, queue) = queue();
        let old = queue.open(0);
        let waker = old.waker();
        waker.wake_by_ref();
        queue.close(old);
        assert!(!queue.is_open(old));
        let new = queue.open(0);
        waker.wake_by_ref();
        assert_eq!(drain(queue), []);
        new.waker().wake();
        waker.wake();
        assert_eq!(drain(queue), [new]);
        queue.leave();
    }

    #[test]
    fn another_thread_wakes_through_the_poll() {
        let (mut poll, queue) = queue();
        let task = queue.open(3);
        let waker = task.waker();
        let thread = std::thread::spawn(move || waker.wake());
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().next().map(|e| e.token()), Some(mio::Token(9)));
        thread.join().unwrap();
        assert_eq!(drain(queue), [task]);
        queue.leave();
    }

    #[test]
    fn a_deferred_task_waits_for_the_next_turn() {
        let (_poll, queue) = queue();
        let task = queue.open(1);
        queue.defer(task.waker());
        let mut batch = Vec::new();
        queue.take(&mut batch);
        assert!(batch.is_empty() && queue.has_work());
        assert_eq!(drain(queue), [task]);
        queue.leave();
    }
}
