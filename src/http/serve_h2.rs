//! Drives one HTTP/2 connection: every stream becomes the same [`Request`] as over HTTP/1.
//!
//! The protocol is the h2 crate's; its connection is one task, every stream another. What a
//! client may ask for is bounded by [`Limits`]; floods of resets and settings by the crate.

use super::body::{Body, Fault, Pull, Whose};
use super::client::Client;
use super::finish::Ending;
use super::life::Life;
use super::phase::Verdict;
use super::request::{Head, Interim, Request, Tally};
use super::request_body::RequestBody;
use super::{Fields, HttpConf, error_page, phase, rest, send, ssl, status};
use crate::event::census;
use crate::io::{Chunk, Conn, Slice};
use crate::proto::h1::{Method, Span, Version};
use crate::proto::header::HeaderId;
use crate::proto::{host, uri};
use crate::{event, log, sys};
use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one connection may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `http2_max_concurrent_streams`
    pub streams: u32,
    /// `http2_chunk_size`: bytes of one DATA frame.
    pub chunk_bytes: usize,
    /// `http2_body_preread_size`: bytes of a request's body sent before anybody reads it.
    pub window_bytes: u32,
    /// Bytes of a header list.
    pub header_list_bytes: u32,
}

/// Bytes of replies that may wait inside the connection for the client.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that the client reset and that were not taken yet.
const RESETS_PENDING_MAX: usize = 20;
/// The window of the whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Serves streams until the connection ends. `ahead` is what was read of it already.
pub async fn serve(
    client: Rc<Client>,
    http: Rc<HttpConf>,
    life: Rc<Life>,
    ahead: Vec<u8>,
    limits: Limits,
) {
    let wire = Wire { conn: client.conn.clone(), ahead, at: 0 };
    let shake = server::Builder::new()
        .max_concurrent_streams(limits.streams)
        .initial_window_size(limits.window_bytes)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits.header_list_bytes)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .handshake::<_, Slice>(wire);
    let core = client.address.default.root.core.clone();
    let mut connection = match event::timeout(core.client_header_timeout, shake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return log::info!(&*client, "{error} while processing HTTP/2 connection");
        }
        Err(_) => {
            return log::info!(&*client, "client timed out while processing HTTP/2 connection");
        }
    };
    let open = Rc::new(Life::default());
    let mut closing = false;
    let deadline = event::Deadline::never();
    loop {
        let spent = client.requests.get() >= core.keepalive_requests
            || event::now().duration_since(client.started) >= core.keepalive_time;
        if (life.is_quitting() || spent) && !closing {
            closing = true;
            connection.graceful_shutdown();
        }
        let idle = open.requests() == 0;
        let first = client.requests.get() == 0;
        let limit = if first { core.client_header_timeout } else { core.keepalive_timeout };
        deadline.set_after(if idle { limit } else { FAR });
        let patience = life.patience(&deadline, idle, core.keepalive_min_timeout);
        let _counted = idle.then(|| census::arriving(false));
        let next = std::future::poll_fn(|cx| {
            if life.is_quitting() && !closing {
                return Poll::Ready(Ok(Next::Quit));
            }
            if (open.requests() == 0) != idle {
                return Poll::Ready(Ok(Next::Changed));
            }
            match connection.poll_accept(cx) {
                Poll::Ready(stream) => Poll::Ready(Ok(Next::Stream(stream))),
                Poll::Pending => patience.poll(cx).map(Err),
            }
        });
        match next.await {
            Ok(Next::Stream(Some(Ok((request, respond))))) => {
                client.requests.set(client.requests.get() + 1);
                let held = (open.begin_request(), census::request());
                let stream = one(request, respond, client.clone(), http.clone(), limits);
                let life = life.clone();
                event::spawn(async move {
                    life.until_cut(pin!(stream)).await;
                    drop(held);
                });
            }
            Ok(Next::Stream(Some(Err(error)))) => {
                return log::info!(&*client, "{error} while processing HTTP/2 connection");
            }
            Ok(Next::Stream(None)) => return,
            Ok(Next::Quit | Next::Changed) => {}
            Err(_) => {
                connection.graceful_shutdown();
                let end = std::future::poll_fn(|cx| connection.poll_closed(cx));
                let _ = event::timeout(core.lingering_timeout, end).await;
                return;
            }
        }
    }
}

const FAR: Duration = Duration::from_secs(365 * 86400);

type Accepted = (http::Request<RecvStream>, SendResponse<Slice>);

#[expect(clippy::large_enum_variant, reason = "it lives for one line")]
enum Next {
    Stream(Option<Result<Accepted, h2::Error>>),
    Quit,
    Changed,
}

/// One stream, from its head to its end.
async fn one(
    request: http::Request<RecvStream>,
    respond: SendResponse<Slice>,
    client: Rc<Client>,
    http: Rc<HttpConf>,
    limits: Limits,
) {
    let (parts, stream) = request.into_parts();
    let (head, path, fault) = head_of(&parts, stream.is_end_stream());
    let server = client.address.server(&head.host).clone();
    let body = match stream.is_end_stream() {
        true => RequestBody::default(),
        false => {
            let timeout = server.root.core.client_body_timeout;
            let left = head.content_length;
            RequestBody::unread(Box::new(Incoming::new(stream, timeout, left)))
        }
    };
    let tally = Tally {
        started: event::now(),
        started_ms: sys::time::unix_ms(),
        received: head.wire_len,
        sent: 0,
        head_sent: 0,
        completed: false,
        pipelined: false,
    };
    let respond = Rc::new(Respond(RefCell::new(respond)));
    let mut r = Request::new(http, client, Rc::new(head), server, body, tally, true);
    r.interim = Some(respond.clone());
    let mut r = Ending::of(r);
    let (count, size) = r.place.server.root.core.large_client_header_buffers;
    let too_large = (r.head.wire_len > count * size)
        .then_some((status::HEADER_TOO_LARGE, "client sent too large header"));
    let fault = fault.or(too_large).or_else(|| place_uri(&mut r, &path));
    if let (None, Some(code)) = (&fault, ssl::objection(&r)) {
        phase::lead(&mut r, Verdict::Finish(code)).await;
        reply(&mut r, &respond, limits).await;
        return r.end().await;
    }
    match fault {
        Some((code, what)) => {
            log::info!(&*r, "{what}");
            error_page::built_in(&mut r, code);
        }
        None => phase::run(&mut r).await,
    }
    reply(&mut r, &respond, limits).await;
    r.end().await;
}

type Refusal = (u16, &'static str);

/// The head as HTTP/1 would have it, the path with its arguments, and what is wrong with it.
fn head_of(parts: &http::request::Parts, ended: bool) -> (Head, Vec<u8>, Option<Refusal>) {
    let mut fault = None;
    let method = parts.method.as_str().as_bytes();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes().to_vec();
    let mut block = Vec::with_capacity(256);
    let span = |block: &mut Vec<u8>, text: &[u8]| {
        let start = block.len() as u32;
        block.extend_from_slice(text);
        Span { start, end: block.len() as u32 }
    };
    let method_name = span(&mut block, method);
    block.push(b' ');
    let target = span(&mut block, &path);
    block.extend_from_slice(b" HTTP/2.0");
    let request_line = Span { start: 0, end: block.len() as u32 };
    let mut head = Head {
        method: Method::of(method),
        method_name,
        version: Version::Http2,
        request_line,
        target,
        chunked: !ended,
        wire_len: block.len() as u64,
        fields: Fields::over(block),
        ..Head::default()
    };
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let named = parts.headers.get(http::header::HOST).map(|h| h.as_bytes());
    if let Some(written) = authority.or(named) {
        match host::validate(written) {
            Some(name) => {
                let text = String::from_utf8_lossy(&written[..name.len]).to_ascii_lowercase();
                head.host = text.into();
                head.port = name.port;
            }
            None => fault = Some((400, "client sent invalid host header")),
        }
        if authority.is_some() && named.is_none() {
            head.fields.push(HeaderId::Host, written);
        }
    } else {
        fault = Some((400, "client sent neither \":authority\" nor \"Host\" header"));
    }
    add_fields(&mut head, parts);
    if let Some(text) = head.fields.get(HeaderId::ContentLength) {
        let number = std::str::from_utf8(text).ok().and_then(crate::conf::value::number);
        head.content_length = number;
        head.chunked = false;
        if number.is_none() {
            fault = Some((400, "client sent invalid \"Content-Length\" header"));
        }
    }
    (head, path, fault)
}

/// Cookies that came in several fields are one again (RFC 9113, 8.2.3).
fn add_fields(head: &mut Head, parts: &http::request::Parts) {
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        if name == http::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
        } else {
            head.fields.push_named(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !cookies.is_empty() {
        head.fields.push(HeaderId::Cookie, &cookies);
    }
    head.wire_len += head.fields.wire_len() as u64;
}

fn place_uri(r: &mut Request, target: &[u8]) -> Option<Refusal> {
    let (path, args) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    let mut uri = Vec::with_capacity(path.len());
    let merge = r.place.server.root.core.merge_slashes;
    if path.first() != Some(&b'/') || uri::normalise(path, merge, &mut uri).is_err() {
        return Some((400, "client sent invalid \":path\" header"));
    }
    (r.place.uri, r.place.args) = (uri, args.to_vec());
    None
}

// ---- the request's body --------------------------------------------------------------------

struct Incoming {
    stream: RecvStream,
    timeout: Duration,
    deadline: event::Deadline,
    /// Bytes that Content-Length still promises.
    left: Option<u64>,
    trailers: Option<Fields>,
    data_over: bool,
}

impl Incoming {
    fn new(stream: RecvStream, timeout: Duration, left: Option<u64>) -> Incoming {
        let deadline = event::Deadline::never();
        Incoming { stream, timeout, deadline, left, trailers: None, data_over: false }
    }

    fn data(&mut self, bytes: Bytes) -> Result<Option<Chunk>, Fault> {
        self.deadline.clear();
        // The room is given back when the bytes were taken: that is the flow control.
        let _ = self.stream.flow_control().release_capacity(bytes.len());
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub(bytes.len() as u64);
            let what = "client intended to send body data larger than declared";
            *left = rest.ok_or_else(|| Fault::client(400, what))?;
        }
        Ok((!bytes.is_empty()).then(|| Chunk::Mem(Slice::copy_from(&bytes))))
    }
}

impl Pull for Incoming {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        while !self.data_over {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    if let Some(chunk) = self.data(bytes)? {
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let what = format!("client closed stream: {error}");
                    return Poll::Ready(Err(Fault::client(status::CLIENT_CLOSED, what)));
                }
                Poll::Ready(None) => self.data_over = true,
                Poll::Pending => {
                    if self.deadline.get().is_none() {
                        self.deadline.set_after(self.timeout);
                    }
                    ready!(self.deadline.poll(cx));
                    let what = "client timed out (110: Connection timed out)";
                    return Poll::Ready(Err(Fault::client(408, what)));
                }
            }
        }
        if self.left.is_some_and(|left| left > 0) {
            let what = "client prematurely closed stream";
            return Poll::Ready(Err(Fault::client(400, what)));
        }
        if let Ok(Some(map)) = ready!(self.stream.poll_trailers(cx)) {
            let mut fields = Fields::default();
            for (name, value) in &map {
                fields.push_named(name.as_str().as_bytes(), value.as_bytes());
            }
            self.trailers = Some(fields);
        }
        Poll::Ready(Ok(None))
    }

    fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }
}

// ---- the reply -----------------------------------------------------------------------------

/// The sending half of a stream.
struct Respond(RefCell<SendResponse<Slice>>);

impl Interim for Respond {
    fn send_hints(&self, fields: &Fields, _: &mut Context<'_>) {
        let mut hints = http::Response::new(());
        *hints.status_mut() = http::StatusCode::EARLY_HINTS;
        for field in fields.iter() {
            let name = http::HeaderName::from_bytes(field.name);
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(field.value)) {
                hints.headers_mut().append(name, value);
            }
        }
        // A stream that is gone shows when the reply is sent.
        let _ = self.0.borrow_mut().send_informational(hints);
    }
}

async fn reply(r: &mut Request, respond: &Respond, limits: Limits) {
    let send_reset = |reason| respond.0.borrow_mut().send_reset(reason);
    if r.reply.is_dropped {
        return send_reset(Reason::REFUSED_STREAM);
    }
    send::run_filters(r).await;
    let mut body = std::mem::take(&mut r.reply.body);
    if r.reply.head_only || r.is_head() || matches!(r.reply.status, 204 | 304) {
        body = Body::Empty;
    }
    let ends = matches!(body, Body::Empty);
    send::make_location_absolute(r);
    let Some(head) = response(r, &body) else {
        log::error!(&*r, "invalid header in response");
        return send_reset(Reason::INTERNAL_ERROR);
    };
    r.tally.head_sent =
        head.headers().iter().map(|(n, v)| n.as_str().len() + v.len() + 2).sum::<usize>() as u64;
    r.tally.sent = r.tally.head_sent;
    r.reply.head_sent = true;
    let sent = respond.0.borrow_mut().send_response(head, ends);
    let mut stream = match sent {
        Ok(stream) => stream,
        Err(error) => return log::info!(&*r, "{error} while sending response to client"),
    };
    if ends {
        if let Some(rest) = r.reply.rest.take() {
            let _ = rest::go_on(rest, r, |_| Poll::Ready(Ok(()))).await;
        }
        r.tally.completed = true;
        return;
    }
    let deadline = event::Deadline::never();
    let timeout = r.place.location.core.send_timeout;
    let trailers = Fields::default();
    let makes_trailers = r.reply.makes_trailers.is_some();
    let mut sender = Sender {
        stream: &mut stream,
        body,
        deadline,
        timeout,
        limits,
        sent: 0,
        trailers,
        makes_trailers,
        is_finished: false,
    };
    let result = sender.send(r).await;
    r.tally.sent += sender.sent;
    r.reply.trailers = Some(Box::new(sender.trailers)).filter(|t| !t.is_empty());
    match result {
        Ok(()) => r.tally.completed = true,
        Err(fault) => {
            match fault.whose {
                Whose::Client => log::info!(&*r, "{fault} while sending response to client"),
                _ => log::error!(&*r, "{fault}"),
            }
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// The head; `None` if a field cannot be sent over HTTP/2.
fn response(r: &Request, body: &Body) -> Option<http::Response<()>> {
    let reply = &r.reply;
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(reply.status).ok()?;
    let map = response.headers_mut();
    let value = |bytes: &[u8]| http::HeaderValue::from_bytes(bytes).ok();
    let core = &r.place.location.core;
    if !reply.keeps_server {
        let name = if core.server_tokens { status::SERVER } else { status::SERVER_SHORT };
        map.insert(http::header::SERVER, http::HeaderValue::from_static(name));
    }
    if !reply.keeps_date {
        map.insert(http::header::DATE, value(sys::time::http_date().as_bytes())?);
    }
    let mut media = Vec::new();
    if reply.push_content_type(&mut media) {
        map.insert(http::header::CONTENT_TYPE, value(&media)?);
    }
    if let Some(length) = reply.length.or_else(|| body.len()).filter(|_| reply.status != 204) {
        map.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if let Some(seconds) = reply.last_modified {
        let date = sys::time::Calendar::utc(seconds).http_date();
        map.insert(http::header::LAST_MODIFIED, value(date.as_bytes())?);
    }
    if let Some(tag) = &reply.etag {
        map.insert(http::header::ETAG, value(tag.as_bytes())?);
    }
    for field in reply.fields.iter() {
        let hop = matches!(
            field.id,
            HeaderId::Connection
                | HeaderId::KeepAlive
                | HeaderId::TransferEncoding
                | HeaderId::Upgrade
                | HeaderId::ProxyConnection
        );
        if hop {
            continue;
        }
        let name = http::HeaderName::from_bytes(field.name).ok()?;
        map.append(name, value(field.value)?);
    }
    Some(response)
}

struct Sender<'a> {
    stream: &'a mut SendStream<Slice>,
    body: Body,
    deadline: event::Deadline,
    timeout: Duration,
    limits: Limits,
    sent: u64,
    trailers: Fields,
    /// The end needs the request.
    makes_trailers: bool,
    is_finished: bool,
}

impl Sender<'_> {
    /// Sends the body and ends the stream, while what feeds the body goes on.
    async fn send(&mut self, r: &mut Request) -> Result<(), Fault> {
        match r.reply.rest.take() {
            None => self.run().await?,
            Some(rest) => {
                let mut running = pin!(self.run());
                rest::go_on(rest, r, |cx| running.as_mut().poll(cx)).await?;
            }
        }
        if self.is_finished { Ok(()) } else { self.finish(Some(r)) }
    }

    /// Sends the body. If that fails nobody takes it any more, which who feeds it is to see.
    async fn run(&mut self) -> Result<(), Fault> {
        let sent = self.send_body().await;
        match sent {
            Ok(()) if !self.makes_trailers => return self.finish(None),
            Ok(()) => {}
            Err(_) => self.body = Body::Empty,
        }
        sent
    }

    async fn send_body(&mut self) -> Result<(), Fault> {
        while let Some(mut chunk) = self.body.pull().await? {
            while !chunk.is_empty() {
                let want = chunk.len().min(self.limits.chunk_bytes as u64) as usize;
                let room = self.room(want).await?;
                let mut part = chunk.split_to(room.min(want) as u64);
                let bytes = part
                    .take_bytes()
                    .map_err(|e| Fault::own(format!("pread() failed{}", log::Os(&e))))?;
                self.sent += bytes.len() as u64;
                self.stream.send_data(bytes, false).map_err(gone)?;
            }
        }
        Ok(())
    }

    /// Ends the stream.
    fn finish(&mut self, r: Option<&Request>) -> Result<(), Fault> {
        self.is_finished = true;
        self.trailers = send::trailers(r, &self.body);
        if self.trailers.is_empty() {
            return self.stream.send_data(Slice::EMPTY, true).map_err(gone);
        }
        let mut map = http::HeaderMap::new();
        for field in self.trailers.iter() {
            let name = http::HeaderName::from_bytes(field.name);
            let value = http::HeaderValue::from_bytes(field.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        self.stream.send_trailers(map).map_err(gone)
    }

    /// Waits until the client lets us send something; meanwhile the source may read ahead.
    async fn room(&mut self, want: usize) -> Result<usize, Fault> {
        self.stream.reserve_capacity(want);
        std::future::poll_fn(|cx| {
            if self.stream.capacity() > 0 {
                self.deadline.clear();
                return Poll::Ready(Ok(self.stream.capacity()));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(n))) if n > 0 => {
                    self.deadline.clear();
                    return Poll::Ready(Ok(n));
                }
                Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gone(error))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Fault::client(status::CLIENT_CLOSED, "stream closed")));
                }
            }
            self.body.poll_ahead(cx);
            if self.deadline.get().is_none() {
                self.deadline.set_after(self.timeout);
            }
            ready!(self.deadline.poll(cx));
            Poll::Ready(Err(Fault::client(408, "client timed out (110: Connection timed out)")))
        })
        .await
    }
}

fn gone(error: h2::Error) -> Fault {
    Fault::client(status::CLIENT_CLOSED, error.to_string())
}

// ---- the wire ------------------------------------------------------------------------------

/// The connection as the h2 crate wants it, with what was read of it before.
struct Wire {
    conn: Rc<Conn>,
    ahead: Vec<u8>,
    at: usize,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at < self.ahead.len() {
            let n = buf.remaining().min(self.ahead.len() - self.at);
            let at = self.at;
            buf.put_slice(&self.ahead[at..at + n]);
            self.at += n;
            if self.at == self.ahead.len() {
                (self.ahead, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        let n = ready!(self.conn.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.conn.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.conn.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.conn.poll_flush(cx))?;
        let _ = self.conn.stream().shutdown_write();
        Poll::Ready(Ok(()))
    }
}
