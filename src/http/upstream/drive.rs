//! Drives one request to an upstream: picks a peer, connects, sends, reads the head, and tries
//! elsewhere when that fails.

use super::answer::{self, Elsewhere};
use super::body::{Begin, Line, ReplyBody};
use super::chooser::{Choice, Chosen};
use super::hints;
use super::next::{Failed, Progress};
use super::rules::Rules;
use super::secure::Handshake;
use super::talk::{BodyFacts, HeadStep, Talk, Unframe, Written};
use super::trail::{Attempt, Note, Trail};
use super::tunnel::{self, Join};
use super::upload::{Upload, UploadFault};
use super::who::Who;
use crate::conf::value;
use crate::event::{self, Deadline};
use crate::http::body::{Body, Fault, Whose};
use crate::http::finish::PostAction;
use crate::http::send::RateOverride;
use crate::http::{Request, Verdict, status};
use crate::io::{Buf, Chunk, Conn, Slice};
use crate::log;
use crate::proto::h1::{Piece, Version};
use crate::proto::header::HeaderId;
use crate::sys::socket::{Address, Departure};
use crate::tls::fault::HandshakeFault;
use crate::upstream::connect::{self, ConnectFault, Way};
use crate::upstream::pool::{Pool, Tag};
use crate::upstream::{Ask, Kept, Turn, Upstream};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

const CONNECTING: &str = "connecting to upstream";
const HANDSHAKING: &str = "SSL handshaking to upstream";
const SENDING: &str = "sending request to upstream";
const READING_HEAD: &str = "reading response header from upstream";

/// Where a request goes.
pub struct Route {
    /// The location's directives.
    pub rules: Rc<Rules>,
    /// Who is asked.
    pub upstream: Rc<Upstream>,
    /// The value of its `hash` key.
    pub key: Vec<u8>,
    /// Code that chooses the peers, if there is some.
    pub chosen: Option<Rc<Chosen>>,
    /// TLS, if it is to be spoken.
    pub secure: Option<Handshake>,
}

/// What becomes of a failed try.
enum Next {
    Again,
    Finish(u16),
}

/// Why a try gave no reply.
enum Broken {
    /// The peer's fault, or nobody's.
    Failed(Failed),
    /// The request ends with this status whatever else could be tried.
    Over(u16),
}

/// A reply whose head was read.
struct Arrived {
    kept: Box<Kept>,
    turn: Turn,
    upload: Option<Box<Upload>>,
    bytes: Slice,
    head_len: usize,
}

/// The client's body, ready to be sent.
enum Source {
    /// Nothing, or what can be sent again.
    Kept(Vec<Chunk>),
    /// What can be sent once.
    Stream(Option<Body>, bool),
}

/// One request's way through the peers.
struct Trip {
    route: Route,
    /// Where connections wait: the upstream's pool, or the one that code wants.
    pool: Option<Rc<Pool>>,
    ask: Ask,
    began: Instant,
    written: Written,
    facts: BodyFacts,
    source: Source,
    attempt: Rc<Attempt>,
    /// Some of the request went out on this try.
    sent: bool,
    /// A connection that waited was dead: the next one is made anew.
    avoid_pool: bool,
    watches_client: bool,
    /// What is being done, for the log.
    doing: &'static str,
}

/// Hands the request to `route`, speaking as `talk` does, and fills the reply.
pub async fn pass<T: Talk>(r: &mut Request, route: Route, mut talk: T) -> Verdict {
    let mut trip = match Trip::prepare(r, route, &mut talk).await {
        Ok(trip) => trip,
        Err(status) => return Verdict::Finish(status),
    };
    loop {
        let broken = match trip.attempt(r, &mut talk).await {
            Ok(arrived) => match trip.judge(r, &talk, &arrived) {
                None => return trip.answer(r, talk, arrived),
                Some(failed) => {
                    trip.leave(r, arrived.turn, failed);
                    Broken::Failed(failed)
                }
            },
            Err(broken) => broken,
        };
        match trip.after(r, broken) {
            Next::Again => {}
            Next::Finish(status) => return Verdict::Finish(status),
        }
    }
}

impl Trip {
    async fn prepare<T: Talk>(r: &mut Request, route: Route, talk: &mut T) -> Result<Trip, u16> {
        let (source, facts) = take_body(r, &route.rules, talk).await?;
        let written = talk.request(r, facts)?;
        let client = r.client.peer_ip();
        let mut ask = route.upstream.ask(client, route.key.clone());
        let tries = route.rules.next.tries;
        if tries > 0 {
            ask.tries = ask.tries.min(tries);
        }
        let watches_client = !route.rules.ignore_client_abort
            && !r.is_subrequest
            && r.slots.get::<PostAction>().is_none()
            && r.head.version <= Version::Http11;
        let trail = r.slots.of::<Trail>();
        trail.begin();
        let attempt = trail.attempt(route.upstream.name.clone());
        if route.chosen.is_some() {
            *r.slots.of::<Choice>() = Choice { tries_max: tries, ..Choice::default() };
        }
        let pool = route.upstream.pool.clone();
        Ok(Trip {
            route,
            pool,
            ask,
            began: event::now(),
            written,
            facts,
            source,
            attempt,
            sent: false,
            avoid_pool: false,
            watches_client,
            doing: CONNECTING,
        })
    }

    /// One try: to a peer and back with the head of its reply.
    async fn attempt<T: Talk>(&mut self, r: &mut Request, talk: &mut T) -> Result<Arrived, Broken> {
        self.sent = false;
        self.doing = CONNECTING;
        let picked = match self.route.chosen.clone() {
            None => self.route.upstream.pick(&mut self.ask),
            Some(chosen) => {
                let Route { rules, upstream, secure, .. } = &mut self.route;
                let next = chosen.next(r, upstream, rules, &mut self.ask);
                let next = next.map_err(|status| {
                    r.slots.of::<Trail>().nobody();
                    Broken::Over(status)
                })?;
                if let (Some(secure), Some(host)) = (secure, next.host) {
                    secure.name = host;
                }
                self.pool = next.pool;
                if next.rewrite {
                    self.written = talk.request(r, self.facts).map_err(Broken::Over)?;
                }
                next.turn
            }
        };
        let Some(turn) = picked else {
            self.note(r, talk, self.route.upstream.name.clone());
            log::error!(&*r, "no live upstreams while {CONNECTING}");
            return Err(Broken::Failed(Failed::NoLive));
        };
        let name = turn.peer().name.clone();
        self.attempt.peer.replace(name.clone());
        self.note(r, talk, name);
        let kept = match self.connection(r, &turn).await {
            Ok(kept) => kept,
            Err(broken) => return Err(self.leave_broken(r, turn, broken)),
        };
        self.attempt.connect();
        talk.reset();
        let mut exchange = Exchange::new(self, r, &kept);
        let read = std::future::poll_fn(|cx| exchange.poll(talk, cx)).await;
        self.doing = exchange.doing();
        let Exchange { upload, input, .. } = exchange;
        self.sent = upload.begun;
        match read {
            Ok(head_len) => {
                let bytes = input.map(Buf::freeze).unwrap_or_default();
                let upload = (!upload.is_done()).then(|| Box::new(upload));
                Ok(Arrived { kept, turn, upload, bytes, head_len })
            }
            Err(broken) => {
                let was_kept = kept.requests > 1 && self.attempt.received.get() == 0;
                if was_kept && matches!(broken, Broken::Failed(Failed::Error)) {
                    turn.excuse(&mut self.ask);
                    self.avoid_pool = true;
                    return Err(broken);
                }
                Err(self.leave_broken(r, turn, broken))
            }
        }
    }

    fn leave_broken(&mut self, r: &Request, turn: Turn, broken: Broken) -> Broken {
        if let Broken::Failed(failed) = broken {
            self.leave(r, turn, failed);
        }
        broken
    }

    /// The peer's turn is over without success.
    fn leave(&mut self, r: &Request, turn: Turn, failed: Failed) {
        match failed.is_failure() {
            true => turn.fail(&mut self.ask, r, self.doing),
            false => turn.spend(&mut self.ask),
        }
    }

    fn note<T: Talk>(&self, r: &mut Request, talk: &T, peer: Rc<str>) {
        let note = Note { scheme: talk.scheme(), peer, uri: self.written.uri.clone() };
        r.slots.of::<Trail>().note(note);
    }

    /// A connection to the peer: one that has waited, or a new one.
    async fn connection(&mut self, r: &Request, turn: &Turn) -> Result<Box<Kept>, Broken> {
        let tag = self.tag();
        let pool = self.pool.as_ref();
        if let Some(pool) = pool.filter(|_| !self.avoid_pool)
            && let Some(kept) = pool.take(turn.peer(), &tag)
        {
            return Ok(kept);
        }
        // Rare where connections are kept, and large: in a block of its own.
        Box::pin(self.connect(r, turn, tag)).await
    }

    /// A new connection to the peer.
    async fn connect(&mut self, r: &Request, turn: &Turn, tag: Tag) -> Result<Box<Kept>, Broken> {
        let pool = self.pool.as_ref();
        let rules = &self.route.rules;
        let departure = match &rules.bind {
            None => Departure::default(),
            Some(bind) => bind.departure(r).unwrap_or_else(|text| {
                log::error!(r, "invalid local address \"{text}\" while {CONNECTING}");
                Departure::default()
            }),
        };
        let way = Way {
            departure: Departure { receive_buffer: rules.socket_rcvbuf as usize, ..departure },
            keepalive: rules.socket_keepalive,
            send_buffer: (rules.socket_sndbuf > 0).then_some(rules.socket_sndbuf as usize),
            timeout: rules.connect_timeout,
            nodelay: r.place.location.core.tcp_nodelay,
        };
        let connecting = connect::connect(turn.peer(), &way);
        let stream = match self.unless_client_leaves(r, connecting).await? {
            Ok(stream) => stream,
            Err(fault) => {
                return Err(Broken::Failed(connect_failed(r, &turn.peer().address, fault)));
            }
        };
        let Some(secure) = &self.route.secure else {
            return Ok(Kept::new(Conn::plain(stream), None, pool, turn.peer(), tag));
        };
        let (client, name) = (&*secure.client, &*secure.name);
        self.doing = HANDSHAKING;
        let handshake = connect::secure(stream, turn.peer(), client, name, way.timeout);
        match self.unless_client_leaves(r, handshake).await? {
            Ok((conn, info)) => Ok(Kept::new(conn, Some(info), pool, turn.peer(), tag)),
            Err(fault) => Err(Broken::Failed(handshake_failed(r, fault))),
        }
    }

    /// Which waiting connections may be used.
    fn tag(&self) -> Tag {
        let place = match &self.pool {
            Some(pool) if pool.rules().local => Rc::as_ptr(&self.route.rules) as usize,
            _ => 0,
        };
        match &self.route.secure {
            None => Tag { place, ..Tag::default() },
            Some(secure) => Tag {
                place,
                tls: Rc::as_ptr(&secure.client) as usize,
                name: Some(secure.name.clone()),
            },
        }
    }

    async fn unless_client_leaves<O>(
        &self,
        r: &Request,
        future: impl Future<Output = O>,
    ) -> Result<O, Broken> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match self.watches_client && r.client.conn.stream().poll_closed(cx).is_ready() {
                true => Poll::Ready(Err(client_left(r, self.doing))),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Whether the reply is to be tried elsewhere.
    fn judge<T: Talk>(&self, r: &Request, talk: &T, arrived: &Arrived) -> Option<Failed> {
        let code = talk.head().status;
        self.attempt.read_head(code);
        if code < 300 || self.ask.tries <= 1 {
            return None;
        }
        let failed = Failed::Status(code);
        debug_assert!(arrived.head_len <= arrived.bytes.len());
        self.route.rules.next.allow(failed, r.method, self.progress()).then_some(failed)
    }

    fn progress(&self) -> Progress {
        Progress {
            sent: self.sent,
            body_is_gone: matches!(self.source, Source::Stream(..)),
            elapsed: event::now().duration_since(self.began),
        }
    }

    /// Decides what follows a try without a reply to pass on.
    fn after(&mut self, r: &mut Request, broken: Broken) -> Next {
        self.attempt.end();
        let failed = match broken {
            Broken::Over(status) => return Next::Finish(status),
            Broken::Failed(failed) => failed,
        };
        self.attempt.status.set(failed.status());
        if self.route.chosen.is_some() {
            r.slots.of::<Choice>().last = Some(failed);
        }
        let allowed = self.route.rules.next.allow(failed, r.method, self.progress());
        if self.ask.tries == 0 || !allowed {
            return Next::Finish(failed.status());
        }
        self.attempt = r.slots.of::<Trail>().attempt(self.route.upstream.name.clone());
        Next::Again
    }

    /// Makes the client's reply of the upstream's.
    fn answer<T: Talk>(self, r: &mut Request, mut talk: T, arrived: Arrived) -> Verdict {
        let Arrived { kept, turn, upload, mut bytes, head_len } = arrived;
        let rules = self.route.rules.clone();
        let head_bytes = bytes.split_to(head_len);
        let line = Line {
            kept,
            turn,
            keeps: talk.keeps() && upload.is_none(),
            upload,
            watches_client: self.watches_client,
        };
        if let Some(verdict) = self.divert(r, &talk, &head_bytes, &rules) {
            let mut body = talk.body();
            let whole = body.has_ended() && bytes.is_empty();
            r.slots.of::<Trail>().keep_head(talk.into_head(), compact(&head_bytes, false));
            let _ = body.closed();
            if whole && line.keeps {
                line.kept.release();
            }
            self.attempt.end();
            return verdict;
        }
        let steering = answer::fill(r, &talk, &head_bytes, &rules);
        if talk.head().status == 101 && talk.may_upgrade(r) {
            r.slots.of::<Trail>().keep_head(talk.into_head(), compact(&head_bytes, true));
            r.reply.tunnel = Some(tunnel::tunnel(Join {
                kept: line.kept,
                turn: line.turn,
                attempt: self.attempt.clone(),
                first: bytes,
                timeout: rules.read_timeout,
                who: Who::of(r),
            }));
            return Verdict::Reply;
        }
        let buffered = steering.buffering.unwrap_or(rules.buffering);
        if !buffered {
            r.slots.of::<RateOverride>().0 = 0;
        }
        let frame = talk.body();
        let is_whole = self.body(r, &rules, line, frame, bytes, buffered);
        r.slots.of::<Trail>().keep_head(talk.into_head(), compact(&head_bytes, !is_whole));
        Verdict::Reply
    }

    /// Intercepted errors and `X-Accel-Redirect`.
    fn divert<T: Talk>(
        &self,
        r: &mut Request,
        talk: &T,
        bytes: &[u8],
        rules: &Rules,
    ) -> Option<Verdict> {
        let head = talk.head();
        let code = head.status;
        let pages = &r.place.location.core.error_pages;
        if code >= 300 && rules.intercept_errors && pages.iter().any(|p| p.status == code) {
            r.reply.restart();
            for field in head.all(HeaderId::WwwAuthenticate).filter(|_| code == 401) {
                r.reply.fields.push(HeaderId::WwwAuthenticate, field.value.of(bytes));
            }
            return Some(Verdict::Finish(code));
        }
        let elsewhere = answer::elsewhere(r, head, bytes, rules)?;
        answer::keep_for_elsewhere(r, talk, bytes, rules);
        Some(match elsewhere {
            Elsewhere::Named(name) => Verdict::Named(name),
            Elsewhere::Unsafe => Verdict::Finish(404),
            Elsewhere::Path(path, args) => {
                if r.method != crate::proto::h1::Method::Head {
                    r.method = crate::proto::h1::Method::Get;
                }
                r.internal_redirect(path, args)
            }
        })
    }

    /// Gives the reply its body; says whether all of it is there.
    fn body<F: Unframe + 'static>(
        &self,
        r: &mut Request,
        rules: &Rc<Rules>,
        line: Line,
        mut frame: F,
        first: Slice,
        buffered: bool,
    ) -> bool {
        if frame.has_ended() && first.is_empty() {
            return self.whole(r, line, Body::Empty);
        }
        // Common: a body of known length that came with its head.
        if r.reply.length == Some(first.len() as u64)
            && let Ok(Piece::Data(range)) = frame.next(&first, &mut 0)
            && range.len() == first.len()
            && frame.has_ended()
        {
            self.attempt.response_length.set(first.len() as u64);
            return self.whole(r, line, Body::Whole(Chunk::Mem(first)));
        }
        let rate = rules.limit_rate.as_ref().map_or(0, |t| value::size(&t.text(r)).unwrap_or(0));
        let trail = r.slots.of::<Trail>();
        let seen_trailers = trail.trailers();
        let begin = Begin {
            line,
            frame: Box::new(frame),
            rules: rules.clone(),
            attempt: self.attempt.clone(),
            who: Who::of(r),
            buffered,
            rate,
            seen_trailers,
        };
        r.reply.body = Body::Stream(Box::new(ReplyBody::new(begin, first)));
        false
    }

    fn whole(&self, r: &mut Request, line: Line, body: Body) -> bool {
        self.attempt.end();
        r.reply.body = body;
        if line.keeps {
            line.kept.release();
        }
        true
    }
}

/// The head's bytes for the variables: in a block of their own if they would hold a large one for
/// long.
fn compact(bytes: &Slice, own: bool) -> Slice {
    if own { Slice::copy_from(bytes) } else { bytes.clone() }
}

/// Reads the client's body, or prepares to stream it.
async fn take_body<T: Talk>(
    r: &mut Request,
    rules: &Rules,
    talk: &T,
) -> Result<(Source, BodyFacts), u16> {
    let own = talk.own_body(r);
    let was_chunked = r.head.chunked;
    let mut length = r.head.content_length;
    let streams = !rules.request_buffering
        && own.is_none()
        && rules.pass_request_body
        && (!was_chunked || talk.streams_chunks());
    if streams && let Some(source) = r.body.take_stream() {
        let facts = BodyFacts { length, chunked: was_chunked };
        return Ok((Source::Stream(Some(source), was_chunked), facts));
    }
    if let Err(fault) = r.keep_body().await {
        return Err(body_failed(r, fault));
    }
    if was_chunked {
        length = Some(r.body.kept_len());
    }
    let chunks = match own {
        Some(bytes) => {
            length = Some(bytes.len() as u64);
            vec![Chunk::Mem(Slice::from(bytes))]
        }
        None if rules.pass_request_body => r.body.chunks().to_vec(),
        None => Vec::new(),
    };
    Ok((Source::Kept(chunks), BodyFacts { length, chunked: false }))
}

/// The client's body could not be read: the status that ends the request.
fn body_failed(r: &mut Request, fault: Fault) -> u16 {
    r.keep_alive = false;
    if !fault.what.is_empty() {
        match fault.whose {
            Whose::Client if fault.status == 413 => log::error!(&*r, "{fault}"),
            Whose::Client => log::info!(&*r, "{fault} while reading client request body"),
            _ => log::crit!(&*r, "{fault} while reading client request body"),
        }
    }
    fault.status
}

fn client_left(r: &Request, doing: &str) -> Broken {
    log::info!(
        r,
        "epoll_wait() reported that client prematurely closed connection, so upstream \
         connection is closed too while {doing}"
    );
    Broken::Over(status::CLIENT_CLOSED)
}

fn connect_failed(r: &Request, to: &Address, fault: ConnectFault) -> Failed {
    match fault {
        ConnectFault::TimedOut => {
            log::error!(r, "upstream timed out (110: Connection timed out) while {CONNECTING}");
            Failed::Timeout
        }
        ConnectFault::Os(e) => {
            use std::io::ErrorKind::*;
            // What the network says; anything else is this machine's trouble.
            let is_usual = matches!(
                e.kind(),
                ConnectionRefused
                    | ConnectionReset
                    | ConnectionAborted
                    | TimedOut
                    | NetworkDown
                    | NetworkUnreachable
                    | HostUnreachable
            );
            let at_once = to.is_unix() || !matches!(e.kind(), ConnectionRefused | TimedOut);
            let whereto = if at_once { format!(" to {to}") } else { String::new() };
            let os = log::Os(&e);
            match is_usual {
                true => {
                    log::error!(r, "connect(){whereto} failed{os} while {CONNECTING}");
                }
                false => {
                    log::crit!(r, "connect(){whereto} failed{os} while {CONNECTING}")
                }
            }
            Failed::Error
        }
    }
}

fn handshake_failed(r: &Request, fault: Option<HandshakeFault>) -> Failed {
    match fault {
        Some(fault) => {
            log::error!(r, "{fault} while {HANDSHAKING}");
            Failed::Error
        }
        None => {
            log::error!(r, "upstream timed out (110: Connection timed out) while {HANDSHAKING}");
            Failed::Timeout
        }
    }
}

/// A request going out and the head of its reply coming in.
struct Exchange<'a> {
    r: &'a Request,
    kept: &'a Kept,
    rules: Rc<Rules>,
    attempt: Rc<Attempt>,
    upload: Upload,
    input: Option<Buf>,
    write_error: Option<std::io::Error>,
    watches_client: bool,
    /// Bytes of early hints so far.
    hinted: usize,
}

impl<'a> Exchange<'a> {
    fn new(trip: &mut Trip, r: &'a Request, kept: &'a Kept) -> Exchange<'a> {
        let head = trip.written.bytes.clone();
        let upload = match &mut trip.source {
            Source::Kept(chunks) => Upload::kept(head, chunks),
            Source::Stream(body, chunked) => match body.take() {
                Some(body) => {
                    let limit = r.place.location.core.client_max_body_size;
                    Upload::streamed(head, body, *chunked, limit)
                }
                None => Upload::kept(head, &[]),
            },
        };
        kept.deadline.clear();
        Exchange {
            r,
            kept,
            rules: trip.route.rules.clone(),
            attempt: trip.attempt.clone(),
            upload,
            input: None,
            write_error: None,
            watches_client: trip.watches_client,
            hinted: 0,
        }
    }

    fn poll<T: Talk>(&mut self, talk: &mut T, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        if !self.upload.is_done() && self.write_error.is_none() {
            self.send(cx)?;
        }
        if let Poll::Ready(done) = self.receive(talk, cx) {
            return Poll::Ready(done);
        }
        if let Some(e) = self.write_error.take() {
            let os = log::Os(&e);
            log::error!(self.r, "send() failed{os} while {SENDING}");
            return Poll::Ready(Err(Broken::Failed(Failed::Error)));
        }
        if self.kept.deadline.poll(cx).is_ready() {
            let doing = self.doing();
            log::error!(self.r, "upstream timed out (110: Connection timed out) while {doing}");
            return Poll::Ready(Err(Broken::Failed(Failed::Timeout)));
        }
        let awaits_client = self.upload.awaits_source();
        let client = self.r.client.conn.stream();
        if self.watches_client && !awaits_client && client.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(client_left(self.r, self.doing())));
        }
        Poll::Pending
    }

    fn doing(&self) -> &'static str {
        match self.upload.is_done() {
            true => READING_HEAD,
            false => SENDING,
        }
    }

    /// Sends what can be sent, and sets the time that is left.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let before = self.attempt.sent.get();
        let deadline: &Deadline = &self.kept.deadline;
        match self.upload.poll(&self.kept.conn, &self.attempt, cx) {
            Poll::Ready(Ok(())) => deadline.set_after(self.rules.read_timeout),
            Poll::Ready(Err(UploadFault::Write(e))) => self.write_error = Some(e),
            Poll::Ready(Err(UploadFault::Source(fault))) => {
                return Err(Broken::Over(self.source_failed(fault)));
            }
            // The client's own timeout is its source's affair.
            Poll::Pending if self.upload.awaits_source() => deadline.clear(),
            Poll::Pending => {
                if deadline.get().is_none() || self.attempt.sent.get() > before {
                    deadline.set_after(self.rules.send_timeout);
                }
            }
        }
        Ok(())
    }

    fn source_failed(&self, fault: Fault) -> u16 {
        if !fault.what.is_empty() {
            match fault.status {
                413 => log::error!(self.r, "{fault} while {SENDING}"),
                _ => log::info!(self.r, "{fault} while {SENDING}"),
            }
        }
        fault.status
    }

    /// Reads until the head is whole.
    fn receive<T: Talk>(
        &mut self,
        talk: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        let conn = &self.kept.conn;
        loop {
            if !conn.is_secure() && conn.stream().poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            let mut input = self.input.take().unwrap_or_else(|| Buf::new(self.rules.head_room()));
            let read = conn.poll_read(cx, input.spare());
            let had_some = !input.is_empty();
            match read {
                Poll::Pending => {
                    self.input = had_some.then_some(input);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => {
                    log::error!(
                        self.r,
                        "upstream prematurely closed connection while {READING_HEAD}"
                    );
                    return Poll::Ready(Err(Broken::Failed(Failed::Error)));
                }
                Poll::Ready(Ok(n)) => {
                    input.fill(n);
                    self.attempt.receive(n);
                }
                Poll::Ready(Err(e)) => {
                    let os = log::Os(&e);
                    log::error!(self.r, "recv() failed{os} while {READING_HEAD}");
                    return Poll::Ready(Err(Broken::Failed(Failed::Error)));
                }
            }
            let step = self.parse(talk, &mut input, cx);
            self.input = Some(input);
            if let Some(done) = step {
                return Poll::Ready(done);
            }
        }
    }

    /// Looks at what has come; gives the head's length when it is whole and final.
    fn parse<T: Talk>(
        &mut self,
        talk: &mut T,
        input: &mut Buf,
        cx: &mut Context<'_>,
    ) -> Option<Result<usize, Broken>> {
        let max = (self.rules.buffer_size as usize).min(input.capacity());
        loop {
            match talk.read_head(input.filled(), max) {
                Ok(HeadStep::Partial) => return None,
                Ok(HeadStep::Complete(len)) if talk.head().is_interim() => {
                    self.hinted += len;
                    if talk.head().status == 103 {
                        let fits = self.hinted <= max;
                        hints::pass_on(self.r, talk.head(), input.filled(), &self.rules, fits, cx);
                    }
                    input.consume(len);
                    input.compact();
                    talk.reset();
                    if input.is_empty() {
                        return None;
                    }
                }
                Ok(HeadStep::Complete(len)) => return Some(Ok(len)),
                Ok(HeadStep::Absent(what)) => {
                    log::error!(self.r, "{what} while {READING_HEAD}");
                    return Some(Ok(0));
                }
                Err(what) => {
                    log::error!(self.r, "{what} while {READING_HEAD}");
                    return Some(Err(Broken::Failed(Failed::InvalidHeader)));
                }
            }
        }
    }
}
