//! Code that chooses a request's peer itself, in place of the `upstream {}`'s own method.
//!
//! A module's directive inside `upstream {}` leaves a [`Chooser`]; before each try it fills the
//! request's [`Choice`].

use super::next::Failed;
use super::rules::Rules;
use crate::conf::{Reading, Reason, UPS, found};
use crate::http::{Modules, Request};
use crate::sys::socket::Address;
use crate::upstream::block::Plan;
use crate::upstream::peer::{Options, Peer};
use crate::upstream::pool::{Pool, PoolRules};
use crate::upstream::{Ask, Turn, Upstream};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Pools of one upstream by the rules that code gave.
const POOLS_MAX: usize = 32;

/// How long a connection may wait for its next request, and how many it may carry.
type Keep = (Duration, u64);

/// Chooses peers.
pub trait Chooser {
    /// Fills the request's [`Choice`] for the next try. Errors: the status that ends the request.
    fn choose(&self, r: &mut Request) -> Result<(), u16>;
}

/// What was chosen for the next try, in the request's slots; and what came of the last one.
#[derive(Default)]
pub struct Choice {
    /// Where to; `None` leaves it to the upstream's servers.
    pub address: Option<Address>,
    /// The name for TLS, in place of what the directives say.
    pub host: Option<Rc<str>>,
    /// Tries beside those that are left.
    pub more_tries: u32,
    /// For connecting, sending, reading; `None` is what the directives say.
    pub timeouts: [Option<Duration>; 3],
    /// The connection is kept.
    pub keep: Option<Keep>,
    /// The request is written anew: what it is made of has changed.
    pub rewrite: bool,
    /// How the last try failed.
    pub last: Option<Failed>,
    /// How many tries there may be; 0 is no limit.
    pub tries_max: u32,
    /// Tries so far, this one with them.
    pub tries: u32,
}

/// What was decided for the next try.
pub struct Next {
    /// `None`: nobody can serve.
    pub turn: Option<Turn>,
    pub pool: Option<Rc<Pool>>,
    pub host: Option<Rc<str>>,
    /// The request is to be written anew.
    pub rewrite: bool,
}

/// Whose code chooses for an upstream, and the pools that its connections wait in.
pub struct Chosen {
    pub chooser: Rc<dyn Chooser>,
    pools: RefCell<Vec<(Keep, Rc<Pool>)>>,
}

impl Chosen {
    fn new(chooser: Rc<dyn Chooser>) -> Chosen {
        Chosen { chooser, pools: RefCell::default() }
    }

    /// Lets the code choose for the next try: who it is, and where the connection may wait. Times
    /// that it gave are put in place of the directives'.
    ///
    /// Errors: the status that ends the request.
    #[cold]
    pub fn next(
        &self,
        r: &mut Request,
        upstream: &Rc<Upstream>,
        rules: &mut Rc<Rules>,
        ask: &mut Ask,
    ) -> Result<Next, u16> {
        let before = r.slots.of::<Choice>();
        let (last, tries_max, tries) = (before.last, before.tries_max, before.tries + 1);
        *before = Choice { last, tries_max, tries, ..Choice::default() };
        self.chooser.choose(r)?;
        let choice = r.slots.of::<Choice>();
        ask.tries += choice.more_tries;
        let [connect, send, read] = choice.timeouts;
        if connect.or(send).or(read).is_some() {
            let mut changed = Rules::clone(rules);
            changed.connect_timeout = connect.unwrap_or(changed.connect_timeout);
            changed.send_timeout = send.unwrap_or(changed.send_timeout);
            changed.read_timeout = read.unwrap_or(changed.read_timeout);
            *rules = Rc::new(changed);
        }
        let pool = match choice.keep {
            Some(keep) => self.pool(keep),
            None => upstream.pool.clone(),
        };
        let (host, rewrite) = (choice.host.take(), choice.rewrite);
        let turn = match choice.address.take() {
            Some(address) => Some(Turn::chosen(peer_at(address))),
            None => upstream.pick(ask),
        };
        Ok(Next { turn, pool, host, rewrite })
    }

    /// The pool with these rules; `None`: there are too many.
    fn pool(&self, keep: Keep) -> Option<Rc<Pool>> {
        let mut pools = self.pools.borrow_mut();
        if let Some((_, pool)) = pools.iter().find(|(rules, _)| *rules == keep) {
            return Some(pool.clone());
        }
        if pools.len() >= POOLS_MAX {
            return None;
        }
        let (timeout, requests) = keep;
        let requests = if requests == 0 { u64::MAX } else { requests };
        let rules = PoolRules { requests, timeout, local: false, ..PoolRules::default() };
        let pool = Pool::new(rules);
        pools.push((keep, pool.clone()));
        Some(pool)
    }
}

/// A peer at an address that code named. Its failures are counted by nobody: code saw them.
fn peer_at(address: Address) -> Rc<Peer> {
    let name: Rc<str> = address.to_string().into();
    Rc::new(Peer::new(address, name, Options { max_fails: 0, ..Options::default() }))
}

/// Whose directives may stand in `upstream {}`, beside the block's own; on the reading's shelf.
#[derive(Default)]
pub struct InUpstream(pub Option<Modules>);

/// What a module's directive left; on the shelf until the block is over.
#[derive(Default)]
pub struct WantedChooser(pub Option<Rc<dyn Chooser>>);

/// Reads an `upstream {}`.
pub fn read(r: &mut Reading) -> Result<(Plan, Option<Chosen>), Reason> {
    let modules = r.shelf.of::<InUpstream>().0.unwrap_or_default();
    let plan = Plan::read(r, &|r| found(modules.iter().map(|module| module.set_apart(UPS, r))))?;
    let chosen = r.shelf.take::<WantedChooser>().0.map(Chosen::new);
    Ok((plan, chosen))
}
