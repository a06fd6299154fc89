//! `echo_before_body`, `echo_after_body`: text around a reply.

use super::{Loc, Said};
use crate::http::body::Row;
use crate::http::{Body, Filtered, Request};

/// Puts the location's words around the reply's body.
pub fn add(loc: &Loc, r: &mut Request) -> Filtered {
    let said = |words: &[Said], r: &Request| {
        let mut out = Vec::new();
        words.iter().for_each(|said| said.append(r, &mut out));
        Body::bytes(out)
    };
    r.reply.body_changes();
    let (before, after) = (said(&loc.before, r), said(&loc.after, r));
    r.reply.body.wrap(|body| Row::around(before, body, after));
    Filtered::Pass
}

impl Said {
    /// Appends the words, and the line feed if there is one.
    pub fn append(&self, r: &Request, out: &mut Vec<u8>) {
        for (n, word) in self.words.iter().enumerate() {
            if n > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(&word.value(r));
        }
        if self.ends_line {
            out.push(b'\n');
        }
    }
}
