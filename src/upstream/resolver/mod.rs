//! `resolver`: looks names up while the server runs.
//!
//! Reading order: `inquiry` (what is asked, how answers are judged) · `exchange` (the sockets) ·
//! `memory` (what is known) · here: who waits for whom.
//!
//! A name that several requests need is asked for once. What is found is kept as long as it says,
//! or as `valid` says; that there is no such name is not kept. Aliases are followed, each kept by
//! itself. Every worker has its own memory.
//!
//! **Invariant:** no answer, however wrong or late, ends a lookup but one to its open question;
//! names remembered, lookups under way, waiters, sockets of a lookup and aliases on the way are
//! all bounded.

mod exchange;
mod inquiry;
mod memory;

use super::url::Url;
use crate::conf::{Reason, value};
use crate::event;
use crate::proto::dns::{Failure, Service};
use crate::sys::socket::Address;
use inquiry::{Found, Inquiry};
use memory::{Key, Known, Lookup, Memory, Slot};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Aliases that are followed for one name.
const ALIASES_MAX: usize = 50;
/// Lookups that one resolver has under way.
const LOOKUPS_MAX: usize = 1024;
/// Requests that wait for one resolver.
const WAITERS_MAX: usize = 32 * 1024;
/// The port of name servers.
const PORT: u16 = 53;
/// How long it holds that there is no such name, for who asks again and again.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// What `resolver_timeout` is without the directive.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Its addresses.
    Hosts,
    /// Who offers the service of that name.
    Services,
}

/// One `resolver` directive.
pub struct Resolver {
    servers: Vec<SocketAddr>,
    valid: Option<Duration>,
    ipv4: bool,
    ipv6: bool,
    memory: RefCell<Memory>,
    /// Whose turn it is to be asked first.
    turn: Cell<usize>,
    lookups: Cell<usize>,
    waiters: Cell<usize>,
}

/// `resolver` and `resolver_timeout` of `http {}`, for upstreams without their own; on the
/// reading's shelf.
#[derive(Default)]
pub struct Inherited {
    pub resolver: Option<Rc<Resolver>>,
    pub timeout: Option<Duration>,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// At least one; they begin with another one every time.
    pub addresses: Vec<IpAddr>,
    pub valid_until: Instant,
}

/// Who offers a service.
#[derive(Clone, Debug)]
pub struct Offers {
    /// At least one, by priority.
    pub services: Box<[Service]>,
    pub valid_until: Instant,
}

/// Why there are no addresses. Written as `3: Host not found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// A name server says so, or none says anything.
    Failed(Failure),
    /// More names are being asked for than may be.
    Busy,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::Failed(failure) => write!(f, "{}: {failure}", failure.number()),
            Unresolved::Busy => f.write_str("11: Too many names are being resolved"),
        }
    }
}

impl From<Failure> for Unresolved {
    fn from(failure: Failure) -> Unresolved {
        Unresolved::Failed(failure)
    }
}

impl Resolver {
    /// Reads the arguments of `resolver`. Names of name servers are asked of the system.
    ///
    /// Errors: nginx's: `invalid parameter: valid=x`, `host not found in resolver "x"` …
    pub fn read(args: &[String]) -> Result<Rc<Resolver>, Reason> {
        let mut resolver = Resolver {
            servers: Vec::new(),
            valid: None,
            ipv4: true,
            ipv6: true,
            memory: RefCell::default(),
            turn: Cell::new(0),
            lookups: Cell::new(0),
            waiters: Cell::new(0),
        };
        for arg in args {
            resolver.parameter(arg)?;
        }
        if !resolver.ipv4 && !resolver.ipv6 {
            return Err(Reason::says("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        }
        if resolver.servers.is_empty() {
            return Err(Reason::says("no name servers defined"));
        }
        Ok(Rc::new(resolver))
    }

    fn parameter(&mut self, arg: &str) -> Result<(), Reason> {
        let invalid = || Reason::says(format!("invalid parameter: {arg}"));
        let flag = |text: &str| match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(invalid()),
        };
        match arg.split_once('=') {
            Some(("valid", text)) => {
                let valid = value::seconds(text).ok_or_else(invalid)?;
                self.valid = Some(valid).filter(|v| !v.is_zero());
            }
            Some(("ipv4", text)) => self.ipv4 = flag(text)?,
            Some(("ipv6", text)) => self.ipv6 = flag(text)?,
            Some(("status_zone", _)) => {
                return Err(Reason::says("\"status_zone\" of \"resolver\" is not supported"));
            }
            _ => {
                let error = |e: &str| Reason::says(format!("{e} in resolver \"{arg}\""));
                let url = Url::parse(arg, PORT, false).map_err(error)?;
                let addresses = url.resolve().map_err(error)?;
                let inet = addresses.iter().filter_map(Address::inet);
                let before = self.servers.len();
                self.servers.extend(inet);
                if self.servers.len() == before {
                    return Err(error("invalid host"));
                }
            }
        }
        Ok(())
    }

    /// The addresses of `name`. A zero `timeout` is none.
    pub async fn hosts(
        self: &Rc<Self>,
        name: &str,
        timeout: Duration,
    ) -> Result<Hosts, Unresolved> {
        let (known, valid_until) = self.within(timeout, self.follow(Kind::Hosts, name)).await?;
        let Found::Hosts(addresses) = &known.found else { return Err(Failure::NotFound.into()) };
        let mut addresses = addresses.to_vec();
        if addresses.len() > 1 {
            let by = usize::from(random()) % addresses.len();
            addresses.rotate_left(by);
        }
        Ok(Hosts { addresses, valid_until })
    }

    /// Who offers the service of this name (`_http._tcp.example.com`).
    pub async fn services(
        self: &Rc<Self>,
        name: &str,
        timeout: Duration,
    ) -> Result<Offers, Unresolved> {
        let (known, valid_until) = self.within(timeout, self.follow(Kind::Services, name)).await?;
        match &known.found {
            Found::Services(services) => Ok(Offers { services: services.clone(), valid_until }),
            _ => Err(Failure::NotFound.into()),
        }
    }

    /// How long to believe that there is no such name.
    pub fn absent_for(&self) -> Duration {
        self.valid.unwrap_or(ABSENT_FOR)
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        future: impl Future<Output = Result<T, Unresolved>>,
    ) -> Result<T, Unresolved> {
        if timeout.is_zero() {
            return future.await;
        }
        let done = event::timeout(timeout, future).await;
        done.unwrap_or(Err(Unresolved::Failed(Failure::TimedOut)))
    }

    /// What is known of `name`, or of what it is an alias of; and how long all of it holds.
    async fn follow(
        self: &Rc<Self>,
        kind: Kind,
        name: &str,
    ) -> Result<(Rc<Known>, Instant), Unresolved> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut key: Key = (kind, name.into());
        let mut valid_until = None;
        for _ in 0..=ALIASES_MAX {
            let known = self.find(&key).await?;
            let until =
                valid_until.map_or(known.valid_until, |u: Instant| u.min(known.valid_until));
            match &known.found {
                Found::Alias(next) => key.1 = next.clone(),
                _ => return Ok((known, until)),
            }
            valid_until = Some(until);
        }
        Err(Failure::NotFound.into())
    }

    /// What is known of a name; if nothing is, asks or waits for who is asking.
    async fn find(self: &Rc<Self>, key: &Key) -> Result<Rc<Known>, Unresolved> {
        let slot = self.memory.borrow().find(key, event::now());
        let lookup = match slot {
            Some(Slot::Known(known)) => return Ok(known),
            Some(Slot::Asking(lookup)) => lookup,
            Some(Slot::Gone) | None => self.begin(key)?,
        };
        let _waiter = Waiter::enter(self, &lookup)?;
        loop {
            if let Some(result) = lookup.result.get() {
                return result.clone();
            }
            lookup.bell.notified().await;
        }
    }

    /// Starts the task that asks for a name.
    fn begin(self: &Rc<Self>, key: &Key) -> Result<Rc<Lookup>, Unresolved> {
        if self.lookups.get() >= LOOKUPS_MAX {
            return Err(Unresolved::Busy);
        }
        let questions = key.0.questions(self.ipv4, self.ipv6);
        let inquiry = Inquiry::new(key.1.clone(), &questions, random);
        // What cannot be asked for does not exist.
        let inquiry = inquiry.map_err(|_| Failure::NotFound)?;
        let lookup = self.memory.borrow_mut().begin(key.clone(), event::now())?;
        self.lookups.set(self.lookups.get() + 1);
        event::spawn(self.clone().ask(key.clone(), inquiry, lookup.clone()));
        Ok(lookup)
    }

    async fn ask(self: Rc<Self>, key: Key, mut inquiry: Inquiry, lookup: Rc<Lookup>) {
        let first = self.turn.get();
        self.turn.set((first + 1) % self.servers.len());
        let is_wanted = || lookup.waiters.get() > 0;
        let answer = exchange::ask(&self.servers, first, &mut inquiry, is_wanted).await;
        self.lookups.set(self.lookups.get() - 1);
        let now = event::now();
        let result = answer.map(|answer| {
            let answer = answer?;
            let ttl = self.valid.unwrap_or(Duration::from_secs(answer.ttl.into()));
            Ok(Rc::new(Known::new(answer.found, now + ttl, now)))
        });
        let known = result.as_ref().and_then(|r| r.as_ref().ok().cloned());
        self.memory.borrow_mut().end(&key, &lookup, known);
        if let Some(result) = result {
            let _ = lookup.result.set(result);
            lookup.bell.notify_all();
        }
    }
}

/// One request's waiting for a lookup.
struct Waiter<'a> {
    resolver: &'a Resolver,
    lookup: &'a Lookup,
}

impl<'a> Waiter<'a> {
    fn enter(resolver: &'a Resolver, lookup: &'a Lookup) -> Result<Waiter<'a>, Unresolved> {
        if resolver.waiters.get() >= WAITERS_MAX {
            return Err(Unresolved::Busy);
        }
        resolver.waiters.set(resolver.waiters.get() + 1);
        lookup.waiters.set(lookup.waiters.get() + 1);
        Ok(Waiter { resolver, lookup })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.resolver.waiters.set(self.resolver.waiters.get() - 1);
        self.lookup.waiters.set(self.lookup.waiters.get() - 1);
    }
}

/// A number that nobody can guess.
fn random() -> u16 {
    // Without a source of randomness the ports of the sockets must do.
    getrandom::u32().map_or_else(|_| std::process::id() as u16, |n| n as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reactor;
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn read(words: &str) -> Result<Rc<Resolver>, String> {
        let args: Vec<String> = words.split(' ').map(String::from).collect();
        Resolver::read(&args).map_err(|reason| match reason {
            Reason::Says(what) => what,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn the_directive() {
        let resolver = read("127.0.0.1 [::1]:5353 valid=1m ipv6=off").unwrap();
        assert_eq!(resolver.servers, ["127.0.0.1:53", "[::1]:5353"].map(|s| s.parse().unwrap()));
        assert_eq!(resolver.valid, Some(Duration::from_secs(60)));
        assert_eq!((resolver.ipv4, resolver.ipv6), (true, false));
        for (words, error) in [
            ("127.0.0.1 valid=x", "invalid parameter: valid=x"),
            ("127.0.0.1 ipv6=maybe", "invalid parameter: ipv6=maybe"),
            ("127.0.0.1 ipv4=off ipv6=off", "\"ipv4\" and \"ipv6\" cannot both be \"off\""),
            ("127.0.0.1 status_zone=z", "\"status_zone\" of \"resolver\" is not supported"),
            ("valid=1s", "no name servers defined"),
            ("127.0.0.1:0", "invalid port in resolver \"127.0.0.1:0\""),
            ("unix:/tmp/s", "invalid host in resolver \"unix:/tmp/s\""),
        ] {
            assert_eq!(read(words).err().as_deref(), Some(error), "{words}");
        }
    }

    /// A server that knows `N.a.example` as an alias of `N+1.a.example`, `x` as 10.0.0.1 and
    /// nothing else, and counts the queries for addresses.
    fn serve(ttl: u8) -> (String, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buf) {
                counted.fetch_add(1, SeqCst);
                let mut message = buf[..len].to_vec();
                message[2..4].copy_from_slice(&[0x81, 0x80]);
                let label = &buf[13..13 + usize::from(buf[12])];
                let record: Option<(u8, Vec<u8>)> = match std::str::from_utf8(label).unwrap() {
                    "x" => Some((1, vec![10, 0, 0, 1])),
                    n => n.parse::<u32>().ok().map(|n| {
                        let next = if n == 49 { "x".into() } else { (n + 1).to_string() };
                        let mut name = vec![next.len() as u8];
                        name.extend(next.bytes());
                        name.extend([0xc0, 13 + label.len() as u8]);
                        (5, name)
                    }),
                };
                if let Some((kind, data)) = record {
                    message[7] = 1;
                    message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, ttl, 0, data.len() as u8]);
                    message.extend(data);
                }
                let _ = socket.send_to(&message, from);
            }
        });
        (format!("{address} ipv6=off"), count)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_question_serves_all_who_wait() {
        let (server, count) = serve(60);
        Reactor::new().unwrap().block_on(async move {
            let resolver = read(&server).unwrap();
            let done = Rc::new(Cell::new(0));
            for _ in 0..10 {
                let (resolver, done) = (resolver.clone(), done.clone());
                event::spawn(async move {
                    let hosts = resolver.hosts("X.a.example.", SECOND).await.unwrap();
                    assert_eq!(hosts.addresses, [IpAddr::from([10, 0, 0, 1])]);
                    done.set(done.get() + 1);
                });
            }
            while done.get() < 10 {
                event::sleep(Duration::from_millis(1)).await;
            }
            resolver.hosts("x.a.example", SECOND).await.unwrap();
            assert_eq!(count.load(SeqCst), 1);
            assert_eq!((resolver.waiters.get(), resolver.lookups.get()), (0, 0));
        });
    }

    #[test]
    fn aliases_are_followed_so_far() {
        let (server, _) = serve(60);
        Reactor::new().unwrap().block_on(async move {
            let resolver = read(&server).unwrap();
            assert!(resolver.hosts("10.a.example", SECOND).await.is_ok());
            // From 0 there are 50 aliases to x; from 10,000,000 there is no end.
            assert!(resolver.hosts("0.a.example", SECOND).await.is_ok());
            let failed = resolver.hosts("10000000.a.example", SECOND).await.unwrap_err();
            assert_eq!(failed.to_string(), "3: Host not found");
            assert!(resolver.hosts("nobody.a.example", SECOND).await.is_err());
            assert!(resolver.services("x.a.example", Duration::from_millis(50)).await.is_err());
        });
    }

    #[test]
    fn a_zero_time_to_live_is_for_one_use() {
        let (server, count) = serve(0);
        Reactor::new().unwrap().block_on(async move {
            let resolver = read(&server).unwrap();
            for _ in 0..3 {
                resolver.hosts("x.a.example", SECOND).await.unwrap();
            }
            assert_eq!(count.load(SeqCst), 3);
        });
    }

    #[test]
    fn nobody_waits_longer_than_told() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = silent.local_addr().unwrap().to_string();
        Reactor::new().unwrap().block_on(async move {
            let resolver = read(&server).unwrap();
            let began = Instant::now();
            let failed = resolver.hosts("x", Duration::from_millis(50)).await.unwrap_err();
            assert_eq!(failed.to_string(), "110: Operation timed out");
            assert!(began.elapsed() < 2 * SECOND);
            assert_eq!((resolver.waiters.get(), resolver.lookups.get()), (0, 1));
        });
    }
}
