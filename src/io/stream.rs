//! A TCP or unix connection.
//!
//! All verbs take `&self`: one task may read while another writes. `try_…` never waits and says
//! `WouldBlock` without a system call where readiness is known; `poll_…` waits. A read that got
//! less than it asked for has drained the socket, so nothing is asked again before the kernel
//! reports more.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use crate::event::{Direction, Source, Trigger};
use crate::sys::socket::{self, Address, Departure};

/// A connected socket, registered with the thread's loop for as long as it lives.
pub struct Stream {
    source: Source,
    fd: OwnedFd,
}

/// Connects to `to`. Bound the time with `event::Deadline`; dropping the future gives up.
pub async fn connect(to: &Address, departure: &Departure) -> io::Result<Stream> {
    let (fd, connected) = socket::connect(to, departure)?;
    let stream = Stream::adopt(fd)?;
    if !connected {
        stream.source.clear(Direction::Write);
        poll_fn(|cx| stream.poll_writable(cx)).await;
        socket::take_error(stream.fd.as_fd())?;
    }
    Ok(stream)
}

impl Stream {
    /// Takes over a connected nonblocking socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Stream> {
        Ok(Stream { source: Source::new(fd.as_fd(), Trigger::Edge)?, fd })
    }

    /// As `adopt`, and takes the first read for worth trying: bytes are known to wait (a deferred
    /// accept), so the kernel's report need not be awaited.
    pub fn adopt_readable(fd: OwnedFd) -> io::Result<Stream> {
        let stream = Stream::adopt(fd)?;
        stream.source.mark(Direction::Read);
        Ok(stream)
    }

    /// Gives the socket back, unregistered, to be passed to somebody else.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let Stream { source, fd } = self;
        source.deregister(fd.as_fd())?;
        Ok(fd)
    }

    // ---- reading

    /// Reads what is there; 0 is the end. `buf` is not empty.
    #[inline]
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        debug_assert!(!buf.is_empty(), "an empty read looks like the end");
        if !self.source.is_ready(Direction::Read) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = socket::receive(self.fd.as_fd(), buf);
        match &result {
            Ok(read) if *read < buf.len() && *read > 0 => self.source.drained(),
            Err(error) if is_wait(error) => self.source.clear(Direction::Read),
            _ => {}
        }
        result
    }

    /// Reads when something is there; 0 is the end. `buf` is not empty.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(Direction::Read, cx));
            match self.try_read(buf) {
                Err(error) if is_wait(&error) => continue,
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ready when a read is worth trying. It may still find nothing.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_ready(Direction::Read, cx)
    }

    /// Ready when there is a byte to read or the end (0), which stay where they are.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(Direction::Read, cx));
            match socket::peek(self.fd.as_fd(), buf) {
                Err(error) if is_wait(&error) => self.source.clear(Direction::Read),
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether the kernel has reported bytes or the end. As of the last turn.
    pub fn may_read(&self) -> bool {
        self.source.is_ready(Direction::Read)
    }

    /// For a connection that should be idle: the peer neither closed it nor sent a byte. Costs a
    /// system call only if the kernel reported something. As of the last turn.
    pub fn is_quiet(&self) -> bool {
        if !self.source.is_ready(Direction::Read) {
            return true;
        }
        match socket::peek(self.fd.as_fd(), &mut [0]) {
            Err(error) if is_wait(&error) => {
                self.source.clear(Direction::Read);
                true
            }
            _ => false,
        }
    }

    /// Ready when the peer has sent its end or the connection is gone, whether or not bytes wait
    /// to be read before it.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.is_read_closed() {
            return Poll::Ready(());
        }
        self.source.wait_change(Direction::Read, cx);
        Poll::Pending
    }

    /// Whether the kernel has reported the peer's end. As of the last turn.
    pub fn is_read_closed(&self) -> bool {
        self.source.is_read_closed()
    }

    /// Whether the connection is gone in both directions. As of the last turn.
    pub fn is_hung_up(&self) -> bool {
        self.source.is_hung_up()
    }

    // ---- writing

    /// Writes what fits. `more`: other bytes follow at once, a short packet need not leave yet.
    #[inline]
    pub fn try_write(&self, buf: &[u8], more: bool) -> io::Result<usize> {
        self.attempt_write(buf.len(), |fd| socket::send(fd, buf, more))
    }

    /// Writes what fits of several pieces, in one call. `more` as in `try_write`.
    #[inline]
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        if let [piece] = pieces {
            return self.try_write(piece, more);
        }
        let whole = pieces.iter().map(|piece| piece.len()).sum();
        self.attempt_write(whole, |fd| socket::send_vectored(fd, pieces, more))
    }

    /// Sends bytes of a file at offset `at`; 0: the file ends there.
    pub fn try_send_file(&self, file: BorrowedFd<'_>, at: u64, count: usize) -> io::Result<usize> {
        // A short result is a full socket or the end of the file: only asking again tells.
        self.attempt_write(0, |fd| socket::send_file(fd, file, at, count))
    }

    /// One attempt, if there is room as far as is known. Less than `whole` means there is no more.
    #[inline]
    fn attempt_write(
        &self,
        whole: usize,
        write: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.source.is_ready(Direction::Write) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = write(self.fd.as_fd());
        match &result {
            Ok(sent) if *sent < whole => self.source.clear(Direction::Write),
            Err(error) if is_wait(error) => self.source.clear(Direction::Write),
            _ => {}
        }
        result
    }

    /// As `try_write`, when there is room.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.when_writable(cx, || self.try_write(buf, false))
    }

    /// As `try_write` with `more`, when there is room.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        self.when_writable(cx, || self.try_write(buf, more))
    }

    /// As `try_write_vectored`, when there is room.
    #[inline]
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.when_writable(cx, || self.try_write_vectored(pieces, false))
    }

    /// As `try_write_vectored` with `more`, when there is room.
    #[inline]
    pub fn poll_send_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        self.when_writable(cx, || self.try_write_vectored(pieces, more))
    }

    /// As `try_send_file`, when there is room.
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        at: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        self.when_writable(cx, || self.try_send_file(file, at, count))
    }

    /// Ready when a write is worth trying.
    #[inline]
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_ready(Direction::Write, cx)
    }

    #[inline]
    fn when_writable(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(Direction::Write, cx));
            match attempt() {
                Err(error) if is_wait(&error) => continue,
                other => return Poll::Ready(other),
            }
        }
    }

    // ---- ending, facts, options

    /// Tells the peer that nothing more comes.
    pub fn shutdown_write(&self) -> io::Result<()> {
        socket::shutdown_write(self.fd.as_fd())
    }

    /// Closing will reset the connection (`reset_timedout_connection`, status 444).
    pub fn reset_on_close(&self) -> io::Result<()> {
        socket::reset_on_close(self.fd.as_fd())
    }

    /// The kernel's view of a TCP connection.
    pub fn tcp_info(&self) -> io::Result<socket::TcpInfo> {
        socket::tcp_info(self.fd.as_fd())
    }

    pub fn local_address(&self) -> io::Result<Address> {
        socket::local_address(self.fd.as_fd())
    }

    pub fn peer_address(&self) -> io::Result<Address> {
        socket::peer_address(self.fd.as_fd())
    }

    /// `tcp_nodelay`
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        socket::set_nodelay(self.fd.as_fd(), on)
    }

    /// `tcp_nopush`
    pub fn set_nopush(&self, on: bool) -> io::Result<()> {
        socket::set_nopush(self.fd.as_fd(), on)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[inline]
pub(super) fn is_wait(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Reactor, spawn, yield_now};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    /// Our end and the peer's, which blocks.
    pub fn pair() -> (Stream, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::adopt(ours.into()).unwrap(), peer)
    }

    async fn read(stream: &Stream, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| stream.poll_read(cx, buf)).await
    }

    #[test]
    fn a_connection_is_made_and_talks() {
        let mut reactor = Reactor::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Inet(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut said = [0; 4];
            peer.read_exact(&mut said).unwrap();
            peer.write_all(&said).unwrap();
        });
        reactor.block_on(async move {
            let stream = connect(&to, &Departure::default()).await.unwrap();
            assert_eq!(stream.peer_address().unwrap(), to);
            stream.set_nodelay(true).unwrap();
            let pieces = [IoSlice::new(b"pi"), IoSlice::new(b"ng")];
            poll_fn(|cx| stream.poll_write_vectored(cx, &pieces)).await.unwrap();
            let mut buf = [0; 16];
            assert_eq!(read(&stream, &mut buf).await.unwrap(), 4);
            assert_eq!(&buf[..4], b"ping");
            assert_eq!(read(&stream, &mut buf).await.unwrap(), 0);
            assert!(stream.is_read_closed());
        });
        server.join().unwrap();
    }

    #[test]
    fn a_refused_connection_says_so() {
        let mut reactor = Reactor::new().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let result = reactor.block_on(async move {
            connect(&Address::Inet(closed), &Departure::default()).await.map(drop)
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_drained_socket_is_not_asked_again() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            peer.write_all(b"hello").unwrap();
            let mut buf = [0; 16];
            assert_eq!(read(&stream, &mut buf).await.unwrap(), 5);
            assert!(!stream.source.is_ready(Direction::Read));
            peer.write_all(b"again").unwrap();
            assert_eq!(read(&stream, &mut buf[..5]).await.unwrap(), 5);
            assert!(stream.source.is_ready(Direction::Read), "a full read asks again");
            assert!(stream.try_read(&mut buf).is_err_and(|e| is_wait(&e)));
            assert!(stream.is_quiet());
        });
    }

    #[test]
    fn an_idle_connection_that_was_closed_is_not_quiet() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, peer) = pair();
            yield_now().await;
            assert!(stream.is_quiet());
            drop(peer);
            yield_now().await;
            assert!(!stream.is_quiet());
            poll_fn(|cx| stream.poll_closed(cx)).await;
        });
    }

    #[test]
    fn a_full_socket_waits_for_room() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            let mut sent = 0;
            while let Ok(n) = stream.try_write(&[7; 4096], false) {
                sent += n;
            }
            let (done, finished) = crate::event::oneshot();
            spawn(async move {
                poll_fn(|cx| stream.poll_write(cx, b"end")).await.unwrap();
                let _ = done.send(stream);
            });
            yield_now().await;
            let mut all = vec![0; sent];
            peer.read_exact(&mut all).unwrap();
            let stream = finished.await.unwrap();
            stream.shutdown_write().unwrap();
            let mut rest = String::new();
            peer.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "end");
        });
    }

    #[test]
    fn a_stream_can_be_handed_on() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            let stream = Stream::adopt(stream.into_fd().unwrap()).unwrap();
            peer.write_all(b"x").unwrap();
            let mut buf = [0; 2];
            assert_eq!(poll_fn(|cx| stream.poll_peek(cx, &mut buf)).await.unwrap(), 1);
            assert_eq!(read(&stream, &mut buf).await.unwrap(), 1);
        });
    }
}
