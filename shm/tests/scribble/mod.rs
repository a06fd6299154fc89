//! A dict whose memory another process scribbles over, driven by bytes: for the garbage test, and
//! for the fuzz target `shm_region`.
//!
//! Steps of four bytes, `what`, `a`, `b`, `c`; one half of them overwrites a word of the region
//! with something plausible, the other half is an operation.

use std::sync::atomic::Ordering::Relaxed;

use tollbar_shm::{Dict, Init, Put, Record, Room, Update, Value};

/// Runs the steps. No operation may crash or hang.
pub fn drive(data: &[u8]) {
    let dict = Dict::create("fuzz", 32 << 10).expect("memory");
    for step in data.chunks_exact(4).take(500) {
        let (what, a, b, c) = (step[0], step[1], step[2], step[3]);
        if what >= 128 {
            scribble(&dict, what, u16::from_le_bytes([a, b]), c);
        } else {
            operate(&dict, what, a, b, u64::from(c));
        }
    }
    // Whatever was done to it, it can be emptied and used.
    let _ = dict.flush_all();
    let _ = dict.flush_expired(0, 300);
    let _ = dict.set(b"last", Put::number(1.0), 300);
}

fn scribble(dict: &Dict, what: u8, at: u16, c: u8) {
    let words = dict.region().words();
    let word = &words[usize::from(at) * 7 % words.len()];
    let other = words[usize::from(c) * 61 % words.len()].load(Relaxed);
    let old = word.load(Relaxed);
    let new = match what % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => u64::from(c),
        3 => old ^ 1 << (c % 64),
        4 => old.wrapping_add(1),
        5 => old.rotate_left(32),
        6 => 0xa7 << 56 | u64::from(c % 8) << 48 | u64::from(c) << 32 | u64::from(c),
        _ => other,
    };
    word.store(new, Relaxed);
}

fn operate(dict: &Dict, what: u8, a: u8, b: u8, now: u64) {
    let key = [a % 16 + 1; 9];
    let value = vec![b; usize::from(b) * 40];
    let put = Put::string(&value).ttl(u64::from(b % 3) * 50);
    match what % 20 {
        0 => drop(dict.get(&key, now)),
        1 => drop(dict.get_stale(&key, now)),
        2 => {
            let _ = dict.set(&key, put, now);
        }
        3 => {
            let _ = dict.safe_set(&key, put, now);
        }
        4 => {
            let _ = dict.add(&key, put, now);
        }
        5 => {
            let _ = dict.replace(&key, Put::number(f64::from(b)), now);
        }
        6 => {
            let _ = dict.delete(&key);
        }
        7 => {
            let _ = dict.incr(&key, 1.0, Some(Init::new(0.0)), now);
        }
        8 => {
            let _ = dict.lpush(&key, Value::String(&value), now);
        }
        9 => {
            let _ = dict.rpush(&key, Value::Number(1.0), now);
        }
        10 => drop(dict.lpop(&key, now)),
        11 => drop(dict.rpop(&key, now)),
        12 => {
            let _ = dict.llen(&key, now);
        }
        13 => {
            let _ = dict.ttl(&key, now);
        }
        14 => {
            let _ = dict.expire(&key, u64::from(b), now);
        }
        15 => drop(dict.get_keys(usize::from(b), now)),
        16 => {
            let _ = dict.flush_expired(usize::from(b), now);
        }
        17 => {
            let _ = (dict.len(), dict.free_space());
        }
        18 => {
            let record = Record::new(&[b; 24]);
            let _ = dict.update(&key, Room::Evict, now, |_| Update::Store { record, ttl_ms: 9 });
        }
        _ => {
            let other = Dict::create("other", 64 << 10).expect("memory");
            let _ = dict.carry_to(&other, now);
        }
    }
}
