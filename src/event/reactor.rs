//! The turn of the loop: poll, timers, tasks.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::offload::{NamedPools, Offload};
use super::slots::Slots;
use super::source::Sources;
use super::tasks::{Task, Tasks};
use super::wheel::Wheel;
use crate::sys::time;
use crate::sys::waker::{ReadyQueue, TaskName};

/// Events taken from the kernel in one turn; more wait for the next.
const EVENTS_PER_TURN: usize = 512;
/// How often tasks woken by tasks run before the loop looks at its sockets again.
const ROUNDS_PER_TURN: usize = 8;
/// The token of wakes from other threads.
const NUDGE: Token = Token(usize::MAX);

/// The loop of one thread. Make it after `fork`: an epoll instance must not be shared.
pub struct Reactor {
    inner: &'static Loop,
    events: Events,
    batch: Vec<TaskName>,
    /// Tied to its thread.
    _local: PhantomData<*const ()>,
}

/// What happened in a turn.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Turn {
    /// Events the kernel reported.
    pub events: usize,
    /// Tasks that ran.
    pub polls: usize,
}

/// What the loop's tasks reach through the thread.
pub(super) struct Loop {
    pub poll: RefCell<Option<mio::Poll>>,
    pub ready: &'static ReadyQueue,
    pub tasks: Tasks,
    pub sources: Sources,
    pub timers: RefCell<Wheel>,
    /// The turn's time.
    pub now: Cell<Instant>,
    /// The same in the wheel's milliseconds.
    pub tick: Cell<u64>,
    /// Where the timers' milliseconds begin.
    pub origin: Instant,
    /// Ready answers the running task got from its sources.
    pub answers: Cell<u32>,
    pub slots: Slots,
    pub offload: Offload,
    pub pools: NamedPools,
}

thread_local! {
    static CURRENT: Cell<Option<&'static Loop>> = const { Cell::new(None) };
}

/// The calling thread's loop.
#[inline]
pub(super) fn current() -> &'static Loop {
    CURRENT.get().expect("called on a loop's thread")
}

/// Whether the calling thread has a loop.
pub fn is_running() -> bool {
    CURRENT.get().is_some()
}

/// The time of the current turn: no clock is read. Without a loop, the clock's.
#[inline]
pub fn now() -> Instant {
    CURRENT.get().map_or_else(Instant::now, |current| current.now.get())
}

/// Starts a task on this thread's loop. It runs first in this turn or the next one. A panic ends
/// the task, not the process.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    let current = current();
    current.tasks.spawn(current.ready, Box::pin(future))
}

/// Wakes every task, so that each looks at the world again: when a worker is told to quit.
pub fn wake_all() {
    let current = current();
    current.tasks.wake_all(current.ready);
}

/// Lets everybody else run, and the sockets be looked at, before this task goes on.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        current().ready.defer(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

impl Reactor {
    /// Makes the loop of the calling thread; `spawn`, `now` and the rest find it from here on. One
    /// that the thread had before (a parent's, before `fork`) is forgotten, its descriptors stay.
    pub fn new() -> io::Result<Reactor> {
        let poll = mio::Poll::new()?;
        let ready = ReadyQueue::claim(mio::Waker::new(poll.registry(), NUDGE)?)?;
        let now = Instant::now();
        time::tick(now);
        // Lives as long as the process, as the one loop does; tests make a few more.
        let inner = Box::leak(Box::new(Loop {
            poll: RefCell::new(Some(poll)),
            ready,
            tasks: Tasks::default(),
            sources: Sources::default(),
            timers: RefCell::new(Wheel::default()),
            now: Cell::new(now),
            tick: Cell::new(0),
            origin: now,
            answers: Cell::new(0),
            slots: Slots::default(),
            offload: Offload::default(),
            pools: NamedPools::default(),
        }));
        CURRENT.set(Some(inner));
        let events = Events::with_capacity(EVENTS_PER_TURN);
        Ok(Reactor { inner, events, batch: Vec::new(), _local: PhantomData })
    }

    /// One turn: waits for something to happen, at most `max_wait` (`None`: as long as it takes),
    /// then runs what became due and what became ready. Returns after one batch, so that the
    /// caller can look at its signals.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        self.poll(max_wait)?;
        self.inner.set_now(Instant::now());
        let mut events = 0;
        for event in &self.events {
            self.inner.sources.dispatch(event);
            events += 1;
        }
        self.inner.fire_timers();
        Ok(Turn { events, polls: self.run_ready() })
    }

    /// Runs the loop until `future` is done. For tests and for programs that do one thing.
    pub fn block_on<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let (sender, mut receiver) = super::oneshot();
        spawn(async move { drop(sender.send(future.await)) });
        loop {
            self.turn(None).expect("epoll_wait on our own descriptor");
            match receiver.try_take() {
                Some(Ok(value)) => return value,
                Some(Err(_)) => panic!("the future panicked"),
                None => {}
            }
        }
    }

    /// Tasks alive.
    pub fn tasks(&self) -> usize {
        self.inner.tasks.len()
    }

    fn poll(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let wait = self.inner.wait_time(max_wait);
        let mut poll = self.inner.poll.borrow_mut();
        let poll = poll.as_mut().expect("open while the reactor lives");
        match poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn run_ready(&mut self) -> usize {
        let mut polls = 0;
        self.inner.ready.gather();
        for _ in 0..ROUNDS_PER_TURN {
            self.inner.ready.take(&mut self.batch);
            if self.batch.is_empty() {
                break;
            }
            for task in self.batch.drain(..) {
                if self.inner.ready.begin(task) {
                    self.inner.answers.set(0);
                    self.inner.tasks.run(self.inner.ready, task);
                    polls += 1;
                }
            }
        }
        polls
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.poll.borrow().as_ref().map_or(-1, |poll| poll.as_raw_fd())
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.inner.tasks.clear(self.inner.ready);
        self.inner.offload.close();
        self.inner.pools.close();
        self.inner.ready.leave();
        self.inner.poll.take();
        if CURRENT.get().is_some_and(|current| std::ptr::eq(current, self.inner)) {
            CURRENT.set(None);
            time::stop_ticking();
        }
    }
}

impl Loop {
    /// Milliseconds of the wheel at `at`, rounded up: a timer never fires early.
    pub fn tick_at(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin);
        since.as_secs() * 1000 + u64::from(since.subsec_nanos().div_ceil(1_000_000))
    }

    #[inline]
    fn set_now(&self, now: Instant) {
        let since = now.saturating_duration_since(self.origin);
        self.now.set(now);
        self.tick.set(since.as_secs() * 1000 + u64::from(since.subsec_millis()));
        time::tick(now);
    }

    #[inline]
    fn fire_timers(&self) {
        let now = self.tick.get();
        if self.timers.borrow().next() > now {
            return;
        }
        // One at a time: a waker may be anybody's code, so the wheel is not borrowed meanwhile.
        loop {
            let Some(fired) = self.timers.borrow_mut().pop(now) else { break };
            fired.into_iter().for_each(std::task::Waker::wake);
        }
    }

    /// How long the poll may wait.
    fn wait_time(&self, max_wait: Option<Duration>) -> Option<Duration> {
        if self.ready.has_work() {
            return Some(Duration::ZERO);
        }
        let next = self.timers.borrow().next();
        if next == u64::MAX {
            return max_wait;
        }
        // From the turn's time: reading the clock again costs more than the time the turn took is
        // worth, and a busy loop does not wait anyway.
        let wait = Duration::from_millis(next.saturating_sub(self.tick.get()));
        Some(max_wait.map_or(wait, |max| max.min(wait)))
    }
}

/// A future that is polled on the loop's thread.
pub(super) type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Polls a task's future once.
#[inline]
pub(super) fn poll_once(future: &mut Running, task: TaskName) -> Poll<()> {
    let waker = task.waker();
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn tasks_run_and_wake_each_other() {
        let mut reactor = Reactor::new().unwrap();
        let seen = Rc::new(Cell::new(0));
        let inner = seen.clone();
        let done = reactor.block_on(async move {
            for _ in 0..10 {
                let seen = inner.clone();
                spawn(async move {
                    yield_now().await;
                    seen.set(seen.get() + 1);
                });
            }
            while inner.get() < 10 {
                yield_now().await;
            }
            "done"
        });
        assert_eq!((done, seen.get(), reactor.tasks()), ("done", 10, 0));
    }

    #[test]
    fn a_task_that_gives_way_lets_the_turn_end() {
        let mut reactor = Reactor::new().unwrap();
        spawn(async {
            loop {
                yield_now().await;
            }
        });
        for _ in 0..3 {
            let turn = reactor.turn(None).unwrap();
            assert_eq!(turn.polls, 1);
        }
    }

    #[test]
    fn a_panic_ends_its_task_only() {
        let mut reactor = Reactor::new().unwrap();
        let task = spawn(async { panic!("on purpose") });
        let after = reactor.block_on(async {
            yield_now().await;
            7
        });
        assert_eq!((after, task.is_alive(), reactor.tasks()), (7, false, 0));
    }

    #[test]
    fn time_stands_still_within_a_turn() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let before = now();
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(now(), before);
            yield_now().await;
            assert!(now() >= before + Duration::from_millis(3));
        });
    }

    #[test]
    fn a_turn_waits_no_longer_than_it_may() {
        let mut reactor = Reactor::new().unwrap();
        let begin = Instant::now();
        assert_eq!(reactor.turn(Some(Duration::from_millis(20))).unwrap(), Turn::default());
        assert!(begin.elapsed() >= Duration::from_millis(19));
    }

    #[test]
    fn another_thread_can_wake_a_task() {
        let mut reactor = Reactor::new().unwrap();
        let mut thread = None;
        reactor.block_on(std::future::poll_fn(move |cx| {
            let waker = cx.waker().clone();
            match thread.take() {
                None => {
                    thread = Some(std::thread::spawn(move || waker.wake()));
                    Poll::Pending
                }
                Some(_) => Poll::Ready(()),
            }
        }));
    }
}
