//! `upstream {}` made real: its peers, how they are chosen, and their idle connections.

use super::balance::{Ask, Balance, Turn};
use super::living::Living;
use super::peer::{self, Peer};
use super::pool::Pool;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// Peers that are chosen among.
#[derive(Default)]
pub struct Group {
    /// The peers, in the order of the file.
    pub peers: Vec<Rc<Peer>>,
    /// The only peer of its upstream: it is asked whatever failed before.
    pub is_single: bool,
    /// The sum of all weights.
    pub total_weight: i64,
}

impl Group {
    /// A group of these peers.
    pub fn new(peers: Vec<Rc<Peer>>) -> Group {
        let total_weight = peers.iter().map(|p| p.weight()).sum();
        Group { peers, is_single: false, total_weight }
    }

    /// How many peers are worth a try.
    fn tries(&self) -> u32 {
        self.peers.iter().filter(|p| !p.options.down).count() as u32
    }
}

/// The peers of an upstream at one time.
#[derive(Default)]
pub struct Groups {
    /// Those that serve.
    pub primary: Group,
    /// Those that serve when no primary one can.
    pub backup: Option<Group>,
}

impl Groups {
    /// Sorts peers into primary and backup ones.
    pub fn new(peers: Vec<Rc<Peer>>) -> Groups {
        let (backup, primary) = peers.into_iter().partition::<Vec<_>, _>(|p| p.options.backup);
        let backup = (!backup.is_empty()).then(|| Group::new(backup));
        let mut primary = Group::new(primary);
        primary.is_single = primary.peers.len() == 1 && backup.is_none();
        Groups { primary, backup }
    }

    /// How many peers are worth a try.
    pub fn tries(&self) -> u32 {
        self.primary.tries() + self.backup.as_ref().map_or(0, Group::tries)
    }
}

/// A named group of servers, or the host that a `proxy_pass` named.
pub struct Upstream {
    /// The block's name, or the host.
    pub name: Rc<str>,
    groups: RefCell<Rc<Groups>>,
    balance: Box<dyn Balance>,
    /// Where idle connections wait; `None` closes them.
    pub pool: Option<Rc<Pool>>,
    /// Servers whose names are looked up again and again.
    pub living: Option<Living>,
}

impl Upstream {
    /// An upstream of `peers`, chosen by `balance`.
    pub fn new(
        name: Rc<str>,
        peers: Vec<Rc<Peer>>,
        balance: Box<dyn Balance>,
        pool: Option<Rc<Pool>>,
    ) -> Upstream {
        let groups = RefCell::new(Rc::new(Groups::new(peers)));
        Upstream { name, groups, balance, pool, living: None }
    }

    /// The peers of now.
    pub fn groups(&self) -> Rc<Groups> {
        self.groups.borrow().clone()
    }

    /// Other peers from now on; requests on their way keep theirs.
    pub fn replace(&self, groups: Groups) {
        *self.groups.borrow_mut() = Rc::new(groups);
    }

    /// Begins to ask for peers for one request. `client` is who asks, for `ip_hash`; `key` is the
    /// value of the `hash` directive's key.
    pub fn ask(&self, client: Option<IpAddr>, key: Vec<u8>) -> Ask {
        let mut ask = Ask::new(self.groups());
        self.balance.begin(&mut ask, client, key);
        ask
    }

    /// The peer for the next try; `None`: nobody can serve.
    pub fn pick(&self, ask: &mut Ask) -> Option<Turn> {
        let groups = ask.groups.clone();
        let now = peer::seconds();
        if !ask.on_backup {
            if let Some(index) = self.balance.choose(&groups.primary, ask, now) {
                return Some(Turn::begin(&groups.primary, index, ask, now));
            }
            ask.turn_to_backup();
        }
        let backup = groups.backup.as_ref()?;
        let index = self.balance.choose_backup(backup, ask, now)?;
        Some(Turn::begin(backup, index, ask, now))
    }
}
