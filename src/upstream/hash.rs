//! `ip_hash`, `hash key` and `hash key consistent`: the same key goes to the same peer.
//!
//! All three give the same peers as nginx does, so that caches stay warm over a change of servers.

use super::balance::{Ask, Balance, GUESSES_MAX};
use super::group::Group;
use super::peer::Peer;
use super::round_robin;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// The method of `ip_hash`.
pub struct IpHash;

impl Balance for IpHash {
    fn begin(&self, ask: &mut Ask, client: Option<IpAddr>, _: Vec<u8>) {
        ask.hash = 89;
        ask.key = match client {
            Some(IpAddr::V4(ip)) => ip.octets()[..3].to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
            None => vec![0; 3],
        };
    }

    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        let mut hash = ask.hash;
        while ask.guesses <= GUESSES_MAX && group.peers.len() > 1 {
            hash = ask.key.iter().fold(hash, |h, b| (h * 113 + u32::from(*b)) % 6271);
            let index = at_weight(group, i64::from(hash));
            if ask.suits(group, index, now) {
                ask.hash = hash;
                return Some(index);
            }
            ask.guesses += 1;
        }
        round_robin::choose(group, ask, now)
    }
}

/// The method of `hash`: Cache::Memcached's.
pub struct Hash;

impl Balance for Hash {
    fn begin(&self, ask: &mut Ask, _: Option<IpAddr>, key: Vec<u8>) {
        ask.key = key;
    }

    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        while ask.guesses <= GUESSES_MAX && group.peers.len() > 1 && !ask.key.is_empty() {
            let mut crc = Crc::new();
            if ask.rehash > 0 {
                crc.add(itoa::Buffer::new().format(ask.rehash).as_bytes());
            }
            crc.add(&ask.key);
            ask.hash = ask.hash.wrapping_add(crc.value() >> 16 & 0x7fff);
            ask.rehash += 1;
            let index = at_weight(group, i64::from(ask.hash));
            if ask.suits(group, index, now) {
                return Some(index);
            }
            ask.guesses += 1;
        }
        round_robin::choose(group, ask, now)
    }
}

/// The peer at `number` when each stands for as many numbers as its weight.
fn at_weight(group: &Group, number: i64) -> usize {
    let mut left = number % group.total_weight.max(1);
    let found = group.peers.iter().position(|p| {
        left -= p.weight();
        left < 0
    });
    found.unwrap_or(0)
}

/// The method of `hash … consistent`: ketama, as Cache::Memcached::Fast has it.
#[derive(Default)]
pub struct Consistent {
    ring: RefCell<Option<Ring>>,
}

/// Points of a peer of weight 1.
const POINTS: i64 = 160;
/// Points of all peers together, or as many as their weights if that is more: weights may come
/// from name servers.
const POINTS_MAX: i64 = 2_000_000;

struct Ring {
    /// The peers it was made of.
    of: Vec<Rc<Peer>>,
    points: Vec<(u32, Rc<str>)>,
}

impl Ring {
    fn new(group: &Group) -> Ring {
        let each = POINTS.min(POINTS_MAX / group.total_weight.max(1)).max(1);
        let mut points = Vec::with_capacity((group.total_weight * each) as usize);
        for peer in &group.peers {
            let (host, port) = host_and_port(&peer.server);
            let mut base = Crc::new();
            base.add(host.as_bytes());
            base.add(&[0]);
            base.add(port.as_bytes());
            let mut before = [0; 4];
            for _ in 0..peer.weight() * each {
                let mut crc = base;
                crc.add(&before);
                before = crc.value().to_le_bytes();
                points.push((crc.value(), peer.server.clone()));
            }
        }
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by_key(|(hash, _)| *hash);
        Ring { of: group.peers.clone(), points }
    }

    fn is_of(&self, group: &Group) -> bool {
        self.of.len() == group.peers.len()
            && self.of.iter().zip(&group.peers).all(|(a, b)| Rc::ptr_eq(a, b))
    }

    /// The first point at or behind `hash`.
    fn find(&self, hash: u32) -> usize {
        self.points.partition_point(|(at, _)| *at < hash)
    }
}

/// The server's host and its port, as `server` named them.
fn host_and_port(server: &str) -> (&str, &str) {
    if server.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("unix:")) {
        return (&server[5..], "");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    }
}

impl Balance for Consistent {
    fn begin(&self, ask: &mut Ask, _: Option<IpAddr>, key: Vec<u8>) {
        let mut crc = Crc::new();
        crc.add(&key);
        let mut ring = self.ring.borrow_mut();
        let group = &ask.groups.primary;
        if !ring.as_ref().is_some_and(|ring| ring.is_of(group)) {
            *ring = Some(Ring::new(group));
        }
        ask.hash = ring.as_ref().map_or(0, |ring| ring.find(crc.value())) as u32;
        ask.key = key;
    }

    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        let ring = self.ring.borrow();
        let points = ring.as_ref().map(|ring| &ring.points[..]).unwrap_or_default();
        let by_ring = !group.is_single && !ask.key.is_empty() && !points.is_empty();
        while by_ring && ask.guesses <= GUESSES_MAX {
            let (_, server) = &points[ask.hash as usize % points.len()];
            let of_server = (0..group.peers.len())
                .filter(|i| group.peers[*i].server == *server && ask.suits(group, *i, now));
            if let Some(index) = round_robin::smoothest(group, of_server) {
                return Some(index);
            }
            ask.hash += 1;
            ask.guesses += 1;
        }
        round_robin::choose(group, ask, now)
    }
}

/// CRC-32 as in zlib.
#[derive(Clone, Copy)]
struct Crc(u32);

impl Crc {
    fn new() -> Crc {
        Crc(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = TABLE[usize::from(self.0 as u8 ^ byte)] ^ self.0 >> 8;
        }
    }

    fn value(self) -> u32 {
        !self.0
    }
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut value, mut bit) = (i as u32, 0);
        while bit < 8 {
            value = value >> 1 ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc() {
        let mut crc = Crc::new();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn servers_are_cut_as_ketama_does() {
        for (server, host, port) in [
            ("127.0.0.1:8080", "127.0.0.1", "8080"),
            ("a.example", "a.example", ""),
            ("unix:/tmp/a:1", "/tmp/a:1", ""),
            ("[::1]:80", "[::1]", "80"),
            ("[::1]", "[::1]", ""),
        ] {
            assert_eq!(host_and_port(server), (host, port));
        }
    }
}
