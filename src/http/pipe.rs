//! A body that is fed while it is sent: what a content handler says on its way to the client.
//!
//! Until a handler wants it to be sent, or there is much of it, output is kept with the request
//! and leaves with the head as one reply. From then on it goes through a [`Pipe`]: the handler's
//! [`Rest`](super::rest::Rest) pushes, the connection pulls, and who is faster than its client
//! waits ([`FULL`]).

use super::body::{Body, Fault, Pull};
use super::request::Request;
use crate::io::{Chunk, Slice};
use crate::proto::h1::Version;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes after which output that nobody flushed begins to leave.
pub const MUCH: usize = 32 << 10;
/// Bytes on their way after which code waits.
const FULL: usize = 64 << 10;
/// The most that is kept where code cannot wait (in a callback of a C function) or nothing can be
/// sent yet (a subrequest's reply, HTTP/1.0).
pub const KEPT_MAX: usize = 64 << 20;

/// Where output goes once the head is on its way. Clones are the same pipe.
#[derive(Clone, Default)]
pub struct Pipe(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    chunks: VecDeque<Slice>,
    bytes: usize,
    end: End,
    /// Somebody has pulled all there was, so that the head is on its way.
    is_drained: bool,
    /// Nobody pulls any more.
    is_left: bool,
    puller: Option<Waker>,
    pusher: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The body is whole.
    Over,
    /// The code failed: the client is to see that.
    Broken,
}

/// Whether a reply can be begun before it is whole.
pub fn may_begin(r: &Request) -> bool {
    !r.is_subrequest && r.head.version >= Version::Http11 && !r.reply.head_sent
}

impl Pipe {
    /// The body that gives what is pushed.
    pub fn body(&self) -> Body {
        Body::Stream(Box::new(Pulled(self.clone())))
    }

    /// Sends bytes; nobody gets them if the client has left.
    pub fn push(&self, bytes: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        if bytes.is_empty() || state.is_left || state.end != End::Open {
            return;
        }
        state.bytes += bytes.len();
        state.chunks.push_back(bytes.into());
        state.wake_puller();
    }

    /// The body is over, well or not. What follows is thrown away.
    pub fn close(&self, is_well: bool) {
        let mut state = self.0.borrow_mut();
        if state.end == End::Open {
            state.end = if is_well { End::Over } else { End::Broken };
            state.wake_puller();
        }
    }

    /// Whether the client takes no more.
    pub fn is_left(&self) -> bool {
        self.0.borrow().is_left
    }

    /// Whether code had better wait before it says more.
    pub fn is_full(&self) -> bool {
        self.0.borrow().is_above(FULL)
    }

    /// Bytes that nobody has taken yet.
    pub fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Waits until at most `bytes` are left on their way and the head with them, or the client has
    /// left.
    pub async fn sinks_to(&self, bytes: usize) {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if state.is_above(bytes) || !(state.is_drained || state.is_left) {
                state.pusher = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Waits until there is room.
    pub async fn has_room(&self) {
        self.sinks_to(FULL / 2).await;
    }
}

impl State {
    fn is_above(&self, bytes: usize) -> bool {
        !self.is_left && self.bytes > bytes
    }

    fn wake_puller(&mut self) {
        if let Some(waker) = self.puller.take() {
            waker.wake();
        }
    }

    fn wake_pusher(&mut self) {
        if let Some(waker) = self.pusher.take() {
            waker.wake();
        }
    }
}

/// The pulling end.
struct Pulled(Pipe);

impl Pull for Pulled {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        let mut state = self.0.0.borrow_mut();
        if let Some(chunk) = state.chunks.pop_front() {
            state.bytes -= chunk.len();
            state.wake_pusher();
            return Poll::Ready(Ok(Some(Chunk::Mem(chunk))));
        }
        match state.end {
            End::Over => Poll::Ready(Ok(None)),
            // It was logged.
            End::Broken => Poll::Ready(Err(Fault::own(""))),
            End::Open => {
                state.puller = Some(cx.waker().clone());
                state.is_drained = true;
                state.wake_pusher();
                Poll::Pending
            }
        }
    }

    /// Code that flushes wants it to be seen.
    fn wants_flush(&self) -> bool {
        true
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        let mut state = self.0.0.borrow_mut();
        state.is_left = true;
        state.chunks.clear();
        state.bytes = 0;
        state.wake_pusher();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(body: &mut Body) -> Option<Vec<u8>> {
        let mut cx = Context::from_waker(Waker::noop());
        match body.poll_pull(&mut cx) {
            Poll::Ready(Ok(chunk)) => {
                let mut out = Vec::new();
                chunk.iter().for_each(|chunk| chunk.append_to(&mut out).unwrap());
                Some(out)
            }
            Poll::Ready(Err(_)) => Some(b"broken".to_vec()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_pushed_is_pulled() {
        let pipe = Pipe::default();
        let mut body = pipe.body();
        assert_eq!(pull(&mut body), None);
        pipe.push(b"a".to_vec());
        pipe.push(Vec::new());
        pipe.push(vec![b'b'; FULL]);
        assert!(pipe.is_full());
        assert_eq!(pull(&mut body), Some(b"a".to_vec()));
        assert_eq!(pull(&mut body).map(|b| b.len()), Some(FULL));
        assert!(!pipe.is_full());
        pipe.close(true);
        pipe.push(b"late".to_vec());
        assert_eq!(pull(&mut body), Some(Vec::new()));
    }

    #[test]
    fn a_failure_is_seen_and_a_client_that_left_stops_nobody() {
        let pipe = Pipe::default();
        let mut body = pipe.body();
        pipe.push(vec![b'b'; 2 * FULL]);
        pipe.close(false);
        assert_eq!(pull(&mut body).map(|b| b.len()), Some(2 * FULL));
        assert_eq!(pull(&mut body), Some(b"broken".to_vec()));
        let left = Pipe::default();
        drop(left.body());
        left.push(vec![b'b'; 2 * FULL]);
        assert!(left.is_left() && !left.is_full());
    }
}
