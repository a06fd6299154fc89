//! The HTTP service of a worker: from an accepted socket to a served connection.

use super::client::{Client, Peer};
use super::life::Life;
use super::listen::Bound;
use super::place::Address;
use super::request::Slots;
use super::{HttpConf, serve_h1};
use crate::event::{self, Post, Seated, Service};
use crate::io::{Conn, Stream};
use crate::sys::socket::Address as Socket;
use crate::{log, sys};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// What `http {}` does in the processes of the tree.
pub struct HttpService {
    conf: Rc<HttpConf>,
    life: Rc<Life>,
    listeners: RefCell<Vec<Rc<Listener>>>,
}

impl HttpService {
    /// The service of a configuration.
    pub fn new(conf: Rc<HttpConf>) -> HttpService {
        HttpService { conf, life: Rc::default(), listeners: RefCell::default() }
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
                self.listen(seated, bound.clone())?;
            }
        }
        Ok(())
    }

    fn quit(&self) {
        for listener in self.listeners.take() {
            listener.stop();
        }
        self.life.quit();
    }

    fn is_drained(&self) -> bool {
        self.life.connections() == 0
    }

    fn cut(&self) {
        self.life.cut();
    }
}

impl HttpService {
    fn listen(&self, seated: Seated, bound: Rc<Bound>) -> io::Result<()> {
        let (conf, life) = (self.conf.clone(), self.life.clone());
        let listener = Listener::start(seated, move |accepted| {
            event::spawn(serve(accepted, bound.clone(), conf.clone(), life.clone()));
        })?;
        self.listeners.borrow_mut().push(listener);
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

/// A connection that was accepted.
struct Accepted {
    fd: OwnedFd,
    peer: Socket,
}

/// Accepts from one socket until it is stopped.
struct Listener {
    stopped: Cell<bool>,
    task: Cell<Option<event::Task>>,
}

/// Connections taken in one go.
const ACCEPT_BATCH: usize = 16;
/// How long to wait when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

impl Listener {
    fn start(seated: Seated, serve: impl Fn(Accepted) + 'static) -> io::Result<Rc<Listener>> {
        let trigger = event::Trigger::Level { shared: seated.shared };
        let source = event::Source::new(seated.socket.as_fd(), trigger)?;
        let listener = Rc::new(Listener { stopped: Cell::new(false), task: Cell::new(None) });
        let this = listener.clone();
        let task = event::spawn(async move {
            while !this.stopped.get() {
                std::future::poll_fn(|cx| source.poll_ready(event::Direction::Read, cx)).await;
                source.clear(event::Direction::Read);
                if let Err(pause) = accept_some(&seated, &serve) {
                    event::sleep(pause).await;
                }
            }
        });
        listener.task.set(Some(task));
        Ok(listener)
    }

    fn stop(&self) {
        self.stopped.set(true);
        if let Some(task) = self.task.take() {
            task.cancel();
        }
    }
}

fn accept_some(seated: &Seated, serve: &impl Fn(Accepted)) -> Result<(), Duration> {
    for _ in 0..ACCEPT_BATCH {
        match sys::socket::accept(seated.socket.as_fd()) {
            Ok((fd, peer)) => serve(Accepted { fd, peer }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::crit!("accept4() failed{}", log::Os(&error));
                return Err(ACCEPT_PAUSE);
            }
        }
    }
    Ok(())
}

/// One connection's life.
async fn serve(accepted: Accepted, bound: Rc<Bound>, conf: Rc<HttpConf>, life: Rc<Life>) {
    let held = life.begin_connection();
    let Some((client, ahead)) = meet(accepted, &bound) else { return };
    life.clone().until_cut(serve_h1::serve(client, conf, life, ahead)).await;
    drop(held);
}

/// Finds out who is calling, and whom.
fn meet(accepted: Accepted, bound: &Bound) -> Option<(Rc<Client>, Vec<u8>)> {
    let stream = match Stream::adopt(accepted.fd) {
        Ok(stream) => stream,
        Err(error) => {
            log::alert!("cannot watch an accepted socket{}", log::Os(&error));
            return None;
        }
    };
    let local = local_address(&stream, bound);
    let address = bound.address_for(&local)?.clone();
    if !accepted.peer.is_unix() && address.default.root.core.tcp_nodelay {
        let _ = stream.set_nodelay(true);
    }
    let client = client(Conn::plain(stream), accepted.peer, local, address);
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
        conn: Rc::new(conn),
        slots: RefCell::new(Slots::default()),
    }
}
