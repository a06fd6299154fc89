//! `ssl_…` of a server: what its TLS is made of, and what of it a request can see.
//!
//! Files are loaded while the configuration is read (by the master, as root); sessions and ticket
//! keys live in zones that every worker shares.

use super::handshake::{self, Handshake};
use super::http2::Http2;
use super::module::{Confs, HttpModule, Merging};
use super::place::Address;
use super::request::Slots;
use super::variable::{Builtin, var};
use super::{Request, status};
use crate::conf::*;
use crate::event::{ZoneTable, zone_name_and_size};
use crate::log;
use crate::sys;
use crate::sys::socket::Address as Socket;
use crate::tls::certificate::{self, Pair};
use crate::tls::ciphers::Protocol;
use crate::tls::client_hello::ClientHello;
use crate::tls::info::{CertDetails, ClientCertProblem, TlsInfo};
use crate::tls::server::{
    Alert, Choice, ChooseServer, Chosen, Server, ServerSpec, SessionCache, VerifyClient,
};
use crate::tls::shelf::{BUILTIN_SESSIONS, Memory, Shelf};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The module.
pub struct Ssl;

const SERVER: Context = HTTP | SRV;

impl HttpModule for Ssl {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("ssl_certificate",            SERVER, call(exactly(1), |c, r| c.push_path(r, true))),
        d("ssl_certificate_key",        SERVER, call(exactly(1), |c, r| c.push_path(r, false))),
        d("ssl_password_file",          SERVER, call(exactly(1), RawLoc::password_file)),
        d("ssl_protocols",              SERVER, call(at_least(1), RawLoc::protocols)),
        d("ssl_ciphers",                SERVER, text(|c| &mut c.ciphers)),
        d("ssl_ecdh_curve",             SERVER, text(|c| &mut c.ecdh_curve)),
        d("ssl_buffer_size",            SERVER, size(|c| &mut c.buffer_size)),
        d("ssl_prefer_server_ciphers",  SERVER, flag(|c| &mut c.prefer_server_ciphers)),
        d("ssl_session_cache",          SERVER, call(between(1, 2), RawLoc::session_cache)),
        d("ssl_session_tickets",        SERVER, flag(|c| &mut c.session_tickets)),
        d("ssl_session_ticket_key",     SERVER, call(exactly(1), RawLoc::ticket_key)),
        d("ssl_session_timeout",        SERVER, sec(|c| &mut c.session_timeout)),
        d("ssl_verify_client",          SERVER, choice(&["off", "on", "optional", "optional_no_ca"], |c| &mut c.verify_client)),
        d("ssl_verify_depth",           SERVER, num(0, 100, |c| &mut c.verify_depth)),
        d("ssl_client_certificate",     SERVER, call(exactly(1), |c, r| path(&mut c.client_certificate, r))),
        d("ssl_trusted_certificate",    SERVER, call(exactly(1), |c, r| path(&mut c.trusted_certificate, r))),
        d("ssl_crl",                    SERVER, call(exactly(1), |c, r| path(&mut c.crl, r))),
        d("ssl_stapling",               SERVER, flag(|c| &mut c.stapling)),
        d("ssl_stapling_file",          SERVER, call(exactly(1), |c, r| path(&mut c.stapling_file, r))),
        d("ssl_reject_handshake",       SERVER, flag(|c| &mut c.reject_handshake)),
        d("ssl_early_data",             SERVER, call(exactly(1), early_data)),
        d("ssl_conf_command",           SERVER, call(exactly(2), RawLoc::conf_command)),
        d("ssl_dhparam",                SERVER, call(exactly(1), dhparam)),
    ];
    const VARIABLES: &'static [Builtin] = VARIABLES;

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        merge(raw, up)
    }
}

// ---- directives ----------------------------------------------------------------------------

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    certificates: Vec<String>,
    keys: Vec<String>,
    passwords: Option<Vec<Vec<u8>>>,
    protocols: Option<Vec<Protocol>>,
    ciphers: Option<String>,
    ciphersuites: Option<String>,
    ecdh_curve: Option<String>,
    buffer_size: Option<u64>,
    prefer_server_ciphers: Option<bool>,
    session_cache: Option<Cache>,
    session_tickets: Option<bool>,
    ticket_keys: Vec<String>,
    session_timeout: Option<Duration>,
    verify_client: Option<&'static str>,
    verify_depth: Option<i64>,
    client_certificate: Option<String>,
    trusted_certificate: Option<String>,
    crl: Option<String>,
    stapling: Option<bool>,
    stapling_file: Option<String>,
    reject_handshake: Option<bool>,
}

/// What is in force.
#[derive(Clone, Default)]
pub struct Loc {
    certificates: Vec<String>,
    keys: Vec<String>,
    passwords: Vec<Vec<u8>>,
    protocols: Option<Vec<Protocol>>,
    ciphers: Option<String>,
    ciphersuites: Option<String>,
    ecdh_curve: Option<String>,
    buffer_size: Option<u64>,
    prefer_server_ciphers: bool,
    session_cache: Option<Cache>,
    session_tickets: Option<bool>,
    ticket_keys: Vec<String>,
    session_timeout: Option<Duration>,
    verify_client: Option<&'static str>,
    verify_depth: Option<i64>,
    client_certificate: Option<String>,
    trusted_certificate: Option<String>,
    crl: Option<String>,
    stapling: bool,
    stapling_file: Option<String>,
    reject_handshake: bool,
}

/// `ssl_session_cache`
#[derive(Clone)]
enum Cache {
    Off,
    Builtin(usize),
    Shared(Arc<dyn Shelf>),
}

fn merge(raw: RawLoc, up: &Loc) -> Result<Loc, Reason> {
    let inherit =
        |own: Vec<String>, up: &Vec<String>| if own.is_empty() { up.clone() } else { own };
    Ok(Loc {
        certificates: inherit(raw.certificates, &up.certificates),
        keys: inherit(raw.keys, &up.keys),
        passwords: raw.passwords.unwrap_or_else(|| up.passwords.clone()),
        protocols: raw.protocols.or_else(|| up.protocols.clone()),
        ciphers: raw.ciphers.or_else(|| up.ciphers.clone()),
        ciphersuites: raw.ciphersuites.or_else(|| up.ciphersuites.clone()),
        ecdh_curve: raw.ecdh_curve.or_else(|| up.ecdh_curve.clone()),
        buffer_size: raw.buffer_size.or(up.buffer_size),
        prefer_server_ciphers: raw.prefer_server_ciphers.unwrap_or(up.prefer_server_ciphers),
        session_cache: raw.session_cache.or_else(|| up.session_cache.clone()),
        session_tickets: raw.session_tickets.or(up.session_tickets),
        ticket_keys: inherit(raw.ticket_keys, &up.ticket_keys),
        session_timeout: raw.session_timeout.or(up.session_timeout),
        verify_client: raw.verify_client.or(up.verify_client),
        verify_depth: raw.verify_depth.or(up.verify_depth),
        client_certificate: raw.client_certificate.or_else(|| up.client_certificate.clone()),
        trusted_certificate: raw.trusted_certificate.or_else(|| up.trusted_certificate.clone()),
        crl: raw.crl.or_else(|| up.crl.clone()),
        stapling: raw.stapling.unwrap_or(up.stapling),
        stapling_file: raw.stapling_file.or_else(|| up.stapling_file.clone()),
        reject_handshake: raw.reject_handshake.unwrap_or(up.reject_handshake),
    })
}

/// A file relative to the configuration's folder; `data:` stands for itself.
fn full(r: &Reading, name: &str) -> String {
    if name.is_empty() { String::new() } else { r.paths.certificate(name) }
}

fn path(slot: &mut Option<String>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    *slot = Some(full(r, r.arg(0)));
    Ok(())
}

fn early_data(_: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    match r.flag_value()? {
        false => Ok(()),
        true => Err(Reason::says("\"ssl_early_data on\" is not supported")),
    }
}

/// There are no DHE suites here: the file would be for nothing, and that is said.
fn dhparam(_: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    r.warn("\"ssl_dhparam\" has no effect: cipher suites with DHE are not offered");
    Ok(())
}

impl RawLoc {
    fn push_path(&mut self, r: &mut Reading, is_certificate: bool) -> Result<(), Reason> {
        if r.arg(0).contains('$') {
            return Err(Reason::says(format!("variables in \"{}\" are not supported", r.name())));
        }
        let path = full(r, r.arg(0));
        if is_certificate {
            self.certificates.push(path)
        } else {
            self.keys.push(path)
        }
        Ok(())
    }

    fn password_file(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.passwords.is_some() {
            return Err(Reason::Duplicate);
        }
        let loaded = certificate::load_passwords(&full(r, r.arg(0)));
        self.passwords = Some(loaded.map_err(|e| Reason::says(e.to_string()))?);
        Ok(())
    }

    fn protocols(&mut self, r: &mut Reading) -> Result<(), Reason> {
        Protocol::read(&mut self.protocols, r)
    }

    fn session_cache(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.session_cache.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut cache = Cache::Off;
        for word in r.take_args() {
            let invalid = || Reason::says(format!("invalid session cache \"{word}\""));
            if word == "off" || word == "none" {
                cache = Cache::Off;
            } else if word == "builtin" {
                cache = Cache::Builtin(BUILTIN_SESSIONS);
            } else if let Some(count) = word.strip_prefix("builtin:") {
                let count = value::number(count).filter(|n| *n > 0).ok_or_else(invalid)?;
                cache = Cache::Builtin(count as usize);
            } else if let Some(zone) = word.strip_prefix("shared:") {
                let (name, size) = zone_name_and_size(zone).map_err(|e| match e {
                    Reason::Says(text) if text.ends_with("too small") => {
                        Reason::says(format!("session cache \"{word}\" is too small"))
                    }
                    _ => invalid(),
                })?;
                let zone = r.shelf.of::<ZoneTable>().want(name, "ssl_session_cache", Some(size))?;
                cache = Cache::Shared(zone.handle());
            } else {
                return Err(invalid());
            }
        }
        self.session_cache = Some(cache);
        Ok(())
    }

    fn ticket_key(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let path = full(r, r.arg(0));
        self.ticket_keys.push(path);
        Ok(())
    }

    fn conf_command(&mut self, r: &mut Reading) -> Result<(), Reason> {
        match r.arg(0) {
            "Ciphersuites" => {
                self.ciphersuites = Some(r.arg(1).to_owned());
                Ok(())
            }
            other => Err(Reason::says(format!("\"ssl_conf_command {other}\" is not supported"))),
        }
    }
}

// ---- from directives to a server -----------------------------------------------------------

/// The zone of ticket keys; a name that no configuration can write.
const TICKET_ZONE: &str = "ssl ticket keys";
const TICKET_ZONE_BYTES: u64 = 256 << 10;

/// Makes the TLS of a server with `listen … ssl`; `None`: it has no certificate, and the one of its
/// address's default server is used.
///
/// Errors: nginx's sentences for files that cannot be loaded and lists that leave nothing.
pub(super) fn build(confs: &Confs, r: &mut Reading) -> Result<Option<Rc<Server>>, Error> {
    let loc = confs.loc::<Ssl>();
    if loc.certificates.is_empty() && !loc.reject_handshake {
        return Ok(None);
    }
    let zones = r.shelf.of::<ZoneTable>();
    let zone = zones.want(TICKET_ZONE, "ssl_session_tickets", Some(TICKET_ZONE_BYTES));
    let zone = zone.map_err(|e| Error::placeless(format!("{e:?}")))?;
    let spec = loc.spec(zone.handle(), confs.loc::<Http2>().on)?;
    let (server, warnings) = Server::build(&spec).map_err(|e| Error::placeless(e.to_string()))?;
    r.notes.extend(warnings.into_iter().map(|text| Note { level: "warn", text }));
    Ok(Some(Rc::new(server)))
}

/// Makes sure that an address with `ssl` has a certificate for everybody: its default server's. A
/// default server may do without if it rejects all; then the others need their own.
pub(super) fn check(address: &Address) -> Result<(), Error> {
    if !address.listen.ssl {
        return Ok(());
    }
    let lacking = match &address.default.tls {
        None => Some(&address.default),
        Some(tls) if tls.certificates().is_empty() => {
            address.names.all().find(|server| server.tls.is_none())
        }
        Some(_) => None,
    };
    match lacking {
        None => Ok(()),
        Some(server) => {
            let what = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
            Err(Error { what: what.into(), at: Some(server.at.clone()) })
        }
    }
}

impl Loc {
    fn spec(&self, tickets: Arc<dyn Shelf>, http2: bool) -> Result<ServerSpec, Error> {
        let mut spec = ServerSpec::new(tickets);
        if self.certificates.len() > self.keys.len() {
            let orphan = &self.certificates[self.keys.len()];
            return Err(Error::placeless(format!(
                "no \"ssl_certificate_key\" is defined for certificate \"{orphan}\""
            )));
        }
        let pairs = self.certificates.iter().zip(&self.keys);
        spec.certificates = pairs
            .map(|(certificate, key)| Pair { certificate: certificate.clone(), key: key.clone() })
            .collect();
        if self.stapling && self.stapling_file.is_none() {
            return Err(Error::placeless(
                "\"ssl_stapling on\" without \"ssl_stapling_file\" is not supported",
            ));
        }
        spec.passwords = self.passwords.clone();
        set(&mut spec.protocols, &self.protocols);
        set(&mut spec.ciphers, &self.ciphers);
        spec.ciphersuites = self.ciphersuites.clone();
        set(&mut spec.ecdh_curve, &self.ecdh_curve);
        spec.prefer_server_ciphers = self.prefer_server_ciphers;
        let alpn: &[&[u8]] = if http2 { &[b"h2"] } else { &[] };
        let old: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];
        spec.alpn = alpn.iter().chain(&old).map(|p| p.to_vec()).collect();
        set(&mut spec.session_timeout, &self.session_timeout);
        spec.session_cache = match &self.session_cache {
            None | Some(Cache::Off) => SessionCache::None,
            Some(Cache::Builtin(count)) => SessionCache::On(Arc::new(Memory::new(*count))),
            Some(Cache::Shared(shelf)) => SessionCache::On(shelf.clone()),
        };
        set(&mut spec.session_tickets, &self.session_tickets);
        spec.ticket_key_files = self.ticket_keys.clone();
        spec.verify_client = match self.verify_client {
            Some("on") => VerifyClient::On,
            Some("optional") => VerifyClient::Optional,
            Some("optional_no_ca") => VerifyClient::OptionalNoCa,
            _ => VerifyClient::Off,
        };
        spec.client_certificate = self.client_certificate.clone();
        spec.trusted_certificate = self.trusted_certificate.clone();
        spec.crl = self.crl.clone();
        set(&mut spec.verify_depth, &self.verify_depth.map(|n| n as usize));
        spec.stapling_file = self.stapling_file.clone().filter(|_| self.stapling);
        spec.reject_handshake = self.reject_handshake;
        set(&mut spec.buffer_size, &self.buffer_size.map(|n| n.clamp(512, 16384) as usize));
        Ok(spec)
    }
}

fn set<T: Clone>(slot: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        *slot = value.clone();
    }
}

/// Chooses the server of one connection by the name in its hello, and lets modules take part.
pub(super) struct Greeter<'c> {
    pub peer: &'c Socket,
    pub local: &'c Socket,
    pub address: &'c Rc<Address>,
    /// The handshake, if modules took part in it.
    pub handshake: RefCell<Option<Rc<Handshake>>>,
}

impl Greeter<'_> {
    /// What modules remember of the handshake.
    pub fn take_slots(self) -> Option<Box<Slots>> {
        self.handshake.take().map(|handshake| Box::new(handshake.slots.take()))
    }
}

impl ChooseServer for Greeter<'_> {
    fn choose<'a>(&'a self, hello: &'a ClientHello<'a>) -> Chosen<'a> {
        let name = hello.server_name.unwrap_or_default();
        let host = String::from_utf8_lossy(name).to_ascii_lowercase();
        let named = self.address.server(host.strip_suffix('.').unwrap_or(&host));
        let server = if named.tls.is_some() { named } else { &self.address.default };
        let Some(tls) = &server.tls else {
            return Chosen::Now(Choice::Refuse(Alert::InternalError));
        };
        if !handshake::has_handlers(server, self.address) {
            return Chosen::Now(Choice::Serve(tls.clone()));
        }
        let ends = (self.peer.clone(), self.local.clone());
        let handshake = Handshake::new(ends, self.address.clone(), server.clone(), hello);
        self.handshake.replace(Some(handshake.clone()));
        Chosen::Later(Box::pin(handshake.lead()))
    }
}

// ---- what a request may not ------------------------------------------------------------------

/// Where nginx says such things happen.
const WHILE: &str = " while reading client request headers";

/// The status of a request that its connection's TLS does not allow.
pub(super) fn objection(r: &Request) -> Option<u16> {
    if r.client.plain_on_tls {
        log::info!(r, "client sent plain HTTP request to HTTPS port{WHILE}");
        return Some(status::TO_HTTPS);
    }
    let info = r.client.tls.as_ref()?;
    let tls = r.place.server.tls.as_ref()?;
    let mode = tls.verify_client();
    if mode == VerifyClient::Off {
        return None;
    }
    let name = String::from_utf8_lossy(info.server_name().unwrap_or_default()).to_ascii_lowercase();
    if !Rc::ptr_eq(r.client.address.server(&name), &r.place.server) {
        log::info!(
            r,
            "client attempted to request the server name different from the one that was negotiated{WHILE}"
        );
        return Some(421);
    }
    match info.client_problem(mode)? {
        ClientCertProblem::Missing => {
            log::info!(r, "client sent no required SSL certificate{WHILE}");
            Some(status::NO_CERT)
        }
        ClientCertProblem::Invalid(fault) => {
            log::info!(
                r,
                "client SSL certificate verify error: ({}:{}){WHILE}",
                fault.number(),
                fault.text()
            );
            Some(status::CERT_ERROR)
        }
    }
}

// ---- variables -------------------------------------------------------------------------------

const VARIABLES: &[Builtin] = &[
    var("ssl_protocol", |r, out| tls(r, out, |i| Some(i.protocol().into()))),
    var("ssl_cipher", |r, out| tls(r, out, |i| Some(i.cipher().into()))),
    var("ssl_ciphers", |r, out| tls(r, out, |i| Some(i.ciphers()))),
    var("ssl_curve", |r, out| tls(r, out, |i| Some(i.curve().into()))),
    var("ssl_curves", |r, out| tls(r, out, |i| Some(i.curves()))),
    var("ssl_sigalgs", |r, out| tls(r, out, |i| Some(i.signature_algorithms()))),
    var("ssl_session_id", |r, out| tls(r, out, |i| Some(i.session_id()))),
    var("ssl_session_reused", |r, out| {
        tls(r, out, |i| Some(if i.is_reused() { "r" } else { "." }.into()))
    }),
    var("ssl_early_data", |r, out| tls(r, out, |i| i.is_early().then(|| "1".into()))),
    var("ssl_server_name", |r, out| tls(r, out, |i| utf8(i.server_name()))),
    var("ssl_alpn_protocol", |r, out| tls(r, out, |i| utf8(i.alpn()))),
    var("ssl_client_cert", |r, out| cert(r, out, |c| c.pem_folded())),
    var("ssl_client_raw_cert", |r, out| cert(r, out, |c| c.pem())),
    var("ssl_client_escaped_cert", |r, out| {
        cert(r, out, |c| {
            let mut escaped = Vec::new();
            crate::proto::escape::Escape::UriComponent.push(c.pem().as_bytes(), &mut escaped);
            String::from_utf8_lossy(&escaped).into_owned()
        })
    }),
    var("ssl_client_s_dn", |r, out| cert(r, out, |c| c.subject())),
    var("ssl_client_i_dn", |r, out| cert(r, out, |c| c.issuer())),
    var("ssl_client_s_dn_legacy", |r, out| cert(r, out, |c| c.subject_legacy())),
    var("ssl_client_i_dn_legacy", |r, out| cert(r, out, |c| c.issuer_legacy())),
    var("ssl_client_serial", |r, out| cert(r, out, |c| c.serial())),
    var("ssl_client_fingerprint", |r, out| cert(r, out, |c| c.fingerprint())),
    var("ssl_client_verify", |r, out| tls(r, out, |i| Some(i.client_verify()))),
    var("ssl_client_v_start", |r, out| cert(r, out, |c| c.valid_from())),
    var("ssl_client_v_end", |r, out| cert(r, out, |c| c.valid_until())),
    var("ssl_client_v_remain", |r, out| {
        cert(r, out, |c| c.days_left(sys::time::unix_seconds() as u64).to_string())
    }),
    var("ssl_ja3", |r, out| tls(r, out, |i| i.hello().map(|h| h.ja3()))),
    var("ssl_ja3_hash", |r, out| tls(r, out, |i| i.hello().map(|h| h.ja3_hash()))),
    var("ssl_ja4", |r, out| tls(r, out, |i| i.hello().map(|h| h.ja4()))),
    var("ssl_ja4_raw", |r, out| tls(r, out, |i| i.hello().map(|h| h.ja4_raw()))),
];

fn tls(r: &Request, out: &mut Vec<u8>, get: impl Fn(&TlsInfo) -> Option<String>) -> bool {
    let Some(value) = r.client.tls.as_ref().and_then(|info| get(info)) else { return false };
    out.extend_from_slice(value.as_bytes());
    true
}

fn cert(r: &Request, out: &mut Vec<u8>, get: impl Fn(&CertDetails) -> String) -> bool {
    tls(r, out, |info| info.details().map(|details| get(&details)))
}

fn utf8(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|b| String::from_utf8_lossy(b).into_owned())
}
