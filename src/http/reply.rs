//! What will be, or has been, answered.

use super::Request;
use super::body::Body;
use super::fields::Fields;
use crate::io::Conn;
use crate::proto::header::HeaderId;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// A future on the worker's thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What happens on the connection after a 101: it gets the connection and what the client sent
/// already, and ends when either side has.
pub type Tunnel = Box<dyn FnOnce(Rc<Conn>, Vec<u8>) -> LocalBoxFuture<'static, TunnelBytes>>;

/// Bytes that a tunnel moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct TunnelBytes {
    /// From the client to the upstream.
    pub received: u64,
    /// From the upstream to the client.
    pub sent: u64,
}

/// Adds trailer fields when a reply's body is over: `add_trailer`.
pub type TrailerMaker = Box<dyn Fn(&Request, &mut Fields)>;

/// The answer's head and body, filled by a content handler, changed by filters.
///
/// `Content-Length`, `Content-Type`, `Last-Modified`, `ETag` have places of their own because
/// filters decide by them; all other fields stand in `fields`.
pub struct Reply {
    /// The status code; 0 until something was decided.
    pub status: u16,
    /// The upstream's own reason phrase, if it is to be kept.
    pub reason: Option<Box<str>>,
    /// All fields but those with a place of their own here.
    pub fields: Fields,
    /// The length of the body, if known.
    pub length: Option<u64>,
    /// The media type with its parameters but the charset; `None` sends none.
    pub content_type: Option<Rc<str>>,
    /// The charset to be added to the type.
    pub charset: Option<Box<str>>,
    /// Seconds since the epoch.
    pub last_modified: Option<i64>,
    /// With its quotes.
    pub etag: Option<Rc<str>>,
    /// Whether ranges of it may be asked for.
    pub allow_ranges: bool,
    /// Whether it is one part of a 206 that an upstream made: not to be cut again.
    pub is_upstream_range: bool,
    /// The body.
    pub body: Body,
    /// Only the head goes out, as for HEAD and 304.
    pub head_only: bool,
    /// Nothing is sent: the connection just ends (444, 408, a client that left).
    pub is_dropped: bool,
    /// The connection is closed after this reply.
    pub close: bool,
    /// The request's conditions were judged where the reply was made: by an upstream.
    pub is_judged: bool,
    /// What takes over the connection after a 101.
    pub tunnel: Option<Tunnel>,
    /// The status that `error_page … =code` wants instead of `status`.
    pub status_override: u16,
    /// Whether the head is on its way to the client: nothing can be answered instead any more.
    pub head_sent: bool,
    /// `Server` and `Date` as the upstream gave them (`proxy_pass_header`).
    pub keeps_server: bool,
    pub keeps_date: bool,
    /// Who adds trailer fields at the end; the body is sent in a framing that can carry them.
    pub makes_trailers: Option<TrailerMaker>,
    /// The trailer fields that were sent.
    pub trailers: Option<Box<Fields>>,
}

impl Default for Reply {
    fn default() -> Reply {
        Reply {
            status: 0,
            reason: None,
            fields: Fields::default(),
            length: None,
            content_type: None,
            charset: None,
            last_modified: None,
            etag: None,
            allow_ranges: false,
            is_upstream_range: false,
            body: Body::Empty,
            head_only: false,
            is_dropped: false,
            close: false,
            is_judged: false,
            tunnel: None,
            status_override: 0,
            head_sent: false,
            keeps_server: false,
            keeps_date: false,
            makes_trailers: None,
            trailers: None,
        }
    }
}

impl Reply {
    /// Empties the reply for a new answer; what concerns the connection stays.
    pub fn reset(&mut self) {
        let (close, status_override) = (self.close, self.status_override);
        *self = Reply { close, status_override, ..Reply::default() };
    }

    /// Forgets what described the old body: a filter that changes bytes calls it.
    pub fn body_changes(&mut self) {
        self.length = None;
        self.allow_ranges = false;
        self.fields.remove(HeaderId::AcceptRanges);
        self.weaken_etag();
    }

    /// Drops what names exactly these bytes (a filter that rewrites text).
    pub fn forget_validators(&mut self) {
        self.last_modified = None;
        self.etag = None;
    }

    /// Makes the entity tag a weak one (the bytes change, the meaning does not).
    pub fn weaken_etag(&mut self) {
        match self.etag.take() {
            Some(tag) if tag.starts_with("W/") => self.etag = Some(tag),
            Some(tag) if tag.starts_with('"') => self.etag = Some(format!("W/{tag}").into()),
            _ => {}
        }
    }
}

impl Request {
    /// Fills the reply with `body` of `content_type`; the length is the body's.
    pub fn answer(&mut self, status: u16, content_type: Option<&str>, body: Body) {
        self.reply.status = status;
        self.reply.length = body.len();
        self.reply.content_type = content_type.map(Into::into);
        self.reply.body = body;
    }
}
