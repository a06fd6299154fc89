//! Regions filled with nonsense: refused, or survived. Never a crash, never a hang.

mod scribble;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use tollbar_shm::hash::scramble;
use tollbar_shm::{Cells, Dict, Put, Queue, Room, Update, Value};

/// The region's own pages: header and locks. What lies behind is for users.
fn words_at(locks: usize) -> u64 {
    4096 + (locks as u64 * 64).next_multiple_of(4096)
}

fn scribble(file: &File, from: u64, to: u64, rng: &mut u64, every: u64) {
    let mut at = from;
    while at + 8 <= to {
        *rng = rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = match scramble(*rng) % 4 {
            0 => scramble(*rng ^ 1),
            1 => scramble(*rng ^ 2) % 5000,
            2 => u64::MAX,
            _ => scramble(*rng ^ 3) & 0x0000_00ff_0000_ffff,
        };
        file.write_at(&word.to_ne_bytes(), at).unwrap();
        at += 8 * (1 + scramble(*rng ^ 4) % every);
    }
}

fn exercise(dict: &Dict) {
    let mut out = Vec::new();
    for n in 0..60u32 {
        let key = format!("k{n}").into_bytes();
        let long = vec![n as u8; (n as usize * 211) % 9000];
        let _ = dict.get_into(&key, 5, &mut out);
        let _ = dict.incr(&key, 1.0, None, 5);
        let _ = dict.set(&key, Put::string(&long), 5);
        let _ = dict.get_stale(&key, 5);
        let _ = dict.rpush(b"list", Value::String(&long), 5);
        let _ = dict.lpush(&key, Value::Number(1.0), 5);
        let _ = dict.lpop(b"list", 5);
        let _ = dict.rpop(b"l2", 5);
        let _ = dict.llen(b"list", 5);
        let _ = dict.expire(&key, 3, 5);
        let _ = dict.update(&key, Room::Refuse, 5, |_| Update::Remove);
        let _ = dict.delete(&key);
    }
    let _ = dict.get_keys(0, 5);
    let _ = dict.flush_all();
    let _ = dict.flush_expired(0, 5);
    let _ = (dict.len(), dict.free_space());
}

fn filled() -> Dict {
    let dict = Dict::create("garbage", 512 << 10).unwrap();
    for n in 0..60u32 {
        let key = format!("k{n}").into_bytes();
        dict.set(&key, Put::string(&vec![7; n as usize * 97]), 0).unwrap();
        dict.rpush(b"list", Value::String(&[1; 50]), 0).unwrap();
        dict.rpush(b"l2", Value::String(&[1; 5000]), 0).unwrap();
    }
    dict
}

#[test]
fn a_dict_full_of_nonsense_is_survived() {
    let mut rng = 42;
    for round in 0..60 {
        let dict = filled();
        let file = File::from(dict.fd().try_clone_to_owned().unwrap());
        let len = file.metadata().unwrap().len();
        let every = [1, 3, 30, 300, 3000][round % 5];
        scribble(&file, words_at(dict.region().plan().locks), len, &mut rng, every);
        let start = Instant::now();
        exercise(&dict);
        exercise(&Dict::open(dict.fd().try_clone_to_owned().unwrap()).unwrap());
        assert!(start.elapsed() < Duration::from_secs(20), "round {round}");
    }
}

#[test]
fn a_header_full_of_nonsense_is_refused() {
    let mut rng = 7;
    for at in 0..16u64 {
        let dict = filled();
        let file = File::from(dict.fd().try_clone_to_owned().unwrap());
        scribble(&file, at * 8, at * 8 + 8, &mut rng, 1);
        // Some words of the header are free text or a seed: then it opens, and is survived.
        if let Ok(dict) = Dict::open(dict.fd().try_clone_to_owned().unwrap()) {
            exercise(&dict);
        }
    }
}

#[test]
fn locks_full_of_nonsense_fail_in_bounded_time() {
    let mut rng = 9;
    let dict = Dict::create("locks", 16 << 10).unwrap();
    let file = File::from(dict.fd().try_clone_to_owned().unwrap());
    for _ in 0..20 {
        scribble(&file, 4096, 8192, &mut rng, 1);
        assert!(Dict::open(dict.fd().try_clone_to_owned().unwrap()).is_err());
    }
    // As if a process that no longer exists had it, and nobody had told: bounded, then refused.
    let sound = Dict::create("locks", 16 << 10).unwrap();
    let file = File::from(sound.fd().try_clone_to_owned().unwrap());
    file.write_at(&0x3fff_fff0u32.to_ne_bytes(), 4096).unwrap();
    let start = Instant::now();
    assert!(sound.set(b"k", Put::number(1.0), 0).is_err());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn other_files_are_refused() {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &[0xff; 100_000]).unwrap();
    let dict = Dict::create("d", 16 << 10).unwrap();
    let cells = Cells::create("c", 10).unwrap();
    for fd in [file.as_fd(), cells.fd(), cells.fd()] {
        assert!(Dict::open(fd.try_clone_to_owned().unwrap()).is_err());
    }
    assert!(Cells::open(dict.fd().try_clone_to_owned().unwrap()).is_err());
    assert!(Queue::open(dict.fd().try_clone_to_owned().unwrap()).is_err());
    assert!(dict.region().plan().name == "d");
}

#[test]
fn cells_and_queues_full_of_nonsense_are_survived() {
    let mut rng = 3;
    for every in [1, 7, 50] {
        let cells = Cells::create("c", 20).unwrap();
        let file = File::from(cells.fd().try_clone_to_owned().unwrap());
        scribble(&file, words_at(1), file.metadata().unwrap().len(), &mut rng, every);
        let _ = (cells.find(b"a"), cells.block(b"a"), cells.iter().count());
        let queue = Queue::create("q", 8192).unwrap();
        queue.push(b"hello");
        let file = File::from(queue.fd().try_clone_to_owned().unwrap());
        scribble(&file, words_at(1), file.metadata().unwrap().len(), &mut rng, every);
        for _ in 0..100 {
            queue.push(b"x");
            queue.pop(&mut Vec::new());
        }
    }
}

#[test]
fn plausible_nonsense_between_operations_is_survived() {
    let mut rng = 5;
    for _ in 0..300 {
        let data: Vec<u8> = (0..1600)
            .map(|_| {
                rng += 1;
                scramble(rng) as u8
            })
            .collect();
        scribble::drive(&data);
    }
}
