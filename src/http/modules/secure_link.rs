//! `secure_link`: whether a link was made by somebody who knows a secret, and is still good.
//!
//! `secure_link` and `secure_link_md5` compare a hash that the link carries with one of text with
//! variables; `secure_link_secret` is the older form, whose hash stands in the path. The answer is
//! `$secure_link`: nothing, `0` (too late), `1`, or in the old form the rest of the path.

use crate::conf::*;
use crate::http::{Builtin, HttpModule, Merging, Request, Template, var};
use crate::proto::digits::{from_base64_url, from_hex};
use crate::sys::time;
use md5::{Digest, Md5};
use std::rc::Rc;

/// The module.
pub struct SecureLink;

impl HttpModule for SecureLink {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("secure_link", ANY_HTTP, call(exactly(1), |c, r| template(&mut c.link, r))),
        d("secure_link_md5", ANY_HTTP, call(exactly(1), |c, r| template(&mut c.md5, r))),
        d("secure_link_secret", LOC, text(|c| &mut c.secret)),
    ];
    const VARIABLES: &'static [Builtin] =
        &[var("secure_link", secure_link), var("secure_link_expires", expires)];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        if raw.secret.is_some() && (raw.link.is_some() || raw.md5.is_some()) {
            return Err(Reason::says(
                "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \
                 \"secure_link_md5\"",
            ));
        }
        if let Some(secret) = raw.secret {
            return Ok(Loc { secret: Some(secret.into()), ..Loc::default() });
        }
        let link = raw.link.map(Rc::new).or_else(|| up.link.clone());
        let md5 = raw.md5.map(Rc::new).or_else(|| up.md5.clone());
        let secret = up.secret.clone().filter(|_| link.is_none() && md5.is_none());
        Ok(Loc { link, md5, secret })
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    link: Option<Template>,
    md5: Option<Template>,
    secret: Option<String>,
}

/// What is in force.
#[derive(Default)]
pub struct Loc {
    /// `hash` or `hash,expires`
    link: Option<Rc<Template>>,
    md5: Option<Rc<Template>>,
    /// It alone decides if it is there.
    secret: Option<Rc<str>>,
}

/// Characters of a hash in base64, with padding.
const HASH_MAX_CHARS: usize = 24;

fn secure_link(r: &Request, out: &mut Vec<u8>) -> bool {
    let loc = r.conf::<SecureLink>();
    if let Some(secret) = &loc.secret {
        let rest = old_link(r.head.text(r.head.target), secret);
        return rest.is_some_and(|rest| put(rest, out));
    }
    let (Some(link), Some(md5)) = (&loc.link, &loc.md5) else { return false };
    let link = link.value(r);
    let Some((hash, until)) = read_link(&link) else { return false };
    if !is_equal(&hash, &Md5::digest(&*md5.value(r)).into()) {
        return false;
    }
    let late = until.is_some_and(|until| until < time::unix_seconds());
    put(if late { b"0" } else { b"1" }, out)
}

fn expires(r: &Request, out: &mut Vec<u8>) -> bool {
    let loc = r.conf::<SecureLink>();
    let Some(link) = loc.link.as_ref().filter(|_| loc.secret.is_none()) else { return false };
    let link = link.value(r);
    let (_, until) = split(&link);
    until.is_some_and(|until| seconds(until).is_some() && put(until, out))
}

fn put(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    true
}

/// `hash` and what follows its comma.
fn split(link: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b',', link) {
        Some(at) => (&link[..at], Some(&link[at + 1..])),
        None => (link, None),
    }
}

/// The hash of a link, and the last second at which it is good.
fn read_link(link: &[u8]) -> Option<([u8; 16], Option<i64>)> {
    let (hash, until) = split(link);
    let until = match until {
        Some(until) => Some(seconds(until)?),
        None => None,
    };
    if hash.len() > HASH_MAX_CHARS {
        return None;
    }
    let hash = from_base64_url(hash)?.try_into().ok()?;
    Some((hash, until))
}

/// A time after the epoch.
fn seconds(text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?;
    let seconds = i64::try_from(value::number(digits)?).ok()?;
    (seconds > 0).then_some(seconds)
}

/// `/prefix/hash/rest`: the rest, if the hash is that of rest and secret.
fn old_link<'a>(target: &'a [u8], secret: &str) -> Option<&'a [u8]> {
    let mut parts = target.get(1..)?.splitn(3, |b| *b == b'/').skip(1);
    let (hash, rest) = (parts.next()?, parts.next()?);
    if hash.len() != 32 || rest.is_empty() {
        return None;
    }
    let told = from_hex(hash)?.try_into().ok()?;
    let ours = Md5::new().chain_update(rest).chain_update(secret).finalize().into();
    is_equal(&told, &ours).then_some(rest)
}

/// In a time that tells nothing of where they differ.
fn is_equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | a ^ b) == 0
}

fn template(slot: &mut Option<Template>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    let text = r.arg(0).to_owned();
    *slot = Some(Template::parse(&text, r)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_of_the_old_form() {
        let hash = "dc0ab1fa37b2b0f2d7bd1ce4bd5c3d04";
        let ours: [u8; 16] = Md5::digest(b"a/b?cs").into();
        let hex: String = ours.iter().map(|b| format!("{b:02X}")).collect();
        let link = format!("/p/{hex}/a/b?c");
        assert_eq!(old_link(link.as_bytes(), "s"), Some(&b"a/b?c"[..]));
        for bad in
            [link.replace("/p/", "/"), link.clone() + "d", format!("/p/{hash}/a"), "/".into()]
        {
            assert_eq!(old_link(bad.as_bytes(), "s"), None, "{bad}");
        }
    }

    #[test]
    fn links_with_and_without_time() {
        let bytes = |link: &str| read_link(link.as_bytes());
        assert_eq!(bytes("AAAAAAAAAAAAAAAAAAAAAA"), Some(([0; 16], None)));
        assert_eq!(bytes("AAAAAAAAAAAAAAAAAAAAAA==,12"), Some(([0; 16], Some(12))));
        for bad in ["AAAAAAAAAAAAAAAAAAAAAA,0", "AAAAAAAAAAAAAAAAAAAAAA,", "", "AAAA", "!,1"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_link_is_read(link: Vec<u8>) {
            let _ = (read_link(&link), old_link(&link, "s"));
        }
    }
}
