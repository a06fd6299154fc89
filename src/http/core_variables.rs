//! nginx's core variables: what a request, its connection and its reply can tell of themselves.
//!
//! A getter appends its value. "No value" (`-` in a log) and "an empty value" are told apart as in
//! nginx. Values are made anew at each use: making them costs less than keeping them.

use super::client::address_text;
use super::credentials::Credentials;
use super::send::{self, RateOverride};
use super::{Builtin, Request, keyed, settable, status, var};
use crate::conf::value;
use crate::proto::digits::hex;
use crate::proto::h1::{Method, Version};
use crate::proto::header::HeaderId;
use crate::proto::params;
use crate::proto::proxy_protocol::{ProxyHeader, TlvName};
use crate::sys::socket::TcpInfo;
use crate::sys::{process, time};
use crate::{event, log};
use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The core module's variables, in nginx's order.
#[rustfmt::skip]
pub const ALL: &[Builtin] = &[
    var("http_host",            |r, out| joined(r, HeaderId::Host, b", ", out)),
    var("http_user_agent",      |r, out| joined(r, HeaderId::UserAgent, b", ", out)),
    var("http_referer",         |r, out| joined(r, HeaderId::Referer, b", ", out)),
    var("http_via",             |r, out| joined(r, HeaderId::Via, b", ", out)),
    var("http_x_forwarded_for", |r, out| joined(r, HeaderId::XForwardedFor, b", ", out)),
    var("http_cookie",          |r, out| joined(r, HeaderId::Cookie, b"; ", out)),
    var("content_length",       content_length),
    var("content_type",         |r, out| joined(r, HeaderId::ContentType, b", ", out)),
    var("host",                 host),
    var("binary_remote_addr",   binary_remote_addr),
    var("remote_addr",          |r, out| text(r.client.peer_text().as_bytes(), out)),
    var("remote_port",          |r, out| port(r.client.peer.borrow().end.port(), out)),
    var("server_addr",          |r, out| text(address_text(&r.client.local).as_bytes(), out)),
    var("server_port",          |r, out| port(r.client.local.port(), out)),
    var("server_protocol",      server_protocol),
    var("scheme",               |r, out| text(if is_tls(r) { b"https" } else { b"http" }, out)),
    var("https",                |r, out| text(if is_tls(r) { b"on" } else { b"" }, out)),
    var("http2",                http2),
    var("request_port",         |r, out| port(r.head.port, out)),
    var("is_request_port",      |r, out| text(if r.head.port == 0 { b"" } else { b":" }, out)),
    var("request_uri",          |r, out| present(r.head.text(r.head.target), out)),
    var("uri",                  uri),
    var("document_uri",         uri),
    var("request",              request),
    var("document_root",        |r, out| text(&r.place.location.core.root_of(r), out)),
    var("realpath_root",        realpath_root),
    var("query_string",         |r, out| present(&r.place.args, out)),
    settable("args",            |r, out| present(&r.place.args, out), set_args),
    var("is_args",              |r, out| text(if r.place.args.is_empty() { b"" } else { b"?" }, out)),
    var("request_filename",     |r, out| text(&r.place.location.core.path_of(r), out)),
    var("server_name",          |r, out| text(r.place.server.name.as_bytes(), out)),
    var("request_method",       |r, out| present(r.head.text(r.head.method_name), out)),
    var("remote_user",          remote_user),
    var("bytes_sent",           |r, out| number(r.tally.sent, out)),
    var("body_bytes_sent",      |r, out| number(body_bytes_sent(r), out)),
    var("pipe",                 |r, out| text(if r.tally.pipelined { b"p" } else { b"." }, out)),
    var("request_completion",   |r, out| text(if r.tally.completed { b"OK" } else { b"" }, out)),
    var("request_body",         request_body),
    var("request_body_file",    request_body_file),
    var("request_length",       |r, out| number(r.tally.received, out)),
    var("request_time",         |r, out| seconds(request_ms(r), out)),
    var("request_id",           request_id),
    var("status",               |r, out| status_code(r.reply.status, out)),
    var("sent_http_content_type",      sent_content_type),
    var("sent_http_content_length",    sent_content_length),
    var("sent_http_last_modified",     sent_last_modified),
    var("sent_http_etag",              sent_etag),
    var("sent_http_connection",        sent_connection),
    var("sent_http_keep_alive",        sent_keep_alive),
    var("sent_http_transfer_encoding", sent_transfer_encoding),
    settable("limit_rate",      limit_rate, set_limit_rate),
    var("connection",           |r, out| number(r.client.serial, out)),
    var("connection_requests",  |r, out| number(r.client.requests.get(), out)),
    var("connection_time",      connection_time),
    var("nginx_version",        |_, out| text(status::VERSION.as_bytes(), out)),
    var("hostname",             hostname),
    var("pid",                  |_, out| number(process::id().into(), out)),
    var("msec",                 |_, out| seconds(time::unix_ms(), out)),
    var("time_iso8601",         |_, out| text(time::iso8601().as_bytes(), out)),
    var("time_local",           |_, out| text(time::access_log().as_bytes(), out)),
    var("tcpinfo_rtt",          |r, out| tcp_info(r, |i| i.rtt_us, out)),
    var("tcpinfo_rttvar",       |r, out| tcp_info(r, |i| i.rtt_variation_us, out)),
    var("tcpinfo_snd_cwnd",     |r, out| tcp_info(r, |i| i.congestion_window, out)),
    var("tcpinfo_rcv_space",    |r, out| tcp_info(r, |i| i.receive_space, out)),
    keyed("http_",              |r, name, out| unknown(r.head.fields.iter(), name, out)),
    keyed("sent_http_",         |r, name, out| unknown(r.reply.fields.iter(), name, out)),
    keyed("sent_trailer_",      sent_trailer),
    keyed("proxy_protocol_tlv_", proxy_tlv),
    var("proxy_protocol_addr",  |r, out| proxied(r, |h| h.source.ip().to_string(), out)),
    var("proxy_protocol_port",  |r, out| proxied(r, |h| h.source.port().to_string(), out)),
    var("proxy_protocol_server_addr", |r, out| proxied(r, |h| h.destination.ip().to_string(), out)),
    var("proxy_protocol_server_port", |r, out| proxied(r, |h| h.destination.port().to_string(), out)),
    keyed("cookie_",            cookie),
    keyed("arg_",               arg),
];

// ---- values that are there -----------------------------------------------------------------

/// A value, perhaps an empty one.
fn text(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    true
}

/// A value that is missing if it is empty.
fn present(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    !value.is_empty()
}

pub(super) fn number(n: u64, out: &mut Vec<u8>) -> bool {
    text(itoa::Buffer::new().format(n).as_bytes(), out)
}

/// Empty if the target was no good, missing if there was none.
fn uri(r: &Request, out: &mut Vec<u8>) -> bool {
    text(&r.place.uri, out) && !(r.place.uri.is_empty() && r.head.text(r.head.target).is_empty())
}

/// A port; empty on sockets without.
fn port(port: u16, out: &mut Vec<u8>) -> bool {
    if port != 0 {
        number(port.into(), out);
    }
    true
}

/// Milliseconds as `12.345`.
pub fn seconds(ms: u64, out: &mut Vec<u8>) -> bool {
    number(ms / 1000, out);
    let rest = (ms % 1000) as u16;
    out.push(b'.');
    out.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8));
    true
}

/// A status with three digits at least.
pub fn status_code(status: u16, out: &mut Vec<u8>) -> bool {
    if status < 100 {
        out.extend_from_slice(if status < 10 { b"00" } else { b"0" });
    }
    number(status.into(), out)
}

/// Milliseconds since the request's first byte.
pub fn request_ms(r: &Request) -> u64 {
    event::now().saturating_duration_since(r.tally.started).as_millis() as u64
}

/// Bytes of the reply's body that were written.
pub fn body_bytes_sent(r: &Request) -> u64 {
    r.tally.sent.saturating_sub(r.tally.head_sent)
}

// ---- the request ---------------------------------------------------------------------------

/// All values of one field.
fn joined(r: &Request, id: HeaderId, separator: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in r.head.fields.all(id) {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
    }
    found
}

/// All values of a field whose name was written with `_` for `-`.
fn unknown<'a>(
    fields: impl Iterator<Item = super::fields::Field<'a>>,
    name: &str,
    out: &mut Vec<u8>,
) -> bool {
    let mut found = false;
    for field in fields.filter(|f| is_named(f.name, name.as_bytes())) {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(field.value);
    }
    found
}

fn is_named(field: &[u8], name: &[u8]) -> bool {
    let plain = |b: &u8| if *b == b'-' { b'_' } else { b.to_ascii_lowercase() };
    field.len() == name.len() && field.iter().map(plain).eq(name.iter().copied())
}

fn content_length(r: &Request, out: &mut Vec<u8>) -> bool {
    if let Some(value) = r.header(HeaderId::ContentLength) {
        return text(value, out);
    }
    !r.body.chunks().is_empty() && number(r.body.kept_len(), out)
}

fn host(r: &Request, out: &mut Vec<u8>) -> bool {
    let asked = &r.head.host;
    let host: &str = if asked.is_empty() { &r.place.server.name } else { asked };
    text(host.as_bytes(), out)
}

fn server_protocol(r: &Request, out: &mut Vec<u8>) -> bool {
    let line = r.head.text(r.head.request_line);
    let start = memchr::memrchr(b' ', line).map(|at| at + 1);
    match start {
        Some(start) if r.head.version != Version::Http09 => present(&line[start..], out),
        _ => false,
    }
}

/// The first line; of a head that could not be read, what there is of it.
fn request(r: &Request, out: &mut Vec<u8>) -> bool {
    let line = r.head.text(r.head.request_line);
    if !line.is_empty() {
        return text(line, out);
    }
    let block = r.head.fields.block();
    let end = memchr::memchr2(b'\r', b'\n', block).unwrap_or(block.len());
    !block.is_empty() && text(&block[..end], out)
}

fn realpath_root(r: &Request, out: &mut Vec<u8>) -> bool {
    let root = PathBuf::from(std::ffi::OsString::from_vec(r.place.location.core.root_of(r)));
    match std::fs::canonicalize(&root) {
        Ok(real) => text(real.as_os_str().as_bytes(), out),
        Err(error) => {
            let (root, why) = (root.display(), log::Os(&error));
            log::crit!(r, "realpath() \"{root}\" failed{why}");
            false
        }
    }
}

fn set_args(r: &mut Request, value: &[u8]) {
    r.place.args = value.to_vec();
    r.place.is_original = false;
}

fn remote_user(r: &Request, out: &mut Vec<u8>) -> bool {
    Credentials::of(r).is_some_and(|who| text(&who.user, out))
}

fn request_body(r: &Request, out: &mut Vec<u8>) -> bool {
    let kept = if r.body.chunks().is_empty() { None } else { r.body.in_memory() };
    kept.is_some_and(|body| text(&body, out))
}

fn request_body_file(r: &Request, out: &mut Vec<u8>) -> bool {
    let path = r.body.file().and_then(|file| file.temporary_path());
    path.is_some_and(|path: &Path| text(path.as_os_str().as_bytes(), out))
}

fn cookie(r: &Request, name: &str, out: &mut Vec<u8>) -> bool {
    let mut fields = r.head.fields.all(HeaderId::Cookie);
    let found = fields.find_map(|field| params::cookie(field, name.as_bytes()));
    found.is_some_and(|value| text(value, out))
}

fn arg(r: &Request, name: &str, out: &mut Vec<u8>) -> bool {
    params::arg(&r.place.args, name.as_bytes()).is_some_and(|value| text(value, out))
}

/// Random bytes for identifiers, fetched in bulk: one system call for many requests.
struct Dice {
    bytes: [u8; 1024],
    used: usize,
    /// A fork must not share them.
    owner: u32,
}

thread_local! {
    static DICE: RefCell<Dice> =
        const { RefCell::new(Dice { bytes: [0; 1024], used: 1024, owner: 0 }) };
}

/// Sixteen random bytes.
fn random_id() -> [u8; 16] {
    DICE.with_borrow_mut(|dice| {
        let owner = process::id();
        if dice.used == dice.bytes.len() || dice.owner != owner {
            getrandom::fill(&mut dice.bytes).expect("the kernel gives random bytes");
            (dice.used, dice.owner) = (0, owner);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&dice.bytes[dice.used..dice.used + 16]);
        dice.used += 16;
        id
    })
}

fn request_id(r: &Request, out: &mut Vec<u8>) -> bool {
    let id = r.head.id.get_or_init(random_id);
    out.extend(hex(id));
    true
}

// ---- the connection ------------------------------------------------------------------------

fn is_tls(r: &Request) -> bool {
    r.client.tls.is_some()
}

fn http2(r: &Request, out: &mut Vec<u8>) -> bool {
    let name: &[u8] = match (r.head.version, is_tls(r)) {
        (Version::Http2, true) => b"h2",
        (Version::Http2, false) => b"h2c",
        _ => b"",
    };
    text(name, out)
}

fn binary_remote_addr(r: &Request, out: &mut Vec<u8>) -> bool {
    match r.client.peer_ip() {
        Some(IpAddr::V4(ip)) => text(&ip.octets(), out),
        Some(IpAddr::V6(ip)) => text(&ip.octets(), out),
        None => text(r.client.peer_text().as_bytes(), out),
    }
}

fn connection_time(r: &Request, out: &mut Vec<u8>) -> bool {
    let open = event::now().saturating_duration_since(r.client.started);
    seconds(open.as_millis() as u64, out)
}

fn tcp_info(r: &Request, of: fn(&TcpInfo) -> u32, out: &mut Vec<u8>) -> bool {
    let info = r.client.conn.stream().tcp_info();
    info.is_ok_and(|info| number(of(&info).into(), out))
}

fn hostname(_: &Request, out: &mut Vec<u8>) -> bool {
    thread_local! {
        static NAME: OnceCell<String> = const { OnceCell::new() };
    }
    NAME.with(|name| text(name.get_or_init(process::hostname).as_bytes(), out))
}

// ---- the reply -----------------------------------------------------------------------------

fn sent_content_type(r: &Request, out: &mut Vec<u8>) -> bool {
    r.reply.push_content_type(out)
}

fn sent_content_length(r: &Request, out: &mut Vec<u8>) -> bool {
    let declared = r.reply.fields.get(HeaderId::ContentLength);
    match (declared, r.reply.length) {
        (Some(value), _) => text(value, out),
        (None, Some(length)) => number(length, out),
        (None, None) => false,
    }
}

fn sent_last_modified(r: &Request, out: &mut Vec<u8>) -> bool {
    let written = |at| text(time::Calendar::utc(at).http_date().as_bytes(), out);
    r.reply.last_modified.is_some_and(written)
}

fn sent_etag(r: &Request, out: &mut Vec<u8>) -> bool {
    r.reply.etag.as_ref().is_some_and(|tag| text(tag.as_bytes(), out))
}

fn sent_connection(r: &Request, out: &mut Vec<u8>) -> bool {
    let word: &[u8] = match r.reply.status {
        101 => b"upgrade",
        _ if r.keep_alive => b"keep-alive",
        _ => b"close",
    };
    text(word, out)
}

fn sent_keep_alive(r: &Request, out: &mut Vec<u8>) -> bool {
    let told = r.place.location.core.keepalive_header.filter(|_| r.keep_alive);
    told.is_some_and(|timeout| {
        out.extend_from_slice(b"timeout=");
        number(timeout.as_secs(), out)
    })
}

fn sent_transfer_encoding(r: &Request, out: &mut Vec<u8>) -> bool {
    let has_body = !matches!(r.reply.status, 0..200 | 204 | 304) && r.method != Method::Head;
    let chunked = r.reply.length.is_none()
        && has_body
        && r.head.version == Version::Http11
        && r.place.location.core.chunked;
    chunked && text(b"chunked", out)
}

fn sent_trailer(r: &Request, name: &str, out: &mut Vec<u8>) -> bool {
    r.reply.trailers.as_ref().is_some_and(|fields| unknown(fields.iter(), name, out))
}

fn limit_rate(r: &Request, out: &mut Vec<u8>) -> bool {
    let own = r.slots.get::<RateOverride>().map(|rate| rate.0);
    let rate = own.unwrap_or_else(|| if r.reply.head_sent { send::rate_of(r) } else { 0 });
    number(rate, out)
}

fn set_limit_rate(r: &mut Request, text: &[u8]) {
    match std::str::from_utf8(text).ok().and_then(value::size) {
        Some(rate) => r.slots.of::<RateOverride>().0 = rate,
        None => log::error!(&*r, "invalid $limit_rate \"{}\"", log::Raw(text)),
    }
}

/// What the PROXY header of the connection says.
fn proxied(r: &Request, get: impl Fn(&ProxyHeader) -> String, out: &mut Vec<u8>) -> bool {
    let Some(header) = &r.client.proxy else { return false };
    out.extend_from_slice(get(header).as_bytes());
    true
}

/// An entry of the PROXY header, by name or number.
fn proxy_tlv(r: &Request, name: &str, out: &mut Vec<u8>) -> bool {
    let (Some(header), Some(name)) = (&r.client.proxy, TlvName::parse(name)) else { return false };
    match header.tlv(name) {
        Ok(Some(value)) => {
            out.extend_from_slice(&value);
            true
        }
        Ok(None) => false,
        Err(error) => {
            log::error!(r, "{error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(append: impl Fn(&mut Vec<u8>) -> bool) -> String {
        let mut out = Vec::new();
        if append(&mut out) { String::from_utf8(out).unwrap() } else { "-".into() }
    }

    #[test]
    fn numbers_have_their_forms() {
        assert_eq!(made(|out| seconds(0, out)), "0.000");
        assert_eq!(made(|out| seconds(61_007, out)), "61.007");
        assert_eq!(made(|out| status_code(9, out)), "009");
        assert_eq!(made(|out| status_code(0, out)), "000");
        assert_eq!(made(|out| status_code(200, out)), "200");
        assert_eq!(made(|out| port(0, out)), "");
        assert_eq!(made(|out| present(b"", out)), "-");
    }

    #[test]
    fn names_of_fields_are_written_with_underscores() {
        assert!(is_named(b"X-Forwarded-For", b"x_forwarded_for"));
        assert!(is_named(b"x_own", b"x_own"));
        assert!(!is_named(b"X-Own2", b"x_own"));
        let mut fields = super::super::Fields::default();
        fields.push_named(b"X-A", b"1");
        fields.push_named(b"X-B", b"2");
        fields.push_named(b"x-a", b"3");
        assert_eq!(made(|out| unknown(fields.iter(), "x_a", out)), "1, 3");
        assert_eq!(made(|out| unknown(fields.iter(), "x_c", out)), "-");
    }

    #[test]
    fn identifiers_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
