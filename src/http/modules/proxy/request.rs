//! The request as it goes to the upstream.

use super::target::UriRule;
use super::{HttpVersion, Loc};
use crate::http::upstream::names::NameSet;
use crate::http::upstream::{BodyFacts, Written};
use crate::http::{Request, Template};
use crate::io::Slice;
use crate::log;
use crate::proto::escape::Escape;
use std::cell::RefCell;

use super::target::Target;

/// `proxy_set_header` with the defaults, compiled.
pub struct Headers {
    /// `Host`, if it was set.
    host: Option<Template>,
    lines: Vec<Line>,
    /// Fields of the client that do not go on.
    replaced: NameSet,
}

enum Line {
    /// Whole lines without variables.
    Text(Vec<u8>),
    /// `Name: ` and a value; nothing if the value is empty.
    Field(Vec<u8>, Template),
    /// `Content-Length` of the body
    Length,
    /// `Transfer-Encoding: chunked`, if the body is
    Chunked,
}

/// Fields that are replaced unless `proxy_set_header` says otherwise.
const REPLACED: [&str; 9] = [
    "Host",
    "Connection",
    "Proxy-Connection",
    "Content-Length",
    "Transfer-Encoding",
    "TE",
    "Keep-Alive",
    "Expect",
    "Upgrade",
];

impl Headers {
    /// Compiles what `proxy_set_header` said.
    pub fn compile(set: Vec<(String, Template)>) -> Headers {
        let names = set.iter().map(|(name, _)| name.as_str()).chain(REPLACED);
        let replaced = NameSet::of(names);
        let sets = |name: &str| set.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let defaults = [
            (!sets("Content-Length")).then_some(Line::Length),
            (!sets("Transfer-Encoding")).then_some(Line::Chunked),
        ];
        let (mut host, mut lines) = (None, Vec::new());
        for (name, template) in set {
            if name.eq_ignore_ascii_case("Host") {
                host = Some(template);
                continue;
            }
            let start = format!("{name}: ").into_bytes();
            match (template.constant(), lines.last_mut()) {
                (Some(b""), _) => {}
                (Some(value), Some(Line::Text(text))) => text.extend(line(&start, value)),
                (Some(value), _) => lines.push(Line::Text(line(&start, value))),
                (None, _) => lines.push(Line::Field(start, template)),
            }
        }
        lines.extend(defaults.into_iter().flatten());
        Headers { host, lines, replaced }
    }
}

fn line(start: &[u8], value: &[u8]) -> Vec<u8> {
    [start, value, b"\r\n"].concat()
}

thread_local! {
    /// Where requests are written before they are copied to a block of their size.
    static DRAFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A draft that grew beyond this is not kept.
const DRAFT_MAX: usize = 256 << 10;

/// Writes the head of the request; also says whether it asks for a head only.
///
/// Errors: 500 for an empty URI.
pub fn write(
    r: &Request,
    loc: &Loc,
    target: &Target,
    body: BodyFacts,
) -> Result<(Written, bool), u16> {
    let mut out = DRAFT.take();
    out.clear();
    match &loc.method {
        Some(method) => method.append(r, &mut out),
        None => out.extend_from_slice(r.method_name()),
    }
    let is_head = out.eq_ignore_ascii_case(b"HEAD");
    out.push(b' ');
    let uri_at = out.len();
    push_uri(r, target, &mut out);
    let uri = uri_at..out.len();
    if uri.is_empty() {
        DRAFT.set(out);
        log::error!(r, "zero length URI to proxy");
        return Err(500);
    }
    out.extend_from_slice(match loc.version {
        HttpVersion::Http11 => b" HTTP/1.1\r\n",
        HttpVersion::Http10 => b" HTTP/1.0\r\n",
    });
    push_fields(r, loc, target, body, &mut out);
    out.extend_from_slice(b"\r\n");
    let bytes = Slice::copy_from(&out);
    if out.capacity() <= DRAFT_MAX {
        DRAFT.set(out);
    }
    let uri = bytes.slice(uri);
    Ok((Written { bytes, uri }, is_head))
}

fn push_uri(r: &Request, target: &Target, out: &mut Vec<u8>) {
    let place = &r.place;
    let replaced = match target.uri {
        UriRule::Whole => return out.extend_from_slice(target.facts.uri()),
        UriRule::Own if place.is_original => {
            return out.extend_from_slice(r.head.text(r.head.target));
        }
        UriRule::Own => 0,
        UriRule::Replace(len) if place.begins_as_named => {
            out.extend_from_slice(target.facts.uri());
            len.min(place.uri.len())
        }
        UriRule::Replace(_) => 0,
    };
    let rest = &place.uri[replaced..];
    let was_quoted = place.internal || r.head.text(r.head.target).contains(&b'%');
    match was_quoted {
        true => Escape::Uri.push(rest, out),
        false => out.extend_from_slice(rest),
    }
    if !place.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&place.args);
    }
}

fn push_fields(r: &Request, loc: &Loc, target: &Target, body: BodyFacts, out: &mut Vec<u8>) {
    push_host(r, loc, target, out);
    for line in &loc.headers.lines {
        match line {
            Line::Text(text) => out.extend_from_slice(text),
            Line::Field(start, template) => {
                let from = out.len();
                out.extend_from_slice(start);
                template.append(r, out);
                match out.len() - from > start.len() {
                    true => out.extend_from_slice(b"\r\n"),
                    false => out.truncate(from),
                }
            }
            Line::Length => {
                if let Some(length) = body.length {
                    out.extend_from_slice(b"Content-Length: ");
                    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
            Line::Chunked if body.chunked => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            Line::Chunked => {}
        }
    }
    if !loc.rules.pass_request_headers {
        return;
    }
    for field in r.head.fields.iter() {
        if !loc.headers.replaced.contains(field.id, field.name) {
            field.push_line(out);
        }
    }
}

fn push_host(r: &Request, loc: &Loc, target: &Target, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(b"Host: ");
    let start = out.len();
    if let Some(host) = &loc.headers.host {
        host.append(r, out);
    }
    if out.len() == start && (loc.headers.host.is_none() || loc.version == HttpVersion::Http11) {
        out.extend_from_slice(target.facts.host_header());
    }
    match out.len() == start {
        true => out.truncate(from),
        false => out.extend_from_slice(b"\r\n"),
    }
}
