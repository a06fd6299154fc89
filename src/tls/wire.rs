//! What TLS asks of a connection below it: to read some bytes, to write some.
//!
//! `io::Stream` answers it on a socket; the tests answer it in memory.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::engine::{Outgoing, RECORD_OVERHEAD, RECORD_PLAIN_MAX};

pub(super) trait Wire {
    /// Reads what is there; 0 at the end.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

thread_local! {
    static OUTGOING: RefCell<Outgoing> = RefCell::default();
}

/// Lends the thread's buffer for ciphertext, empty.
pub(super) fn with_outgoing<T>(work: impl FnOnce(&mut Outgoing) -> T) -> T {
    OUTGOING.with(|outgoing| match outgoing.try_borrow_mut() {
        Ok(mut outgoing) => {
            outgoing.clear();
            work(&mut outgoing)
        }
        Err(_) => work(&mut Outgoing::default()),
    })
}

/// Bytes read from a socket at once: four records and what they are wrapped in.
pub(super) const INCOMING_LEN: usize = 4 * (RECORD_PLAIN_MAX + RECORD_OVERHEAD);

thread_local! {
    static INCOMING: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static GATHERED: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Lends the thread's buffer for ciphertext that comes in. It is not `io`'s scratch buffer, because
/// that one is often lent for the plaintext already.
pub(super) fn with_incoming<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = INCOMING.take().unwrap_or_else(|| vec![0; INCOMING_LEN].into());
    let result = work(&mut buffer);
    INCOMING.set(Some(buffer));
    result
}

/// Joins pieces, up to `most` bytes of them, in a buffer of the thread.
pub(super) fn with_joined<T>(
    pieces: &[IoSlice<'_>],
    most: usize,
    work: impl FnOnce(&[u8]) -> T,
) -> T {
    let mut joined = GATHERED.take().unwrap_or_default();
    joined.clear();
    for piece in pieces {
        let fits = piece.len().min(most - joined.len());
        joined.extend_from_slice(&piece[..fits]);
    }
    let result = work(&joined);
    GATHERED.set(Some(joined));
    result
}

/// Ciphertext that the socket has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends all of it, or as much as the socket takes.
    pub fn poll_flush(&mut self, wire: &impl Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let sent = ready!(wire.poll_write(cx, &self.bytes[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Sends `bytes` after all that waits already; what the socket does not take waits too.
    pub fn send(&mut self, wire: &impl Wire, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        if !self.is_empty() {
            self.push(bytes);
            return match self.poll_flush(wire, cx) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(()),
            };
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match wire.poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(sent) => rest = &rest[sent?..],
                Poll::Pending => {
                    self.push(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    pub async fn flush(&mut self, wire: &impl Wire) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(wire, cx)).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    /// One direction of a connection in memory.
    #[derive(Debug, Default)]
    struct Pipe {
        bytes: VecDeque<u8>,
        closed: bool,
        writes: usize,
    }

    /// One end of a connection in memory. `most` bytes are in flight at a time.
    #[derive(Clone, Debug)]
    pub struct End {
        reads: Rc<RefCell<Pipe>>,
        writes: Rc<RefCell<Pipe>>,
        pub most: usize,
    }

    /// Two ends that are connected.
    pub fn ends(most: usize) -> (End, End) {
        let (a, b) = (Rc::<RefCell<Pipe>>::default(), Rc::<RefCell<Pipe>>::default());
        let end = |reads: &Rc<_>, writes: &Rc<_>| End {
            reads: Rc::clone(reads),
            writes: Rc::clone(writes),
            most,
        };
        (end(&a, &b), end(&b, &a))
    }

    impl End {
        pub fn close(&self) {
            self.writes.borrow_mut().closed = true;
        }

        /// How often something was written here.
        pub fn writes(&self) -> usize {
            self.writes.borrow().writes
        }

        /// Reads what is there, without waiting.
        pub fn take(&self) -> Vec<u8> {
            self.reads.borrow_mut().bytes.drain(..).collect()
        }

        pub fn put(&self, bytes: &[u8]) {
            self.writes.borrow_mut().bytes.extend(bytes);
        }
    }

    impl Wire for End {
        fn poll_read(&self, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut pipe = self.reads.borrow_mut();
            if pipe.bytes.is_empty() && !pipe.closed {
                return Poll::Pending;
            }
            let len = pipe.bytes.len().min(room.len());
            for (byte, room) in pipe.bytes.drain(..len).zip(room) {
                *room = byte;
            }
            Poll::Ready(Ok(len))
        }

        fn poll_write(&self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let mut pipe = self.writes.borrow_mut();
            let len = self.most.saturating_sub(pipe.bytes.len()).min(bytes.len());
            if len == 0 {
                return Poll::Pending;
            }
            pipe.writes += 1;
            pipe.bytes.extend(&bytes[..len]);
            Poll::Ready(Ok(len))
        }
    }

    /// Polls both by turns until both are done.
    pub fn run<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
        let (mut a, mut b) = (pin!(a), pin!(b));
        let (mut from_a, mut from_b) = (None, None);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100_000 {
            if from_a.is_none()
                && let Poll::Ready(value) = a.as_mut().poll(&mut cx)
            {
                from_a = Some(value);
            }
            if from_b.is_none()
                && let Poll::Ready(value) = b.as_mut().poll(&mut cx)
            {
                from_b = Some(value);
            }
            if from_a.is_some() && from_b.is_some() {
                break;
            }
        }
        (from_a.expect("a ends"), from_b.expect("b ends"))
    }

    #[test]
    fn what_a_socket_does_not_take_waits_in_order() {
        let (a, b) = ends(4);
        let mut cx = Context::from_waker(Waker::noop());
        let mut unsent = Unsent::default();
        unsent.send(&a, &mut cx, b"123456").unwrap();
        assert_eq!((unsent.bytes(), unsent.len()), (&b"56"[..], 2));
        unsent.send(&a, &mut cx, b"78").unwrap();
        assert_eq!(b.take(), b"1234");
        assert!(unsent.poll_flush(&a, &mut cx).is_ready());
        assert_eq!(b.take(), b"5678");
        assert!(unsent.is_empty());
    }
}
