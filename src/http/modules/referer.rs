//! `valid_referers`: whether the page that led here is one of ours; sets `$invalid_referer`.

use crate::conf::*;
use crate::http::{HttpModule, Merging, Regex, Request, VariableTable};
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// The module.
pub struct Referer;

impl HttpModule for Referer {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("valid_referers", SRV | LOC, call(at_least(1), RawLoc::add)),
        d("referer_hash_max_size", SRV | LOC, size(|c| &mut c.hash_size)),
        d("referer_hash_bucket_size", SRV | LOC, size(|c| &mut c.bucket_size)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        if raw.rules.is_empty() && !raw.any_said() {
            return Ok(Loc { valid: up.valid.clone(), server_names: up.server_names });
        }
        let valid = Valid { none: raw.none, blocked: raw.blocked, rules: raw.rules };
        Ok(Loc { valid: Some(Rc::new(valid)), server_names: raw.server_names })
    }
}

/// What was written. The sizes are nginx's; the table here sizes itself.
#[derive(Default)]
pub struct RawLoc {
    none: bool,
    blocked: bool,
    server_names: bool,
    rules: Vec<Rule>,
    hash_size: Option<u64>,
    bucket_size: Option<u64>,
}

/// What is in force; `None`: nothing was said, every referer is valid.
#[derive(Default)]
pub struct Loc {
    valid: Option<Rc<Valid>>,
    server_names: bool,
}

struct Valid {
    none: bool,
    blocked: bool,
    rules: Vec<Rule>,
}

/// One name of a `valid_referers`.
enum Rule {
    /// A host, perhaps with `*.` before or `.*` behind it, and the beginning of a path.
    Host { host: Host, path: String },
    /// An expression over what follows the scheme.
    Regex(Regex),
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Exact(String),
    /// `*.example.com` as `.example.com`
    Suffix(String),
    /// `www.example.*` as `www.example.`
    Prefix(String),
}

impl RawLoc {
    fn any_said(&self) -> bool {
        self.none || self.blocked || self.server_names
    }

    fn add(&mut self, r: &mut Reading) -> Result<(), Reason> {
        define_variable(r)?;
        for word in r.take_args() {
            match word.as_str() {
                "none" => self.none = true,
                "blocked" => self.blocked = true,
                "server_names" => self.server_names = true,
                text if text.starts_with('~') => {
                    self.rules.push(Rule::Regex(Regex::compile(&text[1..], true, r)?));
                }
                text => self.rules.push(host_rule(text)?),
            }
        }
        Ok(())
    }
}

/// `$invalid_referer` exists where `valid_referers` was written once.
fn define_variable(r: &mut Reading) -> Result<(), Reason> {
    #[derive(Default)]
    struct Defined(bool);
    if std::mem::replace(&mut r.shelf.of::<Defined>().0, true) {
        return Ok(());
    }
    let rule = Rc::new(|r: &Request, out: &mut Vec<u8>| {
        if !is_valid(r) {
            out.push(b'1');
        }
        true
    });
    r.shelf.of::<VariableTable>().compute("invalid_referer", true, rule).map(|_| ())
}

fn host_rule(text: &str) -> Result<Rule, Reason> {
    let invalid = || Reason::says(format!("invalid host name \"{text}\""));
    if text.contains("://") {
        return Err(invalid());
    }
    let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
    let host = host.to_ascii_lowercase();
    let host = if let Some(suffix) = host.strip_prefix('*') {
        Host::Suffix(suffix.to_owned())
    } else if let Some(prefix) = host.strip_suffix('*') {
        Host::Prefix(prefix.to_owned())
    } else {
        Host::Exact(host)
    };
    Ok(Rule::Host { host, path: path.to_owned() })
}

/// A shorter value names no page.
const SHORTEST: usize = "http://i.ru".len();
/// Longer hosts are nobody's.
const HOST_MAX_BYTES: usize = 256;

fn is_valid(r: &Request) -> bool {
    let loc = r.conf::<Referer>();
    let Some(valid) = &loc.valid else { return true };
    let Some(value) = r.header(HeaderId::Referer) else { return valid.none };
    let text = String::from_utf8_lossy(value);
    let lower = text.to_ascii_lowercase();
    if value.len() < SHORTEST {
        return valid.blocked;
    }
    let scheme = ["http://", "https://"].iter().find(|s| lower.starts_with(**s));
    let Some(scheme) = scheme else { return valid.blocked };
    let rest = &text[scheme.len()..];
    let host_end = rest.find(['/', ':']).unwrap_or(rest.len());
    if host_end > HOST_MAX_BYTES {
        return false;
    }
    let host = rest[..host_end].to_ascii_lowercase();
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    if loc.server_names && is_own_name(r, &host) {
        return true;
    }
    valid.rules.iter().any(|rule| match rule {
        Rule::Host { host: wanted, path: start } => wanted.holds(&host) && path.starts_with(start),
        Rule::Regex(regex) => regex.is_match(rest.as_bytes()),
    })
}

/// `server_names`: a name that leads to the server that the request is for.
fn is_own_name(r: &Request, host: &str) -> bool {
    let names = &r.client.address.names;
    let found = names.by_name(host).or_else(|| names.by_regex(host).map(|(_, server)| server));
    found.is_some_and(|server| Rc::ptr_eq(server, &r.place.server))
}

impl Host {
    fn holds(&self, host: &str) -> bool {
        match self {
            Host::Exact(name) => match name.strip_prefix('.') {
                Some(bare) => host == bare || host.ends_with(name),
                None => host == name,
            },
            Host::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            Host::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        match host_rule(text).unwrap() {
            Rule::Host { host, .. } => host,
            Rule::Regex(_) => unreachable!(),
        }
    }

    #[test]
    fn hosts_and_wildcards() {
        assert!(host("example.com").holds("example.com"));
        assert!(host(".example.com").holds("example.com"));
        assert!(host(".example.com").holds("a.example.com"));
        assert!(host("*.example.com").holds("a.example.com"));
        assert!(!host("*.example.com").holds("example.com"));
        assert!(host("www.example.*").holds("www.example.org"));
        assert!(!host("example.com").holds("badexample.com"));
        assert!(host_rule("http://x").is_err());
    }
}
