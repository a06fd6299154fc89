//! All upstreams of a configuration: those with a block, and the hosts that directives name.
//!
//! A use may stand before the block. [`UpstreamTable::finish`] makes everything real when the
//! configuration has been read whole, resolving names that have no block of their own.

use super::block::{Plan, Zones};
use super::group::Upstream;
use super::living::{self, ANSWER_BYTES};
use super::peer::{Options, Peer};
use super::resolver::Inherited;
use super::round_robin::RoundRobin;
use super::url::{self, Url};
use crate::conf::{Error, Reading, Reason};
use crate::event::{Zone, ZoneTable};
use crate::sys::socket::Address;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// An upstream as the configuration names it.
pub struct Named {
    /// The block's name, or the host.
    pub host: Rc<str>,
    port: Cell<u16>,
    no_port: bool,
    address: Option<Address>,
    plan: RefCell<Option<Plan>>,
    has_block: Cell<bool>,
    place: (Rc<str>, usize),
    real: OnceCell<Rc<Upstream>>,
}

impl Named {
    /// The upstream, once the configuration was read whole.
    pub fn get(&self) -> &Rc<Upstream> {
        self.real.get().expect("made real when the http block was finished")
    }

    /// Whether `upstream {}` declared it.
    pub fn has_block(&self) -> bool {
        self.has_block.get()
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error { what: what.into(), at: Some(self.place.clone()) }
    }

    /// Whether a URL that a variable gave means this upstream.
    fn is_meant_by(&self, url: &Url) -> bool {
        let port = self.port.get();
        (port == 0 && url.no_port || port == url.port) && self.host.eq_ignore_ascii_case(&url.host)
    }
}

/// The upstreams of one `http {}`.
#[derive(Default)]
pub struct UpstreamTable {
    list: Vec<Rc<Named>>,
}

impl UpstreamTable {
    /// An upstream that a directive uses by `url`.
    ///
    /// Errors: `upstream "x" may not have port N`.
    pub fn refer(r: &mut Reading, url: &Url) -> Result<Rc<Named>, Reason> {
        let place = r.place();
        let table = r.shelf.of::<UpstreamTable>();
        for named in table.list.iter().filter(|n| n.host.eq_ignore_ascii_case(&url.host)) {
            if named.has_block() && !url.no_port {
                return Err(Reason::says(format!(
                    "upstream \"{}\" may not have port {}",
                    url.host, url.port
                )));
            }
            let port = named.port.get();
            if port == 0 || url.port == 0 || port == url.port {
                return Ok(named.clone());
            }
        }
        let address = url.address.clone().filter(|a| a.is_unix() || url.port != 0);
        Ok(table.add(&url.host, url.port, url.no_port, address, place))
    }

    /// Declares the upstream of a block, before its block is read.
    ///
    /// Errors: `duplicate upstream "x"`, `upstream "x" may not have port N in F:L`.
    pub fn declare(r: &mut Reading, name: &str) -> Result<Rc<Named>, Reason> {
        let place = r.place();
        let table = r.shelf.of::<UpstreamTable>();
        if let Some(named) = table.list.iter().find(|n| n.host.eq_ignore_ascii_case(name)) {
            if named.has_block() {
                return Err(Reason::says(format!("duplicate upstream \"{name}\"")));
            }
            if !named.no_port {
                let port = named.port.get();
                let what = format!("upstream \"{name}\" may not have port {port}");
                return Err(Reason::Located(named.error(what)));
            }
            named.has_block.set(true);
            named.port.set(0);
            return Ok(named.clone());
        }
        let named = table.add(name, 0, true, None, place);
        named.has_block.set(true);
        Ok(named)
    }

    fn add(
        &mut self,
        host: &str,
        port: u16,
        no_port: bool,
        address: Option<Address>,
        place: (Rc<str>, usize),
    ) -> Rc<Named> {
        let named = Rc::new(Named {
            host: host.into(),
            port: Cell::new(port),
            no_port,
            address,
            plan: RefCell::default(),
            has_block: Cell::new(false),
            place,
            real: OnceCell::new(),
        });
        self.list.push(named.clone());
        named
    }

    /// The upstream that a URL given by a variable means, if the configuration has it.
    pub fn find(&self, url: &Url) -> Option<&Rc<Named>> {
        self.list.iter().find(|named| named.is_meant_by(url))
    }

    /// Makes every upstream real; `inherited` is what `http {}` says of the resolver.
    ///
    /// Errors: `host not found in upstream "x"`, `no servers in upstream "x"`, those of zones.
    pub fn finish(&mut self, zones: &mut ZoneTable, inherited: &Inherited) -> Result<(), Error> {
        let counters = self.zones(zones)?;
        let answers = self.answers(zones)?;
        for named in &self.list {
            let upstream = match named.plan.take() {
                Some(plan) => {
                    let name = plan.wants_zone().map(|(name, ..)| name);
                    let zones = name.and_then(|name| {
                        let counters = counters.get(name)?.clone();
                        Some(Zones { counters, answers: answers.get(name).cloned() })
                    });
                    plan.make(&named.host, zones, inherited).map_err(|what| named.error(what))?
                }
                None => implicit(named)?,
            };
            if named.real.set(Rc::new(upstream)).is_err() {
                unreachable!("an upstream is made real once");
            }
        }
        Ok(())
    }

    /// Begins to look up names that are to be looked up again and again, in this process.
    pub fn start(&self) {
        self.list.iter().for_each(|named| living::start(named.get()));
    }
}

impl UpstreamTable {
    /// Declares the zones of all blocks; several may share one.
    fn zones(&self, table: &mut ZoneTable) -> Result<HashMap<String, Rc<Zone>>, Error> {
        let mut wanted: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        for named in &self.list {
            let plan = named.plan.borrow();
            let Some((name, size, blocks)) = plan.as_ref().and_then(Plan::wants_zone) else {
                continue;
            };
            let entry = wanted.entry(name.to_owned()).or_default();
            entry.1 += blocks;
            match size {
                Some(size) if entry.0 != 0 && entry.0 != size => {
                    return Err(named.error(format!(
                        "the size {size} of shared memory zone \"{name}\" conflicts with already \
                         declared size {}",
                        entry.0
                    )));
                }
                Some(size) => entry.0 = size,
                None => {}
            }
        }
        let mut zones = HashMap::new();
        for (name, (size, blocks)) in wanted {
            if size == 0 {
                let what = format!("zero size shared memory zone \"{name}\"");
                return Err(Error::placeless(what));
            }
            let zone = table.want_cells(&name, "upstream", blocks as u64);
            let zone = zone.map_err(placeless)?;
            zones.insert(name, zone);
        }
        Ok(zones)
    }
}

impl UpstreamTable {
    /// Declares a second zone where names are looked up again and again, for the answers.
    fn answers(&self, table: &mut ZoneTable) -> Result<HashMap<String, Rc<Zone>>, Error> {
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for named in &self.list {
            let plan = named.plan.borrow();
            let Some(plan) = plan.as_ref().filter(|plan| plan.names() > 0) else { continue };
            if let Some((zone, ..)) = plan.wants_zone() {
                *wanted.entry(zone.to_owned()).or_default() += plan.names() as u64;
            }
        }
        let mut zones = HashMap::new();
        for (name, names) in wanted {
            let size = Some((names + 1) * ANSWER_BYTES);
            let zone = table.want(&format!("{name} answers"), "upstream", size);
            zones.insert(name, zone.map_err(placeless)?);
        }
        Ok(zones)
    }
}

fn placeless(reason: Reason) -> Error {
    match reason {
        Reason::Located(e) => e,
        Reason::Says(what) => Error::placeless(what),
        other => Error::placeless(format!("{other:?}")),
    }
}

impl Named {
    /// What its block said.
    pub fn plan(&self, plan: Plan) {
        *self.plan.borrow_mut() = Some(plan);
    }
}

/// The upstream of a host that has no block.
fn implicit(named: &Named) -> Result<Upstream, Error> {
    let (host, port) = (&named.host, named.port.get());
    let options = Options::default();
    let addresses = match &named.address {
        Some(address) => vec![address.clone()],
        None if port == 0 => {
            return Err(named.error(format!("no port in upstream \"{host}\"")));
        }
        None => url::resolve(host, port)
            .map_err(|e| named.error(format!("{e} in upstream \"{host}\"")))?,
    };
    let peer = |address: Address| Rc::new(Peer::new(address, host.clone(), options.clone()));
    let peers = addresses.into_iter().map(peer).collect();
    Ok(Upstream::new(host.clone(), peers, Box::new(RoundRobin), None))
}
