//! `random_index`: any file of a folder stands for it.
//!
//! Reads: `random_index`. Runs in: content, before `index`.

use crate::conf::*;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Verdict, open_files};
use crate::log;
use crate::proto::h1::Method;
use crate::sys::file;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

pub struct RandomIndex;

impl HttpModule for RandomIndex {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[d("random_index", LOC, flag(|c| &mut c.on))];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { on: raw.on.unwrap_or(up.on) })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.on {
            p.on(Phase::Content, random_index);
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    on: Option<bool>,
}

#[derive(Default)]
pub struct Loc {
    on: bool,
}

fn random_index(r: &mut Request) -> Verdict {
    let readable = matches!(r.method, Method::Get | Method::Head | Method::Post);
    if !readable || r.place.uri.last() != Some(&b'/') {
        return Verdict::Decline;
    }
    let mut folder = r.place.location.core.path_of(r);
    folder.pop();
    match choose(r, &folder) {
        Ok(None) => Verdict::Decline,
        Ok(Some(name)) => {
            let uri = [&r.place.uri[..], &name].concat();
            let args = r.place.args.clone();
            r.internal_redirect(uri, args)
        }
        Err(error) => {
            let failed = open_files::Failed { call: "opendir()", error };
            Verdict::Finish(failed.answer(r, &folder))
        }
    }
}

/// The name of some file in the folder, hidden ones left out; each is as likely as the others.
fn choose(r: &Request, folder: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let folder = Path::new(OsStr::from_bytes(folder));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(&name);
        match file::facts(&path) {
            Ok(facts) if facts.is_file() => names.push(name),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::crit!(r, "stat() \"{}\" failed{}", path.display(), log::Os(&error));
                return Err(error);
            }
        }
    }
    let mut dice = [0; 8];
    getrandom::fill(&mut dice).expect("the kernel gives random bytes");
    let chosen = u64::from_ne_bytes(dice).checked_rem(names.len() as u64);
    Ok(chosen.map(|at| names.swap_remove(at as usize).into_vec()))
}
