//! `limit_req`: how many requests of one key are let through in a time; the rest waits or goes.
//!
//! A leaky bucket per key in a shared zone: every request adds one, time takes `rate` away.
//! Runs in: pre-access.

use crate::conf::*;
use crate::event::{Zone, ZoneTable, zone_name_and_size};
use crate::http::limits::{LEVELS, hold_back, key_of, say};
use crate::http::{Builtin, HttpModule, Merging, Phase, Pipeline, Request, Template, Verdict, var};
use crate::{log, sys};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tollbar_shm::{Record, Room, Update};

/// The module.
pub struct LimitReq;

impl HttpModule for LimitReq {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const MAIN: &'static [Directive<()>] =
        &[d("limit_req_zone", HTTP, call(exactly(3), |_, r| read_zone(r)))];
    const LOC: &'static [Directive<RawLoc>] = &[
        d("limit_req", ANY_HTTP, call(between(1, 3), RawLoc::add)),
        d("limit_req_log_level", ANY_HTTP, choice(LEVELS, |c| &mut c.log_level)),
        d("limit_req_status", ANY_HTTP, num(400, 599, |c| &mut c.status)),
        d("limit_req_dry_run", ANY_HTTP, flag(|c| &mut c.dry_run)),
    ];
    const VARIABLES: &'static [Builtin] = &[var("limit_req_status", |r, out| {
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
            p.on_async(Phase::PreAccess, move |r| {
                let loc = loc.clone();
                Box::pin(async move { limit_req(r, &loc).await })
            });
        }
    }
}

/// A key longer than this is not limited (and said so), as in nginx.
const KEY_MAX_BYTES: usize = 65535;
/// Clocks that jump back further than this are believed.
const CLOCK_JUMP_MS: i64 = 60_000;

async fn limit_req(r: &mut Request, loc: &Loc) -> Verdict {
    if r.slots.get::<Outcome>().is_some() {
        return Verdict::Decline;
    }
    let keyed: Vec<(&Limit, Vec<u8>)> =
        loc.limits.iter().filter_map(|l| Some((l, l.key(r)?))).collect();
    let now_ms = sys::time::unix_ms();
    let mut wait_ms = 0;
    // Several limits are asked first and counted when all let the request through.
    let passes: &[bool] = if keyed.len() == 1 { &[true] } else { &[false, true] };
    for &accounts in passes {
        for (limit, key) in &keyed {
            match limit.excess(key, now_ms, accounts) {
                Taken::Over(excess) => return reject(r, loc, limit, excess),
                Taken::Within(excess) => wait_ms = wait_ms.max(limit.wait_ms(excess)),
                Taken::NoMemory => {
                    log::error!(
                        &*r,
                        "could not allocate a node in zone \"{}\"",
                        limit.zone.zone.name
                    );
                    return reject_quietly(r, loc);
                }
            }
        }
    }
    if keyed.is_empty() {
        return Verdict::Decline;
    }
    if wait_ms == 0 {
        r.slots.of::<Outcome>().text = "PASSED";
        return Verdict::Decline;
    }
    say_delay(r, loc, &keyed, wait_ms);
    if loc.dry_run {
        r.slots.of::<Outcome>().text = "DELAYED_DRY_RUN";
        return Verdict::Decline;
    }
    r.slots.of::<Outcome>().text = "DELAYED";
    hold_back(r, Duration::from_millis(wait_ms)).await
}

fn reject(r: &mut Request, loc: &Loc, limit: &Limit, excess: u64) -> Verdict {
    let (whole, part, zone) = (excess / 1000, excess % 1000, &limit.zone.zone.name);
    let dry = if loc.dry_run { ", dry run" } else { "" };
    let text = format!("limiting requests{dry}, excess: {whole}.{part:03} by zone \"{zone}\"");
    say(r, loc.log_level, &text);
    reject_quietly(r, loc)
}

fn reject_quietly(r: &mut Request, loc: &Loc) -> Verdict {
    if loc.dry_run {
        r.slots.of::<Outcome>().text = "REJECTED_DRY_RUN";
        return Verdict::Decline;
    }
    r.slots.of::<Outcome>().text = "REJECTED";
    Verdict::Finish(loc.status)
}

/// A delay is logged one level below a refusal.
fn say_delay(r: &Request, loc: &Loc, keyed: &[(&Limit, Vec<u8>)], wait_ms: u64) {
    let Some((limit, _)) = keyed.iter().max_by_key(|(limit, _)| limit.zone.rate()) else { return };
    let excess = wait_ms * limit.zone.rate() / 1000 + limit.delay;
    let (whole, part, zone) = (excess / 1000, excess % 1000, &limit.zone.zone.name);
    let dry = if loc.dry_run { ", dry run" } else { "" };
    let level = LEVELS.iter().position(|l| *l == loc.log_level).map_or(0, |i| i.saturating_sub(1));
    say(
        r,
        LEVELS[level],
        &format!("delaying request{dry}, excess: {whole}.{part:03}, by zone \"{zone}\""),
    );
}

/// What became of the request: `$limit_req_status`.
#[derive(Default)]
struct Outcome {
    text: &'static str,
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

/// Requests are counted in thousandths.
struct Limit {
    zone: Rc<ReqZone>,
    burst: u64,
    /// The excess up to which nobody waits; `u64::MAX` with `nodelay`.
    delay: u64,
}

/// A zone with the key and rate that `limit_req_zone` gave it.
struct ReqZone {
    zone: Rc<Zone>,
    rule: OnceCell<(Template, u64)>,
}

#[derive(Default)]
struct ReqZones(HashMap<String, Rc<ReqZone>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Within(u64),
    Over(u64),
    NoMemory,
}

impl ReqZone {
    /// Thousandths of requests per second.
    fn rate(&self) -> u64 {
        self.rule.get().map_or(1, |(_, rate)| *rate)
    }
}

impl Limit {
    /// The key of this request; `None` if it is not to be limited.
    fn key(&self, r: &Request) -> Option<Vec<u8>> {
        let (template, _) = self.zone.rule.get()?;
        key_of(template, r, KEY_MAX_BYTES)
    }

    /// The excess with this request; counts it if `accounts` and it is within the burst.
    fn excess(&self, key: &[u8], now_ms: u64, accounts: bool) -> Taken {
        let (rate, mut taken) = (self.zone.rate(), Taken::Within(0));
        let done = self.zone.zone.dict().update(key, Room::Evict, now_ms, |old| {
            let before = old.and_then(State::read);
            let excess = before.map_or(0, |state| state.after(rate, now_ms));
            if excess > self.burst {
                taken = Taken::Over(excess);
                return Update::Keep;
            }
            taken = Taken::Within(excess);
            if !accounts {
                return Update::Keep;
            }
            let ttl_ms = (excess + 1000) * 1000 / rate + 60_000;
            Update::Store { record: State { excess, last_ms: now_ms }.record(), ttl_ms }
        });
        if done.is_ok() { taken } else { Taken::NoMemory }
    }

    fn wait_ms(&self, excess: u64) -> u64 {
        excess.saturating_sub(self.delay) * 1000 / self.zone.rate()
    }
}

/// What is stored per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    excess: u64,
    last_ms: u64,
}

impl State {
    fn read(bytes: &[u8]) -> Option<State> {
        let (excess, last) = bytes.split_at_checked(8)?;
        let excess = u64::from_le_bytes(excess.try_into().ok()?);
        Some(State { excess, last_ms: u64::from_le_bytes(last.try_into().ok()?) })
    }

    fn record(self) -> Record {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.excess.to_le_bytes());
        bytes[8..].copy_from_slice(&self.last_ms.to_le_bytes());
        Record::new(&bytes)
    }

    /// The excess after one more request now. What a neighbour wrote is only a number.
    fn after(self, rate: u64, now_ms: u64) -> u64 {
        let passed = now_ms as i64 - self.last_ms as i64;
        let passed = if passed < -CLOCK_JUMP_MS { 1 } else { passed.max(0) };
        let drained = (passed as u64).saturating_mul(rate) / 1000;
        self.excess.saturating_add(1000).saturating_sub(drained)
    }
}

// ---- reading -------------------------------------------------------------------------------

fn zone_named(r: &mut Reading, name: &str, size: Option<u64>) -> Result<Rc<ReqZone>, Reason> {
    let zone = r.shelf.of::<ZoneTable>().want(name, "limit_req", size)?;
    let known = &mut r.shelf.of::<ReqZones>().0;
    let entry = known.entry(name.to_owned());
    Ok(entry.or_insert_with(|| Rc::new(ReqZone { zone, rule: OnceCell::new() })).clone())
}

fn read_zone(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let key = Template::parse(&args[0], r)?;
    let (mut zone, mut rate) = (None, 1000);
    for word in &args[1..] {
        if let Some(text) = word.strip_prefix("zone=") {
            zone = Some(zone_name_and_size(text)?);
        } else if let Some(text) = word.strip_prefix("rate=") {
            rate =
                read_rate(text).ok_or_else(|| Reason::says(format!("invalid rate \"{word}\"")))?;
        } else {
            return Err(Reason::InvalidParameter(word.clone()));
        }
    }
    let Some((name, size)) = zone else {
        return Err(Reason::says("\"limit_req_zone\" must have \"zone\" parameter"));
    };
    let name = name.to_owned();
    let zone = zone_named(r, &name, Some(size))?;
    zone.rule.set((key, rate)).map_err(|_| {
        let source = zone.rule.get().map_or("", |(key, _)| key.source());
        Reason::says(format!("limit_req_zone \"{name}\" is already bound to key \"{source}\""))
    })
}

/// `10r/s` or `30r/m`, in thousandths per second.
fn read_rate(text: &str) -> Option<u64> {
    let (digits, scale) = match text.strip_suffix("r/s") {
        Some(digits) => (digits, 1),
        None => {
            (text.strip_suffix("r/m").unwrap_or(text), if text.ends_with("r/m") { 60 } else { 1 })
        }
    };
    value::number(digits)
        .filter(|n| (1..=10_000_000).contains(n))
        .map(|n| (n * 1000 / scale).max(1))
}

impl RawLoc {
    fn add(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let (mut name, mut burst, mut delay) = (None, 0, 0);
        for word in r.take_args() {
            let number = |text: &str, what: &str| {
                let n = value::number(text).filter(|n| *n > 0);
                n.ok_or_else(|| Reason::says(format!("invalid {what} value \"{word}\"")))
            };
            if let Some(text) = word.strip_prefix("zone=") {
                name = Some(text.to_owned());
            } else if let Some(text) = word.strip_prefix("burst=") {
                burst = number(text, "burst")?;
            } else if let Some(text) = word.strip_prefix("delay=") {
                delay = number(text, "delay")?.saturating_mul(1000);
            } else if word == "nodelay" {
                delay = u64::MAX;
            } else {
                return Err(Reason::InvalidParameter(word));
            }
        }
        let Some(name) = name else {
            return Err(Reason::says("\"limit_req\" must have \"zone\" parameter"));
        };
        let zone = zone_named(r, &name, None)?;
        if self.limits.iter().any(|limit| Rc::ptr_eq(&limit.zone, &zone)) {
            return Err(Reason::Duplicate);
        }
        self.limits.push(Limit { zone, burst: burst.saturating_mul(1000), delay });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(read_rate("10r/s"), Some(10_000));
        assert_eq!(read_rate("30r/m"), Some(500));
        for bad in ["", "r/s", "0r/s", "-1r/s", "xr/s"] {
            assert_eq!(read_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_drains_the_bucket() {
        let state = State { excess: 2000, last_ms: 10_000 };
        assert_eq!(state.after(1000, 10_000), 3000);
        assert_eq!(state.after(1000, 11_500), 1500);
        assert_eq!(state.after(1000, 99_000), 0);
        // A clock that steps back a little takes nothing away.
        assert_eq!(state.after(1000, 9_000), 3000);
        assert_eq!(State::read(&state.record()), Some(state));
        assert_eq!(State::read(b"short"), None);
    }
}
