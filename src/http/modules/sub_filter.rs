//! `sub_filter`: other words in the text of replies.
//!
//! Patterns and their replacements may hold variables, which are evaluated when the reply's head
//! is. Letter case of ASCII does not matter. Runs as: header filter, wraps the body.

use crate::conf::*;
use crate::http::media_types::MediaTypes;
use crate::http::transform::{Transform, Transformed};
use crate::http::{Filtered, HttpModule, Merging, Pipeline, Request, Template};
use std::rc::Rc;

/// The module.
pub struct SubFilter;

impl HttpModule for SubFilter {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("sub_filter",               ANY_HTTP, call(exactly(2), RawLoc::pair)),
        d("sub_filter_types",         ANY_HTTP, call(at_least(1), RawLoc::types)),
        d("sub_filter_once",          ANY_HTTP, flag(|c| &mut c.once)),
        d("sub_filter_last_modified", ANY_HTTP, flag(|c| &mut c.last_modified)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            pairs: if raw.pairs.is_empty() { up.pairs.clone() } else { raw.pairs.into() },
            types: raw.types.map_or_else(|| up.types.clone(), Rc::new),
            once: raw.once.unwrap_or(up.once),
            last_modified: raw.last_modified.unwrap_or(up.last_modified),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.pairs.is_empty() {
            let loc = loc.clone();
            p.filter(move |r| substitute(&loc, r));
        }
    }
}

/// Patterns of one level.
const PATTERNS_MAX: usize = 255;

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    pairs: Vec<(Template, Template)>,
    types: Option<MediaTypes>,
    once: Option<bool>,
    last_modified: Option<bool>,
}

/// What is in force.
pub struct Loc {
    /// A pattern in lower case, and what takes its place.
    pairs: Rc<[(Template, Template)]>,
    types: Rc<MediaTypes>,
    once: bool,
    last_modified: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            pairs: Rc::new([]),
            types: Rc::new(MediaTypes::of(&["text/html"])),
            once: true,
            last_modified: false,
        }
    }
}

impl RawLoc {
    fn pair(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let (pattern, value) = (r.arg(0).to_ascii_lowercase(), r.arg(1).to_owned());
        if pattern.is_empty() {
            return Err(Reason::says("empty search pattern"));
        }
        if self.pairs.len() == PATTERNS_MAX {
            return Err(Reason::says("number of search patterns exceeds 255"));
        }
        self.pairs.push((Template::parse(&pattern, r)?, Template::parse(&value, r)?));
        Ok(())
    }

    fn types(&mut self, r: &mut Reading) -> Result<(), Reason> {
        MediaTypes::read(&mut self.types, &["text/html"], r)
    }
}

fn substitute(loc: &Loc, r: &mut Request) -> Filtered {
    if r.reply.length == Some(0) || !loc.types.holds(&r.reply) {
        return Filtered::Pass;
    }
    let pairs = loc.pairs.iter().map(|(pattern, value)| Pair {
        pattern: pattern.value(r).to_ascii_lowercase(),
        value: value.value(r).into_owned(),
        is_spent: false,
    });
    let pairs: Vec<Pair> = pairs.filter(|pair| !pair.pattern.is_empty()).collect();
    if pairs.is_empty() {
        return Filtered::Pass;
    }
    r.reply.body_changes();
    if !loc.last_modified {
        r.reply.forget_validators();
    }
    let once = loc.once;
    r.reply.body.wrap(|inner| Transformed::new(inner, Substitution::new(pairs, once)));
    Filtered::Pass
}

struct Pair {
    pattern: Vec<u8>,
    value: Vec<u8>,
    /// With `sub_filter_once`: it was found.
    is_spent: bool,
}

/// Looks for the patterns in a text that comes in pieces. The leftmost one counts, and of those
/// that begin at the same place the one that was written first.
struct Substitution {
    pairs: Vec<Pair>,
    once: bool,
    /// Bytes that a pattern may begin with.
    begins: Box<[bool; 256]>,
    /// The end of the text so far, if it is the beginning of a pattern; shorter than the longest.
    held: Vec<u8>,
}

enum Found {
    /// The pair of this number.
    Whole(usize),
    /// Perhaps: what follows decides.
    Begun,
    Nothing,
}

impl Substitution {
    fn new(pairs: Vec<Pair>, once: bool) -> Substitution {
        let mut found = Substitution { pairs, once, begins: Box::new([false; 256]), held: vec![] };
        found.note_begins();
        found
    }

    fn note_begins(&mut self) {
        self.begins.fill(false);
        for pair in self.pairs.iter().filter(|pair| !pair.is_spent) {
            self.begins[pair.pattern[0].to_ascii_uppercase() as usize] = true;
            self.begins[pair.pattern[0] as usize] = true;
        }
    }

    fn scan(&mut self, text: &[u8], is_last: bool, out: &mut Vec<u8>) {
        let (mut at, mut copied) = (0, 0);
        while let Some(skip) = text[at..].iter().position(|b| self.begins[*b as usize]) {
            at += skip;
            match self.look(&text[at..], is_last) {
                Found::Nothing => at += 1,
                Found::Begun => {
                    out.extend_from_slice(&text[copied..at]);
                    self.held = text[at..].to_vec();
                    return;
                }
                Found::Whole(which) => {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(&self.pairs[which].value);
                    at += self.pairs[which].pattern.len();
                    copied = at;
                    if self.once {
                        self.pairs[which].is_spent = true;
                        self.note_begins();
                    }
                }
            }
        }
        out.extend_from_slice(&text[copied..]);
    }

    /// What begins where `text` does.
    fn look(&self, text: &[u8], is_last: bool) -> Found {
        for (which, pair) in self.pairs.iter().enumerate().filter(|(_, pair)| !pair.is_spent) {
            let len = pair.pattern.len().min(text.len());
            if !text[..len].eq_ignore_ascii_case(&pair.pattern[..len]) {
                continue;
            }
            if len == pair.pattern.len() {
                return Found::Whole(which);
            }
            if !is_last {
                return Found::Begun;
            }
        }
        Found::Nothing
    }
}

impl Transform for Substitution {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return self.scan(bytes, false, out);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        self.scan(&text, false, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        self.scan(&text, true, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replaced(pairs: &[(&str, &str)], once: bool, text: &str, size: usize) -> String {
        let pair = |(pattern, value): &(&str, &str)| Pair {
            pattern: pattern.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            is_spent: false,
        };
        let mut found = Substitution::new(pairs.iter().map(pair).collect(), once);
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            found.feed(piece, &mut out);
            assert!(found.held.len() < pairs.iter().map(|(p, _)| p.len()).max().unwrap());
        }
        found.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_leftmost_and_the_first() {
        for size in 1..8 {
            let all = |pairs: &[(&str, &str)], text| replaced(pairs, false, text, size);
            assert_eq!(all(&[("aab", "+"), ("yyz", "-")], "aaabXYYZaab"), "a+X-+");
            assert_eq!(all(&[("aabb", "+"), ("aaabb", "-")], "aaabbaabb"), "-+");
            assert_eq!(all(&[("abc", "1"), ("ab", "2")], "ababcab"), "212");
            assert_eq!(all(&[("ab", "2"), ("abc", "1")], "abc"), "2c");
            assert_eq!(all(&[("abac", "X")], "ababac abaabac"), "abX abaX");
            let once = replaced(&[("a", "1"), ("b", "2")], true, "abab", size);
            assert_eq!(once, "12ab");
        }
    }

    proptest! {
        #[test]
        fn one_pattern_is_replaced_as_by_the_library(
            pattern in "[ab]{1,4}", text in "[abc]{0,60}", size in 1usize..9,
        ) {
            let want = text.replace(&pattern, "<>");
            prop_assert_eq!(replaced(&[(&pattern, "<>")], false, &text, size), want);
            let want = text.replacen(&pattern, "<>", 1);
            prop_assert_eq!(replaced(&[(&pattern, "<>")], true, &text, size), want);
        }
    }
}
