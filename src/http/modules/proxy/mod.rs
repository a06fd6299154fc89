//! `proxy_pass`: hands requests to HTTP servers.
//!
//! Runs in: content. The directives that all upstream protocols share are read by
//! `http::upstream::rules` and `secure`; here is what HTTP alone has. `target` (where a request
//! goes) · `request` (what it is made of) · `talk` (the reply's head and body) · `rewrite`
//! (`proxy_redirect`, `proxy_cookie_…`).

mod request;
mod rewrite;
mod talk;
mod target;

use crate::conf::*;
use crate::http::conf::Here;
use crate::http::reply::in_place;
use crate::http::upstream::{self, RawRules, RawSecure, Rules, Secure, Upstreams};
use crate::http::upstream::{Route, upstream_ssl_rows};
use crate::http::{
    Builtin, Handler, HttpModule, Level, Merging, Pipeline, Request, Template, Verdict, var,
};
use crate::proto::header::HeaderId;
use request::Headers;
use rewrite::{CookieFlags, Rewrite};
use std::rc::Rc;
use talk::HttpTalk;
use target::{Pass, Target};

/// The module.
pub struct Proxy;

impl HttpModule for Proxy {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = upstream_ssl_rows!("proxy", RawLoc, rules, tls, [
        d("proxy_pass", LOC | LIF | LMT, call(exactly(1), RawLoc::pass)),
        d("proxy_set_header", ANY_HTTP, call(exactly(2), RawLoc::set_header)),
        d("proxy_set_body", ANY_HTTP, call(exactly(1), RawLoc::set_body)),
        d("proxy_method", ANY_HTTP, call(exactly(1), RawLoc::method)),
        d("proxy_http_version", ANY_HTTP, call(exactly(1), RawLoc::http_version)),
        d("proxy_redirect", ANY_HTTP, call(between(1, 2), RawLoc::redirect)),
        d("proxy_cookie_domain", ANY_HTTP, call(between(1, 2), RawLoc::cookie_domain)),
        d("proxy_cookie_path", ANY_HTTP, call(between(1, 2), RawLoc::cookie_path)),
        d("proxy_cookie_flags", ANY_HTTP, call(between(1, 4), RawLoc::cookie_flags)),
        d("proxy_headers_hash_max_size", ANY_HTTP, call(exactly(1), sizing_hint)),
        d("proxy_headers_hash_bucket_size", ANY_HTTP, call(exactly(1), sizing_hint)),
    ]);
    const VARIABLES: &'static [Builtin] = &[
        var("proxy_host", |r, out| target::of(r, |t| out.extend_from_slice(t.host_header()))),
        var("proxy_port", |r, out| target::of(r, |t| out.extend_from_slice(t.port()))),
        var("proxy_add_x_forwarded_for", add_x_forwarded_for),
    ];

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        merge(raw, up, m)
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.redirects_to_slash {
            p.redirect_to_slash();
        }
        if loc.pass.is_some() {
            let loc = loc.clone();
            p.content(Handler::Async(Box::new(move |r| in_place(|| proxy(loc.clone(), r)))));
        }
    }
}

/// What was written in one block.
#[derive(Default)]
pub struct RawLoc {
    rules: RawRules,
    tls: RawSecure,
    pass: Option<Pass>,
    headers: Vec<(String, Template)>,
    body: Option<Template>,
    method: Option<Template>,
    version: Option<HttpVersion>,
    redirect: Option<RawRedirect>,
    cookie_domains: Option<Vec<Rewrite>>,
    cookie_paths: Option<Vec<Rewrite>>,
    cookie_flags: Option<Vec<CookieFlags>>,
}

/// `proxy_redirect` of one block: off, or rules in order.
type RawRedirect = Option<Vec<Rewrite>>;

/// `proxy_http_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpVersion {
    Http10,
    Http11,
}

/// What is true in one location.
pub struct Loc {
    rules: Rc<Rules>,
    tls: Secure,
    pass: Option<Rc<Pass>>,
    redirects_to_slash: bool,
    headers: Rc<Headers>,
    body: Option<Template>,
    method: Option<Template>,
    version: HttpVersion,
    /// `proxy_redirect` is not off.
    redirects_on: bool,
    /// What was written or inherited; the default rule is not.
    written_redirects: Option<Rc<[Rewrite]>>,
    redirects: Rc<[Rewrite]>,
    cookie_domains: Rc<[Rewrite]>,
    cookie_paths: Rc<[Rewrite]>,
    cookie_flags: Rc<[CookieFlags]>,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            rules: Rc::new(Rules::new("proxy_temp")),
            tls: Secure::new("proxy"),
            pass: None,
            redirects_to_slash: false,
            headers: Rc::new(Headers::compile(Vec::new())),
            body: None,
            method: None,
            version: HttpVersion::Http11,
            redirects_on: true,
            written_redirects: None,
            redirects: Rc::new([]),
            cookie_domains: Rc::new([]),
            cookie_paths: Rc::new([]),
            cookie_flags: Rc::new([]),
        }
    }
}

fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
    let is_own = raw.pass.is_some();
    let inherited = up.pass.clone().filter(|_| m.level.is_nameless());
    let pass = raw.pass.map(Rc::new).or(inherited);
    let speaks_tls = pass.as_ref().is_some_and(|p| p.may_be_secure());
    let redirects_to_slash = is_own && m.level == Level::Location && m.name.ends_with('/');
    let (redirects_on, written) = match raw.redirect {
        Some(None) => (false, None),
        Some(Some(rules)) => (true, Some(rules.into())),
        None => (up.redirects_on, up.written_redirects.clone()),
    };
    let redirects = match (&written, &pass) {
        _ if !redirects_on => Rc::new([]) as Rc<[Rewrite]>,
        (Some(rules), _) => rules.clone(),
        (None, Some(pass)) => pass.default_redirect().into_iter().collect(),
        (None, None) => Rc::new([]),
    };
    Ok(Loc {
        rules: Rc::new(Rules::merge(raw.rules, &up.rules, "proxy", m)?),
        tls: Secure::merge(raw.tls, &up.tls, speaks_tls, m)?,
        pass,
        redirects_to_slash,
        headers: match raw.headers.is_empty() {
            true => up.headers.clone(),
            false => Rc::new(Headers::compile(raw.headers)),
        },
        body: raw.body.or_else(|| up.body.clone()),
        method: raw.method.or_else(|| up.method.clone()),
        version: raw.version.unwrap_or(up.version),
        redirects_on,
        written_redirects: written,
        redirects,
        cookie_domains: or_up(raw.cookie_domains, &up.cookie_domains),
        cookie_paths: or_up(raw.cookie_paths, &up.cookie_paths),
        cookie_flags: or_up(raw.cookie_flags, &up.cookie_flags),
    })
}

fn or_up<T>(own: Option<Vec<T>>, up: &Rc<[T]>) -> Rc<[T]> {
    own.map_or_else(|| up.clone(), Into::into)
}

/// The tables here size themselves.
fn sizing_hint(_: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    value::number(r.arg(0)).map(|_| ()).ok_or_else(|| Reason::says("invalid number"))
}

impl RawLoc {
    fn pass(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.pass.is_some() {
            return Err(Reason::Duplicate);
        }
        let here = r.shelf.of::<Here>().clone();
        self.pass = Some(Pass::read(r, &here)?);
        Ok(())
    }

    fn set_header(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let template = Template::parse(&args[1], r)?;
        self.headers.push((args[0].clone(), template));
        Ok(())
    }

    fn set_body(&mut self, r: &mut Reading) -> Result<(), Reason> {
        set_template(&mut self.body, r)
    }

    fn method(&mut self, r: &mut Reading) -> Result<(), Reason> {
        set_template(&mut self.method, r)
    }

    fn http_version(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.version.is_some() {
            return Err(Reason::Duplicate);
        }
        self.version = Some(match r.arg(0) {
            "1.0" => HttpVersion::Http10,
            "1.1" => HttpVersion::Http11,
            "2" => {
                return Err(Reason::says(
                    "\"proxy_http_version 2\" is not supported: upstreams are spoken to in \
                     HTTP/1.1",
                ));
            }
            other => return Err(Reason::says(format!("invalid value \"{other}\""))),
        });
        Ok(())
    }

    fn redirect(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        match (&args[..], &mut self.redirect) {
            (_, Some(None)) => return Err(Reason::Duplicate),
            ([off], Some(Some(_))) if off == "off" => return Err(Reason::Duplicate),
            ([off], None) if off == "off" => {
                self.redirect = Some(None);
                return Ok(());
            }
            _ => {}
        }
        let rule = match &args[..] {
            [default] if default == "default" => self.default_redirect()?,
            [other] => return Err(Reason::InvalidParameter(other.clone())),
            [pattern, replacement, ..] => Rewrite::read(pattern, replacement, r)?,
            [] => return Err(Reason::WrongArity),
        };
        self.redirect.get_or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(rule);
        Ok(())
    }

    fn default_redirect(&self) -> Result<Rewrite, Reason> {
        let says = |text: &str| Err(Reason::says(text));
        match &self.pass {
            None => says(
                "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
            ),
            Some(pass) => match pass.default_redirect() {
                Some(rule) => Ok(rule),
                None => says(
                    "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive \
                     with variables",
                ),
            },
        }
    }

    fn cookie_domain(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let rule = match off_or_pair(r, self.cookie_domains.as_ref().map(Vec::is_empty))? {
            None => None,
            Some((pattern, replacement)) => Some(Rewrite::domain(&pattern, &replacement, r)?),
        };
        self.cookie_domains.get_or_insert_default().extend(rule);
        Ok(())
    }

    fn cookie_path(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let rule = match off_or_pair(r, self.cookie_paths.as_ref().map(Vec::is_empty))? {
            None => None,
            Some((pattern, replacement)) => Some(Rewrite::read(&pattern, &replacement, r)?),
        };
        self.cookie_paths.get_or_insert_default().extend(rule);
        Ok(())
    }

    fn cookie_flags(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let is_off = args.len() == 1 && args[0] == "off";
        match (&self.cookie_flags, is_off) {
            (Some(flags), _) if flags.is_empty() => return Err(Reason::Duplicate),
            (Some(_), true) => return Err(Reason::Duplicate),
            (None, true) => self.cookie_flags = Some(Vec::new()),
            _ if args.len() == 1 => return Err(Reason::InvalidParameter(args[0].clone())),
            _ => {
                let flags = CookieFlags::read(&args, r)?;
                self.cookie_flags.get_or_insert_default().push(flags);
            }
        }
        Ok(())
    }
}

/// Reads `off` or `pattern replacement`. `off_before`: whether `off` stood before, if anything did.
fn off_or_pair(
    r: &mut Reading,
    off_before: Option<bool>,
) -> Result<Option<(String, String)>, Reason> {
    let args = r.take_args();
    match (&args[..], off_before) {
        (_, Some(true)) => Err(Reason::Duplicate),
        ([off], Some(false)) if off == "off" => Err(Reason::Duplicate),
        ([off], None) if off == "off" => Ok(None),
        ([other], _) => Err(Reason::InvalidParameter(other.clone())),
        ([pattern, replacement, ..], _) => Ok(Some((pattern.clone(), replacement.clone()))),
        ([], _) => Err(Reason::WrongArity),
    }
}

fn set_template(slot: &mut Option<Template>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    let text = r.arg(0).to_owned();
    *slot = Some(Template::parse(&text, r)?);
    Ok(())
}

/// The content handler.
async fn proxy(loc: Rc<Loc>, r: &mut Request) -> Verdict {
    let pass = loc.pass.clone().expect("installed where it is set");
    let target = match Target::of(&pass, r).await {
        Ok(target) => target,
        Err(status) => return Verdict::Finish(status),
    };
    let upstream = target.upstream.clone();
    let secure = match target.is_secure {
        false => None,
        true => match loc.tls.handshake(r, &target.tls_name) {
            Ok(handshake) => Some(handshake),
            Err(status) => return Verdict::Finish(status),
        },
    };
    let upstreams = r.main::<Upstreams>();
    let (key, chosen) = (upstreams.key(&upstream, r), upstreams.chosen(&upstream));
    let route = Route { rules: loc.rules.clone(), upstream, key, chosen, secure };
    upstream::pass(r, route, HttpTalk::new(loc, target)).await
}

/// `$proxy_add_x_forwarded_for`
fn add_x_forwarded_for(r: &Request, out: &mut Vec<u8>) -> bool {
    for value in r.head.fields.all(HeaderId::XForwardedFor) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(r.client.peer_text().as_bytes());
    true
}
