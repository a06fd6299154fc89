//! A body that is rewritten as text while it is pulled: recoding, substitution.

use super::Fields;
use super::body::{Body, Bytes, Fault, Pull};
use crate::io::{Chunk, Slice};
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
    source: Bytes,
    transform: T,
    is_over: bool,
}

impl<T: Transform> Transformed<T> {
    /// The body that `inner` becomes.
    pub fn new(inner: Body, transform: T) -> Transformed<T> {
        Transformed { source: Bytes::of(inner), transform, is_over: false }
    }
}

impl<T: Transform> Pull for Transformed<T> {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        while !self.is_over {
            let mut out = Vec::new();
            match ready!(self.source.poll_next(cx))? {
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
        self.source.body.poll_ahead(cx);
    }

    fn wants_flush(&self) -> bool {
        self.source.body.wants_flush()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.source.body.trailers()
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
