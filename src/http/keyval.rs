//! Key-value zones: what a feed, a Lua program or an operator tells the workers about a key.
//!
//! A zone is a shared dict (the very one that `lua_shared_dict` would name) whose keys may also be
//! networks or prefixes. Such a zone has one more entry, under [`LENGTHS_KEY`]: which lengths its
//! keys have, so that a lookup probes those and no others, longest first. An entry that is missing
//! (evicted, or written by somebody who does not know of it) only costs probes.
//!
//! **Invariant:** a lookup takes no lock.

use crate::conf::{Reading, Reason};
use crate::event::{Zone, ZoneTable};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tollbar_shm::dict::{Error, Hit, Init, Scalar};
use tollbar_shm::{Dict, Put, Record, Room, Update, Value};

/// Whose zones they are: also those of `lua_shared_dict`.
pub const TAG: &str = "shared_dict";
/// The longest key of a `type=prefix` zone, bytes.
pub const PREFIX_MAX_BYTES: usize = 255;
/// The entry with the lengths of keys; no text that a client can send begins with NUL.
const LENGTHS_KEY: &[u8] = b"\0keyval lengths";

/// How a key is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    /// It is the same text.
    #[default]
    String,
    /// The zone's keys are addresses and networks; the longest network that holds the address.
    Ip,
    /// The longest of the zone's keys that the text begins with.
    Prefix,
}

/// One declared zone; for every process.
#[derive(Debug)]
pub struct KeyvalZone {
    /// Its memory.
    pub zone: Rc<Zone>,
    matching: Cell<Match>,
    timeout_ms: Cell<u64>,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// In a `type=ip` zone.
    #[error("the key is no address and no network")]
    NoAddress,
    /// Empty, over the limit of its kind, or the reserved one.
    #[error("the key is too long or empty")]
    BadKey,
    /// The dict's reason.
    #[error(transparent)]
    Dict(#[from] Error),
}

/// All zones of a configuration; on the reading's shelf. A clone is the same table, so that a
/// block may keep it and look zones up after the whole file was read.
#[derive(Clone, Debug, Default)]
pub struct KeyvalZones(Rc<RefCell<Vec<Rc<KeyvalZone>>>>);

impl KeyvalZones {
    /// The zone of this name, if any directive named it.
    pub fn find(&self, name: &str) -> Option<Rc<KeyvalZone>> {
        self.0.borrow().iter().find(|known| known.zone.name == name).cloned()
    }

    /// A use of a zone that is declared somewhere in the file.
    pub fn refer(r: &mut Reading, name: &str) -> Result<Rc<KeyvalZone>, Reason> {
        let zone = r.shelf.of::<ZoneTable>().want(name, TAG, None)?;
        Ok(KeyvalZones::add(r, zone))
    }

    /// `keyval_zone`.
    pub fn declare(
        r: &mut Reading,
        name: &str,
        size_bytes: u64,
        matching: Match,
        timeout: Option<Duration>,
    ) -> Result<(), Reason> {
        let zone = r.shelf.of::<ZoneTable>().want(name, TAG, Some(size_bytes))?;
        let zone = KeyvalZones::add(r, zone);
        zone.matching.set(matching);
        zone.timeout_ms.set(timeout.map_or(0, |time| time.as_millis() as u64));
        Ok(())
    }

    fn add(r: &mut Reading, zone: Rc<Zone>) -> Rc<KeyvalZone> {
        let table = r.shelf.of::<KeyvalZones>();
        if let Some(known) = table.find(&zone.name) {
            return known;
        }
        let (matching, timeout_ms) = (Cell::default(), Cell::default());
        let added = Rc::new(KeyvalZone { zone, matching, timeout_ms });
        table.0.borrow_mut().push(added.clone());
        added
    }
}

impl KeyvalZone {
    /// Appends the value of `key`; false if there is none.
    pub fn look_up(&self, key: &[u8], now_ms: u64, out: &mut Vec<u8>) -> bool {
        self.keys().look_up(key, now_ms, out)
    }

    /// Stores a value for `ttl_ms`, or the zone's timeout, or for ever.
    pub fn set(
        &self,
        key: &[u8],
        value: Value<'_>,
        ttl_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let put = Put::new(value).ttl(ttl_ms.unwrap_or(self.timeout_ms.get()));
        self.keys().set(key, put, now_ms)
    }

    /// Adds `by` to the number that a key has; one that is not there has `start`, and stays as long
    /// as [`KeyvalZone::set`] says.
    pub fn incr(
        &self,
        key: &[u8],
        by: f64,
        start: f64,
        ttl_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<f64, Refused> {
        let init = Init::new(start).ttl(ttl_ms.unwrap_or(self.timeout_ms.get()));
        self.keys().incr(key, by, init.room(Room::Evict), now_ms)
    }

    /// Removes a key; one that is not there is no error.
    pub fn delete(&self, key: &[u8]) -> Result<(), Refused> {
        self.keys().delete(key)
    }

    /// Removes everything.
    pub fn clear(&self, now_ms: u64) -> Result<(), Refused> {
        self.keys().clear(now_ms)
    }

    fn keys(&self) -> Keys<'_> {
        Keys { dict: self.zone.dict(), matching: self.matching.get() }
    }
}

/// A dict and the meaning of its keys.
struct Keys<'a> {
    dict: &'a Dict,
    matching: Match,
}

impl Keys<'_> {
    fn look_up(&self, key: &[u8], now_ms: u64, out: &mut Vec<u8>) -> bool {
        match self.matching {
            _ if key.is_empty() || key[0] == 0 => false,
            Match::String => self.get(key, now_ms, out),
            Match::Prefix => {
                let mut lengths = self.lengths(now_ms).up_to(key.len().min(PREFIX_MAX_BYTES));
                lengths.any(|length| self.get(&key[..length], now_ms, out))
            }
            Match::Ip => {
                let ip = std::str::from_utf8(key).ok().and_then(|text| text.parse().ok());
                ip.is_some_and(|ip: IpAddr| self.find_network(ip.to_canonical(), now_ms, out))
            }
        }
    }

    fn find_network(&self, ip: IpAddr, now_ms: u64, out: &mut Vec<u8>) -> bool {
        let lengths = self.lengths(now_ms);
        let mut text = String::with_capacity(50);
        let mut probe = |net: IpNet| {
            text.clear();
            // Writing to a string does not fail.
            let _ = write!(text, "{}", Shown(net));
            self.get(text.as_bytes(), now_ms, out)
        };
        match ip {
            IpAddr::V4(v4) => lengths
                .within(0, 32)
                .any(|n| Ipv4Net::new(v4, n as u8).is_ok_and(|net| probe(net.trunc().into()))),
            IpAddr::V6(v6) => lengths
                .within(V6_AT, V6_AT + 128)
                .map(|n| n - V6_AT)
                .any(|n| Ipv6Net::new(v6, n as u8).is_ok_and(|net| probe(net.trunc().into()))),
        }
    }

    fn set(&self, key: &[u8], put: Put<'_>, now_ms: u64) -> Result<(), Refused> {
        let (key, length) = self.stored(key)?;
        if let Some(length) = length {
            self.note_length(length, now_ms)?;
        }
        self.dict.set(&key, put, now_ms)?;
        Ok(())
    }

    fn incr(&self, key: &[u8], by: f64, init: Init, now_ms: u64) -> Result<f64, Refused> {
        let (key, length) = self.stored(key)?;
        if let Some(length) = length {
            self.note_length(length, now_ms)?;
        }
        Ok(self.dict.incr(&key, by, Some(init), now_ms)?.value)
    }

    fn delete(&self, key: &[u8]) -> Result<(), Refused> {
        let (key, _) = self.stored(key)?;
        Ok(self.dict.delete(&key)?)
    }

    fn clear(&self, now_ms: u64) -> Result<(), Refused> {
        self.dict.flush_all()?;
        if self.matching != Match::String {
            let none = Record::new(&Lengths::default().bytes());
            let store = Update::Store { record: none, ttl_ms: 0 };
            self.dict.update(LENGTHS_KEY, Room::Evict, now_ms, |_| store)?;
        }
        Ok(())
    }

    /// The key as it is stored, and which length it has.
    fn stored(&self, key: &[u8]) -> Result<(Vec<u8>, Option<usize>), Refused> {
        if key.is_empty() || key[0] == 0 || key.len() > tollbar_shm::dict::KEY_MAX {
            return Err(Refused::BadKey);
        }
        match self.matching {
            Match::String => Ok((key.into(), None)),
            Match::Prefix if key.len() > PREFIX_MAX_BYTES => Err(Refused::BadKey),
            Match::Prefix => Ok((key.into(), Some(key.len()))),
            Match::Ip => {
                let text = std::str::from_utf8(key).map_err(|_| Refused::NoAddress)?;
                let net = network(text).ok_or(Refused::NoAddress)?;
                let at = if net.addr().is_ipv4() { 0 } else { V6_AT };
                let length = at + usize::from(net.prefix_len());
                Ok((Shown(net).to_string().into_bytes(), Some(length)))
            }
        }
    }

    fn get(&self, key: &[u8], now_ms: u64, out: &mut Vec<u8>) -> bool {
        match self.dict.get_into(key, now_ms, out) {
            Ok(Some(hit)) => {
                append_scalar(hit, out);
                true
            }
            // A list is no value, and what cannot be read is not known.
            Ok(None) | Err(_) => false,
        }
    }

    fn lengths(&self, now_ms: u64) -> Lengths {
        let mut bytes = Vec::with_capacity(LENGTHS_BYTES);
        match self.dict.get_into(LENGTHS_KEY, now_ms, &mut bytes) {
            Ok(Some(_)) => Lengths::of(&bytes),
            _ if self.dict.is_empty() => Lengths::default(),
            _ => Lengths::all(),
        }
    }

    fn note_length(&self, length: usize, now_ms: u64) -> Result<(), Error> {
        let there = self.dict.get(LENGTHS_KEY, now_ms)?.is_some();
        if there && self.lengths(now_ms).has(length) {
            return Ok(());
        }
        self.dict.update(LENGTHS_KEY, Room::Evict, now_ms, |old| {
            let mut lengths = match old {
                Some(old) => Lengths::of(old),
                None if self.dict.is_empty() => Lengths::default(),
                None => Lengths::all(),
            };
            lengths.add(length);
            Update::Store { record: Record::new(&lengths.bytes()), ttl_ms: 0 }
        })?;
        Ok(())
    }
}

/// Where the lengths of IPv6 networks begin.
const V6_AT: usize = 64;
const LENGTHS_BYTES: usize = 32;

/// A set of lengths of keys, 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lengths([u64; 4]);

impl Lengths {
    fn all() -> Lengths {
        Lengths([u64::MAX; 4])
    }

    /// What was stored; anything else may stand for any length.
    fn of(bytes: &[u8]) -> Lengths {
        if bytes.len() != LENGTHS_BYTES {
            return Lengths::all();
        }
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        Lengths(words)
    }

    fn bytes(self) -> [u8; LENGTHS_BYTES] {
        let mut bytes = [0; LENGTHS_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn has(self, length: usize) -> bool {
        self.0.get(length / 64).is_some_and(|word| word >> (length % 64) & 1 == 1)
    }

    fn add(&mut self, length: usize) {
        self.0[length / 64] |= 1 << (length % 64);
    }

    /// Those from 1 to `max`, longest first.
    fn up_to(self, max: usize) -> impl Iterator<Item = usize> {
        self.within(1, max)
    }

    /// Those from `min` to `max`, longest first.
    fn within(self, min: usize, max: usize) -> impl Iterator<Item = usize> {
        (min..=max).rev().filter(move |length| self.has(*length))
    }
}

/// An address alone is written without a length.
struct Shown(IpNet);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            net if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            net => write!(f, "{net}"),
        }
    }
}

/// An address or a network, with no bit set behind its length. IPv4 in IPv6 is IPv4.
pub fn network(text: &str) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().into());
    }
    let net: IpNet = text.parse().ok()?;
    match (net, net.addr().to_canonical()) {
        (IpNet::V6(net), IpAddr::V4(v4)) if net.prefix_len() >= 96 => {
            Some(Ipv4Net::new(v4, net.prefix_len() - 96).ok()?.trunc().into())
        }
        _ => Some(net.trunc()),
    }
}

fn append_scalar(hit: Hit, out: &mut Vec<u8>) {
    let text = match hit.value {
        Scalar::String => return,
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(n) if n.fract() == 0.0 && n.abs() < 1e15 => (n as i64).to_string(),
        Scalar::Number(n) => n.to_string(),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dict: &Dict, matching: Match, key: &str) -> Option<String> {
        let mut out = Vec::new();
        let keys = Keys { dict, matching };
        let there = keys.look_up(key.as_bytes(), 1, &mut out);
        assert!(there || out.is_empty());
        there.then(|| String::from_utf8(out).unwrap())
    }

    fn set(dict: &Dict, matching: Match, key: &str) -> Result<(), Refused> {
        Keys { dict, matching }.set(key.as_bytes(), Put::string(key.as_bytes()), 1)
    }

    #[test]
    fn the_longest_network_wins() {
        let dict = Dict::create("d", 1 << 20).unwrap();
        let find = |key| found(&dict, Match::Ip, key);
        assert_eq!(find("10.1.2.3"), None);
        for net in ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "::/0"] {
            set(&dict, Match::Ip, net).unwrap();
        }
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(find("10.1.2.3"), is("10.1.2.3"));
        assert_eq!(find("::ffff:10.1.2.4"), is("10.1.0.0/16"));
        assert_eq!(find("10.2.2.3"), is("10.0.0.0/8"));
        assert_eq!(find("11.0.0.1"), None);
        assert_eq!(find("2001:db8::1"), is("2001:db8::/32"));
        assert_eq!(find("2001:db9::1"), is("::/0"));
        assert_eq!(find("nonsense"), None);
        assert_eq!(set(&dict, Match::Ip, "nonsense"), Err(Refused::NoAddress));
        // Host bits are no part of a network's name.
        Keys { dict: &dict, matching: Match::Ip }.delete(b"10.1.9.9/16").unwrap();
        assert_eq!(find("10.1.2.4"), is("10.0.0.0/8"));
        Keys { dict: &dict, matching: Match::Ip }.clear(1).unwrap();
        assert_eq!((find("10.1.2.3"), find("::1")), (None, None));
    }

    #[test]
    fn the_longest_prefix_wins_also_without_the_lengths() {
        let dict = Dict::create("d", 1 << 20).unwrap();
        for key in ["/", "/admin", "/admin/users"] {
            set(&dict, Match::Prefix, key).unwrap();
        }
        for _ in 0..2 {
            let find = |key| found(&dict, Match::Prefix, key).unwrap();
            assert_eq!(find("/admin/users/1"), "/admin/users");
            assert_eq!(find("/administrator"), "/admin");
            assert_eq!(find("/x"), "/");
            assert_eq!(found(&dict, Match::Prefix, "x"), None);
            dict.delete(LENGTHS_KEY).unwrap();
        }
        assert_eq!(set(&dict, Match::Prefix, &"x".repeat(256)), Err(Refused::BadKey));
    }

    #[test]
    fn values_of_other_kinds_are_text() {
        let dict = Dict::create("d", 1 << 20).unwrap();
        dict.set(b"n", Put::number(7.0), 1).unwrap();
        dict.set(b"f", Put::number(0.25), 1).unwrap();
        dict.set(b"b", Put::new(Value::Bool(true)), 1).unwrap();
        let find = |key| found(&dict, Match::String, key).unwrap();
        assert_eq!((find("n"), find("f"), find("b")), ("7".into(), "0.25".into(), "true".into()));
        assert_eq!(found(&dict, Match::String, "\0keyval lengths"), None);
    }
}
