//! What a dict costs, in ns per operation, with one process and with two.
//!
//! `cargo bench -p tollbar-shm` prints the table; `-- heavy` adds 1 GiB and 10 M keys. Figures are
//! CPU time of short rounds. Only rounds count in which the process (of two: both) really ran all
//! the time; the last column says how many of [`ROUNDS`] did. "best" is the quickest of them, the
//! others are medians.
//! Targets: get ≤ 60 ns, incr of an existing key ≤ 40 ns, two readers ≥ 1.9 × one, a reader beside
//! a storm of writes ≤ 3 × alone.
#![allow(unsafe_code)]

#[path = "../tests/forks/mod.rs"]
mod forks;

use std::hint::black_box;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use forks::fork;
use tollbar_shm::{Block, Cells, Dict, Put};

/// Keys in the rows with different keys; each process has its own.
const KEYS: usize = 1000;
const ROUND: Duration = Duration::from_millis(2);
const ROUNDS: usize = 80;
/// Share of a round that a process must have run for the round to count.
const RAN: f64 = 0.9;

#[derive(Clone, Copy, Debug)]
enum Op {
    Get,
    Set,
    Incr,
}

#[derive(Clone, Copy)]
struct Case {
    op: Op,
    /// Bytes of the value; 0 is a number.
    len: usize,
    keys: usize,
}

fn main() {
    println!(
        "{:<36}{:>8}{:>10}{:>8}{:>8}",
        "ns per operation", "alone", "two, each", "sum", "rounds"
    );
    for keys in [1, KEYS] {
        for (op, len) in [
            (Op::Get, 16),
            (Op::Get, 1024),
            (Op::Get, 0),
            (Op::Set, 16),
            (Op::Set, 1024),
            (Op::Incr, 0),
        ] {
            row(Case { op, len, keys });
        }
    }
    println!(
        "\n{:<36}{:>8}{:>10}{:>8}{:>8}",
        "reader beside a writer", "alone", "storm", "ratio", "rounds"
    );
    for keys in [1, KEYS] {
        for len in [16, 1024] {
            storm(len, keys);
        }
    }
    if std::env::args().any(|a| a == "heavy") {
        heavy();
    }
}

/// One line: alone, two processes at once, and how much they do together.
fn row(case: Case) {
    let dict = filled(case);
    let (best, alone) = alone(|| {
        pin(0);
        run(&dict, case, 0)
    });
    let (both, rounds) = median_of_two(|lane| run(&dict, case, lane), |[a, b]| (a + b) / 2.0);
    let value = if case.len == 0 { "number".into() } else { format!("{} B", case.len) };
    let keys = if case.keys == 1 { "same key" } else { "different keys" };
    let name = format!("{:?} {value}, {keys}", case.op);
    println!(
        "{name:<32}{best:>7.1}{alone:>8.1}{both:>11.1}{:>7.2}×{rounds:>7}",
        2.0 * alone / both
    );
}

/// A reader while another process writes the same keys as fast as it can.
fn storm(len: usize, keys: usize) {
    let case = Case { op: Op::Get, len, keys };
    let dict = filled(case);
    let (best, alone) = alone(|| {
        pin(0);
        run(&dict, case, 0)
    });
    let lane_case = |lane: usize| Case { op: [Op::Get, Op::Set][lane], ..case };
    let (beside, rounds) = median_of_two(|lane| run(&dict, lane_case(lane), 0), |[a, _]| a);
    let name = format!("{len} B, {keys} keys");
    println!("{name:<32}{best:>7.1}{alone:>8.1}{beside:>11.1}{:>7.2}×{rounds:>7}", beside / alone);
}

fn heavy() {
    let start = cpu_time();
    let dict = Dict::create("heavy", 1 << 30).expect("1 GiB");
    let forced = (0..10_000_000u64)
        .filter(|n| dict.set(&key(*n as usize), Put::number(*n as f64), 0).expect("stored"))
        .count();
    let ns = (cpu_time() - start).as_nanos() as f64 / 1e7;
    println!("\n10 M keys into 1 GiB: {ns:.0} ns each, {forced} forced, {} entries", dict.len());
    let case = Case { op: Op::Get, len: 0, keys: 10_000_000 };
    let (best, median) = alone(|| run_scattered(&dict, case));
    println!("get, 10 M keys at random: {best:.0} ns best, {median:.0} median");
    println!("free {} MiB of {}", dict.free_space() >> 20, dict.capacity() >> 20);
    let large = vec![7; 512 << 20];
    let forced = dict.set(b"half of it", Put::string(&large), 0).expect("it fits");
    println!("a value of 512 MiB: forced {forced}, {} entries left", dict.len());
}

fn filled(case: Case) -> Dict {
    let dict = Dict::create("bench", 64 << 20).expect("memory");
    let value = vec![b'v'; case.len];
    for n in 0..2 * case.keys {
        let put = if case.len == 0 { Put::number(0.0) } else { Put::string(&value) };
        dict.set(&key(n), put, 0).expect("it fits");
    }
    dict
}

/// Works for a round; ns per operation.
fn run(dict: &Dict, case: Case, lane: usize) -> Sample {
    let first = if case.keys == 1 { 0 } else { lane * case.keys };
    let keys: Vec<_> = (first..first + case.keys).map(key).collect();
    let value = vec![b'w'; case.len];
    let mut out = Vec::with_capacity(2048);
    measure(|n| {
        let key = &keys[n % keys.len()];
        match case.op {
            Op::Get => {
                out.clear();
                assert!(black_box(dict.get_into(black_box(key), 1, &mut out)).is_ok());
            }
            Op::Set => {
                black_box(dict.set(key, Put::string(&value), 1)).expect("it fits");
            }
            Op::Incr => {
                black_box(dict.incr(black_box(key), 1.0, None, 1)).expect("a number");
            }
        }
    })
}

fn run_scattered(dict: &Dict, case: Case) -> Sample {
    let mut out = Vec::new();
    measure(|n| {
        let n = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % case.keys as u64;
        black_box(dict.get_into(&key(n as usize), 1, &mut out)).expect("readable");
    })
}

fn measure(mut act: impl FnMut(usize)) -> Sample {
    let (start, cpu, mut n) = (Instant::now(), cpu_time(), 0);
    while start.elapsed() < ROUND {
        for _ in 0..200 {
            act(n);
            n += 1;
        }
    }
    let (ran, took) = (cpu_time() - cpu, start.elapsed());
    Sample { ns: ran.as_nanos() as f64 / n as f64, share: ran.as_secs_f64() / took.as_secs_f64() }
}

/// ns per operation, and which part of the round's time the process ran.
#[derive(Clone, Copy)]
struct Sample {
    ns: f64,
    share: f64,
}

/// The quickest round, and the median.
fn alone(mut round: impl FnMut() -> Sample) -> (f64, f64) {
    let rounds = (0..ROUNDS).map(|_| round()).filter(|s| s.share > RAN);
    let mut figures: Vec<f64> = rounds.map(|s| s.ns).collect();
    figures.sort_by(f64::total_cmp);
    let at = |n: usize| figures.get(n).copied().unwrap_or(f64::NAN);
    (at(0), at(figures.len() / 2))
}

/// The median of the rounds in which both ran, and their number.
fn median_of_two(job: impl Fn(usize) -> Sample, figure: impl Fn([f64; 2]) -> f64) -> (f64, usize) {
    let rounds = two(job).into_iter().filter(|r| r.iter().all(|s| s.share > RAN));
    let mut figures: Vec<f64> = rounds.map(|[a, b]| figure([a.ns, b.ns])).collect();
    figures.sort_by(f64::total_cmp);
    (figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN), figures.len())
}

/// Runs the job in this process and in a child, each on its own core, round by round together.
fn two(job: impl Fn(usize) -> Sample) -> Vec<[Sample; 2]> {
    let cells = Cells::create("lanes", 1).expect("memory");
    let block: &Block = cells.block(b"go").expect("room");
    let meet = |n: usize| {
        block[0].fetch_add(1, SeqCst);
        while block[0].load(SeqCst) < 2 * n as u64 {
            std::thread::yield_now();
        }
    };
    let child = fork(|| {
        pin(1);
        // A fresh process takes a fault on every page first.
        job(1);
        for n in 0..ROUNDS {
            meet(2 * n + 1);
            let Sample { ns, share } = job(1);
            block[1].store(ns.to_bits(), SeqCst);
            block[2].store(share.to_bits(), SeqCst);
            meet(2 * n + 2);
        }
    });
    pin(0);
    job(0);
    let read = |n: usize| f64::from_bits(block[n].load(SeqCst));
    let rounds = (0..ROUNDS).map(|n| {
        meet(2 * n + 1);
        let mine = job(0);
        meet(2 * n + 2);
        [mine, Sample { ns: read(1), share: read(2) }]
    });
    let rounds = rounds.collect();
    assert!(child.join());
    rounds
}

fn key(n: usize) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    let (mut n, mut at) = (n, 15);
    while n > 0 {
        key[at] = b'0' + (n % 10) as u8;
        n /= 10;
        at -= 1;
    }
    key
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills what it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn pin(core: usize) {
    // SAFETY: a set of zeros is valid, and the call reads no more than its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
