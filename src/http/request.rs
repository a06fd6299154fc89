//! A request: five parts with five owners.
//!
//! `head` is the driver's, read-only afterwards · `body` is read by whoever wants it · `place` is
//! where it is handled · `reply` belongs to handlers and filters · `tally` counts. A module that
//! must remember something keeps a slot of its own type; it never adds a field here.

use super::client::Client;
use super::fields::Fields;
use super::place::{Place, Server};
use super::regex::Captures;
use super::reply::Reply;
use super::request_body::RequestBody;
use super::upstream::trail::{Note, Trail};
use super::variable::Values;
use super::{HttpConf, HttpModule, status};
use crate::io::Chunk;
use crate::log;
use crate::proto::h1::{Method, Span, Version};
use crate::proto::header::HeaderId;
use crate::proto::host;
use smallvec::SmallVec;
use std::any::{Any, TypeId};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

/// What the client asked, as it arrived. Spans refer to the block of `fields`.
#[derive(Clone, Default)]
pub struct Head {
    /// The method, if it is a known one.
    pub method: Method,
    /// Its name.
    pub method_name: Span,
    /// HTTP/1.0, 1.1, 2 …
    pub version: Version,
    /// `$request`: the first line, or what it would be in HTTP/1.
    pub request_line: Span,
    /// `$request_uri`: the target as it was sent, without scheme and host.
    pub target: Span,
    /// The host in lower case, without port; from the target or the Host field.
    pub host: Rc<str>,
    /// `$request_port`: the port that was written behind the host, or 0.
    pub port: u16,
    /// `$request_id`, made when somebody asks for it.
    pub id: OnceCell<[u8; 16]>,
    /// The header fields.
    pub fields: Fields,
    /// Content-Length.
    pub content_length: Option<u64>,
    /// The body is chunked, or framed by the protocol without a known length.
    pub chunked: bool,
    /// Bytes of line and fields on the wire, for `$request_length`.
    pub wire_len: u64,
}

impl Head {
    /// The text of a span.
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(self.fields.block())
    }

    /// The first value of a field.
    pub fn get(&self, id: HeaderId) -> Option<&[u8]> {
        self.fields.get(id)
    }

    /// Appends what the log says of a request.
    pub(super) fn describe(
        &self,
        client: &Client,
        server: &Server,
        (subrequest, upstream): (Option<&[u8]>, Option<&Note>),
        line: &mut log::Line,
    ) {
        line.push(b", client: ");
        line.push(client.peer_text().as_bytes());
        line.push(b", server: ");
        line.push(server.name.as_bytes());
        line.push(b", request: \"");
        line.push(self.text(self.request_line));
        if let Some(uri) = subrequest {
            line.push(b"\", subrequest: \"");
            line.push(uri);
        }
        if let Some(upstream) = upstream {
            line.push(b"\", upstream: \"");
            upstream.describe(line);
        }
        for (what, id) in [("host", HeaderId::Host), ("referrer", HeaderId::Referer)] {
            if let Some(value) = self.get(id) {
                line.push(b"\", ");
                line.push(what.as_bytes());
                line.push(b": \"");
                line.push(value);
            }
        }
        line.push(b"\"");
    }
}

/// What was counted of one request.
#[derive(Clone)]
pub struct Tally {
    /// When its first byte arrived (or, behind another on the connection, when it was begun).
    pub started: Instant,
    /// The same on the wall clock, milliseconds since the epoch.
    pub started_ms: u64,
    /// Bytes of head and body read from the client.
    pub received: u64,
    /// Bytes written to the client, head included.
    pub sent: u64,
    /// Bytes of the head among them.
    pub head_sent: u64,
    /// The whole reply reached the socket.
    pub completed: bool,
    /// `p` in `$pipe`: it waited behind another request in the same buffer.
    pub pipelined: bool,
}

/// How the driver of a request sends what comes before the reply.
pub trait Interim {
    /// Sends a 103 with `fields`, or as much as the client takes now; the rest leaves before the
    /// reply does.
    fn send_hints(&self, fields: &Fields, cx: &mut Context<'_>);

    /// Takes what was read of the connection behind the request's head, for who takes the whole
    /// connection.
    fn take_ahead(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// One request on its way.
pub struct Request {
    /// The configuration it is handled by.
    pub http: Rc<HttpConf>,
    /// The connection it came over.
    pub client: Rc<Client>,
    /// What was asked.
    pub head: Rc<Head>,
    /// The method in force: an error page is fetched with GET whatever was asked.
    pub method: Method,
    /// The body, not read yet.
    pub body: RequestBody,
    /// Server, location, URI.
    pub place: Place,
    /// The answer.
    pub reply: Reply,
    /// Bytes and times.
    pub tally: Tally,
    /// `$1` …
    pub captures: RefCell<Captures>,
    /// Values of variables that are kept.
    pub values: Values,
    /// What modules remember.
    pub slots: Slots,
    /// Takes what is sent before the reply; `None` where nothing may be.
    pub interim: Option<Rc<dyn Interim>>,
    /// This is a subrequest: it has no driver of its own and is not logged unless asked for.
    pub is_subrequest: bool,
    /// 0 for the client's request; bounded for the ones made of it.
    pub depth: u8,
    /// The connection stays open after the reply, as far as the request is concerned.
    pub keep_alive: bool,
}

/// Typed places for what modules remember per request.
#[derive(Default)]
pub struct Slots(SmallVec<[(TypeId, Box<dyn Any>); 4]>);

impl Slots {
    /// The value of type `T`, if somebody stored one.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let found = self.0.iter().find(|(id, _)| *id == TypeId::of::<T>());
        found.and_then(|(_, value)| value.downcast_ref())
    }

    /// The value of type `T`, made if there is none.
    pub fn of<T: Default + 'static>(&mut self) -> &mut T {
        let id = TypeId::of::<T>();
        let at = self.0.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            self.0.push((id, Box::<T>::default()));
            self.0.len() - 1
        });
        self.0[at].1.downcast_mut().expect("stored under its own type")
    }

    /// Takes the value of type `T` out.
    pub fn take<T: 'static>(&mut self) -> Option<T> {
        let at = self.0.iter().position(|(id, _)| *id == TypeId::of::<T>())?;
        self.0.swap_remove(at).1.downcast().ok().map(|value| *value)
    }
}

impl Request {
    /// A request at the entrance of `server`.
    pub fn new(
        http: Rc<HttpConf>,
        client: Rc<Client>,
        head: Rc<Head>,
        server: Rc<Server>,
        body: RequestBody,
        tally: Tally,
        keep_alive: bool,
    ) -> Request {
        let place = Place::at(server);
        Request {
            http,
            client,
            method: head.method,
            head,
            body,
            place,
            reply: Reply::default(),
            tally,
            captures: RefCell::default(),
            values: Values::default(),
            slots: Slots::default(),
            interim: None,
            is_subrequest: false,
            depth: 0,
            keep_alive,
        }
    }

    /// A request made of this one, for another URI of the same server. Its reply is pulled by
    /// whoever made it; its body is empty.
    pub fn subrequest(&self, uri: Vec<u8>, args: Vec<u8>) -> Request {
        let tally = Tally { received: 0, sent: 0, head_sent: 0, completed: false, ..self.tally };
        let mut place = Place::at(self.place.server.clone());
        (place.uri, place.args, place.internal) = (uri, args, true);
        place.is_original = false;
        place.uri_changes = self.place.uri_changes;
        Request {
            http: self.http.clone(),
            client: self.client.clone(),
            method: Method::Get,
            head: self.head.clone(),
            body: RequestBody::default(),
            place,
            reply: Reply::default(),
            tally,
            captures: RefCell::new(self.captures.borrow().clone()),
            values: self.values.inherit(),
            slots: Slots::default(),
            interim: None,
            is_subrequest: true,
            depth: self.depth + 1,
            keep_alive: self.keep_alive,
        }
    }

    /// Module `M`'s configuration where the request is.
    pub fn conf<M: HttpModule>(&self) -> &Rc<M::Loc> {
        self.place.location.confs.loc::<M>()
    }

    /// Module `M`'s once-only configuration.
    pub fn main<M: HttpModule>(&self) -> &Rc<M::Main> {
        self.http.mains.main::<M>()
    }

    /// The method's name: `GET` after an error page took over.
    pub fn method_name(&self) -> &[u8] {
        if self.method == self.head.method { self.head.text(self.head.method_name) } else { b"GET" }
    }

    /// The first value of a request field.
    pub fn header(&self, id: HeaderId) -> Option<&[u8]> {
        self.head.get(id)
    }

    /// Gives the request another method.
    pub fn set_method(&mut self, name: &[u8]) {
        let head = Rc::make_mut(&mut self.head);
        let (start, end) = head.fields.push_text(name);
        head.method_name = Span { start, end };
        head.method = Method::of(name);
        self.method = head.method;
    }

    /// Gives the request a body that is there already.
    pub fn give_body(&mut self, chunks: Vec<Chunk>) {
        let length: u64 = chunks.iter().map(Chunk::len).sum();
        let head = Rc::make_mut(&mut self.head);
        head.content_length = Some(length);
        head.chunked = false;
        head.fields.set(HeaderId::ContentLength, itoa::Buffer::new().format(length).as_bytes());
        self.body = RequestBody::kept(chunks);
    }

    /// Gives a field of the request these values (none removes it), in place of those that it has
    /// if `replaces`. False, with nothing changed: a host or a length that is none.
    pub fn put_field(&mut self, name: &[u8], values: &[Vec<u8>], replaces: bool) -> bool {
        let id = HeaderId::of(name);
        let last = values.last().map(Vec::as_slice);
        let text = last.and_then(|value| std::str::from_utf8(value).ok()).map(str::trim);
        let length = text.and_then(|text| text.parse().ok());
        let host = last.and_then(host::validate);
        match id {
            HeaderId::ContentLength if length.is_none() && last.is_some() => return false,
            HeaderId::Host if host.is_none() && last.is_some() => return false,
            _ => {}
        }
        let head = Rc::make_mut(&mut self.head);
        if replaces || matches!(id, HeaderId::Host | HeaderId::ContentLength) {
            head.fields.remove_named(name);
        }
        values.iter().for_each(|value| head.fields.push_named(name, value));
        match id {
            HeaderId::ContentLength => head.content_length = length,
            HeaderId::Host => {
                let name = host.zip(text).map(|(host, text)| text[..host.len].to_lowercase());
                head.host = name.unwrap_or_default().into();
            }
            _ => {}
        }
        true
    }

    /// Only the head of a reply is wanted.
    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }

    /// The status as the log sees it.
    pub fn status(&self) -> u16 {
        match self.reply.status {
            0 if self.head.version == Version::Http09 => 9,
            0 => status::CLIENT_CLOSED,
            code => code,
        }
    }
}

/// What the log says of a request, for who speaks of it without having it.
#[derive(Clone)]
pub struct About {
    log: Option<log::Log>,
    client: Rc<Client>,
    head: Rc<Head>,
    server: Rc<Server>,
}

impl Request {
    /// What the log says of it, as things stand.
    pub fn about(&self) -> About {
        About {
            log: log::Context::log(self),
            client: self.client.clone(),
            head: self.head.clone(),
            server: self.place.server.clone(),
        }
    }
}

impl log::Context for About {
    fn log(&self) -> Option<log::Log> {
        self.log.clone()
    }

    fn connection(&self) -> u64 {
        self.client.serial
    }

    fn describe(&self, line: &mut log::Line) {
        self.head.describe(&self.client, &self.server, (None, None), line);
    }
}

impl log::Context for Request {
    fn log(&self) -> Option<log::Log> {
        self.place.location.core.error_log.clone()
    }

    fn connection(&self) -> u64 {
        self.client.serial
    }

    fn describe(&self, line: &mut log::Line) {
        let note = self.slots.get::<Trail>().and_then(Trail::noted);
        let subrequest = self.is_subrequest.then_some(&*self.place.uri);
        self.head.describe(&self.client, &self.place.server, (subrequest, note), line);
    }
}
