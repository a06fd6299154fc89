//! UDP, and unix datagrams.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use super::stream::is_wait;
use crate::event::{Direction, Source, Trigger};
use crate::sys::socket::{self, Address};

/// A datagram socket that talks to one peer.
pub struct Datagram {
    source: Source,
    fd: OwnedFd,
}

impl Datagram {
    pub fn connect(to: SocketAddr) -> io::Result<Datagram> {
        let fd = socket::connect_datagram(to)?;
        Ok(Datagram { source: Source::new(fd.as_fd(), Trigger::Edge)?, fd })
    }

    /// A socket to any kind of address. `bind`: the local one; a unix socket gets one by itself,
    /// so that it can be answered.
    pub fn connect_to(to: &Address, bind: Option<&Address>) -> io::Result<Datagram> {
        let fd = socket::connect_datagram_to(to, bind)?;
        Ok(Datagram { source: Source::new(fd.as_fd(), Trigger::Edge)?, fd })
    }

    /// Sends one datagram now, or says `WouldBlock`.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.fd.as_fd(), bytes, false)
    }

    /// Receives one datagram, when there is one; what does not fit is lost.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.attempt(cx, Direction::Read, || socket::receive(self.fd.as_fd(), buf))
    }

    /// Sends one datagram, when there is room.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            self.attempt(cx, Direction::Write, || socket::send(self.fd.as_fd(), bytes, false))
        })
        .await
    }

    /// Receives one datagram; what does not fit is lost. An error may be the peer's answer to an
    /// earlier `send`: nobody listens there.
    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.attempt(cx, Direction::Read, || socket::receive(self.fd.as_fd(), buf)))
            .await
    }

    /// One datagram is no word about others: readiness ends only with `WouldBlock`.
    fn attempt(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(direction, cx));
            match call() {
                Err(error) if is_wait(&error) => self.source.clear(direction),
                other => return Poll::Ready(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reactor;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_go_and_come() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            let ours = Datagram::connect(server.local_addr().unwrap()).unwrap();
            ours.send(b"ask").await.unwrap();
            let mut buf = [0; 16];
            let (len, from) = server.recv_from(&mut buf).unwrap();
            assert_eq!(&buf[..len], b"ask");
            server.send_to(b"one", from).unwrap();
            server.send_to(b"two", from).unwrap();
            for expected in [b"one", b"two"] {
                let len = ours.receive(&mut buf).await.unwrap();
                assert_eq!(&buf[..len], expected);
            }
            drop(server);
            ours.send(b"ask").await.unwrap();
            let refused = ours.receive(&mut buf).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
