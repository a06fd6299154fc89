//! A mutex of a region, held; and the news that its last holder died.
//!
//! The mutex is a process-shared robust pthread mutex: 25 ns uncontended, and the kernel tells the
//! next taker of a holder's death within microseconds, so nobody has to probe process ids.
//! Waiting is bounded: a holder that is alive but stopped (SIGSTOP, a debugger) makes an operation
//! fail after [`WAIT_MS`], it never hangs a worker for good.

use crate::region::{SharedMutex, Taking};

/// Longest wait for a holder that is alive, milliseconds.
pub const WAIT_MS: u32 = 1000;
/// Attempts before sleeping in the kernel: holders stay inside for well under a microsecond.
const SPINS: u32 = 64;

/// The lock could not be had: its holder is stopped, or the mutex is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lock is held by a stopped process")]
pub struct Stuck;

/// A held mutex; released on drop.
pub struct Guard<'a> {
    mutex: &'a SharedMutex,
    orphaned: bool,
}

impl<'a> Guard<'a> {
    /// Takes `mutex`, waiting at most [`WAIT_MS`].
    #[inline]
    pub fn take(mutex: &'a SharedMutex) -> Result<Guard<'a>, Stuck> {
        Self::take_within(mutex, WAIT_MS)
    }

    /// Takes `mutex`, waiting at most `wait_ms`.
    #[inline]
    pub fn take_within(mutex: &'a SharedMutex, wait_ms: u32) -> Result<Guard<'a>, Stuck> {
        let mut taking = mutex.try_take();
        if taking == Taking::Busy {
            taking = wait(mutex, wait_ms);
        }
        match taking {
            Taking::Clean => Ok(Guard { mutex, orphaned: false }),
            Taking::Orphaned => Ok(Guard { mutex, orphaned: true }),
            Taking::Busy | Taking::Broken => Err(Stuck),
        }
    }

    /// Whether the last holder died inside, and nobody repaired what the mutex protects yet.
    #[inline]
    pub fn is_orphaned(&self) -> bool {
        self.orphaned
    }

    /// The repair is done. Until then the death of this process is news to the next taker again.
    pub fn repaired(&mut self) {
        if std::mem::take(&mut self.orphaned) {
            self.mutex.consistent();
        }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // An orphaned mutex given back without this would be lost for ever.
        self.repaired();
        self.mutex.release();
    }
}

#[cold]
fn wait(mutex: &SharedMutex, wait_ms: u32) -> Taking {
    for n in 0..SPINS {
        for _ in 0..n {
            std::hint::spin_loop();
        }
        let taking = mutex.try_take();
        if taking != Taking::Busy {
            return taking;
        }
    }
    mutex.take_within(wait_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Plan, Region};

    fn region() -> Region {
        Region::create(Plan { kind: 1, name: "l".into(), param: 0, locks: 1, words: 8 }).unwrap()
    }

    #[test]
    fn a_held_lock_is_busy_and_comes_back() {
        let r = region();
        let held = Guard::take(r.mutex(0).unwrap()).unwrap();
        assert!(!held.is_orphaned());
        assert!(Guard::take_within(r.mutex(0).unwrap(), 5).is_err());
        drop(held);
        assert!(Guard::take_within(r.mutex(0).unwrap(), 5).is_ok());
    }

    #[test]
    fn a_holder_that_ends_leaves_an_orphan_until_it_is_repaired() {
        let r = region();
        let m = r.mutex(0).unwrap();
        std::thread::scope(|s| {
            s.spawn(|| std::mem::forget(Guard::take(m).unwrap()));
        });
        let mut next = Guard::take_within(m, 100).unwrap();
        assert!(next.is_orphaned());
        next.repaired();
        drop(next);
        assert!(!Guard::take(m).unwrap().is_orphaned());
    }
}
