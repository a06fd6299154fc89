//! `listen`: an address, what its connections carry, and which servers answer there.

use super::conf::Name;
use super::place::{Address, Server, ServerNames};
use super::ssl;
use crate::conf::{Error, Reading, Reason, value};
use crate::event::{KeepAlive, ListenSpec};
use crate::sys::socket::Address as Socket;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

/// One `listen` of a server.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The socket that is wanted.
    pub socket: ListenSpec,
    /// `ssl`
    pub ssl: bool,
    /// `http2` (the old parameter; the directive is the server's)
    pub http2: bool,
    /// `proxy_protocol`
    pub proxy_protocol: bool,
    /// `default_server`
    pub default_server: bool,
    /// A socket of its own even beside a wildcard: `bind`, or an option of the socket.
    pub own_socket: bool,
    /// Some option of the socket was given: only one `listen` of an address may.
    pub has_options: bool,
}

/// A socket to listen on, with the addresses whose connections arrive there.
pub struct Bound {
    /// The socket.
    pub spec: ListenSpec,
    /// What serves it, unless `local` knows better.
    pub address: Option<Rc<Address>>,
    /// A wildcard socket also gets the connections of these addresses.
    pub local: HashMap<SocketAddr, Rc<Address>>,
    /// Code of this process's start wants other processes to take its connections.
    pub is_left_to_others: Cell<bool>,
}

impl Bound {
    /// The address that a connection to `local` belongs to.
    pub fn address_for(&self, local: &Socket) -> Option<&Rc<Address>> {
        if self.local.is_empty() {
            return self.address.as_ref();
        }
        let exact = local.inet().and_then(|a| self.local.get(&a));
        exact.or(self.address.as_ref())
    }
}

impl Listen {
    /// What a server without `listen` does: port 80, or 8000 for users who may not have it.
    pub fn unspoken() -> Listen {
        let port = if crate::sys::user::is_root() { 80 } else { 8000 };
        Listen::at(Socket::Inet((Ipv4Addr::UNSPECIFIED, port).into()))
    }

    fn at(address: Socket) -> Listen {
        Listen {
            socket: ListenSpec::new(address),
            ssl: false,
            http2: false,
            proxy_protocol: false,
            default_server: false,
            own_socket: false,
            has_options: false,
        }
    }

    /// The address in nginx's spelling.
    pub fn address(&self) -> String {
        self.socket.address.to_string()
    }
}

/// Reads `listen address [parameters]`; a name may stand for several addresses.
pub(super) fn read(r: &mut Reading) -> Result<Vec<Listen>, Reason> {
    let args = r.take_args();
    let mut model = Listen::at(Socket::Inet((Ipv4Addr::UNSPECIFIED, 80).into()));
    for word in &args[1..] {
        parameter(&mut model, word, r)?;
    }
    let mut addresses = Vec::new();
    for text in ports(&args[0])? {
        addresses.extend(resolve(&text)?);
    }
    let with = |address: Socket| {
        let mut listen = model.clone();
        listen.socket.address = address;
        listen
    };
    Ok(addresses.into_iter().map(with).collect())
}

fn parameter(listen: &mut Listen, word: &str, r: &mut Reading) -> Result<(), Reason> {
    let invalid = || Reason::InvalidParameter(word.to_owned());
    let bad = |what: &str| Reason::says(format!("invalid {what} \"{word}\""));
    let socket = &mut listen.socket;
    let (name, text) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    let mut is_option = true;
    match (name, text) {
        ("default_server" | "default", None) => {
            listen.default_server = true;
            is_option = false;
        }
        ("ssl", None) => {
            listen.ssl = true;
            is_option = false;
        }
        ("http2", None) => {
            r.warn("the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead");
            listen.http2 = true;
            is_option = false;
        }
        ("proxy_protocol", None) => {
            listen.proxy_protocol = true;
            is_option = false;
        }
        ("bind", None) => {}
        ("reuseport", None) => socket.reuseport = true,
        ("deferred", None) => socket.deferred = true,
        ("backlog", Some(n)) => {
            let n = value::number(n).filter(|n| (1..=i32::MAX as u64).contains(n));
            socket.backlog = n.ok_or_else(|| bad("backlog"))? as i32;
        }
        ("rcvbuf", Some(n)) => {
            socket.receive_buffer = Some(value::size(n).ok_or_else(|| bad("rcvbuf"))? as usize);
        }
        ("sndbuf", Some(n)) => {
            socket.send_buffer = Some(value::size(n).ok_or_else(|| bad("sndbuf"))? as usize);
        }
        ("fastopen", Some(n)) => {
            let n = value::number(n).filter(|n| *n <= i32::MAX as u64);
            socket.fastopen = Some(n.ok_or_else(|| bad("fastopen"))? as i32);
        }
        ("ipv6only", Some("on")) => socket.ipv6only = true,
        ("ipv6only", Some("off")) => socket.ipv6only = false,
        ("ipv6only", Some(other)) => {
            return Err(Reason::says(format!("invalid ipv6only flags \"{other}\"")));
        }
        ("so_keepalive", Some(text)) => {
            socket.keepalive =
                Some(keepalive(text).ok_or_else(|| {
                    Reason::says(format!("invalid so_keepalive value: \"{text}\""))
                })?);
        }
        _ => return Err(invalid()),
    }
    listen.has_options |= is_option;
    listen.own_socket |= is_option;
    Ok(())
}

fn keepalive(text: &str) -> Option<KeepAlive> {
    match text {
        "on" => return Some(KeepAlive { on: true, ..KeepAlive::default() }),
        "off" => return Some(KeepAlive::default()),
        _ => {}
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [idle, interval, count] = parts[..] else { return None };
    if idle.is_empty() && interval.is_empty() && count.is_empty() {
        return None;
    }
    let time = |text: &str| -> Option<Option<Duration>> {
        if text.is_empty() { Some(None) } else { value::seconds(text).map(Some) }
    };
    let count = match count {
        "" => None,
        digits => Some(value::number(digits).filter(|n| (1..=127).contains(n))? as u32),
    };
    Some(KeepAlive { on: true, idle: time(idle)?, interval: time(interval)?, count })
}

/// Writes a range of ports out: `127.0.0.1:8080-8090`.
fn ports(text: &str) -> Result<Vec<String>, Reason> {
    let (host, range) =
        text.rsplit_once(':').map_or(("", text), |(h, _)| text.split_at(h.len() + 1));
    let Some((first, last)) = range.split_once('-').filter(|_| !text.starts_with("unix:")) else {
        return Ok(vec![text.to_owned()]);
    };
    let digits = |t: &str| value::number(t).filter(|n| (1..=65535).contains(n));
    match (digits(first), digits(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(|port| format!("{host}{port}")).collect())
        }
        (Some(_), Some(_)) => Err(Reason::says(format!(
            "invalid port range in \"{text}\" of the \"listen\" directive"
        ))),
        // A host name may hold a hyphen.
        _ => Ok(vec![text.to_owned()]),
    }
}

/// `8080`, `*:80`, `127.0.0.1:80`, `[::]:80`, `localhost:80`, `unix:/path`.
fn resolve(text: &str) -> Result<Vec<Socket>, Reason> {
    let says =
        |what: &str| Reason::says(format!("{what} in \"{text}\" of the \"listen\" directive"));
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(says("no path in the unix domain socket"));
        }
        return Ok(vec![Socket::Unix(path.into())]);
    }
    let port_of = |digits: &str| match value::number(digits) {
        Some(n) if (1..=65535).contains(&n) => Ok(n as u16),
        _ => Err(says("invalid port")),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| says("invalid host"))?;
        let ip: Ipv6Addr = host.parse().map_err(|_| says("invalid IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => port_of(digits)?,
            None if rest.is_empty() => 80,
            None => return Err(says("invalid host")),
        };
        return Ok(vec![Socket::Inet((ip, port).into())]);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port_of(digits)?),
        None if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
            ("*", port_of(text)?)
        }
        None => (text, 80),
    };
    if host == "*" || host.is_empty() {
        return Ok(vec![Socket::Inet((Ipv4Addr::UNSPECIFIED, port).into())]);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(vec![Socket::Inet((ip, port).into())]);
    }
    let found = (host, port).to_socket_addrs().map_err(|_| says("host not found"))?;
    let found: Vec<_> = found.map(Socket::Inet).collect();
    if found.is_empty() { Err(says("host not found")) } else { Ok(found) }
}

// ---- from servers to sockets ---------------------------------------------------------------

/// One address while its servers are collected.
struct Gathering {
    listen: Listen,
    default: Option<Rc<Server>>,
    first: Rc<Server>,
    names: ServerNames,
}

/// Sorts the servers by address: who is the default, who has which name, what is bound.
pub(super) fn bind_servers(
    servers: Vec<(Rc<Server>, Vec<Name>, Vec<Listen>)>,
    r: &mut Reading,
) -> Result<Vec<Rc<Bound>>, Error> {
    let mut order: Vec<Socket> = Vec::new();
    let mut by_address: HashMap<Socket, Gathering> = HashMap::new();
    for (server, names, listens) in servers {
        for listen in &listens {
            let key = listen.socket.address.clone();
            if !by_address.contains_key(&key) {
                order.push(key.clone());
            }
            let gathering = by_address.entry(key).or_insert_with(|| Gathering {
                listen: listen.clone(),
                default: None,
                first: server.clone(),
                names: ServerNames::default(),
            });
            join(gathering, listen, &server, r)?;
            add_names(gathering, &names, &server, r);
        }
    }
    bind(order, by_address)
}

fn join(
    gathering: &mut Gathering,
    listen: &Listen,
    server: &Rc<Server>,
    r: &mut Reading,
) -> Result<(), Error> {
    let is_first = Rc::ptr_eq(&gathering.first, server);
    let known = &mut gathering.listen;
    if listen.has_options && !is_first {
        if known.has_options && known.socket != listen.socket {
            return Err(Error::placeless(format!(
                "duplicate listen options for {}",
                listen.address()
            )));
        }
        known.socket = listen.socket.clone();
        known.has_options = true;
    }
    if !is_first && (known.ssl, known.proxy_protocol) != (listen.ssl, listen.proxy_protocol) {
        r.notes.push(crate::conf::Note {
            level: "warn",
            text: format!("protocol options redefined for {}", listen.address()),
        });
    }
    known.ssl |= listen.ssl;
    known.http2 |= listen.http2;
    known.proxy_protocol |= listen.proxy_protocol;
    known.own_socket |= listen.own_socket;
    if listen.default_server {
        if gathering.default.is_some() {
            return Err(Error::placeless(format!(
                "a duplicate default server for {}",
                listen.address()
            )));
        }
        gathering.default = Some(server.clone());
    }
    Ok(())
}

/// A server without a name answers to the empty one.
fn add_names(gathering: &mut Gathering, names: &[Name], server: &Rc<Server>, r: &mut Reading) {
    let nameless = [Name::Plain(String::new())];
    for name in if names.is_empty() { &nameless } else { names } {
        match name {
            Name::Regex(_, regex) => gathering.names.add_regex(regex.clone(), server),
            Name::Plain(name) => {
                if !gathering.names.add(name, server) {
                    r.notes.push(crate::conf::Note {
                        level: "warn",
                        text: format!(
                            "conflicting server name \"{name}\" on {}, ignored",
                            gathering.listen.address()
                        ),
                    });
                }
            }
        }
    }
}

/// Addresses of a port beside its wildcard need no socket: the wildcard's gets their connections.
fn bind(
    order: Vec<Socket>,
    mut by_address: HashMap<Socket, Gathering>,
) -> Result<Vec<Rc<Bound>>, Error> {
    let wildcards: Vec<SocketAddr> =
        order.iter().filter_map(Socket::inet).filter(|a| a.ip().is_unspecified()).collect();
    let covers = |a: &SocketAddr, wild: &SocketAddr| {
        wild.port() == a.port()
            && wild != a
            && matches!(
                (wild.ip(), a.ip()),
                (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
            )
    };
    let mut bounds: Vec<Bound> = Vec::new();
    let mut covered: Vec<(SocketAddr, SocketAddr, Rc<Address>)> = Vec::new();
    for key in order {
        let gathering = by_address.remove(&key).expect("each key once");
        let default = gathering.default.unwrap_or(gathering.first);
        let address = Address::new(gathering.listen.clone(), default, gathering.names);
        ssl::check(&address)?;
        let address = Rc::new(address);
        let wild =
            key.inet().and_then(|a| wildcards.iter().find(|w| covers(&a, w)).map(|w| (a, *w)));
        match wild {
            Some((a, wild)) if !gathering.listen.own_socket => covered.push((a, wild, address)),
            _ => bounds.push(Bound {
                spec: gathering.listen.socket,
                address: Some(address),
                local: HashMap::new(),
                is_left_to_others: Cell::default(),
            }),
        }
    }
    for (a, wild, address) in covered {
        let bound = bounds.iter_mut().find(|b| b.spec.address == Socket::Inet(wild));
        bound.expect("a wildcard is bound").local.insert(a, address);
    }
    Ok(bounds.into_iter().map(Rc::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let one =
            |text: &str| resolve(text).map(|a| a[0].to_string()).map_err(|e| format!("{e:?}"));
        for (text, want) in [
            ("8080", "0.0.0.0:8080"),
            ("*:81", "0.0.0.0:81"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("[::1]:443", "[::1]:443"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(one(text).unwrap(), want);
        }
        for bad in ["0", "70000", "127.0.0.1:x", "[::1", "unix:", "no.such.invalid:80"] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(ports("127.0.0.1:80-82").unwrap().len(), 3);
        assert_eq!(ports("80-81").unwrap(), ["80", "81"]);
        assert_eq!(ports("my-host:80").unwrap(), ["my-host:80"]);
        assert!(ports("80-79").is_err());
    }

    #[test]
    fn keepalives() {
        assert!(keepalive("on").unwrap().on);
        assert!(!keepalive("off").unwrap().on);
        assert_eq!(keepalive("30m::10").unwrap().idle, Some(Duration::from_secs(1800)));
        assert_eq!(keepalive("::"), None);
        assert_eq!(keepalive("1"), None);
    }
}
