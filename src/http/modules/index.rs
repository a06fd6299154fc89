//! `index`: the file that stands for a folder.
//!
//! Reads: `index`. Runs in: content; sends the request to the first index that exists.

use crate::conf::*;
use crate::http::open_files::{self, Failed};
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Template, Verdict};
use crate::log;
use crate::proto::h1::Method;
use crate::sys::file;
use std::rc::Rc;

pub struct Index;

impl HttpModule for Index {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] =
        &[d("index", ANY_HTTP, call(at_least(1), RawLoc::index))];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { names: if raw.names.is_empty() { up.names.clone() } else { raw.names.into() } })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        let names = loc.names.clone();
        p.on(Phase::Content, move |r| index(&names, r));
    }
}

#[derive(Default)]
pub struct RawLoc {
    names: Vec<Template>,
}

pub struct Loc {
    names: Rc<[Template]>,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { names: Rc::new([Template::plain("index.html")]) }
    }
}

impl RawLoc {
    fn index(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let words = r.take_args();
        for (i, word) in words.iter().enumerate() {
            if word.starts_with('/') && i + 1 != words.len() {
                r.warn("only the last index in \"index\" directive should be absolute");
            }
            if word.is_empty() {
                return Err(Reason::says("index \"\" in \"index\" directive is invalid"));
            }
            self.names.push(Template::parse(word, r)?);
        }
        Ok(())
    }
}

fn index(names: &[Template], r: &mut Request) -> Verdict {
    let readable = matches!(r.method, Method::Get | Method::Head | Method::Post);
    if r.place.uri.last() != Some(&b'/') || !readable {
        return Verdict::Decline;
    }
    let folder = r.place.location.core.path_of(r);
    let mut folder_tested = false;
    for name in names {
        let name = name.value(r).into_owned();
        if name.first() == Some(&b'/') {
            let args = r.place.args.clone();
            return r.internal_redirect(name, args);
        }
        let path = [&folder[..], &name].concat();
        match open_files::look(r, &path) {
            Ok(_) => {
                let uri = [&r.place.uri[..], &name].concat();
                let args = r.place.args.clone();
                return r.internal_redirect(uri, args);
            }
            Err(failed) => {
                if let Some(status) = no_index(r, &path, &folder, &failed, &mut folder_tested) {
                    return Verdict::Finish(status);
                }
            }
        }
    }
    Verdict::Decline
}

/// An index that cannot be had; the status if the search is over.
fn no_index(
    r: &Request,
    path: &[u8],
    folder: &[u8],
    failed: &Failed,
    folder_tested: &mut bool,
) -> Option<u16> {
    if file::is_refused_link(&failed.error) {
        return Some(403);
    }
    let is_missing = failed.error.kind() == std::io::ErrorKind::NotFound;
    if !is_missing && (file::is_denied(&failed.error) || file::is_absent(&failed.error)) {
        return Some(refuse(r, path, failed));
    }
    if !*folder_tested {
        if let Some(status) = test_folder(r, path, folder) {
            return Some(status);
        }
        *folder_tested = true;
    }
    if is_missing {
        return None;
    }
    let (call, path, why) = (failed.call, log::Raw(path), log::Os(&failed.error));
    log::crit!(r, "{call} \"{path}\" failed{why}");
    Some(500)
}

/// Whether the folder itself is there; a missing one is 404 and not an empty folder.
fn test_folder(r: &Request, path: &[u8], folder: &[u8]) -> Option<u16> {
    let folder = folder.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(folder);
    match open_files::look(r, folder) {
        Ok(found) if found.facts.is_directory() => None,
        Ok(_) => {
            log::alert!(r, "\"{}\" is not a directory", log::Raw(folder));
            Some(500)
        }
        Err(failed) if file::is_refused_link(&failed.error) => Some(403),
        // The index was looked for in it: searching it is allowed.
        Err(failed) if file::is_denied(&failed.error) => None,
        Err(failed) if failed.error.kind() == std::io::ErrorKind::NotFound => {
            Some(refuse(r, path, &failed))
        }
        Err(failed) => {
            let (call, folder, why) = (failed.call, log::Raw(folder), log::Os(&failed.error));
            log::crit!(r, "{call} \"{folder}\" failed{why}");
            Some(500)
        }
    }
}

fn refuse(r: &Request, path: &[u8], failed: &Failed) -> u16 {
    let (path, why) = (log::Raw(path), log::Os(&failed.error));
    if file::is_denied(&failed.error) {
        log::error!(r, "\"{path}\" is forbidden{why}");
        return 403;
    }
    if r.place.location.core.log_not_found {
        log::error!(r, "\"{path}\" is not found{why}");
    }
    404
}
