//! The character set of replies: what `Content-Type` says of them.
//!
//! Reads: `charset`, `source_charset`, `override_charset`, `charset_types`.
//! Runs as: header filter. Recoding between character sets (`charset_map`) is not done.

use super::media_types::MediaTypes;
use super::{Filtered, HttpModule, Merging, Pipeline, Request, Template};
use crate::conf::*;
use std::rc::Rc;

/// The charset filter.
pub struct Charset;

const WITH_IF: Context = ANY_HTTP | LIF;

impl HttpModule for Charset {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

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
    /// A source in another charset would have to be recoded.
    fn check(&self, _: &Merging) -> Result<(), Reason> {
        let known = |t: &Option<Template>| {
            let text = t.as_ref().and_then(Template::constant)?;
            Some(String::from_utf8_lossy(text).to_ascii_lowercase())
        };
        match (known(&self.source), known(&self.charset)) {
            (Some(from), Some(to)) if from != to => Err(Reason::says(format!(
                "no \"charset_map\" between the charsets \"{from}\" and \"{to}\""
            ))),
            _ => Ok(()),
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
    let named = r.reply.charset.is_some()
        || r.reply.content_type.as_deref().is_some_and(|media| media.contains("charset="));
    if r.is_subrequest || named && !loc.override_it || !loc.types.holds(&r.reply) {
        return Filtered::Pass;
    }
    let name = charset.text(r);
    if !name.is_empty() && name != "off" {
        r.reply.charset = Some(name.into());
    }
    Filtered::Pass
}
