//! A bounded, lossy queue of byte records: many producers, one consumer.
//!
//! Workers push samples and events, the privileged process or its helper takes them out. A full
//! queue drops the record and counts it; nobody ever waits for the consumer. A producer holds a
//! robust lock while it copies and commits by advancing the tail: if it dies, its record was never
//! there. The consumer takes no lock, believes nothing, and starts over at the tail if a record
//! makes no sense.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::hash::hash;
use crate::lock::Guard;
use crate::region::{OpenError, PAGE, Plan, Region, copy_in, copy_out};

/// Code of this kind in the region's header.
const KIND: u32 = u32::from_le_bytes(*b"queu");
/// Smallest and largest ring, bytes.
const SIZE_MIN: u64 = 4096;
const SIZE_MAX: u64 = 1 << 32;
/// Longest wait for another producer, milliseconds; then the record is dropped.
const WAIT_MS: u32 = 20;

// Words before the ring, each in a cache line of its own. Positions count words for ever.
const TAIL_AT: usize = 0;
const HEAD_AT: usize = 8;
const DROPPED_AT: usize = 16;
const PUSHED_AT: usize = 17;
const DAMAGED_AT: usize = 24;
const RING_AT: usize = PAGE / 8;

/// One end of a queue; every process of the tree may push.
#[derive(Debug)]
pub struct Queue {
    region: Region,
    /// Words of the ring, a power of two.
    ring: usize,
}

/// Counters of a queue since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    pub pushed: u64,
    /// Records that found no room.
    pub dropped: u64,
    /// Times the consumer met nonsense and skipped to the end.
    pub damaged: u64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the only one: the consumer may be asleep.
    First,
    Queued,
    Dropped,
}

impl Queue {
    /// Makes an empty queue of `size` bytes, rounded up to a power of two.
    pub fn create(name: &str, size: u64) -> Result<Queue, OpenError> {
        let size = size.clamp(SIZE_MIN, SIZE_MAX).next_power_of_two();
        let ring = (size / 8) as usize;
        let words = RING_AT + ring;
        let plan = Plan { kind: KIND, name: name.into(), param: size, locks: 1, words };
        Ok(Queue { region: Region::create(plan)?, ring })
    }

    /// Opens what another process made.
    pub fn open(fd: OwnedFd) -> Result<Queue, OpenError> {
        let region = Region::open(fd, KIND)?;
        let plan = region.plan();
        let sane = (SIZE_MIN..=SIZE_MAX).contains(&plan.param) && plan.param.is_power_of_two();
        let ring = (plan.param / 8) as usize;
        if !sane || plan.locks != 1 || plan.words != RING_AT + ring {
            return Err(OpenError::Refused("its size is not that of its queue"));
        }
        Ok(Queue { region, ring })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.region.plan().name
    }

    /// The descriptor, for children and for [`crate::inherit`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// The region below.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Bytes of the ring; each record takes its length rounded up to 8, and 8 more.
    pub fn capacity(&self) -> u64 {
        self.ring as u64 * 8
    }

    /// Adds a record, or drops and counts it.
    pub fn push(&self, record: &[u8]) -> Pushed {
        let pushed = self.try_push(record).unwrap_or(Pushed::Dropped);
        let counter = if pushed == Pushed::Dropped { DROPPED_AT } else { PUSHED_AT };
        self.word(counter).fetch_add(1, Relaxed);
        pushed
    }

    /// Appends the oldest record to `out`. For the one consumer only: two of them would see
    /// records twice. A consumer that dies here leaves its record to the next one.
    pub fn pop(&self, out: &mut Vec<u8>) -> Option<usize> {
        let head = self.word(HEAD_AT).load(Relaxed);
        let tail = self.word(TAIL_AT).load(Acquire);
        if head == tail {
            return None;
        }
        let start = out.len();
        match self.read_at(head, tail, out) {
            Some(len) => {
                let next = head.wrapping_add(1 + len.div_ceil(8) as u64);
                self.word(HEAD_AT).store(next, Release);
                Some(len)
            }
            None => {
                out.truncate(start);
                self.word(DAMAGED_AT).fetch_add(1, Relaxed);
                self.word(HEAD_AT).store(tail, Release);
                None
            }
        }
    }

    /// The counters.
    pub fn stats(&self) -> QueueStats {
        let load = |at| self.word(at).load(Relaxed);
        QueueStats { pushed: load(PUSHED_AT), dropped: load(DROPPED_AT), damaged: load(DAMAGED_AT) }
    }

    fn try_push(&self, record: &[u8]) -> Option<Pushed> {
        let need = 1 + record.len().div_ceil(8) as u64;
        if need > self.ring as u64 || record.len() > u32::MAX as usize {
            return None;
        }
        // A producer that died before us left nothing to repair: its record was not committed.
        let _guard = Guard::take_within(self.region.mutex(0)?, WAIT_MS).ok()?;
        let tail = self.word(TAIL_AT).load(Relaxed);
        let head = self.word(HEAD_AT).load(Acquire);
        let filled = tail.wrapping_sub(head);
        if filled > self.ring as u64 || need > self.ring as u64 - filled {
            return None;
        }
        self.slots(tail, 1).0[0].store(label(tail, record), Relaxed);
        let (left, right) = self.slots(tail.wrapping_add(1), need as usize - 1);
        let cut = record.len().min(left.len() * 8);
        copy_in(left, &record[..cut])?;
        copy_in(right, &record[cut..])?;
        self.word(TAIL_AT).store(tail.wrapping_add(need), Release);
        Some(if filled == 0 { Pushed::First } else { Pushed::Queued })
    }

    fn read_at(&self, head: u64, tail: u64, out: &mut Vec<u8>) -> Option<usize> {
        let filled = tail.wrapping_sub(head);
        let word = self.slots(head, 1).0[0].load(Relaxed);
        let len = word as u32 as usize;
        let need = len.div_ceil(8);
        if filled > self.ring as u64 || need as u64 + 1 > filled {
            return None;
        }
        let start = out.len();
        let (left, right) = self.slots(head.wrapping_add(1), need);
        let cut = len.min(left.len() * 8);
        copy_out(left, cut, out)?;
        copy_out(right, len - cut, out)?;
        (label(head, &out[start..]) == word).then_some(len)
    }

    /// `n` words of the ring from a position on, in two parts if they wrap.
    fn slots(&self, position: u64, n: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let ring = &self.region.words()[RING_AT..RING_AT + self.ring];
        let at = position as usize & (self.ring - 1);
        let left = n.min(self.ring - at);
        (&ring[at..at + left], &ring[..n - left])
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.region.words()[at]
    }
}

/// The word before a record: its length and a check of its bytes and place.
fn label(position: u64, record: &[u8]) -> u64 {
    hash(position, record) << 32 | record.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(q: &Queue) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut one = Vec::new();
        while q.pop(&mut one).is_some() {
            all.push(std::mem::take(&mut one));
        }
        all
    }

    #[test]
    fn records_come_out_in_order_over_many_turns_of_the_ring() {
        let q = Queue::create("q", 4096).unwrap();
        let r = Queue::open(q.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!((q.push(b""), q.push(b"x")), (Pushed::First, Pushed::Queued));
        assert_eq!(drain(&r), [b"".to_vec(), b"x".to_vec()]);
        for n in 0..5000usize {
            let record = vec![n as u8; n * 7 % 300];
            assert_eq!(q.push(&record), Pushed::First);
            assert_eq!(drain(&r), [record]);
        }
        assert_eq!(q.stats(), QueueStats { pushed: 5002, dropped: 0, damaged: 0 });
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let q = Queue::create("q", 4096).unwrap();
        let kept = (0..100).filter(|_| q.push(&[1; 92]) != Pushed::Dropped).count();
        assert_eq!(kept, 512 / 13);
        assert_eq!(q.push(&[0; 4096]), Pushed::Dropped, "larger than the ring");
        assert_eq!((q.stats().dropped, drain(&q).len()), (100 - kept as u64 + 1, kept));
        assert_eq!(q.push(&[0; 4088]), Pushed::First, "exactly the ring");
    }

    #[test]
    fn nonsense_is_skipped_and_the_queue_goes_on() {
        let q = Queue::create("q", 4096).unwrap();
        q.push(b"hello");
        q.region.words()[RING_AT + 1].store(7, Relaxed);
        assert_eq!(drain(&q).len(), 0);
        q.word(HEAD_AT).store(u64::MAX / 2, Relaxed);
        assert_eq!(drain(&q).len(), 0);
        q.push(b"again");
        assert_eq!((drain(&q), q.stats().damaged), (vec![b"again".to_vec()], 2));
    }

    #[test]
    fn producers_in_threads_lose_nothing_but_what_is_counted() {
        let q = Queue::create("q", 64 << 10).unwrap();
        let (mut got, mut buf) = (0, Vec::new());
        std::thread::scope(|s| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    s.spawn(|| {
                        for n in 0..20_000u64 {
                            q.push(&n.to_le_bytes());
                        }
                    })
                })
                .collect();
            while workers.iter().any(|w| !w.is_finished()) {
                buf.clear();
                got += u64::from(q.pop(&mut buf).is_some());
            }
        });
        got += drain(&q).len() as u64;
        let stats = q.stats();
        assert_eq!((got, stats.pushed + stats.dropped), (stats.pushed, 60_000));
    }
}
