//! Regular expressions with nginx's meaning: PCRE, named captures become variables.

use super::Request;
use super::variable::{VarRef, VariableTable};
use crate::conf::{Reading, Reason};
use pcre2::bytes::{CaptureLocations, Regex as Pcre, RegexBuilder};
use smallvec::SmallVec;
use std::cell::RefCell;

/// A compiled expression.
pub struct Regex {
    pcre: Pcre,
    source: Box<str>,
    named: Vec<(usize, VarRef)>,
    found: RefCell<CaptureLocations>,
}

/// What the last successful match of a request captured: `$1` … `$9`.
#[derive(Clone, Default)]
pub struct Captures {
    subject: Vec<u8>,
    groups: SmallVec<[(u32, u32); 10]>,
}

impl Captures {
    /// Appends group `n`; nothing if it did not take part.
    pub fn append(&self, n: u8, out: &mut Vec<u8>) {
        if let Some(&(start, end)) = self.groups.get(n as usize) {
            out.extend_from_slice(&self.subject[start as usize..end as usize]);
        }
    }

    /// How many groups the last match had, the whole match included.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing has matched yet.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl Regex {
    /// Compiles `source`; its named groups become variables that a match assigns.
    ///
    /// Errors: `pcre2_compile() failed: … in "source" at "rest"`.
    pub fn compile(source: &str, caseless: bool, r: &mut Reading) -> Result<Regex, Reason> {
        let pcre = RegexBuilder::new()
            .caseless(caseless)
            .jit_if_available(true)
            .build(source)
            .map_err(|e| refused(source, &e))?;
        let names = pcre.capture_names().iter().enumerate();
        let names: Vec<_> = names.filter_map(|(i, n)| Some((i, n.clone()?))).collect();
        let table = r.shelf.of::<VariableTable>();
        let mut named = Vec::with_capacity(names.len());
        for (group, name) in names {
            named.push((group, table.assign(&name)?));
        }
        let found = RefCell::new(pcre.capture_locations());
        Ok(Regex { pcre, source: source.into(), named, found })
    }

    /// The text of the expression.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression has groups.
    pub fn has_groups(&self) -> bool {
        self.pcre.captures_len() > 1
    }

    /// Matches `subject` for request `r`: on success its captures become the request's.
    ///
    /// A match that fails for want of resources is logged and counts as no match, as in nginx.
    pub fn matches(&self, r: &Request, subject: &[u8]) -> bool {
        if !self.exec(r, subject) {
            return false;
        }
        let found = self.found.borrow();
        for (group, variable) in &self.named {
            r.store_variable(variable, found.get(*group).map(|(a, b)| &subject[a..b]));
        }
        let mut captures = r.captures.borrow_mut();
        captures.subject.clear();
        captures.subject.extend_from_slice(subject);
        captures.groups.clear();
        let group = |n| found.get(n).map_or((0, 0), |(a, b)| (a as u32, b as u32));
        captures.groups.extend((0..found.len()).map(group));
        true
    }

    fn exec(&self, r: &Request, subject: &[u8]) -> bool {
        match self.pcre.captures_read(&mut self.found.borrow_mut(), subject) {
            Ok(found) => found.is_some(),
            Err(e) => {
                let subject = String::from_utf8_lossy(subject);
                crate::log::alert!(
                    r,
                    "pcre2_match() failed: {e} on \"{subject}\" using \"{}\"",
                    self.source
                );
                false
            }
        }
    }

    /// Whether `subject` matches, without touching any request's captures.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.pcre.is_match(subject).unwrap_or(false)
    }
}

fn refused(source: &str, e: &pcre2::Error) -> Reason {
    let text = e.to_string();
    // "PCRE2: error compiling pattern at offset 4: missing closing parenthesis"
    let sentence = text.rsplit_once(": ").map_or(text.as_str(), |(_, rest)| rest);
    match e.offset().filter(|at| *at < source.len() && source.is_char_boundary(*at)) {
        Some(at) => Reason::says(format!(
            "pcre2_compile() failed: {sentence} in \"{source}\" at \"{}\"",
            &source[at..]
        )),
        None => Reason::says(format!("pcre2_compile() failed: {sentence} in \"{source}\"")),
    }
}
