//! One address that requests may go to, and how it fares.

use crate::log;
use crate::sys::{socket::Address, time};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What `server` says of an address.
#[derive(Clone, Debug)]
pub struct Options {
    /// `weight`
    pub weight: u32,
    /// `max_conns`; 0 is no limit.
    pub max_conns: u32,
    /// `max_fails`; 0 counts none.
    pub max_fails: u32,
    /// `fail_timeout`, seconds.
    pub fail_timeout: u64,
    /// `down`
    pub down: bool,
    /// `backup`
    pub backup: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: 10,
            down: false,
            backup: false,
        }
    }
}

/// One address of an upstream.
pub struct Peer {
    /// Where it is.
    pub address: Address,
    /// The address as text: `$upstream_addr`.
    pub name: Rc<str>,
    /// What `server` named, which may have several addresses.
    pub server: Rc<str>,
    /// Its directive.
    pub options: Options,
    cells: Box<[AtomicU64; 8]>,
}

// What each cell holds.
const CONNS: usize = 0;
const FAILS: usize = 1;
const ACCESSED: usize = 2;
const CHECKED: usize = 3;
const CURRENT_WEIGHT: usize = 4;
/// What the weight has lost by failures.
const LOST_WEIGHT: usize = 5;

impl Peer {
    /// A peer that nobody has tried yet.
    pub fn new(address: Address, server: Rc<str>, options: Options) -> Peer {
        let name = address.to_string().into();
        Peer { address, name, server, options, cells: Box::default() }
    }

    fn get(&self, cell: usize) -> u64 {
        self.cells[cell].load(Relaxed)
    }

    fn set(&self, cell: usize, value: u64) {
        self.cells[cell].store(value, Relaxed);
    }

    /// Connections that carry requests now.
    pub fn conns(&self) -> u64 {
        self.get(CONNS)
    }

    /// Failures within `fail_timeout`.
    pub fn fails(&self) -> u64 {
        self.get(FAILS)
    }

    /// Its configured weight, for sums.
    pub fn weight(&self) -> i64 {
        i64::from(self.options.weight)
    }

    /// How long its failures keep it out.
    fn is_left_alone(&self, now: u64) -> bool {
        let options = &self.options;
        options.max_fails != 0
            && self.fails() >= u64::from(options.max_fails)
            && now.saturating_sub(self.get(CHECKED)) <= options.fail_timeout
    }

    fn is_full(&self) -> bool {
        self.options.max_conns != 0 && self.conns() >= u64::from(self.options.max_conns)
    }

    /// Whether a request may go there now (`now` in seconds).
    pub fn may_serve(&self, now: u64) -> bool {
        !self.options.down && !self.is_left_alone(now) && !self.is_full()
    }

    /// Whether the only peer of an upstream may serve: failures do not keep it out.
    pub fn may_serve_alone(&self) -> bool {
        !self.options.down && !self.is_full()
    }

    /// Smooth round robin: adds what it deserves. Gives (what it has, what it got).
    pub(super) fn earn(&self) -> (i64, i64) {
        let lost = self.get(LOST_WEIGHT);
        let effective = self.weight() - lost as i64;
        let current = self.get(CURRENT_WEIGHT) as i64 + effective;
        self.set(CURRENT_WEIGHT, current as u64);
        if lost > 0 {
            self.set(LOST_WEIGHT, lost - 1);
        }
        (current, effective)
    }

    /// Smooth round robin: pays for being chosen.
    pub(super) fn pay(&self, total: i64) {
        let current = self.get(CURRENT_WEIGHT) as i64 - total;
        self.set(CURRENT_WEIGHT, current as u64);
    }

    /// A request goes there.
    pub(super) fn begin(&self, now: u64) {
        self.set(CONNS, self.get(CONNS) + 1);
        if now.saturating_sub(self.get(CHECKED)) > self.options.fail_timeout {
            self.set(CHECKED, now);
        }
    }

    /// The request is over.
    pub(super) fn end(&self) {
        self.set(CONNS, self.get(CONNS).saturating_sub(1));
    }

    /// It failed.
    pub(super) fn count_failure(&self, context: &dyn log::Context, doing: &str) {
        let (now, options) = (seconds(), &self.options);
        self.set(FAILS, self.fails() + 1);
        self.set(ACCESSED, now);
        self.set(CHECKED, now);
        if options.max_fails == 0 {
            return;
        }
        let lost = self.get(LOST_WEIGHT) + u64::from(options.weight / options.max_fails);
        self.set(LOST_WEIGHT, lost.min(u64::from(options.weight)));
        if self.fails() >= u64::from(options.max_fails) {
            log::warn!(context, "upstream server temporarily disabled while {doing}");
        }
    }

    /// It served: failures from before its last check are forgotten.
    pub(super) fn count_success(&self) {
        if self.fails() > 0 && self.get(ACCESSED) < self.get(CHECKED) {
            self.set(FAILS, 0);
        }
    }
}

/// The clock of failures, seconds since the epoch.
pub(super) fn seconds() -> u64 {
    time::unix_seconds().max(0) as u64
}
