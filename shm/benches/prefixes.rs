//! Large tables of networks: bytes, time to build and to check, nanoseconds per lookup.
//!
//! `cargo bench -p tollbar-shm --bench prefixes`. Networks are as long as those of public lists
//! (mostly /24 to /32, and /48 to /64); addresses are asked at random, so most lookups miss the
//! caches, and for half of them there is a network.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use tollbar_shm::Prefixes;
use tollbar_shm::prefixes::Builder;

const NETWORKS: usize = 1_000_000;
const LOOKUPS: usize = 2_000_000;

fn main() {
    for (name, values) in [("10 values", 10), ("1,000 values", 1_000), ("all differ", NETWORKS)] {
        measure(&format!("IPv4, {name}"), values, |r| {
            (Ipv4Addr::from_bits(r.next() as u32).into(), 24 + (r.next() % 9) as u8)
        });
    }
    measure("IPv6, 10 values", 10, |r| (v6(r), 48 + (r.next() % 17) as u8));
}

fn measure(name: &str, values: usize, net: impl Fn(&mut Random) -> (IpAddr, u8)) {
    let mut random = Random(7);
    let begun = Instant::now();
    let mut builder = Builder::default();
    let mut asked: Vec<IpAddr> = Vec::with_capacity(LOOKUPS);
    for n in 0..NETWORKS {
        let (ip, length) = net(&mut random);
        builder.add(ip, length, format!("value {}", n % values).as_bytes()).expect("within limits");
        asked.extend([ip, net(&mut random).0]);
    }
    let table = builder.finish("bench", 1, 1, &mut || ()).expect("a table");
    let built = begun.elapsed();
    let begun = Instant::now();
    let again = Prefixes::open(table.fd().try_clone_to_owned().expect("a copy"), &mut || ())
        .expect("sound");
    let checked = begun.elapsed();
    for n in (1..asked.len()).rev() {
        asked.swap(n, (random.next() % (n as u64 + 1)) as usize);
    }
    let begun = Instant::now();
    let found = asked.iter().filter(|ip| black_box(again.find(**ip)).is_some()).count();
    let each = begun.elapsed().as_nanos() as f64 / asked.len() as f64;
    println!(
        "{name:20} {:5.1} MB   built in {:4} ms   opened in {:3} ms   {each:4.0} ns per lookup, {:2} % found",
        again.size_bytes() as f64 / 1e6,
        built.as_millis(),
        checked.as_millis(),
        found * 100 / asked.len(),
    );
}

/// An address in 2000::/12, as given out.
fn v6(random: &mut Random) -> IpAddr {
    let (high, low) = (u128::from(random.next()), u128::from(random.next()));
    Ipv6Addr::from_bits(0x2 << 124 | (high << 64 | low) >> 12).into()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
