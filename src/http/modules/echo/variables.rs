//! `$echo_it` and its kin.

use crate::http::Request;
use crate::sys;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// What the commands know of a request beside its reply.
#[derive(Default)]
pub struct Known {
    /// The piece that a loop is at.
    pub piece: Option<Vec<u8>>,
    /// When `echo_reset_timer` ran.
    pub since: Option<Instant>,
    /// Counts for the main request and all its subrequests.
    pub count: Rc<Cell<u64>>,
}

/// `$echo_it`
pub fn it(r: &Request, out: &mut Vec<u8>) -> bool {
    let piece = r.slots.get::<Known>().and_then(|known| known.piece.as_ref());
    piece.inspect(|piece| out.extend_from_slice(piece)).is_some()
}

/// `$echo_timer_elapsed`: seconds since the request began or the timer was reset.
pub fn timer_elapsed(r: &Request, out: &mut Vec<u8>) -> bool {
    let since = r.slots.get::<Known>().and_then(|known| known.since).unwrap_or(r.tally.started);
    let time = Instant::now().saturating_duration_since(since);
    out.extend_from_slice(format!("{}.{:03}", time.as_secs(), time.subsec_millis()).as_bytes());
    true
}

/// `$echo_request_body`: if it stands in memory.
pub fn request_body(r: &Request, out: &mut Vec<u8>) -> bool {
    let body = r.body.in_memory();
    body.inspect(|body| out.extend_from_slice(body)).is_some()
}

/// `$echo_request_method`
pub fn method(r: &Request, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(r.method_name());
    true
}

/// `$echo_client_request_method`
pub fn client_method(r: &Request, out: &mut Vec<u8>) -> bool {
    let line = r.head.text(r.head.request_line);
    let end = memchr::memchr(b' ', line).unwrap_or(line.len());
    out.extend_from_slice(&line[..end]);
    true
}

/// `$echo_client_request_headers`: the line and the fields as the client wrote them.
pub fn client_headers(r: &Request, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(r.head.text(r.head.request_line));
    out.extend_from_slice(b"\r\n");
    r.head.fields.iter().for_each(|field| field.push_line(out));
    true
}

/// `$echo_request_uri`: the decoded URI of the request or subrequest, with its arguments.
pub fn uri(r: &Request, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&r.place.uri);
    if !r.place.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&r.place.args);
    }
    true
}

/// `$echo_incr`: 1, 2, 3 … at each use.
pub fn count(r: &Request, out: &mut Vec<u8>) -> bool {
    let Some(known) = r.slots.get::<Known>() else { return false };
    known.count.set(known.count.get() + 1);
    out.extend_from_slice(known.count.get().to_string().as_bytes());
    true
}

/// `$echo_response_status`
pub fn status(r: &Request, out: &mut Vec<u8>) -> bool {
    if r.reply.status == 0 {
        return false;
    }
    out.extend_from_slice(r.reply.status.to_string().as_bytes());
    true
}

/// The timer begins now.
pub fn reset_timer(r: &mut Request) {
    let now = Instant::now();
    sys::time::tick(now);
    r.slots.of::<Known>().since = Some(now);
}
