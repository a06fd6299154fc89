//! What answers a request that ends with a status: `error_page`'s, or the built-in page.

use super::body::Body;
use super::phase::Verdict;
use super::template::Template;
use super::{Request, status};
use crate::proto::h1::Method;
use crate::proto::header::HeaderId;

/// One `error_page` row.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// The status it answers.
    pub status: u16,
    /// `=code`; `Some(0)` is a bare `=`: the page's own status.
    pub overwrite: Option<u16>,
    /// A URI, `@named`, or a URL to redirect to.
    pub uri: Template,
}

/// How it goes on.
pub enum Next {
    /// The reply is made.
    Send,
    /// The request goes on from within.
    Go(Verdict),
}

/// In the slots of a request whose maker wants a status, not a page for it.
#[derive(Default)]
pub struct Pageless;

/// Ends the request with `status`.
pub fn finish(r: &mut Request, code: u16) -> Next {
    if matches!(code, status::CLOSE | status::CLIENT_CLOSED | 408) {
        r.reply.reset();
        r.reply.is_dropped = true;
        r.reply.status = code;
        r.reply.close = true;
        return Next::Send;
    }
    if r.slots.get::<Pageless>().is_some() {
        built_in(r, code);
        r.reply.body = Body::Empty;
        (r.reply.length, r.reply.content_type) = (None, None);
        return Next::Send;
    }
    let core = r.place.location.core.clone();
    if !r.place.is_error_page || core.recursive_error_pages {
        let page = core.error_pages.iter().find(|p| p.status == code);
        if let Some(page) = page {
            return other_page(r, code, page);
        }
    }
    built_in(r, code);
    Next::Send
}

fn other_page(r: &mut Request, code: u16, page: &ErrorPage) -> Next {
    r.place.is_error_page = true;
    // What was challenged or cut is said of this status only.
    r.reply.fields.retain(|f| match f.id {
        HeaderId::ContentRange => code == 416,
        HeaderId::WwwAuthenticate => code == 401,
        _ => true,
    });
    r.reply.restart();
    r.reply.status_override = page.overwrite.unwrap_or(code);
    let uri = page.uri.value(r).into_owned();
    match uri.first() {
        Some(b'/') => {
            if r.method != Method::Head {
                r.method = Method::Get;
            }
            let (uri, args) = split_args(&uri);
            Next::Go(r.internal_redirect(uri, args))
        }
        Some(b'@') => Next::Go(Verdict::Named(String::from_utf8_lossy(&uri).into())),
        _ => {
            let redirect = match page.overwrite.unwrap_or(code) {
                own @ (301 | 302 | 303 | 307 | 308) => own,
                _ => 302,
            };
            r.reply.status_override = 0;
            r.reply.fields.set(HeaderId::Location, &uri);
            built_in(r, redirect);
            Next::Send
        }
    }
}

/// Splits at the first `?`; the path is decoded by nobody: it is written by the operator.
fn split_args(uri: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match memchr::memchr(b'?', uri) {
        Some(at) => (uri[..at].to_vec(), uri[at + 1..].to_vec()),
        None => (uri.to_vec(), Vec::new()),
    }
}

/// Answers with the page that explains `code`.
pub fn built_in(r: &mut Request, code: u16) {
    let core = r.place.location.core.clone();
    if must_close(code) {
        r.keep_alive = false;
    }
    // A later status takes the place of one that an error page was to keep.
    r.reply.status_override = 0;
    r.reply.restart();
    let foot = if core.server_tokens { status::SERVER } else { status::SERVER_SHORT };
    let body = status::page(code, foot).unwrap_or_default();
    let padding = core.msie_padding && code >= 400 && !body.is_empty() && is_msie(r);
    let content_type = (!body.is_empty()).then_some("text/html");
    let mut body = body;
    if padding {
        for _ in 0..6 {
            body.extend_from_slice(PADDING);
        }
    }
    r.answer(status::on_the_wire(code), content_type, Body::bytes(body));
    if code == 204 || code == 304 {
        r.reply.head_only = true;
        r.reply.length = None;
    }
}

/// Statuses after which nginx does not keep the connection.
fn must_close(code: u16) -> bool {
    matches!(
        code,
        400 | 413 | 414 | 494 | status::CERT_ERROR | status::NO_CERT | status::TO_HTTPS | 500 | 501
    )
}

const PADDING: &[u8] = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

fn is_msie(r: &Request) -> bool {
    let agent = r.header(HeaderId::UserAgent).unwrap_or_default();
    memchr::memmem::find(agent, b"MSIE ").is_some()
        || memchr::memmem::find(agent, b"Chrome/").is_some()
}
