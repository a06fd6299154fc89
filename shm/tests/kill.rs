//! A writer is killed (SIGKILL) at random instants, again and again, while others read and write.
//!
//! Held: nobody hangs, no value is ever torn, what was committed is there, no memory leaks.
//! `TOLLBAR_KILLS=2000` sets the number of kills (300 otherwise). A plain program, because it
//! forks and must have no threads.

mod forks;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime};

use forks::fork;
use tollbar_shm::dict::{Error, Owned};
use tollbar_shm::hash::{hash, scramble};
use tollbar_shm::queue::Pushed;
use tollbar_shm::{Cells, Dict, Put, Queue, Record, Room, Update, Value};

const KEPT: u64 = 2000;
/// Journaled keys of each writer.
const KEYS: u64 = 300;
const SIZE: u64 = 16 << 20;
const TIGHT: u64 = 256 << 10;
/// The limit; a machine with more work than cores delays anybody.
const HANG: Duration = Duration::from_millis(100);
const HANG_LOADED: Duration = Duration::from_secs(2);

/// Everything shared between the processes.
struct House {
    /// Roomy: nothing may be lost.
    dict: Dict,
    /// Always evicting.
    tight: Dict,
    queue: Queue,
    /// Per key two words: the version begun and the version committed.
    journal: Cells,
    flags: Cells,
}

/// A runner asks for the list of tests first: there is one.
fn is_listing() -> bool {
    let asked = |what: &str| std::env::args().any(|arg| arg == what);
    if asked("--list") && !asked("--ignored") {
        println!("kills_are_survived: test");
    }
    asked("--list")
}

fn main() {
    if is_listing() {
        return;
    }
    let kills = std::env::var("TOLLBAR_KILLS").map_or(300, |n| n.parse().expect("a number"));
    let seed = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64;
    println!("{kills} kills, seed {seed}");
    let house = House::build();
    let mut rng = Rng(seed);
    let start = Instant::now();
    // Another writer lives through it all: the dead must not stop it.
    let steady_seed = rng.next();
    let steady = fork(|| {
        let mut rng = Rng(steady_seed);
        while house.stop().load(SeqCst) == 0 {
            house.write_something(1, &mut rng);
        }
    });
    let mut slowest = Duration::ZERO;
    for n in 0..kills {
        let victim_seed = rng.next();
        let victim = fork(|| {
            let mut rng = Rng(victim_seed);
            loop {
                house.write_something(0, &mut rng);
            }
        });
        let until = Instant::now() + Duration::from_micros(rng.next() % 4000);
        while Instant::now() < until {
            slowest = slowest.max(house.read_something(&mut rng));
        }
        drop(victim);
        slowest = slowest.max(house.check(n, &mut rng));
    }
    house.stop().store(1, SeqCst);
    assert!(steady.join(), "the steady writer found something wrong");
    let took = start.elapsed();
    house.check_memory();
    println!(
        "{kills} kills in {:.1} s: slowest operation {:.2} ms, {} committed versions, {} repairs, {:?}",
        took.as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
        house.versions(),
        house.dict.repairs() + house.tight.repairs(),
        house.queue.stats(),
    );
    let limit = if loaded() { HANG_LOADED } else { HANG };
    assert!(slowest < limit, "an operation took {slowest:?}");
    println!("ok");
}

impl House {
    fn build() -> House {
        let house = House {
            dict: Dict::create("kill", SIZE).expect("memory"),
            tight: Dict::create("tight", TIGHT).expect("memory"),
            queue: Queue::create("queue", 64 << 10).expect("memory"),
            journal: Cells::create("journal", 2 * KEYS as usize * 2).expect("memory"),
            flags: Cells::create("flags", 2).expect("memory"),
        };
        for n in 0..KEPT {
            house.dict.set(&kept(n), Put::string(&content(n, 9)), 0).expect("room");
        }
        for writer in 0..2 {
            for n in 0..KEYS {
                house.journal.block(&name(writer, n)).expect("room");
            }
        }
        house
    }

    fn stop(&self) -> &AtomicU64 {
        &self.flags.block(b"stop").expect("room")[0]
    }

    fn journal_of(&self, writer: u64, n: u64) -> (&AtomicU64, &AtomicU64) {
        let block = self.journal.find(&name(writer, n)).expect("made at the start");
        (&block[0], &block[1])
    }

    /// One step of a writer.
    fn write_something(&self, writer: u64, rng: &mut Rng) {
        match rng.next() % 16 {
            0..8 => self.write_journaled(writer, rng),
            8..11 => self.write_tight(rng),
            11 => self.write_list(writer, rng),
            12 => {
                self.dict.incr(b"count", 1.0, Some(tollbar_shm::Init::new(0.0)), 0).expect("count");
            }
            13 => {
                let number = rng.next();
                let record = content(number, 8);
                self.queue.push(&record);
            }
            14 => {
                let next = |old: Option<&[u8]>| {
                    let n = old.map_or(0, |o| check_content(o).1) + 1;
                    Update::Store { record: Record::new(&content_of(7, n, 100)), ttl_ms: 0 }
                };
                self.dict.update(b"record", Room::Evict, 0, next).expect("room");
            }
            _ => {
                self.tight.flush_expired(3, rng.next() % 1000).expect("not stuck");
            }
        }
    }

    /// A version is begun, stored (or, every fourth, deleted), and then noted as committed.
    fn write_journaled(&self, writer: u64, rng: &mut Rng) {
        let n = rng.next() % KEYS;
        let (begun, committed) = self.journal_of(writer, n);
        let version = committed.load(SeqCst).max(begun.load(SeqCst)) + 1;
        begun.store(version, SeqCst);
        let key = name(writer, n);
        if version % 4 == 3 {
            self.dict.delete(&key).expect("not stuck");
        } else {
            self.dict.set(&key, Put::string(&content(n, version)), 0).expect("room");
        }
        committed.store(version, SeqCst);
    }

    fn write_tight(&self, rng: &mut Rng) {
        let n = rng.next() % 5000;
        let put = content(n, rng.next() % 100 * if n.is_multiple_of(50) { 97 } else { 1 });
        let ttl = rng.next() % 3 * 500;
        match self.tight.set(name(2, n).as_slice(), Put::string(&put).ttl(ttl), 1) {
            Ok(_) | Err(Error::NoMemory { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }

    fn write_list(&self, writer: u64, rng: &mut Rng) {
        let key = name(3, rng.next() % 10 + writer * 10);
        let value = content(4, rng.next() % 1000);
        let len = self.dict.llen(&key, 0).expect("a list");
        let done = match rng.next() % 4 {
            _ if len > 50 => self.dict.lpop(&key, 0).map(drop),
            0 => self.dict.lpush(&key, Value::String(&value), 0).map(drop),
            1 => self.dict.rpush(&key, Value::String(&value), 0).map(drop),
            2 => self.dict.lpop(&key, 0).map(drop),
            _ => self.dict.rpop(&key, 0).map(drop),
        };
        done.expect("a list operation");
    }

    /// One read by the watcher; how long it took.
    fn read_something(&self, rng: &mut Rng) -> Duration {
        let start = Instant::now();
        let (kind, n) = (rng.next() % 4, rng.next());
        let got = match kind {
            0 => self.dict.get(&kept(n % KEPT), 0),
            1 => self.dict.get(&name(n % 2, n / 2 % KEYS), 0),
            2 => self.tight.get(&name(2, n % 5000), 1),
            _ => self.dict.get(b"record", 0),
        };
        let took = start.elapsed();
        if let Some(got) = got.expect("not stuck") {
            let Owned::String(bytes) = got.value else { panic!("not a string") };
            check_content(&bytes);
        } else {
            assert_ne!(kind, 0, "a kept key is gone");
        }
        let mut record = Vec::new();
        if self.queue.pop(&mut record).is_some() {
            check_content(&record);
        }
        took
    }

    /// After a kill: operations go on at once, and what was committed is there.
    fn check(&self, n: u64, rng: &mut Rng) -> Duration {
        let mut slowest = Duration::ZERO;
        let mut timed = |act: &mut dyn FnMut()| {
            let start = Instant::now();
            act();
            slowest = slowest.max(start.elapsed());
        };
        timed(&mut || self.write_something(0, &mut Rng(rng.next())));
        timed(&mut || {
            self.dict.incr(b"count", 1.0, Some(tollbar_shm::Init::new(0.0)), 0).expect("count");
        });
        for n in 0..KEYS {
            let (begun, committed) = self.journal_of(0, n);
            let (begun, committed) = (begun.load(SeqCst), committed.load(SeqCst));
            let mut found = None;
            timed(&mut || found = self.dict.get(&name(0, n), 0).expect("not stuck"));
            let version = found.map(|got| {
                let Owned::String(bytes) = got.value else { panic!("not a string") };
                let (number, version) = check_content(&bytes);
                assert_eq!(number, n);
                version
            });
            let fits = |v: u64| if v % 4 == 3 || v == 0 { None } else { Some(v) };
            assert!(
                version == fits(begun) || version == fits(committed),
                "key {n}: {version:?}, committed {committed}, begun {begun}"
            );
            // The next victim starts from what there is.
            let (b, c) = self.journal_of(0, n);
            let now = if version == fits(begun) { begun } else { committed };
            c.store(now, SeqCst);
            b.store(now, SeqCst);
        }
        let all = n.is_multiple_of(50);
        for n in (0..KEPT).filter(|_| all || rng.next().is_multiple_of(20)) {
            timed(&mut || {
                let got = self.dict.get(&kept(n), 0).expect("not stuck").expect("kept");
                assert_eq!(got.value, Owned::String(content(n, 9)));
            });
        }
        let key = name(3, rng.next() % 10);
        timed(&mut || drop(self.dict.rpop(&key, 0).expect("a list")));
        slowest
    }

    /// With everything deleted all memory is free again, and as much fits as into a fresh dict.
    fn check_memory(&self) {
        for (dict, size) in [(&self.dict, SIZE), (&self.tight, TIGHT)] {
            for key in dict.get_keys(0, 0).expect("not stuck") {
                dict.delete(&key).expect("not stuck");
            }
            dict.flush_expired(0, u64::MAX).expect("not stuck");
            assert_eq!((dict.len(), dict.free_space()), (0, size), "memory leaked");
            let fresh = Dict::create("fresh", size).expect("memory");
            // How the last pages fall to the shards differs with the hash's seed.
            let (now, then) = (fill(dict), fill(&fresh));
            assert!(now * 100 >= then * 97, "{now} fit where {then} do in a fresh one");
        }
        while self.queue.pop(&mut Vec::new()).is_some() {}
        assert_eq!(self.queue.stats().damaged, 0);
        assert_eq!(self.queue.push(b"x"), Pushed::First);
    }

    fn versions(&self) -> u64 {
        (0..2 * KEYS).map(|n| self.journal_of(n % 2, n / 2).1.load(SeqCst)).sum()
    }
}

fn fill(dict: &Dict) -> u64 {
    (0..).take_while(|n| dict.safe_set(&kept(*n), Put::string(&[1; 900]), 0).is_ok()).count() as u64
}

fn kept(n: u64) -> Vec<u8> {
    format!("kept-{n}").into_bytes()
}

fn name(writer: u64, n: u64) -> Vec<u8> {
    format!("{writer}/{n}").into_bytes()
}

/// Bytes that tell a torn value: number, version, a length that both decide, and a pattern.
fn content(number: u64, version: u64) -> Vec<u8> {
    let long = if scramble(version).is_multiple_of(10) { 9000 } else { 300 };
    content_of(number, version, (hash(number, &version.to_le_bytes()) % long) as usize)
}

fn content_of(number: u64, version: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 24);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(len as u64).to_le_bytes());
    bytes.extend((0..len).map(|n| pattern(number, version, n)));
    bytes
}

fn check_content(bytes: &[u8]) -> (u64, u64) {
    let word = |n: usize| u64::from_le_bytes(bytes[n * 8..][..8].try_into().expect("a word"));
    let (number, version, len) = (word(0), word(1), word(2) as usize);
    assert_eq!(bytes.len(), len + 24, "torn length");
    let whole = bytes[24..].iter().enumerate().all(|(n, b)| *b == pattern(number, version, n));
    assert!(whole, "torn value {number} {version}");
    (number, version)
}

fn pattern(number: u64, version: u64, at: usize) -> u8 {
    (number ^ version.wrapping_mul(31) ^ (at as u64).wrapping_mul(7)) as u8
}

fn loaded() -> bool {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    load > cores as f64
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }
}
