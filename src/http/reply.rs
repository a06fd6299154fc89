//! What will be, or has been, answered.

use super::Request;
use super::body::Body;
use super::fields::Fields;
use super::rest::Rest;
use crate::io::Conn;
use crate::proto::date;
use crate::proto::header::HeaderId;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// A future on the worker's thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Makes a future where it will live: what it does not hold yet is not copied.
#[inline(always)]
pub fn in_place<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let place = Box::new_uninit();
    Box::into_pin(Box::write(place, make()))
}

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
    /// What feeds the body, if that is not the body itself.
    pub rest: Option<Rest>,
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
            rest: None,
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
    ///
    /// In place and field by field: most replies are reset when they are empty still.
    pub fn reset(&mut self) {
        self.status = 0;
        self.fields.clear();
        self.length = None;
        (self.reason, self.content_type, self.charset, self.etag) = (None, None, None, None);
        self.last_modified = None;
        (self.body, self.rest) = (Body::Empty, None);
        (self.tunnel, self.makes_trailers, self.trailers) = (None, None, None);
        (self.allow_ranges, self.is_upstream_range) = (false, false);
        (self.head_only, self.is_dropped, self.is_judged) = (false, false, false);
        (self.head_sent, self.keeps_server, self.keeps_date) = (false, false, false);
    }

    /// Empties the reply for an answer that is made in its place: fields that were added to it, by
    /// Lua or by a handler, go out with that one; what described the body does not.
    pub fn restart(&mut self) {
        let mut kept = std::mem::take(&mut self.fields);
        kept.retain(|f| !matches!(f.id, HeaderId::AcceptRanges | HeaderId::ContentEncoding));
        self.reset();
        self.keeps_server = kept.get(HeaderId::Server).is_some();
        self.keeps_date = kept.get(HeaderId::Date).is_some();
        self.fields = kept;
    }

    /// Keeps those fields only that belong to the status: the reply that had the others failed.
    pub fn keep_what_explains(&mut self) {
        use HeaderId::*;
        let explains = [Location, WwwAuthenticate, RetryAfter, Allow, ContentRange];
        self.fields.retain(|f| explains.contains(&f.id));
    }

    /// Forgets what described the old body: a filter that changes bytes calls it.
    pub fn body_changes(&mut self) {
        self.length = None;
        self.allow_ranges = false;
        self.fields.remove(HeaderId::AcceptRanges);
        self.weaken_etag();
    }

    /// The value of Content-Type: the type with its charset.
    pub fn push_content_type(&self, out: &mut Vec<u8>) -> bool {
        let Some(media) = &self.content_type else { return false };
        out.extend_from_slice(media.as_bytes());
        if let Some(charset) = &self.charset {
            out.extend_from_slice(b"; charset=");
            out.extend_from_slice(charset.as_bytes());
        }
        true
    }

    /// Whether fields of that name have a place of their own here.
    pub fn has_own_place(name: &[u8]) -> bool {
        use HeaderId::*;
        let own = [ContentType, ContentLength, LastModified, Etag, Server, Date];
        own.contains(&HeaderId::of(name))
    }

    /// Gives a field these values (none removes it), in place of those that it has if `replaces`;
    /// also a field with a place of its own, which takes the last value. False: a length that is
    /// none. For code that names fields itself.
    pub fn put_field(&mut self, name: &[u8], values: &[Vec<u8>], replaces: bool) -> bool {
        let last = values.last().map(Vec::as_slice);
        let text = || last.map(String::from_utf8_lossy);
        let id = HeaderId::of(name);
        match id {
            HeaderId::ContentType => self.put_content_type(text().as_deref()),
            HeaderId::ContentLength => {
                self.length = text().and_then(|text| text.trim().parse().ok());
                return self.length.is_some() || last.is_none();
            }
            HeaderId::LastModified => {
                self.last_modified = last.and_then(date::parse);
                self.fields.remove(id);
                if let Some(other) = last.filter(|_| self.last_modified.is_none()) {
                    self.fields.push(id, other);
                }
            }
            HeaderId::Etag => self.etag = text().map(|text| (&*text).into()),
            _ => {
                self.keeps_server |= id == HeaderId::Server;
                self.keeps_date |= id == HeaderId::Date;
                self.allow_ranges &= id != HeaderId::AcceptRanges || last.is_some();
                if replaces || Reply::has_own_place(name) {
                    self.fields.remove_named(name);
                }
                values.iter().for_each(|value| self.fields.push_named(name, value));
            }
        }
        true
    }

    /// The type with its parameters; a charset among them has a place of its own.
    fn put_content_type(&mut self, whole: Option<&str>) {
        (self.content_type, self.charset) = (whole.map(Into::into), None);
        let Some((media, rest)) = whole.and_then(|whole| whole.split_once(';')) else { return };
        let rest = rest.trim_start_matches(' ');
        let is_charset = rest.get(..8).is_some_and(|name| name.eq_ignore_ascii_case("charset="));
        if is_charset {
            self.content_type = Some(media.into());
            self.charset = Some(rest[8..].trim_matches('"').into());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`Reply`]'s default is, told by naming every field: a new one must be reset too.
    fn is_empty(reply: &Reply) -> bool {
        let Reply {
            status,
            reason,
            fields,
            length,
            content_type,
            charset,
            last_modified,
            etag,
            allow_ranges,
            is_upstream_range,
            body,
            rest,
            head_only,
            is_dropped,
            close: _,
            is_judged,
            tunnel,
            status_override: _,
            head_sent,
            keeps_server,
            keeps_date,
            makes_trailers,
            trailers,
        } = reply;
        let flags = [allow_ranges, is_upstream_range, head_only, is_dropped, is_judged, head_sent];
        *status == 0
            && (reason.is_none() && content_type.is_none() && charset.is_none() && etag.is_none())
            && (fields.is_empty() && fields.block().is_empty() && body.is_empty())
            && (length.is_none() && last_modified.is_none() && rest.is_none())
            && (tunnel.is_none() && makes_trailers.is_none() && trailers.is_none())
            && !(flags.into_iter().any(|flag| *flag) || *keeps_server || *keeps_date)
    }

    #[test]
    fn a_reset_reply_is_empty_but_for_what_concerns_the_connection() {
        let mut reply = Reply {
            status: 200,
            reason: Some("Fine".into()),
            length: Some(1),
            content_type: Some("a/b".into()),
            charset: Some("utf-8".into()),
            last_modified: Some(1),
            etag: Some("\"1\"".into()),
            allow_ranges: true,
            is_upstream_range: true,
            body: Body::bytes(vec![1]),
            rest: Some(Box::new(|_| Box::pin(async {}))),
            head_only: true,
            is_dropped: true,
            close: true,
            is_judged: true,
            status_override: 404,
            head_sent: true,
            keeps_server: true,
            keeps_date: true,
            trailers: Some(Box::default()),
            makes_trailers: Some(Box::new(|_, _| {})),
            ..Reply::default()
        };
        reply.fields.push(HeaderId::Age, b"1");
        reply.reset();
        assert!(is_empty(&reply) && reply.close && reply.status_override == 404);
        assert!(is_empty(&Reply::default()));
    }
}
