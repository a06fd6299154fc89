//! What a request did at upstreams: for `$upstream_…`, and for the log.

use super::spare::SpareHead;
use crate::http::{Fields, Request};
use crate::io::Slice;
use crate::log;
use crate::proto::h1::ReplyHead;
use crate::proto::header::HeaderId;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

/// One try at one peer.
pub struct Attempt {
    /// `$upstream_addr`: the peer's address, or the upstream's name if nobody could be asked.
    pub peer: RefCell<Rc<str>>,
    started: Instant,
    /// The reply's status, or what stands for it.
    pub status: Cell<u16>,
    /// When the connection stood.
    connected: Cell<Option<Instant>>,
    /// When the head was read.
    head_read: Cell<Option<Instant>>,
    /// When it was over.
    ended: Cell<Option<Instant>>,
    /// Bytes of the reply's body, as framed.
    pub response_length: Cell<u64>,
    /// Bytes read.
    pub received: Cell<u64>,
    /// Bytes written.
    pub sent: Cell<u64>,
}

impl Attempt {
    fn new(peer: Rc<str>) -> Attempt {
        Attempt {
            peer: RefCell::new(peer),
            started: crate::event::now(),
            status: Cell::new(0),
            connected: Cell::new(None),
            head_read: Cell::new(None),
            ended: Cell::new(None),
            response_length: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    /// The connection stands.
    pub fn connect(&self) {
        self.connected.set(Some(crate::event::now()));
    }

    /// The head was read, with this status.
    pub fn read_head(&self, status: u16) {
        self.head_read.set(Some(crate::event::now()));
        self.status.set(status);
    }

    /// Counts bytes read.
    pub fn receive(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// It is over.
    pub fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(crate::event::now()));
        }
    }
}

/// All tries of a request, the last peer, and the last reply's head.
#[derive(Default)]
pub struct Trail {
    /// `None` parts the tries before an internal redirect from those behind it.
    attempts: SmallVec<[Option<Rc<Attempt>>; 2]>,
    note: Option<Note>,
    head: Option<SeenHead>,
    /// Made when a body that may end with some is passed on.
    trailers: Option<Rc<RefCell<Option<Fields>>>>,
}

/// What the log says of the upstream: `http://192.0.2.1:80/uri`.
#[derive(Clone)]
pub struct Note {
    /// `http://`
    pub scheme: Rc<str>,
    /// The peer's address.
    pub peer: Rc<str>,
    /// The URI that was asked for.
    pub uri: Slice,
}

/// A reply's head as it was read, with the fields that do not go on.
struct SeenHead {
    head: SpareHead,
    bytes: Slice,
}

impl Trail {
    /// Another request to an upstream begins.
    pub fn begin(&mut self) {
        if !self.attempts.is_empty() {
            self.attempts.push(None);
        }
        self.head = None;
    }

    /// Another try begins; `peer` as far as it is known.
    pub fn attempt(&mut self, peer: Rc<str>) -> Rc<Attempt> {
        let attempt = Rc::new(Attempt::new(peer));
        self.attempts.push(Some(attempt.clone()));
        attempt
    }

    /// Nobody was found for the last try: as in nginx only a mark is left of it, behind others.
    pub fn nobody(&mut self) {
        if let [.., Some(_), last] = &mut self.attempts[..] {
            *last = None;
        }
    }

    /// From now on the log names this peer.
    pub fn note(&mut self, note: Note) {
        self.note = Some(note);
    }

    /// What the log says.
    pub fn noted(&self) -> Option<&Note> {
        self.note.as_ref()
    }

    /// Keeps the head that was read from `bytes`.
    pub fn keep_head(&mut self, head: SpareHead, bytes: Slice) {
        self.head = Some(SeenHead { head, bytes });
    }

    /// The last reply's head and its bytes.
    pub fn head(&self) -> Option<(&ReplyHead, &[u8])> {
        self.head.as_ref().map(|seen| (&*seen.head, &*seen.bytes))
    }

    /// Where the body puts its trailer.
    pub fn trailers(&mut self) -> Rc<RefCell<Option<Fields>>> {
        self.trailers.get_or_insert_default().clone()
    }
}

impl Note {
    /// Appends `http://192.0.2.1:80/uri`.
    pub fn describe(&self, line: &mut log::Line) {
        line.push(self.scheme.as_bytes());
        line.push(self.peer.as_bytes());
        if self.peer.starts_with("unix:") {
            line.push(b":");
        }
        line.push(&self.uri);
    }
}

// ---- variables ------------------------------------------------------------------------------

/// Appends what `one` says of every try, with nginx's separators.
fn each(r: &Request, out: &mut Vec<u8>, one: impl Fn(&Attempt, &mut Vec<u8>)) -> bool {
    let Some(trail) = r.slots.get::<Trail>().filter(|t| !t.attempts.is_empty()) else {
        return false;
    };
    let mut before = None;
    for attempt in &trail.attempts {
        match (&before, attempt) {
            (None, _) => {}
            (Some(_), None) => out.extend_from_slice(b" : "),
            (Some(true), Some(_)) => out.extend_from_slice(b", "),
            (Some(false), Some(_)) => {}
        }
        if let Some(attempt) = attempt {
            one(attempt, out);
        }
        before = Some(attempt.is_some());
    }
    true
}

/// `$upstream_addr`
pub fn addr(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| out.extend_from_slice(a.peer.borrow().as_bytes()))
}

/// `$upstream_status`
pub fn status(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| match a.status.get() {
        0 => out.push(b'-'),
        code => number(code.into(), out),
    })
}

/// `$upstream_connect_time`
pub fn connect_time(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| time(a, a.connected.get(), out))
}

/// `$upstream_header_time`
pub fn header_time(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| time(a, a.head_read.get(), out))
}

/// `$upstream_response_time`
pub fn response_time(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| time(a, a.ended.get(), out))
}

/// `$upstream_response_length`
pub fn response_length(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| number(a.response_length.get(), out))
}

/// `$upstream_bytes_received`
pub fn bytes_received(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| number(a.received.get(), out))
}

/// `$upstream_bytes_sent`
pub fn bytes_sent(r: &Request, out: &mut Vec<u8>) -> bool {
    each(r, out, |a, out| number(a.sent.get(), out))
}

/// `$upstream_http_NAME`
pub fn http(r: &Request, key: &str, out: &mut Vec<u8>) -> bool {
    let Some((head, bytes)) = r.slots.get::<Trail>().and_then(Trail::head) else { return false };
    let mut found = false;
    for field in head.fields.iter().filter(|f| is_named(f.name.of(bytes), key)) {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(field.value.of(bytes));
    }
    found
}

/// `$upstream_trailer_NAME`
pub fn trailer(r: &Request, key: &str, out: &mut Vec<u8>) -> bool {
    let Some(trail) = r.slots.get::<Trail>() else { return false };
    let Some(trailers) = &trail.trailers else { return false };
    let trailers = trailers.borrow();
    let mut found = false;
    for field in trailers.iter().flat_map(Fields::iter).filter(|f| is_named(f.name, key)) {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(field.value);
    }
    found
}

/// `$upstream_cookie_NAME`
pub fn cookie(r: &Request, key: &str, out: &mut Vec<u8>) -> bool {
    let Some((head, bytes)) = r.slots.get::<Trail>().and_then(Trail::head) else { return false };
    let lines = head.all(HeaderId::SetCookie).map(|f| f.value.of(bytes));
    let mut named = lines.filter_map(|line| {
        let (name, rest) = line.split_at_checked(key.len())?;
        let rest = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let value = rest.split(|b| *b == b';').next()?;
        name.eq_ignore_ascii_case(key.as_bytes()).then_some(value)
    });
    named.next().map(|value| out.extend_from_slice(value)).is_some()
}

/// `$upstream_cache_status`: there is no cache yet.
pub fn cache_status(_: &Request, _: &mut Vec<u8>) -> bool {
    false
}

/// Whether a field's name is `key` of a variable: lower case, `-` written `_`.
fn is_named(name: &[u8], key: &str) -> bool {
    name.len() == key.len()
        && name.iter().zip(key.bytes()).all(|(n, k)| match n {
            b'-' => k == b'_',
            n => n.to_ascii_lowercase() == k,
        })
}

fn number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Seconds with milliseconds from the try's beginning.
fn time(attempt: &Attempt, until: Option<Instant>, out: &mut Vec<u8>) {
    let Some(until) = until else { return out.push(b'-') };
    let time = until.duration_since(attempt.started);
    number(time.as_secs(), out);
    let ms = time.subsec_millis();
    let digit = |n: u32| b'0' + (n % 10) as u8;
    out.extend([b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
}
