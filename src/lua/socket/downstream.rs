//! `ngx.req.socket`: the request's body as a stream, or the whole connection of the client.

use super::life::{Around, Life};
use super::tcp::{End, Tcp};
use crate::event;
use crate::http::Request;
use crate::io;
use crate::proto::h1::Version;
use std::future::poll_fn;
use std::rc::{Rc, Weak};

/// Why there is no such socket.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// An error of the code.
    Error(&'static str),
    /// `nil` and this.
    Says(&'static str),
}

/// The sockets that a request was given away to.
#[derive(Default)]
struct Given {
    body: Weak<Tcp>,
    is_raw: bool,
}

fn check(r: &Request) -> Result<(), Refused> {
    if r.is_subrequest {
        return Err(Refused::Error("attempt to read the request body in a subrequest"));
    }
    match r.head.version {
        Version::Http2 => Err(Refused::Error("http v2 not supported yet")),
        Version::Http3 => Err(Refused::Error("http v3 not supported yet")),
        _ => Ok(()),
    }
}

/// The body of `r` as a socket that is read from.
pub fn body_socket(r: &mut Request, life: &Rc<Life>) -> Result<Rc<Tcp>, Refused> {
    check(r)?;
    if r.head.chunked {
        return Err(Refused::Says("chunked request bodies not supported yet"));
    }
    if r.body.is_discarded() {
        return Err(Refused::Says("request body discarded"));
    }
    let has_length = r.head.content_length.is_some_and(|length| length > 0);
    let Some(body) = r.body.take_stream().filter(|_| has_length) else {
        return Err(Refused::Says(match has_length {
            true => "request body already exists",
            false => "no body",
        }));
    };
    let tcp = Tcp::with_end(life, &Around::of(r), End::Body(body, r.client.conn.clone()));
    r.slots.of::<Given>().body = Rc::downgrade(&tcp);
    Ok(tcp)
}

/// What is left of a body that was read through a socket belongs to the request again, so that it
/// can be read off.
pub fn give_back(r: &mut Request) {
    let Some(given) = r.slots.get::<Given>() else { return };
    let Some(tcp) = given.body.upgrade() else { return };
    let end = match tcp.is_body() {
        true => tcp.end.take(),
        false => End::None,
    };
    if let End::Body(body, _) = end {
        r.body.put_back(body);
    }
    tcp.close();
}

/// The connection of the client, from behind the request's head on.
pub fn raw_socket(r: &mut Request, life: &Rc<Life>) -> Result<Rc<Tcp>, Refused> {
    check(r)?;
    let given = r.slots.of::<Given>();
    if given.is_raw {
        return Err(Refused::Says("duplicate call"));
    }
    if given.body.upgrade().is_some_and(|tcp| tcp.is_body()) {
        let says = "pending request body reading in some other thread";
        return Err(Refused::Says(says));
    }
    given.is_raw = true;
    // Nobody else reads what the client sends.
    drop(r.body.take_stream());
    r.keep_alive = false;
    let ahead = r.interim.as_ref().map(|wire| wire.take_ahead()).unwrap_or_default();
    let end = End::Client(r.client.conn.clone());
    let tcp = Tcp::with_end(life, &Around::of(r), end);
    tcp.inbox.borrow_mut().push(&ahead);
    Ok(tcp)
}

/// Ends a connection that code had: what the client still sends is read off for a while, so that
/// it sees all that it was sent.
pub async fn linger(r: &mut Request) {
    let conn = r.client.conn.clone();
    let core = r.place.location.core.clone();
    let _ = conn.flush().await;
    let _ = conn.stream().shutdown_write();
    let end = event::now() + core.lingering_time;
    while event::now() < end {
        let until = end.min(event::now() + core.lingering_timeout);
        let gone = poll_fn(|cx| conn.poll_read_with(cx, io::SCRATCH_BYTES, <[u8]>::is_empty));
        match event::timeout_at(until, gone).await {
            Ok(Ok(false)) => {}
            _ => return,
        }
    }
}

/// Whether code has the client's connection.
pub fn is_raw(r: &Request) -> bool {
    r.slots.get::<Given>().is_some_and(|given| given.is_raw)
}
