//! `gzip_static`: a file that was compressed beforehand, `x.gz` for `x`.
//!
//! Reads: `gzip_static`. Runs in: content, before `static_file`.

use crate::conf::*;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Verdict, gzip_rules, open_files};
use crate::log;
use crate::proto::h1::Method;
use crate::proto::header::HeaderId;
use crate::sys::file;
use std::rc::Rc;

pub struct GzipStatic;

impl HttpModule for GzipStatic {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] =
        &[d("gzip_static", ANY_HTTP, choice(&["off", "on", "always"], |c| &mut c.mode))];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { mode: raw.mode.unwrap_or(up.mode) })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        let always = loc.mode == "always";
        if loc.mode != "off" {
            p.on(Phase::Content, move |r| gzip_static(always, r));
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    mode: Option<&'static str>,
}

pub struct Loc {
    mode: &'static str,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { mode: "off" }
    }
}

fn gzip_static(always: bool, r: &mut Request) -> Verdict {
    if !matches!(r.method, Method::Get | Method::Head) || r.place.uri.last() == Some(&b'/') {
        return Verdict::Decline;
    }
    let welcome = always || gzip_rules::accepts(r);
    if !welcome && !gzip_rules::varies(r) {
        return Verdict::Decline;
    }
    let core = r.place.location.core.clone();
    let mut path = core.path_of(r);
    path.extend_from_slice(b".gz");
    let found = match open_files::open(r, &path) {
        Ok(found) => found,
        Err(failed) => {
            if !file::is_absent(&failed.error) {
                failed.answer(r, &path);
            }
            return Verdict::Decline;
        }
    };
    if !always {
        gzip_rules::vary(r);
    }
    if !welcome || found.facts.is_directory() {
        return Verdict::Decline;
    }
    let Some(file) = found.file.clone().filter(|_| found.facts.is_file()) else {
        log::crit!(&*r, "\"{}\" is not a regular file", log::Raw(&path));
        return Verdict::Finish(404);
    };
    found.answer(r, file);
    r.reply.content_type = core.content_type_of(r);
    r.reply.fields.push(HeaderId::ContentEncoding, b"gzip");
    Verdict::Reply
}
