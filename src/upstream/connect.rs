//! New connections to peers, plain or with TLS.

use super::peer::Peer;
use crate::event::{Deadline, Elapsed};
use crate::io::{self, Conn, Stream};
use crate::sys::socket::{self, Departure};
use crate::tls;
use crate::tls::client::Client;
use crate::tls::fault::HandshakeFault;
use crate::tls::info::TlsInfo;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// How connections leave.
#[derive(Clone, Debug)]
pub struct Way {
    /// The local address, and the receive buffer.
    pub departure: Departure,
    /// `…_socket_keepalive`
    pub keepalive: bool,
    /// `…_socket_sndbuf`
    pub send_buffer: Option<usize>,
    /// `…_connect_timeout`
    pub timeout: Duration,
    /// `tcp_nodelay`
    pub nodelay: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectFault {
    /// `connect()` failed.
    Os(std::io::Error),
    /// It took too long.
    TimedOut,
}

impl From<Elapsed> for ConnectFault {
    fn from(_: Elapsed) -> ConnectFault {
        ConnectFault::TimedOut
    }
}

impl From<std::io::Error> for ConnectFault {
    fn from(e: std::io::Error) -> ConnectFault {
        ConnectFault::Os(e)
    }
}

/// Connects to `peer`.
pub async fn connect(peer: &Peer, way: &Way) -> Result<Stream, ConnectFault> {
    let deadline = Deadline::after(way.timeout);
    let stream = deadline.bound(io::connect(&peer.address, &way.departure)).await??;
    if way.keepalive {
        socket::set_keepalive(stream.as_fd(), Some(socket::Keepalive::default()))?;
    }
    if way.send_buffer.is_some() {
        socket::set_buffers(stream.as_fd(), way.send_buffer, None)?;
    }
    if way.nodelay && !peer.address.is_unix() {
        stream.set_nodelay(true)?;
    }
    Ok(stream)
}

/// Makes a connection to `peer`, which should be called `name`, secure. `None`: it took too long.
pub async fn secure(
    stream: Stream,
    peer: &Peer,
    client: &Client,
    name: &str,
    timeout: Duration,
) -> Result<(Conn, Rc<TlsInfo>), Option<HandshakeFault>> {
    let handshake = tls::secure::connect(stream, client, &peer.name, name);
    match Deadline::after(timeout).bound(handshake).await {
        Ok(done) => done.map_err(Some),
        Err(Elapsed) => Err(None),
    }
}
