//! HTTP/1 towards an upstream.

use super::request;
use super::rewrite;
use super::target::Target;
use super::{HttpVersion, Loc};
use crate::http::Request;
use crate::http::upstream::spare::SpareHead;
use crate::http::upstream::{BodyFacts, HeadStep, Talk, Written};
use crate::proto::h1::{Body, Progress, ReplyError, ReplyHead};
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// Bytes that a trailer may have.
const TRAILER_MAX_BYTES: usize = 16 << 10;

/// One request's talk.
pub struct HttpTalk {
    loc: Rc<Loc>,
    target: Target,
    head: SpareHead,
    /// Only a head was asked for.
    is_head: bool,
}

impl HttpTalk {
    /// A talk with `target` under the directives of `loc`.
    pub fn new(loc: Rc<Loc>, target: Target) -> HttpTalk {
        HttpTalk { loc, target, head: SpareHead::take(), is_head: false }
    }
}

impl Talk for HttpTalk {
    type Body = Body;

    fn scheme(&self) -> Rc<str> {
        self.target.scheme.clone()
    }

    fn request(&mut self, r: &Request, body: BodyFacts) -> Result<Written, u16> {
        let (written, is_head) = request::write(r, &self.loc, &self.target, body)?;
        self.is_head = is_head;
        Ok(written)
    }

    fn streams_chunks(&self) -> bool {
        self.loc.version == HttpVersion::Http11
    }

    fn own_body(&self, r: &Request) -> Option<Vec<u8>> {
        self.loc.body.as_ref().map(|body| body.value(r).into_owned())
    }

    fn reset(&mut self) {
        self.head.clear();
    }

    fn read_head(&mut self, bytes: &[u8], max: usize) -> Result<HeadStep, String> {
        match self.head.read(bytes, max) {
            Ok(Progress::Complete { len }) => Ok(HeadStep::Complete(len)),
            Ok(_) => Ok(HeadStep::Partial),
            Err(e @ ReplyError::NoStatusLine) => {
                debug_assert!(e.sentence(bytes).to_string().contains("no valid HTTP/1.0"));
                self.head.clear();
                self.head.status = 200;
                self.head.closes = true;
                Ok(HeadStep::Absent("upstream sent no valid HTTP/1.0 header"))
            }
            Err(e) => Err(e.sentence(bytes).to_string()),
        }
    }

    fn head(&self) -> &ReplyHead {
        &self.head
    }

    fn into_head(self) -> SpareHead {
        self.head
    }

    fn body(&mut self) -> Body {
        Body::new(self.head.framing(self.is_head), TRAILER_MAX_BYTES)
    }

    fn keeps(&self) -> bool {
        !self.head.closes && self.head.status != 101
    }

    fn may_upgrade(&self, r: &Request) -> bool {
        r.header(HeaderId::Upgrade).is_some()
    }

    fn redirect(&self, r: &Request, url: &[u8]) -> Option<Vec<u8>> {
        rewrite::first(&self.loc.redirects, r, url)
    }

    fn cookie(&self, r: &Request, line: &[u8]) -> Option<Vec<u8>> {
        let loc = &self.loc;
        if loc.cookie_domains.is_empty()
            && loc.cookie_paths.is_empty()
            && loc.cookie_flags.is_empty()
        {
            return None;
        }
        rewrite::cookie(&loc.cookie_domains, &loc.cookie_paths, &loc.cookie_flags, r, line)
    }
}
