//! The clock keeps the hot set: against exact LRU of the same number of entries.

use std::collections::{BTreeMap, HashMap};

use tollbar_shm::hash::scramble;
use tollbar_shm::{Dict, Put};

/// Keys drawn with Zipf's law, s = 0.99.
struct Zipf {
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(n: usize) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=n).map(|k| {
            sum += (k as f64).powf(-0.99);
            sum
        });
        Zipf { sums: sums.collect(), state: 1 }
    }

    fn draw(&mut self) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let unit = (scramble(self.state) >> 11) as f64 / (1u64 << 53) as f64;
        let at = unit * self.sums.last().expect("keys");
        self.sums.partition_point(|s| *s < at)
    }
}

#[derive(Default)]
struct Lru {
    at: HashMap<usize, u64>,
    order: BTreeMap<u64, usize>,
    clock: u64,
}

impl Lru {
    fn ask(&mut self, key: usize, capacity: usize) -> bool {
        self.clock += 1;
        let before = self.at.insert(key, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, key);
        if self.at.len() > capacity {
            let (_, oldest) = self.order.pop_first().expect("not empty");
            self.at.remove(&oldest);
        }
        before.is_some()
    }
}

/// Hit ratios of the dict and of LRU, where `len` gives the size of a key's value.
/// The popular keys are others after every `shift` of the cache's capacity.
fn ratios(size: u64, shift: usize, len: impl Fn(usize) -> usize) -> (f64, f64, usize) {
    let dict = Dict::create("zipf", size).unwrap();
    let mut n = 0;
    while dict.safe_set(&n.to_string().into_bytes(), Put::string(&vec![1; len(n)]), 0).is_ok() {
        n += 1;
    }
    let capacity = n;
    for key in dict.get_keys(0, 0).unwrap() {
        dict.delete(&key).unwrap();
    }
    let (mut zipf, mut lru) = (Zipf::new(10 * capacity), Lru::default());
    let (mut hits, mut lru_hits, mut asked) = (0, 0, 0);
    for step in 0..30 * capacity {
        let n = zipf.draw() + step / (shift * capacity) * 1_000_000_000;
        // The popular ones must not be neighbours in any sense.
        let key = scramble(n as u64).to_string().into_bytes();
        let hit = dict.get(&key, 0).unwrap().is_some();
        let lru_hit = lru.ask(n, capacity);
        if step > 10 * capacity {
            asked += 1;
            hits += u64::from(hit);
            lru_hits += u64::from(lru_hit);
        }
        if !hit {
            dict.set(&key, Put::string(&vec![1; len(n)]), 0).unwrap();
        }
    }
    (hits as f64 / f64::from(asked), lru_hits as f64 / f64::from(asked), capacity)
}

#[test]
fn the_hot_set_stays() {
    for size in [256 << 10, 4 << 20] {
        let (clock, lru, n) = ratios(size, 1000, |_| 100);
        println!("{n} entries: clock {clock:.4}, LRU {lru:.4}, {:.3}", clock / lru);
        assert!(clock >= 0.9 * lru);
    }
}

#[test]
fn a_new_hot_set_takes_the_place_of_an_old_one() {
    let (clock, lru, n) = ratios(1 << 20, 5, |_| 100);
    println!("{n} entries, moving: clock {clock:.4}, LRU {lru:.4}, {:.3}", clock / lru);
    assert!(clock >= 0.9 * lru);
}

#[test]
fn what_was_stored_last_is_there() {
    let dict = Dict::create("last", 64 << 10).unwrap();
    for n in 0..20_000u32 {
        let len = (scramble(u64::from(n)) % 9000) as usize >> (n % 8);
        dict.set(&n.to_le_bytes(), Put::string(&vec![1; len]), 0).unwrap();
        assert!(dict.get_stale(&n.to_le_bytes(), 0).unwrap().is_some(), "{n}");
        if n > 0 && len < 500 {
            // And of the small ones also the one before, unless room was made for a large one.
            let before = (scramble(u64::from(n - 1)) % 9000) as usize >> ((n - 1) % 8);
            let there = dict.get_stale(&(n - 1).to_le_bytes(), 0).unwrap().is_some();
            assert!(there || before > 2000, "{n}: the one before is gone");
        }
    }
}

#[test]
fn the_hot_set_stays_with_values_of_many_sizes() {
    let (clock, lru, n) = ratios(4 << 20, 1000, |n| 20 + (scramble(n as u64) % 900) as usize);
    println!("{n} entries: clock {clock:.4}, LRU {lru:.4}, {:.3}", clock / lru);
    assert!(clock >= 0.9 * lru);
}

#[test]
fn memory_moves_to_the_sizes_in_demand() {
    let dict = Dict::create("shift", 4 << 20).unwrap();
    for n in 0..100_000u32 {
        dict.set(&n.to_le_bytes(), Put::string(&[1; 40]), 0).unwrap();
    }
    // From now on only values of 1 KiB: they must come to use most of the memory.
    for round in 0..20u32 {
        for n in 0..2000u32 {
            let key = [n.to_le_bytes(), round.to_le_bytes()].concat();
            dict.set(&key, Put::string(&[2; 1000]), 0).unwrap();
        }
    }
    let kept = dict.get_keys(0, 0).unwrap().iter().filter(|k| k.len() == 8).count();
    println!("{kept} large ones");
    assert!(kept > 2000, "{kept}");
}
