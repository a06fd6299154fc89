//! The HTTP service of a worker: from an accepted socket to a served connection.

use super::client::{Client, Peer};
use super::life::Life;
use super::listen::Bound;
use super::place::Address;
use super::request::Slots;
use super::{HttpConf, serve_h1};
use crate::event::{self, Accepted, Accepting, Acceptor, Post, Seated, Service};
use crate::io::{Conn, Stream};
use crate::sys::socket::Address as Socket;
use crate::{log, sys};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
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
    fn start(&self, post: &mut Post) -> io::Result<()> {
        self.conf.start(post.role)?;
        if !post.role.serves() {
            return Ok(());
        }
        for bound in &self.conf.bound {
            for seated in post.take(&bound.spec) {
                self.listen(seated, bound.clone(), post.multi_accept)?;
            }
        }
        Ok(())
    }

    fn quit(&self) {
        self.acceptors.borrow().iter().for_each(Acceptor::drain);
        self.life.quit();
    }

    fn is_drained(&self) -> bool {
        self.acceptors.borrow().iter().all(Acceptor::is_closed) && self.life.connections() == 0
    }

    fn cut(&self) {
        self.life.cut();
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
    let held = life.begin_connection();
    let Some((client, ahead)) = meet(socket, peer, &bound) else { return };
    life.clone().until_cut(serve_h1::serve(client, conf, life, ahead)).await;
    drop((held, slot));
}

/// Finds out who is calling, and whom.
fn meet(socket: OwnedFd, peer: Socket, bound: &Bound) -> Option<(Rc<Client>, Vec<u8>)> {
    let stream = match Stream::adopt(socket) {
        Ok(stream) => stream,
        Err(error) => {
            log::alert!("cannot watch an accepted socket{}", log::Os(&error));
            return None;
        }
    };
    let local = local_address(&stream, bound);
    let address = bound.address_for(&local)?.clone();
    if !peer.is_unix() && address.default.root.core.tcp_nodelay {
        let _ = stream.set_nodelay(true);
    }
    let client = client(Conn::plain(stream), peer, local, address);
    Some((Rc::new(client), Vec::new()))
}

/// Our end: asked of the kernel only if the listener's address does not say it.
fn local_address(stream: &Stream, bound: &Bound) -> Socket {
    let is_wild = bound.spec.address.inet().is_some_and(|a| a.ip().is_unspecified());
    if is_wild {
        return stream.local_address().unwrap_or_else(|_| bound.spec.address.clone());
    }
    bound.spec.address.clone()
}

fn client(conn: Conn, peer: Socket, local: Socket, address: Rc<Address>) -> Client {
    Client {
        serial: next_serial(),
        peer: RefCell::new(Peer::new(peer)),
        local,
        address,
        requests: Cell::new(0),
        started: event::now(),
        started_ms: sys::time::unix_ms(),
        tls: None,
        proxy: None,
        conn: Rc::new(conn),
        slots: RefCell::new(Slots::default()),
    }
}
