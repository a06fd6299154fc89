//! The life of a request, and who takes part in it at one place.
//!
//! [`run`] leads a request through the phases until a reply is there to be sent. Whatever ends a
//! phase early — a status, a redirect from within, a named location — comes back here, so that
//! the order of things is written in one place.

use super::Request;
use super::place::{Sought, URI_CHANGES_MAX, find_location};
use super::reply::LocalBoxFuture;
use super::rewrite::{self, Flow};
use super::{error_page, finish, limits, status};
use crate::log;

/// The life of a request. This list is the only place where the order is written.
///
/// `ServerRewrite`, `FindConfig`, `Rewrite` and `PostRewrite` of nginx stand between `PostRead`
/// and `PreAccess`; they belong to `place` and `rewrite` and take no handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before anything: who is the client really?
    PostRead,
    /// Limits.
    PreAccess,
    /// May the client have it?
    Access,
    /// `try_files`, mirrors.
    PreContent,
    /// The answer. Handlers of the list are asked in turn unless the place has one of its own.
    Content,
}

const PHASES: usize = 5;

/// What a handler decided.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the next handler is asked.
    Decline,
    /// This phase is over; in `Access`: allowed.
    Settle,
    /// The request ends with this status and its page.
    Finish(u16),
    /// `reply` is filled: send it.
    Reply,
    /// `place.uri` and `args` are new: find the location again (an internal redirect).
    Restart,
    /// Go to a named location.
    Named(Box<str>),
}

/// A handler of a phase.
pub enum Handler {
    /// It never waits.
    Sync(Box<dyn Fn(&mut Request) -> Verdict>),
    /// It may wait.
    Async(AsyncHandler),
}

/// A handler that may wait.
pub type AsyncHandler = Box<dyn for<'a> Fn(&'a mut Request) -> LocalBoxFuture<'a, Verdict>>;

/// What a header filter decided.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// Go on.
    Pass,
    /// Send the page of this status instead (304, 412, 416).
    Instead(u16),
}

/// Sees the reply's head, and may wrap its body.
pub type HeaderFilter = Box<dyn Fn(&mut Request) -> Filtered>;
/// Called when the request is over.
pub type LogHandler = Box<dyn Fn(&Request)>;

/// Everything that runs at one place, made once per location.
#[derive(Default)]
pub struct Pipeline {
    handlers: [Vec<Handler>; PHASES],
    content: Option<Handler>,
    filters: Vec<HeaderFilter>,
    log: Vec<LogHandler>,
    slash: bool,
}

impl Pipeline {
    /// Adds a handler that never waits.
    pub fn on(&mut self, phase: Phase, handler: impl Fn(&mut Request) -> Verdict + 'static) {
        self.handlers[phase as usize].push(Handler::Sync(Box::new(handler)));
    }

    /// Adds a handler that may wait.
    pub fn on_async<F>(&mut self, phase: Phase, handler: F)
    where
        F: for<'a> Fn(&'a mut Request) -> LocalBoxFuture<'a, Verdict> + 'static,
    {
        self.handlers[phase as usize].push(Handler::Async(Box::new(handler)));
    }

    /// Makes `handler` the one content handler of this place.
    pub fn content(&mut self, handler: Handler) {
        self.content = Some(handler);
    }

    /// Whether the place has a content handler of its own.
    pub fn has_content(&self) -> bool {
        self.content.is_some()
    }

    /// Adds a header filter; it runs after those that were added before.
    pub fn filter(&mut self, filter: impl Fn(&mut Request) -> Filtered + 'static) {
        self.filters.push(Box::new(filter));
    }

    /// Adds a log handler.
    pub fn log(&mut self, handler: impl Fn(&Request) + 'static) {
        self.log.push(Box::new(handler));
    }

    /// Requests for the location's name without its last slash are redirected to it
    /// (locations that hand everything to an upstream).
    pub fn redirect_to_slash(&mut self) {
        self.slash = true;
    }

    pub(super) fn redirects_to_slash(&self) -> bool {
        self.slash
    }

    /// The header filters in order.
    pub(super) fn filters(&self) -> &[HeaderFilter] {
        &self.filters
    }

    /// The log handlers in order.
    pub(super) fn loggers(&self) -> &[LogHandler] {
        &self.log
    }
}

/// Leads the request to its reply. On return `reply` is complete but unfiltered, or its status is
/// 444: then the connection is closed without one.
pub async fn run(r: &mut Request) {
    r.client.address.clone().capture_host(r);
    let first = post_read(r).await;
    lead(r, first).await;
}

/// Leads a subrequest to its reply; its client is known already.
pub async fn run_subrequest(r: &mut Request) {
    lead(r, Verdict::Restart).await;
    if r.place.location.core.log_subrequest {
        finish::log(r);
    }
}

pub(super) async fn lead(r: &mut Request, mut verdict: Verdict) {
    loop {
        verdict = match verdict {
            Verdict::Reply => return,
            Verdict::Finish(status) => match error_page::finish(r, status) {
                error_page::Next::Send => return,
                error_page::Next::Go(next) => next,
            },
            Verdict::Restart => from_server(r).await,
            Verdict::Named(name) => match enter_named(r, &name) {
                Ok(()) => from_location(r).await,
                Err(status) => Verdict::Finish(status),
            },
            // Nobody answered.
            Verdict::Decline | Verdict::Settle => no_content(r),
        };
    }
}

/// The first phase happens once, on the server's level.
async fn post_read(r: &mut Request) -> Verdict {
    let level = r.place.location.clone();
    for handler in &level.pipeline.handlers[Phase::PostRead as usize] {
        match ask(handler, r).await {
            Verdict::Decline => {}
            Verdict::Settle => break,
            ended => return ended,
        }
    }
    Verdict::Restart
}

/// From the server's rewrites on: the start of a request and of every internal redirect.
async fn from_server(r: &mut Request) -> Verdict {
    r.place.location = r.place.server.root.clone();
    r.place.uri_changed = false;
    let server = r.place.location.clone();
    if let Flow::Done(verdict) = rewrite::run(&server.rewrites, r) {
        return verdict;
    }
    find(r).await
}

/// From finding the location on.
async fn find(r: &mut Request) -> Verdict {
    loop {
        r.place.uri_changed = false;
        if find_location(r) == Sought::NeedsSlash {
            return rewrite::redirect_to_slash(r);
        }
        if let Some(refused) = enter_location(r) {
            return Verdict::Finish(refused);
        }
        let location = r.place.location.clone();
        if let Flow::Done(verdict) = rewrite::run(&location.rewrites, r) {
            return verdict;
        }
        if !r.place.uri_changed {
            return phases(r).await;
        }
        if !spend_uri_change(r) {
            return Verdict::Finish(500);
        }
    }
}

/// From the location's own rewrites on: named locations.
async fn from_location(r: &mut Request) -> Verdict {
    let location = r.place.location.clone();
    if let Flow::Done(verdict) = rewrite::run(&location.rewrites, r) {
        return verdict;
    }
    if !r.place.uri_changed {
        return phases(r).await;
    }
    if !spend_uri_change(r) {
        return Verdict::Finish(500);
    }
    find(r).await
}

/// Checks what must hold in a location that was just found; the status if it does not.
fn enter_location(r: &mut Request) -> Option<u16> {
    let core = r.place.location.core.clone();
    if core.internal && !r.place.internal {
        return Some(404);
    }
    if let Some(length) = r.head.content_length
        && core.client_max_body_size != 0
        && length > core.client_max_body_size
        && !r.body.is_discarded()
    {
        log::error!(&*r, "client intended to send too large body: {length} bytes");
        r.body.discard_later();
        return Some(413);
    }
    None
}

async fn phases(r: &mut Request) -> Verdict {
    limit_except(r);
    let location = r.place.location.clone();
    for handler in &location.pipeline.handlers[Phase::PreAccess as usize] {
        match ask(handler, r).await {
            Verdict::Decline => {}
            Verdict::Settle => break,
            ended => return ended,
        }
    }
    if !r.is_subrequest
        && let Some(refused) = access(r, &location.pipeline).await
    {
        return refused;
    }
    for phase in [Phase::PreContent, Phase::Content] {
        let own = location.pipeline.content.as_ref().filter(|_| phase == Phase::Content);
        if let Some(own) = own {
            return ask(own, r).await;
        }
        for handler in &location.pipeline.handlers[phase as usize] {
            match ask(handler, r).await {
                Verdict::Decline => {}
                Verdict::Settle => break,
                ended => return ended,
            }
        }
    }
    Verdict::Decline
}

/// `satisfy all`: everybody must allow; `satisfy any`: one who allows is enough.
async fn access(r: &mut Request, pipeline: &Pipeline) -> Option<Verdict> {
    let any = r.place.location.core.satisfy_any;
    let mut denied = 0;
    for handler in &pipeline.handlers[Phase::Access as usize] {
        match ask(handler, r).await {
            Verdict::Decline => {}
            Verdict::Settle if any => {
                r.reply.fields.remove(crate::proto::header::HeaderId::WwwAuthenticate);
                return None;
            }
            Verdict::Settle => {}
            Verdict::Finish(status @ (401 | 403)) if any => {
                if denied != 401 {
                    denied = status;
                }
            }
            Verdict::Finish(401) => return Some(delay_refusal(r).await),
            ended => return Some(ended),
        }
    }
    if denied == 403 {
        log::error!(&*r, "access forbidden by rule");
    }
    if denied == 401 {
        return Some(delay_refusal(r).await);
    }
    (denied != 0).then_some(Verdict::Finish(denied))
}

/// `auth_delay`: guessing passwords takes time.
async fn delay_refusal(r: &mut Request) -> Verdict {
    let delay = r.place.location.core.auth_delay;
    let is_over = delay.is_zero() || limits::hold_back(r, delay).await == Verdict::Decline;
    Verdict::Finish(if is_over { 401 } else { status::CLIENT_CLOSED })
}

/// `limit_except`: other methods are handled by the block's own level.
fn limit_except(r: &mut Request) {
    let location = r.place.location.clone();
    if let Some((free, limited)) = &location.limit_except
        && !free.contains(&r.method)
    {
        r.place.location = limited.clone();
    }
}

async fn ask(handler: &Handler, r: &mut Request) -> Verdict {
    match handler {
        Handler::Sync(handler) => handler(r),
        Handler::Async(handler) => handler(r).await,
    }
}

/// A URI without a handler: a directory that nobody indexes, or nothing.
fn no_content(r: &mut Request) -> Verdict {
    if r.place.uri.last() == Some(&b'/') {
        let path = r.place.location.core.path_of(r);
        log::error!(&*r, "directory index of \"{}\" is forbidden", log::Raw(&path));
        return Verdict::Finish(403);
    }
    log::error!(&*r, "no handler found");
    Verdict::Finish(404)
}

fn enter_named(r: &mut Request, name: &str) -> Result<(), u16> {
    if !spend_uri_change(r) {
        return Err(500);
    }
    if r.place.uri.is_empty() {
        log::error!(&*r, "empty URI in redirect to named location \"{name}\"");
        return Err(500);
    }
    let named = r.place.server.root.nested.named(name).cloned();
    let Some(location) = named else {
        log::error!(&*r, "could not find named location \"{name}\"");
        return Err(500);
    };
    r.place.internal = true;
    r.place.location = location;
    r.place.uri_changed = false;
    Ok(())
}

/// Takes one of the bounded changes; false when a circle is likely.
fn spend_uri_change(r: &mut Request) -> bool {
    debug_assert!(r.place.uri_changes <= URI_CHANGES_MAX + 1);
    r.place.uri_changes = r.place.uri_changes.saturating_sub(1);
    if r.place.uri_changes == 0 {
        let uri = r.place.uri.clone();
        log::error!(
            &*r,
            "rewrite or internal redirection cycle while processing \"{}\"",
            log::Raw(&uri)
        );
        return false;
    }
    true
}

impl Request {
    /// Sends the request to another URI from within; the handler returns the verdict.
    pub fn internal_redirect(&mut self, uri: Vec<u8>, args: Vec<u8>) -> Verdict {
        if !spend_uri_change(self) {
            return Verdict::Finish(500);
        }
        self.place.uri = uri;
        self.place.args = args;
        self.place.internal = true;
        self.place.is_original = false;
        self.place.adds_uri_to_alias = false;
        self.place.begins_as_named = true;
        self.place.location = self.place.server.root.clone();
        Verdict::Restart
    }
}
