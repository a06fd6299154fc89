//! One address that requests may go to, and how it fares.

use crate::event::{self, Zone};
use crate::log;
use crate::sys::{socket::Address, time};
use std::cell::{OnceCell, RefCell};
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
    own: Box<Block>,
    shared: Option<Shared>,
}

/// Eight counters, as a zone has them.
type Block = [AtomicU64; 8];

/// A peer's state in shared memory. Connections are counted per worker, in a block that only it
/// writes, so that a worker that is killed takes its count with it.
struct Shared {
    zone: Rc<Zone>,
    name: String,
    /// Where the state is that all workers write.
    place: OnceCell<Option<usize>>,
    /// Where this worker counts its connections.
    own_place: OnceCell<Option<usize>>,
    /// Where the others do, by their seats, as far as they were looked for.
    places: RefCell<Vec<usize>>,
}

// What each cell holds.
const CONNS: usize = 0;
const FAILS: usize = 1;
const ACCESSED: usize = 2;
const CHECKED: usize = 3;
const CURRENT_WEIGHT: usize = 4;
/// What the weight has lost by failures.
const LOST_WEIGHT: usize = 5;
/// How many workers have counted connections: one more than their highest seat.
const SEATS: usize = 6;
/// More seats than any machine has.
pub const SEATS_MAX: usize = 128;

impl Peer {
    /// A peer that nobody has tried yet.
    pub fn new(address: Address, server: Rc<str>, options: Options) -> Peer {
        let name = address.to_string().into();
        Peer { address, name, server, options, own: Box::default(), shared: None }
    }

    /// The same with its state in `zone`, under the name of its upstream.
    pub fn in_zone(mut self, zone: &Rc<Zone>, upstream: &str) -> Peer {
        self.shared = Some(Shared {
            zone: zone.clone(),
            name: format!("{upstream}/{}/{}", self.server, self.name),
            place: OnceCell::new(),
            own_place: OnceCell::new(),
            places: RefCell::default(),
        });
        self
    }

    /// What all workers write.
    fn block(&self) -> &Block {
        self.shared.as_ref().and_then(Shared::block).unwrap_or(&self.own)
    }

    /// What this worker writes.
    fn own_block(&self) -> &Block {
        self.shared.as_ref().and_then(Shared::own_block).unwrap_or(&self.own)
    }

    fn get(&self, cell: usize) -> u64 {
        self.block()[cell].load(Relaxed)
    }

    fn set(&self, cell: usize, value: u64) {
        self.block()[cell].store(value, Relaxed);
    }

    /// Adds to a cell, and gives what is in it now.
    fn add(&self, cell: usize, by: i64) -> i64 {
        let before = self.block()[cell].fetch_add(by as u64, Relaxed) as i64;
        before.wrapping_add(by)
    }

    /// Connections that carry requests now, of all workers as far as they share their state.
    pub fn conns(&self) -> u64 {
        match &self.shared {
            Some(shared) => shared.conns().unwrap_or_else(|| self.own[CONNS].load(Relaxed)),
            None => self.own[CONNS].load(Relaxed),
        }
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
        let current = self.add(CURRENT_WEIGHT, effective);
        if lost > 0 {
            self.set(LOST_WEIGHT, lost - 1);
        }
        (current, effective)
    }

    /// Smooth round robin: pays for being chosen.
    pub(super) fn pay(&self, total: i64) {
        self.add(CURRENT_WEIGHT, -total);
    }

    /// A request goes there.
    pub(super) fn begin(&self, now: u64) {
        let conns = &self.own_block()[CONNS];
        conns.store(conns.load(Relaxed) + 1, Relaxed);
        if now.saturating_sub(self.get(CHECKED)) > self.options.fail_timeout {
            self.set(CHECKED, now);
        }
    }

    /// The request is over.
    pub(super) fn end(&self) {
        let conns = &self.own_block()[CONNS];
        conns.store(conns.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// It failed.
    pub(super) fn count_failure(&self, context: &dyn log::Context, doing: &str) {
        let (now, options) = (seconds(), &self.options);
        self.add(FAILS, 1);
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

impl Shared {
    fn find(&self, place: &OnceCell<Option<usize>>, name: &str) -> Option<&Block> {
        let cells = self.zone.cells();
        let place = place.get_or_init(|| {
            cells
                .place(name.as_bytes())
                .inspect_err(|e| log::error!("upstream zone \"{}\": {e}", self.zone.name))
                .ok()
        });
        cells.at((*place)?)
    }

    fn block(&self) -> Option<&Block> {
        self.find(&self.place, &self.name)
    }

    fn own_block(&self) -> Option<&Block> {
        let is_first = self.own_place.get().is_none();
        let seat = event::seat().min(SEATS_MAX - 1);
        if !is_first {
            return self.find(&self.own_place, "");
        }
        let own = self.find(&self.own_place, &format!("{}#{seat}", self.name))?;
        // Whoever sat here before is gone, and its connections with it.
        own[CONNS].store(0, Relaxed);
        self.block()?[SEATS].fetch_max(seat as u64 + 1, Relaxed);
        Some(own)
    }

    fn conns(&self) -> Option<u64> {
        let cells = self.zone.cells();
        let seats = (self.block()?[SEATS].load(Relaxed) as usize).min(SEATS_MAX);
        let mut places = self.places.borrow_mut();
        while places.len() < seats {
            let name = format!("{}#{}", self.name, places.len());
            places.push(cells.place(name.as_bytes()).ok()?);
        }
        let of = |place: &usize| cells.at(*place).map_or(0, |b| b[CONNS].load(Relaxed));
        Some(places.iter().take(seats).map(of).sum())
    }
}

/// The clock of failures, seconds since the epoch.
pub(super) fn seconds() -> u64 {
    time::unix_seconds().max(0) as u64
}
