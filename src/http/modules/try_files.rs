//! `try_files`: the first file or folder that exists is taken, else a last resort.
//!
//! Reads: `try_files`. Runs in: pre-content.

use crate::conf::*;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Template, Verdict, open_files};
use crate::log;
use crate::sys::file;
use std::rc::Rc;

pub struct TryFiles;

impl HttpModule for TryFiles {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] =
        &[d("try_files", SRV | LOC, call(at_least(2), RawLoc::try_files))];

    fn merge(raw: RawLoc, _: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        // Not inherited: the paths of the outer level are not looked for inside.
        Ok(Loc { rule: raw.rule.map(Rc::new) })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if let Some(rule) = loc.rule.clone() {
            p.on(Phase::PreContent, move |r| rule.apply(r));
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    rule: Option<Rule>,
}

#[derive(Default)]
pub struct Loc {
    rule: Option<Rc<Rule>>,
}

struct Rule {
    tries: Vec<Try>,
    last: Last,
}

/// A name to be looked for, without the slash that says that a folder is meant.
struct Try {
    name: Template,
    is_folder: bool,
}

enum Last {
    /// `=404`
    Status(u16),
    /// A URI or `@name`.
    Uri(Template),
}

impl RawLoc {
    fn try_files(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.rule.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut words = r.take_args();
        let last = words.pop().expect("two or more arguments");
        let mut tries = Vec::with_capacity(words.len());
        for word in &words {
            let name = word.strip_suffix('/');
            let is_folder = name.is_some();
            let name = Template::parse(name.unwrap_or(word), r)?;
            tries.push(Try { name, is_folder });
        }
        let last = match last.strip_prefix('=') {
            Some(digits) => {
                let code = value::number(digits).filter(|n| *n <= 999);
                let bad = || Reason::says(format!("invalid code \"{digits}\""));
                Last::Status(code.ok_or_else(bad)? as u16)
            }
            None => Last::Uri(Template::parse(&last, r)?),
        };
        self.rule = Some(Rule { tries, last });
        Ok(())
    }
}

impl Rule {
    fn apply(&self, r: &mut Request) -> Verdict {
        for attempt in &self.tries {
            if attempt.succeeds(r) {
                return Verdict::Decline;
            }
        }
        let uri = match &self.last {
            Last::Status(code) => return Verdict::Finish(*code),
            Last::Uri(uri) => uri.value(r).into_owned(),
        };
        if uri.starts_with(b"@") {
            return Verdict::Named(String::from_utf8_lossy(&uri).into());
        }
        let (uri, args) = match memchr::memchr(b'?', &uri) {
            Some(at) => (uri[..at].to_vec(), uri[at + 1..].to_vec()),
            None => (uri, Vec::new()),
        };
        r.internal_redirect(uri, args)
    }
}

impl Try {
    /// Whether it exists; then it is the request's URI from now on.
    fn succeeds(&self, r: &mut Request) -> bool {
        let core = r.place.location.core.clone();
        let mut name = self.name.value(r).into_owned();
        let replaces = core.root.1 && !core.is_regex;
        let prefix = r.place.uri.get(..core.name_len).unwrap_or_default().to_vec();
        let is_variable = self.name.constant().is_none();
        if replaces && is_variable && name.starts_with(&prefix) {
            name.drain(..prefix.len());
        }
        let path = [core.root_of(r), name.clone()].concat();
        match open_files::look(r, &path) {
            Ok(found) if found.facts.is_directory() == self.is_folder => {}
            Ok(_) => return false,
            Err(failed) => {
                if !file::is_absent(&failed.error) {
                    let (call, path, why) = (failed.call, log::Raw(&path), log::Os(&failed.error));
                    log::crit!(&*r, "{call} \"{path}\" failed{why}");
                }
                return false;
            }
        }
        if !core.root.1 {
            r.place.uri = name;
        } else if replaces {
            r.place.uri = [prefix, name].concat();
        } else if !self.is_folder {
            r.place.uri = name;
            r.place.adds_uri_to_alias = true;
        }
        true
    }
}
