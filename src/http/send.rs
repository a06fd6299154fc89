//! Sends a reply over HTTP/1: filters, head, body, and what becomes of the connection.

use super::body::{Body, Fault, Pull, Whose};
use super::life::Life;
use super::phase::{self, Filtered, Verdict};
use super::reply::Reply;
use super::request::Request;
use super::rest::{self, Rest};
use super::serve_h1::{self, Wire};
use super::{error_page, status};
use crate::conf::value;
use crate::io::{Chain, Chunk, Slice};
use crate::proto::h1::{CHUNK_END, ChunkHead, Method, Version, push_last_chunk};
use crate::proto::header::HeaderId;
use crate::{event, log, sys};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Bytes gathered before they are written, if the body gives them without waiting.
const GATHER_BYTES: u64 = 64 << 10;

/// What becomes of the connection.
pub enum After {
    /// The next request may come.
    Keep,
    /// It is closed.
    Close,
    /// It is closed after the client had time to read the reply.
    Linger(Lingering),
}

/// `lingering_time` and `lingering_timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Lingering {
    /// In all.
    pub time: Duration,
    /// For the next byte.
    pub timeout: Duration,
}

/// Sends the reply of `r`; says what becomes of the connection.
pub(super) async fn reply(r: &mut Request, wire: &Rc<Wire>, life: &Rc<Life>) -> After {
    if r.reply.is_dropped {
        if r.place.location.core.reset_timedout {
            wire.reset_on_close();
        }
        return After::Close;
    }
    if let Some(fault) = serve_h1::look_ahead(r, wire) {
        refuse_body(r, &fault);
    }
    run_filters(r).await;
    if let Some(tunnel) = r.reply.tunnel.take() {
        return Box::pin(upgrade(r, wire, tunnel)).await;
    }
    decide_connection(r, life);
    let framing = frame(r);
    let mut body = std::mem::take(&mut r.reply.body);
    if r.reply.head_only || r.is_head() {
        body = Body::Empty;
    }
    let head = match send_small(r, wire, framing, &mut body) {
        Ok(head) => head,
        Err(e) => {
            let what = format!("send() failed{}", log::Os(&e));
            return broke_off(r, wire, &Fault::client(status::CLIENT_CLOSED, what));
        }
    };
    let is_sent = head.is_empty() && body.is_empty() && framing != Ends::Chunked;
    if is_sent && r.reply.rest.is_none() {
        r.tally.completed = true;
        return settle(r).await;
    }
    let mut sender = Sender::new(r, head, body, framing);
    let sent = match r.reply.rest.take() {
        None => std::future::poll_fn(|cx| sender.poll(Some(r), wire, cx)).await,
        Some(rest) => Box::pin(send_while(rest, &mut sender, r, wire)).await,
    };
    r.tally.sent = sender.sent;
    r.reply.trailers = sender.trailers.take();
    match sent {
        Ok(()) => r.tally.completed = true,
        Err(fault) => return broke_off(r, wire, &fault),
    }
    settle(r).await
}

/// Sends while what feeds the body goes on; then the end of the body.
async fn send_while(
    rest: Rest,
    sender: &mut Sender,
    r: &mut Request,
    wire: &Wire,
) -> Result<(), Fault> {
    rest::go_on(rest, r, |cx| {
        let sent = ready!(sender.poll(None, wire, cx));
        // Who feeds it is to see that nobody takes it any more.
        sender.body = Body::Empty;
        Poll::Ready(sent)
    })
    .await?;
    std::future::poll_fn(|cx| sender.poll(Some(r), wire, cx)).await
}

/// A body that nobody wants is broken already: no good answer is given to that.
fn refuse_body(r: &mut Request, fault: &Fault) {
    r.keep_alive = false;
    log::info!(&*r, "{fault} while discarding request body");
    if r.reply.status < 300 {
        r.reply.keep_what_explains();
        error_page::built_in(r, fault.status);
    }
}

thread_local! {
    /// Where heads are written.
    static DRAFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A draft that grew beyond this is not kept.
const DRAFT_MAX: usize = 64 << 10;
/// A head and a body that are no longer than this together leave at once, in one call.
const SMALL_MAX: usize = 4 << 10;

/// Writes the head, and sends it if it and the whole body are small and nothing bounds their rate;
/// then `body` is taken. Gives what is still to be sent of the head (and of such a body).
fn send_small(r: &mut Request, wire: &Wire, ends: Ends, body: &mut Body) -> io::Result<Slice> {
    let mut draft = DRAFT.take();
    draft.clear();
    wire.pay(&mut draft);
    let before = draft.len();
    write_head(r, ends, &mut draft);
    r.reply.head_sent = true;
    r.tally.head_sent = (draft.len() - before) as u64;
    let mut sent = 0;
    if is_small(r, wire, ends, body, draft.len()) {
        if let Body::Whole(Chunk::Mem(bytes)) = std::mem::take(body) {
            draft.extend_from_slice(&bytes);
        }
        match wire.conn().stream().try_write(&draft, false) {
            Ok(n) => sent = n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        r.tally.sent = sent as u64;
    }
    let rest = if sent == draft.len() { Slice::EMPTY } else { Slice::copy_from(&draft[sent..]) };
    if draft.capacity() <= DRAFT_MAX {
        DRAFT.set(draft);
    }
    Ok(rest)
}

fn is_small(r: &Request, wire: &Wire, ends: Ends, body: &Body, head: usize) -> bool {
    let fits = match body {
        Body::Empty => ends != Ends::Chunked,
        Body::Whole(Chunk::Mem(bytes)) => {
            ends == Ends::Length(bytes.len() as u64) && head + bytes.len() <= SMALL_MAX
        }
        _ => false,
    };
    fits && !wire.conn().is_secure()
        && r.place.location.core.limit_rate.is_none()
        && r.slots.get::<RateOverride>().is_none()
}

/// How many answers are offered to the header filters.
const FILTER_TRIES: u8 = 3;

/// Runs the header filters of the place. One that wants another answer gets it from `error_page`
/// or as a built-in page, and that is filtered too; but a filter that wants no answer at all gets
/// the built-in page in the end.
pub(super) async fn run_filters(r: &mut Request) {
    let mut tries = FILTER_TRIES;
    while let Some(code) = filter(r) {
        (r.reply.body, r.reply.rest) = (Body::Empty, None);
        r.reply.keep_what_explains();
        tries -= 1;
        if tries == 0 {
            return error_page::built_in(r, code);
        }
        Box::pin(phase::lead(r, Verdict::Finish(code))).await;
    }
}

/// Runs each filter once, or up to the first that wants another answer.
fn filter(r: &mut Request) -> Option<u16> {
    if r.reply.status_override != 0 {
        r.reply.status = status::on_the_wire(r.reply.status_override);
        r.reply.reason = None;
    }
    let location = r.place.location.clone();
    for filter in location.pipeline.filters() {
        if let Filtered::Instead(code) = filter(r) {
            return Some(code);
        }
    }
    None
}

fn broke_off(r: &mut Request, wire: &Wire, fault: &Fault) -> After {
    r.keep_alive = false;
    if !fault.what.is_empty() {
        match fault.whose {
            Whose::Client => log::info!(&*r, "{fault} while sending response to client"),
            Whose::Peer => log::error!(&*r, "{fault}"),
            Whose::Own => log::crit!(&*r, "{fault} while sending response to client"),
        }
    }
    if r.place.location.core.reset_timedout && fault.status == 408 {
        wire.reset_on_close();
    }
    After::Close
}

async fn settle(r: &mut Request) -> After {
    let core = r.place.location.core.clone();
    if r.keep_alive && !r.body.is_read() && !Box::pin(serve_h1::drain(r)).await {
        r.keep_alive = false;
    }
    if r.keep_alive {
        return After::Keep;
    }
    let unread = !r.body.is_read();
    match core.lingering_close {
        "off" => After::Close,
        "always" => After::Linger(lingering(&core)),
        _ if unread || r.head.version < Version::Http11 && r.body.is_discarded() => {
            After::Linger(lingering(&core))
        }
        _ => After::Close,
    }
}

fn lingering(core: &super::core::Loc) -> Lingering {
    Lingering { time: core.lingering_time, timeout: core.lingering_timeout }
}

/// Whether the connection may carry another request.
fn decide_connection(r: &mut Request, life: &Life) {
    let core = &r.place.location.core;
    let client = &r.client;
    let spent = client.requests.get() >= core.keepalive_requests
        || event::now() >= client.started + core.keepalive_time
        || core.keepalive_timeout.is_zero();
    if spent || r.reply.close || life.is_quitting() || is_disabled_browser(r) {
        r.keep_alive = false;
    }
}

/// `keepalive_disable`: browsers that lose a POST on a kept connection.
fn is_disabled_browser(r: &Request) -> bool {
    let disable = r.place.location.core.keepalive_disable;
    if !(disable.msie6 && r.method == Method::Post || disable.safari) {
        return false;
    }
    let agent = r.header(HeaderId::UserAgent).unwrap_or_default();
    let says = |what: &[u8]| memchr::memmem::find(agent, what).is_some();
    let old_msie = says(b"MSIE 6.") || says(b"MSIE 5.") || says(b"MSIE 4.");
    let safari = says(b"Safari/") && says(b"Mac OS X") && !says(b"Chrome/");
    disable.msie6 && r.method == Method::Post && old_msie && !says(b"Opera")
        || disable.safari && safari
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// There is no body.
    Nothing,
    Length(u64),
    Chunked,
    Close,
}

fn frame(r: &mut Request) -> Ends {
    let reply = &r.reply;
    if reply.status < 200 || matches!(reply.status, 204 | 304) {
        return Ends::Nothing;
    }
    let is_head = r.is_head() || reply.head_only;
    let may_chunk = r.head.version == Version::Http11 && r.place.location.core.chunked;
    if reply.makes_trailers.is_some() && may_chunk && !is_head {
        r.reply.length = None;
        return Ends::Chunked;
    }
    match reply.length.or_else(|| reply.body.len()) {
        Some(length) => {
            r.reply.length = Some(length);
            Ends::Length(length)
        }
        None if is_head => Ends::Nothing,
        None if may_chunk => Ends::Chunked,
        None => {
            r.keep_alive = false;
            Ends::Close
        }
    }
}

// ---- the head ------------------------------------------------------------------------------

/// The status line and fields, in nginx's order.
fn write_head(r: &mut Request, ends: Ends, out: &mut Vec<u8>) {
    make_location_absolute(r);
    let reply = &r.reply;
    if r.head.version == Version::Http09 {
        return;
    }
    out.reserve(256 + reply.fields.wire_len());
    status_line(reply, out);
    let core = &r.place.location.core;
    if !reply.keeps_server {
        line(
            out,
            "Server",
            if core.server_tokens { status::SERVER } else { status::SERVER_SHORT }.as_bytes(),
        );
    }
    if !reply.keeps_date {
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(sys::time::http_date().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    content_fields(reply, ends, out);
    connection_fields(r, ends, out);
    for field in reply.fields.iter() {
        field.push_line(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// `$sent_http_location` is what the client gets.
pub(super) fn make_location_absolute(r: &mut Request) {
    let Some(location) = r.reply.fields.get(HeaderId::Location) else { return };
    if location.first() == Some(&b'/') {
        let whole = absolute(r, location);
        r.reply.fields.set(HeaderId::Location, &whole);
    }
}

fn status_line(reply: &Reply, out: &mut Vec<u8>) {
    if reply.status == 200 && reply.reason.is_none() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(reply.status).as_bytes());
    let reason = reply.reason.as_deref().unwrap_or_else(|| status::reason(reply.status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_fields(reply: &Reply, ends: Ends, out: &mut Vec<u8>) {
    if reply.content_type.is_some() && reply.status != 204 {
        out.extend_from_slice(b"Content-Type: ");
        reply.push_content_type(out);
        out.extend_from_slice(b"\r\n");
    }
    if let Ends::Length(length) = ends {
        line(out, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(seconds) = reply.last_modified {
        out.extend_from_slice(b"Last-Modified: ");
        out.extend_from_slice(sys::time::Calendar::utc(seconds).http_date().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(tag) = &reply.etag {
        line(out, "ETag", tag.as_bytes());
    }
}

fn connection_fields(r: &Request, ends: Ends, out: &mut Vec<u8>) {
    if ends == Ends::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if r.reply.status == 101 {
        return;
    }
    if !r.keep_alive {
        return out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"Connection: keep-alive\r\n");
    if let Some(timeout) = r.place.location.core.keepalive_header {
        let text = format!("timeout={}", timeout.as_secs());
        line(out, "Keep-Alive", text.as_bytes());
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `absolute_redirect`, `server_name_in_redirect`, `port_in_redirect`: a path becomes a URL.
fn absolute(r: &Request, location: &[u8]) -> Vec<u8> {
    let core = &r.place.location.core;
    if location.first() != Some(&b'/') || !core.absolute_redirect {
        return location.to_vec();
    }
    let tls = r.client.tls.is_some();
    let mut out = if tls { b"https://".to_vec() } else { b"http://".to_vec() };
    let host = if core.server_name_in_redirect {
        r.place.server.name.as_bytes()
    } else {
        r.head.host.as_bytes()
    };
    if host.is_empty() {
        let text = super::client::address_text(&r.client.local);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(host);
    }
    let port = r.client.local.port();
    if core.port_in_redirect && port != 0 && port != if tls { 443 } else { 80 } {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    out.extend_from_slice(location);
    out
}

// ---- the body ------------------------------------------------------------------------------

/// Moves head and body to the socket.
struct Sender {
    chain: Chain,
    body: Body,
    chunked: bool,
    /// Bytes the framing still promises.
    left: Option<u64>,
    /// The end needs the request.
    makes_trailers: bool,
    /// The body gives no more.
    is_over: bool,
    /// … and its end has been written.
    ended: bool,
    broken: Option<Fault>,
    sent: u64,
    timeout: Duration,
    deadline: event::Deadline,
    rate: Rate,
    trailers: Option<Box<super::Fields>>,
}

impl Sender {
    fn new(r: &Request, head: Slice, body: Body, ends: Ends) -> Sender {
        let mut chain = Chain::new();
        chain.set_way(r.place.location.core.files);
        chain.push(Chunk::Mem(head));
        let left = match ends {
            Ends::Length(length) if !(r.reply.head_only || r.is_head()) => Some(length),
            Ends::Nothing => Some(0),
            _ => None,
        };
        let ended = matches!(body, Body::Empty) && ends != Ends::Chunked;
        Sender {
            chain,
            body,
            chunked: ends == Ends::Chunked,
            left,
            makes_trailers: r.reply.makes_trailers.is_some(),
            is_over: ended,
            ended,
            broken: None,
            sent: r.tally.sent,
            timeout: r.place.location.core.send_timeout,
            deadline: event::Deadline::never(),
            rate: Rate::of(r),
            trailers: None,
        }
    }

    /// Without the request, as long as somebody else works with it, trailers are not made.
    fn poll(
        &mut self,
        r: Option<&Request>,
        wire: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if !self.ended {
                self.gather(r, cx)?;
            }
            if self.chain.is_empty() && self.ended && !wire.conn().has_unflushed() {
                return Poll::Ready(self.broken.take().map_or(Ok(()), Err));
            }
            if self.chain.is_empty() && !wire.conn().has_unflushed() {
                return Poll::Pending;
            }
            if self.rate.must_wait(self.sent, cx) {
                return self.rate.poll_left(wire, cx).map(Err);
            }
            match self.write(wire, cx) {
                Poll::Ready(Ok(n)) => {
                    self.sent += n;
                    self.deadline.clear();
                }
                Poll::Ready(Err(e)) => {
                    let what = format!("send() failed{}", log::Os(&e));
                    return Poll::Ready(Err(Fault::client(status::CLIENT_CLOSED, what)));
                }
                Poll::Pending => {
                    self.body.poll_ahead(cx);
                    if self.deadline.get().is_none() {
                        self.deadline.set_after(self.timeout);
                    }
                    if self.deadline.poll(cx).is_ready() {
                        let what = "client timed out (110: Connection timed out)";
                        return Poll::Ready(Err(Fault::client(408, what)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes some of the chain, or flushes what a session holds back.
    fn write(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<std::io::Result<u64>> {
        if self.chain.is_empty() {
            return wire.conn().poll_flush(cx).map_ok(|()| 0);
        }
        self.chain.poll_write_to(wire.conn(), cx, self.rate.allowance(self.sent))
    }

    /// Pulls what the body gives without waiting, up to a bound.
    fn gather(&mut self, r: Option<&Request>, cx: &mut Context<'_>) -> Result<(), Fault> {
        while !self.is_over && self.chain.len() < GATHER_BYTES {
            match self.body.poll_pull(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(chunk))) => self.add(chunk)?,
                Poll::Ready(Ok(None)) => self.is_over = true,
                Poll::Ready(Err(fault)) => {
                    // What was there before goes out first.
                    (self.is_over, self.ended) = (true, true);
                    self.broken = Some(fault);
                    return Ok(());
                }
            }
        }
        if self.is_over && !self.ended && (r.is_some() || !self.makes_trailers) {
            self.ended = true;
            return self.close_framing(r);
        }
        Ok(())
    }

    fn add(&mut self, chunk: Chunk) -> Result<(), Fault> {
        let len = chunk.len();
        debug_assert!(len > 0, "an empty chunk would end a chunked body");
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(len) else {
                return Err(Fault::own("the body is longer than its head said"));
            };
            *left = rest;
        }
        if self.chunked {
            self.chain.push(Chunk::Mem(Slice::from(ChunkHead::new(len).to_vec())));
            self.chain.push(chunk);
            self.chain.push(Chunk::Mem(Slice::from_static(CHUNK_END)));
        } else {
            self.chain.push(chunk);
        }
        Ok(())
    }

    fn close_framing(&mut self, r: Option<&Request>) -> Result<(), Fault> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Fault::own("the body is shorter than its head said"));
        }
        if self.chunked {
            let mut end = Vec::new();
            let trailers = trailers(r, &self.body);
            push_last_chunk(trailers.iter().map(|f| (f.name, f.value)), &mut end);
            self.chain.push(Chunk::Mem(Slice::from(end)));
            self.trailers = Some(Box::new(trailers)).filter(|t| !t.is_empty());
        }
        Ok(())
    }
}

/// The trailer fields of a body that is over.
pub(super) fn trailers(r: Option<&Request>, body: &Body) -> super::Fields {
    let mut trailers = body.trailers().cloned().unwrap_or_default();
    if let Some(r) = r
        && let Some(make) = &r.reply.makes_trailers
    {
        make(r, &mut trailers);
    }
    trailers
}

/// `limit_rate`, `limit_rate_after`.
struct Rate {
    per_second: u64,
    after: u64,
    since: std::time::Instant,
    pause: event::Deadline,
    /// The client may have closed its side behind the request: that alone is no leaving.
    watches: Option<bool>,
}

impl Rate {
    fn of(r: &Request) -> Rate {
        let core = &r.place.location.core;
        let own = r.slots.get::<RateOverride>().map(|o| o.0);
        Rate {
            per_second: own.unwrap_or_else(|| rate_of(r)),
            after: bytes(&core.limit_rate_after, r),
            since: event::now(),
            pause: event::Deadline::never(),
            watches: None,
        }
    }

    /// Ready if the client leaves while it waits for more.
    fn poll_left(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<Fault> {
        let stream = wire.conn().stream();
        if !*self.watches.get_or_insert_with(|| !stream.is_read_closed()) {
            return Poll::Pending;
        }
        let what = "client prematurely closed connection";
        stream.poll_closed(cx).map(|()| Fault::client(status::CLIENT_CLOSED, what))
    }

    /// How much may be written now.
    fn allowance(&self, sent: u64) -> u64 {
        if self.per_second == 0 {
            return u64::MAX;
        }
        let seconds = event::now().duration_since(self.since).as_secs() + 1;
        (self.per_second.saturating_mul(seconds).saturating_add(self.after)).saturating_sub(sent)
    }

    fn must_wait(&self, sent: u64, cx: &mut Context<'_>) -> bool {
        if self.per_second == 0 || self.allowance(sent) > 0 {
            return false;
        }
        if self.pause.get().is_none() {
            let over = sent.saturating_sub(self.after) % self.per_second + 1;
            self.pause.set_after(Duration::from_millis(over * 1000 / self.per_second + 1));
        }
        if self.pause.poll(cx).is_pending() {
            return true;
        }
        self.pause.clear();
        self.allowance(sent) == 0 && self.must_wait(sent, cx)
    }
}

/// What `limit_rate` says for the request, bytes per second; 0 is no limit.
pub(super) fn rate_of(r: &Request) -> u64 {
    bytes(&r.place.location.core.limit_rate, r)
}

fn bytes(size: &Option<super::Template>, r: &Request) -> u64 {
    size.as_ref().and_then(|size| value::size(&size.text(r))).unwrap_or(0)
}

/// `$limit_rate` as `set` or an upstream's `X-Accel-Limit-Rate` gave it.
#[derive(Default)]
pub struct RateOverride(pub u64);

// ---- upgrades ------------------------------------------------------------------------------

/// Sends a 101 and hands the connection over.
async fn upgrade(r: &mut Request, wire: &Rc<Wire>, tunnel: super::reply::Tunnel) -> After {
    let mut head = Vec::new();
    wire.pay(&mut head);
    write_head(r, Ends::Nothing, &mut head);
    r.tally.head_sent = head.len() as u64;
    r.reply.head_sent = true;
    let mut sender = Sender::new(r, Slice::from(head), Body::Empty, Ends::Nothing);
    if let Err(fault) = std::future::poll_fn(|cx| sender.poll(Some(r), wire, cx)).await {
        return broke_off(r, wire, &fault);
    }
    let moved = tunnel(wire.conn().clone(), wire.take_ahead()).await;
    r.tally.sent = sender.sent + moved.sent;
    r.tally.received += moved.received;
    r.tally.completed = true;
    After::Close
}
