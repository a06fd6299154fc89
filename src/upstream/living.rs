//! `server name resolve`: servers of an upstream whose names are looked up again and again.
//!
//! Every worker keeps its own list of peers and asks anew when an answer has run out. What one
//! worker learns it leaves in shared memory for the others, who ask only if they find nothing
//! fresh there; so do the workers after a reload, which have peers before the first answer.
//!
//! **Invariant:** a failed lookup changes nothing; that there is no such name empties the list.

use super::group::{Groups, Upstream};
use super::peer::{Options, Peer};
use super::resolver::{Resolver, Unresolved};
use crate::event::{self, Zone};
use crate::log;
use crate::proto::dns::{Failure, Service};
use crate::sys::socket::Address;
use crate::sys::time;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tollbar_shm::dict::{Owned, Put};

/// Peers that one name may have; more are left out.
pub const PEERS_MAX: usize = 256;
/// Bytes of shared memory for the answers about one name.
pub const ANSWER_BYTES: u64 = 128 * 1024;
/// However short an answer holds, a name is not asked for more often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a worker leaves it to the worker before it to ask.
const PRECEDENCE: Duration = Duration::from_millis(50);
/// The greatest weight that the record of a service gives.
const WEIGHT_MAX: u32 = 1000;

/// The servers of one upstream, in the order of the file.
pub struct Living {
    pub resolver: Rc<Resolver>,
    /// `resolver_timeout`
    pub timeout: Duration,
    /// The peers' counters.
    pub counters: Rc<Zone>,
    /// What workers tell one another.
    pub answers: Rc<Zone>,
    pub members: Vec<Member>,
}

/// One `server`.
pub enum Member {
    Fixed(Vec<Rc<Peer>>),
    Named(NamedServer),
}

/// A `server` with `resolve`.
pub struct NamedServer {
    /// As it was written.
    pub text: Rc<str>,
    pub host: String,
    pub port: u16,
    /// `service`
    pub service: Option<String>,
    pub options: Options,
    pub peers: RefCell<Vec<Rc<Peer>>>,
    /// Peers were left out, which was said.
    pub was_cut: Cell<bool>,
}

/// A peer as an answer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    /// By the record of a service.
    weight: u32,
    /// A service's record of lower priority.
    is_backup: bool,
    /// The server's name, if it is not that of the directive.
    target: Option<String>,
}

/// Begins to look after the names of `upstream` in this process.
pub fn start(upstream: &Rc<Upstream>) {
    let Some(living) = &upstream.living else { return };
    for (index, member) in living.members.iter().enumerate() {
        if let Member::Named(server) = member {
            if let Some((places, _)) = living.recall(upstream, server) {
                living.apply(upstream, server, places);
            }
            event::spawn(look_after(Rc::downgrade(upstream), index));
        }
    }
}

/// Ends with the upstream.
async fn look_after(upstream: Weak<Upstream>, index: usize) {
    loop {
        let Some(upstream) = upstream.upgrade() else { return };
        let Some(living) = &upstream.living else { return };
        let Member::Named(server) = &living.members[index] else { return };
        let wait = living.refresh(&upstream, server).await;
        drop(upstream);
        event::sleep(wait).await;
    }
}

impl Living {
    /// Brings the peers of one name up to date; gives the time until the next look.
    async fn refresh(&self, upstream: &Upstream, server: &NamedServer) -> Duration {
        let precedence = PRECEDENCE * event::seat().min(20) as u32;
        if let Some((places, left)) = self.recall(upstream, server)
            && !left.is_zero()
        {
            self.apply(upstream, server, places);
            return left + precedence;
        }
        match self.look_up(server).await {
            Ok((places, valid_until)) => {
                let valid_for = valid_until.saturating_duration_since(event::now());
                self.remember(upstream, server, &places, valid_for);
                self.apply(upstream, server, places);
                valid_for.max(ASK_EVERY) + precedence
            }
            Err(failure) => {
                server.log(failure);
                if failure != Unresolved::Failed(Failure::NotFound) {
                    return self.timeout.max(ASK_EVERY);
                }
                let wait = self.resolver.absent_for().max(ASK_EVERY);
                self.remember(upstream, server, &[], wait);
                self.apply(upstream, server, Vec::new());
                wait + precedence
            }
        }
    }

    async fn look_up(&self, server: &NamedServer) -> Result<(Vec<Place>, Instant), Unresolved> {
        let Some(service) = &server.service else {
            let hosts = self.resolver.hosts(&server.host, self.timeout).await?;
            let place = |ip: &std::net::IpAddr| Place {
                address: (*ip, server.port).into(),
                weight: 1,
                is_backup: false,
                target: None,
            };
            return Ok((hosts.addresses.iter().map(place).collect(), hosts.valid_until));
        };
        let name = match service.contains('.') {
            true => format!("{service}.{}", server.host),
            false => format!("_{service}._tcp.{}", server.host),
        };
        let offers = self.resolver.services(&name, self.timeout).await?;
        self.offered(server, &offers.services, offers.valid_until).await
    }

    /// The addresses of those who offer a service.
    ///
    /// Errors: none has an address.
    async fn offered(
        &self,
        server: &NamedServer,
        services: &[Service],
        mut valid_until: Instant,
    ) -> Result<(Vec<Place>, Instant), Unresolved> {
        let first = services.iter().map(|s| s.priority).min();
        let heaviest = services.iter().map(|s| u32::from(s.weight)).max().unwrap_or(1);
        let (mut places, mut failed) = (Vec::new(), None);
        for offer in services.iter().take(PEERS_MAX) {
            let hosts = match self.resolver.hosts(&offer.target, self.timeout).await {
                Ok(hosts) => hosts,
                Err(failure) => {
                    log::error!(
                        "{} could not be resolved ({failure}) while resolving service {} of {}",
                        offer.target,
                        server.service.as_deref().unwrap_or_default(),
                        server.host
                    );
                    let absent = Unresolved::Failed(Failure::NotFound);
                    if failed.is_none() || failure == absent {
                        failed = Some(failure);
                    }
                    continue;
                }
            };
            valid_until = valid_until.min(hosts.valid_until);
            let weight = match heaviest > WEIGHT_MAX {
                true => (u32::from(offer.weight) * WEIGHT_MAX / heaviest).max(1),
                false => offer.weight.into(),
            };
            places.extend(hosts.addresses.iter().map(|ip| Place {
                address: (*ip, offer.port).into(),
                weight,
                is_backup: Some(offer.priority) != first,
                target: Some(offer.target.clone()),
            }));
            if places.len() > PEERS_MAX {
                break;
            }
        }
        match failed.filter(|_| places.is_empty()) {
            Some(failure) => Err(failure),
            None => Ok((places, valid_until)),
        }
    }

    /// Makes these the peers of `server`; those that it had already go on as they are.
    fn apply(&self, upstream: &Upstream, server: &NamedServer, mut places: Vec<Place>) {
        if places.len() > PEERS_MAX {
            places.truncate(PEERS_MAX);
            if !server.was_cut.replace(true) {
                log::warn!("only {PEERS_MAX} addresses of {} are used", server.host);
            }
        }
        let before = server.peers.borrow().clone();
        let mut peers = before.clone();
        peers.retain(|peer| {
            let same = places.iter().position(|place| server.is(place, peer));
            same.map(|index| places.remove(index)).is_some()
        });
        if places.is_empty() && peers.len() == before.len() {
            return;
        }
        let new = places.into_iter().map(|place| {
            let options = server.options_of(&place);
            let name = place.target.map_or_else(|| server.text.clone(), Into::into);
            let peer = Peer::new(Address::Inet(place.address), name, options);
            Rc::new(peer.in_zone(&self.counters, &upstream.name))
        });
        peers.extend(new);
        server.peers.replace(peers);
        upstream.replace(Groups::new(self.peers()));
    }

    /// All peers of now.
    pub fn peers(&self) -> Vec<Rc<Peer>> {
        let of = |member: &Member| match member {
            Member::Fixed(peers) => peers.clone(),
            Member::Named(server) => server.peers.borrow().clone(),
        };
        self.members.iter().flat_map(of).collect()
    }

    /// What was last learnt of a name, and how long it still holds.
    fn recall(&self, upstream: &Upstream, server: &NamedServer) -> Option<(Vec<Place>, Duration)> {
        let now_ms = time::unix_ms();
        let got = self.answers.dict().get(&server.key(upstream), now_ms).ok()??;
        let Owned::String(bytes) = got.value else { return None };
        let (places, until_ms) = decode(std::str::from_utf8(&bytes).ok()?, server)?;
        Some((places, Duration::from_millis(until_ms.saturating_sub(now_ms))))
    }

    fn remember(
        &self,
        upstream: &Upstream,
        server: &NamedServer,
        places: &[Place],
        valid_for: Duration,
    ) {
        let now_ms = time::unix_ms();
        let until_ms = now_ms.saturating_add(valid_for.as_millis() as u64);
        let text = encode(places, until_ms);
        let put = Put::string(text.as_bytes());
        if let Err(e) = self.answers.dict().set(&server.key(upstream), put, now_ms) {
            log::debug!("addresses of {} are not shared: {e}", server.host);
        }
    }
}

impl NamedServer {
    fn key(&self, upstream: &Upstream) -> Vec<u8> {
        let service = self.service.as_deref().unwrap_or_default();
        format!("{}\0{}\0{service}", upstream.name, self.host).into_bytes()
    }

    fn log(&self, failure: Unresolved) {
        let host = &self.host;
        match &self.service {
            Some(service) => {
                log::error!("service {service} of {host} could not be resolved ({failure})");
            }
            None => log::error!("{host} could not be resolved ({failure})"),
        }
    }

    /// The directive's parameters, and what the record of a service says.
    fn options_of(&self, place: &Place) -> Options {
        let mut options = self.options.clone();
        if options.weight == 1 {
            options.weight = place.weight;
        }
        options.backup |= place.is_backup;
        options
    }

    fn is(&self, place: &Place, peer: &Peer) -> bool {
        let options = self.options_of(place);
        peer.address.inet() == Some(place.address)
            && *peer.server == *place.target.as_deref().unwrap_or(&self.text)
            && peer.options.weight == options.weight
            && peer.options.backup == options.backup
    }
}

/// The end of its time, then a line a place: address, weight, whether backup, target.
fn encode(places: &[Place], until_ms: u64) -> String {
    let mut text = format!("{until_ms}\n");
    for Place { address, weight, is_backup, target } in places.iter().take(PEERS_MAX) {
        let target = target.as_deref().unwrap_or_default();
        text += &format!("{address} {weight} {is_backup} {target}\n");
    }
    text
}

/// What another worker wrote, perhaps with another configuration: a port belongs to the
/// directive unless a service names it.
fn decode(text: &str, server: &NamedServer) -> Option<(Vec<Place>, u64)> {
    let mut lines = text.lines();
    let until_ms = lines.next()?.parse().ok()?;
    let place = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let mut address: SocketAddr = words.next()?.parse().ok()?;
        let weight = words.next()?.parse().ok()?;
        let is_backup = words.next()?.parse().ok()?;
        let target = words.next().filter(|_| server.service.is_some()).map(String::from);
        if server.service.is_none() {
            address.set_port(server.port);
        }
        Some(Place { address, weight, is_backup, target })
    };
    Some((lines.map(place).collect::<Option<_>>()?, until_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16, service: Option<&str>) -> NamedServer {
        NamedServer {
            text: "a.example".into(),
            host: "a.example".into(),
            port,
            service: service.map(String::from),
            options: Options::default(),
            peers: RefCell::default(),
            was_cut: Cell::new(false),
        }
    }

    fn place(address: &str, target: Option<&str>) -> Place {
        let target = target.map(String::from);
        Place { address: address.parse().unwrap(), weight: 5, is_backup: true, target }
    }

    #[test]
    fn what_is_written_is_read() {
        let places = [place("10.0.0.1:80", Some("b.example")), place("[::1]:81", Some("c"))];
        let text = encode(&places, 77);
        assert_eq!(decode(&text, &server(0, Some("http"))), Some((places.to_vec(), 77)));
        let text = encode(&[place("10.0.0.1:80", None)], 78);
        let moved = place("10.0.0.1:8080", None);
        assert_eq!(decode(&text, &server(8080, None)), Some((vec![moved], 78)));
        assert_eq!(decode("1\n", &server(1, None)), Some((Vec::new(), 1)));
        for bad in ["", "x", "1\nx", "1\n10.0.0.1:80 1", "1\n10.0.0.1 1 true ", "1\n\n"] {
            assert_eq!(decode(bad, &server(1, None)), None, "{bad:?}");
        }
    }

    #[test]
    fn a_directive_weighs_more_than_a_record() {
        let mut server = server(0, Some("http"));
        assert_eq!(server.options_of(&place("10.0.0.1:80", None)).weight, 5);
        server.options.weight = 3;
        let options = server.options_of(&place("10.0.0.1:80", None));
        assert_eq!((options.weight, options.backup), (3, true));
    }
}
