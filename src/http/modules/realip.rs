//! `realip`: the client's address as a trusted proxy reports it.
//!
//! Runs in: post-read (server level) and pre-access (where a location says otherwise).

use crate::conf::*;
use crate::http::forwarded::{any_holds, client_address, parse_address};
use crate::http::{
    Builtin, Client, HttpModule, Merging, Peer, Phase, Pipeline, Request, Verdict, var,
};
use crate::proto::header::HeaderId;
use crate::sys::socket::Address;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;

/// The module.
pub struct RealIp;

impl HttpModule for RealIp {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("set_real_ip_from", ANY_HTTP, call(exactly(1), RawLoc::from)),
        d("real_ip_header", ANY_HTTP, call(exactly(1), RawLoc::header)),
        d("real_ip_recursive", ANY_HTTP, flag(|c| &mut c.recursive)),
    ];
    const VARIABLES: &'static [Builtin] = &[
        var("realip_remote_addr", |r, out| {
            with_original(&r.client, |peer| out.extend_from_slice(peer.text.as_bytes()));
            true
        }),
        var("realip_remote_port", |r, out| {
            let port = with_original(&r.client, |peer| peer.end.port());
            out.extend_from_slice(port.to_string().as_bytes());
            true
        }),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            trusted: if raw.trusted.is_empty() { up.trusted.clone() } else { raw.trusted.into() },
            trusts_unix: raw.trusts_unix || up.trusts_unix,
            header: raw.header.unwrap_or_else(|| up.header.clone()),
            recursive: raw.recursive.unwrap_or(up.recursive),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.trusted.is_empty() && !loc.trusts_unix {
            return;
        }
        for phase in [Phase::PostRead, Phase::PreAccess] {
            let loc = loc.clone();
            p.on(phase, move |r| realip(r, &loc));
        }
    }
}

fn realip(r: &mut Request, loc: &Loc) -> Verdict {
    if r.slots.get::<Done>().is_some() {
        return Verdict::Decline;
    }
    let peer = with_original(&r.client, |peer| peer.end.clone());
    if let Some(address) = loc.reported(r, &peer) {
        r.slots.of::<Done>();
        r.client
            .slots
            .borrow_mut()
            .get_or_insert_default()
            .of::<Original>()
            .0
            .get_or_insert_with(|| r.client.peer.borrow().clone());
        *r.client.peer.borrow_mut() = Peer::new(Address::Inet(address));
    }
    Verdict::Decline
}

/// The address was set for this request.
#[derive(Default)]
struct Done;

/// The peer of the connection itself, once another one was put in its place.
#[derive(Default)]
struct Original(Option<Peer>);

fn with_original<T>(client: &Client, look: impl FnOnce(&Peer) -> T) -> T {
    let slots = client.slots.borrow();
    match slots
        .as_ref()
        .and_then(|slots| slots.get::<Original>())
        .and_then(|original| original.0.as_ref())
    {
        Some(peer) => look(peer),
        None => look(&client.peer.borrow()),
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    trusted: Vec<IpNet>,
    trusts_unix: bool,
    header: Option<Source>,
    recursive: Option<bool>,
}

/// What is in force.
pub struct Loc {
    trusted: Rc<[IpNet]>,
    trusts_unix: bool,
    header: Source,
    recursive: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            trusted: Rc::new([]),
            trusts_unix: false,
            header: Source::Field("X-Real-IP".into()),
            recursive: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    ForwardedFor,
    ProxyProtocol,
    Field(String),
}

impl Loc {
    fn trusts(&self, ip: IpAddr) -> bool {
        any_holds(&self.trusted, ip)
    }

    /// What a trusted peer reports.
    fn reported(&self, r: &Request, peer: &Address) -> Option<SocketAddr> {
        let ip = match peer {
            Address::Inet(address) => Some(address.ip()),
            Address::Unix(_) => None,
        };
        let is_trusted = ip.map_or(self.trusts_unix, |ip| self.trusts(ip));
        if !is_trusted {
            return None;
        }
        let list: Vec<u8> = match &self.header {
            Source::ProxyProtocol => return r.client.proxy.as_ref().map(|header| header.source),
            Source::ForwardedFor => {
                r.head.fields.all(HeaderId::XForwardedFor).collect::<Vec<_>>().join(&b","[..])
            }
            Source::Field(name) => {
                let value = r.head.fields.get_named(name.as_bytes())?;
                let text = std::str::from_utf8(value).ok()?.trim();
                return parse_address(text);
            }
        };
        // The first step is decided already: the peer is trusted.
        let first = std::cell::Cell::new(true);
        let trusted = |ip| first.replace(false) || self.trusts(ip);
        client_address(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])), &list, trusted, self.recursive)
    }
}

impl RawLoc {
    fn from(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let text = r.arg(0).to_owned();
        if text == "unix:" {
            self.trusts_unix = true;
            return Ok(());
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            self.trusted.push(ip.into());
        } else if let Ok(net) = text.parse::<IpNet>() {
            if net.trunc() != net {
                r.warn(format!("low address bits of {text} are meaningless"));
            }
            self.trusted.push(net.trunc());
        } else {
            let found = (text.as_str(), 0).to_socket_addrs();
            let found = found.map_err(|_| {
                Reason::says(format!("host not found in set_real_ip_from \"{text}\""))
            })?;
            self.trusted.extend(found.map(|a| IpNet::from(a.ip())));
        }
        Ok(())
    }

    fn header(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.header.is_some() {
            return Err(Reason::Duplicate);
        }
        self.header = Some(match r.arg(0) {
            "X-Forwarded-For" => Source::ForwardedFor,
            "proxy_protocol" => Source::ProxyProtocol,
            name => Source::Field(name.to_owned()),
        });
        Ok(())
    }
}
