//! A stream, perhaps with TLS above it.
//!
//! The verbs are the stream's; above a session they carry plaintext. Written bytes of a session may
//! wait inside it until `poll_flush` is ready. `Conn` speaks tokio's traits too, for the HTTP/2
//! crate.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Stream, with_scratch};

/// What stands between a connection's plaintext and its socket: TLS.
pub trait Session {
    /// Reads plaintext; 0 is the end. `buf` is not empty. An end without the protocol's farewell
    /// is the session's to judge.
    fn poll_read(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>>;

    /// Takes plaintext, as much as it wants to; pending while too much of it waits inside.
    fn poll_write_vectored(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Ready when all that was taken is with the kernel.
    fn poll_flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says farewell (`close_notify`) and flushes. The socket stays open.
    fn poll_close(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Plaintext bytes that can be read without asking the socket, at least that many.
    fn buffered(&self) -> usize;

    /// Whether written bytes wait inside.
    fn has_unflushed(&self) -> bool;

    /// For who knows which session it is (`$ssl_*`).
    fn as_any(&self) -> &dyn Any;
}

/// A connection.
pub struct Conn {
    session: Option<RefCell<Box<dyn Session>>>,
    stream: Stream,
}

impl Conn {
    pub fn plain(stream: Stream) -> Conn {
        Conn { session: None, stream }
    }

    /// Bytes go through `session`, whose handshake is over.
    pub fn secure(stream: Stream, session: Box<dyn Session>) -> Conn {
        Conn { session: Some(RefCell::new(session)), stream }
    }

    /// The stream alone, to put a session above it; a session that was there is gone.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// The socket below. Reading or writing there bypasses the session.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// Looks at the session, if it is an `S`.
    pub fn session<S: 'static, T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        let session = self.session.as_ref()?.borrow();
        session.as_any().downcast_ref::<S>().map(look)
    }

    // ---- reading

    /// Reads when something is there; 0 is the end. `buf` is not empty.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.session {
            None => self.stream.poll_read(cx, buf),
            Some(session) => session.borrow_mut().poll_read(&self.stream, cx, buf),
        }
    }

    /// Reads into the thread's scratch buffer, at most `max` bytes, and gives `take` what came;
    /// no bytes are the end. A connection that waits here holds no buffer.
    #[inline]
    pub fn poll_read_with<T>(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        if self.session.is_none() && self.stream.poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        with_scratch(|scratch| {
            let max = max.clamp(1, scratch.len());
            self.poll_read(cx, &mut scratch[..max]).map_ok(|n| take(&scratch[..n]))
        })
    }

    /// Reads when something is there; 0 is the end.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Whether a read may give something without waiting. Bytes of a session may turn out to be
    /// its own affair.
    pub fn may_read(&self) -> bool {
        self.buffered() > 0 || self.stream.may_read()
    }

    /// Plaintext the session holds ready.
    pub fn buffered(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.borrow().buffered())
    }

    /// For a connection that should be idle: the peer neither closed it nor sent a byte.
    pub fn is_quiet(&self) -> bool {
        self.buffered() == 0 && self.stream.is_quiet()
    }

    // ---- writing

    /// Writes what fits.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &self.session {
            None => self.stream.poll_write(cx, buf),
            Some(_) => self.poll_write_vectored(cx, &[IoSlice::new(buf)]),
        }
    }

    /// Writes what fits of several pieces, in one call.
    #[inline]
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.session {
            None => self.stream.poll_write_vectored(cx, pieces),
            Some(session) => session.borrow_mut().poll_write_vectored(&self.stream, cx, pieces),
        }
    }

    /// Ready when all that was written is with the kernel.
    #[inline]
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.session {
            None => Poll::Ready(Ok(())),
            Some(session) => session.borrow_mut().poll_flush(&self.stream, cx),
        }
    }

    /// Whether written bytes wait in the session.
    pub fn has_unflushed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.borrow().has_unflushed())
    }

    /// Ends our side: the session's farewell, then the socket's.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(session) = &self.session {
            std::task::ready!(session.borrow_mut().poll_close(&self.stream, cx))?;
        }
        Poll::Ready(self.stream.shutdown_write())
    }

    /// Writes and flushes all of `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        self.flush().await
    }

    /// Waits until all that was written is with the kernel.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends our side.
    pub async fn close(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_close(cx)).await
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        read_for_tokio(&self, cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Conn::poll_write(&self, cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Conn::poll_write_vectored(&self, cx, pieces)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Conn::poll_flush(&self, cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Conn::poll_close(&self, cx)
    }
}

/// A connection with several users, for who wants tokio's traits.
#[derive(Clone)]
pub struct SharedConn(pub Rc<Conn>);

impl AsyncRead for SharedConn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        read_for_tokio(&self.0, cx, buf)
    }
}

impl AsyncWrite for SharedConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, pieces)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }
}

/// Copies what came out of the scratch buffer: cheaper than clearing the unused room of `buf`.
fn read_for_tokio(
    conn: &Conn,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    match buf.remaining() {
        0 => Poll::Ready(Ok(())),
        room => conn.poll_read_with(cx, room, |bytes| buf.put_slice(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reactor;
    use crate::io::stream::tests::pair;
    use std::io::{Read, Write};

    /// A session that swaps the case of letters and keeps what it is given until flushed.
    #[derive(Default)]
    struct Caesar {
        unsent: Vec<u8>,
    }

    fn swap(byte: u8) -> u8 {
        if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { byte }
    }

    impl Session for Caesar {
        fn poll_read(
            &mut self,
            stream: &Stream,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let read = std::task::ready!(stream.poll_read(cx, buf))?;
            buf[..read].iter_mut().for_each(|byte| *byte = swap(*byte));
            Poll::Ready(Ok(read))
        }
        fn poll_write_vectored(
            &mut self,
            _: &Stream,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let before = self.unsent.len();
            pieces.iter().for_each(|piece| self.unsent.extend(piece.iter().map(|&b| swap(b))));
            Poll::Ready(Ok(self.unsent.len() - before))
        }
        fn poll_flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.unsent.is_empty() {
                let sent = std::task::ready!(stream.poll_write(cx, &self.unsent))?;
                self.unsent.drain(..sent);
            }
            Poll::Ready(Ok(()))
        }
        fn poll_close(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.unsent.extend_from_slice(b"bye");
            self.poll_flush(stream, cx)
        }
        fn buffered(&self) -> usize {
            0
        }
        fn has_unflushed(&self) -> bool {
            !self.unsent.is_empty()
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn a_session_stands_between() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            let conn = Conn::secure(stream, Box::<Caesar>::default());
            peer.write_all(b"Hello").unwrap();
            let mut buf = [0; 8];
            assert_eq!(conn.read(&mut buf).await.unwrap(), 5);
            assert_eq!(&buf[..5], b"hELLO");
            conn.write_all(b"Answer").await.unwrap();
            assert_eq!(conn.session(|s: &Caesar| s.unsent.len()), Some(0));
            assert_eq!(conn.session(|_: &u8| ()), None);
            conn.close().await.unwrap();
            let mut said = String::new();
            peer.read_to_string(&mut said).unwrap();
            assert_eq!(said, "aNSWERbye");
        });
    }

    #[test]
    fn a_read_goes_through_the_scratch_buffer() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            let conn = Conn::plain(stream);
            peer.write_all(b"abcdef").unwrap();
            let mut seen = Vec::new();
            for _ in 0..2 {
                let part = poll_fn(|cx| conn.poll_read_with(cx, 4, |b| b.to_vec())).await.unwrap();
                seen.push(part);
            }
            assert_eq!(seen, [b"abcd".to_vec(), b"ef".to_vec()]);
            drop(peer);
            assert!(poll_fn(|cx| conn.poll_read_with(cx, 4, <[u8]>::is_empty)).await.unwrap());
        });
    }

    /// Writes pieces of these lengths while it reads the echo of them.
    async fn talk_to_echo(near: Conn, lengths: Vec<usize>) {
        let near = Rc::new(near);
        let total: usize = lengths.iter().sum();
        let (writer, mut count) = (near.clone(), 0u8);
        crate::event::spawn(async move {
            for len in lengths {
                let piece: Vec<u8> = (0..len)
                    .map(|_| {
                        count = count.wrapping_add(1);
                        count
                    })
                    .collect();
                writer.write_all(&piece).await.unwrap();
            }
            writer.close().await.unwrap();
        });
        let (mut seen, mut expected) = (0, 0u8);
        loop {
            let check = |bytes: &[u8]| {
                for &byte in bytes {
                    expected = expected.wrapping_add(1);
                    assert_eq!(byte, expected);
                }
                bytes.len()
            };
            let mut check = Some(check);
            let read = poll_fn(|cx| {
                near.poll_read_with(cx, 50_000, |bytes| check.take().map_or(0, |mut f| f(bytes)))
            });
            match read.await.unwrap() {
                0 => break,
                n => seen += n,
            }
        }
        assert_eq!(seen, total);
    }

    /// Sends back what comes until the end comes.
    async fn echo(far: Conn) {
        let mut buf = vec![0; 30_000];
        loop {
            match far.read(&mut buf).await.unwrap() {
                0 => return far.close().await.unwrap(),
                n => far.write_all(&buf[..n]).await.unwrap(),
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
        /// No edge is lost, whatever the sizes: many connections on one loop, both ends of each.
        #[test]
        fn echoes_come_back_whole(
            talks in proptest::collection::vec(
                proptest::collection::vec(proptest::prop_oneof![1..100usize, 1..400_000usize], 0..6),
                1..20,
            ),
        ) {
            let mut reactor = Reactor::new().unwrap();
            let (done, expected) = (Rc::new(std::cell::Cell::new(0)), talks.len() * 2);
            for lengths in talks {
                let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                let adopt = |end: std::os::unix::net::UnixStream| {
                    end.set_nonblocking(true).unwrap();
                    Conn::plain(Stream::adopt(end.into()).unwrap())
                };
                let (near, far) = (adopt(near), adopt(far));
                let (first, second) = (done.clone(), done.clone());
                crate::event::spawn(async move {
                    echo(far).await;
                    first.set(first.get() + 1);
                });
                crate::event::spawn(async move {
                    talk_to_echo(near, lengths).await;
                    second.set(second.get() + 1);
                });
            }
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while reactor.tasks() > 0 && std::time::Instant::now() < end {
                reactor.turn(Some(std::time::Duration::from_millis(100))).unwrap();
            }
            assert_eq!((reactor.tasks(), done.get()), (0, expected));
        }
    }

    #[test]
    fn tokio_traits_carry_the_same_bytes() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (stream, mut peer) = pair();
            let mut conn = SharedConn(Rc::new(Conn::plain(stream)));
            let wrote = poll_fn(|cx| AsyncWrite::poll_write(Pin::new(&mut conn), cx, b"x")).await;
            assert_eq!(wrote.unwrap(), 1);
            poll_fn(|cx| AsyncWrite::poll_shutdown(Pin::new(&mut conn), cx)).await.unwrap();
            let mut said = String::new();
            peer.read_to_string(&mut said).unwrap();
            peer.write_all(b"yes").unwrap();
            let mut room = [std::mem::MaybeUninit::uninit(); 8];
            let mut buf = ReadBuf::uninit(&mut room);
            poll_fn(|cx| AsyncRead::poll_read(Pin::new(&mut conn), cx, &mut buf)).await.unwrap();
            assert_eq!((said.as_str(), buf.filled()), ("x", &b"yes"[..]));
        });
    }
}
