//! `geo`: a variable whose value depends on an address.

use crate::conf::*;
use crate::http::forwarded::{any_holds, client_address};
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Request, Template, VariableTable};
use crate::proto::header::HeaderId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

/// The module.
pub struct Geo;

impl HttpModule for Geo {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<()>] = &[d("geo", HTTP, block(between(1, 2), |_, r| read(r)))];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }
}

type Text = Rc<[u8]>;

/// One `geo`.
#[derive(Default)]
struct Table {
    /// The address; `None` is the client's.
    source: Option<Template>,
    v4: PrefixMap<Ipv4Net, Text>,
    v6: PrefixMap<Ipv6Net, Text>,
    /// With the parameter `ranges`: sorted, not overlapping.
    ranges: Option<Vec<(u32, u32, Text)>>,
    default: Option<Text>,
    proxies: Vec<IpNet>,
    recursive: bool,
}

fn read(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let name = args.last().expect("one or two arguments").clone();
    let name = name_of(&name)?;
    let mut table = Table::default();
    if args.len() == 2 {
        table.source = Some(Template::parse(&args[0], r)?);
    }
    let mut volatile = false;
    r.rows(|r| table.row(r, &mut volatile))?;
    let rule = Rc::new(move |r: &Request, out: &mut Vec<u8>| {
        if let Some(value) = table.find(table.address(r)).or(table.default.as_ref()) {
            out.extend_from_slice(value);
        }
        true
    });
    r.shelf.of::<VariableTable>().compute(name, volatile, rule)?;
    Ok(())
}

impl Table {
    fn row(&mut self, r: &mut Reading, volatile: &mut bool) -> Result<(), Reason> {
        let key = r.name().to_owned();
        match (key.as_str(), r.args()) {
            ("ranges", []) => {
                if !self.v4.is_empty() || !self.v6.is_empty() {
                    return Err(Reason::says(
                        "the \"ranges\" directive must be the first directive inside \"geo\" block",
                    ));
                }
                self.ranges = Some(Vec::new());
            }
            ("proxy_recursive", []) => self.recursive = true,
            ("volatile", []) => *volatile = true,
            ("proxy", [text]) => self.proxies.push(network(text)?),
            ("delete", [text]) => {
                let text = text.clone();
                self.delete(&text, r)?;
            }
            ("default", [value]) => self.default = Some(value.as_bytes().into()),
            (_, [value]) => {
                let value: Text = value.as_bytes().into();
                self.add(&key, value, r)?;
            }
            _ => return Err(Reason::says("invalid number of the geo parameters")),
        }
        Ok(())
    }

    fn add(&mut self, key: &str, value: Text, r: &mut Reading) -> Result<(), Reason> {
        if self.ranges.is_some() {
            return self.add_range(key, value);
        }
        let known = match network(key)? {
            IpNet::V4(net) => self.v4.insert(net.trunc(), value.clone()),
            IpNet::V6(net) => self.v6.insert(net.trunc(), value.clone()),
        };
        if let Some(old) = known.filter(|old| *old != value) {
            let (new, old) = (String::from_utf8_lossy(&value), String::from_utf8_lossy(&old));
            r.warn(format!("duplicate network \"{key}\", value: \"{new}\", old value: \"{old}\""));
        }
        Ok(())
    }

    fn delete(&mut self, text: &str, r: &mut Reading) -> Result<(), Reason> {
        let gone = match &mut self.ranges {
            Some(ranges) => {
                let (from, to) = range(text)?;
                let before = ranges.len();
                ranges.retain(|(a, b, _)| (*a, *b) != (from, to));
                ranges.len() != before
            }
            None => match network(text)? {
                IpNet::V4(net) => self.v4.remove(&net.trunc()).is_some(),
                IpNet::V6(net) => self.v6.remove(&net.trunc()).is_some(),
            },
        };
        if !gone {
            r.warn(format!("no address range \"{text}\" to delete"));
        }
        Ok(())
    }

    /// A later range wins where it overlaps earlier ones.
    fn add_range(&mut self, key: &str, value: Text) -> Result<(), Reason> {
        let (from, to) = range(key)?;
        let ranges = self.ranges.as_mut().expect("called for ranges only");
        let mut kept = Vec::with_capacity(ranges.len() + 2);
        for (a, b, old) in ranges.drain(..) {
            if b < from || a > to {
                kept.push((a, b, old));
                continue;
            }
            if a < from {
                kept.push((a, from - 1, old.clone()));
            }
            if b > to {
                kept.push((to + 1, b, old));
            }
        }
        kept.push((from, to, value));
        kept.sort_by_key(|(a, ..)| *a);
        *ranges = kept;
        Ok(())
    }

    fn address(&self, r: &Request) -> IpAddr {
        // What is no address (a unix client) is looked up as nginx's "none".
        let ip = match &self.source {
            Some(source) => source.text(r).parse().ok(),
            None => r.client.peer_ip(),
        };
        let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST));
        if self.proxies.is_empty() {
            return ip;
        }
        let header: Vec<u8> =
            r.head.fields.all(HeaderId::XForwardedFor).collect::<Vec<_>>().join(&b","[..]);
        let trusted = |ip| any_holds(&self.proxies, ip);
        let behind = client_address(ip, &header, trusted, self.recursive);
        behind.map_or(ip, |address| address.ip())
    }

    fn find(&self, ip: IpAddr) -> Option<&Text> {
        match (ip.to_canonical(), &self.ranges) {
            (IpAddr::V4(v4), Some(ranges)) => {
                let ip = u32::from(v4);
                let after = ranges.partition_point(|(from, ..)| *from <= ip);
                let (_, to, value) = ranges.get(after.checked_sub(1)?)?;
                (ip <= *to).then_some(value)
            }
            (IpAddr::V6(_), Some(_)) => None,
            (IpAddr::V4(v4), None) => self.v4.get_lpm(&v4.into()).map(|(_, value)| value),
            (IpAddr::V6(v6), None) => self.v6.get_lpm(&v6.into()).map(|(_, value)| value),
        }
    }
}

fn network(text: &str) -> Result<IpNet, Reason> {
    if text == "255.255.255.255" {
        return Ok(IpNet::V4(Ipv4Addr::BROADCAST.into()));
    }
    let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
    net.map_err(|_| Reason::says(format!("invalid network \"{text}\"")))
}

fn range(text: &str) -> Result<(u32, u32), Reason> {
    let invalid = || Reason::says(format!("invalid range \"{text}\""));
    let (from, to) = text.split_once('-').ok_or_else(invalid)?;
    let ip = |text: &str| text.parse::<Ipv4Addr>().map(u32::from).map_err(|_| invalid());
    let (from, to) = (ip(from)?, ip(to)?);
    if from <= to { Ok((from, to)) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ranges_win() {
        let mut table = Table { ranges: Some(Vec::new()), ..Table::default() };
        table.add_range("10.0.0.0-10.0.0.255", b"a"[..].into()).unwrap();
        table.add_range("10.0.0.10-10.0.0.20", b"b"[..].into()).unwrap();
        let find = |ip: &str| table.find(ip.parse().unwrap()).map(|v| v.to_vec());
        assert_eq!(find("10.0.0.9"), Some(b"a".to_vec()));
        assert_eq!(find("10.0.0.10"), Some(b"b".to_vec()));
        assert_eq!(find("10.0.0.21"), Some(b"a".to_vec()));
        assert_eq!(find("10.0.1.0"), None);
        assert!(range("10.0.0.2-10.0.0.1").is_err());
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut table = Table::default();
        table.v4.insert("10.0.0.0/8".parse().unwrap(), b"a"[..].into());
        table.v4.insert("10.1.0.0/16".parse().unwrap(), b"b"[..].into());
        assert_eq!(table.find("10.1.2.3".parse().unwrap()).unwrap()[..], b"b"[..]);
        assert_eq!(table.find("::ffff:10.2.2.3".parse().unwrap()).unwrap()[..], b"a"[..]);
    }
}
