//! The life of a request, and who takes part in it at one place.
//!
//! [`run`] leads a request through the phases until a reply is there to be sent. Whatever ends a
//! phase early — a status, a redirect from within, a named location — comes back here, so that
//! the order of things is written in one place.

use super::Request;
use super::handshake::HandshakeHandler;
use super::place::{Location, Sought, URI_CHANGES_MAX, find_location};
use super::reply::LocalBoxFuture;
use super::rewrite::{self, Flow};
use super::{error_page, finish, limits, status};
use crate::log;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

/// The life of a request. This list is the only place where the order is written.
///
/// `FindConfig` and `PostRewrite` of nginx stand between `ServerRewrite` and `PreAccess`; they
/// belong to `place` and `rewrite` and take no handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before anything: who is the client really?
    PostRead,
    /// Behind the server's rewrites, before a location is sought.
    ServerRewrite,
    /// Behind the location's own rewrites, once per location that is found.
    Rewrite,
    /// Limits.
    PreAccess,
    /// May the client have it?
    Access,
    /// `try_files`, mirrors.
    PreContent,
    /// The answer. Handlers of the list are asked in turn unless the place has one of its own.
    Content,
}

const PHASES: usize = 7;

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
    /// `place.uri` is new: find the location again, without the server's own rewrites.
    Relocate,
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
pub type LogHandler = Box<dyn Fn(&mut Request)>;

/// Everything that runs at one place, made once per location.
#[derive(Default)]
pub struct Pipeline {
    handlers: [Vec<Handler>; PHASES],
    content: Option<Handler>,
    filters: Vec<HeaderFilter>,
    log: Vec<LogHandler>,
    client_hello: Option<HandshakeHandler>,
    certificate: Option<HandshakeHandler>,
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
    pub fn log(&mut self, handler: impl Fn(&mut Request) + 'static) {
        self.log.push(Box::new(handler));
    }

    /// Adds the handler that sees clients' hellos; of a server's own level.
    pub fn on_client_hello(&mut self, handler: HandshakeHandler) {
        self.client_hello = Some(handler);
    }

    /// Adds the handler that may set the certificate; of a server's own level.
    pub fn on_certificate(&mut self, handler: HandshakeHandler) {
        self.certificate = Some(handler);
    }

    pub(super) fn client_hello_handler(&self) -> Option<&HandshakeHandler> {
        self.client_hello.as_ref()
    }

    pub(super) fn certificate_handler(&self) -> Option<&HandshakeHandler> {
        self.certificate.as_ref()
    }

    /// Requests for the location's name without its last slash are redirected to it
    /// (locations that hand everything to an upstream).
    pub fn redirect_to_slash(&mut self) {
        self.slash = true;
    }

    pub(super) fn redirects_to_slash(&self) -> bool {
        self.slash
    }

    /// The handlers of a phase in order; of a place with its own content handler, that one.
    fn handlers(&self, phase: Phase) -> &[Handler] {
        match &self.content {
            Some(own) if phase == Phase::Content => std::slice::from_ref(own),
            _ => &self.handlers[phase as usize],
        }
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
    Walk::at(Phase::PostRead, r).lead(r, None).await;
}

/// Leads a subrequest to its reply; its client is known already.
pub async fn run_subrequest(r: &mut Request) {
    lead(r, Verdict::Restart).await;
    if r.place.location.core.log_subrequest {
        finish::log(r);
    }
}

/// Goes on with what somebody outside the phases decided.
pub(super) async fn lead(r: &mut Request, verdict: Verdict) {
    Walk::at(Phase::Content, r).lead(r, Some(verdict)).await;
}

/// A request on its way through the phases. All of it is plain code but for the handlers that
/// wait: a request that is woken finds its handler at once.
struct Walk {
    /// Whose handlers are asked.
    location: Rc<Location>,
    phase: Phase,
    /// The handler of the phase that is asked next.
    next: usize,
    /// `satisfy any`: the refusal so far, or 0.
    denied: u16,
    /// `auth_delay`, when a refusal is due.
    delay: Option<Duration>,
}

/// How a walk goes on.
enum Step {
    /// The reply is made.
    Over,
    /// The handler before `next` is to be asked, and awaited.
    Ask,
    /// The verdict counts after a while.
    Delay(Duration, Verdict),
}

impl Walk {
    fn at(phase: Phase, r: &Request) -> Walk {
        Walk { location: r.place.location.clone(), phase, next: 0, denied: 0, delay: None }
    }

    async fn lead(mut self, r: &mut Request, mut ended: Option<Verdict>) {
        loop {
            ended = match self.go_on(r, ended) {
                Step::Over => return,
                Step::Ask => {
                    let location = self.location.clone();
                    let Some(Handler::Async(handler)) = self.asked(&location.pipeline) else {
                        unreachable!("only a handler that waits is left to be asked");
                    };
                    let said = handler(r).await;
                    self.weigh(r, said)
                }
                Step::Delay(time, verdict) => {
                    let waited = Box::pin(limits::hold_back(r, time)).await;
                    let is_over = waited == Verdict::Decline;
                    Some(if is_over { verdict } else { Verdict::Finish(status::CLIENT_CLOSED) })
                }
            };
        }
    }

    /// The handler that was taken last.
    fn asked<'a>(&self, pipeline: &'a Pipeline) -> Option<&'a Handler> {
        pipeline.handlers(self.phase).get(self.next - 1)
    }

    /// Goes on as far as nobody has to wait. `ended`: what a phase ended with, if it did.
    fn go_on(&mut self, r: &mut Request, mut ended: Option<Verdict>) -> Step {
        loop {
            ended = match ended {
                Some(verdict) => match self.delay.take() {
                    Some(time) => return Step::Delay(time, verdict),
                    None => match verdict {
                        Verdict::Reply => return Step::Over,
                        Verdict::Finish(status) => match error_page::finish(r, status) {
                            error_page::Next::Send => return Step::Over,
                            error_page::Next::Go(next) => Some(next),
                        },
                        Verdict::Restart => self.begin_at_server(r),
                        Verdict::Relocate if spend_uri_change(r) => self.find(r),
                        Verdict::Relocate => Some(Verdict::Finish(500)),
                        Verdict::Named(name) => match enter_named(r, &name) {
                            Ok(()) => self.begin_at_location(r),
                            Err(status) => Some(Verdict::Finish(status)),
                        },
                        // Nobody answered.
                        Verdict::Decline | Verdict::Settle => Some(no_content(r)),
                    },
                },
                None => match self.location.pipeline.handlers(self.phase).get(self.next) {
                    Some(Handler::Sync(handler)) => {
                        self.next += 1;
                        let said = handler(r);
                        self.weigh(r, said)
                    }
                    Some(Handler::Async(_)) => {
                        self.next += 1;
                        return Step::Ask;
                    }
                    None => self.leave_phase(r),
                },
            };
        }
    }

    /// What a handler said: `None` if others are to be asked.
    fn weigh(&mut self, r: &mut Request, said: Verdict) -> Option<Verdict> {
        match said {
            Verdict::Decline => None,
            said if self.phase == Phase::Access => self.weigh_access(r, said),
            Verdict::Settle => self.leave_phase(r),
            ended => Some(ended),
        }
    }

    /// `satisfy all`: everybody must allow; `satisfy any`: one who allows is enough.
    fn weigh_access(&mut self, r: &mut Request, said: Verdict) -> Option<Verdict> {
        let any = r.place.location.core.satisfy_any;
        match said {
            Verdict::Settle if any => {
                r.reply.fields.remove(crate::proto::header::HeaderId::WwwAuthenticate);
                self.denied = 0;
                self.leave_phase(r)
            }
            Verdict::Settle => None,
            Verdict::Finish(status @ (401 | 403)) if any => {
                if self.denied != 401 {
                    self.denied = status;
                }
                None
            }
            Verdict::Finish(401) => Some(self.refuse(r, 401)),
            ended => Some(ended),
        }
    }

    /// Every handler of the phase was asked, or one settled it.
    fn leave_phase(&mut self, r: &mut Request) -> Option<Verdict> {
        let denied = std::mem::take(&mut self.denied);
        self.next = 0;
        self.phase = match self.phase {
            Phase::PostRead => return Some(Verdict::Restart),
            Phase::ServerRewrite => return self.find(r),
            Phase::Rewrite => Phase::PreAccess,
            Phase::PreAccess if r.is_subrequest => Phase::PreContent,
            Phase::PreAccess => Phase::Access,
            Phase::Access if denied != 0 => return Some(self.refuse(r, denied)),
            Phase::Access => Phase::PreContent,
            Phase::PreContent => Phase::Content,
            Phase::Content => return Some(Verdict::Decline),
        };
        None
    }

    /// Access is denied. `auth_delay`: guessing passwords takes time.
    fn refuse(&mut self, r: &Request, status: u16) -> Verdict {
        let delay = r.place.location.core.auth_delay;
        match status {
            403 => log::error!(r, "access forbidden by rule"),
            _ => self.delay = (!delay.is_zero()).then_some(delay),
        }
        Verdict::Finish(status)
    }

    /// From the server's rewrites on: the start of a request and of every internal redirect.
    fn begin_at_server(&mut self, r: &mut Request) -> Option<Verdict> {
        let server = r.place.server.root.clone();
        r.place.location = server.clone();
        r.place.uri_changed = false;
        if let Flow::Done(verdict) = rewrite::run(&server.rewrites, r) {
            return Some(verdict);
        }
        if server.pipeline.handlers(Phase::ServerRewrite).is_empty() {
            return self.find(r);
        }
        *self = Walk::at(Phase::ServerRewrite, r);
        None
    }

    /// From finding the location on.
    fn find(&mut self, r: &mut Request) -> Option<Verdict> {
        loop {
            r.place.uri_changed = false;
            if find_location(r) == Sought::NeedsSlash {
                return Some(rewrite::redirect_to_slash(r));
            }
            if let Some(refused) = enter_location(r) {
                return Some(Verdict::Finish(refused));
            }
            if let ControlFlow::Break(ended) = self.rewrite_here(r) {
                return ended;
            }
        }
    }

    /// From the location's own rewrites on: named locations.
    fn begin_at_location(&mut self, r: &mut Request) -> Option<Verdict> {
        match self.rewrite_here(r) {
            ControlFlow::Break(ended) => ended,
            ControlFlow::Continue(()) => self.find(r),
        }
    }

    /// The rewrites of the location that was found; then its phases, unless the URI is another
    /// one now and its location is to be found.
    fn rewrite_here(&mut self, r: &mut Request) -> ControlFlow<Option<Verdict>> {
        let location = r.place.location.clone();
        if let Flow::Done(verdict) = rewrite::run(&location.rewrites, r) {
            return ControlFlow::Break(Some(verdict));
        }
        if !r.place.uri_changed {
            return ControlFlow::Break(self.enter_phases(r));
        }
        if !spend_uri_change(r) {
            return ControlFlow::Break(Some(Verdict::Finish(500)));
        }
        ControlFlow::Continue(())
    }

    /// The location is found: its handlers are asked.
    fn enter_phases(&mut self, r: &mut Request) -> Option<Verdict> {
        limit_except(r);
        *self = Walk::at(Phase::Rewrite, r);
        None
    }
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

/// `limit_except`: other methods are handled by the block's own level.
fn limit_except(r: &mut Request) {
    let location = r.place.location.clone();
    if let Some((free, limited)) = &location.limit_except
        && !free.contains(&r.method)
    {
        r.place.location = limited.clone();
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
    r.place.visits += 1;
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
        self.place.visits += 1;
        self.place.is_original = false;
        self.place.adds_uri_to_alias = false;
        self.place.begins_as_named = true;
        self.place.location = self.place.server.root.clone();
        Verdict::Restart
    }
}
