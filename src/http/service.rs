//! The HTTP service of a worker: from an accepted socket to a served connection.

use super::client::{self, Client, Peer};
use super::http2::Http2;
use super::life::Life;
use super::listen::Bound;
use super::place::Address;
use super::request::Slots;
use super::ssl::Greeter;
use super::{HttpConf, serve_h1, serve_h2};
use crate::event::census;
use crate::event::{self, Accepted, Accepting, Acceptor, Post, Seated, Service};
use crate::io::{Conn, Stream};
use crate::proto::proxy_protocol::{self, ProxyHeader, ProxyRead};
use crate::sys::socket::Address as Socket;
use crate::{log, sys, tls};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;

/// What `http {}` does in the processes of the tree.
pub struct HttpService {
    conf: Rc<HttpConf>,
    life: Rc<Life>,
    acceptors: RefCell<Vec<Acceptor>>,
}

impl HttpService {
    /// The service of a configuration.
    pub fn new(conf: Rc<HttpConf>) -> HttpService {
        HttpService { conf, life: Rc::default(), acceptors: RefCell::default() }
    }
}

impl Service for HttpService {
    fn prepare(&self) -> Result<(), String> {
        self.conf.prepare()
    }

    fn start(&self, post: &mut Post) -> io::Result<()> {
        event::take_seat(post);
        self.conf.start(post.role)?;
        if !post.role.serves() {
            return Ok(());
        }
        for bound in self.conf.bound.iter().filter(|bound| !bound.is_left_to_others.get()) {
            for seated in post.take(&bound.spec) {
                self.listen(seated, bound.clone(), post.multi_accept)?;
            }
        }
        Ok(())
    }

    fn quit(&self) {
        event::begin_to_end();
        self.acceptors.borrow().iter().for_each(Acceptor::drain);
        self.life.quit();
    }

    fn is_drained(&self) -> bool {
        let is_idle = self.life.connections() == 0 && event::held() == 0;
        is_idle && self.acceptors.borrow().iter().all(Acceptor::is_closed)
    }

    fn cut(&self) {
        self.life.cut();
    }

    fn end(&self) {
        self.conf.end();
    }

    fn flush_logs(&self) {
        self.conf.flush_logs();
    }
}

impl HttpService {
    fn listen(&self, seated: Seated, bound: Rc<Bound>, multi: bool) -> io::Result<()> {
        let (conf, life) = (self.conf.clone(), self.life.clone());
        let rules = Accepting { multi, shared: seated.shared };
        let acceptor = event::listen(seated.socket, rules, move |accepted| {
            event::spawn(serve(accepted, bound.clone(), conf.clone(), life.clone()));
        })?;
        if let Some(until) = seated.until {
            let retiring = acceptor.clone();
            event::spawn(async move {
                event::sleep_until(until).await;
                retiring.drain();
            });
        }
        self.acceptors.borrow_mut().push(acceptor);
        Ok(())
    }
}

thread_local! {
    /// The number of the last connection: `$connection`.
    static SERIAL: Cell<u64> = const { Cell::new(0) };
}

/// The number of a new connection.
pub fn next_serial() -> u64 {
    SERIAL.set(SERIAL.get() + 1);
    SERIAL.get()
}

/// One connection's life.
async fn serve(accepted: Accepted, bound: Rc<Bound>, conf: Rc<HttpConf>, life: Rc<Life>) {
    let Accepted { socket, peer, slot } = accepted;
    let held = (life.begin_connection(), census::connection());
    // What happens once has a block of its own: an idle connection does not carry it along.
    let mut connection = pin!(async {
        let waiting = census::arriving(false);
        if let Some((client, ahead)) = Box::pin(meet(socket, peer, &bound)).await {
            drop(waiting);
            talk(client, ahead, conf, life.clone()).await;
        }
    });
    life.until_cut(connection.as_mut()).await;
    drop((held, slot));
}

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Chooses the protocol: by ALPN, or on plain connections by the first bytes.
async fn talk(client: Rc<Client>, mut ahead: Vec<u8>, conf: Rc<HttpConf>, life: Rc<Life>) {
    let root = &client.address.default.root;
    let http2 = root.confs.loc::<Http2>().clone();
    let wants = http2.on || client.address.listen.http2;
    let is_h2 = match &client.tls {
        Some(tls) => tls.is_h2(),
        None => wants && prefers_h2(&client, &mut ahead).await,
    };
    if is_h2 {
        return Box::pin(serve_h2::serve(client, conf, life, ahead, http2.limits)).await;
    }
    serve_h1::serve(client, conf, life, ahead).await;
}

/// Reads until the bytes are, or are not, HTTP/2's preface.
async fn prefers_h2(client: &Client, ahead: &mut Vec<u8>) -> bool {
    let timeout = client.address.default.root.core.client_header_timeout;
    let deadline = event::Deadline::after(timeout);
    while ahead.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(ahead) {
        if !read_more(&client.conn, ahead, &deadline).await {
            return false;
        }
    }
    ahead.starts_with(H2_PREFACE)
}

/// Appends what comes next; false if nothing will.
async fn read_more(conn: &Conn, ahead: &mut Vec<u8>, deadline: &event::Deadline) -> bool {
    let read = std::future::poll_fn(|cx| {
        conn.poll_read_with(cx, FIRST_READ_BYTES, |bytes| {
            ahead.extend_from_slice(bytes);
            !bytes.is_empty()
        })
    });
    matches!(deadline.bound(read).await, Ok(Ok(true)))
}

/// Bytes of the first read of a connection that may begin with a PROXY header or a preface.
const FIRST_READ_BYTES: usize = 4096;

/// Finds out who is calling, and whom: PROXY header, TLS handshake.
async fn meet(socket: OwnedFd, peer: Socket, bound: &Bound) -> Option<(Rc<Client>, Vec<u8>)> {
    let stream = match Stream::adopt(socket) {
        Ok(stream) => stream,
        Err(error) => {
            log::alert!("cannot watch an accepted socket{}", log::Os(&error));
            return None;
        }
    };
    let local = local_address(&stream, bound);
    let address = bound.address_for(&local)?.clone();
    let core = &address.default.root.core;
    if !peer.is_unix() && core.tcp_nodelay {
        let _ = stream.set_nodelay(true);
    }
    let mut facts =
        Facts { peer, local, address: address.clone(), proxy: None, tls: None, slots: None };
    let deadline = event::Deadline::after(core.client_header_timeout);
    let mut conn = Conn::plain(stream);
    let mut ahead = Vec::new();
    if address.listen.proxy_protocol {
        facts.proxy = read_proxy(&conn, &mut ahead, &deadline, &facts).await?;
    }
    let mut plain_on_tls = false;
    if address.listen.ssl {
        let stream = conn.into_stream();
        let greeter = facts.greeter();
        match deadline.bound(tls::secure::accept(stream, ahead, &greeter)).await {
            Ok(Ok(tls::secure::Accepted::Secure { conn: secure, info, .. })) => {
                (conn, ahead) = (secure, Vec::new());
                (facts.tls, facts.slots) = (Some(info), greeter.take_slots());
            }
            Ok(Ok(tls::secure::Accepted::Plain { stream, read })) => {
                (conn, ahead) = (Conn::plain(stream), read);
                plain_on_tls = true;
            }
            Ok(Err(fault)) => {
                log::info!(&facts, "{fault} while SSL handshaking");
                return None;
            }
            Err(_) => {
                log::info!(
                    &facts,
                    "client timed out (110: Connection timed out) while SSL handshaking"
                );
                return None;
            }
        }
    }
    Some((Rc::new(facts.into_client(conn, plain_on_tls)), ahead))
}

/// What is known of a connection before it is a client.
struct Facts {
    peer: Socket,
    local: Socket,
    address: Rc<Address>,
    proxy: Option<Rc<ProxyHeader>>,
    tls: Option<Rc<tls::info::TlsInfo>>,
    /// What modules remember of the handshake.
    slots: Option<Box<Slots>>,
}

impl log::Context for Facts {
    fn log(&self) -> Option<log::Log> {
        self.address.default.root.core.error_log.clone()
    }

    fn describe(&self, line: &mut log::Line) {
        client::describe(&client::address_text(&self.peer), &self.address, line);
    }
}

impl Facts {
    fn greeter(&self) -> Greeter<'_> {
        let handshake = RefCell::default();
        Greeter { peer: &self.peer, local: &self.local, address: &self.address, handshake }
    }

    fn into_client(self, conn: Conn, plain_on_tls: bool) -> Client {
        Client {
            serial: next_serial(),
            peer: RefCell::new(Peer::new(self.peer)),
            local: self.local,
            address: self.address,
            requests: Cell::new(0),
            started: event::now(),
            started_ms: sys::time::unix_ms(),
            tls: self.tls,
            plain_on_tls,
            proxy: self.proxy,
            conn: Rc::new(conn),
            last_host: RefCell::default(),
            slots: RefCell::new(self.slots),
        }
    }
}

/// Reads the PROXY header; the outer `None` ends the connection.
async fn read_proxy(
    conn: &Conn,
    ahead: &mut Vec<u8>,
    deadline: &event::Deadline,
    facts: &Facts,
) -> Option<Option<Rc<ProxyHeader>>> {
    loop {
        if !ahead.is_empty() {
            match proxy_protocol::read(ahead) {
                Ok(ProxyRead::Complete { len, header }) => {
                    ahead.drain(..len);
                    return Some(header.map(Rc::new));
                }
                Ok(ProxyRead::Partial) => {}
                Err(error) => {
                    log::error!(facts, "{error} while reading PROXY protocol");
                    return None;
                }
            }
        }
        if !read_more(conn, ahead, deadline).await {
            return None;
        }
    }
}

/// Our end: asked of the kernel only if the listener's address does not say it.
fn local_address(stream: &Stream, bound: &Bound) -> Socket {
    let is_wild = bound.spec.address.inet().is_some_and(|a| a.ip().is_unspecified());
    if is_wild {
        return stream.local_address().unwrap_or_else(|_| bound.spec.address.clone());
    }
    bound.spec.address.clone()
}
