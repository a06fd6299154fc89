//! Which clients may get a compressed reply.
//!
//! Reads: `gzip_vary`, `gzip_http_version`, `gzip_proxied`, `gzip_disable`.
//! Used by: `gzip`, `gunzip`, `gzip_static`.

use super::{HttpModule, Merging, Regex, Request};
use crate::conf::*;
use crate::proto::h1::Version;
use crate::proto::header::HeaderId;
use crate::proto::{date, params};
use crate::sys::time;
use memchr::memmem;
use std::rc::Rc;

/// The rules of a place.
pub struct GzipRules;

impl HttpModule for GzipRules {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("gzip_vary",         ANY_HTTP, flag(|c| &mut c.vary)),
        d("gzip_http_version", ANY_HTTP, choice(&["1.0", "1.1"], |c| &mut c.version)),
        d("gzip_proxied",      ANY_HTTP, call(at_least(1), RawLoc::proxied)),
        d("gzip_disable",      ANY_HTTP, call(at_least(1), RawLoc::disable)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            vary: raw.vary.unwrap_or(up.vary),
            version: match raw.version {
                Some("1.0") => Version::Http10,
                Some(_) => Version::Http11,
                None => up.version,
            },
            proxied: raw.proxied.unwrap_or_else(|| up.proxied.clone()),
            disable: raw.disable.map_or_else(|| up.disable.clone(), Rc::from),
            disable_msie6: raw.disable_msie6.unwrap_or(up.disable_msie6),
        })
    }
}

#[derive(Default)]
pub struct RawLoc {
    vary: Option<bool>,
    version: Option<&'static str>,
    proxied: Option<Rc<[&'static str]>>,
    disable: Option<Vec<Regex>>,
    disable_msie6: Option<bool>,
}

/// The rules of one location.
pub struct Loc {
    vary: bool,
    version: Version,
    /// Words of `gzip_proxied`; none means `off`.
    proxied: Rc<[&'static str]>,
    disable: Rc<[Regex]>,
    disable_msie6: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            vary: false,
            version: Version::Http11,
            proxied: Rc::new([]),
            disable: Rc::new([]),
            disable_msie6: false,
        }
    }
}

const PROXIED: &[&str] = &[
    "off",
    "expired",
    "no-cache",
    "no-store",
    "private",
    "no_last_modified",
    "no_etag",
    "auth",
    "any",
];

impl RawLoc {
    fn proxied(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let mut words: Vec<&'static str> = self.proxied.take().map_or(Vec::new(), |w| w.to_vec());
        for word in r.args() {
            let Some(known) = PROXIED.iter().find(|known| *known == word) else {
                return Err(Reason::says(format!("invalid value \"{word}\"")));
            };
            words.push(known);
        }
        self.proxied = Some(words.into());
        Ok(())
    }

    fn disable(&mut self, r: &mut Reading) -> Result<(), Reason> {
        for word in r.take_args() {
            if word == "msie6" {
                self.disable_msie6 = Some(true);
            } else {
                let regex = Regex::compile(&word, true, r)?;
                self.disable.get_or_insert_default().push(regex);
            }
        }
        Ok(())
    }
}

/// Whether the reply depends on what the client accepts: caches are told.
pub fn vary(r: &mut Request) {
    if r.conf::<GzipRules>().vary
        && !r.reply.fields.all(HeaderId::Vary).any(|value| value == b"Accept-Encoding")
    {
        r.reply.fields.push(HeaderId::Vary, b"Accept-Encoding");
    }
}

/// Whether caches are told at this place.
pub fn varies(r: &Request) -> bool {
    r.conf::<GzipRules>().vary
}

/// Whether the client may get gzip.
pub fn accepts(r: &Request) -> bool {
    let rules = r.conf::<GzipRules>();
    let Some(accepted) = r.header(HeaderId::AcceptEncoding) else { return false };
    if r.is_subrequest
        || !(accepted.starts_with(b"gzip,") || names_gzip(accepted))
        || r.head.version < rules.version
    {
        return false;
    }
    let agent = r.header(HeaderId::UserAgent);
    if rules.disable_msie6 && agent.is_some_and(is_msie6) {
        return false;
    }
    if r.header(HeaderId::Via).is_some() && !rules.lets_proxies(r) {
        return false;
    }
    !agent.is_some_and(|agent| rules.disable.iter().any(|regex| regex.is_match(agent)))
}

impl Loc {
    /// `gzip_proxied`, for a request that came through a proxy.
    fn lets_proxies(&self, r: &Request) -> bool {
        let says = |word: &str| self.proxied.contains(&word);
        if self.proxied.is_empty() || says("off") {
            return false;
        }
        if says("any") || r.header(HeaderId::Authorization).is_some() && says("auth") {
            return true;
        }
        let fields = &r.reply.fields;
        if let Some(expires) = fields.get(HeaderId::Expires) {
            let now = match fields.get(HeaderId::Date) {
                Some(date) => date::parse(date),
                None => Some(time::unix_seconds()),
            };
            let is_over = date::parse(expires).zip(now).is_some_and(|(end, now)| end < now);
            return says("expired") && is_over;
        }
        if fields.get(HeaderId::CacheControl).is_some() {
            let mut words = ["no-cache", "no-store", "private"].into_iter().filter(|w| says(w));
            return words.any(|word| {
                fields
                    .all(HeaderId::CacheControl)
                    .any(|value| params::has_word(value, word.as_bytes()))
            });
        }
        !(says("no_last_modified") && r.reply.last_modified.is_some()
            || says("no_etag") && r.reply.etag.is_some())
    }
}

/// `gzip` with a quality above 0, anywhere in the list.
fn names_gzip(list: &[u8]) -> bool {
    let lower = list.to_ascii_lowercase();
    let mut ends = memmem::find_iter(&lower, b"gzip")
        .filter(|at| *at == 0 || matches!(lower[at - 1], b',' | b' '))
        .map(|at| at + 4);
    let Some(end) = ends.next() else { return false };
    let rest = trim(&lower[end..]);
    match rest.split_first() {
        None | Some((b',', _)) => true,
        Some((b';', quality)) => {
            let quality = trim(quality);
            match quality.split_first() {
                None => true,
                Some((b'q', value)) => is_above_zero(value),
                Some(_) => false,
            }
        }
        Some(_) => false,
    }
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// `=0.001` to `=1.000`.
fn is_above_zero(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b"=") else { return false };
    let end = text.iter().position(|b| matches!(b, b',' | b' ')).unwrap_or(text.len());
    let (whole, fraction) = match &text[..end] {
        [whole] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return false,
    };
    let digits = fraction.len() <= 3 && fraction.iter().all(u8::is_ascii_digit);
    let some = fraction.iter().any(|digit| *digit != b'0');
    digits && (whole == b'1' && !some || whole == b'0' && some)
}

/// Internet Explorer before 6 SP 2, unless it is Opera in disguise.
fn is_msie6(agent: &[u8]) -> bool {
    let Some(at) = memmem::find(agent, b"MSIE ") else { return false };
    let old = match agent.get(at + 5..at + 7) {
        Some(b"4." | b"5.") => true,
        Some(b"6.") => memmem::find(&agent[at..], b"SV1").is_none(),
        _ => false,
    };
    old && memmem::find(agent, b"Opera").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_accept() {
        for (list, want) in [
            ("gzip", true),
            ("deflate, gzip", true),
            ("GZip ;q=1", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0.001, x", true),
            ("gzip; Q=1.000", true),
            ("gzip;q=1.001", false),
            ("gzip;q=0.0001", false),
            ("gzip;q=2", false),
            ("gzip;q=", false),
            ("gzip;x", false),
            ("gzipped", false),
            ("x-gzip", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(names_gzip(list.as_bytes()), want, "{list}");
        }
    }

    #[test]
    fn old_browsers() {
        assert!(is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.0)"));
        assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)"));
        assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 7.0)"));
        assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0) Opera 8"));
        assert!(!is_msie6(b"curl/8"));
    }
}
