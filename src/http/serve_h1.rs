//! Drives one HTTP/1 connection: head, request, reply, and again.
//!
//! An idle connection holds a task and nothing else: a head is read into the worker's scratch
//! buffer and copied once, when it is whole. What arrived behind it waits in [`Wire::ahead`].

use super::body::{Fault, Pull, Whose};
use super::client::Client;
use super::finish::Ending;
use super::life::Life;
use super::phase::Verdict;
use super::reply::in_place;
use super::request::{Head, Interim, Request, Tally};
use super::request_body::RequestBody;
use super::send::{self, After};
use super::{Fields, HttpConf, error_page, phase, ssl, status};
use crate::event::census;
use crate::io::{Chunk, Conn, Slice};
use crate::proto::h1::{self, Framing, HeadError, HeadRules, KeepAlive, Progress, RequestHead};
use crate::proto::h1::{Piece, Version};
use crate::proto::header::HeaderId;
use crate::proto::uri;
use crate::{event, io, log, sys};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How many bytes of a discarded body are read to keep a connection.
const DRAIN_MAX_BYTES: u64 = 64 << 20;
/// Bytes of a trailer.
const TRAILER_MAX_BYTES: usize = 16 << 10;
/// What tells a client to send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How many bytes of a discarded body are looked at before the reply is sent.
const LOOK_AHEAD_BYTES: u64 = 64 << 10;
/// Bytes read from the client for one chunk of a body.
const BODY_READ_BYTES: usize = 16 << 10;

/// A connection with what was read from it too early.
pub struct Wire {
    conn: Rc<Conn>,
    ahead: RefCell<Vec<u8>>,
    received: Cell<u64>,
    /// How long the client may idle: its last request's place says it.
    idle: Cell<Option<Duration>>,
    /// The client waits for `100 Continue` before it sends the body.
    expects: Cell<bool>,
    /// Bounds the wait for a head.
    deadline: event::Deadline,
    /// What is to be sent before anything else: early hints that the socket had no room for.
    owed: RefCell<Vec<u8>>,
}

/// Serves requests until the connection ends. `ahead` is what was read of it already.
pub async fn serve(client: Rc<Client>, http: Rc<HttpConf>, life: Rc<Life>, ahead: Vec<u8>) {
    let wire = Rc::new(Wire {
        conn: client.conn.clone(),
        ahead: RefCell::new(ahead),
        received: Cell::new(0),
        idle: Cell::new(None),
        expects: Cell::new(false),
        deadline: event::Deadline::never(),
        owed: RefCell::default(),
    });
    loop {
        let arrived = match next_head(&wire, &client, &life).await {
            Arrival::Request(arrived) => arrived,
            Arrival::Bad(bad) => {
                Box::pin(refuse(bad, &wire, &client, &http)).await;
                return;
            }
            Arrival::Over => return,
        };
        let after = in_place(|| one(arrived, &wire, &client, &http, &life)).await;
        match after {
            After::Keep => {}
            After::Close => return,
            After::Linger(rules) => return linger(&wire, rules).await,
        }
    }
}

/// One whole head.
struct Arrived {
    head: Box<RequestHead>,
    block: Vec<u8>,
    started: Instant,
    pipelined: bool,
}

enum Arrival {
    Request(Arrived),
    Bad(Refused),
    /// The client is gone, or idle for too long.
    Over,
}

struct Refused {
    error: HeadError,
    head: Box<RequestHead>,
    block: Vec<u8>,
}

/// A head that has arrived in part.
struct Partial {
    head: Box<RequestHead>,
    block: Vec<u8>,
    started: Instant,
}

thread_local! {
    /// Parsers that are not in use.
    #[expect(clippy::vec_box, reason = "the boxes move in and out, not what is in them")]
    static PARSERS: RefCell<Vec<Box<RequestHead>>> = const { RefCell::new(Vec::new()) };
}
const PARSERS_KEPT: usize = 64;

fn take_parser() -> Box<RequestHead> {
    PARSERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_back(mut parser: Box<RequestHead>) {
    parser.clear();
    PARSERS.with_borrow_mut(|kept| {
        if kept.len() < PARSERS_KEPT {
            kept.push(parser);
        }
    });
}

/// Waits for the next head. Idle time is bounded by `keepalive_timeout`, a begun head by
/// `client_header_timeout`.
async fn next_head(wire: &Rc<Wire>, client: &Rc<Client>, life: &Rc<Life>) -> Arrival {
    let core = client.address.default.root.core.clone();
    let rules = head_rules(&core);
    let mut partial: Option<Box<Partial>> = None;
    let pipelined = !wire.ahead.borrow().is_empty();
    if pipelined {
        let bytes = wire.ahead.take();
        match read_head(&bytes, &rules, &mut partial, wire, true) {
            Some(arrival) => return arrival,
            None => debug_assert!(partial.is_some() || bytes.is_empty()),
        }
    }
    let mut idle = partial.is_none() && client.requests.get() > 0;
    wire.deadline.set_after(match idle {
        true => wire.idle.get().unwrap_or(core.keepalive_timeout),
        false => core.client_header_timeout,
    });
    loop {
        // A head has its time from its first byte on, however many reads it takes.
        if idle && partial.is_some() {
            idle = false;
            wire.deadline.set_after(core.client_header_timeout);
        }
        let patience = life.patience(&wire.deadline, idle, core.keepalive_min_timeout);
        let _counted = census::arriving(partial.is_some());
        let read = std::future::poll_fn(|cx| {
            let read = wire.conn.poll_read_with(cx, io::SCRATCH_BYTES, |bytes| match bytes {
                [] => Some(closed(&partial, client)),
                bytes => read_head(bytes, &rules, &mut partial, wire, false),
            });
            match read {
                Poll::Ready(read) => Poll::Ready(Ok(read)),
                Poll::Pending => patience.poll(cx).map(Err),
            }
        });
        match read.await {
            Ok(Ok(Some(arrival))) => return arrival,
            Ok(Ok(None)) => {}
            Ok(Err(e)) => {
                log::info!(&**client, "recv() failed{} while waiting for request", log::Os(&e));
                return Arrival::Over;
            }
            Err(_) if idle => return Arrival::Over,
            Err(_) => return timed_out(partial, client),
        }
    }
}

fn head_rules(core: &super::core::Loc) -> HeadRules {
    HeadRules {
        first_buffer: core.client_header_buffer_size as u32,
        buffers: core.large_client_header_buffers.0 as u32,
        buffer_size: core.large_client_header_buffers.1 as u32,
        max_headers: core.max_headers,
        ignore_invalid_headers: core.ignore_invalid_headers,
        underscores_in_headers: core.underscores_in_headers,
        allow_connect: false,
        pause_at_host: false,
    }
}

/// Adds `bytes` to what has arrived; gives the arrival when that decides something.
fn read_head(
    bytes: &[u8],
    rules: &HeadRules,
    partial: &mut Option<Box<Partial>>,
    wire: &Wire,
    pipelined: bool,
) -> Option<Arrival> {
    let (mut head, started) = match partial {
        Some(p) => {
            p.block.extend_from_slice(bytes);
            (std::mem::take(&mut p.head), p.started)
        }
        None => (take_parser(), event::now()),
    };
    let block = partial.as_ref().map_or(bytes, |p| &p.block);
    match head.read(block, rules) {
        Ok(Progress::Complete { len }) => {
            wire.ahead.borrow_mut().extend_from_slice(&block[len..]);
            let block = match partial.take() {
                Some(mut p) => {
                    p.block.truncate(len);
                    p.block
                }
                None => bytes[..len].to_vec(),
            };
            Some(Arrival::Request(Arrived { head, block, started, pipelined }))
        }
        Ok(_) => {
            match partial {
                Some(p) => p.head = head,
                None => {
                    let block = bytes.to_vec();
                    *partial = Some(Box::new(Partial { head, block, started }));
                }
            }
            None
        }
        Err(error) => {
            let block = partial.take().map_or_else(|| bytes.to_vec(), |p| p.block);
            Some(Arrival::Bad(Refused { error, head, block }))
        }
    }
}

fn timed_out(partial: Option<Box<Partial>>, client: &Client) -> Arrival {
    let doing = match partial.map(|p| !p.head.line.method_name.is_empty()) {
        None => "waiting for request",
        Some(false) => "reading client request line",
        Some(true) => "reading client request headers",
    };
    log::info!(client, "client timed out (110: Connection timed out) while {doing}");
    Arrival::Over
}

fn closed(partial: &Option<Box<Partial>>, client: &Client) -> Arrival {
    if partial.is_some() {
        log::info!(
            client,
            "client prematurely closed connection while reading client request headers"
        );
    } else if client.requests.get() == 0 {
        log::info!(client, "client closed connection while waiting for request");
    } else {
        log::info!(client, "client {} closed keepalive connection", client.peer_text());
    }
    Arrival::Over
}

/// One request, from its head to its end.
async fn one(
    arrived: Arrived,
    wire: &Rc<Wire>,
    client: &Rc<Client>,
    http: &Rc<HttpConf>,
    life: &Rc<Life>,
) -> After {
    client.requests.set(client.requests.get() + 1);
    let Arrived { head: parsed, block, started, pipelined } = arrived;
    let mut r = begin(&parsed, block, wire, client, http, started, pipelined);
    let bad_path = place_uri(&mut r, &parsed);
    if let Some(ignored) = parsed.ignored.first() {
        log::info!(
            &*r,
            "client sent invalid header line: \"{}\" while reading client request headers",
            log::Raw(r.head.text(*ignored))
        );
    }
    give_back(parsed);
    let _counted = census::request();
    if bad_path {
        log::info!(&*r, "client sent invalid request while reading client request line");
        finish_with(&mut r, 400);
    } else if let Some(code) = ssl::objection(&r) {
        phase::lead(&mut r, Verdict::Finish(code)).await;
    } else {
        phase::run(&mut r).await;
    }
    let after = send::reply(&mut r, wire, life).await;
    r.tally.received = r.head.wire_len + wire.received.replace(0);
    wire.idle.set(Some(r.place.location.core.keepalive_timeout));
    r.end().await;
    after
}

fn finish_with(r: &mut Request, code: u16) {
    r.keep_alive = false;
    error_page::built_in(r, code);
}

/// The request that a parsed head asks for.
fn begin(
    parsed: &RequestHead,
    block: Vec<u8>,
    wire: &Rc<Wire>,
    client: &Rc<Client>,
    http: &Rc<HttpConf>,
    started: Instant,
    pipelined: bool,
) -> Ending {
    let head = head_of(parsed, block, client);
    let server = client.address.server(&head.host).clone();
    let has_body = head.content_length.is_some_and(|n| n > 0) || head.chunked;
    let expects = head.version >= Version::Http11
        && head.get(HeaderId::Expect).is_some_and(|e| e.eq_ignore_ascii_case(b"100-continue"));
    wire.expects.set(expects);
    let body = match has_body || expects {
        true => RequestBody::unread(Box::new(Source::new(parsed, wire, &server.root.core))),
        false => RequestBody::default(),
    };
    let is_new = head.version >= Version::Http11;
    let keep_alive = match parsed.keep_alive {
        KeepAlive::Close => false,
        KeepAlive::KeepAlive => true,
        KeepAlive::Unsaid => is_new,
    };
    let tally = Tally {
        started,
        started_ms: sys::time::unix_ms(),
        received: head.wire_len,
        sent: 0,
        head_sent: 0,
        completed: false,
        pipelined,
    };
    let mut r =
        Request::new(http.clone(), client.clone(), Rc::new(head), server, body, tally, keep_alive);
    r.interim = Some(wire.clone());
    Ending::of(r)
}

fn head_of(parsed: &RequestHead, block: Vec<u8>, client: &Client) -> Head {
    let host = match parsed.authority {
        Some(authority) => client.host(authority.name.of(&block), authority.has_upper),
        None => Rc::default(),
    };
    let mut head = Head {
        method: parsed.line.method,
        method_name: parsed.line.method_name,
        version: parsed.line.version,
        request_line: parsed.line.whole,
        target: parsed.line.target,
        host,
        port: parsed.authority.map_or(0, |authority| authority.port),
        id: OnceCell::new(),
        content_length: None,
        chunked: parsed.framing == Framing::Chunked,
        wire_len: block.len() as u64,
        fields: Fields::over(block),
    };
    if let Framing::Length(n) = parsed.framing {
        head.content_length = Some(n);
    }
    for field in &parsed.fields {
        let span = |s: h1::Span| (s.start, s.end);
        head.fields.push_range(field.id, span(field.name), span(field.value));
    }
    head
}

/// Sets `uri` and `args`; true if the path is not acceptable.
fn place_uri(r: &mut Request, parsed: &RequestHead) -> bool {
    let path = r.head.text(parsed.line.path);
    let mut uri = Vec::with_capacity(path.len());
    if parsed.line.needs_normalising() {
        let merge = r.place.server.root.core.merge_slashes;
        if uri::normalise(path, merge, &mut uri).is_err() {
            return true;
        }
    } else {
        uri.extend_from_slice(path);
    }
    let args = r.head.text(parsed.line.args).to_vec();
    (r.place.uri, r.place.args) = (uri, args);
    r.place.is_original = !parsed.line.has_empty_path;
    false
}

/// Answers a head that could not be read.
async fn refuse(bad: Refused, wire: &Rc<Wire>, client: &Rc<Client>, http: &Rc<HttpConf>) {
    client.requests.set(client.requests.get() + 1);
    let Refused { error, head: parsed, block } = bad;
    let mut r = begin(&parsed, block, wire, client, http, event::now(), false);
    let _counted = census::request();
    r.body.discard_later();
    // nginx takes the version for 1.0 until the line says otherwise.
    if let Some(head) = Rc::get_mut(&mut r.head).filter(|head| head.version == Version::Http09) {
        head.version = Version::Http10;
    }
    log::info!(
        &*r,
        "{} while reading client request {}",
        error.sentence(r.head.fields.block()),
        if is_about_the_line(&error) { "line" } else { "headers" }
    );
    finish_with(&mut r, error.status());
    if r.place.location.core.error_pages.iter().any(|p| p.status == error.status())
        && let error_page::Next::Go(next) = error_page::finish(&mut r, error.status())
    {
        phase::lead(&mut r, next).await;
    }
    r.keep_alive = false;
    let after = send::reply(&mut r, wire, &Life::apart()).await;
    r.end().await;
    if let After::Linger(rules) = after {
        linger(wire, rules).await;
    }
}

fn is_about_the_line(error: &HeadError) -> bool {
    matches!(
        error,
        HeadError::InvalidMethod
            | HeadError::InvalidRequest
            | HeadError::InvalidVersion
            | HeadError::InvalidMethod09
            | HeadError::LineTooLong
            | HeadError::InvalidLineHost
    )
}

/// Reads on for a while so that the client sees the reply before the reset.
async fn linger(wire: &Wire, rules: send::Lingering) {
    let _ = wire.conn.stream().shutdown_write();
    let end = event::now() + rules.time;
    while event::now() < end {
        let until = end.min(event::now() + rules.timeout);
        let gone = std::future::poll_fn(|cx| {
            wire.conn.poll_read_with(cx, io::SCRATCH_BYTES, |bytes| bytes.is_empty())
        });
        match event::timeout_at(until, gone).await {
            Ok(Ok(false)) => {}
            _ => return,
        }
    }
}

impl Wire {
    /// The connection.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Closing will reset the connection, so that the kernel keeps nothing of it.
    pub fn reset_on_close(&self) {
        let _ = self.conn.stream().reset_on_close();
    }

    /// Moves what is to be sent before the reply to `out`.
    pub fn pay(&self, out: &mut Vec<u8>) {
        out.append(&mut self.owed.borrow_mut());
    }

    /// Takes what was read behind the request.
    pub fn take_ahead(&self) -> Vec<u8> {
        self.ahead.take()
    }
}

impl Interim for Wire {
    fn take_ahead(&self) -> Vec<u8> {
        Wire::take_ahead(self)
    }

    fn send_hints(&self, fields: &Fields, cx: &mut Context<'_>) {
        let mut owed = self.owed.borrow_mut();
        owed.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
        for field in fields.iter() {
            field.push_line(&mut owed);
        }
        owed.extend_from_slice(b"\r\n");
        // What is wrong with the connection shows when the reply is sent.
        if let Poll::Ready(Ok(sent)) = self.conn.poll_write(cx, &owed) {
            owed.drain(..sent);
            let _ = self.conn.poll_flush(cx);
        }
    }
}

/// The body of a request, as the connection gives it.
struct Source {
    wire: Rc<Wire>,
    body: h1::Body,
    deadline: event::Deadline,
    timeout: Duration,
    trailers: Option<Fields>,
    ended: bool,
}

impl Source {
    fn new(parsed: &RequestHead, wire: &Rc<Wire>, core: &super::core::Loc) -> Source {
        Source {
            wire: wire.clone(),
            body: h1::Body::new(parsed.framing, TRAILER_MAX_BYTES),
            deadline: event::Deadline::never(),
            timeout: core.client_body_timeout,
            trailers: None,
            ended: false,
        }
    }

    /// The next piece of what has been read already.
    fn next_ahead(&mut self) -> Result<Option<Chunk>, Fault> {
        let mut ahead = self.wire.ahead.borrow_mut();
        let mut at = 0;
        let piece = self.body.next(&ahead, &mut at).map_err(broken)?;
        let chunk = match piece {
            Piece::Data(range) => Some(Chunk::Mem(Slice::from(ahead[range].to_vec()))),
            Piece::More => None,
            Piece::End => {
                self.ended = true;
                None
            }
        };
        self.wire.received.set(self.wire.received.get() + at as u64);
        ahead.drain(..at);
        Ok(chunk)
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some((fields, bytes)) = self.body.trailer() {
            let mut trailers = Fields::default();
            for field in fields {
                trailers.push_named(field.name.of(bytes), field.value.of(bytes));
            }
            self.trailers = Some(trailers);
        }
    }
}

fn broken(e: h1::BodyError) -> Fault {
    Fault::client(400, format!("client sent {e}"))
}

impl Pull for Source {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        if self.wire.expects.take()
            && self.wire.ahead.borrow().is_empty()
            && let Poll::Ready(Err(_)) = self.wire.conn.poll_write(cx, CONTINUE)
        {
            return Poll::Ready(Err(Fault::client(status::CLIENT_CLOSED, "")));
        }
        if self.ended || self.body.has_ended() {
            self.end();
            return Poll::Ready(Ok(None));
        }
        loop {
            if !self.wire.ahead.borrow().is_empty() {
                if let Some(chunk) = self.next_ahead()? {
                    return Poll::Ready(Ok(Some(chunk)));
                }
                if self.ended || self.body.has_ended() {
                    self.end();
                    return Poll::Ready(Ok(None));
                }
            }
            if self.deadline.get().is_none() {
                self.deadline.set_after(self.timeout);
            }
            let ahead = &self.wire.ahead;
            let read = self.wire.conn.poll_read_with(cx, BODY_READ_BYTES, |bytes| {
                ahead.borrow_mut().extend_from_slice(bytes);
                bytes.len()
            });
            match read {
                Poll::Ready(Ok(0)) => {
                    let what = "client prematurely closed connection";
                    return Poll::Ready(Err(Fault::client(400, what)));
                }
                Poll::Ready(Ok(_)) => self.deadline.clear(),
                Poll::Ready(Err(e)) => {
                    let what = format!("recv() failed{}", log::Os(&e));
                    return Poll::Ready(Err(Fault::client(400, what)));
                }
                Poll::Pending => {
                    ready!(self.deadline.poll(cx));
                    let what = "client timed out (110: Connection timed out)";
                    return Poll::Ready(Err(Fault::client(408, what)));
                }
            }
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }
}

/// Looks at what the client has sent of a body that nobody wanted, before the reply is sent: what
/// is wrong with it. A client that waits for leave to send gets it with a good answer only.
pub(super) fn look_ahead(r: &mut Request, wire: &Wire) -> Option<Fault> {
    if r.body.is_read() {
        return None;
    }
    if wire.expects.get() && r.reply.status >= 300 {
        wire.expects.set(false);
        r.keep_alive &= r.head.content_length == Some(0);
    }
    if wire.expects.get() || !wire.ahead.borrow().is_empty() {
        return r.body.drain_ready(LOOK_AHEAD_BYTES).err().filter(|fault| fault.status == 400);
    }
    None
}

/// Reads a body that nobody wanted off the connection; false if the connection cannot be kept.
pub(super) async fn drain(r: &mut Request) -> bool {
    match r.body.drain(DRAIN_MAX_BYTES).await {
        Ok(all) => all,
        Err(fault) => {
            if fault.whose == Whose::Client && !fault.what.is_empty() {
                log::info!(&*r, "{fault} while discarding request body");
            }
            false
        }
    }
}
