//! Reads `upstream {}`.

use super::balance::Balance;
use super::group::Upstream;
use super::hash::{Consistent, Hash, IpHash};
use super::least_conn::LeastConn;
use super::living::{Living, Member, NamedServer};
use super::peer::{Options, Peer, SEATS_MAX};
use super::pool::{Pool, PoolRules};
use super::random::Random;
use super::resolver::{self, Inherited, Resolver};
use super::round_robin::RoundRobin;
use super::url::Url;
use crate::conf::*;
use crate::event::{ZONE_MIN_BYTES, Zone};
use crate::sys::socket::Address;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The directives of the block.
#[rustfmt::skip]
pub const UPSTREAM: &[Directive<Plan>] = &[
    d("server",             UPS, call(at_least(1),   Plan::server)),
    d("least_conn",         UPS, call(exactly(0),    Plan::least_conn)),
    d("ip_hash",            UPS, call(exactly(0),    Plan::ip_hash)),
    d("hash",               UPS, call(between(1, 2), Plan::hash)),
    d("random",             UPS, call(between(0, 2), Plan::random)),
    d("zone",               UPS, call(between(1, 2), Plan::zone)),
    d("resolver",           UPS, call(at_least(1),   Plan::resolver)),
    d("resolver_timeout",   UPS, msec(|p| &mut p.resolver_timeout)),
    d("keepalive",          UPS, call(between(1, 2), Plan::keepalive)),
    d("keepalive_requests", UPS, num(0, u32::MAX as i64, |p| &mut p.keepalive_requests)),
    d("keepalive_time",     UPS, msec(|p| &mut p.keepalive_time)),
    d("keepalive_timeout",  UPS, msec(|p| &mut p.keepalive_timeout)),
];

/// What was written in the block.
#[derive(Default)]
pub struct Plan {
    servers: Vec<Server>,
    method: Method,
    zone: Option<(String, Option<u64>)>,
    resolver: Option<Rc<Resolver>>,
    resolver_timeout: Option<Duration>,
    keepalive: Option<(usize, bool)>,
    keepalive_requests: Option<i64>,
    keepalive_time: Option<Duration>,
    keepalive_timeout: Option<Duration>,
}

struct Server {
    text: Rc<str>,
    place: Place,
    options: Options,
}

enum Place {
    Addresses(Vec<Address>),
    /// `resolve`
    Name {
        host: String,
        port: u16,
        service: Option<String>,
    },
}

/// Parameters of `server` that say where it is.
#[derive(Default)]
struct Wish {
    resolve: bool,
    service: Option<String>,
}

/// The shared memory of an upstream.
pub struct Zones {
    pub counters: Rc<Zone>,
    /// For names that are looked up again and again.
    pub answers: Option<Rc<Zone>>,
}

/// Addresses of one name that have counters of their own in shared memory.
const NAMED_PEERS: usize = 16;

#[derive(Default, PartialEq)]
enum Method {
    #[default]
    RoundRobin,
    LeastConn,
    IpHash,
    Hash {
        key: String,
        consistent: bool,
    },
    Random {
        two: bool,
    },
}

/// What reads directives of others.
pub type Others<'a> = &'a dyn Fn(&mut Reading) -> Result<Found, Reason>;

/// The open block.
struct Inside<'a> {
    plan: &'a mut Plan,
    others: Others<'a>,
}

impl Block for Inside<'_> {
    fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
        match set_from(UPSTREAM, UPS, self.plan, r) {
            None => (self.others)(r),
            known => found([known]),
        }
    }
}

impl Plan {
    /// Reads the block that the current statement opened.
    ///
    /// Errors: `no servers are inside upstream`, and those of its directives.
    pub fn read(r: &mut Reading, others: Others<'_>) -> Result<Plan, Reason> {
        let mut plan = Plan::default();
        r.block(&mut Inside { plan: &mut plan, others })?;
        if plan.servers.is_empty() {
            return Err(Reason::Located(r.error("no servers are inside upstream")));
        }
        Ok(plan)
    }

    /// The key of `hash`, which may name variables: whoever knows requests evaluates it.
    pub fn hash_key(&self) -> Option<&str> {
        match &self.method {
            Method::Hash { key, .. } => Some(key),
            _ => None,
        }
    }

    fn server(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let (mut options, mut wish) = (Options::default(), Wish::default());
        for word in &args[1..] {
            self.parameter(&mut options, &mut wish, word)?;
        }
        let place = wish.place(&args[0])?;
        self.servers.push(Server { text: args[0].as_str().into(), place, options });
        Ok(())
    }

    fn parameter(&self, options: &mut Options, wish: &mut Wish, word: &str) -> Result<(), Reason> {
        let invalid = || Reason::InvalidParameter(word.to_owned());
        let number = |text: &str| {
            value::number(text).and_then(|n| u32::try_from(n).ok()).ok_or_else(invalid)
        };
        let by_key = matches!(self.method, Method::Hash { .. } | Method::Random { .. });
        match word.split_once('=').map_or((word, None), |(name, v)| (name, Some(v))) {
            ("weight", Some(text)) => {
                options.weight = number(text)?;
                if options.weight == 0 {
                    return Err(invalid());
                }
            }
            ("max_conns", Some(text)) => options.max_conns = number(text)?,
            ("max_fails", Some(text)) => options.max_fails = number(text)?,
            ("fail_timeout", Some(text)) => {
                options.fail_timeout = value::seconds(text).ok_or_else(invalid)?.as_secs();
            }
            ("backup", None) if by_key || self.method == Method::IpHash => {
                return Err(Reason::says(format!(
                    "balancing method does not support parameter \"{word}\""
                )));
            }
            ("backup", None) => options.backup = true,
            ("down", None) => options.down = true,
            ("resolve", None) => wish.resolve = true,
            ("service", Some("")) => return Err(Reason::says("service is empty")),
            ("service", Some(text)) => wish.service = Some(text.to_owned()),
            _ => return Err(invalid()),
        }
        Ok(())
    }

    fn resolver(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.resolver.is_some() {
            return Err(Reason::Duplicate);
        }
        self.resolver = Some(Resolver::read(r.args())?);
        Ok(())
    }

    fn choose_method(&mut self, method: Method, r: &mut Reading) {
        if self.method != Method::RoundRobin {
            r.warn("load balancing method redefined");
        }
        self.method = method;
    }

    fn least_conn(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.choose_method(Method::LeastConn, r);
        Ok(())
    }

    fn ip_hash(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.choose_method(Method::IpHash, r);
        Ok(())
    }

    fn hash(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let consistent = match r.args().get(1).map(String::as_str) {
            None => false,
            Some("consistent") => true,
            Some(other) => return Err(Reason::InvalidParameter(other.to_owned())),
        };
        let key = r.arg(0).to_owned();
        self.choose_method(Method::Hash { key, consistent }, r);
        Ok(())
    }

    fn random(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let words: Vec<&str> = r.args().iter().map(String::as_str).collect();
        let two = match words[..] {
            [] => false,
            ["two"] | ["two", "least_conn"] => true,
            ["two", other] | [other, ..] => {
                return Err(Reason::InvalidParameter(other.to_owned()));
            }
        };
        self.choose_method(Method::Random { two }, r);
        Ok(())
    }

    fn zone(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.zone.is_some() {
            return Err(Reason::Duplicate);
        }
        let name = r.arg(0).to_owned();
        if name.is_empty() {
            return Err(Reason::says(format!("invalid zone name \"{name}\"")));
        }
        let size = match r.args().get(1) {
            None => None,
            Some(text) => {
                let size = value::size(text)
                    .ok_or_else(|| Reason::says(format!("invalid zone size \"{text}\"")))?;
                if size < ZONE_MIN_BYTES {
                    return Err(Reason::says(format!("zone \"{name}\" is too small")));
                }
                Some(size)
            }
        };
        self.zone = Some((name, size));
        Ok(())
    }

    /// The zone's name, its size in bytes if it was said here, and how many blocks of counters the
    /// peers take.
    pub fn wants_zone(&self) -> Option<(&str, Option<u64>, usize)> {
        let (name, size) = self.zone.as_ref()?;
        let peers = |s: &Server| match &s.place {
            Place::Addresses(addresses) => addresses.len(),
            Place::Name { .. } => NAMED_PEERS,
        };
        let peers: usize = self.servers.iter().map(peers).sum();
        Some((name, *size, peers * (1 + SEATS_MAX)))
    }

    /// How many names are to be looked up again and again.
    pub fn names(&self) -> usize {
        self.servers.iter().filter(|s| matches!(s.place, Place::Name { .. })).count()
    }

    fn keepalive(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.keepalive.is_some() {
            return Err(Reason::Duplicate);
        }
        let limit = value::number(r.arg(0)).and_then(|n| usize::try_from(n).ok());
        let limit = limit.ok_or_else(|| {
            Reason::says(format!("invalid value \"{}\" in \"keepalive\" directive", r.arg(0)))
        })?;
        let local = match r.args().get(1).map(String::as_str) {
            None => false,
            Some("local") => true,
            Some(other) => return Err(Reason::InvalidParameter(other.to_owned())),
        };
        self.keepalive = Some((limit, local));
        Ok(())
    }

    /// Makes the upstream; `inherited` is what `http {}` says of the resolver.
    ///
    /// Errors: `no servers in upstream "x"` if all are backups; names without zone or resolver.
    pub fn make(
        self,
        name: &Rc<str>,
        zones: Option<Zones>,
        inherited: &Inherited,
    ) -> Result<Upstream, String> {
        if self.servers.iter().all(|s| s.options.backup) {
            return Err(format!("no servers in upstream \"{name}\""));
        }
        let is_living = self.names() > 0;
        let pool = self.pool_rules();
        let pool = (pool.limit > 0).then(|| Pool::new(pool));
        let resolver = self.resolver.or_else(|| inherited.resolver.clone());
        let timeout = self.resolver_timeout.or(inherited.timeout).unwrap_or(resolver::TIMEOUT);
        let counters = zones.as_ref().map(|zones| zones.counters.clone());
        let members: Vec<Member> =
            self.servers.into_iter().map(|s| s.member(counters.as_ref(), name)).collect();
        let balance = self.method.balance();
        if !is_living {
            let peers = members.into_iter().flat_map(|member| match member {
                Member::Fixed(peers) => peers,
                Member::Named(_) => Vec::new(),
            });
            return Ok(Upstream::new(name.clone(), peers.collect(), balance, pool));
        }
        let Some(Zones { counters, answers: Some(answers) }) = zones else {
            return Err(format!(
                "resolving names at run time requires upstream \"{name}\" to be in shared memory"
            ));
        };
        let resolver = resolver.ok_or_else(|| {
            format!("no resolver defined to resolve names at run time in upstream \"{name}\"")
        })?;
        let living = Living { resolver, timeout, counters, answers, members };
        let mut upstream = Upstream::new(name.clone(), living.peers(), balance, pool);
        upstream.living = Some(living);
        Ok(upstream)
    }

    fn pool_rules(&self) -> PoolRules {
        let unset = PoolRules::default();
        let (limit, local) = self.keepalive.unwrap_or((unset.limit, unset.local));
        PoolRules {
            limit,
            local,
            requests: self.keepalive_requests.map_or(unset.requests, |n| n as u64),
            time: self.keepalive_time.unwrap_or(unset.time),
            timeout: self.keepalive_timeout.unwrap_or(unset.timeout),
        }
    }
}

impl Server {
    fn member(self, counters: Option<&Rc<Zone>>, upstream: &str) -> Member {
        let Server { text, place, options } = self;
        let addresses = match place {
            Place::Addresses(addresses) => addresses,
            Place::Name { host, port, service } => {
                let (peers, was_cut) = (RefCell::default(), Cell::new(false));
                return Member::Named(NamedServer {
                    text,
                    host,
                    port,
                    service,
                    options,
                    peers,
                    was_cut,
                });
            }
        };
        let peer = |address| {
            let peer = Peer::new(address, text.clone(), options.clone());
            Rc::new(match counters {
                Some(zone) => peer.in_zone(zone, upstream),
                None => peer,
            })
        };
        Member::Fixed(addresses.into_iter().map(peer).collect())
    }
}

impl Wish {
    /// Where the server that is called `text` is.
    fn place(self, text: &str) -> Result<Place, Reason> {
        let Wish { resolve, service } = self;
        let about = |what: &str| Reason::says(format!("service upstream \"{text}\" {what}"));
        if service.is_some() && !resolve {
            return Err(about("requires \"resolve\" parameter"));
        }
        let in_upstream = |e: &str| Reason::says(format!("{e} in upstream \"{text}\""));
        let url = Url::parse(text, 80, false).map_err(in_upstream)?;
        if service.is_some() && !url.no_port {
            return Err(about("may not have port"));
        }
        if service.is_some() && url.address.is_some() {
            return Err(about("requires domain name"));
        }
        Ok(match resolve && url.address.is_none() {
            true => Place::Name { host: url.host, port: url.port, service },
            false => Place::Addresses(url.resolve().map_err(in_upstream)?),
        })
    }
}

impl Method {
    fn balance(self) -> Box<dyn Balance> {
        match self {
            Method::RoundRobin => Box::new(RoundRobin),
            Method::LeastConn => Box::new(LeastConn),
            Method::IpHash => Box::new(IpHash),
            Method::Hash { consistent: false, .. } => Box::new(Hash),
            Method::Hash { consistent: true, .. } => Box::<Consistent>::default(),
            Method::Random { two } => Box::new(Random::new(two)),
        }
    }
}
