//! Files: what answers a URI where nothing else does.
//!
//! Reads: no directives of its own; `root`, `alias`, `types` are the core's, `open_file_cache` and
//! `disable_symlinks` are read by `open_files`. Runs in: content.

use crate::conf::Reason;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Verdict, open_files, rewrite};
use crate::log;
use crate::proto::h1::Method;
use std::rc::Rc;

pub struct StaticFile;

impl HttpModule for StaticFile {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }

    fn install(_: &Rc<()>, p: &mut Pipeline) {
        p.on(Phase::Content, static_file);
    }
}

fn static_file(r: &mut Request) -> Verdict {
    if !matches!(r.method, Method::Get | Method::Head | Method::Post) {
        return Verdict::Finish(405);
    }
    if r.place.uri.last() == Some(&b'/') {
        return Verdict::Decline;
    }
    let core = r.place.location.core.clone();
    let path = core.path_of(r);
    let found = match open_files::open(r, &path) {
        Ok(found) => found,
        Err(failed) => return Verdict::Finish(failed.answer(r, &path)),
    };
    if found.facts.is_directory() {
        return rewrite::redirect_to_slash(r);
    }
    let file = match &found.file {
        Some(file) if found.facts.is_file() => file.clone(),
        _ => {
            log::crit!(&*r, "\"{}\" is not a regular file", log::Raw(&path));
            return Verdict::Finish(404);
        }
    };
    if r.method == Method::Post {
        return Verdict::Finish(405);
    }
    found.answer(r, file);
    // An upstream that sent the request here by X-Accel-Redirect may have named the type.
    if r.reply.content_type.is_none() {
        r.reply.content_type = core.content_type_of(r);
    }
    Verdict::Reply
}
