//! `limit_conn`: how many requests (connections) one key may hold at the same time.
//!
//! A zone keeps, per key, how many each worker holds; when a key is full, what workers that died
//! had held is taken off first. Runs in: pre-access.

use crate::conf::*;
use crate::event::{Zone, ZoneTable, zone_name_and_size};
use crate::http::limits::{LEVELS, key_of, say};
use crate::http::{Builtin, HttpModule, Merging, Phase, Pipeline, Request, Template, Verdict, var};
use crate::sys;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use tollbar_shm::{Record, Room, Update};

/// The module.
pub struct LimitConn;

impl HttpModule for LimitConn {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const MAIN: &'static [Directive<()>] =
        &[d("limit_conn_zone", HTTP, call(exactly(2), |_, r| read_zone(r)))];
    const LOC: &'static [Directive<RawLoc>] = &[
        d("limit_conn", ANY_HTTP, call(exactly(2), RawLoc::add)),
        d("limit_conn_log_level", ANY_HTTP, choice(LEVELS, |c| &mut c.log_level)),
        d("limit_conn_status", ANY_HTTP, num(400, 599, |c| &mut c.status)),
        d("limit_conn_dry_run", ANY_HTTP, flag(|c| &mut c.dry_run)),
    ];
    const VARIABLES: &'static [Builtin] = &[var("limit_conn_status", |r, out| {
        let Some(outcome) = r.slots.get::<Outcome>() else { return false };
        out.extend_from_slice(outcome.text.as_bytes());
        true
    })];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            limits: if raw.limits.is_empty() { up.limits.clone() } else { raw.limits.into() },
            log_level: raw.log_level.unwrap_or(up.log_level),
            status: raw.status.map_or(up.status, |n| n as u16),
            dry_run: raw.dry_run.unwrap_or(up.dry_run),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.limits.is_empty() {
            let loc = loc.clone();
            p.on(Phase::PreAccess, move |r| limit_conn(r, &loc));
        }
    }
}

/// A key longer than this is not limited, as in nginx.
const KEY_MAX_BYTES: usize = 255;
/// An entry that nobody touched for so long is forgotten, should its worker have been killed.
const ENTRY_TTL_MS: u64 = 24 * 3_600_000;

fn limit_conn(r: &mut Request, loc: &Loc) -> Verdict {
    if r.slots.get::<Outcome>().is_some() {
        return Verdict::Decline;
    }
    for limit in &*loc.limits {
        let Some(key) = limit.key(r) else { continue };
        match limit.zone.hold(&key, limit.max) {
            Some(held) => r.slots.of::<Outcome>().held.push(held),
            None => return refuse(r, loc, limit),
        }
    }
    match r.slots.of::<Outcome>() {
        outcome if outcome.held.is_empty() => drop(r.slots.take::<Outcome>()),
        outcome => outcome.text = "PASSED",
    }
    Verdict::Decline
}

fn refuse(r: &mut Request, loc: &Loc, limit: &Limit) -> Verdict {
    let dry = if loc.dry_run { ", dry run," } else { "" };
    let text = format!("limiting connections{dry} by zone \"{}\"", limit.zone.zone.name);
    say(r, loc.log_level, &text);
    let outcome = r.slots.of::<Outcome>();
    outcome.held.clear();
    if loc.dry_run {
        outcome.text = "REJECTED_DRY_RUN";
        return Verdict::Decline;
    }
    outcome.text = "REJECTED";
    Verdict::Finish(loc.status)
}

/// What became of the request, and what it holds until it is dropped.
#[derive(Default)]
struct Outcome {
    text: &'static str,
    held: Vec<Held>,
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    limits: Vec<Limit>,
    log_level: Option<&'static str>,
    status: Option<i64>,
    dry_run: Option<bool>,
}

/// What is in force.
pub struct Loc {
    limits: Rc<[Limit]>,
    log_level: &'static str,
    status: u16,
    dry_run: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { limits: Rc::new([]), log_level: "error", status: 503, dry_run: false }
    }
}

struct Limit {
    zone: Rc<ConnZone>,
    max: u32,
}

struct ConnZone {
    zone: Rc<Zone>,
    key: OnceCell<Template>,
}

#[derive(Default)]
struct ConnZones(HashMap<String, Rc<ConnZone>>);

impl Limit {
    fn key(&self, r: &Request) -> Option<Vec<u8>> {
        key_of(self.zone.key.get()?, r, KEY_MAX_BYTES)
    }
}

impl ConnZone {
    /// Counts one more for `key`; `None` if `max` are held already, or there is no memory.
    fn hold(self: &Rc<Self>, key: &[u8], max: u32) -> Option<Held> {
        let now_ms = sys::time::unix_ms();
        let mut full = false;
        let done = self.zone.dict().update(key, Room::Evict, now_ms, |old| {
            let mut holders = Holders::read(old);
            if holders.total() >= max {
                holders.drop_dead();
            }
            full = holders.total() >= max;
            if full {
                return Update::Keep;
            }
            holders.add(sys::process::id());
            Update::Store { record: holders.record(), ttl_ms: ENTRY_TTL_MS }
        });
        let counted = done.is_ok() && !full;
        counted.then(|| Held { zone: self.clone(), key: key.into() })
    }
}

/// One count that is given back when dropped.
struct Held {
    zone: Rc<ConnZone>,
    key: Box<[u8]>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let now_ms = sys::time::unix_ms();
        // Without memory nothing changes; the entry was there, so its record fits.
        let _ = self.zone.zone.dict().update(&self.key, Room::Evict, now_ms, |old| {
            let mut holders = Holders::read(old);
            holders.remove(sys::process::id());
            match holders.total() {
                0 => Update::Remove,
                _ => Update::Store { record: holders.record(), ttl_ms: ENTRY_TTL_MS },
            }
        });
    }
}

/// Which process holds how many; what does not fit in the record is held by "somebody" (0).
#[derive(Debug, Default, PartialEq, Eq)]
struct Holders(Vec<(u32, u32)>);

/// Pairs in one record.
const HOLDERS_MAX: usize = tollbar_shm::RECORD_MAX / 8;

impl Holders {
    fn read(bytes: Option<&[u8]>) -> Holders {
        let pairs = bytes.unwrap_or_default().chunks_exact(8).take(HOLDERS_MAX);
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Holders(pairs.map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect())
    }

    fn record(&self) -> Record {
        let mut bytes = Vec::with_capacity(HOLDERS_MAX * 8);
        for (pid, count) in &self.0 {
            bytes.extend_from_slice(&pid.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        Record::new(&bytes)
    }

    fn total(&self) -> u32 {
        self.0.iter().fold(0u32, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn add(&mut self, pid: u32) {
        let pid = match self.0.iter().any(|(p, _)| *p == pid) || self.0.len() < HOLDERS_MAX - 1 {
            true => pid,
            false => 0,
        };
        match self.0.iter_mut().find(|(p, _)| *p == pid) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.0.push((pid, 1)),
        }
    }

    fn remove(&mut self, pid: u32) {
        let at = self.0.iter().position(|(p, _)| *p == pid);
        let Some(at) = at.or_else(|| self.0.iter().position(|(p, _)| *p == 0)) else { return };
        self.0[at].1 = self.0[at].1.saturating_sub(1);
        if self.0[at].1 == 0 {
            self.0.swap_remove(at);
        }
    }

    fn drop_dead(&mut self) {
        self.0.retain(|(pid, _)| *pid == 0 || sys::process::is_alive(*pid));
    }
}

// ---- reading -------------------------------------------------------------------------------

fn zone_named(r: &mut Reading, name: &str, size: Option<u64>) -> Result<Rc<ConnZone>, Reason> {
    let zone = r.shelf.of::<ZoneTable>().want(name, "limit_conn", size)?;
    let known = &mut r.shelf.of::<ConnZones>().0;
    let entry = known.entry(name.to_owned());
    Ok(entry.or_insert_with(|| Rc::new(ConnZone { zone, key: OnceCell::new() })).clone())
}

fn read_zone(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let key = Template::parse(&args[0], r)?;
    let Some(text) = args[1].strip_prefix("zone=") else {
        return Err(Reason::InvalidParameter(args[1].clone()));
    };
    let (name, size) = zone_name_and_size(text)?;
    let zone = zone_named(r, name, Some(size))?;
    zone.key.set(key).map_err(|_| {
        let source = zone.key.get().map_or("", |key| key.source());
        Reason::says(format!("limit_conn_zone \"{name}\" is already bound to key \"{source}\""))
    })
}

impl RawLoc {
    fn add(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let zone = zone_named(r, &args[0], None)?;
        if self.limits.iter().any(|limit| Rc::ptr_eq(&limit.zone, &zone)) {
            return Err(Reason::Duplicate);
        }
        let max = value::number(&args[1]).filter(|n| *n > 0);
        let max = max.ok_or_else(|| {
            Reason::says(format!("invalid number of connections \"{}\"", args[1]))
        })?;
        if max > 65535 {
            return Err(Reason::says("connection limit must be less 65536"));
        }
        self.limits.push(Limit { zone, max: max as u32 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_counted_by_process() {
        let mut holders = Holders::default();
        for pid in [7, 7, 8] {
            holders.add(pid);
        }
        let again = Holders::read(Some(&holders.record()));
        assert_eq!((again.total(), &again), (3, &holders));
        holders.remove(7);
        holders.remove(7);
        holders.remove(8);
        holders.remove(8);
        assert_eq!(holders.total(), 0);
    }

    #[test]
    fn a_full_record_counts_on() {
        let mut holders = Holders::default();
        for pid in 1..=20 {
            holders.add(pid);
        }
        assert_eq!(Holders::read(Some(&holders.record())).total(), 20);
        assert!(Holders::read(Some(b"junk!")).total() == 0);
    }

    #[test]
    fn the_dead_hold_nothing() {
        let mut holders = Holders(vec![(i32::MAX as u32, 5), (sys::process::id(), 1)]);
        holders.drop_dead();
        assert_eq!(holders.total(), 1);
    }
}
