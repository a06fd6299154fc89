//! A body that is rewritten as text while it is pulled: recoding, substitution.

use super::{Body, Fault, Fields, Pull};
use crate::io::{Chunk, Slice};
use crate::log;
use std::task::{Context, Poll, ready};

/// What rewrites bytes. It may hold some back until it knows what follows.
pub trait Transform {
    /// Takes the next bytes and appends what is certain to `out`.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>);
    /// Appends what was held back: nothing follows.
    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// A body whose bytes go through `transform`.
pub struct Transformed<T> {
    inner: Body,
    /// What is left of a file's range.
    rest: Option<Chunk>,
    transform: T,
    is_over: bool,
}

impl<T: Transform> Transformed<T> {
    /// The body that `inner` becomes.
    pub fn new(inner: Body, transform: T) -> Transformed<T> {
        Transformed { inner, rest: None, transform, is_over: false }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Slice>, Fault>> {
        let chunk = match self.rest.take() {
            Some(chunk) => Some(chunk),
            None => ready!(self.inner.poll_pull(cx))?,
        };
        let Some(mut chunk) = chunk else { return Poll::Ready(Ok(None)) };
        let bytes =
            chunk.take_bytes().map_err(|e| Fault::own(format!("pread() failed{}", log::Os(&e))))?;
        self.rest = Some(chunk).filter(|chunk| !chunk.is_empty());
        Poll::Ready(Ok(Some(bytes)))
    }
}

impl<T: Transform> Pull for Transformed<T> {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        while !self.is_over {
            let mut out = Vec::new();
            match ready!(self.poll_bytes(cx))? {
                Some(bytes) => {
                    out.reserve(bytes.len());
                    self.transform.feed(&bytes, &mut out);
                }
                None => {
                    self.is_over = true;
                    self.transform.end(&mut out);
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(Chunk::Mem(Slice::from(out)))));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        self.inner.poll_ahead(cx);
    }

    fn wants_flush(&self) -> bool {
        self.inner.wants_flush()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.inner.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles every byte but the last, which it learns of at the end only.
    #[derive(Default)]
    struct Twice(Option<u8>);

    impl Transform for Twice {
        fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
            for byte in bytes {
                let before = self.0.replace(*byte);
                out.extend(before.into_iter().flat_map(|b| [b, b]));
            }
        }
        fn end(&mut self, out: &mut Vec<u8>) {
            out.extend(self.0.take());
        }
    }

    #[test]
    fn what_is_held_back_comes_last() {
        let pieces = [&b"a"[..], b"b", b"cd"].map(|piece| Chunk::from(piece.to_vec()));
        let mut body = Transformed::new(Body::Several(pieces.into()), Twice::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Ok(Some(chunk))) = body.poll_pull(&mut cx) {
            assert!(!chunk.is_empty());
            chunk.append_to(&mut all).unwrap();
        }
        assert_eq!(all, b"aabbccd");
    }
}
