//! Jobs that would block the loop: files not in memory, signatures, hashes, big compressions.
//!
//! A few threads, started when the first jobs come, work on a bounded queue. A full queue refuses,
//! and a job nobody waits for any more, or that waited longer than it may, is not begun. Many jobs
//! that end together wake the loop once.
//!
//! A pool that `thread_pool` names has threads and a queue of its own, for jobs that may take long
//! and are no reason for files to wait. Files use those of `default`, whatever name they give.
//!
//! Deliberately absent: stopping a job that has begun. Threads cannot be stopped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::reactor::{current, now};
use crate::sys::user;

/// How long a job may wait for a thread unless it says otherwise.
const WAIT_MAX: Duration = Duration::from_secs(30);
const THREADS_DEFAULT: usize = 4;
const QUEUE_DEFAULT: usize = 4096;
/// What a main thread has: libraries of Lua's count on it.
const STACK_BYTES: usize = 8 << 20;
const QUIET_NICE: i32 = 10;
const WORK: Duration = Duration::from_micros(200);
const REST: Duration = Duration::from_micros(400);

/// Thread pools by name, on the reading's shelf.
#[derive(Default)]
pub struct ThreadPools {
    pub declared: Vec<String>,
    /// Each with the place where it was named.
    pub used: Vec<(String, (Rc<str>, usize))>,
}

/// The pool that needs no declaration.
pub const DEFAULT_POOL: &str = "default";

impl ThreadPools {
    /// The first pool that is used and not declared, and where.
    pub fn unknown(&self) -> Option<&(String, (Rc<str>, usize))> {
        let is_known =
            |name: &str| name == DEFAULT_POOL || self.declared.iter().any(|known| known == name);
        self.used.iter().find(|(name, _)| !is_known(name))
    }
}

/// The queue is full: do the work here, or refuse what caused it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

/// Why a job gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// No thread was free before its deadline.
    Late,
    /// It panicked; the panic was logged by the thread.
    Panicked,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the job queue is full")
    }
}

impl std::error::Error for Busy {}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Late => "no thread was free in time",
            Lost::Panicked => "the job panicked",
        })
    }
}

impl std::error::Error for Lost {}

/// Gives a job to a thread. The future has its result; dropped, it forgets the job.
pub fn offload<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<Offloaded<T>, Busy> {
    offload_by(now() + WAIT_MAX, job)
}

/// As `offload`; the job is to begin before `deadline` or not at all.
pub fn offload_by<T: Send + 'static>(
    deadline: Instant,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<Offloaded<T>, Busy> {
    current().offload.run(deadline, job)
}

/// As `offload`, by the threads of this pool. A pool that nobody declared is as a full one.
pub fn offload_in<T: Send + 'static>(
    pool: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<Offloaded<T>, Busy> {
    let deadline = now() + WAIT_MAX;
    if pool == DEFAULT_POOL {
        return offload_by(deadline, job);
    }
    current()
        .pools
        .0
        .borrow()
        .iter()
        .find(|named| named.name == pool)
        .ok_or(Busy)
        .and_then(|named| named.offload.run(deadline, job))
}

/// Whether `offload_in` can use this pool.
pub fn has_thread_pool(pool: &str) -> bool {
    pool == DEFAULT_POOL || current().pools.0.borrow().iter().any(|named| named.name == pool)
}

/// Says which pools there are beside `default`: name, threads, jobs that may wait. A pool that is
/// not named any more ends with the jobs it has begun.
pub fn set_thread_pools<'a>(pools: impl Iterator<Item = (&'a str, usize, usize)>) {
    let mut known = current().pools.0.take();
    let named = pools.map(|(name, threads, queue)| {
        let at = known.iter().position(|named| named.name == name);
        let named = at.map(|at| known.swap_remove(at));
        let named = named.unwrap_or_else(|| Named::new(name));
        named.offload.set(threads, queue);
        named
    });
    let named = named.collect();
    current().pools.0.replace(named);
}

/// As `offload`, for work that takes long and has time: in a thread of its own, which gives way to
/// everybody else and keeps no job of the others waiting. The caller bounds how many there are.
pub fn offload_quietly<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<Offloaded<T>, Busy> {
    let shared = Arc::new(Mutex::new(State::Waiting(None)));
    let result = shared.clone();
    let run = move || {
        // At full priority it would be done as well.
        let _ = user::set_priority(QUIET_NICE);
        let outcome = catch_unwind(AssertUnwindSafe(job)).map_err(|_| Lost::Panicked);
        finish(&result, outcome);
    };
    std::thread::Builder::new().name("quiet".into()).spawn(run).map_err(|_| Busy)?;
    Ok(Offloaded { shared })
}

/// The pace of a thread that works quietly. Low priority is not enough where every processor is
/// busy: once its turn has come, a thread keeps the processor for milliseconds, and requests wait.
pub struct Pace(Instant);

impl Default for Pace {
    fn default() -> Pace {
        Pace(Instant::now())
    }
}

impl Pace {
    /// Called between short pieces of work: rests if the last rest is long ago.
    pub fn step(&mut self) {
        if self.0.elapsed() >= WORK {
            std::thread::sleep(REST);
            self.0 = Instant::now();
        }
    }
}

/// How many threads there may be and how many jobs may wait. Jobs under way are not touched.
pub fn set_offload(threads: usize, queue: usize) {
    current().offload.set(threads, queue);
}

/// A job's result to come.
pub struct Offloaded<T> {
    shared: Arc<Mutex<State<T>>>,
}

enum State<T> {
    Waiting(Option<Waker>),
    Done(Result<T, Lost>),
    /// Taken, or nobody wants it.
    Over,
}

impl<T> Future for Offloaded<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.shared);
        match std::mem::replace(&mut *state, State::Over) {
            State::Done(result) => Poll::Ready(result),
            _ => {
                *state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Offloaded<T> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.shared), State::Over);
        drop(state);
    }
}

/// Whether somebody still wants the job, in time. If it is too late, says so.
fn begins<T>(shared: &Mutex<State<T>>, deadline: Instant) -> bool {
    if matches!(*lock(shared), State::Over) {
        return false;
    }
    if Instant::now() > deadline {
        finish(shared, Err(Lost::Late));
        return false;
    }
    true
}

fn finish<T>(shared: &Mutex<State<T>>, outcome: Result<T, Lost>) {
    let mut state = lock(shared);
    if let State::Waiting(waker) = &mut *state {
        let waker = waker.take();
        *state = State::Done(outcome);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The pools of one loop that have a name.
#[derive(Default)]
pub(super) struct NamedPools(RefCell<Vec<Named>>);

struct Named {
    name: String,
    offload: Offload,
}

impl Named {
    fn new(name: &str) -> Named {
        Named { name: name.to_owned(), offload: Offload::default() }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.offload.close();
    }
}

impl NamedPools {
    /// See [`Offload::close`].
    pub fn close(&self) {
        drop(self.0.take());
    }
}

/// Threads and their queue.
pub(super) struct Offload {
    pool: Arc<Pool>,
    threads_max: Cell<usize>,
    queue_max: Cell<usize>,
}

#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Default for Offload {
    fn default() -> Offload {
        Offload {
            pool: Arc::default(),
            threads_max: Cell::new(THREADS_DEFAULT),
            queue_max: Cell::new(QUEUE_DEFAULT),
        }
    }
}

impl Offload {
    fn set(&self, threads: usize, queue: usize) {
        self.threads_max.set(threads.max(1));
        self.queue_max.set(queue);
    }

    fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Offloaded<T>, Busy> {
        let shared = Arc::new(Mutex::new(State::Waiting(None)));
        let result = shared.clone();
        let run = move || {
            if !begins(&result, deadline) {
                return;
            }
            let outcome = catch_unwind(AssertUnwindSafe(job)).map_err(|_| Lost::Panicked);
            finish(&result, outcome);
        };
        self.push(Box::new(run))?;
        Ok(Offloaded { shared })
    }

    fn push(&self, job: Job) -> Result<(), Busy> {
        let mut queue = lock(&self.pool.queue);
        if queue.jobs.len() > queue.idle && queue.jobs.len() >= self.queue_max.get() {
            return Err(Busy);
        }
        queue.jobs.push_back(job);
        if queue.jobs.len() > queue.idle && queue.threads < self.threads_max.get() {
            return self.start_thread(queue);
        }
        drop(queue);
        self.pool.work.notify_one();
        Ok(())
    }

    fn start_thread(&self, mut queue: MutexGuard<'_, Queue>) -> Result<(), Busy> {
        let pool = self.pool.clone();
        let builder = std::thread::Builder::new().name("offload".into()).stack_size(STACK_BYTES);
        match builder.spawn(move || pool.work()) {
            Ok(_) => queue.threads += 1,
            // Others will do the job. Without any, nobody would.
            Err(_) if queue.threads > 0 => {}
            Err(_) => {
                queue.jobs.pop_back();
                return Err(Busy);
            }
        }
        Ok(())
    }

    /// Threads end when they have finished what they do; jobs that wait are dropped.
    pub fn close(&self) {
        let mut queue = lock(&self.pool.queue);
        queue.closed = true;
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.pool.work.notify_all();
        drop(jobs);
    }
}

impl Pool {
    fn work(&self) {
        let mut queue = lock(&self.queue);
        while !queue.closed {
            match queue.jobs.pop_front() {
                Some(job) => {
                    drop(queue);
                    job();
                    queue = lock(&self.queue);
                }
                None => {
                    queue.idle += 1;
                    queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
            }
        }
    }
}

/// No code of others runs under these locks, so a poisoned one holds sound data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reactor;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn results_come_back() {
        let mut reactor = Reactor::new().unwrap();
        let sum = reactor.block_on(async {
            let jobs: Vec<_> = (0..100u64).map(|n| offload(move || n * n).unwrap()).collect();
            let mut sum = 0;
            for job in jobs {
                sum += job.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, (0..100).map(|n| n * n).sum::<u64>());
    }

    #[test]
    fn a_panic_is_the_jobs_own() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let lost = offload(|| -> u8 { panic!("on purpose") }).unwrap().await;
            assert_eq!(lost, Err(Lost::Panicked));
            assert_eq!(offload(|| 1).unwrap().await, Ok(1));
            let lost = offload_quietly(|| -> u8 { panic!("on purpose") }).unwrap().await;
            assert_eq!(lost, Err(Lost::Panicked));
            assert_eq!(offload_quietly(|| 1).unwrap().await, Ok(1));
        });
    }

    /// A job that holds the only thread until told.
    fn block() -> (mpsc::Sender<()>, Offloaded<()>) {
        let (release, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let job = offload(move || {
            let _ = begun.send(());
            let _ = wait.recv();
        });
        begins.recv().unwrap();
        (release, job.unwrap())
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            set_offload(1, 2);
            let (release, _held) = block();
            let queued = (offload(|| 1), offload(|| 2));
            assert_eq!(offload(|| 3).map(drop), Err(Busy));
            release.send(()).unwrap();
            assert_eq!(queued.0.unwrap().await, Ok(1));
            assert_eq!(queued.1.unwrap().await, Ok(2));
        });
    }

    #[test]
    fn a_named_pool_is_apart() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            set_offload(1, 1);
            set_thread_pools([("a", 1, 1), ("b", 1, 1)].into_iter());
            assert!(has_thread_pool("default") && has_thread_pool("a") && !has_thread_pool("c"));
            let (release, _held) = block();
            let waits = offload(|| 1).unwrap();
            assert_eq!(offload_in("a", || 2).unwrap().await, Ok(2));
            assert_eq!(offload_in("c", || 3).map(drop), Err(Busy));
            set_thread_pools([("b", 2, 2)].into_iter());
            assert!(!has_thread_pool("a"));
            assert_eq!(offload_in("b", || 4).unwrap().await, Ok(4));
            release.send(()).unwrap();
            assert_eq!(waits.await, Ok(1));
        });
    }

    #[test]
    fn late_and_forgotten_jobs_are_not_begun() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            set_offload(1, 10);
            let (release, _held) = block();
            let count = || BEGUN.fetch_add(1, Ordering::SeqCst);
            let late = offload_by(Instant::now(), count).unwrap();
            drop(offload(count).unwrap());
            release.send(()).unwrap();
            assert_eq!(late.await, Err(Lost::Late));
            assert_eq!(offload(|| 7).unwrap().await, Ok(7));
            assert_eq!(BEGUN.load(Ordering::SeqCst), 0);
        });
    }
}
