//! The client's address behind proxies that are trusted: what `realip` and `geo` need.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Finds the address that `header` (as in X-Forwarded-For) names, seen from `peer`.
///
/// The list is read from its end: an address is believed if the one that reported it is in
/// `trusted`; with `recursive` the walk goes on to the last that is not trusted itself.
/// `None`: the peer is not trusted, or the header names no address.
pub fn client_address(
    peer: IpAddr,
    header: &[u8],
    trusted: impl Fn(IpAddr) -> bool,
    recursive: bool,
) -> Option<SocketAddr> {
    if !trusted(peer) {
        return None;
    }
    let mut found = None;
    for item in header.rsplit(|b| *b == b',') {
        let text = std::str::from_utf8(item.trim_ascii()).ok()?;
        let Some(address) = parse_address(text) else { break };
        found = Some(address);
        if !recursive || !trusted(address.ip()) {
            break;
        }
    }
    found
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| (ip, 0).into())
}

/// Whether a network of the list holds `ip`; v4-mapped addresses count as IPv4.
pub fn any_holds(nets: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| net.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_from_the_end() {
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let trusted = |ip: IpAddr| any_holds(&nets, ip);
        let find = |peer: &str, list: &str, recursive| {
            let peer = peer.parse().unwrap();
            let found = client_address(peer, list.as_bytes(), trusted, recursive);
            found.map(|a| a.ip().to_string())
        };
        assert_eq!(find("10.0.0.1", "192.0.2.1, 10.0.0.2", false), Some("10.0.0.2".into()));
        assert_eq!(find("10.0.0.1", "192.0.2.1, 10.0.0.2", true), Some("192.0.2.1".into()));
        assert_eq!(find("192.0.2.9", "192.0.2.1", true), None);
        assert_eq!(find("10.0.0.1", "10.0.0.3,10.0.0.2", true), Some("10.0.0.3".into()));
        assert_eq!(find("10.0.0.1", "junk, 10.0.0.2", true), Some("10.0.0.2".into()));
        assert_eq!(find("10.0.0.1", "", true), None);
    }
}
