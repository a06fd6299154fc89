//! A reply of a subrequest as part of another reply's body.

use super::body::{Body, Fault, Pull};
use super::pipe::KEPT_MAX;
use super::reply::LocalBoxFuture;
use super::{Request, error_page, phase, rest, send};
use crate::io::Chunk;
use crate::log;
use std::task::{Context, Poll, ready};

/// How deep the subrequests of code and of `echo` may nest.
pub const DEPTH_MAX: u8 = 50;

/// Leads a subrequest to its reply and through the filters of its place.
pub async fn fetch(mut r: Request) -> Request {
    phase::run_subrequest(&mut r).await;
    if !r.reply.is_dropped {
        send::run_filters(&mut r).await;
    }
    // Who pulls the body does not know of what feeds it.
    if let Some(rest) = r.reply.rest.take() {
        let body = std::mem::take(&mut r.reply.body);
        match rest::collect(rest, &mut r, body, KEPT_MAX).await {
            Ok(body) => r.reply.body = body,
            Err(fault) => {
                log::error!(&r, "{fault} in a subrequest");
                r.reply.keep_what_explains();
                error_page::built_in(&mut r, 500);
            }
        }
    }
    r
}

/// The body of a subrequest's reply; the request begins when somebody pulls.
pub enum Fetched {
    /// It is being made.
    Coming(LocalBoxFuture<'static, Request>),
    /// It is pulled. The request lives as long as its body does.
    There(Box<Request>),
}

impl Fetched {
    /// The body that `r` will have.
    pub fn new(r: Request) -> Fetched {
        Fetched::Coming(Box::pin(fetch(r)))
    }
}

impl Pull for Fetched {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        if let Fetched::Coming(reply) = self {
            let mut r = ready!(reply.as_mut().poll(cx));
            if r.reply.is_dropped || r.reply.head_only {
                r.reply.body = Body::Empty;
            }
            *self = Fetched::There(Box::new(r));
        }
        match self {
            Fetched::There(r) => r.reply.body.poll_pull(cx),
            Fetched::Coming(_) => unreachable!("just replaced"),
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if let Fetched::There(r) = self {
            r.reply.body.poll_ahead(cx);
        }
    }

    fn wants_flush(&self) -> bool {
        matches!(self, Fetched::There(r) if r.reply.body.wants_flush())
    }
}
