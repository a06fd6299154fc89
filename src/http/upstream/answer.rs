//! From the head of an upstream's reply to the reply that the client gets.

use super::rules::Rules;
use super::talk::Talk;
use crate::http::send::RateOverride;
use crate::http::status;
use crate::http::{Fields, Request};
use crate::log;
use crate::proto::h1::{Field, ReplyHead, Version};
use crate::proto::header::HeaderId;
use crate::proto::{date, escape, uri};
use std::cell::RefCell;
use std::rc::Rc;

/// What the head asks of us beyond being passed on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// `X-Accel-Buffering`
    pub buffering: Option<bool>,
}

/// Fills `r.reply` from the head in `bytes`; the body is left to the caller.
pub fn fill<T: Talk>(r: &mut Request, talk: &T, bytes: &[u8], rules: &Rules) -> Steering {
    let head = talk.head();
    let upgrades = head.status == 101;
    r.reply.restart();
    r.reply.status = head.status;
    r.reply.reason = reason(head, bytes);
    r.reply.length = head.content_length();
    r.reply.keeps_server |= rules.passes("Server");
    r.reply.keeps_date |= rules.passes("Date");
    r.reply.is_judged = true;
    r.reply.allow_ranges = rules.force_ranges;
    let steering = steer(r, head, bytes, rules);
    let mut fields = over(bytes, &r.reply.fields);
    for field in &head.fields {
        pass_on(r, talk, *field, bytes, rules, &mut fields);
    }
    if upgrades {
        fields.push(HeaderId::Connection, b"upgrade");
    }
    r.reply.fields = fields;
    steering
}

/// A list over the head's bytes that begins with the fields that the reply has already: Lua may
/// have added some before the upstream was asked.
fn over(bytes: &[u8], before: &Fields) -> Fields {
    let mut fields = Fields::over(bytes.to_vec());
    before.iter().for_each(|f| fields.push_as(f));
    fields
}

/// The reason phrase if it is not the usual one.
fn reason(head: &ReplyHead, bytes: &[u8]) -> Option<Box<str>> {
    let line = head.status_line.of(bytes);
    let text = line.get(4..).unwrap_or_default();
    if text == status::reason(head.status).as_bytes() || line.is_empty() {
        return None;
    }
    Some(String::from_utf8_lossy(text).into())
}

/// Fields that steer this server.
fn steer(r: &mut Request, head: &ReplyHead, bytes: &[u8], rules: &Rules) -> Steering {
    let mut steering = Steering::default();
    let value = |id: HeaderId| {
        let wanted = head.present.contains(id) && !rules.ignored.contains(id);
        if wanted { head.value(id, bytes) } else { None }
    };
    if let Some(text) = value(HeaderId::XAccelLimitRate)
        && let Some(rate) = number(text)
    {
        r.slots.of::<RateOverride>().0 = rate;
    }
    if let Some(text) = value(HeaderId::XAccelBuffering) {
        steering.buffering = match text {
            no if no.eq_ignore_ascii_case(b"no") => Some(false),
            yes if yes.eq_ignore_ascii_case(b"yes") => Some(true),
            _ => None,
        };
    }
    if let Some(text) = value(HeaderId::XAccelCharset) {
        r.reply.charset = Some(String::from_utf8_lossy(text).into());
    }
    steering
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().and_then(crate::conf::value::number)
}

/// Puts one field where it belongs in the reply, or drops it.
fn pass_on<T: Talk>(
    r: &mut Request,
    talk: &T,
    field: Field,
    bytes: &[u8],
    rules: &Rules,
    fields: &mut Fields,
) {
    let (name, value) = (field.name.of(bytes), field.value.of(bytes));
    if rules.hidden.contains(field.id, name) {
        return;
    }
    let mut as_it_is = |id| {
        let span = |s: crate::proto::h1::Span| (s.start, s.end);
        fields.push_range(id, span(field.name), span(field.value));
    };
    match field.id {
        HeaderId::ContentLength
        | HeaderId::TransferEncoding
        | HeaderId::Connection
        | HeaderId::KeepAlive => {}
        HeaderId::ContentType => content_type(r, value),
        HeaderId::LastModified => match date::parse(value) {
            Some(seconds) => r.reply.last_modified = Some(seconds),
            None => as_it_is(field.id),
        },
        HeaderId::Etag => match std::str::from_utf8(value) {
            Ok(tag) => r.reply.etag = Some(tag.into()),
            Err(_) => as_it_is(field.id),
        },
        HeaderId::Location => match talk.redirect(r, value) {
            Some(url) => fields.push(HeaderId::Location, &url),
            // Not as `Location`: a path that the upstream chose is not made absolute.
            None => as_it_is(HeaderId::Other),
        },
        HeaderId::Refresh => match refresh(r, talk, value) {
            Some(line) => fields.push(HeaderId::Refresh, &line),
            None => as_it_is(field.id),
        },
        HeaderId::SetCookie => match talk.cookie(r, value) {
            Some(line) => fields.push(HeaderId::SetCookie, &line),
            None => as_it_is(field.id),
        },
        HeaderId::AcceptRanges if rules.force_ranges => {}
        HeaderId::Upgrade if r.head.version >= Version::Http2 => {}
        id => as_it_is(id),
    }
}

/// A `Content-Type`, its charset apart.
#[derive(Default)]
struct ContentType {
    written: Box<[u8]>,
    media: Rc<str>,
    charset: Option<Box<str>>,
}

thread_local! {
    /// The last one: an upstream says the same again and again.
    static LAST_TYPE: RefCell<ContentType> = RefCell::default();
}

/// `Content-Type`, its charset apart.
fn content_type(r: &mut Request, value: &[u8]) {
    LAST_TYPE.with_borrow_mut(|last| {
        if *last.written != *value {
            let text = String::from_utf8_lossy(value);
            let (media, charset) = split_charset(&text);
            let (media, charset) = (media.into(), charset.map(Into::into));
            *last = ContentType { written: value.into(), media, charset };
        }
        r.reply.content_type = Some(last.media.clone());
        if r.reply.charset.is_none() {
            r.reply.charset.clone_from(&last.charset);
        }
    });
}

/// `text/html; charset=utf-8` → `text/html`, `utf-8`.
fn split_charset(text: &str) -> (&str, Option<&str>) {
    for (at, _) in text.match_indices(';') {
        let parameter = text[at + 1..].trim_start_matches(' ');
        if parameter.get(..8).is_some_and(|p| p.eq_ignore_ascii_case("charset=")) {
            let charset = parameter[8..].trim_start_matches('"');
            return (&text[..at], Some(charset.strip_suffix('"').unwrap_or(charset)));
        }
    }
    (text, None)
}

/// `Refresh: 5; url=http://…`
fn refresh<T: Talk>(r: &Request, talk: &T, value: &[u8]) -> Option<Vec<u8>> {
    let at = value.windows(4).position(|w| w.eq_ignore_ascii_case(b"url="))? + 4;
    let url = talk.redirect(r, &value[at..])?;
    Some([&value[..at], &url].concat())
}

// ---- X-Accel-Redirect -----------------------------------------------------------------------

/// Where `X-Accel-Redirect` sends a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// A named location.
    Named(Box<str>),
    /// A path with its arguments, decoded.
    Path(Vec<u8>, Vec<u8>),
    /// A path that leads out of its root.
    Unsafe,
}

/// Whether the head sends the request elsewhere.
pub fn elsewhere(r: &Request, head: &ReplyHead, bytes: &[u8], rules: &Rules) -> Option<Elsewhere> {
    let id = HeaderId::XAccelRedirect;
    if !head.present.contains(id) || rules.ignored.contains(id) {
        return None;
    }
    let target = head.value(id, bytes).filter(|t| !t.is_empty())?;
    if target[0] == b'@' {
        return Some(Elsewhere::Named(String::from_utf8_lossy(target).into()));
    }
    if uri::is_unsafe(target) {
        log::error!(r, "unsafe URI \"{}\" was detected", log::Raw(target));
        return Some(Elsewhere::Unsafe);
    }
    let (path, args) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let mut decoded = Vec::with_capacity(path.len());
    escape::unescape(path, escape::Unescape::All, &mut decoded);
    Some(Elsewhere::Path(decoded, args.to_vec()))
}

/// Keeps what goes with the request when it is sent elsewhere.
pub fn keep_for_elsewhere<T: Talk>(r: &mut Request, talk: &T, bytes: &[u8], rules: &Rules) {
    r.reply.restart();
    steer(r, talk.head(), bytes, rules);
    let mut fields = over(bytes, &r.reply.fields);
    for field in &talk.head().fields {
        let goes_on = matches!(
            field.id,
            HeaderId::ContentType
                | HeaderId::SetCookie
                | HeaderId::ContentDisposition
                | HeaderId::CacheControl
                | HeaderId::Expires
                | HeaderId::AcceptRanges
        );
        if goes_on {
            pass_on(r, talk, *field, bytes, rules, &mut fields);
        }
    }
    r.reply.fields = fields;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets() {
        for (text, media, charset) in [
            ("text/html", "text/html", None),
            ("text/html; charset=utf-8", "text/html", Some("utf-8")),
            ("text/html;CHARSET=\"koi8-r\"", "text/html", Some("koi8-r")),
            ("a/b; x=y; charset=z", "a/b; x=y", Some("z")),
            ("a/b;", "a/b;", None),
        ] {
            assert_eq!(split_charset(text), (media, charset), "{text}");
        }
    }
}
