//! What `proxy_pass`, `server` and kin name: a host, perhaps a port, perhaps a URI behind it.

use crate::sys::socket::Address;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The longest path of a unix socket, its final NUL not counted.
const UNIX_PATH_MAX: usize = 107;

/// A parsed URL without its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written, the URI included.
    pub text: String,
    /// A name, an address, or the path of a unix socket.
    pub host: String,
    /// The written port, or the default one; 0 if there is neither.
    pub port: u16,
    /// No port was written.
    pub no_port: bool,
    /// What follows: begins with `/` or `?` if not empty.
    pub uri: String,
    /// The address, if the host is one.
    pub address: Option<Address>,
}

impl Url {
    /// Reads `host[:port]`, `[::1]:port`, `unix:/path`, with a URI behind it if `with_uri`.
    ///
    /// Errors: nginx's words: `no host`, `invalid port`, `invalid host` …
    pub fn parse(text: &str, default_port: u16, with_uri: bool) -> Result<Url, &'static str> {
        if text.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("unix:")) {
            return unix(text, with_uri);
        }
        if text.starts_with('[') {
            return inet6(text, default_port, with_uri);
        }
        let end = text.find(['/', '?']).unwrap_or(text.len());
        let (rest, uri) = text.split_at(end);
        if !uri.is_empty() && !with_uri {
            return Err("invalid host");
        }
        let (host, port) = match rest.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (rest, None),
        };
        if host.is_empty() {
            return Err("no host");
        }
        let number = port.unwrap_or(default_port);
        let address = host.parse::<Ipv4Addr>().ok();
        Ok(Url {
            text: text.into(),
            host: host.into(),
            port: number,
            no_port: port.is_none(),
            uri: uri.into(),
            address: address.map(|ip| Address::Inet((ip, number).into())),
        })
    }

    /// Whether it names a unix socket.
    pub fn is_unix(&self) -> bool {
        self.address.as_ref().is_some_and(Address::is_unix)
    }

    /// All addresses of the host, asked of the system. Blocks: for reading a configuration.
    ///
    /// Errors: `host not found`.
    pub fn resolve(&self) -> Result<Vec<Address>, &'static str> {
        match &self.address {
            Some(address) => Ok(vec![address.clone()]),
            None => resolve(&self.host, self.port),
        }
    }
}

/// The addresses of `host` with `port`, IPv4 first as nginx sorts them.
pub fn resolve(host: &str, port: u16) -> Result<Vec<Address>, &'static str> {
    let found = (host, port).to_socket_addrs().map_err(|_| "host not found")?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(SocketAddr::is_ipv6);
    match addresses.is_empty() {
        true => Err("host not found"),
        false => Ok(addresses.into_iter().map(Address::Inet).collect()),
    }
}

fn unix(text: &str, with_uri: bool) -> Result<Url, &'static str> {
    let rest = &text[5..];
    let (path, uri) = match rest.split_once(':') {
        Some((path, uri)) if with_uri => (path, uri),
        _ => (rest, ""),
    };
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    if path.len() > UNIX_PATH_MAX {
        return Err("too long path in the unix domain socket");
    }
    Ok(Url {
        text: text.into(),
        host: path.into(),
        port: 0,
        no_port: false,
        uri: uri.into(),
        address: Some(Address::Unix(PathBuf::from(path))),
    })
}

fn inet6(text: &str, default_port: u16, with_uri: bool) -> Result<Url, &'static str> {
    let close = text.find(']').ok_or("invalid host")?;
    let end = text[close..].find('/').map_or(text.len(), |at| close + at);
    let uri = &text[end..];
    if !uri.is_empty() && !with_uri {
        return Err("invalid host");
    }
    let port = match &text[close + 1..end] {
        "" => None,
        rest => Some(port(rest.strip_prefix(':').ok_or("invalid host")?)?),
    };
    if close == 1 {
        return Err("no host");
    }
    let ip: Ipv6Addr = text[1..close].parse().map_err(|_| "invalid IPv6 address")?;
    let number = port.unwrap_or(default_port);
    Ok(Url {
        text: text.into(),
        host: text[..=close].into(),
        port: number,
        no_port: port.is_none(),
        uri: uri.into(),
        address: Some(Address::Inet((ip, number).into())),
    })
}

fn port(digits: &str) -> Result<u16, &'static str> {
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.filter(|n| *n > 0).ok_or("invalid port")
}

/// Reads the local address of `proxy_bind`: an IP address, perhaps with a port.
pub fn local_address(text: &str) -> Option<Address> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(Address::Inet(address));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|ip: std::net::IpAddr| Address::Inet((ip, 0).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match Url::parse(text, 80, true) {
            Err(e) => e.into(),
            Ok(u) => format!(
                "{} {}{} {} {}",
                u.host,
                u.port,
                if u.no_port { "-" } else { "" },
                u.uri,
                u.address.map_or(String::new(), |a| a.to_string())
            ),
        }
    }

    #[test]
    fn urls() {
        for (text, want) in [
            ("a.example", "a.example 80-  "),
            ("a.example:81/x?y", "a.example 81 /x?y "),
            ("a?b:c/d", "a 80- ?b:c/d "),
            ("127.0.0.1:8080/", "127.0.0.1 8080 / 127.0.0.1:8080"),
            ("[::1]:81/x", "[::1] 81 /x [::1]:81"),
            ("[::1]", "[::1] 80-  [::1]:80"),
            ("unix:/tmp/s:/uri", "/tmp/s 0 /uri unix:/tmp/s"),
            ("", "no host"),
            (":80", "no host"),
            ("a:0", "invalid port"),
            ("a:70000", "invalid port"),
            ("a:+1", "invalid port"),
            ("[::x]", "invalid IPv6 address"),
            ("[]", "no host"),
            ("[::1", "invalid host"),
            ("[::1]x", "invalid host"),
            ("unix:", "no path in the unix domain socket"),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
        assert_eq!(Url::parse("a/b", 80, false), Err("invalid host"));
    }

    #[test]
    fn local_addresses() {
        for (text, want) in [
            ("127.0.0.1", Some("127.0.0.1:0")),
            ("127.0.0.1:5", Some("127.0.0.1:5")),
            ("[::1]:5", Some("[::1]:5")),
            ("::1", Some("[::1]:0")),
            ("name", None),
        ] {
            assert_eq!(local_address(text).map(|a| a.to_string()).as_deref(), want, "{text}");
        }
    }
}
