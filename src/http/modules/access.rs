//! `allow`, `deny`: who may come in, by address; the first rule that matches decides.
//!
//! Runs in: access.

use crate::conf::*;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Verdict};
use crate::log;
use crate::sys::socket::Address;
use ipnet::IpNet;
use std::net::IpAddr;
use std::rc::Rc;

/// The module.
pub struct Access;

impl HttpModule for Access {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("allow", ANY_HTTP | LMT, call(exactly(1), |c, r| c.add(r, true))),
        d("deny", ANY_HTTP | LMT, call(exactly(1), |c, r| c.add(r, false))),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        let rules = if raw.rules.is_empty() { up.rules.clone() } else { raw.rules.into() };
        Ok(Loc { rules })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.rules.is_empty() {
            let loc = loc.clone();
            p.on(Phase::Access, move |r| access(r, &loc));
        }
    }
}

fn access(r: &mut Request, loc: &Loc) -> Verdict {
    let end = r.client.peer.borrow().end.clone();
    match loc.rules.iter().find(|rule| rule.who.matches(&end)) {
        None => Verdict::Decline,
        Some(rule) if rule.allow => Verdict::Settle,
        Some(_) => {
            if !r.place.location.core.satisfy_any {
                log::error!(&*r, "access forbidden by rule");
            }
            Verdict::Finish(403)
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    rules: Vec<Rule>,
}

/// The rules in force.
#[derive(Default)]
pub struct Loc {
    rules: Rc<[Rule]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    who: Who,
    allow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    All,
    Unix,
    Net(IpNet),
}

impl Who {
    fn matches(&self, end: &Address) -> bool {
        match (self, end) {
            (Who::All, _) => true,
            (Who::Unix, Address::Unix(_)) => true,
            (Who::Net(net), Address::Inet(a)) => holds(net, a.ip()),
            _ => false,
        }
    }
}

/// A v4-mapped IPv6 client is an IPv4 client.
fn holds(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V4(net), IpAddr::V6(v6)) => v6.to_ipv4_mapped().is_some_and(|v4| net.contains(&v4)),
        _ => net.contains(&ip),
    }
}

impl RawLoc {
    fn add(&mut self, r: &mut Reading, allow: bool) -> Result<(), Reason> {
        let text = r.arg(0).to_owned();
        let who = match text.as_str() {
            "all" => Who::All,
            "unix:" => Who::Unix,
            _ => Who::Net(network(&text, r)?),
        };
        self.rules.push(Rule { who, allow });
        Ok(())
    }
}

/// An address or a CIDR block; bits beyond the prefix are dropped with a warning, as nginx does.
fn network(text: &str, r: &mut Reading) -> Result<IpNet, Reason> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let net: IpNet = text.parse().map_err(|_| Reason::InvalidParameter(text.to_owned()))?;
    if net.trunc() != net {
        r.warn(format!("low address bits of {text} are meaningless"));
    }
    Ok(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[(&str, bool)]) -> Result<Vec<Rule>, Reason> {
        let mut raw = RawLoc::default();
        let mut reading = Reading::new(Paths::default());
        for (text, allow) in lines {
            struct One<'a>(&'a mut RawLoc, bool);
            impl Block for One<'_> {
                fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
                    self.0.add(r, self.1).map(|()| Found::Yes)
                }
            }
            let source = format!("x {text};").into_bytes();
            reading.source("F".into(), source, &mut One(&mut raw, *allow)).map_err(Reason::from)?;
        }
        Ok(raw.rules)
    }

    fn decides(lines: &[(&str, bool)], ip: &str) -> Option<bool> {
        let end = Address::Inet((ip.parse::<IpAddr>().unwrap(), 1).into());
        rules(lines).unwrap().iter().find(|r| r.who.matches(&end)).map(|r| r.allow)
    }

    #[test]
    fn the_first_match_decides() {
        let lines = [("10.0.0.1", false), ("10.0.0.0/8", true), ("2001:db8::/32", true)];
        assert_eq!(decides(&lines, "10.0.0.1"), Some(false));
        assert_eq!(decides(&lines, "10.9.9.9"), Some(true));
        assert_eq!(decides(&lines, "::ffff:10.0.0.1"), Some(false));
        assert_eq!(decides(&lines, "2001:db8::5"), Some(true));
        assert_eq!(decides(&lines, "192.0.2.1"), None);
        assert!(rules(&[("nonsense", true)]).is_err());
    }
}
