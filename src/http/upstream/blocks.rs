//! `upstream {}` in `http {}`, and the `$upstream_…` variables.

use super::chooser::{self, Chosen};
use super::trail;
use crate::conf::*;
use crate::event::{Role, ZoneTable};
use crate::http::{Builtin, HttpConf, HttpModule, Merging, Request, Template, keyed, var};
use crate::log;
use crate::sys::socket::Address;
use crate::upstream::peer::{Options, Peer};
use crate::upstream::resolver::Inherited;
use crate::upstream::round_robin::RoundRobin;
use crate::upstream::{Named, Upstream, UpstreamTable, Url};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

/// The module.
pub struct Upstreams;

impl HttpModule for Upstreams {
    type Main = Main;
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<Main>] = &[d("upstream", HTTP, block(exactly(1), Main::read))];
    const VARIABLES: &'static [Builtin] = &[
        var("upstream_addr", trail::addr),
        var("upstream_status", trail::status),
        var("upstream_connect_time", trail::connect_time),
        var("upstream_header_time", trail::header_time),
        var("upstream_response_time", trail::response_time),
        var("upstream_response_length", trail::response_length),
        var("upstream_bytes_received", trail::bytes_received),
        var("upstream_bytes_sent", trail::bytes_sent),
        var("upstream_cache_status", trail::cache_status),
        keyed("upstream_http_", trail::http),
        keyed("upstream_trailer_", trail::trailer),
        keyed("upstream_cookie_", trail::cookie),
    ];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        main.table = m.shelf.take::<UpstreamTable>();
        let inherited = m.shelf.take::<Inherited>();
        main.table.finish(m.shelf.of::<ZoneTable>(), &inherited)?;
        Ok(())
    }

    fn start(http: &Rc<HttpConf>, role: Role) -> io::Result<()> {
        if role.serves() {
            http.mains.main::<Upstreams>().table.start();
        }
        Ok(())
    }
}

/// All upstreams.
#[derive(Default)]
pub struct Main {
    table: UpstreamTable,
    /// Keys of `hash`, by upstream.
    keys: Vec<(Rc<Named>, Template)>,
    /// Code that chooses, by upstream.
    chosen: Vec<(Rc<Named>, Rc<Chosen>)>,
}

impl Main {
    fn read(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let name = r.arg(0).to_owned();
        let named = UpstreamTable::declare(r, &name)?;
        let (plan, chosen) = chooser::read(r)?;
        if let Some(chosen) = chosen {
            self.chosen.push((named.clone(), Rc::new(chosen)));
        }
        if let Some(key) = plan.hash_key() {
            let key = key.to_owned();
            self.keys.push((named.clone(), Template::parse(&key, r)?));
        }
        named.plan(plan);
        Ok(())
    }

    /// The upstream that a URL given by a variable means.
    pub fn find(&self, url: &Url) -> Option<&Rc<Named>> {
        self.table.find(url)
    }

    /// An upstream of the addresses that a URL given by a variable names.
    ///
    /// Errors: the status that ends the request; the reason was logged.
    pub async fn resolve(&self, r: &Request, url: &Url) -> Result<Rc<Upstream>, u16> {
        let addresses = match &url.address {
            Some(address) => vec![address.clone()],
            None => look_up(r, url).await?,
        };
        let host: Rc<str> = url.host.as_str().into();
        let peer = |address| Rc::new(Peer::new(address, host.clone(), Options::default()));
        let peers = addresses.into_iter().map(peer).collect();
        Ok(Rc::new(Upstream::new(host.clone(), peers, Box::new(RoundRobin), None)))
    }

    /// Whose code chooses for `upstream`.
    pub fn chosen(&self, upstream: &Rc<Upstream>) -> Option<Rc<Chosen>> {
        let found = self.chosen.iter().find(|(named, _)| Rc::ptr_eq(named.get(), upstream));
        found.map(|(_, chosen)| chosen.clone())
    }

    /// The value of the key that `upstream` is balanced by; empty if it is not.
    pub fn key(&self, upstream: &Rc<Upstream>, r: &Request) -> Vec<u8> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let found = self.keys.iter().find(|(named, _)| Rc::ptr_eq(named.get(), upstream));
        found.map(|(_, key)| key.value(r).into_owned()).unwrap_or_default()
    }
}

/// The addresses of a name, from the location's resolver.
async fn look_up(r: &Request, url: &Url) -> Result<Vec<Address>, u16> {
    let (core, host) = (r.place.location.core.clone(), &url.host);
    let Some(resolver) = &core.resolver else {
        log::error!(r, "no resolver defined to resolve {host}");
        return Err(502);
    };
    match resolver.hosts(host, core.resolver_timeout).await {
        Ok(hosts) => {
            let with_port = |ip: &IpAddr| Address::Inet((*ip, url.port).into());
            Ok(hosts.addresses.iter().map(with_port).collect())
        }
        Err(e) => {
            let name = host.strip_suffix('.').unwrap_or(host);
            log::error!(r, "{name} could not be resolved ({e})");
            Err(502)
        }
    }
}
