//! The connection that requests come over, as they see it.

use super::place::Address;
use super::request::Slots;
use crate::io::Conn;
use crate::log;
use crate::proto::proxy_protocol::ProxyHeader;
use crate::sys::socket::Address as Socket;
use crate::tls::info::TlsInfo;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// One client connection.
pub struct Client {
    /// `$connection`, and the `*N` of the log.
    pub serial: u64,
    /// Whom we talk to; `realip` may put another address here.
    pub peer: RefCell<Peer>,
    /// Our end.
    pub local: Socket,
    /// The listening address with its servers.
    pub address: Rc<Address>,
    /// `$connection_requests`
    pub requests: Cell<u64>,
    /// When it was accepted.
    pub started: Instant,
    /// The same on the wall clock, milliseconds since the epoch.
    pub started_ms: u64,
    /// What the handshake settled; `None` on plain connections.
    pub tls: Option<Rc<TlsInfo>>,
    /// Plain HTTP came to an `ssl` port: every request is answered with 497.
    pub plain_on_tls: bool,
    /// What a PROXY header said.
    pub proxy: Option<Rc<ProxyHeader>>,
    /// The socket, for `$tcpinfo_*` and resets.
    pub conn: Rc<Conn>,
    /// The host that was asked for last: the next request mostly asks for the same.
    pub last_host: RefCell<Rc<str>>,
    /// What modules remember as long as the connection lasts.
    pub slots: RefCell<Option<Box<Slots>>>,
}

/// Longer hosts are not kept: no name of the DNS is longer.
const HOST_KEPT_MAX: usize = 255;

/// The client's address, with its text made once.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address.
    pub end: Socket,
    /// Its text without port: `$remote_addr`.
    pub text: Rc<str>,
}

impl Peer {
    /// The peer at `end`.
    pub fn new(end: Socket) -> Peer {
        let text = address_text(&end).into();
        Peer { end, text }
    }
}

/// The address without port: `192.0.2.1`, `unix:/path`.
pub fn address_text(end: &Socket) -> String {
    match end {
        Socket::Inet(a) => a.ip().to_string(),
        Socket::Unix(_) => end.to_string(),
    }
}

/// What the log says of a connection that has no request: whose it is, and where it came to.
pub fn describe(peer: &str, address: &Address, line: &mut log::Line) {
    line.push(b", client: ");
    line.push(peer.as_bytes());
    line.push(b", server: ");
    line.push(address.listen.address().as_bytes());
}

impl Client {
    /// The client's address as text.
    pub fn peer_text(&self) -> Rc<str> {
        self.peer.borrow().text.clone()
    }

    /// `name` of a head as a text in lower case; one text for requests that name the same.
    pub fn host(&self, name: &[u8], has_upper: bool) -> Rc<str> {
        let mut last = self.last_host.borrow_mut();
        if last.as_bytes() == name && !has_upper {
            return last.clone();
        }
        let mut host = String::from_utf8_lossy(name).into_owned();
        host.make_ascii_lowercase();
        let host: Rc<str> = host.into();
        if host.len() <= HOST_KEPT_MAX {
            *last = host.clone();
        }
        host
    }

    /// The client's IP address; `None` on unix sockets.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer.borrow().end.inet().map(|a| a.ip())
    }
}

impl log::Context for Client {
    fn log(&self) -> Option<log::Log> {
        self.address.default.root.core.error_log.clone()
    }

    fn connection(&self) -> u64 {
        self.serial
    }

    fn describe(&self, line: &mut log::Line) {
        describe(&self.peer_text(), &self.address, line);
    }
}
