//! Bodies: something that is pulled, chunk by chunk.
//!
//! A reply's body and a request's body are the same kind of thing. A filter wraps the body it
//! pulls from. A chunk is bytes or a range of a file, so that `sendfile` stays possible to the
//! end of the chain.
//!
//! **Invariant:** a body keeps at most what its source's directives allow in memory; nothing is
//! read ahead unless [`Pull::poll_ahead`] is called.

use crate::io::{Chunk, Slice};
use crate::log;
use std::fmt;
use std::task::{Context, Poll, ready};

/// Who is to blame that a body or an exchange ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client: it left, was too slow, or broke the protocol.
    Client,
    /// The upstream.
    Peer,
    /// This server: disk, memory, configuration.
    Own,
}

/// What went wrong, for the log and for the decision what to answer.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Whose fault it was.
    pub whose: Whose,
    /// The status that answers it while no head was sent.
    pub status: u16,
    /// nginx's sentence; empty when it has been logged.
    pub what: String,
}

impl Fault {
    /// The client's fault.
    pub fn client(status: u16, what: impl Into<String>) -> Fault {
        Fault { whose: Whose::Client, status, what: what.into() }
    }
    /// The upstream's fault.
    pub fn peer(status: u16, what: impl Into<String>) -> Fault {
        Fault { whose: Whose::Peer, status, what: what.into() }
    }
    /// Ours.
    pub fn own(what: impl Into<String>) -> Fault {
        Fault { whose: Whose::Own, status: 500, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A source of chunks.
pub trait Pull {
    /// The next chunk, `None` after the last; never an empty chunk.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>>;

    /// Called while the sink cannot take more: a source that buffers may read ahead.
    fn poll_ahead(&mut self, _cx: &mut Context<'_>) {}

    /// Whether a chunk just pulled should reach the client at once (unbuffered sources).
    fn wants_flush(&self) -> bool {
        false
    }

    /// Trailer fields, once `None` was pulled.
    fn trailers(&self) -> Option<&super::Fields> {
        None
    }
}

/// A body.
#[derive(Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// One chunk, whole.
    Whole(Chunk),
    /// Several chunks, whole: a multi-part answer, a buffered request.
    Several(std::collections::VecDeque<Chunk>),
    /// Made while it is pulled.
    Stream(Box<dyn Pull>),
}

impl Body {
    /// A body of these bytes.
    pub fn bytes(bytes: impl Into<Slice>) -> Body {
        let slice = bytes.into();
        if slice.is_empty() { Body::Empty } else { Body::Whole(Chunk::Mem(slice)) }
    }

    /// Its length if it is known without pulling.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Whole(chunk) => Some(chunk.len()),
            Body::Several(chunks) => Some(chunks.iter().map(Chunk::len).sum()),
            Body::Stream(_) => None,
        }
    }

    /// Whether there is nothing to pull.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Takes the body, to be wrapped: `body.wrap(|inner| Gzip::new(inner))`.
    pub fn wrap<P: Pull + 'static>(&mut self, wrapper: impl FnOnce(Body) -> P) {
        let inner = std::mem::take(self);
        *self = Body::Stream(Box::new(wrapper(inner)));
    }

    /// Waits for the next chunk.
    pub async fn pull(&mut self) -> Result<Option<Chunk>, Fault> {
        std::future::poll_fn(|cx| self.poll_pull(cx)).await
    }

    /// Pulls everything into memory, at most `limit` bytes. `None`: it was more.
    pub async fn collect(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Fault> {
        let mut out = Vec::new();
        while let Some(chunk) = self.pull().await? {
            if out.len() as u64 + chunk.len() > limit as u64 {
                return Ok(None);
            }
            chunk.append_to(&mut out).map_err(|e| Fault::own(format!("pread() failed ({e})")))?;
        }
        Ok(Some(out))
    }
}

impl Pull for Body {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        match self {
            Body::Empty => Poll::Ready(Ok(None)),
            Body::Whole(_) => match std::mem::take(self) {
                Body::Whole(chunk) => Poll::Ready(Ok(Some(chunk))),
                _ => unreachable!("just matched"),
            },
            Body::Several(chunks) => Poll::Ready(Ok(chunks.pop_front())),
            Body::Stream(pull) => {
                let next = ready!(pull.poll_pull(cx));
                Poll::Ready(next)
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if let Body::Stream(pull) = self {
            pull.poll_ahead(cx);
        }
    }

    fn wants_flush(&self) -> bool {
        matches!(self, Body::Stream(pull) if pull.wants_flush())
    }

    fn trailers(&self) -> Option<&super::Fields> {
        match self {
            Body::Stream(pull) => pull.trailers(),
            _ => None,
        }
    }
}

/// The bytes of a body, for who must see them: what lies in files is read, piece by piece.
pub struct Bytes {
    /// Where they come from.
    pub body: Body,
    /// What is left of a chunk that lies in a file.
    rest: Option<Chunk>,
}

impl Bytes {
    /// The bytes of `body`.
    pub fn of(body: Body) -> Bytes {
        Bytes { body, rest: None }
    }

    /// Whether the next bytes are those of another chunk.
    pub fn is_between_chunks(&self) -> bool {
        self.rest.is_none()
    }

    /// The next bytes, `None` after the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Slice>, Fault>> {
        let chunk = match self.rest.take() {
            Some(chunk) => Some(chunk),
            None => ready!(self.body.poll_pull(cx))?,
        };
        let Some(mut chunk) = chunk else { return Poll::Ready(Ok(None)) };
        let bytes =
            chunk.take_bytes().map_err(|e| Fault::own(format!("pread() failed{}", log::Os(&e))))?;
        self.rest = Some(chunk).filter(|chunk| !chunk.is_empty());
        Poll::Ready(Ok(Some(bytes)))
    }
}

/// Bodies one after another; the middle one is the reply's own.
pub struct Row {
    bodies: [Body; 3],
    at: usize,
}

const OWN: usize = 1;

impl Row {
    /// A body between two others.
    pub fn around(before: Body, body: Body, after: Body) -> Row {
        Row { bodies: [before, body, after], at: 0 }
    }
}

impl Pull for Row {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        while let Some(body) = self.bodies.get_mut(self.at) {
            if let Some(chunk) = ready!(body.poll_pull(cx))? {
                return Poll::Ready(Ok(Some(chunk)));
            }
            self.at += 1;
        }
        Poll::Ready(Ok(None))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if let Some(body) = self.bodies.get_mut(self.at) {
            body.poll_ahead(cx);
        }
    }

    fn wants_flush(&self) -> bool {
        self.bodies.get(self.at).is_some_and(Body::wants_flush)
    }

    fn trailers(&self) -> Option<&super::Fields> {
        self.bodies[OWN].trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_follow_one_another() {
        let [before, body, after] =
            ["a", "", "c"].map(|text| Body::bytes(text.as_bytes().to_vec()));
        let mut row = Body::Stream(Box::new(Row::around(before, body, after)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Ok(Some(chunk))) = row.poll_pull(&mut cx) {
            chunk.append_to(&mut all).unwrap();
        }
        assert_eq!(all, b"ac");
    }
}
