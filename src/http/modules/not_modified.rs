//! Conditional requests: 304 and 412.
//!
//! Reads: no directives of its own; `if_modified_since` is the core's. Runs as: header filter,
//! before all others.

use crate::conf::Reason;
use crate::http::{Body, Filtered, HttpModule, Merging, Pipeline, Request};
use crate::proto::date;
use crate::proto::header::HeaderId;
use std::rc::Rc;

pub struct NotModified;

impl HttpModule for NotModified {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }

    fn install(_: &Rc<()>, p: &mut Pipeline) {
        p.filter(not_modified);
    }
}

fn not_modified(r: &mut Request) -> Filtered {
    if r.reply.status != 200 || r.is_subrequest || r.reply.is_judged {
        return Filtered::Pass;
    }
    if r.header(HeaderId::IfUnmodifiedSince).is_some_and(|since| is_modified_after(r, since)) {
        return Filtered::Instead(412);
    }
    let etag = r.reply.etag.as_deref();
    if r.header(HeaderId::IfMatch).is_some_and(|list| !lists(list, etag, false)) {
        return Filtered::Instead(412);
    }
    let since = r.header(HeaderId::IfModifiedSince);
    let none_of = r.header(HeaderId::IfNoneMatch);
    if since.is_none() && none_of.is_none()
        || since.is_some_and(|since| is_modified_since(r, since))
        || none_of.is_some_and(|list| !lists(list, etag, true))
    {
        return Filtered::Pass;
    }
    r.reply.status = 304;
    r.reply.reason = None;
    r.reply.content_type = None;
    r.reply.length = None;
    r.reply.allow_ranges = false;
    r.reply.fields.remove(HeaderId::ContentEncoding);
    r.reply.fields.remove(HeaderId::AcceptRanges);
    r.reply.body = Body::Empty;
    r.reply.head_only = true;
    Filtered::Pass
}

fn is_modified_after(r: &Request, since: &[u8]) -> bool {
    match r.reply.last_modified {
        Some(modified) => date::parse(since).is_none_or(|since| since < modified),
        None => true,
    }
}

fn is_modified_since(r: &Request, since: &[u8]) -> bool {
    let Some(modified) = r.reply.last_modified else { return true };
    let since = date::parse(since);
    match r.place.location.core.if_modified_since {
        "off" => true,
        "before" => since.is_none_or(|since| since < modified),
        _ => since != Some(modified),
    }
}

/// Whether `list` names `etag`. A weak comparison takes `W/"x"` for `"x"`.
fn lists(list: &[u8], etag: Option<&str>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag.map(str::as_bytes) else { return false };
    let strong = |tag| if weak { strip_weak(tag) } else { tag };
    let etag = strong(etag);
    let mut rest = list;
    while !rest.is_empty() {
        rest = strong(rest);
        if let Some(after) = rest.strip_prefix(etag) {
            let after = skip(after, b" \t");
            if after.is_empty() || after[0] == b',' {
                return true;
            }
        }
        let comma = memchr::memchr(b',', rest).unwrap_or(rest.len());
        rest = skip(&rest[comma..], b" \t,");
    }
    false
}

fn strip_weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn skip<'a>(mut text: &'a [u8], set: &[u8]) -> &'a [u8] {
    while let [first, rest @ ..] = text
        && set.contains(first)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_lists() {
        for (list, etag, strong, weak) in [
            ("*", "\"a\"", true, true),
            ("\"a\"", "\"a\"", true, true),
            ("\"b\", \"a\"", "\"a\"", true, true),
            ("\"b\" ,\t\"a\" ", "\"a\"", true, true),
            ("W/\"a\"", "\"a\"", false, true),
            ("\"a\"", "W/\"a\"", false, true),
            ("W/\"a\"", "W/\"a\"", true, true),
            ("\"ab\"", "\"a\"", false, false),
            ("\"a\"b", "\"a\"", false, false),
            ("", "\"a\"", false, false),
            (",,", "\"a\"", false, false),
        ] {
            assert_eq!(lists(list.as_bytes(), Some(etag), false), strong, "{list} {etag}");
            assert_eq!(lists(list.as_bytes(), Some(etag), true), weak, "weak {list} {etag}");
        }
        assert!(!lists(b"\"a\"", None, true));
        assert!(lists(b"*", None, true));
    }
}
