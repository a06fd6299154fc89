//! The character set of replies: what `Content-Type` says of them, and recoding them.
//!
//! Reads: `charset`, `source_charset`, `override_charset`, `charset_types`, `charset_map`.
//! Runs as: header filter.

use super::media_types::MediaTypes;
use super::recode::{Maps, Recoder};
use super::transform::Transformed;
use super::{Filtered, HttpModule, Merging, Pipeline, Request, Template};
use crate::conf::*;
use crate::log;
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// The charset filter.
pub struct Charset;

const WITH_IF: Context = ANY_HTTP | LIF;

impl HttpModule for Charset {
    type Main = Maps;
    type RawLoc = RawLoc;
    type Loc = Loc;

    const MAIN: &'static [Directive<Maps>] =
        &[d("charset_map", HTTP, block(exactly(2), Maps::read))];
    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("charset",          WITH_IF,  call(exactly(1), |c, r| name(&mut c.charset, r))),
        d("source_charset",   WITH_IF,  call(exactly(1), |c, r| name(&mut c.source, r))),
        d("override_charset", WITH_IF,  flag(|c| &mut c.override_it)),
        d("charset_types",    ANY_HTTP, call(at_least(1), RawLoc::types)),
    ];

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        let loc = Loc {
            charset: raw.charset.unwrap_or_else(|| up.charset.clone()),
            source: raw.source.unwrap_or_else(|| up.source.clone()),
            override_it: raw.override_it.unwrap_or(up.override_it),
            types: raw.types.map_or_else(|| up.types.clone(), Rc::new),
        };
        loc.check(m)?;
        Ok(loc)
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.charset.is_some() {
            let loc = loc.clone();
            p.filter(move |r| charset(&loc, r));
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    charset: Option<Option<Template>>,
    source: Option<Option<Template>>,
    override_it: Option<bool>,
    types: Option<MediaTypes>,
}

/// The character set of one location.
pub struct Loc {
    charset: Option<Template>,
    source: Option<Template>,
    override_it: bool,
    types: Rc<MediaTypes>,
}

/// Where nothing is said.
const TYPES: &[&str] = &[
    "text/html",
    "text/xml",
    "text/plain",
    "text/vnd.wap.wml",
    "application/javascript",
    "application/rss+xml",
];

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            charset: None,
            source: None,
            override_it: false,
            types: Rc::new(MediaTypes::of(TYPES)),
        }
    }
}

impl Loc {
    /// What is known to be recoded needs a map.
    fn check(&self, m: &Merging) -> Result<(), Reason> {
        let known = |t: &Option<Template>| {
            let text = t.as_ref().and_then(Template::constant)?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        let (Some(from), Some(to)) = (known(&self.source), known(&self.charset)) else {
            return Ok(());
        };
        let maps = m.main::<Charset>().expect("finished before anything is merged");
        match from.eq_ignore_ascii_case(&to) || maps.find(&from, &to).is_some() {
            true => Ok(()),
            false => Err(Reason::says(no_map(&from, &to))),
        }
    }
}

fn name(slot: &mut Option<Option<Template>>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    let text = r.arg(0).to_owned();
    *slot = Some(match text.as_str() {
        "off" => None,
        other => Some(Template::parse(other, r)?),
    });
    Ok(())
}

impl RawLoc {
    fn types(&mut self, r: &mut Reading) -> Result<(), Reason> {
        MediaTypes::read(&mut self.types, &["text/html"], r)
    }
}

/// Whether a page made at this place will be called UTF-8.
pub fn is_utf8(r: &Request) -> bool {
    let known = r.reply.charset.as_deref().map(|name| name.eq_ignore_ascii_case("utf-8"));
    known.unwrap_or_else(|| {
        let charset = r.conf::<Charset>().charset.as_ref();
        charset.is_some_and(|charset| charset.value(r).eq_ignore_ascii_case(b"utf-8"))
    })
}

fn charset(loc: &Loc, r: &mut Request) -> Filtered {
    let Some(charset) = &loc.charset else { return Filtered::Pass };
    let in_type = r.reply.content_type.as_deref().is_some_and(|media| media.contains("charset="));
    let fits = match r.reply.charset.is_some() || in_type {
        true => loc.override_it,
        false => loc.types.holds(&r.reply),
    };
    if r.is_subrequest || !fits || r.reply.content_type.is_none() {
        return Filtered::Pass;
    }
    let to = charset.text(r);
    if to.is_empty() {
        return Filtered::Pass;
    }
    let own = r.reply.charset.as_deref().map(str::to_owned);
    let from = own.or_else(|| loc.source.as_ref().map(|source| source.text(r)));
    match from {
        Some(from) if !from.eq_ignore_ascii_case(&to) => recode(r, &from, &to),
        _ => name_it(r, &to),
    }
    Filtered::Pass
}

/// A redirect is not given a name: old browsers take it for the next page's.
fn name_it(r: &mut Request, name: &str) {
    r.reply.charset = (!matches!(r.reply.status, 301 | 302)).then(|| name.into());
}

fn recode(r: &mut Request, from: &str, to: &str) {
    let maps = r.main::<Charset>().clone();
    let Some(table) = maps.find(from, to) else {
        return log::error!(&*r, "{}", no_map(from, to));
    };
    // What is packed cannot be recoded, and keeps its name.
    if r.reply.fields.get(HeaderId::ContentEncoding).is_some_and(|coding| !coding.is_empty()) {
        return;
    }
    name_it(r, to);
    if !table.keeps_length() {
        r.reply.length = None;
    }
    r.reply.body.wrap(|inner| Transformed::new(inner, Recoder::new(table.clone())));
}

fn no_map(from: &str, to: &str) -> String {
    format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")
}
