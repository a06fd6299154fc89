//! What a protocol does in an exchange with an upstream; sockets, tries and clocks are the
//! driver's.

use super::spare::SpareHead;
use crate::http::Request;
use crate::io::Slice;
use crate::proto::h1::{self, BodyError, Field, Piece, ReplyHead};
use std::rc::Rc;

/// One request's talk with an upstream. The driver calls, for the request [`Talk::request`] once,
/// and for every try [`Talk::reset`], [`Talk::read_head`] until the head is whole, then
/// [`Talk::body`].
pub trait Talk {
    /// Takes the reply's body out of its framing.
    type Body: Unframe + 'static;

    /// `http://`, for the log.
    fn scheme(&self) -> Rc<str>;

    /// The request's head and the place of the URI in it.
    ///
    /// Errors: the status that ends the request; the reason was logged.
    fn request(&mut self, r: &Request, body: BodyFacts) -> Result<Written, u16>;

    /// Whether a body without known length can be streamed, in chunks.
    fn streams_chunks(&self) -> bool;

    /// A body that stands in for the client's (`proxy_set_body`).
    fn own_body(&self, _r: &Request) -> Option<Vec<u8>> {
        None
    }

    /// Forgets the reply read so far.
    fn reset(&mut self);

    /// Reads on; `bytes` begins with what was given before. The head may have `max` bytes.
    fn read_head(&mut self, bytes: &[u8], max: usize) -> Result<HeadStep, String>;

    /// The head, once it is whole. Spans refer to the bytes that were read.
    fn head(&self) -> &ReplyHead;

    /// The head, kept for the variables when the talk is over.
    fn into_head(self) -> SpareHead;

    /// Begins to read the body.
    fn body(&mut self) -> Self::Body;

    /// Whether the connection lives on after the body, as far as the peer says.
    fn keeps(&self) -> bool;

    /// Whether the client may have the connection after a 101.
    fn may_upgrade(&self, _r: &Request) -> bool {
        false
    }

    /// A URL of `Location` or `Refresh` as the client should see it; `None` leaves it.
    fn redirect(&self, _r: &Request, _url: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// A `Set-Cookie` as the client should see it; `None` leaves it.
    fn cookie(&self, _r: &Request, _line: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// What is known of the request's body when its head is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// Its length, if there is one.
    pub length: Option<u64>,
    /// It is streamed without a known length.
    pub chunked: bool,
}

/// A request's head.
pub struct Written {
    /// All of it.
    pub bytes: Slice,
    /// The URI in it, for the log.
    pub uri: Slice,
}

/// How far the head of a reply was read.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadStep {
    /// More is needed.
    Partial,
    /// It takes so many bytes.
    Complete(usize),
    /// There is none: all is body. The sentence is for the log.
    Absent(&'static str),
}

/// A body in its framing.
pub trait Unframe {
    /// The next piece of `input` at `*at`.
    fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Piece, BodyError>;
    /// The peer closed.
    fn closed(&mut self) -> Result<(), BodyError>;
    /// Whether it is over.
    fn has_ended(&self) -> bool;
    /// Fields behind it, with the bytes that they refer to.
    fn trailer(&self) -> Option<(&[Field], &[u8])>;
}

impl Unframe for h1::Body {
    fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Piece, BodyError> {
        h1::Body::next(self, input, at)
    }
    fn closed(&mut self) -> Result<(), BodyError> {
        h1::Body::closed(self)
    }
    fn has_ended(&self) -> bool {
        h1::Body::has_ended(self)
    }
    fn trailer(&self) -> Option<(&[Field], &[u8])> {
        h1::Body::trailer(self)
    }
}
