//! `add_before_body`, `add_after_body`: other replies around a reply.
//!
//! Runs as: header filter, wraps the body. The additions are subrequests; the second one begins
//! when the body is over.

use crate::conf::*;
use crate::http::body::Row;
use crate::http::media_types::MediaTypes;
use crate::http::subrequest::Fetched;
use crate::http::{Body, Filtered, HttpModule, Merging, Pipeline, Request};
use std::rc::Rc;

/// The module.
pub struct Addition;

impl HttpModule for Addition {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("add_before_body", ANY_HTTP, text(|c| &mut c.before)),
        d("add_after_body", ANY_HTTP, text(|c| &mut c.after)),
        d("addition_types", ANY_HTTP, call(at_least(1), RawLoc::types)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            before: raw.before.map_or_else(|| up.before.clone(), Rc::from),
            after: raw.after.map_or_else(|| up.after.clone(), Rc::from),
            types: raw.types.map_or_else(|| up.types.clone(), Rc::new),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.before.is_empty() || !loc.after.is_empty() {
            let loc = loc.clone();
            p.filter(move |r| add(&loc, r));
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    before: Option<String>,
    after: Option<String>,
    types: Option<MediaTypes>,
}

/// What is in force; an empty URI adds nothing.
pub struct Loc {
    before: Rc<str>,
    after: Rc<str>,
    types: Rc<MediaTypes>,
}

impl Default for Loc {
    fn default() -> Loc {
        let types = Rc::new(MediaTypes::of(&["text/html"]));
        Loc { before: "".into(), after: "".into(), types }
    }
}

impl RawLoc {
    fn types(&mut self, r: &mut Reading) -> Result<(), Reason> {
        MediaTypes::read(&mut self.types, &["text/html"], r)
    }
}

fn add(loc: &Loc, r: &mut Request) -> Filtered {
    if r.reply.status != 200 || r.is_subrequest || !loc.types.holds(&r.reply) {
        return Filtered::Pass;
    }
    r.reply.body_changes();
    let fetched = |uri: &str| match uri {
        "" => Body::Empty,
        uri => {
            let addition = r.subrequest(uri.as_bytes().to_vec(), Vec::new());
            Body::Stream(Box::new(Fetched::new(addition)))
        }
    };
    let (before, after) = (fetched(&loc.before), fetched(&loc.after));
    r.reply.body.wrap(|body| Row::around(before, body, after));
    Filtered::Pass
}
